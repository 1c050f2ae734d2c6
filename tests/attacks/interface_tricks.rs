//! The host reaches for loopback through names, addresses, routes and neighbours, and for the guest's memory by number.

use postern_api::host;

use crate::{
    kata::{eth0, routes, update},
    raw::{AGENT, code},
    rig::Agent,
};

fn address(address: &str, mask: &str) -> host::IpAddress {
    host::IpAddress { family: 0, address: address.into(), mask: mask.into() }
}

#[tokio::test]
async fn loopback_stays_the_guests() -> anyhow::Result<()> {
    let agent = Agent::start()?;
    let mut host = agent.host().await?;
    host.agent("UpdateInterface", &update(eth0())).await??;
    let mut tricks = Vec::new();
    for name in ["lo", "lo0", "all", "../lo", "eth1"] {
        // The last: the card has a name already, so eth0 -> eth1 -> lo does not begin.
        tricks.push(host::Interface { name: name.into(), ..eth0() });
    }
    for (ip, mask) in [
        ("127.0.0.1", "8"),
        ("::1", "128"),
        ("::ffff:127.0.0.1", "128"),
        ("126.0.0.1", "7"),
        ("169.254.169.254", "32"),
    ] {
        tricks.push(host::Interface { ip_addresses: vec![address(ip, mask)], ..eth0() });
    }
    tricks.push(host::Interface { ip_addresses: vec![address("10.0.2.15", "24"); 10_000], ..eth0() });
    tricks.push(host::Interface { raw_flags: 0x8, ..eth0() });
    tricks.push(host::Interface { mtu: 1, ..eth0() });
    // The same card under a second name, and a second card under the same name.
    tricks.push(host::Interface { hw_addr: "52:54:00:12:34:57".into(), ..eth0() });
    tricks.push(host::Interface { hw_addr: "ff:ff:ff:ff:ff:ff".into(), ..eth0() });
    for trick in tricks {
        let name = trick.name.clone();
        assert_eq!(code(&host.agent("UpdateInterface", &update(trick)).await?), 3, "{name}");
    }
    let route = host::Route { gateway: "10.0.2.2".into(), device: "eth0".into(), ..Default::default() };
    for dest in ["127.0.0.0/8", "127.0.0.1", "::1/128", "0.0.0.0/1", "169.254.169.254/32"] {
        let trick = host::Route { dest: dest.into(), gateway: String::new(), ..route.clone() };
        assert_eq!(code(&host.agent("UpdateRoutes", &routes(vec![trick])).await?), 3, "{dest}");
    }
    for trick in [
        host::Route { source: "127.0.0.1".into(), ..route.clone() },
        host::Route { gateway: "127.0.0.1".into(), ..route.clone() },
        host::Route { device: "lo".into(), ..route.clone() },
        host::Route { device: "wg0".into(), ..route.clone() },
        host::Route { scope: 254, ..route.clone() },
    ] {
        assert_eq!(code(&host.agent("UpdateRoutes", &routes(vec![trick])).await?), 3);
    }
    assert_eq!(code(&host.agent("UpdateRoutes", &routes(vec![route.clone(); 1000])).await?), 3);
    let neighbor = host::ArpNeighbor {
        to_ip_address: Some(address("127.0.0.1", "32")),
        device: "eth0".into(),
        lladdr: "52:54:00:12:34:99".into(),
        state: 0x80,
        flags: 0,
    };
    let neighbors = host::AddArpNeighborsRequest {
        neighbors: Some(host::ArpNeighbors { arp_neighbors: vec![neighbor] }),
    };
    assert_eq!(code(&host.agent("AddARPNeighbors", &neighbors).await?), 3);

    // What is honest goes through, and is all there is.
    host.agent("UpdateRoutes", &routes(vec![route])).await??;
    let listed = host.call(AGENT, "ListInterfaces", Vec::new()).await??;
    let listed: host::Interfaces = prost::Message::decode(&*listed)?;
    assert_eq!(listed.interfaces, [eth0()]);
    Ok(())
}
