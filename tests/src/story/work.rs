//! Working in a pod: what docker's users do all day, each with its result checked.

use std::process::Stdio;

use anyhow::{Context as _, ensure};

use super::{POD, SOON, Stage, contains};
use crate::{
    process::{Guarded, Lines},
    terminal::Terminal,
};

const WEB: &str = "demo/web";
/// Exit code of `postern` when a pod, container or image does not exist.
const NOT_FOUND: i32 = 6;

pub(super) fn exec(stage: &mut Stage) -> anyhow::Result<String> {
    let said = stage
        .home
        .postern(&["exec", WEB, "--", "sh", "-c", "echo out; echo err >&2; exit 7"])?
        .expect_code(7)?;
    ensure!(said.stdout == b"out\n", "stdout was {:?}", said.text());
    contains("stderr", &said.stderr, "err")?;
    let said = stage.ok(&[
        "exec",
        "-e",
        "A=b",
        "-w",
        "/tmp",
        "-u",
        "1000",
        WEB,
        "--",
        "sh",
        "-c",
        "echo $A $PWD $(id -u)",
    ])?;
    ensure!(said.stdout == b"b /tmp 1000\n", "exec saw {:?}", said.text());
    Ok("exit code 7 came back; its own env, directory and user".into())
}

pub(super) fn terminal(stage: &mut Stage) -> anyhow::Result<String> {
    let mut command = stage.home.command("postern")?;
    command.args(["exec", "-it", WEB, "--", "sh"]);
    let mut terminal = Terminal::spawn(command, 40, 100)?;
    terminal.type_text("tty >/dev/null && stty size; echo ready-$((6*7))\n")?;
    terminal.expect("40 100", SOON)?;
    terminal.expect("ready-42", SOON)?;
    terminal.resize(50, 132)?;
    // The new size crosses the tunnel on its own time: ask until it is there.
    terminal
        .type_text("until [ \"$(stty size)\" = '50 132' ]; do sleep 0.05; done; echo resized-$((40+2))\n")?;
    terminal.expect("resized-42", SOON)?;
    terminal.type_text("exit 3\n")?;
    let code = terminal.wait(SOON)?;
    ensure!(code == 3, "exit code {code} instead of 3");
    Ok("a terminal of 40x100, resized to 50x132".into())
}

pub(super) fn stdin(stage: &mut Stage) -> anyhow::Result<String> {
    let input: Vec<u8> = (0..1 << 20).map(|at: u32| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let said = stage.home.postern_with_input(&["exec", "-i", WEB, "--", "sha256sum"], &input)?.ok()?;
    let expected = crate::archive::sha256(&input);
    contains("sha256sum", &said.text(), expected.trim_start_matches("sha256:"))?;
    Ok("1 MiB of binary, same SHA-256 on the other side".into())
}

pub(super) fn logs(stage: &mut Stage) -> anyhow::Result<String> {
    let script = "echo one; read go; echo two; echo three >&2";
    stage.ok(&["run", POD, "busybox:latest", "-d", "-i", "--name", "talk", "--", "sh", "-c", script])?;
    let mut command = stage.home.command("postern")?;
    command.args(["logs", "-f", "demo/talk"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut follower = Guarded::spawn(&mut command)?;
    let out = Lines::of(follower.child().stdout.take().context("no stdout")?);
    let err = Lines::of(follower.child().stderr.take().context("no stderr")?);
    out.find(SOON, |line| (line == "one").then_some(()))?;
    stage.home.postern_with_input(&["attach", "demo/talk"], b"go\n")?.ok()?;
    out.find(SOON, |line| (line == "two").then_some(()))?;
    err.find(SOON, |line| (line == "three").then_some(()))?;
    ensure!(follower.wait(SOON)?.success(), "logs -f did not end with the container");
    stage.ok(&["rm", "demo/talk"])?;
    Ok("old lines, new lines, end of the container".into())
}

pub(super) fn copy(stage: &mut Stage) -> anyhow::Result<String> {
    let file: Vec<u8> = (0..3_000_000u32).map(|at| (at.wrapping_mul(40_503) >> 7) as u8).collect();
    let folder = stage.path("tree");
    std::fs::create_dir_all(folder.join("deep/er"))?;
    std::fs::write(folder.join("deep/er/file.bin"), &file)?;
    std::fs::write(folder.join("top"), b"top\n")?;
    std::os::unix::fs::symlink("deep/er/file.bin", folder.join("link"))?;
    stage.ok(&["cp", &folder.display().to_string(), "demo/web:/tmp"])?;
    let said = stage.ok(&["exec", WEB, "--", "sha256sum", "/tmp/tree/link"])?;
    contains("sha256sum", &said.text(), crate::archive::sha256(&file).trim_start_matches("sha256:"))?;
    let back = stage.path("back");
    stage.ok(&["cp", "demo/web:/tmp/tree", &back.display().to_string()])?;
    ensure!(std::fs::read(back.join("deep/er/file.bin"))? == file, "the directory came back changed");
    let single = stage.path("single");
    stage.ok(&["cp", "demo/web:/tmp/tree/top", &single.display().to_string()])?;
    ensure!(std::fs::read(single)? == b"top\n", "the file came back changed");
    Ok("a file and a directory with a link, 3 MB each way".into())
}

pub(super) fn look(stage: &mut Stage) -> anyhow::Result<String> {
    let listed = stage.ok(&["ps", POD, "--output", "json"])?.json()?;
    contains("ps", &listed.to_string(), "\"web\"")?;
    let stats = stage.ok(&["stats", WEB, "--no-stream", "--output", "json"])?.json()?;
    contains("stats", &stats.to_string(), "memory_bytes")?;
    let inspected = stage.ok(&["inspect", WEB, "--output", "json"])?.json()?;
    contains("inspect", &inspected.to_string(), "sha256:")?;
    Ok("tables for people, JSON for programs".into())
}

pub(super) fn life_cycle(stage: &mut Stage) -> anyhow::Result<String> {
    stage.ok(&["run", POD, "busybox:latest", "-d", "--name", "victim", "--", "sleep", "1000"])?;
    stage.ok(&["kill", "demo/victim"])?;
    let waited = stage.ok(&["wait", "demo/victim"])?;
    ensure!(waited.text().trim() == "137", "wait said {:?}", waited.text());
    stage.ok(&["rm", "demo/victim"])?;
    stage.home.postern(&["inspect", "demo/victim"])?.expect_code(NOT_FOUND)?;
    stage.ok(&["stop", WEB])?;
    contains("wait", &stage.ok(&["wait", WEB])?.text(), "0")?;
    stage.ok(&["start", WEB])?;
    stage.ok(&["exec", WEB, "--", "true"])?;
    Ok("137 after kill, 0 after a graceful stop, up again after start".into())
}
