//! The beginning: an identity, a pod in a VM, its verification.

use anyhow::Context as _;

use super::{POD, Stage, contains};
use crate::relay::Relay;

pub(super) fn identity(stage: &mut Stage) -> anyhow::Result<String> {
    stage.ok(&["init"])?;
    stage.use_host(&stage.tap.host())?;
    let again = stage.home.postern(&["init"])?;
    anyhow::ensure!(again.code != 0, "a second init replaced the identity");
    Ok("P-256 owner key; a second `init` does not replace it".into())
}

pub(super) fn create(stage: &mut Stage) -> anyhow::Result<String> {
    let refused = stage.home.postern(&["pod", "create", POD])?;
    anyhow::ensure!(refused.code != 0, "a simulated TEE was accepted without being named");
    contains("the refusal", &refused.stderr, "--accept-risk=simulated-tee")?;
    stage.ok(&["pod", "create", POD, "--accept-risk=simulated-tee"])?;
    let timeline = stage.ok(&["pod", "inspect", POD, "--output", "json"])?.json()?;
    let stage_millis = |name: &str| -> f64 {
        let stages = timeline["timeline"].as_array().into_iter().flatten();
        stages
            .filter(|stage| stage["stage"] == name)
            .filter_map(|stage| stage["millis"].as_f64())
            .sum::<f64>()
            / 1000.0
    };
    Ok(format!(
        "{}/{}: VMM {:.1} · kernel {:.1} · agent {:.1} · tunnel {:.1}",
        timeline["machine"].as_str().unwrap_or("?"),
        timeline["accelerator"].as_str().unwrap_or("?").to_uppercase(),
        stage_millis("vmm"),
        stage_millis("kernel"),
        stage_millis("agent"),
        stage_millis("tunnel"),
    ))
}

/// From here on the owner's bytes go through a wiretap: the network is the host's, and so is the address.
fn tap(stage: &mut Stage) -> anyhow::Result<()> {
    let record = stage.home.root().join("state/postern/pods").join(POD).join("pod.json");
    let mut json: serde_json::Value = serde_json::from_slice(&std::fs::read(&record)?)?;
    let endpoint = json["endpoint"].as_str().and_then(|url| url.strip_prefix("tcp://"));
    let relay = Relay::to(endpoint.context("pod.json has no TCP endpoint")?.parse()?)?;
    json["endpoint"] = format!("tcp://{}", relay.address()).into();
    std::fs::write(&record, serde_json::to_vec_pretty(&json)?)?;
    stage.relay = Some(relay);
    Ok(())
}

pub(super) fn verify(stage: &mut Stage) -> anyhow::Result<String> {
    tap(stage)?;
    let said = stage.ok(&["pod", "verify", POD])?;
    let checks = ["vendor chain", "TCB", "measurement", "host data", "session binding", "this instance"];
    for check in checks {
        contains("pod verify", &said.text(), check)?;
    }
    contains("pod verify", &said.text().to_lowercase(), "simulated")?;
    Ok(checks.map(|check| format!("{check} ✓")).join("  "))
}
