//! The agent comes up only for its own init data, refuses what is not for the caller or the phase, and leaves nothing.

use postern_api::owner::{
    CreateRequest, HandoverRequest, InspectPodRequest, ListRequest, ReleaseRequest, StartRequest,
};
use postern_model::Role;
use tonic::Code;

use crate::rig::{self, HostDataOf};

#[tokio::test]
async fn serves_its_owner_and_ends_on_sigterm_without_a_trace() {
    let mut agent = rig::try_start(HostDataOf::InitData).unwrap();
    let mut owner = agent.connect(Role::Admin).await;
    let pod = owner.pod.inspect(InspectPodRequest {}).await.unwrap().into_inner();
    assert_eq!((pod.pod.as_str(), pod.phase.as_str(), pod.role.as_str()), ("demo", "booting", "admin"));
    let pid = agent.child.id();
    assert!(agent.terminate().success());
    assert!(!agent.host.exists());
    let left: Vec<_> = std::fs::read_dir(std::env::temp_dir())
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().into_string().ok())
        .filter(|name| name.starts_with(&format!("postern-agent-{pid}-")))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn does_not_serve_for_exchanged_init_data() {
    let refused = rig::try_start(HostDataOf::SomethingElse).err().unwrap();
    assert!(refused.contains("the host exchanged one of the two"), "{refused}");
}

#[tokio::test]
async fn phase_and_role_decide() {
    let agent = rig::try_start(HostDataOf::InitData).unwrap();
    let mut viewer = agent.connect(Role::Viewer).await;
    let mut admin = agent.connect(Role::Admin).await;
    let early = admin.pod.handover(HandoverRequest {}).await.unwrap_err();
    assert_eq!(early.code(), Code::FailedPrecondition, "{early}");
    agent.create_sandbox();
    let forbidden = viewer.pod.handover(HandoverRequest {}).await.unwrap_err();
    assert_eq!(forbidden.code(), Code::PermissionDenied, "{forbidden}");
    assert!(admin.pod.handover(HandoverRequest {}).await.unwrap().into_inner().changed);
    assert!(!admin.pod.handover(HandoverRequest {}).await.unwrap().into_inner().changed);
    assert!(
        viewer.containers.list(ListRequest { all: true }).await.unwrap().into_inner().containers.is_empty()
    );
}

#[tokio::test]
async fn ends_when_its_owner_releases_it() {
    let (mut agent, mut owner) = rig::owned().await;
    owner.pod.release(ReleaseRequest {}).await.unwrap();
    assert!(agent.child.wait().unwrap().success());
}

#[tokio::test]
async fn the_pods_own_containers_are_nobodys() {
    let (_agent, mut owner) = rig::owned().await;
    crate::containers::push(&mut owner).await;
    for name in ["postern-pause", "postern-rehearsal"] {
        let create = CreateRequest { spec: Some(crate::containers::spec(name, &["true"])) };
        let refused = owner.containers.create(create).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
        let start = owner.containers.start(StartRequest { container: name.into() }).await.unwrap_err();
        assert_eq!(start.code(), Code::NotFound, "{start}");
    }
    let all = owner.containers.list(ListRequest { all: true }).await.unwrap().into_inner();
    assert!(all.containers.is_empty(), "{all:?}");
    crate::containers::run(&mut owner, crate::containers::spec("web", &["sleep", "1000"])).await;
}
