//! What leaving out the CPU's mitigations gains: two loops that enter the kernel as often as they can, in a container, in
//! pods with and without, booted in turns.

use postern_tests::{archive::ImageRecipe, home::Home};

use crate::figures::{Budget, Report, Samples};

const BOOTS: usize = 5;
/// A read and a write of one byte, again and again.
const SYSTEM_CALLS: &str = "dd if=/dev/zero of=/dev/null bs=1 count=200000 2>/dev/null";
/// A new process and a new program, again and again.
const PROCESSES: &str = "i=0; while [ $i -lt 150 ]; do /bin/busybox true; i=$((i+1)); done";
const MODES: [&str; 2] = ["on", "off"];

pub(crate) fn run(report: &mut Report) -> anyhow::Result<()> {
    report.section(
        "single trust domain: mitigations on and off (under emulation; hardware pays more for them)",
    );
    let folder = tempfile::tempdir()?;
    let archive = folder.path().join("busybox.tar");
    ImageRecipe::busybox("busybox:latest").write_oci_archive(&archive)?;
    let source = format!("oci-archive:{}", archive.display());
    let home = Home::new(folder.path().join("owner"))?;
    home.postern(&["init"])?.ok()?;
    let mut samples: [[Samples; 2]; 2] = Default::default();
    for _ in 0..BOOTS {
        for (mode, [calls, processes]) in MODES.into_iter().zip(&mut samples) {
            let mitigations = format!("--mitigations={mode}");
            let risks = ["--accept-risk=simulated-tee", "--accept-risk=mitigations-off"];
            home.postern(&["pod", "create", "bench", &mitigations, risks[0], risks[1]])?.ok()?;
            home.postern(&["run", "bench", &source, "-d", "--name", "loop", "--", "sleep", "100000"])?
                .ok()?;
            for (samples, work) in [(calls, SYSTEM_CALLS), (processes, PROCESSES)] {
                samples.time(|| home.postern(&["exec", "bench/loop", "--", "sh", "-c", work])?.ok())?;
            }
            home.postern(&["pod", "rm", "bench"])?.ok()?;
        }
    }
    let [on, off] = samples;
    for (name, on, off) in [("400,000 system calls", &on[0], &off[0]), ("150 processes", &on[1], &off[1])] {
        report.samples(&format!("{name}, mitigations on"), "ms", on, Budget::None);
        report.samples(&format!("{name}, mitigations off"), "ms", off, Budget::None);
        report.value(&format!("{name}, off / on"), "x", off.median() / on.median(), Budget::None);
    }
    Ok(())
}
