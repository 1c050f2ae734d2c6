//! Pipes and terminals.

use postern_container::{ProcessIo, Stdio, WindowSize};
use postern_model::ExitStatus;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{chain, collect, feed, name, process, script, wish, with_pod};

/// Reads until `wanted` has come.
async fn read_until(io: &mut ProcessIo, wanted: &str) -> String {
    let mut seen = Vec::new();
    let stdout = io.stdout.as_mut().unwrap();
    while !String::from_utf8_lossy(&seen).contains(wanted) {
        let count = stdout.read_buf(&mut seen).await.unwrap();
        assert!(count > 0, "end of output before {wanted:?}: {:?}", String::from_utf8_lossy(&seen));
    }
    String::from_utf8_lossy(&seen).into_owned()
}

#[test]
fn input_ends_when_it_is_shut_down() {
    with_pod(|pod| async move {
        let id = pod.sleeper("a").await;
        let data: Vec<u8> = (0..3_000_000u32).flat_map(|n| n.to_le_bytes()).collect();
        let mut cat = pod.runtime.exec(&id, process(&["cat"]), Stdio::Pipes).await.unwrap();
        let mut stdout = cat.io.stdout.take().unwrap();
        let mut back = Vec::new();
        let (_, read) = tokio::join!(feed(&mut cat.io, &data), stdout.read_to_end(&mut back));
        read.unwrap();
        assert!(back == data, "{} of {} bytes", back.len(), data.len());
        assert_eq!(cat.process.exit().wait().await, ExitStatus::Exited(0));

        // Init's too.
        let mut spec = wish("b", &["cat"]);
        spec.stdin = true;
        let mut created = pod.create(spec, Stdio::Pipes).await;
        pod.runtime.start(&name("b")).await.unwrap();
        feed(&mut created.io, b"to init").await;
        assert_eq!(collect(created).await.stdout, "to init");
    });
}

#[test]
fn without_input_there_is_end_of_file() {
    with_pod(|pod| async move {
        let id = pod.sleeper("a").await;
        assert_eq!(pod.exec(&id, &["wc", "-c"]).await.stdout.trim(), "0");
        let closed = pod
            .runtime
            .exec(&id, process(&["sh", "-c", "echo into nothing; cat"]), Stdio::Closed)
            .await
            .unwrap();
        assert_eq!(closed.process.exit().wait().await, ExitStatus::Exited(0));
    });
}

#[test]
fn an_unprivileged_user_may_reopen_its_streams() {
    with_pod(|pod| async move {
        let mut spec = script("a", "echo init >/proc/self/fd/1; sleep 1000");
        spec.user = postern_model::RunUser::Named("web".into());
        let mut created = pod.create(spec, Stdio::OutputOnly).await;
        pod.runtime.start(&name("a")).await.unwrap();
        read_until(&mut created.io, "init\n").await;
        let output =
            pod.exec(&name("a"), &["sh", "-c", "echo exec >/dev/stdout; echo err >/dev/stderr"]).await;
        assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("exec\n", "err\n"));
    });
}

#[test]
fn a_terminal_is_a_terminal() {
    with_pod(|pod| async move {
        let id = pod.sleeper("a").await;
        let size = WindowSize { rows: 33, columns: 111 };
        let shell = process(&[
            "sh",
            "-c",
            "tty; stty size; read line; echo got $line; read line; stty size; cat; exit 5",
        ]);
        let mut shell = pod
            .runtime
            .exec(&id, shell, Stdio::Terminal(size))
            .await
            .unwrap_or_else(|e| panic!("{}", chain(&e)));
        assert!(shell.io.stderr.is_none());
        read_until(&mut shell.io, "/dev/pts/0\r\n33 111\r\n").await;
        shell.io.stdin.as_mut().unwrap().write_all(b"hello\n").await.unwrap();
        read_until(&mut shell.io, "got hello\r\n").await;
        shell.io.terminal.as_ref().unwrap().resize(WindowSize { rows: 10, columns: 20 }).unwrap();
        shell.io.stdin.as_mut().unwrap().write_all(b"\n").await.unwrap();
        read_until(&mut shell.io, "10 20\r\n").await;
        // The end of input on a terminal is a character.
        shell.io.stdin.as_mut().unwrap().shutdown().await.unwrap();
        let mut rest = String::new();
        shell.io.stdout.as_mut().unwrap().read_to_string(&mut rest).await.unwrap();
        assert_eq!(shell.process.exit().wait().await, ExitStatus::Exited(5));
    });
}

#[test]
fn keys_of_a_terminal_are_signals() {
    with_pod(|pod| async move {
        let id = pod.sleeper("a").await;
        let shell = process(&[
            "sh",
            "-c",
            "trap 'echo caught; exit 9' INT; echo ready; while true; do sleep 0.01; done",
        ]);
        let mut shell = pod.runtime.exec(&id, shell, Stdio::Terminal(WindowSize::default())).await.unwrap();
        read_until(&mut shell.io, "ready").await;
        shell.io.stdin.as_mut().unwrap().write_all(b"\x03").await.unwrap();
        read_until(&mut shell.io, "caught").await;
        assert_eq!(shell.process.exit().wait().await, ExitStatus::Exited(9));
    });
}

#[test]
fn init_can_have_a_terminal() {
    with_pod(|pod| async move {
        let mut spec = script(
            "a",
            "tty; stty size; echo $TERM; readlink /proc/self/fd/2; read line; echo $line; exit 4",
        );
        spec.terminal = true;
        let size = WindowSize { rows: 7, columns: 8 };
        let mut created = pod.create(spec, Stdio::Terminal(size)).await;
        pod.runtime.start(&name("a")).await.unwrap();
        let seen = read_until(&mut created.io, "xterm\r\n").await;
        assert!(seen.contains("7 8\r\n"), "{seen:?}");
        created.io.stdin.as_mut().unwrap().write_all(b"bye\n").await.unwrap();
        // Once as the terminal echoes it, once as the shell prints it.
        let mut rest = String::new();
        created.io.stdout.as_mut().unwrap().read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest.matches("bye\r\n").count(), 2, "{rest:?}");
        assert_eq!(created.process.exit().wait().await, ExitStatus::Exited(4));
    });
}
