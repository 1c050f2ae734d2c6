//! Who may do what: roles are the guest's to check, identities the owner's to keep.

use crate::rig::{Pod, text};

#[test]
fn a_role_does_what_it_may_and_no_more() -> anyhow::Result<()> {
    let pod = Pod::with_container()?;
    let missing = pod.fails_with(1, &["--as", "viewer", "ps", "demo"]);
    assert!(missing.stderr.contains("postern init --role viewer"), "{}", missing.stderr);
    pod.ok(&["init", "--role", "viewer", "--role", "operator", "--role", "auditor"]);
    pod.ok(&["--as", "viewer", "ps", "demo"]);
    pod.ok(&["--as", "viewer", "logs", "demo/web"]);
    pod.fails_with(5, &["--as", "viewer", "kill", "demo/web"]);
    let denied = pod.fails_with(125, &["--as", "viewer", "exec", "demo/web", "true"]);
    assert!(denied.stderr.contains("viewer") && denied.stderr.contains("hint: "), "{}", denied.stderr);
    pod.ok(&["--as", "operator", "exec", "demo/web", "true"]);
    pod.ok(&["--as", "auditor", "audit", "demo"]);
    pod.fails_with(5, &["--as", "auditor", "logs", "demo/web"]);
    pod.fails_with(2, &["--as", "king", "ps", "demo"]);
    Ok(())
}

#[test]
fn a_phase_refuses_like_a_role_and_another_state_does_not() -> anyhow::Result<()> {
    let booting = Pod::booting()?;
    booting.ok(&["pod", "verify", "demo"]);
    let early = booting.fails_with(5, &["stop", "demo/web"]);
    assert!(early.stderr.contains("wait until the host has configured the sandbox"), "{}", early.stderr);
    let pod = Pod::with_container()?;
    let running = pod.fails_with(1, &["rm", "demo/web"]);
    assert!(running.stderr.contains("container web is running"), "{}", running.stderr);
    Ok(())
}

#[test]
fn another_owner_is_refused_whatever_it_knows() -> anyhow::Result<()> {
    let pod = Pod::with_container()?;
    let stranger = pod.stranger()?;
    let (root, init_data) = (pod.root(), pod.init_data());
    stranger.ok(&["trust", "add", "--simulated", text(&root), "--accept-risk=simulated-tee"]);
    stranger.ok(&["trust", "add", "--measurement", &"5a".repeat(48)]);
    let endpoint = format!("tcp://{}", pod.address);
    let args = [
        "pod",
        "add",
        "demo",
        "--endpoint",
        &endpoint,
        "--init-data",
        text(&init_data),
        "--accept-risk=simulated-tee",
    ];
    stranger.ok(&args);
    let refused = stranger.fails_with(5, &["ps", "demo"]);
    assert!(refused.stderr.contains("refused this owner"), "{}", refused.stderr);
    stranger.fails_with(125, &["exec", "demo/web", "true"]);
    pod.ok(&["exec", "demo/web", "true"]);
    Ok(())
}

#[test]
fn an_identity_is_not_replaced_by_accident() -> anyhow::Result<()> {
    let pod = Pod::start()?;
    let again = pod.fails_with(1, &["init"]);
    assert!(again.stderr.contains("--accept-risk=replace-identity"), "{}", again.stderr);
    pod.ok(&["ps", "demo"]);
    pod.ok(&["init", "--accept-risk=replace-identity"]);
    pod.fails_with(5, &["ps", "demo"]);
    Ok(())
}
