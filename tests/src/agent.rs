//! The real agent as an ordinary process, on a simulated platform, with an owner of its own: what attacks, conformance
//! tests and benchmarks run against.

use std::{
    net::SocketAddr,
    os::unix::net::UnixListener,
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use postern_evidence::{ReferenceValues, TcbVersion, TrustedRoot, TrustedRoots};
use postern_launch::init_data::{self, InitData, Mode};
use postern_model::{Measurement, PodName};
use postern_simtee::{Launch, Platform, SimServer, serve};
use postern_tunnel::{OwnerCa, Validity};

use crate::{
    host::Host,
    owner::{Owner, now},
    process::{Guarded, Lines},
    programs,
};

/// How long the agent may take to serve, on a loaded machine.
const START: Duration = Duration::from_secs(60);
const CALL: Duration = Duration::from_secs(30);
const DAY: Duration = Duration::from_secs(86_400);

/// An agent, its platform and its owner. Everything ends with this value.
#[derive(Debug)]
pub struct Agent {
    pub owner: Owner,
    pub address: SocketAddr,
    /// From the start of the process to its line saying that it serves.
    pub start: Duration,
    host_socket: PathBuf,
    console: Lines,
    output: Lines,
    process: Guarded,
    _platform: SimServer,
    folder: tempfile::TempDir,
}

impl Agent {
    /// Starts an agent; the host has not spoken to it yet (phase `booting`).
    pub fn start() -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("postern-agent-test-").tempdir()?;
        let ca = OwnerCa::create(Validity::starting(now() - 60, DAY))?;
        let init_data = init_data::encode(&InitData {
            pod: PodName::new("test")?,
            owner_ca_der: ca.certificate_der().to_vec(),
            instance: *b"an instance nonce of thirty-two.",
            mode: Mode::Direct,
        });
        let measurement = Measurement::new([0x5a; 48]);
        let platform = Platform::ephemeral()?;
        let guest = platform.launch(Launch::new(measurement, init_data.digest()))?;
        let device = folder.path().join("tee.sock");
        let server = serve(UnixListener::bind(&device)?, guest)?;
        let device_file = folder.path().join("initdata.img");
        std::fs::write(&device_file, init_data.device())?;
        let host_socket = folder.path().join("host.sock");
        let owner = Owner {
            ca,
            roots: TrustedRoots::none().with(TrustedRoot::simulated("test", platform.root_der())?),
            reference_values: ReferenceValues {
                measurements: vec![measurement],
                host_data: init_data.digest(),
                minimum_tcb: TcbVersion::default(),
            },
        };
        let mut command = Command::new(programs::program("postern-agent")?);
        command
            .arg("--standalone")
            .arg("--host-listen")
            .arg(format!("unix://{}", host_socket.display()))
            .args(["--owner-listen", "tcp://127.0.0.1:0", "--tee-device"])
            .arg(format!("unix://{}", device.display()))
            .arg("--init-data")
            .arg(&device_file)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let begun = Instant::now();
        let mut process = Guarded::spawn(&mut command)?;
        let console = Lines::of(process.child().stderr.take().context("no standard error")?);
        let output = Lines::of(process.child().stdout.take().context("no standard output")?);
        let serving = output.find(START, |line| serde_json::from_str::<serde_json::Value>(line).ok());
        let serving = serving.context("the agent did not say that it serves")?;
        let start = begun.elapsed();
        let address = serving["owner"].as_str().and_then(|url| url.strip_prefix("tcp://"));
        let address = address.context("the agent named no owner address")?.parse()?;
        Ok(Self { owner, address, start, host_socket, console, output, process, _platform: server, folder })
    }

    /// Starts an agent and plays the host's honest part: the sandbox is configured (phase `ready`).
    pub fn ready() -> anyhow::Result<Self> {
        let agent = Self::start()?;
        let request = postern_api::host::CreateSandboxRequest {
            hostname: "test".into(),
            sandbox_id: "sandbox-of-the-test".into(),
            ..Default::default()
        };
        let answer: Result<postern_api::host::Empty, _> = agent.host()?.request("CreateSandbox", &request);
        ensure!(answer.is_ok(), "CreateSandbox: {answer:?}");
        Ok(agent)
    }

    /// A new connection of the host's.
    pub fn host(&self) -> anyhow::Result<Host> {
        Host::unix(&self.host_socket)
    }

    pub fn host_socket(&self) -> &std::path::Path {
        &self.host_socket
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// What the agent says to whoever started it: to the host.
    pub fn console(&self) -> &Lines {
        &self.console
    }

    /// Takes what the agent has said on both streams since this was called last; the line that it serves aside.
    pub fn said(&self) -> String {
        let all = |lines: &Lines| match lines.find(Duration::ZERO, |_| None::<()>) {
            Ok(()) => String::new(),
            Err(saw) => saw.to_string(),
        };
        format!("{}\n{}", all(&self.console), all(&self.output))
    }

    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// Asks the agent to end and waits until it has.
    pub fn stop(mut self) -> anyhow::Result<std::process::ExitStatus> {
        self.process.signal(rustix::process::Signal::TERM)?;
        self.process.wait(CALL)
    }

    /// Waits until the agent ends by itself.
    pub fn wait(&mut self, deadline: Duration) -> anyhow::Result<std::process::ExitStatus> {
        self.process.wait(deadline)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // An agent that is asked takes its mounts and cgroups with it; `Guarded` kills one that does not listen.
        let _ = self.process.signal(rustix::process::Signal::TERM);
        let _ = self.process.wait(Duration::from_secs(10));
    }
}
