//! With a terminal: raw mode and back, window size, leaving.

use postern_tests::terminal::Terminal;
use rustix::process::Signal;

use crate::rig::{Owner, Pod, SOON};

/// A shell with a terminal in which `postern` is the program under test.
fn shell(owner: &Owner, script: &str) -> anyhow::Result<Terminal> {
    let postern = owner.command::<&str>(&[]);
    let mut command = std::process::Command::new("bash");
    command.args(["--norc", "-c", script]).current_dir(owner.path(""));
    command.envs(postern.get_envs().filter_map(|(key, value)| Some((key, value?))));
    command.env("POSTERN", env!("CARGO_BIN_EXE_postern"));
    Terminal::spawn(command, 24, 80)
}

#[test]
fn a_shell_in_a_terminal_and_the_terminal_afterwards() -> anyhow::Result<()> {
    let pod = Pod::with_container()?;
    let mut terminal =
        shell(&pod, "stty -g >before; $POSTERN exec -it demo/web sh; code=$?; stty -g >after; exit $code")?;
    terminal.type_text("stty size; echo ready-$((6*7))\n")?;
    terminal.expect("24 80", SOON)?;
    terminal.expect("ready-42", SOON)?;
    terminal.resize(50, 132)?;
    terminal
        .type_text("until [ \"$(stty size)\" = '50 132' ]; do sleep 0.05; done; echo resized-$((40+2))\n")?;
    terminal.expect("resized-42", SOON)?;
    // Ctrl-C is a key there, and ends what runs there only.
    terminal.type_text("echo asleep-$((6*7)); sleep 1000\n")?;
    terminal.expect("asleep-42", SOON)?;
    terminal.type_text("\x03")?;
    terminal.type_text("echo still-$((6*7))\n")?;
    terminal.expect("still-42", SOON)?;
    terminal.type_text("exit 3\n")?;
    assert_eq!(terminal.wait(SOON)?, 3);
    assert_eq!(std::fs::read(pod.path("before"))?, std::fs::read(pod.path("after"))?);
    Ok(())
}

#[test]
fn the_terminal_is_restored_when_postern_is_told_to_end() -> anyhow::Result<()> {
    let pod = Pod::with_container()?;
    let script = "stty -g >before; sh -c 'echo $$ >pid; exec $POSTERN exec -it demo/web sh'; code=$?; \
                  stty -g >after; exit $code";
    let mut terminal = shell(&pod, script)?;
    terminal.type_text("echo ready-$((6*7))\n")?;
    terminal.expect("ready-42", SOON)?;
    let pid: i32 = std::fs::read_to_string(pod.path("pid"))?.trim().parse()?;
    let pid = rustix::process::Pid::from_raw(pid).expect("a process id");
    rustix::process::kill_process(pid, Signal::TERM)?;
    assert_eq!(terminal.wait(SOON)?, 143);
    assert_eq!(std::fs::read(pod.path("before"))?, std::fs::read(pod.path("after"))?);
    Ok(())
}

#[test]
fn keys_leave_a_container_and_it_goes_on() -> anyhow::Result<()> {
    let pod = Pod::with_image()?;
    let mut terminal = shell(&pod, "$POSTERN run -it --name sh demo busybox sh")?;
    terminal.type_text("echo ready-$((6*7))\n")?;
    terminal.expect("ready-42", SOON)?;
    terminal.type_text("\x10\x11")?;
    terminal.expect("detached", SOON)?;
    assert_eq!(terminal.wait(SOON)?, 0);
    assert_eq!(pod.ok(&["ps", "-q", "demo"]).text(), "sh\n");
    let mut terminal = shell(&pod, "$POSTERN attach demo/sh")?;
    terminal.type_text("echo back-$((6*7))\n")?;
    terminal.expect("back-42", SOON)?;
    terminal.type_text("exit 4\n")?;
    assert_eq!(terminal.wait(SOON)?, 4);
    Ok(())
}

#[test]
fn without_a_terminal_of_its_own_a_process_cannot_drive_ours() -> anyhow::Result<()> {
    let pod = Pod::with_container()?;
    let attack = r"printf '\033]52;c;ZXZpbA==\007 done\n'";
    let mut terminal = shell(&pod, &format!("$POSTERN exec demo/web sh -c \"{attack}\""))?;
    terminal.expect("^[]52;c;ZXZpbA==^G done", SOON)?;
    // With -t it is what the user asked for, and in a pipe it is data.
    let said = pod.ok(&["exec", "demo/web", "sh", "-c", attack]);
    assert_eq!(said.stdout, b"\x1b]52;c;ZXZpbA==\x07 done\n");
    let refused = pod.fails_with(2, &["exec", "-it", "demo/web", "sh"]);
    assert!(refused.stderr.contains("leave -t away"), "{}", refused.stderr);
    Ok(())
}
