//! The agent once it knows where it runs: builds the pod, opens both doors, and takes everything down at the end.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result};
use postern_container::{Reaper, Runtime, RuntimeConfig};
use postern_rootfs::{Limits as ImageLimits, Store};
use tokio::{
    select,
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use crate::{
    audit::Audit,
    host_api::{self, HostListener, HostParts, Limits},
    hygiene::Housekeeper,
    identity::Identity,
    init::{Stamps, network::NetworkConfigurator},
    owner_api::{self, Endpoint, Shared},
    pod::{Directories, Engine, PodHandle},
};

/// Everything that differs between a guest and an ordinary process.
#[derive(Debug)]
pub struct Place {
    /// A file system of the agent's own, in memory, which no container sees as a whole.
    pub data_dir: PathBuf,
    /// This very program, for workers.
    pub program: PathBuf,
    /// Control group below which containers get theirs, relative to the root of the hierarchy.
    pub cgroup_parent: String,
    pub owner_listen: SocketAddr,
    pub network: Arc<dyn NetworkConfigurator>,
    pub stamps: Stamps,
}

/// Serves until the pod has ended and nothing of it is left. `serving` is called once, with the owner's address.
pub async fn serve(
    place: Place,
    identity: Identity,
    host: HostListener,
    serving: impl FnOnce(SocketAddr, &Stamps) -> Result<()>,
) -> Result<()> {
    let Place { data_dir, program, cgroup_parent, owner_listen, network, mut stamps } = place;
    let mut terminate = signal(SignalKind::terminate()).context("watching for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("watching for SIGINT")?;
    let engine = engine(&data_dir, program, cgroup_parent)?;
    let housekeeper = Housekeeper::default();
    let (pod, driver) = PodHandle::start(engine, housekeeper.clone())?;
    let endpoint = Endpoint::bind(owner_listen)
        .await
        .with_context(|| format!("listening for owners on {owner_listen}"))?;
    let address = endpoint.address()?;
    stamps.mark("serving");
    serving(address, &stamps)?;

    let audit = Audit::default();
    let Identity { init_data, acceptor, evidence } = identity;
    let shared =
        Shared { name: init_data.pod, pod: pod.clone(), audit: audit.clone(), evidence, boot: stamps };
    let (stop, stopped) = watch::channel(false);
    let owners = tokio::spawn(owner_api::serve(endpoint, acceptor, Arc::new(shared), stopped));
    let parts = HostParts { pod: pod.clone(), audit, network };
    let hosts = tokio::spawn(host_api::serve(host, parts, Limits::default()));

    let housekeeping = tokio::spawn(housekeeper.run());

    let mut driver = driver;
    select! {
        _ = &mut driver => {}
        _ = async { select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} } } => {
            pod.shut_down().await;
            // The driver bounds its own last work.
            let _ = driver.await;
        }
    }
    // Nobody is left to tell that an endpoint had gone before.
    let _ = stop.send(true);
    let _ = owners.await;
    hosts.abort();
    housekeeping.abort();
    Ok(())
}

fn engine(data_dir: &Path, program: PathBuf, cgroup_parent: String) -> Result<Engine> {
    let reaper = Reaper::start().context("becoming the reaper of the pod's processes")?;
    let config = RuntimeConfig::new(data_dir.join("runtime"), program, cgroup_parent);
    let runtime = Runtime::new(config, reaper).context("starting the container runtime")?;
    let store =
        Store::open(&data_dir.join("images"), ImageLimits::default()).context("opening the image store")?;
    let directories =
        Directories { containers: data_dir.join("containers"), volumes: data_dir.join("volumes") };
    for directory in [&directories.containers, &directories.volumes] {
        std::fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))?;
    }
    Ok(Engine { runtime, store, directories })
}
