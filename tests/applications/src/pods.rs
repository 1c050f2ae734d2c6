//! An application in two pods: on the kernel of its profile, where its client's check succeeds, and on the base, where
//! the pod refuses it and names what is missing.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use serde_json::json;

use crate::{
    cache, image, options,
    programs::{self, Home},
    recipe::{Application, List},
};

/// How long a client's check may take, with what comes before it: databases make their files first.
const CHECK: Duration = Duration::from_secs(300);
/// Between two tries.
const PAUSE: Duration = Duration::from_secs(2);
const POD: &str = "app";

pub(crate) fn run(list: &List, one: &Application) -> anyhow::Result<()> {
    let archive = image(list, one)?;
    let added = options(one)?;
    let kernel = guest(&one.name)?;
    let figures = works(one, &archive, &kernel).with_context(|| format!("{} on its own kernel", one.name))?;
    let refusal = refused(one, &archive, &added).with_context(|| format!("{} on the base", one.name))?;
    println!("{}: the check succeeds on its own kernel; on the base: {refusal}", one.name);
    let mut kept = figures;
    kept["refusal"] = json!(refusal);
    kept["image_bytes"] = json!(std::fs::metadata(&archive)?.len());
    kept["kernel_bytes"] = json!(std::fs::metadata(kernel.join("vmlinuz"))?.len());
    let config = std::fs::read_to_string(kernel.join("kernel.config"))?;
    kept["kernel_options"] = json!(config.lines().filter(|line| line.ends_with("=y")).count());
    std::fs::write(cache()?.join(format!("{}.pod.json", one.name)), serde_json::to_vec_pretty(&kept)?)?;
    Ok(())
}

/// The directory of an image for pods with the kernel of `profile`.
fn guest(profile: &str) -> anyhow::Result<PathBuf> {
    let tool = programs::program("postern-image")?;
    let out = cache()?.join("guests").join(profile);
    let output = Command::new(tool)
        .current_dir(programs::root())
        .args(["build", "--profile", profile, "--agent"])
        .arg(programs::program("postern-agent")?)
        .arg("--out")
        .arg(&out)
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "a guest of profile {profile}: {}", said.trim());
    Ok(out)
}

struct Pod(Home);

impl Pod {
    fn create(guest: &Path, memory: u32) -> anyhow::Result<(Self, Duration)> {
        let pod = Self(Home::new()?);
        pod.0.must(&["init"])?;
        let begun = Instant::now();
        let memory = memory.to_string();
        let guest = guest.to_str().context("a path that is not UTF-8")?;
        let args =
            ["pod", "create", POD, "--accept-risk=simulated-tee", "--image-dir", guest, "--memory", &memory];
        pod.0.must(&args)?;
        Ok((pod, begun.elapsed()))
    }

    fn push(&self, archive: &Path) -> anyhow::Result<()> {
        let archive = archive.to_str().context("a path that is not UTF-8")?;
        self.0.must(&["image", "push", POD, archive])
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let _ = self.0.postern(&["pod", "rm", POD]);
    }
}

fn works(one: &Application, archive: &Path, guest: &Path) -> anyhow::Result<serde_json::Value> {
    let (pod, boot) = Pod::create(guest, one.memory)?;
    let begun = Instant::now();
    pod.push(archive)?;
    let pushed = begun.elapsed();
    let begun = Instant::now();
    pod.0.must(&["run", POD, "-d", "--name", "it", &one.reference()])?;
    let container = format!("{POD}/it");
    loop {
        let said = pod.0.postern(&["exec", &container, "--", "/bin/sh", "-c", &one.check])?;
        if said.success {
            break;
        }
        if begun.elapsed() > CHECK {
            let logs = pod.0.postern(&["logs", &container])?;
            anyhow::bail!("the check fails: {}{}\n{}{}", said.stdout, said.stderr, logs.stdout, logs.stderr);
        }
        std::thread::sleep(PAUSE);
    }
    let checked = begun.elapsed();
    Ok(json!({ "boot": boot.as_secs_f64(), "push": pushed.as_secs_f64(), "check": checked.as_secs_f64() }))
}

/// What the pod says that has the base alone.
fn refused(one: &Application, archive: &Path, added: &[String]) -> anyhow::Result<String> {
    let (pod, _) = Pod::create(&guest("base")?, one.memory)?;
    pod.push(archive)?;
    let said = pod.0.postern(&["run", POD, "--rm", &one.reference()])?;
    ensure!(!said.success, "the base runs it");
    for option in added {
        ensure!(said.stderr.contains(option.as_str()), "{option} is not named: {}", said.stderr);
    }
    Ok(said.stderr.trim().to_owned())
}
