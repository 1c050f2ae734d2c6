//! The agent once it knows where it runs: builds the pod, opens both doors, and takes everything down at the end.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result};
use postern_container::{Reaper, Runtime, RuntimeConfig};
use postern_rootfs::{Limits as ImageLimits, Store};
use tokio::{
    select,
    signal::unix::{SignalKind, signal},
    sync::watch,
    time::{sleep, timeout},
};

use crate::{
    audit::Audit,
    host_api::{self, HostListener, HostParts, Limits},
    hygiene::Housekeeper,
    identity::Identity,
    init::{Stamps, network::NetworkConfigurator},
    owner_api::{self, Endpoint, Shared},
    pod::{Directories, Engine, PodHandle},
    system,
};

/// How long a pod that serves is left alone for its owner to come.
const UNCLAIMED: Duration = Duration::from_secs(1);
/// How long the answer to a handover may take until it is on its way.
const ANSWERED: Duration = Duration::from_millis(20);

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
    /// What the program has read of its own file can be dropped and read again. In an initramfs the file is that memory.
    pub rereadable: bool,
    /// What of the place can wait until the pod is somebody's. Blocks.
    pub settle: fn(),
    pub stamps: Stamps,
}

/// Serves until the pod has ended and nothing of it is left. `serving` is called once, with the owner's address.
pub async fn serve(
    place: Place,
    identity: Identity,
    host: HostListener,
    serving: impl FnOnce(SocketAddr, &Stamps) -> Result<()>,
) -> Result<()> {
    let Place { data_dir, program, cgroup_parent, owner_listen, network, rereadable, settle, mut stamps } =
        place;
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
    // While those who were told are on their way: nobody is let in before it is done.
    network.start().await.context("starting the network")?;

    let audit = Audit::default();
    let Identity { init_data, acceptor, evidence } = identity;
    let shared =
        Shared { name: init_data.pod, pod: pod.clone(), audit: audit.clone(), evidence, boot: stamps };
    let (stop, stopped) = watch::channel(false);
    let owners = tokio::spawn(owner_api::serve(endpoint, acceptor, Arc::new(shared), stopped));
    let parts = HostParts { pod: pod.clone(), audit, network };
    let hosts = tokio::spawn(host_api::serve(host, parts, Limits::default()));

    let housekeeping = tokio::spawn(housekeeper.clone().run(rereadable));
    let settling = tokio::spawn(settled(pod.clone(), settle, housekeeper));

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
    settling.abort();
    Ok(())
}

/// Does what an owner need not wait for on the way to their pod: when they have it, or nobody has come for a while.
async fn settled(pod: PodHandle, settle: fn(), housekeeper: Housekeeper) {
    let _ = timeout(UNCLAIMED, pod.owned()).await;
    // Whoever has taken it over gets their answer first.
    sleep(ANSWERED).await;
    let _ = tokio::task::spawn_blocking(settle).await;
    housekeeper.call();
}

/// Memory that images never take, so that what is there can still be run: a sixteenth, within bounds. The smallest pod has
/// 48 MiB, of which its kernel and this program leave a quarter.
fn image_reserve(total_bytes: u64) -> u64 {
    const MIB: u64 = 1 << 20;
    (total_bytes / 16).clamp(2 * MIB, 32 * MIB)
}

fn engine(data_dir: &Path, program: PathBuf, cgroup_parent: String) -> Result<Engine> {
    let reaper = Reaper::start().context("becoming the reaper of the pod's processes")?;
    let config = RuntimeConfig::new(data_dir.join("runtime"), program, cgroup_parent);
    let runtime = Runtime::new(config, reaper).context("starting the container runtime")?;
    let limits = ImageLimits { reserve_bytes: image_reserve(system::total_memory()), ..Default::default() };
    let store = Store::open(&data_dir.join("images"), limits).context("opening the image store")?;
    let directories =
        Directories { containers: data_dir.join("containers"), volumes: data_dir.join("volumes") };
    for directory in [&directories.containers, &directories.volumes] {
        std::fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))?;
    }
    Ok(Engine { runtime, store, directories })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_pod_keeps_room_for_an_image() {
        const MIB: u64 = 1 << 20;
        assert_eq!(image_reserve(35 * MIB), 35 * MIB / 16);
        assert_eq!(image_reserve(256 * MIB), 16 * MIB);
        assert_eq!(image_reserve(64 << 30), 32 * MIB);
        assert_eq!(image_reserve(0), 2 * MIB);
    }
}
