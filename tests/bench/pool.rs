//! What a pool of VMs that stand ready saves, and whether the twentieth pod of a machine costs more than the first.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use postern_tests::{
    home::Home,
    process::{Guarded, Lines},
    programs,
};

use crate::{
    figures::{Budget, Report, Samples, millis},
    usage::{PodProcesses, Pods},
};

/// Pairs of a cold start and one from the pool.
const PAIRS: usize = 7;
/// Memory of the pods that live at the same time, and how many there are.
const SMALL_MIB: u32 = 96;
const LIVE: usize = 20;
/// Pods at either end of that row whose median is taken.
const ENDS: usize = 3;
const MEMORY_MIB: u32 = 128;
const SOON: Duration = Duration::from_secs(120);

pub(crate) fn run(report: &mut Report) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    from_the_pool(report, &Home::new(folder.path().join("pool"))?)?;
    many_live(report, &Home::new(folder.path().join("many"))?)
}

/// One kind of start.
#[derive(Default)]
struct Kind {
    total: Samples,
    vmm: Samples,
}

impl Kind {
    fn create(&mut self, home: &Home, pods: &mut Pods<'_>) -> anyhow::Result<()> {
        self.total.time(|| pods.create("bench", MEMORY_MIB))?;
        let stages = home.host(&["inspect", "bench", "--output", "json"])?.ok()?.json()?;
        let stages = stages["boot_millis"].as_array().context("the pod has no stages")?;
        let vmm = stages.iter().find(|stage| stage[0] == "vmm").and_then(|stage| stage[1].as_f64());
        self.vmm.push(vmm.context("the pod has no stage vmm")?);
        pods.remove("bench")
    }
}

fn from_the_pool(report: &mut Report, home: &Home) -> anyhow::Result<()> {
    report.section("a pool of VMs that stand ready (pods of 128 MiB; pairs in turn, one run)");
    home.postern(&["init"])?.ok()?;
    let mut pods = Pods::of(home);
    let (mut cold, mut pooled) = (Kind::default(), Kind::default());
    let mut making = Samples::default();
    for _ in 0..PAIRS {
        cold.create(home, &mut pods)?;
        let (_pool, said) = pool(home)?;
        let ready = said.find(SOON, |line| event(line, "ready"))?;
        making.push(ready["millis"].as_f64().unwrap_or(f64::NAN));
        pooled.create(home, &mut pods)?;
        // A pod that did not come from the pool would be measured as if it had.
        said.find(SOON, |line| event(line, "claimed"))?;
    }
    report.samples("a shell, made before anybody waits", "ms", &making, Budget::None);
    report.samples("VM measured and running, cold", "ms", &cold.vmm, Budget::None);
    report.samples("VM measured and running, from the pool", "ms", &pooled.vmm, Budget::None);
    report.value("  from the pool / cold", "", pooled.vmm.median() / cold.vmm.median(), Budget::AtMost(0.25));
    report.samples("pod create, cold", "ms", &cold.total, Budget::None);
    report.samples("pod create, from the pool", "ms", &pooled.total, Budget::None);
    report.value(
        "  from the pool / cold",
        "",
        pooled.total.median() / cold.total.median(),
        Budget::AtMost(1.0),
    );
    Ok(())
}

/// A pool of one that fits what `postern pod create` asks for, and what it says.
fn pool(home: &Home) -> anyhow::Result<(Guarded, Lines)> {
    let mut command = home.command("postern-host")?;
    command
        .args(["pool", "--size", "1", "--tee", "simulated", "--output", "json", "--cpus", "1", "--memory"])
        .arg(MEMORY_MIB.to_string())
        .arg("--image")
        .arg(programs::image()?)
        .stdout(Stdio::piped());
    let mut pool = Guarded::spawn(&mut command)?;
    let stdout = pool.child().stdout.take().context("the pool has no standard output")?;
    Ok((pool, Lines::of(stdout)))
}

fn event(line: &str, name: &str) -> Option<serde_json::Value> {
    let event: serde_json::Value = serde_json::from_str(line).ok()?;
    (event["event"] == name).then_some(event)
}

fn many_live(report: &mut Report, home: &Home) -> anyhow::Result<()> {
    report
        .section("twenty pods that live at the same time (96 MiB each; medians of the first and last three)");
    home.postern(&["init"])?.ok()?;
    let mut pods = Pods::of(home);
    let (mut wall, mut cpu) = (Vec::new(), Vec::new());
    for number in 1..=LIVE {
        let name = format!("live-{number}");
        let begun = Instant::now();
        pods.create(&name, SMALL_MIB)?;
        wall.push(millis(begun.elapsed()));
        cpu.push(PodProcesses::of(home, &name)?.cpu_seconds()? * 1000.0);
    }
    let ends = |values: &[f64]| {
        let mut samples = (Samples::default(), Samples::default());
        values.iter().take(ENDS).for_each(|value| samples.0.push(*value));
        values.iter().rev().take(ENDS).for_each(|value| samples.1.push(*value));
        samples
    };
    for (what, values) in [("wall", &wall), ("CPU of QEMU and helpers", &cpu)] {
        let (first, last) = ends(values);
        report.samples(&format!("pods 1 to 3, {what}"), "ms", &first, Budget::None);
        report.samples(&format!("pods 18 to 20, {what}"), "ms", &last, Budget::None);
        report.value("  last / first", "", last.median() / first.median(), Budget::AtMost(1.5));
    }
    Ok(())
}
