//! A secret of the owner's is looked for in everything that the host sees of the agent: its output and its answers.

use postern_api::owner::ContainerSpec;

use crate::{
    kata::{NAME, WEB, create, process, read, signal, start},
    raw::AGENT,
    rig::Agent,
    workload::{push, run, shell},
};

const CANARY: &str = "canary-4f1c9e";

#[tokio::test]
async fn the_secret_is_in_the_container_and_nowhere_else() -> anyhow::Result<()> {
    let (mut agent, mut host, door) = Agent::owned().await?;
    push(&door).await?;
    let spec = ContainerSpec {
        env: [("SECRET".to_owned(), CANARY.to_owned())].into(),
        hostname: CANARY.into(),
        labels: [(CANARY.to_owned(), CANARY.to_owned())].into(),
        ..shell("web", &format!("echo {CANARY} | tee /tmp/secret; echo {CANARY} >&2; sleep 1000"))
    };
    run(&door, spec).await?;
    crate::workload::until_printed(&door, "web", CANARY).await?;
    let (seen, _) =
        door.exec("web", &["sh", "-c", &format!("cat /tmp/secret; echo {CANARY}; echo $SECRET")]).await?;
    assert_eq!(String::from_utf8_lossy(&seen), format!("{CANARY}\n{CANARY}\n{CANARY}\n"));
    // Failures carry words of their request too.
    assert!(door.exec(&format!("no-{CANARY}"), &["true"]).await.is_err());
    assert!(door.exec("web", &[CANARY]).await.is_err(), "no such command");

    let mut answers = String::new();
    for (method, body) in [
        ("GetGuestDetails", Vec::new()),
        ("GetMetrics", Vec::new()),
        ("StatsContainer", prost::Message::encode_to_vec(&process("web", ""))),
        ("ReadStdout", prost::Message::encode_to_vec(&read("web", u32::MAX))),
        ("SignalProcess", prost::Message::encode_to_vec(&signal("web", "", 9))),
        ("CreateContainer", prost::Message::encode_to_vec(&create(WEB, &[(NAME, "web")]))),
        ("StartContainer", prost::Message::encode_to_vec(&start("web"))),
        ("ListInterfaces", Vec::new()),
    ] {
        let outcome = host.call(AGENT, method, body).await?;
        answers.push_str(&match outcome {
            Ok(payload) => String::from_utf8_lossy(&payload).into_owned(),
            Err(refused) => refused.message,
        });
    }
    assert!(!answers.contains(CANARY), "{answers}");
    // Once it has ended, all it had to say is said.
    host.call(AGENT, "DestroySandbox", Vec::new()).await??;
    agent.ended()?;
    let said = agent.said();
    assert!(!said.contains(CANARY), "{said}");
    Ok(())
}
