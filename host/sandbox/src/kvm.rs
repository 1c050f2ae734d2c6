//! Whether KVM works here: only a guest that has booted under it proves that.
//!
//! On nested or para-virtualised hosts `/dev/kvm` exists and small test programs run, while a stock kernel hangs. So a
//! guest is booted with a deadline, and the answer is remembered for this kernel and this QEMU.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use postern_launch::{
    Accelerator, Cpus, InitData, Machine, MemoryMib, Mitigations, Mode, PodShape, ShapeError, TeePlatform,
    encode,
};
use postern_model::PodName;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::{
    probe::kernel_release,
    progress::{Listener, Report},
    state::{Home, write_json},
    supervisor::{self, Plan, Stop, TenantPlan, VmPlan, VsockChoice},
    tools::Tools,
};

/// A guest under a KVM that works boots in a second.
const DEADLINE: Duration = Duration::from_secs(20);
/// Memory of the guest that is booted to find out.
const MEMORY_MIB: u32 = 256;

/// Whether a guest boots under KVM here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kvm {
    Works,
    /// It does not, and why.
    DoesNot(String),
    /// Nobody has tried: that takes an image.
    Untested,
}

impl Kvm {
    pub fn accelerator(&self) -> Accelerator {
        match self {
            Self::Works => Accelerator::Kvm,
            Self::DoesNot(_) | Self::Untested => Accelerator::Tcg,
        }
    }

    /// One sentence on how this is known.
    pub fn reason(&self) -> &str {
        match self {
            Self::Works => "a guest has booted under KVM here",
            Self::DoesNot(why) => why,
            Self::Untested => {
                "no guest has been booted under KVM yet; `postern-host probe --image DIR` finds out"
            }
        }
    }
}

/// The remembered answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Remembered {
    kernel: String,
    qemu: String,
    works: bool,
    reason: String,
}

/// What is known without booting anything.
pub fn known(home: &Home, qemu_version: &str) -> Kvm {
    if let Some(why) = cannot_work() {
        return Kvm::DoesNot(why);
    }
    let remembered: Option<Remembered> =
        fs::read(home.kvm_answer()).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    match remembered {
        Some(answer) if answer.kernel == kernel_release() && answer.qemu == qemu_version => {
            match answer.works {
                true => Kvm::Works,
                false => Kvm::DoesNot(answer.reason),
            }
        }
        _ => Kvm::Untested,
    }
}

fn cannot_work() -> Option<String> {
    if let Err(error) = fs::OpenOptions::new().read(true).write(true).open("/dev/kvm") {
        return Some(format!("/dev/kvm cannot be opened: {error}"));
    }
    let loaded = |module: &str| Path::new("/sys/module").join(module).exists();
    let by_the_processor = loaded("kvm_intel") || loaded("kvm_amd");
    (!by_the_processor).then(|| {
        "neither kvm_intel nor kvm_amd is loaded: this KVM is not the processor's, and stock guests hang under it".into()
    })
}

/// Boots a guest from `image` under KVM if nothing is known yet, and remembers how it went.
pub async fn find_out(home: &Home, qemu_version: &str, image: &Path, tools: &Tools) -> Kvm {
    let known = known(home, qemu_version);
    if known != Kvm::Untested {
        return known;
    }
    let (answer, final_one) = match try_boot(home, image, tools).await {
        Ok(()) => (Kvm::Works, true),
        Err(TryError::Boot(error)) => {
            (Kvm::DoesNot(format!("a guest did not boot under KVM: {error}")), true)
        }
        Err(TryError::Other(error)) => (Kvm::DoesNot(format!("KVM could not be tried: {error}")), false),
    };
    if final_one {
        let remembered = Remembered {
            kernel: kernel_release(),
            qemu: qemu_version.to_owned(),
            works: answer == Kvm::Works,
            reason: answer.reason().to_owned(),
        };
        if let Err(error) = home.prepare().and_then(|()| write_json(&home.kvm_answer(), &remembered)) {
            tracing::warn!(%error, "the answer about KVM could not be remembered");
        }
    }
    answer
}

enum TryError {
    /// The guest did not boot.
    Boot(supervisor::StartError),
    /// It never came to that.
    Other(Box<dyn std::error::Error>),
}

async fn try_boot(home: &Home, image: &Path, tools: &Tools) -> Result<(), TryError> {
    let scratch = home.root().join(format!("kvm-probe-{}", std::process::id()));
    let tried = async {
        let plan = plan(&scratch, image, tools).map_err(TryError::Other)?;
        let mut booted = Booted(false);
        let (_keep, stop) = watch::channel(Stop::No);
        match supervisor::run(&Home::at(&scratch), plan, &mut booted, stop).await {
            _ if booted.0 => Ok(()),
            Err(
                error @ (supervisor::StartError::GuestSilent { .. } | supervisor::StartError::Ended { .. }),
            ) => Err(TryError::Boot(error)),
            Err(error) => Err(TryError::Other(Box::new(error))),
            Ok(why) => Err(TryError::Other(why.into())),
        }
    };
    let result = tried.await;
    let _ = fs::remove_dir_all(&scratch);
    result
}

fn plan(scratch: &Path, image: &Path, tools: &Tools) -> Result<Plan, Box<dyn std::error::Error>> {
    fs::create_dir_all(scratch)?;
    let init_data: PathBuf = scratch.join("init-data");
    // Nobody's: the guest need not get further than its first line on the console.
    let nobodys = InitData {
        pod: PodName::new("kvm-probe")?,
        owner_ca_der: vec![0x30, 0],
        instance: [0; 32],
        mode: Mode::Direct,
    };
    fs::write(&init_data, encode(&nobodys).device())?;
    let tenant = TenantPlan { name: PodName::new("kvm-probe")?, init_data, deadline: DEADLINE };
    let vm = VmPlan {
        image_dir: image.to_owned(),
        shape: shape()?,
        listen: std::net::SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, 0),
        vsock: VsockChoice::Auto,
        disks: Vec::new(),
        tools: tools.clone(),
    };
    Ok(Plan { vm, tenant })
}

fn shape() -> Result<PodShape, ShapeError> {
    Ok(PodShape {
        machine: Machine::Microvm,
        accelerator: Accelerator::Kvm,
        cpus: Cpus::new(1)?,
        memory_mib: MemoryMib::new(MEMORY_MIB)?,
        tsc_khz: None,
        tee: TeePlatform::Simulated,
        mitigations: Mitigations::On,
    })
}

/// Gives up as soon as the kernel has come through.
struct Booted(bool);

impl Listener for Booted {
    fn report(&mut self, report: &Report) -> io::Result<()> {
        match report {
            Report::Kernel { .. } | Report::Agent { .. } => {
                self.0 = true;
                Err(io::Error::other("the guest has booted, which is all that was asked"))
            }
            Report::Vmm { .. } | Report::Sandbox { .. } | Report::Ready { .. } | Report::Failed { .. } => {
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_counts_for_its_kernel_and_its_qemu_only() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path());
        let answer = Remembered {
            kernel: kernel_release(),
            qemu: "7.2.22".into(),
            works: true,
            reason: "it does".into(),
        };
        write_json(&home.kvm_answer(), &answer).unwrap();
        // Where KVM cannot work at all, no answer is looked for.
        let expected = |remembered| match cannot_work() {
            Some(why) => Kvm::DoesNot(why),
            None => remembered,
        };
        assert_eq!(known(&home, "7.2.22"), expected(Kvm::Works));
        assert_eq!(known(&home, "10.0.2"), expected(Kvm::Untested));
        assert_eq!(Kvm::Untested.accelerator(), Accelerator::Tcg);
    }
}
