//! What `start`, `run` and `pool` are told, and the working plan it becomes.

use std::{
    ffi::OsString,
    net::{IpAddr, SocketAddr, SocketAddrV4},
    path::PathBuf,
    time::Duration,
};

use clap::{Args, ValueEnum};
use postern_launch::{Accelerator, Cpus, Machine, MemoryMib, Mitigations, PodShape, TeePlatform};
use postern_model::PodName;
use postern_sandbox::{
    Home, kvm, probe,
    supervisor::{Plan, TenantPlan, VmPlan, VsockChoice},
    tools::Tools,
};

use super::{Failure, Output};

/// Start a pod and wait until its owner can connect; it goes on in the background
#[derive(Debug, Clone, Args)]
#[group(id = "start")]
#[command(after_help = "Examples:\n  \
    postern-host start demo --image /usr/share/postern/image --init-data init-data.img --tee simulated\n  \
    postern-host start demo --image DIR --init-data FILE --tee simulated --listen 0.0.0.0:7443 --memory 1024\n\n\
    With --output json each stage is one line: {\"stage\":\"vmm\",\"millis\":90} and so on, the last one\n\
    {\"stage\":\"ready\",\"millis\":…,\"endpoint\":\"tcp://…\"} or {\"stage\":\"failed\",\"kind\":…,\"exit\":…,\"message\":…}.")]
pub(crate) struct Arguments {
    /// Name of the new pod
    name: PodName,
    /// The owner's init data, as a device image or as text
    #[arg(long, value_name = "FILE")]
    init_data: PathBuf,
    /// Image disk that `postern image pack` made, lent read-only to this pod; repeatable
    #[arg(long = "disk", value_name = "FILE")]
    disks: Vec<PathBuf>,
    #[command(flatten)]
    vm: VmArguments,
    /// How long the guest may take to answer, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    deadline: u64,
    /// Never take a VM that `postern-host pool` keeps ready
    #[arg(long)]
    pub(super) no_pool: bool,
    /// How progress is printed
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub(super) output: Output,
}

/// A VM, whoever's it will be.
#[derive(Debug, Clone, Args)]
#[group(id = "vm")]
pub(super) struct VmArguments {
    /// Directory with the guest image (image.json and its files)
    #[arg(long, value_name = "DIR")]
    image: PathBuf,
    /// Platform that signs the guest's evidence. `simulated` protects nothing
    #[arg(long, value_name = "PLATFORM")]
    tee: TeePlatform,
    /// QEMU's machine type: microvm or q35
    #[arg(long, default_value_t = Machine::Microvm)]
    machine: Machine,
    /// QEMU's accelerator; `auto` is KVM where a guest is known to have booted under it
    #[arg(long, value_enum, default_value_t = AccelChoice::Auto)]
    accel: AccelChoice,
    /// Virtual CPUs
    #[arg(long, default_value = "2")]
    cpus: Cpus,
    /// Memory in MiB
    #[arg(long, value_name = "MIB", default_value = "512")]
    memory: MemoryMib,
    /// Frequency of the time stamp counter, for TCG; part of the measurement [default: measured, once per boot of this host]
    #[arg(long, value_name = "KHZ", value_parser = clap::value_parser!(u32).range(100_000..))]
    tsc_khz: Option<u32>,
    /// Whether the guest's kernel works around the CPU's leaks: on or off; part of the measurement, the owner's choice
    #[arg(long, value_name = "ON|OFF", default_value_t = Mitigations::On)]
    mitigations: Mitigations,
    /// IPv4 address and port on which the owner reaches the pod; port 0 is any free one
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:0", value_parser = parse_listen)]
    listen: SocketAddrV4,
    /// Device for the guest's vsock
    #[arg(long, value_enum, default_value_t = Vsock::Auto)]
    vsock: Vsock,
    /// QEMU to use [default: qemu-system-x86_64 in PATH]
    #[arg(long, value_name = "PATH")]
    qemu: Option<PathBuf>,
    /// vhost-device-vsock to use [default: beside this program, in its libexec, in PATH]
    #[arg(long, value_name = "PATH")]
    vsock_helper: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum AccelChoice {
    Auto,
    Tcg,
    Kvm,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Vsock {
    /// A user-space device if its program is installed, else the kernel's.
    Auto,
    /// The user-space device, vhost-device-vsock.
    VhostUser,
    /// The kernel's, /dev/vhost-vsock.
    Kernel,
}

fn parse_listen(text: &str) -> Result<SocketAddrV4, String> {
    match text.parse::<SocketAddr>() {
        Ok(SocketAddr::V4(address)) => Ok(address),
        Ok(SocketAddr::V6(_)) => Err("QEMU's user network forwards IPv4 addresses only".into()),
        Err(_) if text.parse::<IpAddr>().is_ok() => Err("the port is missing; port 0 is any free one".into()),
        Err(_) => Err("not of the form ADDRESS:PORT with an IPv4 address, such as 127.0.0.1:0".into()),
    }
}

impl Arguments {
    /// Decides what was left open.
    pub(super) async fn plan(&self, home: &Home) -> Result<Plan, Failure> {
        let deadline = Duration::from_secs(self.deadline);
        let tenant = TenantPlan { name: self.name.clone(), init_data: self.init_data.clone(), deadline };
        let vm = VmPlan { disks: self.disks.clone(), ..self.vm.plan(home).await? };
        Ok(Plan { vm, tenant })
    }
}

impl VmArguments {
    /// Decides what was left open.
    pub(super) async fn plan(&self, home: &Home) -> Result<VmPlan, Failure> {
        let tools = Tools { qemu: self.qemu.clone(), vsock_helper: self.vsock_helper.clone() };
        let accelerator = match self.accel {
            AccelChoice::Tcg => Accelerator::Tcg,
            AccelChoice::Kvm => Accelerator::Kvm,
            AccelChoice::Auto => {
                kvm::known(home, &probe::qemu_version(home, &tools.qemu()?).await?).accelerator()
            }
        };
        let tsc_khz = match (accelerator, self.tsc_khz) {
            (Accelerator::Tcg, None) => Some(probe::tsc_khz(home)),
            (Accelerator::Tcg, given) => given,
            // A guest under KVM asks its hypervisor.
            (Accelerator::Kvm, _) => None,
        };
        Ok(VmPlan {
            image_dir: self.image.clone(),
            shape: PodShape {
                machine: self.machine,
                accelerator,
                cpus: self.cpus,
                memory_mib: self.memory,
                tsc_khz,
                tee: self.tee,
                mitigations: self.mitigations,
            },
            listen: self.listen,
            vsock: match self.vsock {
                Vsock::Auto => VsockChoice::Auto,
                Vsock::VhostUser => VsockChoice::VhostUser,
                Vsock::Kernel => VsockChoice::Kernel,
            },
            disks: Vec::new(),
            tools,
        })
    }
}

/// The command line on which another process carries out `plan`, after `run`.
pub(super) fn to_command_line(plan: &Plan) -> Vec<OsString> {
    let Plan { vm, tenant } = plan;
    let mut line: Vec<OsString> = vec![tenant.name.as_str().into()];
    let mut option = |name: &str, value: OsString| line.extend([name.into(), value]);
    option("--init-data", tenant.init_data.clone().into());
    option("--deadline", tenant.deadline.as_secs().to_string().into());
    for disk in &vm.disks {
        option("--disk", disk.clone().into());
    }
    line.extend(vm_to_command_line(vm));
    line
}

/// The same of a VM, after `shell`.
pub(super) fn vm_to_command_line(plan: &VmPlan) -> Vec<OsString> {
    let mut line = Vec::new();
    let mut option = |name: &str, value: OsString| line.extend([name.into(), value]);
    let text = |value: &dyn ToString| OsString::from(value.to_string());
    option("--image", plan.image_dir.clone().into());
    option("--tee", text(&plan.shape.tee));
    option("--machine", text(&plan.shape.machine));
    option("--accel", text(&plan.shape.accelerator));
    option("--cpus", text(&plan.shape.cpus));
    option("--memory", text(&plan.shape.memory_mib));
    if let Some(khz) = plan.shape.tsc_khz {
        option("--tsc-khz", text(&khz));
    }
    option("--mitigations", text(&plan.shape.mitigations));
    option("--listen", text(&plan.listen));
    let vsock = match plan.vsock {
        VsockChoice::Auto => "auto",
        VsockChoice::VhostUser => "vhost-user",
        VsockChoice::Kernel => "kernel",
    };
    option("--vsock", vsock.into());
    for (name, tool) in [("--qemu", &plan.tools.qemu), ("--vsock-helper", &plan.tools.vsock_helper)] {
        if let Some(path) = tool {
            option(name, path.clone().into());
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_or_explained() {
        assert_eq!(parse_listen("127.0.0.1:0").unwrap().port(), 0);
        assert!(parse_listen("[::1]:80").unwrap_err().contains("IPv4"));
        assert!(parse_listen("127.0.0.1").unwrap_err().contains("port"));
        assert!(parse_listen("localhost:80").is_err());
    }
}
