//! What an owner does with containers, all through one tunnel.

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use postern_api::owner::{
    AttachStart, CloseStdin, ContainerSpec, CopyInBegin, CopyInRequest, CopyOutRequest, CreateRequest,
    ExecStart, Exit, LogsRequest, PauseRequest, PortForwardRequest, ProcessInput, PushBegin, PushRequest,
    RemoveRequest, StartRequest, StopRequest, TopRequest, UnpauseRequest, WaitRequest, WindowSize,
    copy_in_request, copy_out_response, port_forward_request, process_input, process_output, push_request,
};
use tonic::Code;

use crate::rig::{self, Owner};

pub(crate) async fn push(owner: &mut Owner) {
    let begin = push_request::Kind::Begin(PushBegin { reference: "busybox".into() });
    let image = Bytes::from(rig::busybox_image());
    let pieces = (0..image.len())
        .step_by(256 << 10)
        .map(move |at| push_request::Kind::Data(image.slice(at..image.len().min(at + (256 << 10)))));
    let messages: Vec<_> =
        std::iter::once(begin).chain(pieces).map(|kind| PushRequest { kind: Some(kind) }).collect();
    let image = owner.images.push(stream::iter(messages)).await.unwrap().into_inner().image.unwrap();
    assert_eq!(image.reference, "docker.io/library/busybox:latest");
}

pub(crate) fn spec(name: &str, args: &[&str]) -> ContainerSpec {
    ContainerSpec {
        name: name.into(),
        image: "busybox".into(),
        args: args.iter().map(ToString::to_string).collect(),
        ..Default::default()
    }
}

async fn create(owner: &mut Owner, spec: ContainerSpec) {
    owner.containers.create(CreateRequest { spec: Some(spec) }).await.unwrap();
}

pub(crate) async fn run(owner: &mut Owner, spec: ContainerSpec) {
    let container = spec.name.clone();
    create(owner, spec).await;
    owner.containers.start(StartRequest { container }).await.unwrap();
}

async fn logs(owner: &mut Owner, container: &str, follow: bool) -> Vec<u8> {
    let request = LogsRequest { container: container.into(), follow, ..Default::default() };
    let mut stream = owner.containers.logs(request).await.unwrap().into_inner();
    let mut text = Vec::new();
    while let Some(piece) = stream.next().await {
        text.extend_from_slice(&piece.unwrap().data);
    }
    text
}

fn input(kind: process_input::Kind) -> ProcessInput {
    ProcessInput { kind: Some(kind) }
}

struct Ran {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    exit: Exit,
}

async fn collect(mut answers: tonic::Streaming<postern_api::owner::ProcessOutput>) -> Ran {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    loop {
        match answers.next().await.expect("the exit comes last").unwrap().kind.unwrap() {
            process_output::Kind::Started(_) => {}
            process_output::Kind::Stdout(data) => stdout.extend_from_slice(&data),
            process_output::Kind::Stderr(data) => stderr.extend_from_slice(&data),
            process_output::Kind::Exit(exit) => return Ran { stdout, stderr, exit },
        }
    }
}

async fn exec(owner: &mut Owner, start: ExecStart, stdin: &[u8]) -> Ran {
    let mut messages = vec![input(process_input::Kind::Exec(start.clone()))];
    if start.stdin {
        for piece in stdin.chunks(64 << 10) {
            messages.push(input(process_input::Kind::Stdin(Bytes::copy_from_slice(piece))));
        }
        messages.push(input(process_input::Kind::CloseStdin(CloseStdin {})));
    }
    collect(owner.containers.exec(stream::iter(messages)).await.unwrap().into_inner()).await
}

fn command(container: &str, args: &[&str]) -> ExecStart {
    ExecStart {
        container: container.into(),
        args: args.iter().map(ToString::to_string).collect(),
        ..Default::default()
    }
}

#[tokio::test]
async fn a_container_lives_from_push_to_remove() {
    let (_agent, mut owner) = rig::owned().await;
    push(&mut owner).await;
    run(&mut owner, spec("web", &["sh", "-c", "echo out; echo err >&2; exit 3"])).await;
    let wait = WaitRequest { container: "web".into() };
    let exit = owner.containers.wait(wait.clone()).await.unwrap().into_inner().exit.unwrap();
    assert_eq!((exit.code, exit.signal), (3, 0));
    let mut text = logs(&mut owner, "web", false).await;
    text.sort_unstable();
    assert_eq!(text, b"\n\neorrtu");
    // Not reaped by the first: it says the same again.
    assert_eq!(owner.containers.wait(wait.clone()).await.unwrap().into_inner().exit.unwrap().code, 3);
    owner.containers.start(StartRequest { container: "web".into() }).await.unwrap();
    assert_eq!(owner.containers.wait(wait.clone()).await.unwrap().into_inner().exit.unwrap().code, 3);
    assert_eq!(logs(&mut owner, "web", true).await.len(), 16);
    owner.containers.remove(RemoveRequest { container: "web".into(), force: false }).await.unwrap();
    assert_eq!(owner.containers.wait(wait).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn exec_is_binary_safe_and_tells_how_it_ended() {
    let (_agent, mut owner) = rig::owned().await;
    push(&mut owner).await;
    run(&mut owner, spec("web", &["sleep", "1000"])).await;
    let data: Vec<u8> = (0..3_000_000u32).flat_map(u32::to_le_bytes).collect();
    let ran = exec(&mut owner, ExecStart { stdin: true, ..command("web", &["cat"]) }, &data).await;
    assert!(ran.stdout == data, "{} of {} bytes", ran.stdout.len(), data.len());
    assert_eq!(ran.exit.code, 0);
    let ran = exec(&mut owner, command("web", &["sh", "-c", "echo no >&2; kill -9 $$"]), b"").await;
    assert_eq!((&ran.stderr[..], ran.exit.code, ran.exit.signal), (&b"no\n"[..], 137, 9));
    let unknown = stream::iter([input(process_input::Kind::Exec(command("web", &["no-such-thing"])))]);
    let unknown = owner.containers.exec(unknown).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound, "{unknown}");
    assert_eq!(unknown.metadata().get(postern_api::metadata::EXIT).unwrap(), "127");
    // A child that keeps the output open does not keep the caller.
    let ran = exec(&mut owner, command("web", &["sh", "-c", "sleep 1000 & echo started"]), b"").await;
    assert_eq!((&ran.stdout[..], ran.exit.code), (&b"started\n"[..], 0));
    let missing =
        owner.containers.exec(stream::iter([input(process_input::Kind::Exec(command("x", &["a"])))])).await;
    assert_eq!(missing.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn a_foreground_run_loses_nothing() {
    let (_agent, mut owner) = rig::owned().await;
    push(&mut owner).await;
    create(&mut owner, spec("big", &["sh", "-c", "yes 0123456789abcde | head -c 20000000; exit 7"])).await;
    let attach = AttachStart { container: "big".into(), start: true, ..Default::default() };
    let messages = stream::iter([input(process_input::Kind::Attach(attach))]);
    let ran = collect(owner.containers.attach(messages).await.unwrap().into_inner()).await;
    assert_eq!((ran.stdout.len(), ran.exit.code), (20_000_000, 7));
    assert!(ran.stdout.chunks(16).all(|line| line == b"0123456789abcde\n"));
}

#[tokio::test]
async fn stop_ends_what_ignores_its_signal() {
    let (_agent, mut owner) = rig::owned().await;
    push(&mut owner).await;
    run(&mut owner, spec("deaf", &["sh", "-c", "trap '' TERM; echo ready; while true; do sleep 1; done"]))
        .await;
    let request = LogsRequest { container: "deaf".into(), follow: true, ..Default::default() };
    let mut output = owner.containers.logs(request).await.unwrap().into_inner();
    assert_eq!(output.next().await.unwrap().unwrap().data, "ready\n");
    let stop = StopRequest { container: "deaf".into(), grace_millis: 50 };
    let exit = owner.containers.stop(stop).await.unwrap().into_inner().exit.unwrap();
    assert_eq!((exit.code, exit.signal), (137, 9));
    assert!(output.next().await.is_none());
}

#[tokio::test]
async fn copies_both_ways() {
    let (_agent, mut owner) = rig::owned().await;
    push(&mut owner).await;
    run(&mut owner, spec("web", &["sleep", "1000"])).await;
    let content: Vec<u8> = (0..700_000u32).flat_map(u32::to_be_bytes).collect();
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_mode(0o644);
    header.set_size(content.len() as u64);
    tar.append_data(&mut header, "data", &content[..]).unwrap();
    let tar = Bytes::from(tar.into_inner().unwrap());
    let begin = CopyInBegin { container: "web".into(), directory: "/tmp".into(), preserve_owner: false };
    let messages: Vec<_> = std::iter::once(copy_in_request::Kind::Begin(begin))
        .chain(
            (0..tar.len())
                .step_by(100_000)
                .map(|at| copy_in_request::Kind::Data(tar.slice(at..tar.len().min(at + 100_000)))),
        )
        .map(|kind| CopyInRequest { kind: Some(kind) })
        .collect();
    let copied = owner.containers.copy_in(stream::iter(messages)).await.unwrap().into_inner();
    assert_eq!((copied.entries, copied.bytes), (1, content.len() as u64));
    let request = CopyOutRequest { container: "web".into(), path: "/tmp/data".into(), follow_link: false };
    let mut answers = owner.containers.copy_out(request).await.unwrap().into_inner();
    let mut archive = Vec::new();
    while let Some(answer) = answers.next().await {
        match answer.unwrap().kind.unwrap() {
            copy_out_response::Kind::Begin(begin) => assert!(!begin.is_directory),
            copy_out_response::Kind::Data(data) => archive.extend_from_slice(&data),
        }
    }
    let mut archive = tar::Archive::new(&archive[..]);
    let mut entry = archive.entries().unwrap().next().unwrap().unwrap();
    let mut back = Vec::new();
    std::io::Read::read_to_end(&mut entry, &mut back).unwrap();
    assert!(back == content);
    let request = CopyOutRequest { container: "web".into(), path: "/nowhere".into(), follow_link: false };
    let missing = match owner.containers.copy_out(request).await {
        Err(status) => status,
        Ok(answers) => {
            answers.into_inner().filter_map(|answer| async { answer.err() }).boxed().next().await.unwrap()
        }
    };
    assert_eq!(missing.code(), Code::NotFound, "{missing}");
}

async fn processes(owner: &mut Owner, container: &str) -> Vec<Vec<String>> {
    let top = owner.containers.top(TopRequest { container: container.into() }).await.unwrap().into_inner();
    top.processes.into_iter().map(|process| process.command).collect()
}

#[tokio::test]
async fn a_terminal_has_the_callers_size() {
    let (_agent, mut owner) = rig::owned().await;
    push(&mut owner).await;
    run(&mut owner, spec("web", &["sleep", "1000"])).await;
    let size = Some(WindowSize { rows: 31, columns: 97 });
    let start = ExecStart { terminal: true, stdin: true, size, ..command("web", &["sh"]) };
    let typed = b"stty size; tty; exit 5\n";
    let ran = exec(&mut owner, start, typed).await;
    let text = String::from_utf8_lossy(&ran.stdout).into_owned();
    assert!(text.contains("31 97\r\n") && text.contains("/dev/pts/"), "{text}");
    assert_eq!(ran.exit.code, 5);
    assert!(ran.stderr.is_empty());
}

#[tokio::test]
async fn who_leaves_takes_the_command_along() {
    let (_agent, mut owner) = rig::owned().await;
    push(&mut owner).await;
    run(&mut owner, spec("web", &["sleep", "1000"])).await;
    for start in [
        command("web", &["sleep", "2000"]),
        ExecStart { terminal: true, stdin: true, ..command("web", &["sh", "-c", "sleep 3000; true"]) },
        command("web", &["sh", "-c", "trap '' HUP; sleep 4000; true"]),
    ] {
        // The input stays open, as from a user who types nothing.
        let (input, messages) = tokio::sync::mpsc::channel(1);
        input.send(self::input(process_input::Kind::Exec(start))).await.unwrap();
        let messages = tokio_stream::wrappers::ReceiverStream::new(messages);
        let mut answers = owner.containers.exec(messages).await.unwrap().into_inner();
        assert!(matches!(
            answers.next().await.unwrap().unwrap().kind.unwrap(),
            process_output::Kind::Started(_)
        ));
        assert!(processes(&mut owner, "web").await.len() > 1);
        drop(answers);
    }
    let gone = async {
        while processes(&mut owner, "web").await.len() > 1 {
            tokio::task::yield_now().await;
        }
    };
    let gone = tokio::time::timeout(std::time::Duration::from_secs(20), gone).await;
    assert!(gone.is_ok(), "{:?}", processes(&mut owner, "web").await);
}

#[tokio::test]
async fn hundreds_of_execs_leave_no_descriptor() {
    let (agent, mut owner) = rig::owned().await;
    push(&mut owner).await;
    run(&mut owner, spec("web", &["sleep", "1000"])).await;
    let open = || std::fs::read_dir(format!("/proc/{}/fd", agent.child.id())).unwrap().count();
    for _ in 0..10 {
        assert_eq!(exec(&mut owner, command("web", &["true"]), b"").await.exit.code, 0);
    }
    let before = open();
    for _ in 0..200 {
        assert_eq!(exec(&mut owner, command("web", &["true"]), b"").await.exit.code, 0);
    }
    let after = open();
    assert!(after <= before + 3, "{before} descriptors, then {after}");
}

#[tokio::test]
async fn pause_and_remove_follow_the_state() {
    let (_agent, mut owner) = rig::owned().await;
    push(&mut owner).await;
    run(&mut owner, spec("web", &["sleep", "1000"])).await;
    let early = owner.containers.remove(RemoveRequest { container: "web".into(), force: false }).await;
    assert_eq!(early.unwrap_err().code(), Code::FailedPrecondition);
    owner.containers.pause(PauseRequest { container: "web".into() }).await.unwrap();
    let again = owner.containers.pause(PauseRequest { container: "web".into() }).await;
    assert_eq!(again.unwrap_err().code(), Code::FailedPrecondition);
    let frozen = stream::iter([input(process_input::Kind::Exec(command("web", &["true"])))]);
    assert_eq!(owner.containers.exec(frozen).await.unwrap_err().code(), Code::FailedPrecondition);
    owner.containers.unpause(UnpauseRequest { container: "web".into() }).await.unwrap();
    assert_eq!(exec(&mut owner, command("web", &["true"]), b"").await.exit.code, 0);
    owner.containers.remove(RemoveRequest { container: "web".into(), force: true }).await.unwrap();
    // The name is free again.
    run(&mut owner, ContainerSpec { auto_remove: true, ..spec("web", &["true"]) }).await;
}

#[tokio::test]
async fn a_forwarded_port_echoes_and_closes() {
    let (_agent, mut owner) = rig::owned().await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        let mut text = Vec::new();
        std::io::Read::read_to_end(&mut socket, &mut text).unwrap();
        text.reverse();
        std::io::Write::write_all(&mut socket, &text).unwrap();
    });
    let messages = [
        port_forward_request::Kind::Port(port.into()),
        port_forward_request::Kind::Data(Bytes::from_static(b"postern")),
        port_forward_request::Kind::Close(true),
    ];
    let messages = messages.map(|kind| PortForwardRequest { kind: Some(kind) });
    let mut answers = owner.containers.port_forward(stream::iter(messages)).await.unwrap().into_inner();
    let mut text = Vec::new();
    while let Some(answer) = answers.next().await {
        text.extend_from_slice(&answer.unwrap().data);
    }
    assert_eq!(text, b"nretsop");
}
