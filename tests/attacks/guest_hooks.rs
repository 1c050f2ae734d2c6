//! A hook directory in CreateSandbox: what is in it would run as the guest's root, for every container.

use std::{fs, os::unix::fs::PermissionsExt as _};

use crate::{
    kata::{PAUSE, TYPE, create, start},
    raw::code,
    rig::{Agent, audited, sandbox},
};

#[tokio::test]
async fn no_hook_of_the_host_is_accepted_or_run() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let ran = folder.path().join("ran");
    let hook = folder.path().join("prestart");
    fs::create_dir(&hook)?;
    fs::write(hook.join("x"), format!("#!/bin/sh\ntouch {}\n", ran.display()))?;
    fs::set_permissions(hook.join("x"), fs::Permissions::from_mode(0o755))?;

    let agent = Agent::start()?;
    let mut host = agent.host().await?;
    let mut request = sandbox();
    request.guest_hook_path = folder.path().display().to_string();
    assert_eq!(code(&host.agent("CreateSandbox", &request).await?), 3);
    // The refusal has changed nothing: the honest request is still the first.
    host.agent("CreateSandbox", &sandbox()).await??;
    host.agent("CreateContainer", &create(PAUSE, &[(TYPE, "sandbox")])).await??;
    host.agent("StartContainer", &start(PAUSE)).await??;
    assert!(!ran.exists());
    let door = agent.door().await?;
    assert_eq!(audited(&door, "CreateSandbox", "refused").await?, 1);
    Ok(())
}
