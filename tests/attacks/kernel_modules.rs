//! Kernel modules in CreateSandbox: names that modprobe would take as options.

use postern_api::host::KernelModule;

use crate::{
    raw::code,
    rig::{Agent, sandbox},
};

#[tokio::test]
async fn no_module_is_accepted_by_any_name() -> anyhow::Result<()> {
    let agent = Agent::start()?;
    let mut host = agent.host().await?;
    for name in ["-C", "-d", "--dirname", "--show-depends", "../x", "loop", ""] {
        let mut request = sandbox();
        request.kernel_modules.push(KernelModule { name: name.into() });
        assert_eq!(code(&host.agent("CreateSandbox", &request).await?), 3, "{name:?}");
    }
    host.agent("CreateSandbox", &sandbox()).await??;
    Ok(())
}
