//! Exits reach whoever asks, early or late; alone in its program, whose children the reaper waits for.

// A test stops at the first surprise.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::{Command, Stdio};

use postern_container::Reaper;
use postern_model::ExitStatus;

fn shell(script: &str) -> u32 {
    // Waited for by the reaper.
    Command::new("/bin/sh").args(["-c", script]).stdin(Stdio::null()).spawn().unwrap().id()
}

/// Whether `pid` is gone altogether, reaped.
fn is_reaped(pid: u32) -> bool {
    !std::path::Path::new(&format!("/proc/{pid}")).exists()
}

#[tokio::test]
async fn tells_every_end() {
    let reaper = Reaper::start().unwrap();

    let late = shell("exit 3");
    assert_eq!(reaper.exit_of(late).wait().await, ExitStatus::Exited(3));
    let killed = shell("kill -15 $$");
    assert_eq!(reaper.exit_of(killed).wait().await, ExitStatus::Signalled(15));

    // Reaped before anybody asked.
    let early = shell("exit 4");
    while !is_reaped(early) {
        tokio::task::yield_now().await;
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    assert_eq!(reaper.exit_of(early).wait().await, ExitStatus::Exited(4));

    // Any number of callers, at any time.
    let shared = shell("exit 5");
    let exit = reaper.exit_of(shared);
    let others: Vec<_> = (0..10)
        .map(|_| {
            let exit = exit.clone();
            tokio::spawn(async move { exit.wait().await })
        })
        .collect();
    for other in others {
        assert_eq!(other.await.unwrap(), ExitStatus::Exited(5));
    }
    assert_eq!(exit.now(), Some(ExitStatus::Exited(5)));

    // A grandchild whose parent ends becomes ours.
    let parent = shell("sh -c 'exit 6' & exit 0");
    assert_eq!(reaper.exit_of(parent).wait().await, ExitStatus::Exited(0));

    // Many at once: none is lost.
    let all: Vec<(u8, u32)> = (0..100).map(|code| (code, shell(&format!("exit {code}")))).collect();
    for (code, pid) in all {
        assert_eq!(reaper.exit_of(pid).wait().await, ExitStatus::Exited(code));
    }
}
