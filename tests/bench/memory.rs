//! What a pod that does nothing takes: memory of its host and of its guest, processor time, and how small it can be.

use std::{thread, time::Duration};

use anyhow::Context as _;
use postern_tests::{archive::ImageRecipe, home::Home};

use crate::{
    figures::{Budget, Report},
    usage::{PodProcesses, Pods, cpu_seconds, pss_mib},
};

/// Memory of the pod whose idling is watched.
const MEMORY_MIB: u32 = 256;
/// Memory of the smallest pod that shall do.
const LEAST_MIB: u32 = 48;
/// How long it may settle, and how long it is watched.
const SETTLE: Duration = Duration::from_secs(10);
const WATCH: Duration = Duration::from_secs(60);
/// Memory that is tried, smallest and largest, and how finely.
const SMALLEST_MIB: u32 = 32;
const LARGEST_MIB: u32 = 96;
const STEP_MIB: u32 = 4;
const MIB: f64 = 1_048_576.0;

pub(crate) fn run(report: &mut Report) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let archive = folder.path().join("busybox.tar");
    ImageRecipe::busybox("busybox:latest").write_oci_archive(&archive)?;
    let source = format!("oci-archive:{}", archive.display());
    let home = Home::new(folder.path().join("owner"))?;
    home.postern(&["init"])?.ok()?;
    idle(report, &home, &source)?;
    smallest(report, &home, &source)
}

fn idle(report: &mut Report, home: &Home, source: &str) -> anyhow::Result<()> {
    report.section("a pod at rest (256 MiB; the agent, and then a container that sleeps)");
    let mut pods = Pods::of(home);
    pods.create("idle", MEMORY_MIB)?;
    thread::sleep(SETTLE);
    guest(report, home, "idle", "before any container", Budget::AtMost(16.0))?;
    home.postern(&["run", "idle", source, "-d", "--name", "sleeper", "--", "sleep", "86400"])?.ok()?;
    thread::sleep(SETTLE);
    guest(report, home, "idle", "with busybox's image and a sleeper", Budget::None)?;
    let processes = PodProcesses::of(home, "idle")?;
    let before = times(&processes)?;
    thread::sleep(WATCH);
    let after = times(&processes)?;
    let mut share = 0.0;
    for ((name, before), (_, after)) in before.into_iter().zip(after) {
        let percent = (after - before) / WATCH.as_secs_f64() * 100.0;
        report.value(&format!("CPU over 60 s, {name}"), "% core", percent, Budget::None);
        share += percent;
    }
    report.value("CPU over 60 s, together", "% core", share, Budget::AtMost(1.0));
    let mut together = 0.0;
    for (name, pid) in processes.all() {
        let pss = pss_mib(pid)?;
        report.value(&format!("host memory (Pss), {name}"), "MiB", pss, Budget::None);
        together += pss;
    }
    report.value("host memory (Pss), together", "MiB", together, Budget::None);
    pods.create("second", MEMORY_MIB)?;
    home.postern(&["run", "second", source, "-d", "--name", "sleeper", "--", "sleep", "86400"])?.ok()?;
    thread::sleep(SETTLE);
    let second = PodProcesses::of(home, "second")?;
    let both: f64 =
        processes.all().iter().chain(&second.all()).map(|(_, pid)| pss_mib(*pid)).sum::<Result<_, _>>()?;
    report.value("host memory (Pss) of two such pods / twice one", "", both / (2.0 * together), Budget::None);
    pods.remove("second")?;
    pods.remove("idle")?;
    pods.create("least", LEAST_MIB)?;
    thread::sleep(SETTLE);
    guest(report, home, "least", "of a pod of 48 MiB, before any container", Budget::AtMost(16.0))?;
    pods.remove("least")
}

fn times(processes: &PodProcesses) -> anyhow::Result<Vec<(&'static str, f64)>> {
    processes.all().into_iter().map(|(name, pid)| Ok((name, cpu_seconds(pid)?))).collect()
}

/// What the guest says of its memory: what its kernel manages, and what of that is in use.
fn guest(report: &mut Report, home: &Home, pod: &str, when: &str, budget: Budget) -> anyhow::Result<()> {
    let inspected = home.postern(&["pod", "inspect", pod, "--output", "json"])?.ok()?.json()?;
    let bytes =
        |key: &str| inspected["pod"][key].as_f64().with_context(|| format!("no {key} in pod inspect"));
    let (total, available) = (bytes("memory_total_bytes")?, bytes("memory_available_bytes")?);
    report.value(&format!("guest memory in use, {when}"), "MiB", (total - available) / MIB, budget);
    Ok(())
}

/// The smallest memory in which a pod comes up and runs busybox from an image that is pushed into it.
fn smallest(report: &mut Report, home: &Home, source: &str) -> anyhow::Result<()> {
    report.section("the smallest pod: create, verify, push busybox, run it");
    let (mut too_small, mut enough) = (SMALLEST_MIB - STEP_MIB, LARGEST_MIB);
    anyhow::ensure!(does(home, source, enough), "busybox does not run in {enough} MiB");
    while enough - too_small > STEP_MIB {
        let middle = (enough + too_small) / 2 / STEP_MIB * STEP_MIB;
        match does(home, source, middle) {
            true => enough = middle,
            false => too_small = middle,
        }
    }
    report.value(
        "memory of the smallest pod that runs busybox",
        "MiB",
        f64::from(enough),
        Budget::AtMost(48.0),
    );
    Ok(())
}

fn does(home: &Home, source: &str, memory_mib: u32) -> bool {
    let mut pods = Pods::of(home);
    let mut tried = || -> anyhow::Result<()> {
        pods.create("small", memory_mib)?;
        let said = home.postern(&["run", "small", source, "--rm", "--", "echo", "it runs"])?.ok()?;
        anyhow::ensure!(said.text().contains("it runs"), "busybox said {:?}", said.text());
        pods.remove("small")
    };
    let done = tried().is_ok();
    // What was half made on this side would be in the way of the next.
    let _ = home.postern(&["pod", "rm", "small"]);
    done
}
