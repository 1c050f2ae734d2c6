//! The host looks for the owner in what it is told: fields it should not get, names, numbers that move.

use postern_api::{
    host,
    wire::{Fields, Value},
};
use prost::Message as _;

use crate::{
    kata::{NAME, WEB, create, process},
    raw::{AGENT, HEALTH, Host},
    workload::{declared, run, shell},
};

/// Every path of field numbers in a message, one message deep at a time.
fn schema(message: &[u8], nested: &[&[u32]], path: &[u32], into: &mut Vec<Vec<u32>>) {
    for field in Fields::new(message).flatten() {
        let mut path = path.to_vec();
        path.push(field.0);
        if let Value::Bytes(bytes) = field.1
            && nested.contains(&path.as_slice())
        {
            schema(bytes, nested, &path, into);
        }
        into.push(path);
    }
}

const METHODS: [(&str, &str, &[&[u32]]); 5] = [
    (HEALTH, "Check", &[]),
    (HEALTH, "Version", &[]),
    (AGENT, "GetGuestDetails", &[&[2]]),
    (AGENT, "GetMetrics", &[]),
    (AGENT, "ListInterfaces", &[]),
];

async fn answers(host: &mut Host) -> anyhow::Result<Vec<Vec<u8>>> {
    let mut answers = Vec::new();
    for (service, method, _) in METHODS {
        answers.push(host.call(service, method, Vec::new()).await??);
    }
    Ok(answers)
}

#[tokio::test]
async fn what_the_host_is_told_does_not_depend_on_the_owner() -> anyhow::Result<()> {
    let (_agent, mut host, door) = declared("sleep 1000", true).await?;
    let before = answers(&mut host).await?;
    run(&door, shell("distinctive-name", "sleep 1000 # distinctive-argument")).await?;
    let after = answers(&mut host).await?;
    assert_eq!(before, after, "not a byte differs");
    for ((_, method, nested), answer) in METHODS.iter().zip(&after) {
        let mut fields = Vec::new();
        schema(answer, nested, &[], &mut fields);
        let allowed: &[&[u32]] = match *method {
            "Check" => &[&[1]],
            "Version" => &[&[1], &[2]],
            "GetGuestDetails" => &[&[1], &[2], &[2, 1], &[2, 2], &[2, 5]],
            "GetMetrics" => &[&[1]],
            _ => &[],
        };
        assert!(fields.iter().all(|path| allowed.contains(&path.as_slice())), "{method}: {fields:?}");
        assert!(!String::from_utf8_lossy(answer).contains("distinctive"), "{method}");
    }
    Ok(())
}

#[tokio::test]
async fn counters_are_the_pods_and_stand_still() -> anyhow::Result<()> {
    let (_agent, mut host, door) = declared("while :; do :; done", true).await?;
    host.agent("CreateContainer", &create(WEB, &[(NAME, "web")])).await??;
    host.agent("StartContainer", &crate::kata::start(WEB)).await??;
    let first = host.agent("StatsContainer", &process(WEB, "")).await??;
    let mut fields = Vec::new();
    schema(&first, &[&[1], &[1, 1], &[1, 1, 1], &[1, 2], &[1, 2, 2]], &[], &mut fields);
    let allowed: [&[u32]; 7] = [&[1], &[1, 1], &[1, 1, 1], &[1, 1, 1, 1], &[1, 2], &[1, 2, 2], &[1, 2, 2, 1]];
    assert!(fields.iter().all(|path| allowed.contains(&path.as_slice())), "{fields:?}");
    for _ in 0..100 {
        assert_eq!(
            host.agent("StatsContainer", &process(WEB, "")).await??,
            first,
            "no finer by asking more often"
        );
    }
    let usage = host::StatsContainerResponse::decode(&*first)?.cgroup_stats.unwrap_or_default();
    let cpu = usage.cpu_stats.and_then(|cpu| cpu.cpu_usage).unwrap_or_default().total_usage;
    assert_eq!(cpu % 1_000_000_000, 0, "whole seconds");
    // The owner has the fine figure.
    let exact = door
        .containers()
        .stats(postern_api::owner::StatsRequest { containers: vec!["web".into()], interval_millis: 0 })
        .await?
        .into_inner()
        .message()
        .await?
        .expect("one sample");
    assert!(exact.containers[0].cpu_usage_nanos > 0);
    Ok(())
}
