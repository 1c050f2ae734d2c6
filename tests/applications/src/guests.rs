//! Guest images with the kernels of profiles, and pods of them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use postern_tests::{
    home::{Home, Said},
    programs,
};
use ring::digest::{SHA256, digest};

use crate::{cache, record::Kernel};

pub(crate) const POD: &str = "app";
/// Boots of which the median counts.
const BOOTS: usize = 3;
/// Memory of a pod that is booted to see how long it takes.
const SMALL: u32 = 128;

/// An image that pods boot from.
#[derive(Debug)]
pub(crate) struct Guest {
    folder: PathBuf,
}

impl Guest {
    /// The one with the kernel of `profile`, which has been built.
    pub(crate) fn of(profile: &str) -> anyhow::Result<Self> {
        let folder = cache()?.join("guests").join(profile);
        let output = Command::new(programs::program("postern-image")?)
            .current_dir(programs::root())
            .args(["build", "--profile", profile, "--agent"])
            .arg(programs::program("postern-agent")?)
            .arg("--out")
            .arg(&folder)
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "a guest of profile {profile}: {}", said.trim());
        Ok(Self { folder })
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.folder.join("kernel.config")
    }

    /// Its kernel, with what booting it takes.
    pub(crate) fn measure(&self) -> anyhow::Result<Kernel> {
        let kernel = fs::read(self.folder.join("vmlinuz"))?;
        let config = fs::read_to_string(self.config())?;
        let mut boots = Vec::new();
        for _ in 0..BOOTS {
            boots.push(Pod::create(self, SMALL)?.1.as_secs_f64());
        }
        boots.sort_by(f64::total_cmp);
        Ok(Kernel {
            sha256: hex::encode(digest(&SHA256, &kernel)),
            bytes: kernel.len() as u64,
            options: config.lines().filter(|line| line.ends_with("=y")).count(),
            boot_seconds: tenths(boots[BOOTS / 2]),
        })
    }
}

/// Nothing finer is told apart on a busy machine.
pub(crate) fn tenths(seconds: f64) -> f64 {
    (seconds * 10.0).round() / 10.0
}

/// A pod with an owner and a host of its own; it ends with this value.
#[derive(Debug)]
pub(crate) struct Pod {
    home: Home,
    _folder: tempfile::TempDir,
}

impl Pod {
    /// The pod, and how long `pod create` took.
    pub(crate) fn create(guest: &Guest, memory: u32) -> anyhow::Result<(Self, Duration)> {
        let folder = tempfile::Builder::new().prefix("postern-applications-").tempdir()?;
        let pod = Self { home: Home::new(folder.path().join("owner"))?, _folder: folder };
        pod.ok(&["init"])?;
        let memory = format!("{memory}M");
        let guest = path(&guest.folder)?;
        let begun = Instant::now();
        pod.ok(&[
            "pod",
            "create",
            POD,
            "--accept-risk=simulated-tee",
            "--image-dir",
            guest,
            "--memory",
            &memory,
        ])?;
        Ok((pod, begun.elapsed()))
    }

    /// Runs `postern ARGS`, however it ends.
    pub(crate) fn postern(&self, args: &[&str]) -> anyhow::Result<Said> {
        self.home.postern(args)
    }

    pub(crate) fn ok(&self, args: &[&str]) -> anyhow::Result<Said> {
        self.home.postern(args)?.ok().with_context(|| format!("postern {}", args.join(" ")))
    }

    pub(crate) fn push(&self, archive: &Path) -> anyhow::Result<Duration> {
        let begun = Instant::now();
        self.ok(&["image", "push", POD, path(archive)?])?;
        Ok(begun.elapsed())
    }

    /// Runs the client's check in a container, by the image's shell.
    pub(crate) fn check(&self, container: &str, check: &str) -> anyhow::Result<Said> {
        self.postern(&["exec", container, "--", "/bin/sh", "-c", check])
    }

    /// Memory that is not available to anybody else, in MiB.
    pub(crate) fn used(&self) -> anyhow::Result<u64> {
        let pod = self.ok(&["pod", "inspect", POD, "--output", "json"])?.json()?;
        let bytes = |name: &str| pod["pod"][name].as_u64().with_context(|| format!("no {name} in {pod}"));
        let used = bytes("memory_total_bytes")?.saturating_sub(bytes("memory_available_bytes")?);
        Ok(used >> 20)
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        // Of a pod that was not created there is nothing to remove.
        let _ = self.home.host(&["rm", "--stop", POD]);
    }
}

fn path(path: &Path) -> anyhow::Result<&str> {
    path.to_str().context("a path that is not UTF-8")
}
