//! Bodies made to blow up in a decoder: deep nesting, endless lists, broken text, doubled fields.

use postern_api::{host, ttrpc::request_frame};
use prost::Message as _;

use crate::{
    kata::{PAUSE, TYPE, create},
    raw::{AGENT, HEALTH, Host, code},
    rig::{Agent, sandbox},
};

/// `depth` messages in field `number` of each other.
fn nested(number: u8, depth: usize) -> Vec<u8> {
    let mut body = Vec::new();
    for _ in 0..depth {
        let mut outer = vec![number << 3 | 2];
        let mut length = body.len();
        while length >= 0x80 {
            outer.push(length as u8 | 0x80);
            length >>= 7;
        }
        outer.push(length as u8);
        outer.extend_from_slice(&body);
        body = outer;
    }
    body
}

async fn survives(host: &mut Host, method: &str, body: Vec<u8>) -> anyhow::Result<i32> {
    let outcome = host.call(AGENT, method, body).await?;
    host.call(HEALTH, "Check", Vec::new()).await??;
    Ok(code(&outcome))
}

#[tokio::test]
async fn no_body_brings_the_agent_down() -> anyhow::Result<()> {
    let agent = Agent::start()?;
    let mut host = agent.host().await?;
    let groups = vec![0x0b; 60_000];
    let empty_lists: Vec<u8> = [0x12, 0x00].repeat(30_000);
    let empty_storages: Vec<u8> = [0x1a, 0x00].repeat(30_000);
    let invalid_text = vec![0x0a, 0x02, 0xc3, 0x28];
    for body in [nested(6, 500), groups, empty_lists, empty_storages, invalid_text, vec![0x80; 60_000]] {
        assert_ne!(survives(&mut host, "CreateSandbox", body).await?, 0);
    }
    for method in ["UpdateInterface", "UpdateRoutes", "AddARPNeighbors"] {
        for body in [nested(1, 500), vec![0x0b; 60_000], [0x0a, 0x00].repeat(30_000)] {
            survives(&mut host, method, body).await?;
        }
    }
    // A field given twice: the last counts, as everywhere in protobuf, and it is the one that is checked.
    let mut doubled = sandbox().encode_to_vec();
    doubled.extend(
        host::CreateSandboxRequest { guest_hook_path: "/h".into(), ..Default::default() }.encode_to_vec(),
    );
    assert_eq!(survives(&mut host, "CreateSandbox", doubled).await?, 3);
    host.agent("CreateSandbox", &sandbox()).await??;
    Ok(())
}

#[tokio::test]
async fn a_specification_is_read_in_place() -> anyhow::Result<()> {
    let (_agent, mut host) = Agent::ready().await?;
    let honest = create(PAUSE, &[(TYPE, "sandbox")]).encode_to_vec();
    let mut bomb = honest.clone();
    bomb.extend(nested(6, 500));
    bomb.extend([0x22, 0x00].repeat(400_000));
    assert_eq!(
        survives(&mut host, "CreateContainer", bomb).await?,
        0,
        "known fields count, the rest is passed over"
    );
    Ok(())
}

#[tokio::test]
async fn an_envelope_with_endless_metadata_is_passed_over() -> anyhow::Result<()> {
    let agent = Agent::start()?;
    let mut host = agent.host().await?;
    let mut frame = request_frame(1, HEALTH, "Check", Vec::new(), 0);
    frame.extend([0x2a, 0x00].repeat(30_000));
    let length = u32::try_from(frame.len() - 10)?;
    frame[..4].copy_from_slice(&length.to_be_bytes());
    host.write(&frame).await?;
    assert_eq!(code(&host.answer().await?.1), 0);
    Ok(())
}
