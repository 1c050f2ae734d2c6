//! Running an image under trace where it can harm nothing.
//!
//! Four processes, each of them this program or one of the system:
//!
//! ```text
//! derive -> unshare(1)   new process, mount, network, host name and IPC name spaces
//!           `- stage     process 1 there: an own tmpfs, the loopback, the deadline; ends with its caller
//!              |- unpack the layers, in a process whose root is already the empty directory
//!              `- strace(1) -> enter   makes that directory the root for good, gives up every capability that a
//!                                      container has not, starts the image's program and the check
//! ```
//!
//! Everything that is written is on that tmpfs, and everything that runs is below process 1: when it ends, and it ends
//! when its caller does, nothing is left.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, BufRead, Read, Write},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::mount::{MountFlags, mount};
use serde::{Deserialize, Serialize};

use super::{
    findings::Findings,
    image::{ContainerImage, ImageReadError},
    rules::{FileKind, Rules, RulesError},
    strace,
    unpack::{self, UnpackError},
};

mod enter;

pub use enter::{EnterError, enter};

/// What follows the deadline before everything is ended the hard way.
const GRACE: Duration = Duration::from_secs(20);
/// How long unpacking may take.
const UNPACKING: Duration = Duration::from_secs(300);
/// Between two looks at a child.
const PAUSE: Duration = Duration::from_millis(20);
/// Most bytes of one process's trace that are read.
const MAX_TRACE: u64 = 256 << 20;
/// Most bytes that a stage may report.
const MAX_REPORT: u64 = 64 << 20;
/// How much of the image's own output is shown when it fails.
const SHOWN_LOG: usize = 4000;

/// What to run and for how long.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    pub image: PathBuf,
    pub tag: Option<String>,
    /// Instead of what the image starts.
    pub command: Option<Vec<String>>,
    /// Run by the image's shell beside it, again and again until it succeeds.
    pub check: Option<String>,
    /// Until the check has to have succeeded; without a check, how long to watch.
    pub seconds: u64,
    /// Most bytes that the image and its trace may take.
    pub space: u64,
    /// An empty directory of the caller's, to put the tmpfs on.
    pub directory: PathBuf,
}

/// What was seen.
#[derive(Debug, Serialize, Deserialize)]
pub struct Report {
    pub findings: Findings,
    pub outcome: Outcome,
    /// The end of what the image printed.
    pub log: String,
    pub calls: u64,
    pub unreadable: u64,
    pub processes: usize,
}

/// How the run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The check succeeded.
    Checked,
    /// There was none; the program was watched until the time was over.
    Watched,
    /// There was none, and the program ended by itself.
    Ended { status: String },
    /// The check did not succeed in time.
    CheckFailed { last: String },
    /// The program ended before the check could succeed.
    EndedEarly { status: String },
    /// It could not be started.
    NotStarted { reason: String },
}

#[derive(Debug, thiserror::Error)]
pub enum StageError {
    #[error("an image is run under trace only by root, who can make name spaces; use sudo, or --scan")]
    NotRoot,
    #[error("{program} is missing; install the package {package}")]
    NoProgram { program: &'static str, package: &'static str },
    #[error("cannot {action}")]
    System { action: &'static str, source: io::Error },
    #[error("the image cannot be read")]
    Image(#[from] ImageReadError),
    #[error("unpacking the image failed: {0}")]
    Unpack(String),
    #[error("the run did not end in time and was ended")]
    Deadline,
    #[error("the run failed: {0}")]
    Stage(String),
    #[error("the run's report is not valid")]
    Report(#[source] serde_json::Error),
    #[error(transparent)]
    Rules(#[from] RulesError),
}

fn failed(action: &'static str) -> impl Fn(io::Error) -> StageError {
    move |source| StageError::System { action, source }
}

/// Whether an image can be run under trace here.
pub fn ready() -> Result<(), StageError> {
    if !rustix::process::geteuid().is_root() {
        return Err(StageError::NotRoot);
    }
    for (program, package) in [("strace", "strace"), ("unshare", "util-linux"), ("ip", "iproute2")] {
        if find(program).is_none() {
            return Err(StageError::NoProgram { program, package });
        }
    }
    Ok(())
}

/// Runs the plan and says what was seen. Called by `derive`.
pub fn run(plan: &Plan) -> Result<Report, StageError> {
    ready()?;
    let this = std::env::current_exe().map_err(failed("find this program"))?;
    let mut child = Command::new("unshare")
        .args(["--fork", "--kill-child=KILL", "--pid", "--mount-proc", "--mount", "--propagation", "private"])
        .args(["--net", "--uts", "--ipc", "--"])
        .arg(this)
        .args(["profile", "stage"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed("start unshare"))?;
    // Kept open: process 1 of the name spaces ends when this closes, however this program ends.
    let mut plan_pipe = child.stdin.take().ok_or(StageError::Deadline)?;
    let line = serde_json::to_vec(plan).map_err(StageError::Report)?;
    let sent = plan_pipe.write_all(&line).and_then(|()| plan_pipe.write_all(b"\n"));
    let errors = reader(child.stderr.take(), 64 << 10);
    let output = reader(child.stdout.take(), MAX_REPORT);
    let limit = Duration::from_secs(plan.seconds) + UNPACKING + GRACE + GRACE;
    let status = wait(&mut child, limit).map_err(failed("wait for the run"))?;
    drop(plan_pipe);
    let (errors, output) = (joined(errors), joined(output));
    match status {
        None => Err(StageError::Deadline),
        Some(status) if status.success() => {
            sent.map_err(failed("hand over the plan"))?;
            serde_json::from_slice(&output).map_err(StageError::Report)
        }
        Some(status) => {
            let said = String::from_utf8_lossy(&errors).trim().to_owned();
            Err(StageError::Stage(if said.is_empty() { status.to_string() } else { said }))
        }
    }
}

type Reader = thread::JoinHandle<Vec<u8>>;

fn reader(pipe: Option<impl Read + Send + 'static>, limit: u64) -> Option<Reader> {
    let pipe = pipe?;
    Some(thread::spawn(move || {
        let mut bytes = Vec::new();
        let mut pipe = pipe.take(limit);
        let _ = pipe.read_to_end(&mut bytes);
        // What is too much is read and forgotten, so that nobody waits for a full pipe.
        let _ = io::copy(&mut pipe.into_inner(), &mut io::sink());
        bytes
    }))
}

fn joined(reader: Option<Reader>) -> Vec<u8> {
    reader.and_then(|reader| reader.join().ok()).unwrap_or_default()
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    directories.map(|directory| directory.join(program)).find(|path| path.is_file())
}

/// The child's end; none when the time was over, and then it has been ended.
fn wait(child: &mut Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
    let end = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= end {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(PAUSE);
    }
}

/// Reads the plan that the caller wrote, and keeps the pipe.
pub fn read_plan() -> Result<Plan, StageError> {
    let mut line = String::new();
    io::stdin().lock().take(1 << 20).read_line(&mut line).map_err(failed("read the plan"))?;
    serde_json::from_str(&line).map_err(StageError::Report)
}

/// Process 1 of the name spaces. Prints its report.
pub fn stage() -> Result<(), StageError> {
    let plan = read_plan()?;
    if std::process::id() != 1 {
        return Err(StageError::Stage("this part is started by `profile derive` alone".into()));
    }
    // The caller holds the other end. When it is gone, so is everything here.
    thread::spawn(|| {
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        std::process::exit(1);
    });
    let rules = Rules::built_in()?;
    let options = std::ffi::CString::new(format!("size={},mode=755", plan.space)).unwrap_or_default();
    // Device nodes work there: a container's own /dev is made on it.
    mount("tmpfs", &plan.directory, "tmpfs", MountFlags::empty(), &*options)
        .map_err(|error| failed("mount a tmpfs")(error.into()))?;
    let (root, traces) = (plan.directory.join("root"), plan.directory.join("trace"));
    for directory in [&root, &traces] {
        fs::create_dir(directory).map_err(failed("make a directory"))?;
    }
    let loopback = Command::new("ip").args(["link", "set", "lo", "up"]).status();
    if !loopback.map_err(failed("start ip"))?.success() {
        return Err(StageError::Stage("the loopback device cannot be set up".into()));
    }
    unpack_in_child(&plan, &root)?;
    let run = trace(&rules, &plan, &traces)?;
    let report = examine(&rules, run, &root, &traces, &plan.directory.join("log"))?;
    serde_json::to_writer(io::stdout().lock(), &report).map_err(StageError::Report)
}

fn unpack_in_child(plan: &Plan, root: &Path) -> Result<(), StageError> {
    let mut child = own("unpack", plan)?;
    let errors = reader(child.stderr.take(), 64 << 10);
    match wait(&mut child, UNPACKING).map_err(failed("wait for the unpacking"))? {
        Some(status) if status.success() && root.is_dir() => Ok(()),
        Some(_) => {
            let said = joined(errors);
            Err(StageError::Unpack(String::from_utf8_lossy(&said).trim().to_owned()))
        }
        None => Err(StageError::Unpack("it took too long".into())),
    }
}

/// Another part of this program, with the plan on its standard input.
fn own(part: &str, plan: &Plan) -> Result<Child, StageError> {
    let this = std::env::current_exe().map_err(failed("find this program"))?;
    let mut child = Command::new(this)
        .args(["profile", part])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed("start this program"))?;
    hand_over(&mut child, plan)?;
    Ok(child)
}

fn hand_over(child: &mut Child, plan: &Plan) -> Result<(), StageError> {
    let line = serde_json::to_vec(plan).map_err(StageError::Report)?;
    match child.stdin.take() {
        Some(mut pipe) => pipe.write_all(&line).map_err(failed("hand over the plan")),
        None => Ok(()),
    }
}

/// The part that unpacks.
pub fn unpack() -> Result<(), StageError> {
    let plan = read_plan()?;
    let image = ContainerImage::open(&plan.image, plan.tag.as_deref())?;
    unpack::into_new_root(&image, &plan.directory.join("root"))
        .map_err(|error: UnpackError| StageError::Unpack(format!("{:#}", Chain(&error))))
}

/// An error with its sources on one line.
struct Chain<'a>(&'a dyn std::error::Error);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

struct Run {
    outcome: Outcome,
    /// The process that strace started.
    root: u32,
}

fn trace(rules: &Rules, plan: &Plan, traces: &Path) -> Result<Run, StageError> {
    let log = fs::File::create(plan.directory.join("log")).map_err(failed("make the log"))?;
    let this = std::env::current_exe().map_err(failed("find this program"))?;
    let mut child = Command::new("strace")
        .args(strace::OPTIONS)
        .args(["-e", &strace::filter(rules), "-e", &strace::refusals(rules), "-o"])
        .arg(traces.join("t"))
        .args(["--", "unshare", "--mount", "--propagation", "private", "--"])
        .arg(this)
        .args(["profile", "enter"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .map_err(failed("start strace"))?;
    hand_over(&mut child, plan)?;
    let output = reader(child.stdout.take(), 64 << 10);
    let limit = Duration::from_secs(plan.seconds) + GRACE;
    wait(&mut child, limit).map_err(failed("wait for strace"))?.ok_or(StageError::Deadline)?;
    let said = joined(output);
    match serde_json::from_slice::<enter::Said>(&said) {
        Ok(said) => Ok(Run { outcome: said.outcome, root: said.process }),
        Err(_) => {
            let log = fs::read(plan.directory.join("log")).unwrap_or_default();
            Err(StageError::Stage(tail(&log)))
        }
    }
}

fn examine(rules: &Rules, run: Run, root: &Path, traces: &Path, log: &Path) -> Result<Report, StageError> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(traces).map_err(failed("list the traces"))? {
        let path = entry.map_err(failed("list the traces"))?.path();
        let process =
            path.extension().and_then(|number| number.to_str()).and_then(|number| number.parse().ok());
        if let Some(process) = process {
            let mut bytes = Vec::new();
            let file = fs::File::open(&path).map_err(failed("read a trace"))?;
            file.take(MAX_TRACE).read_to_end(&mut bytes).map_err(failed("read a trace"))?;
            files.insert(process, String::from_utf8_lossy(&bytes).into_owned());
        }
    }
    let traced = strace::read(rules, run.root, &files);
    let mut findings = traced.findings;
    for (path, name) in &traced.programs {
        if let Some(kind) = program_head(root, path).and_then(|head| FileKind::of(&head)) {
            findings.file(rules, kind, path, name);
        }
    }
    Ok(Report {
        findings,
        outcome: run.outcome,
        log: tail(&fs::read(log).unwrap_or_default()),
        calls: traced.calls,
        unreadable: traced.unreadable,
        processes: files.len().saturating_sub(1),
    })
}

/// The first bytes of a file of the image, whose links lead nowhere else.
fn program_head(root: &Path, path: &str) -> Option<Vec<u8>> {
    use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
    let root = openat(CWD, root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = openat2(root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
        .ok()?;
    let mut head = Vec::new();
    fs::File::from(file).take(16).read_to_end(&mut head).ok()?;
    Some(head)
}

fn tail(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(SHOWN_LOG)..]).into_owned();
    text.chars().filter(|c| *c == '\n' || *c == '\t' || !c.is_control()).collect::<String>().trim().to_owned()
}
