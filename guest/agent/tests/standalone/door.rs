//! Who stays at the owner's door, and for how long.

use std::{
    io::{ErrorKind, Read},
    net::{Ipv4Addr, TcpStream},
    time::Duration,
};

use postern_api::owner::InspectPodRequest;
use postern_model::Role;
use postern_tunnel::Validity;
use tonic::Code;

use crate::rig::{HostDataOf, now, owned, try_start_at};

/// Places for connections from inside a pod, as the agent has them.
const INSIDE: usize = 8;

#[tokio::test]
async fn a_certificate_lasts_no_longer_because_its_connection_does() {
    let (agent, mut lasting) = owned().await;
    let mut brief = agent.connect_for(Role::Admin, Validity::starting(now(), Duration::from_secs(3))).await;
    let refused = loop {
        match brief.pod.inspect(InspectPodRequest {}).await {
            Ok(_) => tokio::task::yield_now().await,
            Err(status) => break status,
        }
    };
    assert_eq!(refused.code(), Code::Unauthenticated, "{refused}");
    assert!(refused.message().contains("has expired"), "{refused}");
    lasting.pod.inspect(InspectPodRequest {}).await.unwrap();
}

/// A workload shares the pod's network: it may knock, and must not fill the hall.
#[test]
fn connections_from_inside_the_pod_have_few_places() {
    let agent = try_start_at("tcp://0.0.0.0:0", HostDataOf::InitData).unwrap();
    let connect = || TcpStream::connect((Ipv4Addr::LOCALHOST, agent.owner.port())).unwrap();
    let waiting: Vec<_> = (0..INSIDE).map(|_| connect()).collect();
    for _ in 0..INSIDE {
        let mut surplus = connect();
        surplus.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        // Closed at once, or reset.
        assert!(matches!(surplus.read(&mut [0]), Ok(0) | Err(_)));
    }
    for mut stream in waiting {
        stream.set_nonblocking(true).unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    }
}
