//! QEMU's arguments read back: what a running QEMU was really told to boot.
//!
//! Accepts what [`crate::LaunchSpec`] renders and nothing else. An option it does not know could put something into the
//! guest that is not measured (`-device loader`, `-fw_cfg`, `-bios`), so an unknown option is an error, not a detail.

use std::path::PathBuf;

use postern_model::Sha256;

use crate::{measure::MeasuredLaunch, shape::Machine, spec::EMULATED_CPU};

/// Arguments that are not those of a launch that can be measured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseArgsError {
    #[error("QEMU option {0:?} is none that a measured launch has")]
    UnknownOption(String),
    #[error("QEMU option {0} has no value")]
    NoValue(&'static str),
    #[error("QEMU option {0} is given twice")]
    Repeated(&'static str),
    #[error("QEMU option {0} is missing")]
    Missing(&'static str),
    #[error("QEMU option {option} has value {value:?}, which no measured launch has")]
    Value { option: &'static str, value: String },
}

/// What QEMU was told to boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launched {
    pub kernel: PathBuf,
    pub initramfs: PathBuf,
    pub cmdline: String,
    pub cpu_model: String,
    pub vcpus: u32,
    pub machine: String,
}

impl Launched {
    /// What is measured, once the two files have been digested.
    pub fn measured(&self, kernel: Sha256, initramfs: Sha256) -> MeasuredLaunch {
        MeasuredLaunch {
            kernel,
            initramfs,
            cmdline: self.cmdline.clone(),
            cpu_model: self.cpu_model.clone(),
            vcpus: self.vcpus,
            machine: self.machine.clone(),
        }
    }
}

const FLAGS: [&str; 4] = ["-nodefaults", "-no-user-config", "-no-reboot", "-S"];
const MACHINE_KEYS: [&str; 11] = [
    "acpi",
    "rtc",
    "pit",
    "pic",
    "auto-kernel-cmdline",
    "i8042",
    "sata",
    "smbus",
    "usb",
    "vmport",
    "memory-backend",
];
const DEVICES: [&str; 8] = [
    "virtio-blk-device",
    "virtio-blk-pci",
    "virtio-net-device",
    "virtio-net-pci",
    "vhost-vsock-device",
    "vhost-vsock-pci",
    "vhost-user-vsock-device",
    "vhost-user-vsock-pci",
];

/// Options with a value that leave the guest's first memory contents alone, with the drivers they may name.
const UNMEASURED: [(&str, &[&str]); 11] = [
    ("-accel", &["tcg", "kvm"]),
    ("-display", &["none"]),
    ("-sandbox", &["on"]),
    ("-m", &[]),
    ("-object", &["memory-backend-memfd"]),
    ("-chardev", &["stdio", "socket"]),
    ("-serial", &["chardev:console"]),
    ("-mon", &["chardev=qmp"]),
    ("-blockdev", &["driver=file", "driver=raw"]),
    ("-netdev", &["user"]),
    ("-device", &DEVICES),
];

/// Reads QEMU's arguments, without the program's name.
pub fn parse(args: &[String]) -> Result<Launched, ParseArgsError> {
    let mut machine = Once::new("-machine");
    let mut cpu = Once::new("-cpu");
    let mut smp = Once::new("-smp");
    let mut kernel = Once::new("-kernel");
    let mut initramfs = Once::new("-initrd");
    let mut cmdline = Once::new("-append");
    let mut args = args.iter().map(String::as_str);
    while let Some(option) = args.next() {
        if FLAGS.contains(&option) {
            continue;
        }
        let measured = [&mut machine, &mut cpu, &mut smp, &mut kernel, &mut initramfs, &mut cmdline];
        if let Some(once) = measured.into_iter().find(|once| once.option == option) {
            once.set(args.next())?;
        } else if let Some((option, drivers)) = UNMEASURED.iter().find(|(known, _)| *known == option) {
            let value = args.next().ok_or(ParseArgsError::NoValue(option))?;
            let driver = value.split(',').next().unwrap_or_default();
            if !drivers.is_empty() && !drivers.contains(&driver) {
                return Err(ParseArgsError::Value { option, value: value.to_owned() });
            }
        } else {
            return Err(ParseArgsError::UnknownOption(option.to_owned()));
        }
    }
    let (smp, cpu) = (smp.value()?, cpu.value()?);
    if cpu.contains(',') && cpu != EMULATED_CPU {
        return Err(ParseArgsError::Value { option: "-cpu", value: cpu.to_owned() });
    }
    Ok(Launched {
        kernel: kernel.value()?.into(),
        initramfs: initramfs.value()?.into(),
        cmdline: cmdline.value()?.to_owned(),
        cpu_model: cpu.to_owned(),
        vcpus: parse_vcpus(smp)
            .ok_or_else(|| ParseArgsError::Value { option: "-smp", value: smp.to_owned() })?,
        machine: parse_machine(machine.value()?)?,
    })
}

fn parse_vcpus(text: &str) -> Option<u32> {
    let vcpus: u32 = text.parse().ok()?;
    (crate::Cpus::new(vcpus).is_ok() && vcpus.to_string() == text).then_some(vcpus)
}

fn parse_machine(value: &str) -> Result<String, ParseArgsError> {
    let refuse = || ParseArgsError::Value { option: "-machine", value: value.to_owned() };
    let mut parts = value.split(',');
    let machine: Machine = parts.next().unwrap_or_default().parse().map_err(|_| refuse())?;
    let known = |part: &str| part.split_once('=').is_some_and(|(key, _)| MACHINE_KEYS.contains(&key));
    match parts.all(known) {
        true => Ok(machine.as_str().to_owned()),
        false => Err(refuse()),
    }
}

/// An option that must be given exactly once.
struct Once<'a> {
    option: &'static str,
    value: Option<&'a str>,
}

impl<'a> Once<'a> {
    fn new(option: &'static str) -> Self {
        Self { option, value: None }
    }

    fn set(&mut self, value: Option<&'a str>) -> Result<(), ParseArgsError> {
        let value = value.ok_or(ParseArgsError::NoValue(self.option))?;
        match self.value.replace(value) {
            Some(_) => Err(ParseArgsError::Repeated(self.option)),
            None => Ok(()),
        }
    }

    fn value(&self) -> Result<&'a str, ParseArgsError> {
        self.value.ok_or(ParseArgsError::Missing(self.option))
    }
}
