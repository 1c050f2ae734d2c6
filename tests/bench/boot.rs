//! The boot of a pod, stage by stage, from the start of the VM to the first output of its first container; and what the
//! specialised kernel is worth, beside Debian's cloud kernel in the same run. Each boot's stages sum to its total.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, ensure};
use postern_tests::{archive::ImageRecipe, home::Home, programs};
use serde_json::Value;

use crate::figures::{Budget, Report, Samples};

mod entry;

const BOOTS: usize = 5;
const POD: &str = "bench";
/// The guest's first and last stage, by its own stamps.
const GUEST: [&str; 2] = ["kernel", "serving"];
/// The last stage before the tunnel stands.
const TUNNEL: &str = "tunnel";

/// What is booted.
struct Boot {
    label: &'static str,
    image: PathBuf,
    machine: &'static str,
}

/// What its boots took, in milliseconds.
#[derive(Default)]
struct Taken {
    stages: Vec<(String, Samples)>,
    tsc_khz: f64,
    to_entry: Samples,
    to_agent: Samples,
    to_tunnel: Samples,
    to_output: Samples,
}

impl Taken {
    /// From the kernel's entry to an agent that is up. Two boots: one tells its entry and ends there.
    fn since_entry(&self) -> f64 {
        self.to_agent.median() - self.to_entry.median()
    }
}

pub(crate) fn run(report: &mut Report) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let debian = build_image(&folder.path().join("debian"), None).context("an image with Debian's kernel")?;
    let mut boots = Vec::new();
    match specialised(&folder.path().join("specialised"))? {
        Ok(image) => boots.push(Boot { label: "specialised kernel, microvm", image, machine: "microvm" }),
        Err(why) => {
            report.section("boot of a pod");
            println!("  no figures of the specialised kernel, and no ratios: {why}");
            println!("  build it with `make kernel`, then run this again");
        }
    }
    boots.push(Boot { label: "Debian's kernel, microvm", image: debian.clone(), machine: "microvm" });
    boots.push(Boot { label: "Debian's kernel, q35", image: debian, machine: "q35" });

    let archive = folder.path().join("busybox.tar");
    ImageRecipe::busybox("busybox:latest").write_oci_archive(&archive)?;
    let home = Home::new(folder.path().join("owner"))?;
    home.postern(&["init"])?.ok()?;
    let mut entries = Vec::new();
    for (number, boot) in boots.iter().enumerate() {
        let image = folder.path().join(format!("entry-{number}"));
        entry::image(&boot.image, &image)?;
        entries.push(image);
    }
    let mut taken: Vec<Taken> = boots.iter().map(|_| Taken::default()).collect();
    // The first boot of a machine that was never booted pays for what is remembered afterwards.
    one(&home, &boots[0], &archive, &mut Taken::default())?;
    for _ in 0..BOOTS {
        for ((boot, taken), entry) in boots.iter().zip(&mut taken).zip(&entries) {
            one(&home, boot, &archive, taken)?;
            taken.to_entry.push(entry::millis(&home, boot, entry, taken.tsc_khz)?);
        }
    }
    for (boot, taken) in boots.iter().zip(&taken) {
        report.section(&format!("boot of a pod: {}", boot.label));
        for (name, samples) in &taken.stages {
            report.samples(&format!("stage: {name}"), "ms", samples, Budget::None);
        }
        report.samples("machine start to agent up", "ms", &taken.to_agent, Budget::None);
        report.samples("machine start to kernel entry", "ms", &taken.to_entry, Budget::None);
        report.value("kernel entry to agent up", "ms", taken.since_entry(), Budget::None);
        report.samples("pod create to attested tunnel", "ms", &taken.to_tunnel, Budget::None);
        report.samples("vmm start to first container output", "ms", &taken.to_output, Budget::None);
    }
    if let [specialised, microvm, q35] = taken.as_slice() {
        report.section("what the specialised kernel is worth");
        let ratio = |one: &Samples, other: &Samples| one.median() / other.median();
        let agent = specialised.since_entry() / microvm.since_entry();
        report.value("kernel entry to agent up, both on microvm", "x", agent, Budget::AtMost(0.28));
        let agent = ratio(&specialised.to_agent, &microvm.to_agent);
        report.value("machine start to agent up, both on microvm", "x", agent, Budget::AtMost(0.28));
        let agent = ratio(&specialised.to_agent, &q35.to_agent);
        report.value("the same, Debian's kernel on q35", "x", agent, Budget::None);
        let tunnel = ratio(&specialised.to_tunnel, &q35.to_tunnel);
        report.value("create to tunnel, Debian's kernel on q35", "x", tunnel, Budget::AtMost(0.35));
    }
    Ok(())
}

/// The image that ships if its kernel is ours, else one with the kernel of ours that was built on this machine, or why there
/// is none.
fn specialised(out: &Path) -> anyhow::Result<Result<PathBuf, String>> {
    let image = programs::image()?;
    let manifest: Value = serde_json::from_slice(&std::fs::read(image.join("image.json"))?)?;
    if manifest["kernel_profile"].is_string() {
        return Ok(Ok(image));
    }
    let output = Command::new(programs::program("postern-image")?)
        .args(["kernel", "path", "--profile", "general"])
        .current_dir(programs::root())
        .output()?;
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    match output.status.success() {
        true => build_image(out, Some("general")).map(Ok),
        false => Ok(Err(said(&output.stderr).lines().next().unwrap_or("it is not built").to_owned())),
    }
}

/// An image with the agent that ships and the kernel of a profile, or the distribution's.
fn build_image(out: &Path, profile: Option<&str>) -> anyhow::Result<PathBuf> {
    let mut command = Command::new(programs::program("postern-image")?);
    command.arg("build").arg("--agent").arg(programs::program("postern-agent")?).arg("--out").arg(out);
    if let Some(profile) = profile {
        command.args(["--profile", profile]);
    }
    let output = command.current_dir(programs::root()).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim_end());
    Ok(out.to_owned())
}

/// Boots, runs one container, and takes everything down.
fn one(home: &Home, boot: &Boot, archive: &Path, taken: &mut Taken) -> anyhow::Result<()> {
    let image = boot.image.to_string_lossy();
    let create = ["pod", "create", POD, "--accept-risk=simulated-tee", "--image-dir", &*image];
    let how = ["--machine", boot.machine, "--timeline", "--output", "json"];
    let created = home.postern(&[&create[..], &how].concat())?.ok()?.json()?;
    let source = format!("oci-archive:{}", archive.display());
    let run = ["run", POD, &source, "--rm", "--timeline", "--", "echo", "up"];
    let ran = home.postern(&run)?.ok()?;
    home.postern(&["pod", "rm", POD])?.ok()?;

    let mut stages: Vec<(String, f64)> = created["timeline"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|stage| Some((stage["stage"].as_str()?.to_owned(), stage["millis"].as_f64()?)))
        .collect();
    // Unknown under KVM, where the entry has to go without.
    taken.tsc_khz = created["shape"]["tsc_khz"].as_f64().unwrap_or(f64::NAN);
    let sum: f64 = stages.iter().map(|(_, millis)| millis).sum();
    ensure!(Some(sum) == created["millis"].as_f64(), "the stages do not sum to the total: {created}");
    let upto = |name: &str, stages: &[(String, f64)]| -> anyhow::Result<f64> {
        let last = stages.iter().position(|(stage, _)| stage == name);
        let last = last.with_context(|| format!("no stage {name} in {stages:?}"))?;
        Ok(stages[..=last].iter().map(|(_, millis)| millis).sum())
    };
    let first = stages.iter().position(|(stage, _)| stage == GUEST[0]).context("the guest told no stages")?;
    taken.to_agent.push(upto(GUEST[1], &stages[first..])?);
    taken.to_tunnel.push(upto(TUNNEL, &stages)?);
    let before_vmm = upto("prepare", &stages)?;
    stages.extend(run_stages(&ran.stderr).into_iter().map(|(name, millis)| (format!("run: {name}"), millis)));
    taken.to_output.push(upto("run: first output", &stages)? - before_vmm);
    for (name, millis) in stages {
        match taken.stages.iter_mut().find(|(known, _)| *known == name) {
            Some((_, samples)) => samples.push(millis),
            None => {
                let mut samples = Samples::default();
                samples.push(millis);
                taken.stages.push((name, samples));
            }
        }
    }
    Ok(())
}

/// Lines such as `  first output    0.042 s`.
fn run_stages(stderr: &str) -> Vec<(String, f64)> {
    let stage = |line: &str| {
        let (name, seconds) = line.strip_suffix(" s")?.trim().rsplit_once("  ")?;
        Some((name.trim().to_owned(), seconds.trim().parse::<f64>().ok()? * 1000.0))
    };
    stderr.lines().filter_map(stage).collect()
}
