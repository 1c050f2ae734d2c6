//! The agent as PID 1 of a confidential guest. Whatever goes wrong here ends the guest: there is nobody to ask.

use std::{fs, net::Ipv4Addr, sync::Arc};

use anyhow::{Context, Result};
use postern_evidence::{
    EvidenceSource,
    collect::{ConfigfsTsm, Simulated},
};
use postern_launch::trust_domain;
use postern_model::sim_device;
use tokio_vsock::{VMADDR_CID_ANY, VMADDR_CID_HOST, VsockAddr, VsockListener};

use crate::{
    agent::{self, Place},
    config::{HOST_VSOCK_PORT, OWNER_PORT},
    host_api::HostListener,
    identity::Identity,
    init::{self, Booted, network::Netlink},
    runtime,
};

/// Word of the kernel's command line, which is measured, that says the platform is simulated.
const SIMULATED: &str = "postern.tee=simulated";
const CGROUP_ROOT: &str = "/sys/fs/cgroup";

/// Never returns: the end of the pod is the end of the machine.
pub fn run() -> ! {
    init::end_on_panic();
    let booted = init::boot().unwrap_or_else(|error| init::fail(&error));
    let served = serve(booted);
    if let Err(error) = served {
        // Nothing of an owner is in these texts: they name our own steps, digests and the kernel's answers.
        init::give_up(&format!("{error:#}"));
    }
    init::poweroff();
}

fn serve(booted: Booted) -> Result<()> {
    let Booted { init_data_device, cgroup_root, data_dir, mut stamps } = booted;
    let command_line = fs::read_to_string("/proc/cmdline").context("reading the kernel's command line")?;
    let evidence = evidence_source(&command_line)?;
    let identity = Identity::establish(&init_data_device, evidence)?;
    // Whoever launched this guest: several owners never share a kernel that does not keep them apart.
    trust_domain::admit(identity.init_data.owners(), trust_domain::mitigations(&command_line))?;
    drop(init_data_device);
    stamps.mark("identity");
    let cgroup_parent = cgroup_root.strip_prefix(CGROUP_ROOT).unwrap_or(&cgroup_root);
    runtime::build()?.block_on(async {
        let place = Place {
            data_dir,
            program: "/proc/self/exe".into(),
            cgroup_parent: cgroup_parent.to_string_lossy().into_owned(),
            owner_listen: (Ipv4Addr::UNSPECIFIED, OWNER_PORT).into(),
            network: Arc::new(Netlink::default()),
            rereadable: false,
            settle: init::settle,
            stamps,
        };
        let listener = VsockListener::bind(VsockAddr::new(VMADDR_CID_ANY, HOST_VSOCK_PORT));
        let host = HostListener::Vsock(listener.context("listening for the host on vsock")?);
        agent::serve(place, identity, host, |_, stamps| {
            init::boot_timeline(stamps);
            init::phase("serving");
            Ok(())
        })
        .await
    })
}

fn evidence_source(command_line: &str) -> Result<Arc<dyn EvidenceSource>> {
    Ok(match command_line.split_whitespace().any(|word| word == SIMULATED) {
        true => Arc::new(Simulated::vsock(VMADDR_CID_HOST, sim_device::VSOCK_PORT)?),
        false => Arc::new(ConfigfsTsm::open()?),
    })
}
