//! CreateSandbox, DestroySandbox, OnlineCPUMem: the pod's frame, lent and taken back.

use std::net::IpAddr;

use postern_api::host;
use postern_model::{HostProvided, OperationKind, Verdict};
use postern_policy::Declared;

use super::{Admitted, Call, Status, decode, encoded, later, now};
use crate::pod::{HostId, PodError, SandboxConfig};

/// resolv.conf(5): the resolver looks at three.
const MAX_DNS_SERVERS: usize = 3;
/// Lines of a resolv.conf that a shim passes on.
const MAX_DNS_LINES: usize = 32;
/// `HOST_NAME_MAX` of Linux.
const MAX_HOST_NAME: usize = 64;
/// The one storage that a shim always asks for. The guest makes its own, so it is accepted and not mounted.
const SHM: (&str, &str, &str, &str) = ("ephemeral", "shm", "tmpfs", "/run/kata-containers/sandbox/shm");
/// More CPUs than any guest has.
const MAX_CPUS: u32 = 1024;

pub(super) fn create(call: &Call<'_>) -> Admitted {
    let wire: host::CreateSandboxRequest = decode(call.payload)?;
    let config = HostProvided::new(wire).check(sandbox_config)?;
    let permit = call.gate.permit(OperationKind::CreateSandbox, Declared::No)?;
    let pod = call.gate.pod.clone();
    later(Verdict::Allowed, async move {
        match pod.configure_sandbox(permit, config).await {
            Ok(()) => encoded(&host::Empty {}),
            // Two came at once, and the other was first.
            Err(PodError::Denied(_)) => Err(Status::CONFIGURED),
            Err(other) => Err(other.into()),
        }
    })
}

pub(super) fn destroy(call: &Call<'_>) -> Admitted {
    let permit = call.gate.permit(OperationKind::DestroySandbox, Declared::No)?;
    let pod = call.gate.pod.clone();
    later(Verdict::Allowed, async move {
        pod.destroy(permit).await?;
        encoded(&host::Empty {})
    })
}

/// CPUs and memory are part of the launch, so there is nothing to bring online; shims ask anyway.
pub(super) fn online(call: &Call<'_>) -> Admitted {
    let wire: host::OnlineCpuMemRequest = decode(call.payload)?;
    if wire.nb_cpus > MAX_CPUS {
        return Err(Status::invalid("nb_cpus is out of range").into());
    }
    let _permit = call.gate.permit(OperationKind::OnlineResources, Declared::No)?;
    now(Verdict::Sanitised, &host::Empty {})
}

fn sandbox_config(wire: host::CreateSandboxRequest) -> Result<SandboxConfig, Status> {
    if !wire.guest_hook_path.is_empty() {
        return Err(Status::invalid("guest_hook_path is not accepted"));
    }
    if !wire.kernel_modules.is_empty() {
        return Err(Status::invalid("kernel_modules are not accepted"));
    }
    if wire.sandbox_pidns {
        return Err(Status::invalid("sandbox_pidns is not accepted"));
    }
    if !wire.sandbox_id.is_empty() && HostId::new(&wire.sandbox_id).is_err() {
        return Err(Status::invalid("sandbox_id is not a container id"));
    }
    let is_shm = |s: &host::Storage| (&*s.driver, &*s.source, &*s.fstype, &*s.mount_point) == SHM;
    if wire.storages.len() > 1 || !wire.storages.iter().all(is_shm) {
        return Err(Status::invalid("storages other than the shared-memory tmpfs are not accepted"));
    }
    Ok(SandboxConfig { hostname: host_name(wire.hostname)?, dns: dns_servers(&wire.dns)? })
}

fn host_name(name: String) -> Result<Option<String>, Status> {
    if name.is_empty() {
        return Ok(None);
    }
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    match name.len() <= MAX_HOST_NAME && name.split('.').all(label) {
        true => Ok(Some(name)),
        false => Err(Status::invalid("hostname is not a name of RFC 1123")),
    }
}

/// Shims send either addresses or the lines of a resolv.conf, of which only the servers are taken.
fn dns_servers(lines: &[String]) -> Result<Vec<IpAddr>, Status> {
    const INVALID: Status = Status::invalid("dns is not up to three addresses of name servers");
    if lines.len() > MAX_DNS_LINES {
        return Err(INVALID);
    }
    let mut servers = Vec::new();
    for line in lines {
        let mut words = line.split_ascii_whitespace();
        let address = match words.next() {
            None | Some("search" | "domain" | "options" | "sortlist") => continue,
            Some(comment) if comment.starts_with(['#', ';']) => continue,
            Some("nameserver") => words.next().ok_or(INVALID)?,
            Some(address) => address,
        };
        let address: IpAddr = address.parse().map_err(|_| INVALID)?;
        let canonical = address.to_canonical();
        if words.next().is_some()
            || canonical.is_loopback()
            || canonical.is_multicast()
            || canonical.is_unspecified()
            || servers.len() == MAX_DNS_SERVERS
        {
            return Err(INVALID);
        }
        servers.push(address);
    }
    Ok(servers)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shm() -> host::Storage {
        let (driver, source, fstype, mount_point) = SHM;
        host::Storage {
            driver: driver.into(),
            source: source.into(),
            fstype: fstype.into(),
            mount_point: mount_point.into(),
        }
    }

    fn request(change: impl FnOnce(&mut host::CreateSandboxRequest)) -> Result<SandboxConfig, Status> {
        let mut wire = host::CreateSandboxRequest {
            hostname: "demo".into(),
            dns: vec!["10.0.2.3".into()],
            storages: vec![shm()],
            sandbox_id: "a".repeat(64),
            ..Default::default()
        };
        change(&mut wire);
        HostProvided::new(wire).check(sandbox_config)
    }

    #[test]
    fn takes_what_a_shim_sends() {
        let config = request(|_| {}).unwrap();
        assert_eq!(config.hostname.as_deref(), Some("demo"));
        assert_eq!(config.dns, ["10.0.2.3".parse::<IpAddr>().unwrap()]);
        assert_eq!(request(|r| *r = host::CreateSandboxRequest::default()), Ok(SandboxConfig::default()));
    }

    #[test]
    fn takes_name_servers_out_of_a_resolv_conf() {
        let lines =
            ["# made by kubelet", "search a.svc b.svc", "nameserver 10.96.0.10", "", "options ndots:5"];
        let config = request(|r| r.dns = lines.map(String::from).to_vec()).unwrap();
        assert_eq!(config.dns, ["10.96.0.10".parse::<IpAddr>().unwrap()]);
    }

    #[test]
    fn refuses_hooks_modules_and_namespaces() {
        assert!(request(|r| r.guest_hook_path = "/run/h".into()).is_err());
        assert!(request(|r| r.kernel_modules.push(host::KernelModule { name: "-C".into() })).is_err());
        assert!(request(|r| r.sandbox_pidns = true).is_err());
    }

    #[test]
    fn refuses_every_other_storage() {
        for path in [
            "/etc",
            "/proc",
            "/dev",
            "/usr/bin",
            "/run",
            "/",
            "/run/tls-keys",
            "/run/kata-containers/sandbox/shm/..",
        ] {
            assert!(request(|r| r.storages[0].mount_point = path.into()).is_err(), "{path}");
        }
        for driver in
            ["blk", "scsi", "mmioblk", "nvdimm", "virtio-fs", "overlayfs", "local", "watchable-bind", ""]
        {
            assert!(request(|r| r.storages[0].driver = driver.into()).is_err(), "{driver}");
        }
        assert!(request(|r| r.storages.push(shm())).is_err());
    }

    #[test]
    fn refuses_names_and_servers_that_are_none() {
        for name in ["-a", "a-", "a..b", ".", "a b", "a/b", "a\nb", &"x".repeat(65), &"x".repeat(64)] {
            assert!(request(|r| r.hostname = name.into()).is_err(), "{name:?}");
        }
        assert!(request(|r| r.hostname = "web-0.demo.svc".into()).is_ok());
        for server in [
            "x",
            "127.0.0.1",
            "::1",
            "::ffff:127.0.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "10.0.0.1 10.0.0.2",
            "nameserver",
        ] {
            assert!(request(|r| r.dns = vec![server.into()]).is_err(), "{server:?}");
        }
        assert!(request(|r| r.dns = vec!["10.0.0.1".into(); 4]).is_err());
        assert!(request(|r| r.dns = vec![String::new(); 33]).is_err());
        assert!(request(|r| r.sandbox_id = "../x".into()).is_err());
    }

    proptest! {
        #[test]
        fn no_body_panics(body in prop::collection::vec(any::<u8>(), 0..256)) {
            if let Ok(wire) = decode(&body) {
                let _ = sandbox_config(wire);
            }
        }
    }
}
