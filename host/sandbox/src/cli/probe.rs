//! `probe`: what this host can offer, for whoever describes a pod.

use std::path::PathBuf;

use clap::Args;
use postern_launch::Machine;
use postern_sandbox::{Home, kvm, probe, supervisor::simulated_root, tools::Tools};
use serde::Serialize;

use super::{Failure, Output, print, print_json};

/// Show what this host can offer a pod
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  postern-host probe\n  \
    postern-host probe --image DIR    also boots a guest to find out whether KVM works, once per kernel and QEMU")]
pub(super) struct Arguments {
    /// Image to boot under KVM if nobody has tried yet
    #[arg(long, value_name = "DIR")]
    image: Option<PathBuf>,
    /// QEMU to use [default: qemu-system-x86_64 in PATH]
    #[arg(long, value_name = "PATH")]
    qemu: Option<PathBuf>,
    /// vhost-device-vsock to use [default: beside this program, in its libexec, in PATH]
    #[arg(long, value_name = "PATH")]
    vsock_helper: Option<PathBuf>,
    /// How the result is printed
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Serialize)]
struct Offer {
    accelerator: String,
    accelerator_reason: String,
    tsc_khz: u32,
    vsock: &'static str,
    machine: String,
    qemu_version: String,
    qemu: PathBuf,
    simulated_root: PathBuf,
}

pub(super) async fn run(home: &Home, arguments: Arguments) -> Result<(), Failure> {
    let tools = Tools { qemu: arguments.qemu, vsock_helper: arguments.vsock_helper };
    let qemu = tools.qemu()?;
    let qemu_version = probe::qemu_version(home, &qemu).await?;
    let vsock = match tools.vsock_helper() {
        Ok(_) => "vhost-user",
        Err(_) if probe::has_kernel_vsock() => "kernel",
        Err(error) => return Err(error.into()),
    };
    home.prepare()?;
    let simulated_root = simulated_root(&home.simulated_platform())?;
    let kvm = match &arguments.image {
        Some(image) => kvm::find_out(home, &qemu_version, image, &tools).await,
        None => kvm::known(home, &qemu_version),
    };
    let offer = Offer {
        accelerator: kvm.accelerator().to_string(),
        accelerator_reason: kvm.reason().to_owned(),
        tsc_khz: probe::tsc_khz(home),
        vsock,
        machine: Machine::Microvm.to_string(),
        qemu_version,
        qemu,
        simulated_root,
    };
    match arguments.output {
        Output::Json => print_json(&offer),
        Output::Text => print(&format!(
            "accelerator     {} ({})\nmachine         {}\nvsock           {}\nTSC             {} kHz\n\
             QEMU            {} ({})\nsimulated root  {}\n",
            offer.accelerator,
            offer.accelerator_reason,
            offer.machine,
            offer.vsock,
            offer.tsc_khz,
            offer.qemu_version,
            offer.qemu.display(),
            offer.simulated_root.display(),
        )),
    }
}
