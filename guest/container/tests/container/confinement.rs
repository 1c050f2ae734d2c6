//! What a container cannot do, each beside what it can.

use std::{fs, os::fd::AsFd, path::PathBuf};

use oci_spec::image::Config;
use postern_container::{CreateContainer, CreateError, Init, Stdio, spec};
use postern_model::container::{MountKind, MountSpec};

use crate::support::{Pod, config, image, name, process, script, wish, with_pod};

/// Both a container's init and a process executed in it.
async fn init_and_exec(pod: &Pod, what: &str) -> [String; 2] {
    let init = pod.run(script("init", what)).await;
    let id = pod.sleeper("exec").await;
    let exec = pod.exec(&id, &["sh", "-c", what]).await;
    [format!("{}{}", init.stdout, init.stderr), format!("{}{}", exec.stdout, exec.stderr)]
}

#[test]
fn capabilities_are_dockers_and_seccomp_is_on() {
    with_pod(|pod| async move {
        for status in init_and_exec(&pod, "cat /proc/self/status").await {
            for line in [
                "CapBnd:\t00000000a80425fb",
                "CapEff:\t00000000a80425fb",
                "CapPrm:\t00000000a80425fb",
                "CapInh:\t0000000000000000",
                "CapAmb:\t0000000000000000",
                "NoNewPrivs:\t1",
                "Seccomp:\t2",
                "Seccomp_filters:\t1",
            ] {
                assert!(status.contains(line), "{line} in {status}");
            }
        }
    });
}

#[test]
fn capabilities_can_be_dropped_and_added() {
    with_pod(|pod| async move {
        let mut spec = wish("a", &["sleep", "1000"]);
        spec.drop_capabilities = vec!["ALL".into()];
        spec.add_capabilities = vec!["NET_ADMIN".into()];
        let id = pod.sleeper_of(spec).await;
        let pid1 = pod.script(&id, "grep CapEff /proc/1/status; grep CapEff /proc/self/status").await;
        assert_eq!(pid1, "CapEff:\t0000000000001000\nCapEff:\t0000000000001000\n");
    });
}

#[test]
fn every_name_space_but_the_network_is_its_own() {
    with_pod(|pod| async move {
        for seen in init_and_exec(&pod, "ls -l /proc/self/ns | grep -v total").await {
            for space in ["mnt", "pid", "ipc", "uts", "cgroup"] {
                let ours = fs::read_link(format!("/proc/self/ns/{space}")).unwrap();
                assert!(seen.contains(&format!("{space}:[")), "{seen}");
                assert!(!seen.contains(ours.to_str().unwrap()), "{space}: {seen}");
            }
            let network = fs::read_link("/proc/self/ns/net").unwrap();
            assert!(seen.contains(network.to_str().unwrap()), "{seen}");
        }
    });
}

#[test]
fn paths_are_masked_and_read_only() {
    with_pod(|pod| async move {
        let check = "wc -c </proc/kcore; ls /sys/firmware | wc -l; wc -c </proc/timer_list; \
                     echo 1 >/proc/sys/kernel/printk || echo refused; echo b >/proc/sysrq-trigger || echo refused; \
                     touch /sys/x || echo refused; touch /proc/irq/x || echo refused; echo ok >/tmp/x; cat /tmp/x";
        for seen in init_and_exec(&pod, check).await {
            assert_eq!(seen.matches("refused").count(), 4, "{seen}");
            assert!(seen.starts_with("0\n0\n"), "{seen}");
            assert!(seen.contains("ok\n"), "{seen}");
        }
    });
}

#[test]
fn a_read_only_root_is_read_only() {
    with_pod(|pod| async move {
        let mut spec = script(
            "a",
            "touch /x || echo refused; touch /etc/hosts || echo refused; touch /tmp/x /data/y /scratch/z && echo written; \
             stat -c %a:%u /data",
        );
        spec.read_only_rootfs = true;
        spec.mounts = vec![
            MountSpec {
                destination: "/tmp".into(),
                kind: MountKind::Tmpfs { size: Some(1 << 20) },
                read_only: false,
            },
            MountSpec {
                destination: "/scratch".into(),
                kind: MountKind::Volume { name: name("s") },
                read_only: false,
            },
        ];
        let image = image(config().volumes(vec!["/data".to_owned()]).build().unwrap());
        let rootfs = pod.rootfs("a");
        fs::create_dir(rootfs.join("scratch")).unwrap();
        fs::create_dir(rootfs.join("data")).unwrap();
        fs::set_permissions(rootfs.join("data"), std::os::unix::fs::PermissionsExt::from_mode(0o750))
            .unwrap();
        std::os::unix::fs::chown(rootfs.join("data"), Some(33), Some(44)).unwrap();
        let oci = spec::build(&spec, &image, &pod.context(rootfs)).unwrap();
        let create =
            CreateContainer { id: name("a"), spec: oci, init: Init::Command, stdio: Stdio::OutputOnly };
        let created = pod.runtime.create(create).await.unwrap();
        pod.runtime.start(&name("a")).await.unwrap();
        let output = crate::support::collect(created).await;
        assert_eq!(output.stdout, "refused\nrefused\nwritten\n750:33\n", "{output:?}");
        assert!(pod.path("volumes/s/z").exists());
    });
}

#[test]
fn volumes_are_shared_and_outlive_containers() {
    with_pod(|pod| async move {
        let with_volume = |id: &str, what: &str, read_only| {
            let mut spec = script(id, what);
            let kind = MountKind::Volume { name: name("shared-data") };
            spec.mounts = vec![MountSpec { destination: "/data".into(), kind, read_only }];
            spec
        };
        assert!(pod.run(with_volume("a", "echo kept >/data/f", false)).await.status.success());
        pod.runtime.delete(&name("a")).await.unwrap();
        let output = pod.run(with_volume("b", "cat /data/f; touch /data/g || echo refused", true)).await;
        assert_eq!(output.stdout, "kept\nrefused\n");
    });
}

#[test]
fn the_pods_files_are_there() {
    with_pod(|pod| async move {
        let output = pod
            .run(script("a", "cat /etc/hosts /etc/hostname /etc/resolv.conf; ls /dev; ls -l /dev/fd"))
            .await;
        for line in [
            "# hosts of the pod",
            "# hostname of the pod",
            "# resolv.conf of the pod",
            "null",
            "urandom",
            "ptmx",
        ] {
            assert!(output.stdout.contains(line), "{line} in {output:?}");
        }
    });
}

#[test]
fn devices_are_not_to_be_had() {
    with_pod(|pod| async move {
        // The root may make nodes in docker's way of things; what it makes is of no use.
        let check = "mknod /tmp/disk b 254 0 && dd if=/tmp/disk of=/dev/null bs=1 count=1; \
                     mknod /tmp/kvm c 10 232 && cat /tmp/kvm; mknod /tmp/mem c 1 1 && dd if=/tmp/mem bs=1 count=1; \
                     echo end; head -c 4 /dev/zero | od -An -tx1; mknod /tmp/null c 1 3 && echo x >/tmp/null && echo fine";
        for seen in init_and_exec(&pod, check).await {
            assert_eq!(seen.matches("not permitted").count(), 3, "{seen}");
            assert!(seen.contains("00 00 00 00") && seen.contains("fine"), "{seen}");
        }
    });
}

#[test]
fn mounting_and_name_spaces_are_refused() {
    with_pod(|pod| async move {
        let check = "mount -t tmpfs none /tmp; umount /proc; unshare -m true; unshare -U true; unshare -n true; echo end";
        for seen in init_and_exec(&pod, check).await {
            let refusals = seen.matches("ermitted").count() + seen.matches("denied").count();
            assert!(refusals >= 5, "{seen}");
        }
    });
}

/// System calls that no shell can make, by this very test program, executed in the container.
#[test]
fn dangerous_calls_are_refused() {
    with_pod(|pod| async move {
        let rootfs = pod.rootfs("a");
        fs::copy(crate::support::probe_program(), rootfs.join("bin/probe")).unwrap();
        let spec = wish("a", &["probe"]);
        let oci = spec::build(&spec, &image(Config::default()), &pod.context(rootfs)).unwrap();
        let create =
            CreateContainer { id: name("a"), spec: oci, init: Init::Command, stdio: Stdio::OutputOnly };
        let created = pod.runtime.create(create).await.unwrap();
        pod.runtime.start(&name("a")).await.unwrap();
        let init = crate::support::collect(created).await;
        assert_eq!(init.stdout, EXPECTED, "{init:?}");

        let id = pod.sleeper("b").await;
        fs::copy(crate::support::probe_program(), pod.path("rootfs-b/bin/probe")).unwrap();
        let exec = pod.exec(&id, &["probe"]).await;
        assert_eq!(exec.stdout, EXPECTED, "{exec:?}");
    });
}

/// What the probe prints: call, and the error number or "ok".
const EXPECTED: &str = "\
socket AF_UNIX: ok
socket AF_INET: ok
socket AF_NETLINK: ok
socket AF_VSOCK: 97
socket AF_VSOCK with an ignored bit: 97
socket AF_ALG: 97
socketpair AF_UNIX: ok
io_uring_setup: 1
bpf: 1
perf_event_open: 1
userfaultfd: 1
keyctl: 1
kexec_load: 1
open_by_handle_at: 1
clone3: 38
clone NEWUSER: 1
clone NEWUSER with an ignored bit: 1
setns: 1
TIOCSTI: 1
TIOCSTI with an ignored bit: 1
TIOCGWINSZ: 25
personality: ok
unknown call: 38
x32 getpid: killed
i386 getpid: killed
";

#[test]
fn a_working_directory_cannot_lead_out() {
    with_pod(|pod| async move {
        let rootfs = pod.rootfs("a");
        std::os::unix::fs::symlink("/proc/self/fd/7", rootfs.join("trap")).unwrap();
        std::os::unix::fs::symlink("../../../../../..", rootfs.join("up")).unwrap();
        let build = |directory: &str| {
            let mut spec = wish("a", &["pwd"]);
            spec.working_dir = Some(PathBuf::from(directory));
            spec::build(&spec, &image(Config::default()), &pod.context(rootfs.clone()))
        };
        for directory in
            ["/proc/self/fd/7", "/proc/1/cwd", "/sys/x", "relative", "/a/../../b", "/trap", "/trap/x"]
        {
            assert!(build(directory).is_err(), "{directory}");
        }
        // A link that would climb ends at the root, as it would inside.
        let oci = build("/up/etc").unwrap();
        assert_eq!(oci.process().as_ref().unwrap().cwd(), &PathBuf::from("/etc"));
        let create =
            CreateContainer { id: name("a"), spec: oci, init: Init::Command, stdio: Stdio::OutputOnly };
        let created = pod.runtime.create(create).await.unwrap();
        pod.runtime.start(&name("a")).await.unwrap();
        assert_eq!(crate::support::collect(created).await.stdout, "/etc\n");
    });
}

#[test]
fn mounts_of_owners_stay_in_their_places() {
    with_pod(|pod| async move {
        let rootfs = pod.rootfs("a");
        let build = |destination: &str| {
            let mut spec = wish("a", &["true"]);
            let kind = MountKind::Tmpfs { size: None };
            spec.mounts = vec![MountSpec { destination: destination.into(), kind, read_only: false }];
            spec::build(&spec, &image(Config::default()), &pod.context(rootfs.clone()))
        };
        for destination in ["/", "/proc", "/proc/sys", "/sys/fs", "/dev", "relative", "/a/../proc", "/..", ""]
        {
            assert!(build(destination).is_err(), "{destination}");
        }
        assert!(build("/dev/shm").is_ok() && build("/cache").is_ok());

        // A link in the image under a mount's destination is followed within the root only.
        std::os::unix::fs::symlink("/../../../../tmp", rootfs.join("link")).unwrap();
        let oci = build("/link/deep").unwrap();
        let create = CreateContainer { id: name("a"), spec: oci, init: Init::Command, stdio: Stdio::Closed };
        let outside = PathBuf::from("/tmp/deep");
        assert!(!outside.exists());
        let _ = pod.runtime.create(create).await;
        assert!(!outside.exists());
    });
}

#[test]
fn a_weaker_specification_is_refused() {
    with_pod(|pod| async move {
        let rootfs = pod.rootfs("a");
        let good =
            spec::build(&wish("a", &["true"]), &image(Config::default()), &pod.context(rootfs)).unwrap();
        let mut weaker = vec![good.clone(); 5];
        weaker[0].linux_mut().as_mut().unwrap().set_seccomp(None);
        weaker[1].process_mut().as_mut().unwrap().set_no_new_privileges(Some(false));
        weaker[2].process_mut().as_mut().unwrap().set_capabilities(None);
        weaker[3].set_hooks(Some(oci_spec::runtime::Hooks::default()));
        let spaces = weaker[4].linux_mut().as_mut().unwrap();
        spaces.set_namespaces(Some(spaces.namespaces().clone().unwrap()[1..].to_vec()));
        for spec in weaker {
            let create = CreateContainer { id: name("a"), spec, init: Init::Command, stdio: Stdio::Closed };
            assert!(matches!(pod.runtime.create(create).await, Err(CreateError::Unconfined(_))));
        }
        let create = CreateContainer { id: name("a"), spec: good, init: Init::Command, stdio: Stdio::Closed };
        pod.runtime.create(create).await.unwrap();
    });
}

#[test]
fn the_workers_program_cannot_be_overwritten() {
    with_pod(|pod| async move {
        // What is executed is the runtime's own program, by way of /proc/self/exe, itself or as an interpreter; then
        // its file is opened for writing from beside it.
        let id = pod.sleeper("a").await;
        pod.script(&id, "printf '#!/proc/self/exe\n' >/bin/trap; chmod 755 /bin/trap").await;
        for program in ["/proc/self/exe", "/bin/trap"] {
            let held = process(&[program, "held"]);
            let held = pod.runtime.exec(&id, held, Stdio::Pipes).await.unwrap();
            let top = pod.runtime.top(&id).await.unwrap();
            let pid =
                top.iter().find(|line| line.command.last().is_some_and(|last| last == "held")).unwrap().pid;
            let attack = format!("echo broken >>/proc/{pid}/exe");
            assert!(!pod.exec(&id, &["sh", "-c", &attack]).await.status.success(), "{program}");
            drop(held);
        }
    });
}

#[test]
fn streams_are_all_that_is_open() {
    with_pod(|pod| async move {
        for seen in init_and_exec(
            &pod,
            "ls /proc/self/fd | tr '\\n' ' '; ls -l /proc/1/fd | grep -c -v -E 'pipe|total' || true",
        )
        .await
        {
            // 3 is the directory being listed.
            assert!(seen.starts_with("0 1 2 3 "), "{seen}");
        }
        let id = pod.sleeper("c").await;
        let created = pod.runtime.exec(&id, process(&["sleep", "1000"]), Stdio::Pipes).await.unwrap();
        assert_eq!(fs::read_dir(format!("/proc/{}/fd", created.process.pid())).unwrap().count(), 3);
        let pid = rustix::process::Pid::from_raw(created.process.pid().cast_signed()).unwrap();
        let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
        assert!(pidfd.as_fd().try_clone_to_owned().is_ok());
    });
}
