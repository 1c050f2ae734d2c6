//! `exec` without a terminal: streams, codes, signals.

use std::process::Stdio;

use postern_tests::process::{Guarded, Lines};
use rustix::process::Signal;

use crate::rig::{Pod, SOON};

#[test]
fn streams_codes_and_settings_are_the_commands_own() -> anyhow::Result<()> {
    let pod = Pod::with_container()?;
    let said = pod.fails_with(7, &["exec", "demo/web", "--", "sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!((said.text().as_str(), said.stderr.as_str()), ("out\n", "err\n"));
    let script = "echo $A $PWD $(id -u)";
    let said = pod.ok(&["exec", "-e", "A=b", "-w", "/tmp", "-u", "1000", "demo/web", "sh", "-c", script]);
    assert_eq!(said.text(), "b /tmp 1000\n");
    // After the container everything is the command, options and all.
    assert_eq!(pod.ok(&["exec", "demo/web", "echo", "-i", "--help"]).text(), "-i --help\n");
    pod.fails_with(137, &["exec", "demo/web", "sh", "-c", "kill -9 $$"]);
    let missing = pod.fails_with(127, &["exec", "demo/web", "no-such-command"]);
    assert!(missing.stderr.contains("no-such-command"), "{}", missing.stderr);
    pod.fails_with(126, &["exec", "demo/web", "/etc/passwd"]);
    let unknown = pod.fails_with(125, &["exec", "demo/none", "true"]);
    assert!(unknown.stderr.contains("none"), "{}", unknown.stderr);
    pod.fails_with(2, &["exec", "demo/web"]);
    pod.fails_with(2, &["exec", "demo", "true"]);
    Ok(())
}

#[test]
fn bytes_go_in_and_out_unchanged_and_the_end_is_passed_on() -> anyhow::Result<()> {
    let pod = Pod::with_container()?;
    let data: Vec<u8> = (0..5_000_000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 11) as u8).collect();
    let said = pod.postern_with_input(&["exec", "-i", "demo/web", "cat"], &data);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(said.stdout == data, "{} bytes came back", said.stdout.len());
    // Without -i there is nothing to read.
    assert_eq!(pod.postern_with_input(&["exec", "demo/web", "wc", "-c"], b"data").text(), "0\n");
    Ok(())
}

#[test]
fn a_reader_that_goes_away_ends_it_quietly() -> anyhow::Result<()> {
    let pod = Pod::with_container()?;
    let said = pod.shell("postern exec demo/web yes | head -n 2; echo ${PIPESTATUS[0]}");
    assert_eq!((said.text().as_str(), said.stderr.as_str()), ("y\ny\n141\n", ""));
    let said = pod.shell("postern completion bash | head -n 1 >/dev/null; echo ${PIPESTATUS[0]}");
    assert_eq!((said.text().as_str(), said.stderr.as_str()), ("0\n", ""));
    Ok(())
}

#[test]
fn interrupts_are_passed_on_and_the_third_leaves() -> anyhow::Result<()> {
    let pod = Pod::with_container()?;
    let start = |script: &str| -> anyhow::Result<(Guarded, Lines)> {
        let mut command = pod.command(&["exec", "demo/web", "sh", "-c", script]);
        let mut process = Guarded::spawn(command.stdout(Stdio::piped()).stderr(Stdio::null()))?;
        let lines = Lines::of(process.child().stdout.take().expect("piped"));
        lines.find(SOON, |line| (line == "ready").then_some(()))?;
        Ok((process, lines))
    };
    let (mut polite, _lines) = start("trap 'exit 5' INT; echo ready; while :; do sleep 0.1; done")?;
    polite.signal(Signal::INT)?;
    assert_eq!(polite.wait(SOON)?.code(), Some(5));
    let (mut terminated, _lines) = start("trap 'exit 6' TERM; echo ready; while :; do sleep 0.1; done")?;
    terminated.signal(Signal::TERM)?;
    assert_eq!(terminated.wait(SOON)?.code(), Some(6));
    let (mut stubborn, lines) = start("trap 'echo caught' INT; echo ready; while :; do sleep 0.1; done")?;
    for _ in 0..2 {
        stubborn.signal(Signal::INT)?;
        lines.find(SOON, |line| (line == "caught").then_some(()))?;
    }
    stubborn.signal(Signal::INT)?;
    assert_eq!(stubborn.wait(SOON)?.code(), Some(130));
    Ok(())
}
