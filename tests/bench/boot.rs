//! The boot of a pod, stage by stage: the stages sum to the total.

use std::time::Instant;

use postern_tests::{archive::ImageRecipe, home::Home};

use crate::figures::{Budget, Report, Samples, millis};

const BOOTS: usize = 5;

pub(crate) fn run(report: &mut Report) -> anyhow::Result<()> {
    report.section("boot of a pod, to the first output of its first container");
    let folder = tempfile::tempdir()?;
    let archive = folder.path().join("busybox.tar");
    ImageRecipe::busybox("busybox:latest").write_oci_archive(&archive)?;
    let home = Home::new(folder.path().join("owner"))?;
    home.postern(&["init"])?.ok()?;
    let mut stages: Vec<(String, Samples)> = Vec::new();
    let (mut total, mut output) = (Samples::default(), Samples::default());
    for _ in 0..BOOTS {
        let begun = Instant::now();
        home.postern(&["pod", "create", "bench", "--accept-risk=simulated-tee"])?.ok()?;
        total.push(millis(begun.elapsed()));
        let begun_run = Instant::now();
        let source = format!("oci-archive:{}", archive.display());
        home.postern(&["run", "bench", &source, "--rm", "--", "echo", "up"])?.ok()?;
        output.push(millis(begun_run.elapsed()));
        let inspected = home.postern(&["pod", "inspect", "bench", "--output", "json"])?.ok()?.json()?;
        for stage in inspected["timeline"].as_array().into_iter().flatten() {
            let name = stage["stage"].as_str().unwrap_or("?").to_owned();
            let value = stage["millis"].as_f64().unwrap_or(f64::NAN);
            match stages.iter_mut().find(|(known, _)| *known == name) {
                Some((_, samples)) => samples.push(value),
                None => {
                    let mut samples = Samples::default();
                    samples.push(value);
                    stages.push((name, samples));
                }
            }
        }
        home.postern(&["pod", "rm", "bench"])?.ok()?;
    }
    for (name, samples) in &stages {
        report.samples(&format!("stage: {name}"), "ms", samples, Budget::None);
    }
    report.samples("pod create, total", "ms", &total, Budget::None);
    report.samples("image push to first container output", "ms", &output, Budget::None);
    Ok(())
}
