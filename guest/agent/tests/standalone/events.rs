//! What the owner hears of containers that it is not connected to.

use futures_util::StreamExt;
use postern_api::owner::{Event, EventsRequest, Resources};

use crate::{
    containers::{push, run, spec},
    rig,
};

async fn next(events: &mut tonic::Streaming<Event>) -> (String, String) {
    let wait = tokio::time::timeout(std::time::Duration::from_secs(60), events.next());
    let event = wait.await.expect("an event comes").unwrap().unwrap();
    (event.kind, event.subject)
}

#[tokio::test]
async fn a_process_killed_for_want_of_memory_is_told_while_the_container_lives() {
    let (_agent, mut owner) = rig::owned().await;
    push(&mut owner).await;
    let mut events = owner.pod.events(EventsRequest { history: false }).await.unwrap().into_inner();
    // `tail` keeps the last line, and zeros are one line without an end.
    let mut hog = spec("hog", &["sh", "-c", "head -c 200000000 /dev/zero | tail; sleep 1000"]);
    hog.resources = Some(Resources { memory_bytes: 24 << 20, ..Default::default() });
    run(&mut owner, hog).await;
    for kind in ["create", "start", "oom"] {
        assert_eq!(next(&mut events).await, (kind.to_owned(), "hog".to_owned()));
    }
}

#[tokio::test]
async fn the_history_tells_what_has_been() {
    let (_agent, mut owner) = rig::owned().await;
    push(&mut owner).await;
    run(&mut owner, spec("brief", &["true"])).await;
    let mut events = owner.pod.events(EventsRequest { history: true }).await.unwrap().into_inner();
    for (kind, subject) in [
        ("ready", ""),
        ("handover", ""),
        ("push", "docker.io/library/busybox:latest"),
        ("create", "brief"),
        ("start", "brief"),
        ("exit", "brief"),
    ] {
        assert_eq!(next(&mut events).await, (kind.to_owned(), subject.to_owned()));
    }
}
