//! The work behind a change of state: images, root file systems, the container runtime. Runs off the driver.
//!
//! Each step that leaves something behind is undone when a later one fails; a failed undo is reported with the failure.

use std::{
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use oci_spec::{image::ImageConfiguration, runtime::Spec};
use postern_container::{
    CreateContainer, Created, Init, Runtime, Signal, SpecContext, Stdio, WindowSize, spec,
};
use postern_model::{ContainerName, ContainerSpec, Sha256};
use postern_rootfs::{Image, Rootfs, Store};

use super::{PodError, SandboxConfig, kernel};

/// Where a pod keeps what containers see: memory of the guest, all of it.
#[derive(Debug, Clone)]
pub struct Directories {
    /// One directory per container: its `/etc/hosts`, `/etc/hostname`, `/etc/resolv.conf`.
    pub containers: PathBuf,
    pub volumes: PathBuf,
}

/// The layers below the pod. Clones share them.
#[derive(Debug, Clone)]
pub struct Engine {
    pub runtime: Runtime,
    pub store: Store,
    pub directories: Directories,
}

/// What a container is made from; enough to make it again.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) name: ContainerName,
    /// The specification, as text: parsed it is many times larger, and needed again only by a restart.
    pub(super) oci_config: Arc<str>,
    pub(super) stdio: Stdio,
    pub(super) rootfs: Rootfs,
}

/// A container that was created.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) spec: Arc<ContainerSpec>,
    pub(super) image_digest: Sha256,
    pub(super) command: Arc<[String]>,
    pub(super) stop_signal: Signal,
    pub(super) oci_config: Arc<str>,
    pub(super) plan: Arc<Plan>,
    pub(super) created: Created,
}

impl Engine {
    /// From an owner's wish to a container that waits to be started.
    pub(super) async fn create(
        self,
        wish: ContainerSpec,
        sandbox: Arc<SandboxConfig>,
    ) -> Result<Made, PodError> {
        let image = self.image(&wish.image)?;
        let missing = kernel::missing(&image.config);
        let missing = missing.map_err(PodError::failed("reading which options the kernel has"))?;
        if !missing.is_empty() {
            return Err(PodError::KernelLacks(missing));
        }
        let name = wish.name.clone();
        let stop_signal = stop_signal(&image.config);
        let rootfs = self.store.prepare(&image, &name).await;
        let rootfs = rootfs.map_err(PodError::failed("preparing the root file system"))?;
        match self.create_on(wish, image, &rootfs, sandbox).await {
            Ok((made, created)) => Ok(Made {
                spec: Arc::new(made.wish),
                image_digest: made.image_digest,
                command: made
                    .oci
                    .process()
                    .as_ref()
                    .and_then(|process| process.args().clone())
                    .unwrap_or_default()
                    .into(),
                stop_signal,
                oci_config: Arc::clone(&made.oci_config),
                plan: Arc::new(Plan { name, oci_config: made.oci_config, stdio: made.stdio, rootfs }),
                created,
            }),
            Err(error) => Err(self.undo(&name, &rootfs, error).await),
        }
    }

    /// The image that `text` names.
    fn image(&self, text: &str) -> Result<Image, PodError> {
        Ok(self.store.resolve(text)?)
    }

    async fn create_on(
        &self,
        wish: ContainerSpec,
        image: Image,
        rootfs: &Rootfs,
        sandbox: Arc<SandboxConfig>,
    ) -> Result<(Planned, Created), PodError> {
        let stdio = stdio(&wish);
        let name = wish.name.clone();
        let directories = self.directories.clone();
        let path = rootfs.path().to_path_buf();
        let planned = tokio::task::spawn_blocking(move || {
            Planned::make(wish, &image.config, image.manifest_digest, stdio, &path, &directories, &sandbox)
        });
        // A panic ends the program; the task cannot be cancelled once it runs.
        let planned = planned.await.map_err(PodError::failed("building the specification"))??;
        let request = CreateContainer { id: name, spec: planned.oci.clone(), init: Init::Command, stdio };
        let created =
            self.runtime.create(request).await.map_err(PodError::failed("creating the container"))?;
        Ok((planned, created))
    }

    async fn undo(&self, name: &ContainerName, rootfs: &Rootfs, error: PodError) -> PodError {
        let _ = fs::remove_dir_all(self.directories.containers.join(name.as_str()));
        match rootfs.remove().await {
            Ok(()) => error,
            Err(undo) => PodError::Undo { error: Box::new(error), undo: undo.into() },
        }
    }

    pub(super) async fn start(&self, name: &ContainerName) -> Result<(), PodError> {
        self.runtime.start(name).await.map_err(PodError::failed("starting the container"))
    }

    /// Makes the first process again on the root file system as the last one left it.
    pub(super) async fn recreate(&self, plan: &Plan) -> Result<Created, PodError> {
        self.runtime
            .delete(&plan.name)
            .await
            .map_err(PodError::failed("clearing the container's last run"))?;
        let spec = serde_json::from_slice(plan.oci_config.as_bytes())
            .map_err(PodError::failed("reading the specification"))?;
        let request = CreateContainer { id: plan.name.clone(), spec, init: Init::Command, stdio: plan.stdio };
        self.runtime.create(request).await.map_err(PodError::failed("creating the container again"))
    }

    /// Takes away all of a container, whatever state it is in.
    pub(super) async fn remove(&self, plan: &Plan) -> Result<(), PodError> {
        match self.runtime.delete(&plan.name).await {
            Ok(()) | Err(postern_container::DeleteError::UnknownContainer(_)) => {}
            Err(error) => return Err(PodError::failed("removing the container")(error)),
        }
        plan.rootfs.remove().await.map_err(PodError::failed("removing the root file system"))?;
        let directory = self.directories.containers.join(plan.name.as_str());
        fs::remove_dir_all(&directory)
            .or_else(absent)
            .map_err(PodError::failed("removing the container's files"))
    }

    /// The measured pause container: this very program, asleep, on an empty root.
    pub(super) async fn create_pause(
        &self,
        name: ContainerName,
        sandbox: Arc<SandboxConfig>,
    ) -> Result<Created, PodError> {
        self.create_empty(name, Init::Pause, sandbox).await
    }

    /// Makes a container of nothing of the owner's, and removes it: what the first container of a guest meets for the first
    /// time (code that no processor has run yet, a filter that is not compiled) is met before anybody waits for it.
    pub(super) async fn rehearse(
        &self,
        name: ContainerName,
        sandbox: Arc<SandboxConfig>,
    ) -> Result<(), PodError> {
        let made = self.create_empty(name.clone(), Init::Rehearsal, sandbox).await.map(drop);
        let _ = fs::remove_dir_all(self.directories.containers.join(name.as_str()));
        made?;
        self.runtime.delete(&name).await.map_err(PodError::failed("removing the rehearsal"))
    }

    async fn create_empty(
        &self,
        name: ContainerName,
        init: Init,
        sandbox: Arc<SandboxConfig>,
    ) -> Result<Created, PodError> {
        let root = self.directories.containers.join("pause-root");
        fs::create_dir_all(&root).map_err(PodError::failed("making the pause container's root"))?;
        let mut wish = ContainerSpec::new(name.clone(), "pause");
        wish.args = vec!["pause".into()];
        wish.read_only_rootfs = true;
        let (directories, image) = (self.directories.clone(), ImageConfiguration::default());
        let planned = tokio::task::spawn_blocking(move || {
            Planned::make(wish, &image, Sha256::new([0; 32]), Stdio::Closed, &root, &directories, &sandbox)
        });
        let planned = planned.await.map_err(PodError::failed("building the specification"))??;
        let request = CreateContainer { id: name, spec: planned.oci, init, stdio: Stdio::Closed };
        self.runtime.create(request).await.map_err(PodError::failed("creating the pause container"))
    }
}

/// Everything about a container that is known before it has a process.
struct Planned {
    wish: ContainerSpec,
    image_digest: Sha256,
    oci: Spec,
    oci_config: Arc<str>,
    stdio: Stdio,
}

impl Planned {
    #[expect(clippy::too_many_arguments, reason = "the one place where a wish, an image and the pod meet")]
    fn make(
        wish: ContainerSpec,
        image: &ImageConfiguration,
        image_digest: Sha256,
        stdio: Stdio,
        rootfs: &Path,
        directories: &Directories,
        sandbox: &SandboxConfig,
    ) -> Result<Self, PodError> {
        let directory = directories.containers.join(wish.name.as_str());
        let hostname = wish.hostname.clone().or_else(|| sandbox.hostname.clone());
        let hostname = hostname.unwrap_or_else(|| wish.name.to_string());
        let files = write_network_files(&directory, &hostname, &sandbox.dns);
        let [hosts, hostname_file, resolv_conf] =
            files.map_err(PodError::failed("writing the container's network files"))?;
        let context = SpecContext {
            rootfs: rootfs.to_path_buf(),
            hosts,
            hostname_file,
            resolv_conf,
            hostname,
            volumes: directories.volumes.clone(),
        };
        let oci =
            spec::build(&wish, image, &context).map_err(PodError::failed("building the specification"))?;
        let json = serde_json::to_string(&oci).map_err(PodError::failed("writing the specification"))?;
        Ok(Self { wish, image_digest, oci, oci_config: json.into(), stdio })
    }
}

/// SIGTERM where the image says nothing, or nonsense.
fn stop_signal(image: &ImageConfiguration) -> Signal {
    let named = image.config().as_ref().and_then(|config| config.stop_signal().clone());
    named.and_then(|name| Signal::from_name(&name)).unwrap_or(Signal::TERMINATE)
}

fn stdio(wish: &ContainerSpec) -> Stdio {
    match (wish.terminal, wish.stdin) {
        (true, _) => Stdio::Terminal(WindowSize::default()),
        (false, true) => Stdio::Pipes,
        (false, false) => Stdio::OutputOnly,
    }
}

/// `/etc/hosts`, `/etc/hostname` and `/etc/resolv.conf`, in this order.
fn write_network_files(directory: &Path, hostname: &str, dns: &[IpAddr]) -> io::Result<[PathBuf; 3]> {
    fs::create_dir_all(directory)?;
    let hosts = directory.join("hosts");
    fs::write(
        &hosts,
        format!("127.0.0.1\tlocalhost {hostname}\n::1\tlocalhost ip6-localhost ip6-loopback\n"),
    )?;
    let name = directory.join("hostname");
    fs::write(&name, format!("{hostname}\n"))?;
    let resolv_conf = directory.join("resolv.conf");
    let servers: String = dns.iter().map(|server| format!("nameserver {server}\n")).collect();
    fs::write(&resolv_conf, servers)?;
    Ok([hosts, name, resolv_conf])
}

fn absent(error: io::Error) -> io::Result<()> {
    match error.kind() {
        io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    }
}
