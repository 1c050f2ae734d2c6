//! QEMU's arguments, by golden files and by their inverse.
//!
//! A golden file changes only on purpose: review its diff, then run with `UPDATE_GOLDEN=1`.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests, which clippy does not see as tests

use std::{fs, net::SocketAddrV4, path::Path};

use postern_launch::{
    Accelerator, Cpus, Disk, ImageManifest, LaunchSpec, Launched, MAX_DISKS, Machine, MemoryMib, Mitigations,
    Network, ParseArgsError, PodShape, SpecError, TeePlatform, Vsock, Wiring, expected_measurement,
    image::ImageFile, launch_digest, parse_qemu_args, trust_domain,
};
use postern_model::Sha256;
use proptest::prelude::*;

fn image() -> ImageManifest {
    let file = |file: &str, byte| ImageFile { file: file.into(), sha256: Sha256::new([byte; 32]), size: 1 };
    ImageManifest {
        format: 1,
        kernel: file("vmlinuz", 1),
        initramfs: file("initramfs.cpio", 2),
        cmdline: "console=ttyS0 quiet reboot=t".into(),
        agent_version: "0.1.0".into(),
        kernel_release: "6.1.0".into(),
        kernel_profile: None,
    }
}

fn shape(machine: Machine, accelerator: Accelerator) -> PodShape {
    PodShape {
        machine,
        accelerator,
        cpus: Cpus::new(2).unwrap(),
        memory_mib: MemoryMib::new(512).unwrap(),
        tsc_khz: (accelerator == Accelerator::Tcg).then_some(2_900_000),
        tee: TeePlatform::Simulated,
        mitigations: Mitigations::On,
    }
}

fn wiring(vsock: Vsock) -> Wiring {
    Wiring {
        qmp_socket: "qmp.sock".into(),
        init_data_device: "init-data.img".into(),
        disks: Vec::new(),
        vsock,
        network: Network::User { listen: SocketAddrV4::new([127, 0, 0, 1].into(), 0) },
    }
}

fn vhost_user() -> Vsock {
    Vsock::VhostUser { socket: "vhost-user.sock".into() }
}

fn spec(shape: &PodShape, wiring: Wiring) -> LaunchSpec {
    LaunchSpec::new(&image(), Path::new("/srv/image"), shape, wiring).unwrap()
}

fn assert_golden(name: &str, args: &[String]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    let rendered = args.join("\n") + "\n";
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, &rendered).unwrap();
    }
    let golden = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(rendered, golden, "{name} differs");
}

#[test]
fn arguments_are_the_golden_ones() {
    for (name, machine, accelerator, vsock) in [
        ("microvm-tcg-vhost-user.args", Machine::Microvm, Accelerator::Tcg, vhost_user()),
        ("microvm-kvm-kernel.args", Machine::Microvm, Accelerator::Kvm, Vsock::Kernel { cid: 4711 }),
        ("q35-tcg-vhost-user.args", Machine::Q35, Accelerator::Tcg, vhost_user()),
        ("q35-kvm-kernel.args", Machine::Q35, Accelerator::Kvm, Vsock::Kernel { cid: 4711 }),
    ] {
        assert_golden(name, &spec(&shape(machine, accelerator), wiring(vsock)).qemu_args());
    }
}

#[test]
fn a_kernel_without_acpi_is_told_where_its_devices_are() {
    let image = ImageManifest { cmdline: "quiet acpi=off".into(), ..image() };
    let of = |machine, accelerator| {
        LaunchSpec::new(&image, Path::new("/srv/image"), &shape(machine, accelerator), wiring(vhost_user()))
    };
    let spec = of(Machine::Microvm, Accelerator::Tcg).unwrap();
    assert_golden("microvm-tcg-without-acpi.args", &spec.qemu_args());
    let read = launched(&spec.qemu_args());
    assert_eq!(
        launch_digest(&read.measured(image.kernel.sha256, image.initramfs.sha256)),
        spec.expected_measurement()
    );
    assert!(of(Machine::Microvm, Accelerator::Kvm).unwrap().cmdline().contains("512@0xfeb00e00:12"));
    // There is no other machine for it.
    for accelerator in Accelerator::ALL {
        assert_eq!(of(Machine::Q35, *accelerator), Err(SpecError::MicrovmOnly));
    }
    // A word that only resembles it says nothing.
    assert!(ImageManifest { cmdline: "xacpi=off acpi=off2".into(), ..image }.uses_acpi());
}

#[test]
fn a_microvm_under_tcg_needs_the_frequency() {
    let mut shape = shape(Machine::Microvm, Accelerator::Tcg);
    shape.tsc_khz = None;
    let refused = LaunchSpec::new(&image(), Path::new("/"), &shape, wiring(vhost_user()));
    assert_eq!(refused, Err(SpecError::TscFrequency));
    shape.machine = Machine::Q35;
    assert!(!spec(&shape, wiring(vhost_user())).cmdline().contains("tsc"));
}

#[test]
fn mitigations_are_in_the_measured_command_line_and_nowhere_else() {
    let on = shape(Machine::Microvm, Accelerator::Tcg);
    let off = PodShape { mitigations: Mitigations::Off, ..on };
    let (with, without) = (spec(&on, wiring(vhost_user())), spec(&off, wiring(vhost_user())));
    assert_eq!(trust_domain::mitigations(with.cmdline()), Mitigations::On);
    assert_eq!(trust_domain::mitigations(without.cmdline()), Mitigations::Off);
    assert_ne!(with.expected_measurement(), without.expected_measurement());
    let changed = |a: Vec<String>, b: Vec<String>| a.into_iter().zip(b).filter(|(a, b)| a != b).count();
    assert_eq!(changed(with.qemu_args(), without.qemu_args()), 1);

    // A host that adds or removes it launches something that measures as something else.
    let measured = |args: &[String]| {
        launch_digest(&launched(args).measured(image().kernel.sha256, image().initramfs.sha256))
    };
    for (honest, from, to) in
        [(&with, "postern.tee", "mitigations=off postern.tee"), (&without, "mitigations=off ", "")]
    {
        let mut args = honest.qemu_args();
        assert_eq!(measured(&args), honest.expected_measurement());
        let cmdline = args.iter().position(|arg| arg == "-append").unwrap() + 1;
        args[cmdline] = args[cmdline].replace(from, to);
        assert_ne!(measured(&args), honest.expected_measurement());
    }
}

#[test]
fn a_shape_from_before_there_was_a_choice_has_mitigations() {
    let on = shape(Machine::Microvm, Accelerator::Tcg);
    let text = serde_json::to_string(&on).unwrap();
    assert!(!text.contains("mitigations"), "{text}");
    assert_eq!(serde_json::from_str::<PodShape>(&text).unwrap(), on);
    let off = PodShape { mitigations: Mitigations::Off, ..on };
    let text = serde_json::to_string(&off).unwrap();
    assert!(text.contains("\"mitigations\":\"off\""), "{text}");
    assert_eq!(serde_json::from_str::<PodShape>(&text).unwrap(), off);
}

#[test]
fn a_comma_in_a_path_stays_in_the_path() {
    let mut wiring = wiring(Vsock::VhostUser { socket: "a,b.sock".into() });
    wiring.init_data_device = "x,read-only=off".into();
    let args = spec(&shape(Machine::Microvm, Accelerator::Tcg), wiring).qemu_args();
    assert!(args.contains(&"socket,id=vsock,path=a,,b.sock".to_owned()));
    assert!(args.iter().any(|arg| arg.ends_with("filename=x,,read-only=off")));
}

#[test]
fn image_disks_are_read_only_and_not_measured() {
    let disk = |number: usize| Disk { file: format!("/srv/a,{number}").into(), serial: "0123456789".into() };
    let shape = shape(Machine::Microvm, Accelerator::Tcg);
    let with = |count: usize| Wiring { disks: (0..count).map(disk).collect(), ..wiring(vhost_user()) };
    let one = spec(&shape, with(1));
    assert_golden("microvm-tcg-disk.args", &one.qemu_args());
    assert_eq!(one.expected_measurement(), expected_measurement(&image(), &shape));
    assert_eq!(launched(&one.qemu_args()).cmdline, one.cmdline());
    for machine in Machine::ALL {
        let all = spec(&PodShape { machine: *machine, ..shape }, with(MAX_DISKS)).qemu_args();
        assert!(launched(&all).cmdline.contains("quiet"));
        let blockdevs = all.iter().filter(|arg| arg.starts_with("driver="));
        assert!(blockdevs.clone().count() == 2 + 2 * MAX_DISKS);
        assert!(blockdevs.clone().all(|arg| arg.contains("read-only=on")));
    }
    let refused = LaunchSpec::new(&image(), Path::new("/"), &shape, with(MAX_DISKS + 1));
    assert_eq!(refused, Err(SpecError::Disks(MAX_DISKS + 1)));
}

fn launched(args: &[String]) -> Launched {
    parse_qemu_args(args).unwrap()
}

#[test]
fn options_that_could_change_the_guest_unseen_are_refused() {
    let honest = spec(&shape(Machine::Microvm, Accelerator::Tcg), wiring(vhost_user())).qemu_args();
    let with = |more: &[&str]| {
        let mut args = honest.clone();
        args.extend(more.iter().map(|&arg| arg.to_owned()));
        parse_qemu_args(&args)
    };
    assert!(with(&["-S"]).is_ok());
    assert_eq!(with(&["-append", "init=/bin/sh"]), Err(ParseArgsError::Repeated("-append")));
    assert_eq!(with(&["-kernel"]), Err(ParseArgsError::NoValue("-kernel")));
    for unknown in ["-bios", "-fw_cfg", "-dtb", "-gdb", "-drive", "-readconfig", "-set", "-global", "stray"] {
        assert_eq!(with(&[unknown, "x"]), Err(ParseArgsError::UnknownOption(unknown.into())));
    }
    for (option, value) in [
        ("-device", "loader,file=evil,addr=0x1000000"),
        ("-object", "memory-backend-file,id=x,mem-path=/x,size=1M"),
        ("-chardev", "file,id=x,path=/etc/passwd"),
    ] {
        assert_eq!(with(&[option, value]), Err(ParseArgsError::Value { option, value: value.into() }));
    }
}

#[test]
fn values_no_launch_has_are_refused() {
    let honest = spec(&shape(Machine::Microvm, Accelerator::Tcg), wiring(vhost_user())).qemu_args();
    for (option, value) in [
        ("-machine", "pc,memory-backend=mem0"),
        ("-machine", "microvm,dumpdtb=x"),
        ("-smp", "+2"),
        ("-smp", "2,maxcpus=4"),
        ("-smp", "0"),
        ("-cpu", "max,-rdrand"),
    ] {
        let mut args = honest.clone();
        let at = args.iter().position(|arg| arg == option).unwrap();
        args[at + 1] = value.to_owned();
        assert!(matches!(parse_qemu_args(&args), Err(ParseArgsError::Value { .. })), "{option} {value}");
        args.drain(at..at + 2);
        assert_eq!(parse_qemu_args(&args), Err(ParseArgsError::Missing(option_name(option))));
    }
    let mut args = honest;
    let at = args.iter().position(|arg| arg == "-accel").unwrap();
    args[at + 1] = "qtest".into();
    assert!(matches!(parse_qemu_args(&args), Err(ParseArgsError::Value { .. })));
}

fn option_name(option: &str) -> &'static str {
    ["-machine", "-smp", "-cpu"].into_iter().find(|known| *known == option).unwrap()
}

fn any_shape() -> impl Strategy<Value = PodShape> {
    let machine = prop::sample::select(Machine::ALL);
    let accelerator = prop::sample::select(Accelerator::ALL);
    let mitigations = prop::sample::select(Mitigations::ALL);
    (machine, accelerator, 1u32..=255, 48u32..8192, 1u32.., mitigations).prop_map(
        |(machine, accelerator, cpus, memory, khz, mitigations)| PodShape {
            machine,
            accelerator,
            cpus: Cpus::new(cpus).unwrap(),
            memory_mib: MemoryMib::new(memory).unwrap(),
            tsc_khz: Some(khz),
            tee: TeePlatform::Simulated,
            mitigations,
        },
    )
}

proptest! {
    #[test]
    fn parsing_inverts_rendering(shape in any_shape(), kernel in any::<bool>(), cmdline in "[ -~]{0,80}") {
        let image = ImageManifest { cmdline, ..image() };
        let vsock = if kernel { Vsock::Kernel { cid: 9 } } else { vhost_user() };
        let spec = LaunchSpec::new(&image, Path::new("/srv/a,b"), &shape, wiring(vsock)).unwrap();
        let launched = launched(&spec.qemu_args());
        prop_assert_eq!(&launched.kernel, Path::new("/srv/a,b/vmlinuz"));
        prop_assert_eq!(&launched.initramfs, Path::new("/srv/a,b/initramfs.cpio"));
        prop_assert_eq!(&launched.cmdline, spec.cmdline());
        // What is measured of the running process is what the verifier expects.
        let measured = launched.measured(image.kernel.sha256, image.initramfs.sha256);
        prop_assert_eq!(launch_digest(&measured), expected_measurement(&image, &shape));
        prop_assert_eq!(spec.expected_measurement(), expected_measurement(&image, &shape));
    }

    #[test]
    fn any_arguments_are_answered(args in proptest::collection::vec("-?[a-zA-Z=,]{0,12}", 0..24)) {
        let _ = parse_qemu_args(&args);
    }
}
