//! An application in two pods: on the kernel of its profile, where its client's check has to succeed, and on the base,
//! which has to refuse it and name what is missing. `postern-image profile check` has to have said the same before.

use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use postern_tests::programs;

use crate::{
    cache,
    guests::{Guest, POD, Pod, tenths},
    image, options,
    recipe::{Application, List},
    record::{Measured, Record, Unlabelled},
};

/// What an application adds to, and what stands for those that are not known.
pub(crate) const BASE: &str = "base";
const COMPARED: [&str; 2] = [BASE, "general"];
/// How long a client's check may take, with what comes before it: databases make their files first.
const CHECK: Duration = Duration::from_secs(300);
/// The same where it is expected to fail: this much longer than where it succeeded.
const FUTILE: u32 = 2;
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(300);
/// `postern run`: the container was not started.
const NOT_STARTED: i32 = 125;
/// `postern-image profile check`: the kernel lacks something.
const LACKS: i32 = 4;
/// How much of an application's last words is kept.
const WORDS: usize = 160;

pub(crate) fn all(list: &List, applications: &[&Application]) -> anyhow::Result<()> {
    for profile in COMPARED {
        let kernel = Guest::of(profile)?.measure().with_context(|| format!("the kernel of {profile}"))?;
        println!("{profile}: {} options, boots in {:.1} s", kernel.options, kernel.boot_seconds);
        keep(|record| record.kernels.insert(profile.to_owned(), kernel))?;
    }
    // One that fails does not keep the others from being seen.
    let mut failed = Vec::new();
    for one in applications {
        match run(list, one) {
            Ok(measured) => {
                println!(
                    "{}: the check succeeds on its own kernel; on the base: {}",
                    one.name, measured.refusal
                );
                keep(|record| record.applications.insert(one.name.clone(), measured))?;
            }
            Err(error) => {
                eprintln!("{}: {error:#}", one.name);
                failed.push(one.name.as_str());
            }
        }
    }
    ensure!(failed.is_empty(), "not as it has to be: {}", failed.join(" "));
    Ok(())
}

/// Read anew and written at once: what was seen before a failure is not lost.
fn keep<T>(change: impl FnOnce(&mut Record) -> T) -> anyhow::Result<()> {
    let mut record = Record::read()?;
    change(&mut record);
    record.write()
}

fn run(list: &List, one: &Application) -> anyhow::Result<Measured> {
    let archive = image(list, one, false)?;
    let (own, base) = (Guest::of(&one.name)?, Guest::of(BASE)?);
    let added = options(one)?;
    ensure!(foreseen(&archive, &own)?.is_empty(), "`profile check` finds its own kernel wanting");
    let lacking = foreseen(&archive, &base)?;
    ensure!(lacking == added, "`profile check` says that the base lacks {lacking:?}, not {added:?}");
    let mut measured = works(one, &archive, &own).context("on its own kernel")?;
    let ready = Duration::from_secs_f64(measured.ready_seconds);
    let (pod, _) = Pod::create(&base, one.memory).context("on the base")?;
    measured.refusal = refused(&pod, one, &archive, &added).context("on the base")?;
    measured.unlabelled = unlabelled(&pod, list, one, ready).context("on the base, without a label")?;
    Ok(measured)
}

/// What `postern-image profile check` says that the guest's kernel lacks.
fn foreseen(archive: &Path, guest: &Guest) -> anyhow::Result<Vec<String>> {
    let output = Command::new(programs::program("postern-image")?)
        .args(["--output", "json", "profile", "check"])
        .arg(archive)
        .arg("--kernel-config")
        .arg(guest.config())
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(matches!(output.status.code(), Some(0 | LACKS)), "profile check: {}", said.trim());
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let lacks = answer["lacks"].as_array().into_iter().flatten();
    let names: Vec<String> = lacks.filter_map(|lack| Some(lack["option"].as_str()?.to_owned())).collect();
    ensure!(names.is_empty() == output.status.success(), "profile check: {names:?}, but {}", output.status);
    Ok(names)
}

fn works(one: &Application, archive: &Path, guest: &Guest) -> anyhow::Result<Measured> {
    let kernel = guest.measure()?;
    let (pod, _) = Pod::create(guest, one.memory)?;
    let push = pod.push(archive)?;
    let begun = Instant::now();
    pod.ok(&["run", POD, "-d", "--name", "it", &one.reference()])?;
    if let Some(words) = tried(&pod, "it", &one.check, CHECK)? {
        let logs = pod.postern(&["logs", "app/it"])?;
        anyhow::bail!("the check fails: {words}\n{}{}", logs.text(), logs.stderr);
    }
    Ok(Measured {
        kernel,
        image_bytes: fs::metadata(archive)?.len(),
        pod_mib: one.memory,
        used_mib: pod.used()?,
        push_seconds: tenths(push.as_secs_f64()),
        ready_seconds: tenths(begun.elapsed().as_secs_f64()),
        refusal: String::new(),
        unlabelled: Unlabelled::Works,
    })
}

/// Tries the check until it succeeds, the container has ended or the time is over; then the last that was said.
fn tried(pod: &Pod, name: &str, check: &str, patience: Duration) -> anyhow::Result<Option<String>> {
    let container = format!("{POD}/{name}");
    let begun = Instant::now();
    loop {
        let said = pod.check(&container, check)?;
        if said.code == 0 {
            return Ok(None);
        }
        let state = pod.ok(&["inspect", &container, "--output", "json"])?.json()?;
        let ended = !state[0]["exit"].is_null();
        if ended || begun.elapsed() > patience {
            let logs = pod.postern(&["logs", &container])?;
            let logs = logs.text() + &logs.stderr;
            // Of a server its log tells, of a program that a client starts its own words.
            let (first, second) = if ended { (&logs, &said.stderr) } else { (&said.stderr, &logs) };
            let words = last_words(first).or_else(|| last_words(second));
            return Ok(Some(words.unwrap_or_else(|| "says nothing".into())));
        }
        std::thread::sleep(PAUSE);
    }
}

fn last_words(text: &str) -> Option<String> {
    let line =
        text.lines().rev().map(str::trim).find(|line| !line.is_empty() && !line.starts_with("hint:"))?;
    Some(line.chars().filter(|c| !c.is_control()).take(WORDS).collect())
}

/// What the pod says that has the base alone.
fn refused(pod: &Pod, one: &Application, archive: &Path, added: &[String]) -> anyhow::Result<String> {
    pod.push(archive)?;
    let said = pod.postern(&["run", POD, "--rm", "--name", "it", &one.reference()])?;
    ensure!(said.code == NOT_STARTED, "it is not refused: {} {}{}", said.code, said.text(), said.stderr);
    for option in added {
        ensure!(said.stderr.contains(option.as_str()), "{option} is not named: {}", said.stderr);
    }
    let refusal = said.stderr.lines().next().unwrap_or_default();
    Ok(refusal.trim_start_matches("postern: ").to_owned())
}

/// What becomes of the application on the base when its image does not say what it needs.
fn unlabelled(pod: &Pod, list: &List, one: &Application, ready: Duration) -> anyhow::Result<Unlabelled> {
    let folder = tempfile::tempdir()?;
    let archive = folder.path().join("unlabelled.tar");
    let reference = format!("applications.example/{}:unlabelled", one.name);
    one.archive(&one.layer(&list.suite, &cache()?, false)?, &reference, None, &archive)?;
    pod.push(&archive)?;
    let started = pod.postern(&["run", POD, "-d", "--name", "bare", &reference])?;
    if started.code != 0 {
        return Ok(Unlabelled::Fails(last_words(&started.stderr).unwrap_or_default()));
    }
    Ok(match tried(pod, "bare", &one.check, ready * FUTILE + PATIENCE)? {
        None => Unlabelled::Works,
        Some(words) => Unlabelled::Fails(words),
    })
}
