//! What is to be started, and the checks that need nothing made: programs, image, init data, address.

use std::{
    fs::File,
    io::{self, Read},
    net::{SocketAddrV4, TcpListener},
    path::{Path, PathBuf},
    time::Duration,
};

use postern_launch::{
    Disk, DiskFooter, EncodedInitData, ImageManifest, LaunchSpec, Network, PodShape, Vsock, Wiring,
    decode_device,
    init_data::{MAGIC, MAX_DEVICE},
};
use postern_model::{HostData, PodName};
use serde::{Deserialize, Serialize};

use super::{INIT_DATA_FILE, QMP_SOCKET, StartError, VHOST_USER_SOCKET};
use crate::{
    probe,
    process::ProcessId,
    state::{PodRecord, ShellRecord, random_number},
    tools::Tools,
};

/// A start as it was asked for.
#[derive(Debug, Clone)]
pub struct Plan {
    pub vm: VmPlan,
    pub tenant: TenantPlan,
}

/// A VM, whoever's it will be.
#[derive(Debug, Clone)]
pub struct VmPlan {
    pub image_dir: PathBuf,
    pub shape: PodShape,
    /// Where the owner's endpoint is to be reached; port 0 is any free one.
    pub listen: SocketAddrV4,
    pub vsock: VsockChoice,
    /// Files of image disks. A shell that waits for its tenant has none.
    pub disks: Vec<PathBuf>,
    pub tools: Tools,
}

/// What makes a VM somebody's.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TenantPlan {
    pub name: PodName,
    /// A device as the guest reads it, or the text that goes into one.
    pub init_data: PathBuf,
    /// How long the guest may take to answer.
    pub deadline: Duration,
}

/// How the guest's vsock is provided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VsockChoice {
    /// The user-space device if its program is there, else the kernel's. In this order, because a simulated platform
    /// listens on a port of the *host*, of which the kernel's device has only one for all guests.
    Auto,
    VhostUser,
    Kernel,
}

/// A VM that can be tried.
#[derive(Debug)]
pub(super) struct CheckedVm {
    pub plan: VmPlan,
    pub image_dir: PathBuf,
    image: ImageManifest,
    disks: Vec<Disk>,
    pub qemu: PathBuf,
    pub vsock: CheckedVsock,
}

/// Whose the VM is to be, with init data that was read and found good.
#[derive(Debug)]
pub(super) struct Tenant {
    pub name: PodName,
    pub host_data: HostData,
    pub device: Vec<u8>,
    pub deadline: Duration,
}

#[derive(Debug)]
pub(super) enum CheckedVsock {
    VhostUser { helper: PathBuf },
    Kernel { cid: u32 },
}

impl VmPlan {
    pub(super) fn check(self) -> Result<CheckedVm, StartError> {
        let qemu = self.tools.qemu()?;
        let image_dir = std::path::absolute(&self.image_dir)
            .map_err(|source| StartError::Path { path: self.image_dir.clone(), source })?;
        let image = ImageManifest::load(&image_dir)?;
        let disks = check_disks(&self.disks)?;
        let vsock = self.check_vsock()?;
        check_listen(self.listen)?;
        Ok(CheckedVm { plan: self, image_dir, image, disks, qemu, vsock })
    }

    fn check_vsock(&self) -> Result<CheckedVsock, StartError> {
        match (self.vsock, self.tools.vsock_helper()) {
            (VsockChoice::Kernel, _) if !probe::has_kernel_vsock() => Err(StartError::NoKernelVsock),
            (VsockChoice::Kernel, _) => CheckedVsock::kernel(),
            (VsockChoice::Auto | VsockChoice::VhostUser, Ok(helper)) => {
                Ok(CheckedVsock::VhostUser { helper })
            }
            (VsockChoice::Auto, Err(_)) if probe::has_kernel_vsock() => CheckedVsock::kernel(),
            (VsockChoice::Auto | VsockChoice::VhostUser, Err(error)) => Err(error.into()),
        }
    }
}

impl CheckedVsock {
    /// With a context id that no other guest has but by chance: 0 to 2 are reserved, and so is the highest.
    fn kernel() -> Result<Self, StartError> {
        let number = random_number().map_err(StartError::Identity)?;
        Ok(Self::Kernel { cid: number.clamp(3, u32::MAX - 1) })
    }
}

impl TenantPlan {
    pub(super) fn check(self) -> Result<Tenant, StartError> {
        let (device, host_data) = read_init_data(&self.init_data)?;
        Ok(Tenant { name: self.name, host_data, device, deadline: self.deadline })
    }
}

impl CheckedVm {
    /// The record with which the state of `tenant`'s pod begins.
    pub(super) fn pod_record(&self, tenant: &Tenant) -> Result<PodRecord, StartError> {
        let (name, image) = (tenant.name.clone(), self.image_dir.clone());
        Ok(PodRecord::new(name, this_process()?, image, self.plan.shape, tenant.host_data))
    }

    /// The record with which a shell's state begins.
    pub(super) fn shell_record(&self) -> Result<ShellRecord, StartError> {
        let image = self.image_dir.clone();
        ShellRecord::new(this_process()?, image, self.plan.shape, self.plan.listen)
            .map_err(StartError::Identity)
    }

    /// The launch, with sockets and files by the names they have in QEMU's working directory, the pod's own.
    pub(super) fn launch(&self) -> Result<LaunchSpec, StartError> {
        let wiring = Wiring {
            qmp_socket: QMP_SOCKET.into(),
            init_data_device: INIT_DATA_FILE.into(),
            disks: self.disks.clone(),
            vsock: match &self.vsock {
                CheckedVsock::VhostUser { .. } => Vsock::VhostUser { socket: VHOST_USER_SOCKET.into() },
                CheckedVsock::Kernel { cid } => Vsock::Kernel { cid: *cid },
            },
            network: Network::User { listen: self.plan.listen },
        };
        Ok(LaunchSpec::new(&self.image, &self.image_dir, &self.plan.shape, wiring)?)
    }
}

pub(super) fn this_process() -> Result<ProcessId, StartError> {
    ProcessId::of(std::process::id()).map_err(StartError::Identity)
}

/// Each one an image disk, and none twice: a guest that finds two with one serial number takes neither.
fn check_disks(paths: &[PathBuf]) -> Result<Vec<Disk>, StartError> {
    let mut disks: Vec<Disk> = Vec::new();
    for path in paths {
        let open = || {
            let file = std::path::absolute(path)?;
            // Not a pipe, which would wait for a writer.
            match std::fs::metadata(&file)?.is_file() {
                true => Ok((File::open(&file)?, file)),
                false => Err(io::Error::other("not a regular file")),
            }
        };
        let unreadable = |source| StartError::DiskRead { path: path.clone(), source };
        let (mut content, file) = open().map_err(unreadable)?;
        let footer = DiskFooter::read(&mut content)
            .map_err(|source| StartError::Disk { path: path.clone(), source })?;
        let serial = footer.disk.serial();
        if disks.iter().any(|known| known.serial == serial) {
            return Err(StartError::DiskTwice { path: path.clone() });
        }
        disks.push(Disk { file, serial });
    }
    Ok(disks)
}

fn read_init_data(path: &Path) -> Result<(Vec<u8>, HostData), StartError> {
    let failed = |source: io::Error| StartError::InitDataRead { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    // One byte more than is accepted, so that too much is seen as too much.
    let limit = MAX_DEVICE as u64 + 1;
    File::open(path).map_err(failed)?.take(limit).read_to_end(&mut bytes).map_err(failed)?;
    let invalid = |source| StartError::InitData { path: path.to_owned(), source };
    if bytes.is_empty() || bytes.starts_with(MAGIC) {
        let (_, host_data) = decode_device(&bytes).map_err(invalid)?;
        return Ok((bytes, host_data));
    }
    let encoded = EncodedInitData::from_toml(&bytes).map_err(invalid)?;
    Ok((encoded.device(), encoded.digest()))
}

/// Finds out whether QEMU will be able to listen, for a better error than QEMU's.
fn check_listen(listen: SocketAddrV4) -> Result<(), StartError> {
    match TcpListener::bind(listen) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(StartError::PortInUse { listen }),
        Err(source) => Err(StartError::Listen { listen, source }),
    }
}
