//! A shell: a VM that was started before anybody asked for it, and stands before its first instruction.
//!
//! ```text
//! create --> wait --claim that matches--> taken: renamed to a pod's directory, init data filled in, goes on as any start
//!              |  '--claim that does not--> declined, wait on
//!              '--told to end, a program ends, stale: taken down, removed
//! ```
//! There is no way back from taken: a shell serves one tenant or none. Of two that claim one, the supervisor answers one;
//! the other finds the socket gone. What matches is decided here, by what really runs, never by what is written down.

use std::{
    io,
    net::SocketAddrV4,
    os::unix::net::UnixListener as StdListener,
    path::{Path, PathBuf},
    time::Duration,
};

use postern_launch::{ImageManifest, PodShape, expected_measurement};
use postern_model::{Measurement, PodName};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream, unix::OwnedReadHalf, unix::OwnedWriteHalf},
    sync::watch,
    time::timeout,
};

use super::{
    StartError, Stop, boot,
    plan::{CheckedVm, CheckedVsock, Plan, TenantPlan, VmPlan, VsockChoice, this_process},
    requested, see_out,
};
use crate::{
    process::ProcessId,
    progress::{Listener, Report},
    state::{Home, LockedShell, Place, ShellStatus, StateError},
    vsock::ShortPath,
};

/// Where a shell is claimed, in its directory.
const CLAIM_SOCKET: &str = "claim.sock";
/// How long a claim may take to arrive whole.
const CLAIM: Duration = Duration::from_secs(2);
/// How long a shell may take to answer one; it may be reading another's.
const ANSWER: Duration = Duration::from_secs(5);
/// Longest line either side accepts.
const MAX_LINE: u64 = 64 << 10;

/// A start that asks for a shell.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Claim {
    tenant: TenantPlan,
    /// Where the image is, and what a launch from it as it is now must measure.
    image: PathBuf,
    measurement: Measurement,
    shape: PodShape,
    listen: SocketAddrV4,
    vsock: VsockChoice,
    qemu: PathBuf,
    /// If it was named.
    vsock_helper: Option<PathBuf>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "answer", deny_unknown_fields)]
enum Answer {
    /// The shell is the pod's from now on; lines of progress follow.
    Taken {
        supervisor: ProcessId,
    },
    Declined {
        why: String,
    },
}

/// A shell that was claimed: its supervisor, and its progress from now on.
#[derive(Debug)]
pub struct Claimed {
    pub shell: PodName,
    pub supervisor: ProcessId,
    pub progress: BufReader<UnixStream>,
}

/// Claims a shell for `plan`, if there is one that is just what a cold start would make.
pub async fn claim(home: &Home, plan: &Plan) -> Result<Option<Claimed>, StartError> {
    let vm = &plan.vm;
    let shells = home.shells()?;
    // Only a shell's own choice of a port can have been made before, and disks are plugged in at the start.
    if shells.is_empty() || vm.listen.port() != 0 || !vm.disks.is_empty() {
        return Ok(None);
    }
    let absolute = |path: &Path| {
        std::path::absolute(path).map_err(|source| StartError::Path { path: path.to_owned(), source })
    };
    let image = absolute(&vm.image_dir)?;
    // With the digests of all files, as they are now.
    let manifest = ImageManifest::load(&image)?;
    let vsock_helper = vm.tools.vsock_helper.is_some().then(|| vm.tools.vsock_helper()).transpose()?;
    let tenant = TenantPlan { init_data: absolute(&plan.tenant.init_data)?, ..plan.tenant.clone() };
    let claim = Claim {
        tenant,
        image,
        measurement: expected_measurement(&manifest, &vm.shape),
        shape: vm.shape,
        listen: vm.listen,
        vsock: vm.vsock,
        qemu: vm.tools.qemu()?,
        vsock_helper,
    };
    for shell in shells {
        // What cannot be looked at, asked or understood is passed by: there are others, and the cold start.
        let ready = matches!(shell.status(), Ok(Some(ShellStatus::Shell)));
        if !ready || !shell.record().is_ok_and(|record| record.shape == claim.shape) {
            continue;
        }
        match timeout(ANSWER, ask(&shell.directory().join(CLAIM_SOCKET), &claim)).await {
            Ok(Ok((Answer::Taken { supervisor }, progress))) => {
                return Ok(Some(Claimed { shell: shell.name().clone(), supervisor, progress }));
            }
            Ok(Ok((Answer::Declined { why }, _))) => tracing::info!(shell = %shell.name(), why, "declined"),
            Ok(Err(error)) => tracing::info!(shell = %shell.name(), %error, "not claimed"),
            Err(_) => tracing::info!(shell = %shell.name(), "did not answer"),
        }
    }
    Ok(None)
}

async fn ask(socket: &Path, claim: &Claim) -> io::Result<(Answer, BufReader<UnixStream>)> {
    let short = ShortPath::new(socket)?;
    let mut stream = UnixStream::connect(short.path()).await?;
    write_line(&mut stream, claim).await?;
    let mut stream = BufReader::new(stream);
    let answer = read_line(&mut stream).await?;
    Ok((answer, stream))
}

async fn write_line(stream: &mut (impl AsyncWriteExt + Unpin), value: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    stream.write_all(&line).await
}

async fn read_line<T: for<'a> Deserialize<'a>>(stream: &mut (impl AsyncBufReadExt + Unpin)) -> io::Result<T> {
    let mut line = Vec::new();
    stream.take(MAX_LINE).read_until(b'\n', &mut line).await?;
    match line.last() {
        Some(b'\n') => Ok(serde_json::from_slice(&line)?),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// A shell in the hands of its supervisor. What it runs ends when this is dropped.
#[derive(Debug)]
pub struct Shell {
    home: Home,
    vm: CheckedVm,
    place: LockedShell,
    parts: boot::Parts,
    stopped: boot::Stopped,
    listener: UnixListener,
}

/// How the wait of a shell ended.
#[derive(Debug)]
pub enum Waited {
    /// Somebody claimed it, and has been told that it is theirs.
    Claimed(Taker),
    /// It must not be used any more.
    Stale(String),
}

/// Who has claimed a shell, and waits for their pod.
#[derive(Debug)]
pub struct Taker {
    tenant: TenantPlan,
    /// Its end is the end of the interest in the pod.
    hang_up: OwnedReadHalf,
    pub progress: TakerLines,
}

impl Taker {
    /// Name of the pod that the shell becomes.
    pub fn pod(&self) -> &PodName {
        &self.tenant.name
    }
}

/// Lines of progress for a taker.
#[derive(Debug)]
pub struct TakerLines(OwnedWriteHalf);

impl Listener for TakerLines {
    fn report(&mut self, report: &Report) -> io::Result<()> {
        let line = report.to_json() + "\n";
        // A dozen short lines in a socket's buffer: one that does not take them is one that nobody reads.
        match self.0.try_write(line.as_bytes())? {
            written if written == line.len() => Ok(()),
            _ => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl Shell {
    /// From nothing to a VM that stands before its first instruction. If that fails, or nobody wants it before it is done,
    /// nothing is left.
    pub async fn create(
        home: &Home,
        plan: VmPlan,
        unwanted: impl Future<Output = ()>,
    ) -> Result<Self, StartError> {
        let vm = plan.check()?;
        let mut place = home.create_shell(vm.shell_record()?)?;
        let mut parts = boot::Parts::default();
        let make = async {
            let stopped = boot::prepare(&vm, &mut place, &mut parts).await?;
            let listener = listen(&place.directory().join(CLAIM_SOCKET))
                .map_err(|source| StartError::ClaimSocket { path: place.directory().to_owned(), source })?;
            place.record.measurement = Some(stopped.measurement);
            place.save()?;
            Ok((stopped, listener))
        };
        let made = tokio::select! {
            biased;
            () = unwanted => Err(StartError::Interrupted),
            made = make => made,
        };
        match made {
            Ok((stopped, listener)) => Ok(Self { home: home.clone(), vm, place, parts, stopped, listener }),
            Err(error) => {
                parts.kill().await;
                place.remove()?;
                Err(error)
            }
        }
    }

    pub fn name(&self) -> &PodName {
        self.place.name()
    }

    pub fn directory(&self) -> &Path {
        self.place.directory()
    }

    /// Waits for a claim that matches.
    pub async fn wait(&mut self) -> Waited {
        loop {
            let stream = tokio::select! {
                biased;
                error = self.parts.first_end() => return Waited::Stale(error.to_string()),
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(error) => return Waited::Stale(format!("its claim socket failed: {error}")),
                },
            };
            let (read, mut write) = stream.into_split();
            let mut read = BufReader::new(read);
            let Ok(Ok(claim)) = timeout(CLAIM, read_line::<Claim>(&mut read)).await else { continue };
            let (answer, stale) = match (self.mismatch(&claim), this_process()) {
                (None, Ok(supervisor)) => (Answer::Taken { supervisor }, None),
                (None, Err(error)) => (Answer::Declined { why: error.to_string() }, Some(error.to_string())),
                (Some(Mismatch::Other(why)), _) => (Answer::Declined { why: why.into() }, None),
                (Some(Mismatch::Stale(why)), _) => {
                    (Answer::Declined { why: why.into() }, Some(why.to_owned()))
                }
            };
            let told = timeout(CLAIM, write_line(&mut write, &answer)).await;
            match (answer, stale) {
                (_, Some(why)) => return Waited::Stale(why),
                // From here on it is theirs, whether they still listen or not.
                (Answer::Taken { .. }, None) => {
                    let told = told.is_ok_and(|told| told.is_ok());
                    tracing::info!(pod = %claim.tenant.name, told, "claimed");
                    let (tenant, hang_up) = (claim.tenant, read.into_inner());
                    return Waited::Claimed(Taker { tenant, hang_up, progress: TakerLines(write) });
                }
                (Answer::Declined { .. }, None) => {}
            }
        }
    }

    /// Why `claim` is not for this shell; none if a cold start would make the very same.
    fn mismatch(&self, claim: &Claim) -> Option<Mismatch> {
        let (vm, plan) = (&self.vm, &self.vm.plan);
        let helper_differs = match (&vm.vsock, &claim.vsock_helper) {
            (CheckedVsock::VhostUser { helper }, Some(named)) => helper != named,
            (CheckedVsock::Kernel { .. }, _) | (_, None) => false,
        };
        let vsock_fits = match claim.vsock {
            VsockChoice::Auto => true,
            VsockChoice::VhostUser => matches!(vm.vsock, CheckedVsock::VhostUser { .. }),
            VsockChoice::Kernel => matches!(vm.vsock, CheckedVsock::Kernel { .. }),
        };
        if claim.shape != plan.shape {
            return Some(Mismatch::Other("its shape is another"));
        }
        if claim.listen != plan.listen {
            return Some(Mismatch::Other("it listens elsewhere"));
        }
        if !vsock_fits || helper_differs || claim.qemu != vm.qemu {
            return Some(Mismatch::Other("it was started with other programs"));
        }
        if claim.measurement != self.stopped.measurement {
            return Some(match claim.image == vm.image_dir {
                true => Mismatch::Stale("the image has changed since"),
                false => Mismatch::Other("its image is another"),
            });
        }
        if self.parts.qemu().is_none_or(|qemu| qemu.program() != self.stopped.program) {
            return Some(Mismatch::Stale("QEMU has ended or was replaced since"));
        }
        None
    }

    /// Takes it down. Nothing is left.
    pub async fn end(mut self) -> Result<(), StateError> {
        drop(self.listener);
        self.parts.kill().await;
        self.place.remove()
    }

    /// Runs the pod of whoever has claimed it until that ends, and says why it did.
    pub async fn become_pod(
        self,
        taker: &mut Taker,
        mut stop: watch::Receiver<Stop>,
    ) -> Result<String, StartError> {
        let Self { home, vm, place, mut parts, stopped, listener } = self;
        let _ = std::fs::remove_file(place.directory().join(CLAIM_SOCKET));
        drop(listener);
        let stages = boot::Stages::new(&mut taker.progress);
        let tenant = taker.tenant.clone().check().and_then(|tenant| Ok((vm.pod_record(&tenant)?, tenant)));
        let (record, tenant) = match tenant {
            Ok(known) => known,
            Err(error) => {
                parts.kill().await;
                place.remove()?;
                return Err(error);
            }
        };
        let mut pod = match place.become_pod(record) {
            Ok(pod) => pod,
            Err(error) => {
                parts.kill().await;
                return Err(error.into());
            }
        };
        let hung_up = async {
            let mut nothing = [0];
            while matches!(taker.hang_up.read(&mut nothing).await, Ok(1..)) {}
        };
        let begun = tokio::select! {
            biased;
            () = requested(&mut stop, Stop::Gracefully) => Err(StartError::Interrupted),
            () = hung_up => Err(StartError::Abandoned(io::ErrorKind::BrokenPipe.into())),
            begun = boot::boot(&home, (&vm, &tenant), stopped, &mut pod, &mut parts, stages) => begun,
        };
        see_out(pod, parts, begun, stop).await
    }
}

/// Why a claim does not fit.
enum Mismatch {
    /// The shell may fit another.
    Other(&'static str),
    /// It will fit none any more.
    Stale(&'static str),
}

fn listen(socket: &Path) -> io::Result<UnixListener> {
    let short = ShortPath::new(socket)?;
    let listener = StdListener::bind(short.path())?;
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}
