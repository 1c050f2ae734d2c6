//! A pod for one test: a runtime with directories and a control group of its own, and root file systems of busybox.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use oci_spec::image::{Config, ConfigBuilder, ImageConfiguration, ImageConfigurationBuilder};
use postern_container::{
    CreateContainer, Created, ExecError, ExecProcess, Init, ProcessIo, Reaper, Runtime, RuntimeConfig,
    SpecContext, Stdio, spec,
};
use postern_model::{ContainerName, ContainerSpec, ExitStatus};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    runtime::Handle,
};

/// Longer than anything here takes on a loaded machine.
const SOON: Duration = Duration::from_secs(60);
const BUSYBOX: &str = "/bin/busybox";
const APPLETS: [&str; 38] = [
    "sh", "true", "false", "cat", "echo", "sleep", "id", "ls", "env", "pwd", "hostname", "mount", "mknod",
    "dd", "grep", "head", "wc", "stty", "tty", "test", "touch", "mkdir", "ln", "rm", "stat", "ps", "kill",
    "seq", "yes", "tail", "od", "readlink", "umount", "chmod", "printf", "unshare", "df", "tr",
];
const DEADLINE: Duration = Duration::from_secs(120);

/// Runs `test` on the one tokio runtime of this program, whose reaper waits for all of its children.
pub(crate) fn with_pod<F: Future<Output = ()> + Send + 'static>(
    test: impl FnOnce(Pod) -> F + Send + 'static,
) {
    with(Hierarchy::OfMachine, test);
}

/// The same where the runtime sees a single (v2) hierarchy. A program uses one of the two.
pub(crate) fn with_unified_pod<F: Future<Output = ()> + Send + 'static>(
    test: impl FnOnce(Pod) -> F + Send + 'static,
) {
    with(Hierarchy::Unified, test);
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Hierarchy {
    OfMachine,
    Unified,
}

fn with<F: Future<Output = ()> + Send + 'static>(
    hierarchy: Hierarchy,
    test: impl FnOnce(Pod) -> F + Send + 'static,
) {
    if !rustix::process::geteuid().is_root() || !Path::new(BUSYBOX).exists() {
        eprintln!("skipped: needs root and {BUSYBOX}");
        return;
    }
    let (done, result) = mpsc::channel();
    engine(hierarchy).handle.spawn(async move {
        let pod = Pod::new(&engine(hierarchy).reaper);
        let outcome = tokio::spawn(test(pod.clone())).await;
        pod.runtime.shut_down().await;
        let left = cgroups_named(&pod.cgroup);
        drop(pod);
        let _ = done.send(outcome.map(|()| left));
    });
    match result.recv_timeout(DEADLINE) {
        Ok(Ok(left)) => assert_eq!(left, Vec::<PathBuf>::new(), "control groups are left"),
        Ok(Err(error)) => std::panic::resume_unwind(error.into_panic()),
        Err(_) => panic!("test did not end within {DEADLINE:?}"),
    }
}

struct Engine {
    handle: Handle,
    reaper: Reaper,
}

/// A mount name space for this thread, its workers and its helpers, with cgroup v2 mounted over whatever was there.
fn hide_legacy_hierarchies() {
    use rustix::{mount::*, thread::*};
    // SAFETY: nothing in this thread holds on to its file system state, which is not shared from here on.
    #[allow(unsafe_code)]
    unsafe { unshare_unsafe(UnshareFlags::FS | UnshareFlags::NEWNS) }.unwrap();
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
    mount("none", "/sys/fs/cgroup", "cgroup2", MountFlags::empty(), None).unwrap();
}

fn engine(hierarchy: Hierarchy) -> &'static Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    ENGINE.get_or_init(|| {
        let (started, engine) = mpsc::channel();
        std::thread::spawn(move || {
            if hierarchy == Hierarchy::Unified {
                hide_legacy_hierarchies();
            }
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                started.send(Engine { handle: Handle::current(), reaper: Reaper::start().unwrap() }).unwrap();
                std::future::pending::<()>().await;
            });
        });
        engine.recv().unwrap()
    })
}

#[derive(Clone)]
pub(crate) struct Pod {
    pub(crate) runtime: Runtime,
    pub(crate) cgroup: String,
    directory: std::sync::Arc<tempfile::TempDir>,
}

impl Pod {
    fn new(reaper: &Reaper) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let directory = tempfile::Builder::new().prefix("postern-container-").tempdir().unwrap();
        let cgroup = format!("postern-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let config = RuntimeConfig::new(directory.path().join("state"), worker_program(), &cgroup);
        for name in ["hosts", "hostname", "resolv.conf"] {
            fs::write(directory.path().join(name), format!("# {name} of the pod\n")).unwrap();
        }
        fs::create_dir(directory.path().join("volumes")).unwrap();
        let runtime = Runtime::new(config, reaper.clone()).unwrap();
        Self { runtime, cgroup, directory: directory.into() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A new root file system with busybox, `/etc/passwd` and `/etc/group`.
    pub(crate) fn rootfs(&self, name: &str) -> PathBuf {
        let root = self.path(&format!("rootfs-{name}"));
        for directory in ["bin", "etc", "tmp", "root", "proc", "sys", "dev"] {
            fs::create_dir_all(root.join(directory)).unwrap();
        }
        fs::copy(BUSYBOX, root.join("bin/busybox")).unwrap();
        for applet in APPLETS {
            symlink("busybox", root.join("bin").join(applet)).unwrap();
        }
        fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nweb:x:33:44:web:/srv:/bin/sh\n")
            .unwrap();
        fs::write(root.join("etc/group"), "root:x:0:\nweb:x:44:\nextra:x:55:web\n").unwrap();
        root
    }

    pub(crate) fn context(&self, rootfs: PathBuf) -> SpecContext {
        SpecContext {
            rootfs,
            hosts: self.path("hosts"),
            hostname_file: self.path("hostname"),
            resolv_conf: self.path("resolv.conf"),
            hostname: "pod".into(),
            volumes: self.path("volumes"),
        }
    }

    /// Creates a container of `spec` from a plain image.
    pub(crate) async fn create(&self, spec: ContainerSpec, stdio: Stdio) -> Created {
        self.create_from(spec, &image(Config::default()), stdio).await
    }

    pub(crate) async fn create_from(
        &self,
        spec: ContainerSpec,
        image: &ImageConfiguration,
        stdio: Stdio,
    ) -> Created {
        let rootfs = self.rootfs(spec.name.as_str());
        let oci = spec::build(&spec, image, &self.context(rootfs)).unwrap();
        self.runtime
            .create(CreateContainer { id: spec.name, spec: oci, init: Init::Command, stdio })
            .await
            .unwrap_or_else(|error| panic!("{}", chain(&error)))
    }

    /// Creates and starts a container that sleeps.
    pub(crate) async fn sleeper(&self, name: &str) -> ContainerName {
        self.sleeper_of(wish(name, &["sleep", "1000"])).await
    }

    pub(crate) async fn sleeper_of(&self, spec: ContainerSpec) -> ContainerName {
        let id = spec.name.clone();
        self.create(spec, Stdio::OutputOnly).await;
        self.runtime.start(&id).await.unwrap_or_else(|error| panic!("{}", chain(&error)));
        id
    }

    /// A container that counts for as long as it may run; returns when it has begun.
    pub(crate) async fn ticker(&self, id: &str) -> ContainerName {
        let id = self.sleeper_of(script(id, "while true; do echo x >>/ticks; sleep 0.01; done")).await;
        self.await_ticks(&id, 1).await;
        id
    }

    /// How far a ticker has counted, in bytes.
    pub(crate) fn ticks(&self, id: &ContainerName) -> u64 {
        fs::metadata(self.path(&format!("rootfs-{id}/ticks"))).map_or(0, |file| file.len())
    }

    pub(crate) async fn await_ticks(&self, id: &ContainerName, wanted: u64) {
        eventually("a tick", || (self.ticks(id) >= wanted).then_some(())).await;
    }

    /// Runs a container to its end.
    pub(crate) async fn run(&self, spec: ContainerSpec) -> Output {
        let id = spec.name.clone();
        let created = self.create(spec, Stdio::OutputOnly).await;
        self.runtime.start(&id).await.unwrap_or_else(|error| panic!("{}", chain(&error)));
        collect(created).await
    }

    /// Runs a command in a container to its end.
    pub(crate) async fn exec(&self, id: &ContainerName, args: &[&str]) -> Output {
        self.exec_as(id, process(args)).await.unwrap_or_else(|error| panic!("{}", chain(&error)))
    }

    pub(crate) async fn exec_as(
        &self,
        id: &ContainerName,
        process: ExecProcess,
    ) -> Result<Output, ExecError> {
        Ok(collect(self.runtime.exec(id, process, Stdio::OutputOnly).await?).await)
    }

    /// Runs a shell script in a container to its end; returns what it printed.
    pub(crate) async fn script(&self, id: &ContainerName, script: &str) -> String {
        let output = self.exec(id, &["sh", "-c", script]).await;
        assert!(output.status.success(), "{script}: {output:?}");
        output.stdout
    }
}

#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

pub(crate) async fn collect(created: Created) -> Output {
    let Created { process, io } = created;
    let ProcessIo { stdin, stdout, stderr, .. } = io;
    drop(stdin);
    let read = |stream: Option<postern_container::ProcessOutput>| async move {
        let mut bytes = Vec::new();
        if let Some(mut stream) = stream {
            stream.read_to_end(&mut bytes).await.unwrap();
        }
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let (stdout, stderr) = tokio::join!(read(stdout), read(stderr));
    Output { status: process.exit().wait().await, stdout, stderr }
}

/// Writes all of `data` to the process and ends its input.
pub(crate) async fn feed(io: &mut ProcessIo, data: &[u8]) {
    let mut stdin = io.stdin.take().unwrap();
    stdin.write_all(data).await.unwrap();
    stdin.shutdown().await.unwrap();
}

pub(crate) fn worker_program() -> &'static str {
    env!("CARGO_BIN_EXE_postern-container-worker")
}

/// Makes system calls that a container is refused.
pub(crate) fn probe_program() -> &'static str {
    env!("CARGO_BIN_EXE_postern-container-probe")
}

pub(crate) fn name(name: &str) -> ContainerName {
    ContainerName::new(name).unwrap()
}

pub(crate) fn wish(id: &str, args: &[&str]) -> ContainerSpec {
    ContainerSpec {
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        ..ContainerSpec::new(name(id), "image")
    }
}

pub(crate) fn script(id: &str, script: &str) -> ContainerSpec {
    wish(id, &["sh", "-c", script])
}

pub(crate) fn process(args: &[&str]) -> ExecProcess {
    ExecProcess { args: args.iter().map(|arg| (*arg).to_owned()).collect(), ..ExecProcess::default() }
}

pub(crate) fn image(config: Config) -> ImageConfiguration {
    ImageConfigurationBuilder::default()
        .architecture("amd64")
        .os("linux")
        .config(config)
        .rootfs(oci_spec::image::RootFsBuilder::default().typ("layers").diff_ids(Vec::new()).build().unwrap())
        .build()
        .unwrap()
}

pub(crate) fn config() -> ConfigBuilder {
    ConfigBuilder::default()
}

pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

/// Control groups called `name`, in all hierarchies.
pub(crate) fn cgroups_named(name: &str) -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    let mounts = fs::read_dir(root).unwrap().filter_map(|entry| entry.ok().map(|entry| entry.path()));
    mounts.chain([root.to_owned()]).map(|mount| mount.join(name)).filter(|path| path.exists()).collect()
}

/// Waits for `condition`: something in /proc or in a container's files, of which nobody tells.
pub(crate) async fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + SOON;
    // Looks, and lets others run in between; how often is no part of what is waited for.
    let mut look = tokio::time::interval(Duration::from_millis(2));
    while Instant::now() < deadline {
        if let Some(value) = condition() {
            return value;
        }
        look.tick().await;
    }
    panic!("{what} did not happen");
}
