//! The beginning: an identity, a pod in a VM, its verification.

use super::{POD, Stage, contains};

pub(super) fn identity(stage: &mut Stage) -> anyhow::Result<String> {
    stage.ok(&["init"])?;
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

pub(super) fn verify(stage: &mut Stage) -> anyhow::Result<String> {
    let said = stage.ok(&["pod", "verify", POD])?;
    let checks = ["vendor chain", "TCB", "measurement", "host data", "session binding", "this instance"];
    for check in checks {
        contains("pod verify", &said.text(), check)?;
    }
    contains("pod verify", &said.text().to_lowercase(), "simulated")?;
    Ok(checks.map(|check| format!("{check} ✓")).join("  "))
}
