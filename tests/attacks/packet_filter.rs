//! SetIPTables: rules that would send the pod's own traffic to the host.

use prost::Message;

use crate::{
    raw::{AGENT, code},
    rig::{Agent, audited},
};

/// Kata's SetIPTablesRequest (agent.proto).
#[derive(Clone, PartialEq, Message)]
struct SetIpTables {
    #[prost(bool, tag = "1")]
    is_ipv6: bool,
    #[prost(bytes = "vec", tag = "2")]
    data: Vec<u8>,
}

const RULES: &str = "*nat\n-A OUTPUT -p tcp -d 127.0.0.1 --dport 8006 -j DNAT --to 10.0.2.2:8006\nCOMMIT\n";

#[tokio::test]
async fn the_packet_filter_is_not_the_hosts() -> anyhow::Result<()> {
    let (agent, mut host) = Agent::ready().await?;
    let rules =
        || std::fs::read_to_string(format!("/proc/{}/net/ip_tables_names", agent.pid())).unwrap_or_default();
    let before = rules();
    for is_ipv6 in [false, true] {
        let request = SetIpTables { is_ipv6, data: RULES.into() };
        for method in ["SetIPTables", "GetIPTables"] {
            assert_eq!(code(&host.call(AGENT, method, request.encode_to_vec()).await?), 7, "{method}");
        }
    }
    assert_eq!(rules(), before);
    assert_eq!(audited(&agent.door().await?, "SetIPTables", "refused").await?, 2);
    Ok(())
}
