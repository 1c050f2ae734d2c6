//! Debian's docker-registry on the loopback, at a port the kernel chooses.

use std::{
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use tempfile::TempDir;

use crate::{
    archive::ImageRecipe,
    process::{Guarded, Lines},
    programs,
};

/// How long the registry may take to listen.
const START: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub struct Registry {
    port: u16,
    _process: Guarded,
    _log: Lines,
    folder: TempDir,
}

impl Registry {
    pub fn start() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let config = folder.path().join("config.yml");
        let storage = folder.path().join("storage");
        let text = format!(
            "version: 0.1\nlog:\n  level: info\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:0\n",
            storage.display()
        );
        std::fs::write(&config, text)?;
        let program = programs::system("docker-registry", "docker-registry")?;
        let mut process = Guarded::spawn(
            Command::new(program)
                .arg("serve")
                .arg(&config)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::piped()),
        )?;
        let log = Lines::of(process.child().stderr.take().context("no standard error")?);
        let port = log.find(START, |line| {
            let rest = line.split_once("listening on 127.0.0.1:")?.1;
            rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok()
        })?;
        Ok(Self { port, _process: process, _log: log, folder })
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Pushes an image; returns `NAME:TAG` in this registry.
    pub fn push(&self, recipe: &ImageRecipe, name: &str) -> anyhow::Result<String> {
        let archive = self.folder.path().join("push.tar");
        recipe.write_oci_archive(&archive)?;
        self.copy(&archive, name)?;
        Ok(name.to_owned())
    }

    fn copy(&self, archive: &Path, name: &str) -> anyhow::Result<()> {
        let output = Command::new(programs::system("skopeo", "skopeo")?)
            .args(["copy", "--quiet", "--insecure-policy", "--dest-tls-verify=false"])
            .arg(format!("oci-archive:{}", archive.display()))
            .arg(format!("docker://127.0.0.1:{}/{name}", self.port))
            .stdin(Stdio::null())
            .output()?;
        ensure!(output.status.success(), "skopeo: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }
}
