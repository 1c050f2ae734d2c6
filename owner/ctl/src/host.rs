//! Drives `postern-host`, the program that lends this machine to a pod. What it says is used as an address and as progress,
//! never as a reason to trust.

use std::{
    ffi::{OsStr, OsString},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use postern_launch::{Accelerator, Machine, PodShape};
use postern_model::{HostData, PodName};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    process::Command,
};

use crate::{
    config::Config,
    exit::Exit,
    failure::{Failure, OrFail},
    text,
};

const PROGRAM: &str = "postern-host";
/// Probing may boot a guest once, to learn whether KVM works.
const PROBE: Duration = Duration::from_secs(120);
/// An emulated guest on a loaded machine takes its time; postern-host has deadlines of its own below this.
const START: Duration = Duration::from_secs(300);
/// It asks the guest, then QEMU, then the kernel.
const STOP: Duration = Duration::from_secs(120);
/// Most that is read of what it prints.
const MAX_OUTPUT: u64 = 1 << 20;
/// Stages of a start: it has half a dozen.
const MAX_STAGES: usize = 64;
/// Exit code of postern-host for a name it does not know.
const UNKNOWN_POD: i32 = 3;
/// What it calls a failure for want of space, and the exit code of it.
const NO_SPACE: &str = "no-space";
const NO_SPACE_CODE: i32 = 18;

/// What this machine offers.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Probe {
    pub(crate) accelerator: Accelerator,
    pub(crate) tsc_khz: Option<u32>,
    pub(crate) machine: Machine,
    pub(crate) simulated_root: Option<PathBuf>,
}

/// One line of progress of a start.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "stage")]
pub(crate) enum Report {
    Ready {
        endpoint: String,
    },
    Failed {
        #[serde(default)]
        kind: String,
        message: String,
        #[serde(default)]
        causes: Vec<String>,
        hint: Option<String>,
    },
    #[serde(untagged)]
    Stage(Stage),
}

/// A part of a boot and how long it took.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct Stage {
    pub(crate) stage: String,
    pub(crate) millis: u64,
}

/// What to start.
#[derive(Debug)]
pub(crate) struct StartRequest<'a> {
    pub(crate) name: &'a PodName,
    pub(crate) image_dir: &'a Path,
    pub(crate) init_data: &'a Path,
    pub(crate) shape: &'a PodShape,
    pub(crate) listen: Option<&'a str>,
    /// Files of image disks.
    pub(crate) disks: &'a [PathBuf],
}

#[derive(Debug, Clone)]
pub(crate) struct HostProgram {
    path: PathBuf,
}

impl HostProgram {
    /// From config.toml, beside this program, or in PATH.
    pub(crate) fn find(config: &Config) -> Result<Self, Failure> {
        if let Some(path) = &config.postern_host {
            return match path.is_file() {
                true => Ok(Self { path: path.clone() }),
                false => Err(Failure::new(
                    Exit::NotFound,
                    format!("postern_host in config.toml names {}, which does not exist", path.display()),
                )),
            };
        }
        let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join(PROGRAM)));
        let in_path = std::env::var_os("PATH").unwrap_or_default();
        let candidates =
            beside.into_iter().chain(std::env::split_paths(&in_path).map(|dir| dir.join(PROGRAM)));
        let found = candidates.into_iter().find(|path| path.is_file());
        found.map(|path| Self { path }).ok_or_else(|| {
            Failure::new(Exit::NotFound, format!("{PROGRAM} is not installed"))
                .caused_by("it is neither beside this program nor in PATH")
                .hint("install it, or set postern_host in config.toml; pods on other machines are added with `postern pod add`")
        })
    }

    /// Asks what this machine offers.
    pub(crate) async fn probe(&self, image_dir: &Path) -> Result<Probe, Failure> {
        let args = [
            "probe".as_ref(),
            "--image".as_ref(),
            image_dir.as_os_str(),
            "--output".as_ref(),
            "json".as_ref(),
        ];
        let output = self.run(&args, PROBE).await?;
        match output.code {
            0 => serde_json::from_str(&output.stdout)
                .or_fail(|| format!("cannot understand `{PROGRAM} probe`")),
            _ => Err(output.failure(format!("cannot run pods on this machine: `{PROGRAM} probe` failed"))),
        }
    }

    /// Starts a VM; `report` hears of each stage. Returns the address of its endpoint and the stages.
    pub(crate) async fn start(
        &self,
        request: &StartRequest<'_>,
        mut report: impl FnMut(&Stage),
    ) -> Result<(SocketAddr, Vec<Stage>), Failure> {
        let mut command = self.command();
        command.args(start_args(request));
        let mut child = command.spawn().or_fail(|| format!("cannot start {}", self.path.display()))?;
        let (Some(stdout), Some(mut stderr)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(Failure::general(format!("cannot read from {PROGRAM}")));
        };
        let listen = async {
            let mut lines = BufReader::new(stdout.take(MAX_OUTPUT)).lines();
            let mut stages = Vec::new();
            let mut end = None;
            while let Ok(Some(line)) = lines.next_line().await {
                match serde_json::from_str(&line) {
                    Ok(Report::Stage(stage)) if stages.len() < MAX_STAGES => {
                        let stage = Stage { stage: text::clean(&stage.stage), ..stage };
                        report(&stage);
                        stages.push(stage);
                    }
                    Ok(Report::Stage(_)) => {}
                    Ok(ended) => end = Some(ended),
                    // A line this program does not know is a newer postern-host's.
                    Err(_) => {}
                }
            }
            (stages, end)
        };
        let complain = async {
            let mut said = String::new();
            let _ = (&mut stderr).take(MAX_OUTPUT).read_to_string(&mut said).await;
            said
        };
        let all = async { tokio::join!(listen, complain, child.wait()) };
        let cannot = || format!("cannot boot pod {}", request.name);
        let ((stages, end), said, status) = tokio::time::timeout(START, all).await.map_err(|_| {
            Failure::new(Exit::Unreachable, cannot())
                .caused_by(format!("it was not ready within {} s", START.as_secs()))
        })?;
        match end {
            Some(Report::Ready { endpoint }) => Ok((address(&endpoint).or_fail(cannot)?, stages)),
            Some(Report::Failed { kind, message, causes, hint }) => {
                let why = std::iter::once(message).chain(causes).collect::<Vec<_>>().join(": ");
                let exit = if kind == NO_SPACE { Exit::NoRoom } else { Exit::Failed };
                let failure = Failure::new(exit, cannot()).caused_by(why);
                Err(match hint {
                    Some(hint) => failure.hint(hint),
                    None => failure,
                })
            }
            Some(Report::Stage(_)) | None => {
                let code = status.or_fail(cannot)?.code().unwrap_or(-1);
                Err(Output { code, stdout: String::new(), stderr: said }.failure(cannot()))
            }
        }
    }

    /// Ends the VM and takes everything of it off this machine. A name it does not know is fine, and so is a pod of that
    /// name that was started with other init data, which is somebody else's; none is whatever has the name.
    pub(crate) async fn remove(&self, name: &PodName, started_with: Option<HostData>) -> Result<(), Failure> {
        let digest = started_with.map(|host_data| host_data.to_hex());
        let mut args = vec!["rm", "--stop", name.as_str()];
        args.extend(digest.iter().flat_map(|digest| ["--host-data", digest]));
        let args: Vec<_> = args.into_iter().map(OsStr::new).collect();
        let output = self.run(&args, STOP).await?;
        match output.code {
            0 | UNKNOWN_POD => Ok(()),
            _ => Err(output.failure(format!("cannot take pod {name} off this machine"))),
        }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C is ours to answer, by taking the pod down.
            .process_group(0)
            .kill_on_drop(true);
        command
    }

    async fn run(&self, args: &[&OsStr], limit: Duration) -> Result<Output, Failure> {
        let mut command = self.command();
        command.args(args);
        let shown = || format!("`{PROGRAM} {}`", args.join(OsStr::new(" ")).display());
        let output = tokio::time::timeout(limit, command.output())
            .await
            .map_err(|_| {
                Failure::new(
                    Exit::Unreachable,
                    format!("{} did not end within {} s", shown(), limit.as_secs()),
                )
            })?
            .or_fail(|| format!("cannot start {}", self.path.display()))?;
        Ok(Output {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }
}

/// Where the host says that the pod is reached. Only a number is taken from it: an endpoint can also be a command, and a
/// name can lead anywhere.
fn address(endpoint: &str) -> Result<SocketAddr, String> {
    let address = endpoint.strip_prefix("tcp://").and_then(|address| address.parse().ok());
    address
        .ok_or_else(|| format!("{PROGRAM} names the endpoint {endpoint:?}, which is no tcp://ADDRESS:PORT"))
}

fn start_args(request: &StartRequest<'_>) -> Vec<OsString> {
    let StartRequest { name, image_dir, init_data, shape, listen, disks } = request;
    let mut args: Vec<OsString> = vec!["start".into(), name.as_str().into()];
    let mut option = |name: &str, value: OsString| {
        args.push(name.into());
        args.push(value);
    };
    option("--image", image_dir.into());
    option("--init-data", init_data.into());
    option("--machine", shape.machine.as_str().into());
    option("--accel", shape.accelerator.as_str().into());
    option("--cpus", shape.cpus.to_string().into());
    option("--memory", shape.memory_mib.to_string().into());
    if let Some(khz) = shape.tsc_khz {
        option("--tsc-khz", khz.to_string().into());
    }
    if let Some(listen) = listen {
        option("--listen", listen.into());
    }
    for disk in *disks {
        option("--disk", disk.into());
    }
    option("--tee", shape.tee.as_str().into());
    option("--mitigations", shape.mitigations.as_str().into());
    option("--output", "json".into());
    args
}

#[derive(Debug)]
struct Output {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Output {
    /// Its own words: the error, and its hint as ours.
    fn failure(self, what: String) -> Failure {
        let lines = || self.stderr.lines().map(str::trim).filter(|line| !line.is_empty());
        let hint = lines().find_map(|line| line.strip_prefix("hint: ")).map(text::clean);
        // A command line it does not take: it is older or newer than this program, and says more than one line.
        let said = lines()
            .find_map(|line| line.strip_prefix("postern-host: ").or_else(|| line.strip_prefix("error: ")))
            .or_else(|| lines().rfind(|line| !line.starts_with("hint: ")));
        let said = said.map_or_else(|| format!("exit code {}", self.code), str::to_owned);
        let exit = if self.code == NO_SPACE_CODE { Exit::NoRoom } else { Exit::Failed };
        let failure = Failure::new(exit, what).caused_by(said);
        match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_read() {
        let read = |line: &str| serde_json::from_str::<Report>(line).unwrap();
        assert_eq!(
            read(r#"{"stage":"kernel","millis":7}"#),
            Report::Stage(Stage { stage: "kernel".into(), millis: 7 })
        );
        assert_eq!(
            read(r#"{"stage":"ready","millis":9,"endpoint":"tcp://127.0.0.1:1","directory":"/x"}"#),
            Report::Ready { endpoint: "tcp://127.0.0.1:1".into() }
        );
        assert!(matches!(
            read(r#"{"stage":"failed","kind":"x","exit":6,"message":"m","causes":["c"],"hint":null}"#),
            Report::Failed { hint: None, .. }
        ));
    }

    #[test]
    fn only_an_address_is_taken_from_it() {
        assert_eq!(address("tcp://127.0.0.1:50090"), Ok(SocketAddr::from(([127, 0, 0, 1], 50090))));
        for other in ["exec:touch /tmp/x", "unix:///run/x.sock", "tcp://example.org:1", "127.0.0.1:1", ""] {
            assert!(address(other).is_err(), "{other}");
        }
    }

    #[test]
    fn its_hint_becomes_ours() {
        let output = Output {
            code: 5,
            stdout: String::new(),
            stderr: "postern-host: QEMU is not installed\nhint: apt-get install qemu\n".into(),
        };
        assert_eq!(output.failure("cannot boot".into()).to_string(), "cannot boot: QEMU is not installed");
        let output = Output {
            code: 2,
            stdout: String::new(),
            stderr: "error: unexpected argument '--new' found\n\nUsage: x\n\nFor more information, try '--help'.\n"
                .into(),
        };
        let failure = output.failure("cannot boot".into());
        assert_eq!(failure.to_string(), "cannot boot: unexpected argument '--new' found");
    }
}
