//! What PID 1 of a guest does before there is an agent: the root, mounts, cgroups, modules and the owner's init data.
//!
//! ```text
//! boot(): root -> /proc /sys /dev -> modules -> mounts, sysctls, cgroups -> init-data device   (one deadline over all)
//! ```
//! Everything the host can see of it is a phase's name and time on the console. Whatever fails here ends the guest:
//! there is nobody to ask.

mod cgroup;
mod console;
mod device;
mod modules;
mod mounts;
pub mod network;
mod power;
mod processors;
mod settings;
mod stamps;

use std::{path::PathBuf, time::Duration};

pub use self::{
    cgroup::POD_CGROUP,
    console::{boot_timeline, phase},
    mounts::DATA_DIR,
    power::{end_on_panic, fail, give_up, poweroff},
    stamps::{Stamp, Stamps},
};

/// How long all of `boot` may take. A loaded host under emulation needs seconds; a guest that hangs helps nobody.
const BOOT_DEADLINE: Duration = Duration::from_secs(60);

/// What the guest found out about itself while it booted.
#[derive(Debug)]
pub struct Booted {
    /// The start of the one init-data device, as long as its header says; undecoded and unchecked.
    pub init_data_device: Vec<u8>,
    /// Below it every container gets its cgroup.
    pub cgroup_root: PathBuf,
    /// Where images and containers' root file systems go: memory, bounded.
    pub data_dir: PathBuf,
    /// When each step was done.
    pub stamps: Stamps,
}

/// Why the guest could not boot.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    #[error("not process 1; use --standalone to run the agent as an ordinary process")]
    NotInit,
    #[error(transparent)]
    Mount(#[from] mounts::MountError),
    #[error(transparent)]
    Modules(#[from] modules::ModuleError),
    #[error(transparent)]
    Cgroup(#[from] cgroup::CgroupError),
    #[error(transparent)]
    InitData(#[from] device::DeviceError),
    #[error(transparent)]
    Setting(#[from] settings::SettingError),
    #[error("starting the boot watchdog")]
    Watchdog(#[source] std::io::Error),
}

/// What nobody waits for while a pod comes up: memory that the kernel would keep, and the other processors. Blocks.
pub fn settle() {
    settings::spare_memory();
    processors::wake();
}

/// Makes a Linux out of the bare kernel. Only for process 1, once, before any thread is started.
pub fn boot() -> Result<Booted, BootError> {
    if std::process::id() != 1 {
        return Err(BootError::NotInit);
    }
    let mut stamps = Stamps::start();
    mounts::move_root()?;
    mounts::mount_first()?;
    console::take_over()?;
    stamps.mark("mounts");
    let watchdog = power::Watchdog::arm(BOOT_DEADLINE).map_err(BootError::Watchdog)?;
    modules::load_all()?;
    stamps.mark("modules");
    mounts::mount_rest()?;
    settings::apply()?;
    let cgroup_root = cgroup::set_up()?;
    stamps.mark("system");
    let init_data_device = device::find()?;
    stamps.mark("init data");
    watchdog.disarm();
    Ok(Booted { init_data_device, cgroup_root, data_dir: DATA_DIR.into(), stamps })
}
