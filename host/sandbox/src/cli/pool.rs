//! `pool`: keeps VMs ready that nobody has claimed yet, and makes a new one for each that somebody has.
//!
//! ```text
//! too few --make one at a time--> ready --claimed--> a pod's; this pool only waits for its end, to reap it
//!    ^                              '--discarded, failed--> gone; the next one after a pause that doubles
//!    '---------------------------------------------------'
//! ```
//! A shell's supervisor decides alone whose it is; the pool hears of it.

use std::{
    env,
    ffi::OsString,
    io,
    process::Stdio,
    time::{Duration, Instant},
};

use clap::Args;
use postern_sandbox::{Home, Outcome, supervisor::Stop};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    sync::{mpsc, watch},
    task::JoinSet,
};

use super::{Failure, Output, failure::Reported, run::stop_on_signals, shell::Event, start_args};

/// How long a shell may take to end when the pool does.
const SHELL_END: Duration = Duration::from_secs(30);
/// Longest pause before the next try, and how long after a failure the next one counts as the first.
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// Keep VMs ready, so that starting a pod does not wait for QEMU
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    postern-host pool --size 4 --image DIR --tee simulated --cpus 1 --memory 256\n  \
    postern-host ls        shows them, with status \"shell\"\n\n\
    `postern-host start`, and so `postern pod create`, takes one if it is just what would be started otherwise: the\n\
    same image, shape, platform, address and programs. Each is used once. Runs until it is interrupted; pods that came\n\
    from it go on.")]
pub(super) struct Arguments {
    /// How many to keep ready
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=64))]
    size: u8,
    #[command(flatten)]
    vm: start_args::VmArguments,
    /// How events are printed
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

pub(super) async fn run(home: &Home, arguments: Arguments) -> Result<(), Failure> {
    let plan = arguments.vm.plan(home).await?;
    if plan.listen.port() != 0 {
        return Err(Failure::new(Outcome::Usage, &OnePort, None));
    }
    let mut stop = stop_on_signals()?;
    let mut line = vec![OsString::from("--state"), home.root().into(), "shell".into()];
    line.extend(start_args::vm_to_command_line(&plan));
    let mut pool = Pool::new(usize::from(arguments.size), line);
    let kept = tokio::select! {
        biased;
        _ = stop.wait_for(|stop| *stop != Stop::No) => Ok(()),
        kept = pool.keep(arguments.output) => kept,
    };
    pool.end().await;
    kept
}

#[derive(Debug, thiserror::Error)]
#[error("a pool cannot listen on one port for all its pods; use port 0, any free one")]
struct OnePort;

/// Which of its shells said something.
type Message = (u64, Event);

struct Pool {
    size: usize,
    line: Vec<OsString>,
    /// Shells that nobody has claimed, the one that is being made included.
    unclaimed: usize,
    /// The one that is being made.
    making: Option<u64>,
    made: u64,
    any_ready: bool,
    failures: u32,
    last_failure: Option<Instant>,
    keepers: JoinSet<()>,
    messages: mpsc::Receiver<Message>,
    sender: mpsc::Sender<Message>,
    end: watch::Sender<bool>,
}

impl Pool {
    fn new(size: usize, line: Vec<OsString>) -> Self {
        let (sender, messages) = mpsc::channel(16);
        Self {
            size,
            line,
            unclaimed: 0,
            making: None,
            made: 0,
            any_ready: false,
            failures: 0,
            last_failure: None,
            keepers: JoinSet::new(),
            messages,
            sender,
            end: watch::channel(false).0,
        }
    }

    /// Keeps shells ready for ever; fails if the very first cannot be made.
    async fn keep(&mut self, output: Output) -> Result<(), Failure> {
        loop {
            while self.keepers.try_join_next().is_some() {}
            let pause = self.pause();
            if self.making.is_none() && self.unclaimed < self.size && pause.is_zero() {
                self.make()?;
            }
            let waiting = self.making.is_none() && self.unclaimed < self.size;
            let (shell, event) = tokio::select! {
                // The pool holds a sender itself, so there is always one.
                Some(message) = self.messages.recv() => message,
                () = tokio::time::sleep(pause), if waiting => continue,
            };
            print(&event, output)?;
            self.heard(shell, &event);
            if let (Event::Failed(reported), false) = (event, self.any_ready) {
                return Err(reported.into());
            }
        }
    }

    fn heard(&mut self, shell: u64, event: &Event) {
        if self.making == Some(shell) {
            self.making = None;
        }
        match event {
            Event::Ready { .. } => self.any_ready = true,
            Event::Claimed { .. } => {
                self.unclaimed -= 1;
                self.failures = 0;
            }
            Event::Discarded { .. } | Event::Failed(_) => {
                self.unclaimed -= 1;
                let long_ago = self.last_failure.is_none_or(|last| last.elapsed() > MAX_PAUSE);
                self.failures = if long_ago { 1 } else { self.failures + 1 };
                self.last_failure = Some(Instant::now());
            }
        }
    }

    /// What is left of the pause after failures: a second, and twice as long each time.
    fn pause(&self) -> Duration {
        let (Some(last), 1..) = (self.last_failure, self.failures) else { return Duration::ZERO };
        let pause = Duration::from_secs(1 << (self.failures - 1).min(6)).min(MAX_PAUSE);
        pause.saturating_sub(last.elapsed())
    }

    fn make(&mut self) -> Result<(), Failure> {
        let unexpected = |error: io::Error| Failure::internal("cannot start a shell's supervisor", &error);
        let child = Command::new(env::current_exe().map_err(unexpected)?)
            .args(&self.line)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(unexpected)?;
        self.made += 1;
        self.unclaimed += 1;
        self.making = Some(self.made);
        self.keepers.spawn(look_after(self.made, child, self.sender.clone(), self.end.subscribe()));
        Ok(())
    }

    /// Ends the shells that nobody has claimed, and leaves the others alone.
    async fn end(mut self) {
        self.end.send_replace(true);
        self.messages.close();
        let ended = async { while self.keepers.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(SHELL_END, ended).await;
    }
}

/// Passes on what a shell says, and waits for its end.
async fn look_after(
    number: u64,
    mut child: Child,
    pool: mpsc::Sender<Message>,
    mut end: watch::Receiver<bool>,
) {
    let mut stdin = child.stdin.take();
    let Some(stdout) = child.stdout.take() else { return };
    let mut lines = BufReader::new(stdout).lines();
    let mut name = None;
    let mut said_last_word = false;
    loop {
        let line = tokio::select! {
            line = lines.next_line() => line,
            // Its standard input ends: it ends, unless somebody was faster.
            _ = end.wait_for(|end| *end), if stdin.is_some() => {
                stdin = None;
                continue;
            }
        };
        let Some(event) = line.ok().flatten().and_then(|line| serde_json::from_str::<Event>(&line).ok())
        else {
            break;
        };
        match &event {
            Event::Ready { shell, .. } => name = Some(shell.clone()),
            Event::Claimed { .. } | Event::Discarded { .. } | Event::Failed(_) => said_last_word = true,
        }
        // A pool that does not listen any more is about to end.
        let _ = pool.send((number, event)).await;
    }
    drop(stdin);
    let status = tokio::select! {
        status = child.wait() => status.map_or_else(|error| error.to_string(), |status| status.to_string()),
        // Somebody's pod by now: it goes on without a pool.
        _ = end.wait_for(|end| *end), if said_last_word => return,
    };
    if !said_last_word {
        let why = format!("its supervisor ended: {status}");
        let event = match name {
            Some(shell) => Event::Discarded { shell, why },
            None => Event::Failed(Reported::internal(why)),
        };
        let _ = pool.send((number, event)).await;
    }
}

fn print(event: &Event, output: Output) -> Result<(), Failure> {
    let text = match (output, event) {
        (Output::Json, event) => event.to_json(),
        (Output::Text, Event::Ready { shell, millis }) => {
            format!("{shell}: ready after {:.2} s", *millis as f64 / 1000.0)
        }
        (Output::Text, Event::Claimed { shell, pod }) => format!("{shell}: is pod {pod} now"),
        (Output::Text, Event::Discarded { shell, why }) => format!("{shell}: discarded: {why}"),
        (Output::Text, Event::Failed(reported)) => {
            format!("a shell could not be made: {}", reported.to_line())
        }
    };
    super::print(&(text + "\n"))
}
