//! Drives one process in the pod: input, output, window size and signals between this terminal and the tunnel.
//!
//! ```text
//! stdin --thread--> Feed --requests--> guest --answers--> receive --thread--> stdout, stderr
//! signals, window -----^
//! ```
//! Output is received and input is fed by two futures of their own, so that neither side's slowness stops the other.

use std::future::Future;

use postern_api::{
    bulk::Incoming,
    owner::{CloseStdin, ProcessInput, ProcessOutput, process_input, process_output},
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Response, Status};

use super::{
    input::{self, DetachKeys, Typed},
    output::{Screen, Writer},
    signals::{Caught, Signals},
    terminal::{self, RawMode},
};
use crate::{
    door::{Session, Subject},
    exit::Exit,
    failure::{Failure, OrFail},
    output::notice,
    timeline::Moments,
};

/// Messages to the guest that wait for the tunnel.
const QUEUE: usize = 4;
/// The interrupt that stops waiting for a process that ignores the ones before.
const LAST_INTERRUPT: u32 = 3;

/// How a process is connected to this terminal.
#[derive(Debug, Clone)]
pub(crate) struct Connection<'a> {
    pub(crate) subject: Subject<'a>,
    /// The process has a terminal of its own.
    pub(crate) terminal: bool,
    pub(crate) stdin: bool,
    pub(crate) leave: Leave,
    /// Where to note when it started and first wrote something.
    pub(crate) moments: Option<&'a Moments>,
}

/// What becomes of the process when this program leaves it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leave {
    /// A container goes on; ctrl-p ctrl-q detaches from it.
    GoesOn,
    /// An exec session ends with its stream.
    Ends,
}

/// Why feeding stopped before the process ended.
#[derive(Debug)]
enum Left {
    Detached,
    Signal(u8),
    Input(std::io::Error),
}

/// Why receiving stopped.
enum Received {
    Exit(Exit),
    /// Our reader has gone; nobody sees further output.
    NoReader(Failure),
}

/// Opens the stream with `first` and stays until the process ends; returns its code.
pub(crate) async fn drive<Open, Opening>(
    session: &Session,
    connection: Connection<'_>,
    first: process_input::Kind,
    open: Open,
) -> Result<Exit, Failure>
where
    Open: FnOnce(ReceiverStream<ProcessInput>) -> Opening,
    Opening: Future<Output = Result<Response<Incoming<ProcessOutput>>, Status>>,
{
    let signals = Signals::new().or_fail(|| "cannot listen for signals".into())?;
    let (requests, receiver) = mpsc::channel(QUEUE);
    let first = ProcessInput { kind: Some(first) };
    requests.try_send(first).or_fail(|| "cannot begin the stream".into())?;
    let answers = session.open_stream(connection.subject, open(ReceiverStream::new(receiver))).await?;
    // From here on keys belong to the process; errors before this point were printed to a normal terminal.
    let raw = match connection.terminal && connection.stdin && terminal::stdin_is_terminal() {
        true => Some(RawMode::enter().or_fail(|| "cannot switch the terminal to raw mode".into())?),
        false => None,
    };
    let screen = if connection.terminal { Screen::Raw } else { Screen::Sanitised };
    let outcome = {
        let feed = feed(&connection, requests, signals, raw.is_some());
        tokio::select! {
            received = receive(session, &connection, answers, screen) => received,
            left = feed => return Err(leave(&connection, left)),
        }
    };
    drop(raw);
    match outcome? {
        Received::Exit(exit) => Ok(exit),
        Received::NoReader(failure) => Err(failure),
    }
}

fn leave(connection: &Connection<'_>, left: Left) -> Failure {
    terminal::restore();
    let remains = match connection.leave {
        Leave::GoesOn => "the container goes on",
        Leave::Ends => "the process was left",
    };
    match left {
        Left::Detached => {
            notice(&format!("\ndetached; {remains}"));
            Failure::silent(Exit::Done)
        }
        Left::Signal(signal) => Failure::interrupted(signal, format!("ended by signal {signal}; {remains}")),
        Left::Input(error) => Failure::general("cannot read standard input").caused_by(error),
    }
}

/// Takes the guest's messages to our standard streams until the exit, or until our reader goes.
async fn receive(
    session: &Session,
    connection: &Connection<'_>,
    mut answers: Incoming<ProcessOutput>,
    screen: Screen,
) -> Result<Received, Failure> {
    let Connection { subject, moments, .. } = *connection;
    let (mut stdout, mut stderr) = (None, None);
    let exit = loop {
        let answer = answers.message().await.map_err(|status| session.failure(subject, &status))?;
        let (writer, piece) = match answer.and_then(|answer| answer.kind) {
            Some(process_output::Kind::Started(_)) => {
                moments.inspect(|moments| moments.started_now());
                continue;
            }
            Some(process_output::Kind::Stdout(piece)) => {
                (stdout.get_or_insert_with(|| Writer::stdout(screen)), piece)
            }
            Some(process_output::Kind::Stderr(piece)) => {
                (stderr.get_or_insert_with(|| Writer::stderr(screen)), piece)
            }
            Some(process_output::Kind::Exit(exit)) => break Some(exit),
            None => break None,
        };
        moments.inspect(|moments| moments.output_now());
        if !writer.write(piece).await {
            break None;
        }
    };
    let mut written = Ok(());
    for writer in [stdout, stderr].into_iter().flatten() {
        written = written.and(writer.finish().await);
    }
    match (written, exit) {
        (Err(error), _) if error.kind() == std::io::ErrorKind::BrokenPipe => {
            // As any program in a pipeline whose reader has enough.
            Ok(Received::NoReader(Failure::silent(Exit::Signal(13))))
        }
        (Err(error), _) => Err(Failure::stdout(error)),
        (Ok(()), Some(exit)) => {
            if exit.oom_killed {
                notice("postern: the process was killed because it ran out of memory");
            }
            Ok(Received::Exit(Exit::of_process(&exit)))
        }
        (Ok(()), None) => Err(Failure::new(Exit::Unreachable, format!("cannot {}", subject.doing))
            .caused_by("the pod ended the stream without an exit code")),
    }
}

/// Sends input, window sizes and signals until something says to leave.
async fn feed(
    connection: &Connection<'_>,
    requests: mpsc::Sender<ProcessInput>,
    signals: Signals,
    raw: bool,
) -> Left {
    let keys = if raw { Keys::Theirs } else { Keys::Ours };
    let commands = watch_signals(connection.terminal, keys, requests.clone(), signals);
    let stdin = async {
        if connection.stdin
            && let Some(left) = feed_stdin(connection, requests, raw).await
        {
            return left;
        }
        std::future::pending().await
    };
    tokio::select! {
        left = commands => left,
        left = stdin => left,
    }
}

async fn feed_stdin(
    connection: &Connection<'_>,
    requests: mpsc::Sender<ProcessInput>,
    raw: bool,
) -> Option<Left> {
    let mut pieces = input::stdin();
    let mut keys = (raw && connection.leave == Leave::GoesOn).then(DetachKeys::default);
    while let Some(piece) = pieces.recv().await {
        let piece = match (piece, &mut keys) {
            (Err(error), _) => return Some(Left::Input(error)),
            (Ok(piece), None) => piece,
            (Ok(piece), Some(keys)) => match keys.look(&piece) {
                Typed::Detach => return Some(Left::Detached),
                Typed::Input(piece) => piece,
            },
        };
        if !piece.is_empty() && !send(&requests, process_input::Kind::Stdin(piece)).await {
            return None;
        }
    }
    send(&requests, process_input::Kind::CloseStdin(CloseStdin {})).await;
    None
}

/// Whose the keys of our terminal are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keys {
    /// Raw mode: the process gets every key.
    Theirs,
    /// Ctrl-C is a signal for us.
    Ours,
}

async fn watch_signals(
    terminal: bool,
    keys: Keys,
    requests: mpsc::Sender<ProcessInput>,
    mut signals: Signals,
) -> Left {
    let mut interrupts = 0;
    loop {
        match signals.next().await {
            Caught::WindowChanged if terminal => {
                if let Some(size) = terminal::window_size() {
                    // Only the latest size matters: one that finds the queue full is made up for by the next.
                    let _ = requests.try_send(ProcessInput { kind: Some(process_input::Kind::Resize(size)) });
                }
            }
            Caught::WindowChanged => {}
            // Interrupts come as keys then; a real signal is meant for this program.
            Caught::Signal(signal) if keys == Keys::Theirs => return Left::Signal(signal),
            Caught::Signal(signal) => {
                interrupts += u32::from(signal == 2);
                let kind = process_input::Kind::Signal(signal.into());
                let queued = requests.try_send(ProcessInput { kind: Some(kind) });
                // The process takes no input, so that nothing gets past it, or it ignores what it was sent.
                if queued.is_err() || interrupts >= LAST_INTERRUPT {
                    return Left::Signal(signal);
                }
            }
        }
    }
}

async fn send(requests: &mpsc::Sender<ProcessInput>, kind: process_input::Kind) -> bool {
    requests.send(ProcessInput { kind: Some(kind) }).await.is_ok()
}
