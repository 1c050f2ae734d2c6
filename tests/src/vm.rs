//! A pod in a real VM, with an owner and a host of its own. It ends with the value.

use std::time::Duration;

use anyhow::Context as _;

use crate::{
    archive::ImageRecipe,
    home::{Home, Said},
    terminal::Terminal,
};

/// The pod's name.
pub const POD: &str = "demo";
/// How long a boot, under emulation on a loaded machine, may take.
const BOOT: Duration = Duration::from_secs(180);

#[derive(Debug)]
pub struct Vm {
    pub home: Home,
    folder: tempfile::TempDir,
}

impl Vm {
    /// An owner with an identity and no pod yet.
    pub fn none() -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("postern-vm-").tempdir()?;
        let home = Home::new(folder.path().join("owner"))?;
        home.postern(&["init"])?.ok()?;
        Ok(Self { home, folder })
    }

    /// A pod with busybox in it, created on a terminal that has hung up since.
    pub fn boot(extra: &[&str]) -> anyhow::Result<Self> {
        let vm = Self::none()?;
        let mut command = vm.home.command("postern")?;
        command.args(create(extra));
        let mut terminal = Terminal::spawn(command, 24, 80)?;
        terminal.expect("next: postern run demo", BOOT)?;
        anyhow::ensure!(terminal.wait(BOOT)? == 0, "postern pod create did not succeed");
        vm.push(&ImageRecipe::busybox("busybox:latest"))?.ok()?;
        Ok(vm)
    }

    /// `postern pod create demo`, however it ends.
    pub fn try_boot(&self, extra: &[&str]) -> anyhow::Result<Said> {
        self.home.postern(&create(extra))
    }

    /// Pushes an image, however it ends.
    pub fn push(&self, recipe: &ImageRecipe) -> anyhow::Result<Said> {
        let archive = self.folder.path().join("image.tar");
        recipe.write_oci_archive(&archive)?;
        self.home.postern(&["image", "push", POD, archive.to_str().context("a path that is not UTF-8")?])
    }

    /// Runs `postern`, which must succeed.
    pub fn ok(&self, args: &[&str]) -> anyhow::Result<Said> {
        self.home.postern(args)?.ok()
    }

    /// Runs a shell script in a container of the pod; what it printed.
    pub fn script(&self, container: &str, script: &str) -> anyhow::Result<String> {
        let container = format!("{POD}/{container}");
        Ok(self.ok(&["exec", &container, "--", "sh", "-c", script])?.text())
    }
}

fn create<'a>(extra: &[&'a str]) -> Vec<&'a str> {
    let mut args = vec!["pod", "create", POD, "--accept-risk=simulated-tee"];
    args.extend(extra);
    args
}

impl Drop for Vm {
    fn drop(&mut self) {
        // Of a pod that is not there nothing has to be removed.
        let _ = self.home.host(&["rm", "--stop", POD]);
    }
}
