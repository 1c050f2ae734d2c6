//! A pod without a VM, and an owner with a home of its own. Everything ends with the value.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    os::unix::net::UnixListener,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use postern_model::Measurement;
use postern_simtee::{Launch, Platform, SimServer, serve};
use postern_tests::{
    archive::ImageRecipe,
    home::Said,
    host::Host,
    process::{Guarded, Lines},
};

/// How long anything may take on a loaded machine.
pub(crate) const SOON: Duration = Duration::from_secs(60);
/// What the pods of these tests measure.
pub(crate) const MEASUREMENT: [u8; 48] = [0x5a; 48];

/// An owner's home: configuration and state below one directory.
#[derive(Debug)]
pub(crate) struct Owner {
    dir: PathBuf,
}

impl Owner {
    pub(crate) fn new(dir: PathBuf) -> anyhow::Result<Self> {
        std::fs::create_dir_all(&dir)?;
        Ok(Self { dir })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub(crate) fn record(&self, pod: &str) -> PathBuf {
        self.dir.join("state/postern/pods").join(pod).join("pod.json")
    }

    /// `postern ARGS`, in this home and with nothing of the tester's.
    pub(crate) fn command<S: AsRef<std::ffi::OsStr>>(&self, args: &[S]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_postern"));
        command
            .args(args)
            .current_dir(&self.dir)
            .env("XDG_CONFIG_HOME", self.dir.join("config"))
            .env("XDG_STATE_HOME", self.dir.join("state"))
            .env("NO_COLOR", "1")
            .env("TERM", "xterm")
            .env_remove("POSTERN_ROLE")
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn postern(&self, args: &[&str]) -> Said {
        finish(&mut self.command(args), &[]).expect("postern runs")
    }

    pub(crate) fn postern_with_input(&self, args: &[&str], input: &[u8]) -> Said {
        finish(self.command(args).stdin(Stdio::piped()), input).expect("postern runs")
    }

    /// Runs a shell command in which `postern` is the program under test.
    pub(crate) fn shell(&self, script: &str) -> Said {
        let postern = self.command::<&str>(&[]);
        let mut shell = Command::new("bash");
        shell.args(["-c", script]).current_dir(&self.dir).stdin(Stdio::null());
        shell.envs(postern.get_envs().filter_map(|(key, value)| Some((key, value?))));
        let bin = Path::new(env!("CARGO_BIN_EXE_postern")).parent().expect("a directory");
        let path = std::env::var("PATH").unwrap_or_default();
        shell.env("PATH", format!("{}:{path}", bin.display()));
        finish(&mut shell, &[]).expect("bash runs")
    }

    /// What succeeds.
    pub(crate) fn ok(&self, args: &[&str]) -> Said {
        self.fails_with(0, args)
    }

    /// What ends with `code`.
    pub(crate) fn fails_with(&self, code: i32, args: &[&str]) -> Said {
        let said = self.postern(args);
        assert_eq!(said.code, code, "postern {}\n{}{}", args.join(" "), said.text(), said.stderr);
        said
    }
}

fn finish(command: &mut Command, input: &[u8]) -> anyhow::Result<Said> {
    let mut process = Guarded::spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped()))?;
    let child = process.child();
    let stdout = reader(child.stdout.take().context("no stdout")?);
    let stderr = reader(child.stderr.take().context("no stderr")?);
    if let Some(mut stdin) = child.stdin.take() {
        let input = input.to_vec();
        thread::spawn(move || stdin.write_all(&input));
    }
    let status = process.wait(SOON)?;
    let collect = |thread: thread::JoinHandle<Vec<u8>>| thread.join().unwrap_or_default();
    Ok(Said {
        code: status.code().unwrap_or_else(|| 1000 + status.signal().unwrap_or_default()),
        stdout: collect(stdout),
        stderr: String::from_utf8_lossy(&collect(stderr)).into_owned(),
    })
}

fn reader(mut stream: impl Read + Send + 'static) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        bytes
    })
}

/// A pod named `demo` whose sandbox is configured, known to its owner and not taken over yet.
#[derive(Debug)]
pub(crate) struct Pod {
    pub(crate) owner: Owner,
    pub(crate) address: String,
    agent: Guarded,
    _console: Lines,
    _platform: SimServer,
    folder: tempfile::TempDir,
}

impl Pod {
    pub(crate) fn start() -> anyhow::Result<Self> {
        let pod = Self::booting()?;
        let request = postern_api::host::CreateSandboxRequest {
            hostname: "demo".into(),
            sandbox_id: "sandbox".into(),
            ..Default::default()
        };
        let configured: Result<postern_api::host::Empty, _> =
            Host::unix(&pod.folder.path().join("host.sock"))?.request("CreateSandbox", &request);
        ensure!(configured.is_ok(), "CreateSandbox: {configured:?}");
        Ok(pod)
    }

    /// The same before the host has configured it.
    pub(crate) fn booting() -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("postern-cli-").tempdir()?;
        let owner = Owner::new(folder.path().join("owner"))?;
        owner.ok(&["init"]);
        let init_data = folder.path().join("initdata.img");
        let made = owner.ok(&["pod", "init-data", "demo", "--device", "--file", text(&init_data)]);
        let digest = made.text().trim().rsplit(' ').next().context("no digest")?.to_owned();
        let platform = Platform::ephemeral()?;
        let launch = Launch::new(Measurement::new(MEASUREMENT), postern_model::HostData::from_hex(&digest)?);
        let device = folder.path().join("tee.sock");
        let server = serve(UnixListener::bind(&device)?, platform.launch(launch)?)?;
        let host_socket = folder.path().join("host.sock");
        let mut command = Command::new(program("postern-agent")?);
        command
            .args(["--standalone", "--owner-listen", "tcp://127.0.0.1:0"])
            .args(["--host-listen", &format!("unix://{}", host_socket.display())])
            .args(["--tee-device", &format!("unix://{}", device.display())])
            .args(["--init-data", text(&init_data)])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut agent = Guarded::spawn(&mut command)?;
        let console = Lines::of(agent.child().stderr.take().context("no stderr")?);
        let output = Lines::of(agent.child().stdout.take().context("no stdout")?);
        let serving = output.find(SOON, |line| serde_json::from_str::<serde_json::Value>(line).ok())?;
        let endpoint = serving["owner"].as_str().context("no owner endpoint")?.to_owned();
        let root = folder.path().join("root.pem");
        std::fs::write(&root, platform.root_pem())?;
        owner.ok(&["trust", "add", "--simulated", text(&root), "--accept-risk=simulated-tee"]);
        owner.ok(&["trust", "add", "--measurement", &"5a".repeat(48)]);
        let pod = Self {
            owner,
            address: endpoint.strip_prefix("tcp://").context("not TCP")?.to_owned(),
            agent,
            _console: console,
            _platform: server,
            folder,
        };
        pod.add("demo", &endpoint);
        Ok(pod)
    }

    /// A pod that holds busybox.
    pub(crate) fn with_image() -> anyhow::Result<Self> {
        let pod = Self::start()?;
        let archive = pod.archive()?;
        pod.ok(&["image", "push", "demo", text(&archive)]);
        Ok(pod)
    }

    /// A pod with busybox and a container `web` that lives until it is told otherwise.
    pub(crate) fn with_container() -> anyhow::Result<Self> {
        let pod = Self::with_image()?;
        let script = "trap 'exit 0' TERM; echo up; while :; do sleep 1 & wait $!; done";
        pod.ok(&["run", "-d", "--name", "web", "demo", "busybox", "sh", "-c", script]);
        Ok(pod)
    }

    /// An archive of busybox on this machine.
    pub(crate) fn archive(&self) -> anyhow::Result<PathBuf> {
        let path = self.folder.path().join("busybox.tar");
        if !path.exists() {
            ImageRecipe::busybox("busybox:latest").write_oci_archive(&path)?;
        }
        Ok(path)
    }

    /// Knows the same pod under another name or endpoint.
    pub(crate) fn add(&self, name: &str, endpoint: &str) {
        let init_data = self.init_data();
        let args = [
            "pod",
            "add",
            name,
            "--endpoint",
            endpoint,
            "--init-data",
            text(&init_data),
            "--accept-risk=simulated-tee",
        ];
        self.ok(&args);
    }

    pub(crate) fn init_data(&self) -> PathBuf {
        self.folder.path().join("initdata.img")
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.folder.path().join("root.pem")
    }

    /// Another owner on the same machine.
    pub(crate) fn stranger(&self) -> anyhow::Result<Owner> {
        let other = Owner::new(self.folder.path().join("stranger"))?;
        other.ok(&["init"]);
        Ok(other)
    }

    /// Kills the agent: the pod is gone without a word.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        self.agent.signal(rustix::process::Signal::KILL)?;
        self.agent.wait(SOON).map(drop)
    }
}

impl std::ops::Deref for Pod {
    type Target = Owner;

    fn deref(&self) -> &Owner {
        &self.owner
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        // An agent that is asked takes its mounts and cgroups with it; `Guarded` kills one that does not listen.
        let _ = self.agent.signal(rustix::process::Signal::TERM);
        let _ = self.agent.wait(Duration::from_secs(20));
    }
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("paths of tests are UTF-8")
}

/// A program of the workspace: where `make` puts it, or beside the one under test.
fn program(name: &str) -> anyhow::Result<PathBuf> {
    let dist = std::env::var_os("POSTERN_DIST").map(|dist| PathBuf::from(dist).join("bin"));
    let beside = Path::new(env!("CARGO_BIN_EXE_postern")).parent().map(Path::to_owned);
    let found = dist.into_iter().chain(beside).map(|dir| dir.join(name)).find(|path| path.is_file());
    found.with_context(|| format!("{name} is not built; run `cargo build -p {name}`"))
}

/// Stands between the owner and a pod, counts what the owner sends, and can cut the wire.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) address: String,
    open: Arc<Mutex<Vec<TcpStream>>>,
    sent: Arc<AtomicU64>,
}

impl Wire {
    pub(crate) fn to(pod: &Pod) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?.to_string();
        let open = Arc::new(Mutex::new(Vec::new()));
        let sent = Arc::new(AtomicU64::new(0));
        let (streams, counter, target) = (Arc::clone(&open), Arc::clone(&sent), pod.address.clone());
        thread::spawn(move || {
            for client in listener.incoming() {
                let (Ok(client), Ok(server)) = (client, TcpStream::connect(&target)) else { return };
                let mut streams = streams.lock().unwrap_or_else(PoisonError::into_inner);
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let counter = std::ptr::eq(from, &client).then(|| Arc::clone(&counter));
                    let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) else { return };
                    thread::spawn(move || pump(from, Counted { to, counter }));
                }
                streams.extend([client, server]);
            }
        });
        Ok(Self { address, open, sent })
    }

    /// Bytes that the owner has sent through it.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::SeqCst)
    }

    /// Cuts every connection there is.
    pub(crate) fn cut(&self) {
        for stream in self.open.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

struct Counted<W> {
    to: W,
    counter: Option<Arc<AtomicU64>>,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        // Before it arrives: whoever has seen the pod's answer finds it counted.
        if let Some(counter) = &self.counter {
            counter.fetch_add(bytes.len() as u64, Ordering::SeqCst);
        }
        self.to.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.to.flush()
    }
}

pub(crate) fn pump(mut from: impl Read, mut to: impl Write) {
    let _ = std::io::copy(&mut from, &mut to);
}
