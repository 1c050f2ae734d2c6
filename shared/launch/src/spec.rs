//! One launch, from which both QEMU's arguments and the expected measurement are rendered; nothing else computes either.

use std::{
    net::SocketAddrV4,
    path::{Path, PathBuf},
};

use postern_model::Measurement;

use crate::{
    image::ImageManifest,
    measure::{MeasuredLaunch, launch_digest},
    shape::{Accelerator, Machine, Mitigations, PodShape, TeePlatform},
    trust_domain::MITIGATIONS_OFF,
};

/// vsock port of the guest's host endpoint.
pub const AGENT_VSOCK_PORT: u32 = 1024;
/// TCP port of the guest's owner endpoint.
pub const OWNER_TCP_PORT: u16 = 50090;
/// The guest's address in QEMU's user network.
pub const GUEST_ADDRESS: &str = "10.0.2.15";
/// Memory in MiB for translated code of an emulated guest. Booting and a first container take just above 64; when it is full,
/// all of it is thrown away and translated anew, in the middle of what the guest does. QEMU's own bound is a gigabyte, which a
/// pod that lives long fills.
const TRANSLATED_MIB: u32 = 96;
/// The guest's only network card.
pub const GUEST_MAC: &str = "52:54:00:70:6f:64";

/// What an emulated guest need not find out, or not do. `tsc=reliable`: or the clock watchdog demotes the counter when the
/// host is busy. `noreplace-smp`: a kernel on one processor rewrites each of its lock prefixes, and every write into code
/// costs an emulator dearly. `lapic_timer_khz`: QEMU's local APIC counts nanoseconds; our own kernel need not wait a tenth of
/// a second to learn it, and others do not know the word.
const EMULATED: &str = "tsc=reliable no_timer_check noreplace-smp lapic_timer_khz=1000000";

/// An emulated CPU with everything that QEMU can emulate, but for the promise that `rep movsb` and `rep stosb` are fast:
/// programs believe it, and QEMU emulates them a byte at a time.
pub(crate) const EMULATED_CPU: &str = "max,-erms,-fsrm";

/// Where a microvm has its virtio devices: so many places of so many bytes from this address on, with interrupts from this
/// one on (QEMU's hw/i386/microvm.c). What is in a place the kernel finds out by looking.
const MICROVM_PLACES: u64 = 8;
const MICROVM_PLACE: u64 = 512;
const MICROVM_FIRST: u64 = 0xfeb0_0000;
const MICROVM_INTERRUPT: u64 = 5;

/// Image disks of one pod: a microvm has eight places for virtio devices, and a pod needs three.
pub const MAX_DISKS: usize = 4;

/// A launch that cannot be rendered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    #[error(
        "a microvm under TCG needs the frequency of the host's time stamp counter: its guest would hang without"
    )]
    TscFrequency,
    #[error(
        "the image's kernel is for microvm alone; build an image with `--profile q35`, or with the distribution's kernel"
    )]
    MicrovmOnly,
    #[error("a pod has at most {MAX_DISKS} image disks, not {0}")]
    Disks(usize),
    #[error("path {0:?} is not UTF-8, which QEMU's arguments have to be here")]
    Path(PathBuf),
}

/// How the guest reaches its host over vsock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Vsock {
    /// A vhost-user device served by a program on this socket.
    VhostUser { socket: PathBuf },
    /// The kernel's vhost-vsock with this context id.
    Kernel { cid: u32 },
}

/// How the guest reaches the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// QEMU's user network, with the owner endpoint forwarded from `listen`; port 0 is any free one.
    User { listen: SocketAddrV4 },
}

/// What a launch is connected to on this host. None of it is measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wiring {
    pub qmp_socket: PathBuf,
    /// A block device's contents with init data, attached read-only.
    pub init_data_device: PathBuf,
    /// At most [`MAX_DISKS`] image disks, attached read-only, which other pods may have as well.
    pub disks: Vec<Disk>,
    pub vsock: Vsock,
    pub network: Network,
}

/// A file the host lends as a disk. The guest checks every block of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    pub file: PathBuf,
    /// By which the guest finds it.
    pub serial: String,
}

/// A VM to be launched. The guest's serial console is QEMU's standard output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaunchSpec {
    kernel: String,
    initramfs: String,
    cmdline: String,
    acpi: bool,
    shape: PodShape,
    measurement: Measurement,
    qmp_socket: String,
    init_data_device: String,
    disks: Vec<RenderedDisk>,
    vsock: RenderedVsock,
    network: Network,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct RenderedDisk {
    file: String,
    serial: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum RenderedVsock {
    VhostUser { socket: String },
    Kernel { cid: u32 },
}

impl LaunchSpec {
    pub fn new(
        image: &ImageManifest,
        image_dir: &Path,
        shape: &PodShape,
        wiring: Wiring,
    ) -> Result<Self, SpecError> {
        if (shape.machine, shape.accelerator, shape.tsc_khz) == (Machine::Microvm, Accelerator::Tcg, None) {
            return Err(SpecError::TscFrequency);
        }
        if shape.machine != Machine::Microvm && !image.uses_acpi() {
            return Err(SpecError::MicrovmOnly);
        }
        if wiring.disks.len() > MAX_DISKS {
            return Err(SpecError::Disks(wiring.disks.len()));
        }
        let disk = |disk: Disk| Ok(RenderedDisk { file: text(disk.file)?, serial: disk.serial });
        Ok(Self {
            kernel: text(image_dir.join(&image.kernel.file))?,
            initramfs: text(image_dir.join(&image.initramfs.file))?,
            cmdline: cmdline(image, shape),
            acpi: image.uses_acpi(),
            shape: *shape,
            measurement: expected_measurement(image, shape),
            qmp_socket: text(wiring.qmp_socket)?,
            init_data_device: text(wiring.init_data_device)?,
            disks: wiring.disks.into_iter().map(disk).collect::<Result<_, _>>()?,
            vsock: match wiring.vsock {
                Vsock::VhostUser { socket } => RenderedVsock::VhostUser { socket: text(socket)? },
                Vsock::Kernel { cid } => RenderedVsock::Kernel { cid },
            },
            network: wiring.network,
        })
    }

    /// The whole kernel command line.
    pub fn cmdline(&self) -> &str {
        &self.cmdline
    }

    pub fn expected_measurement(&self) -> Measurement {
        self.measurement
    }

    /// QEMU's arguments, without the program's name.
    pub fn qemu_args(&self) -> Vec<String> {
        let mut args = Args(Vec::new());
        for flag in ["-nodefaults", "-no-user-config", "-no-reboot"] {
            args.0.push(flag.to_owned());
        }
        args.option("-display", "none");
        args.option("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
        args.option("-machine", format!("{},memory-backend=mem0", self.machine()));
        args.option("-accel", self.accelerator());
        args.option("-cpu", cpu_model(&self.shape));
        args.option("-smp", self.shape.cpus.to_string());
        args.option("-m", format!("{}M", self.shape.memory_mib));
        // Shared, because a vhost-user device reads and writes the guest's memory from another process.
        args.option(
            "-object",
            format!("memory-backend-memfd,id=mem0,size={}M,share=on", self.shape.memory_mib),
        );
        args.option("-kernel", &self.kernel);
        args.option("-initrd", &self.initramfs);
        args.option("-append", &self.cmdline);
        args.option("-chardev", "stdio,id=console,signal=off");
        args.option("-serial", "chardev:console");
        args.option(
            "-chardev",
            format!("socket,id=qmp,server=on,wait=off,path={}", escaped(&self.qmp_socket)),
        );
        args.option("-mon", "chardev=qmp,mode=control");
        self.init_data(&mut args);
        self.image_disks(&mut args);
        self.vsock(&mut args);
        self.network(&mut args);
        args.0
    }

    fn machine(&self) -> &'static str {
        match self.shape.machine {
            // No legacy timers or interrupt controller: their emulation is what boots slowly. The command line is what
            // is measured, so QEMU must not add to it.
            Machine::Microvm if self.acpi => "microvm,acpi=on,rtc=on,pit=off,pic=off,auto-kernel-cmdline=off",
            Machine::Microvm => "microvm,acpi=off,rtc=on,pit=off,pic=off,auto-kernel-cmdline=off",
            Machine::Q35 => "q35,i8042=off,sata=off,smbus=off,usb=off,vmport=off",
        }
    }

    fn accelerator(&self) -> String {
        match self.shape.accelerator {
            Accelerator::Tcg => format!("tcg,tb-size={TRANSLATED_MIB}"),
            Accelerator::Kvm => "kvm".into(),
        }
    }

    /// Name of a virtio device on this machine's bus.
    fn device(&self, name: &str) -> String {
        match self.shape.machine {
            Machine::Microvm => format!("{name}-device"),
            Machine::Q35 => format!("{name}-pci"),
        }
    }

    fn init_data(&self, args: &mut Args) {
        let file = escaped(&self.init_data_device);
        args.option(
            "-blockdev",
            format!("driver=file,node-name=initdata-file,read-only=on,locking=off,filename={file}"),
        );
        args.option("-blockdev", "driver=raw,node-name=initdata,read-only=on,file=initdata-file");
        args.option("-device", format!("{},drive=initdata,serial=initdata", self.device("virtio-blk")));
    }

    fn image_disks(&self, args: &mut Args) {
        for (number, RenderedDisk { file, serial }) in self.disks.iter().enumerate() {
            let (file, serial) = (escaped(file), escaped(serial));
            // Read-only and without locks: any number of pods have the same file, and its pages in the host's memory.
            args.option(
                "-blockdev",
                format!("driver=file,node-name=disk{number}-file,read-only=on,locking=off,filename={file}"),
            );
            let node = format!("driver=raw,node-name=disk{number},read-only=on,file=disk{number}-file");
            args.option("-blockdev", node);
            let device = self.device("virtio-blk");
            args.option("-device", format!("{device},drive=disk{number},serial={serial}"));
        }
    }

    fn vsock(&self, args: &mut Args) {
        match &self.vsock {
            RenderedVsock::VhostUser { socket } => {
                args.option("-chardev", format!("socket,id=vsock,path={}", escaped(socket)));
                args.option("-device", format!("{},chardev=vsock", self.device("vhost-user-vsock")));
            }
            RenderedVsock::Kernel { cid } => {
                args.option("-device", format!("{},guest-cid={cid}", self.device("vhost-vsock")));
            }
        }
    }

    fn network(&self, args: &mut Args) {
        let Network::User { listen } = self.network;
        args.option(
            "-netdev",
            format!("user,id=net0,ipv6=off,hostfwd=tcp:{}:{}-:{OWNER_TCP_PORT}", listen.ip(), listen.port()),
        );
        // No option ROM: nothing boots from the network.
        let rom = match self.shape.machine {
            Machine::Microvm => "",
            Machine::Q35 => ",romfile=",
        };
        args.option("-device", format!("{},netdev=net0,mac={GUEST_MAC}{rom}", self.device("virtio-net")));
    }
}

/// The measurement of a pod of this shape from this image: the reference value of whoever verifies it.
pub fn expected_measurement(image: &ImageManifest, shape: &PodShape) -> Measurement {
    launch_digest(&MeasuredLaunch {
        kernel: image.kernel.sha256,
        initramfs: image.initramfs.sha256,
        cmdline: cmdline(image, shape),
        cpu_model: cpu_model(shape).to_owned(),
        vcpus: shape.cpus.value(),
        machine: shape.machine.as_str().to_owned(),
    })
}

fn cpu_model(shape: &PodShape) -> &'static str {
    match shape.accelerator {
        Accelerator::Tcg => EMULATED_CPU,
        Accelerator::Kvm => "host",
    }
}

fn cmdline(image: &ImageManifest, shape: &PodShape) -> String {
    let mut cmdline = image.cmdline.trim().to_owned();
    let mut add = |word: &str| {
        if !cmdline.is_empty() {
            cmdline.push(' ');
        }
        cmdline.push_str(word);
    };
    if shape.machine == Machine::Microvm && !image.uses_acpi() {
        for place in 0..MICROVM_PLACES {
            let (address, interrupt) = (MICROVM_FIRST + place * MICROVM_PLACE, MICROVM_INTERRUPT + place);
            add(&format!("virtio_mmio.device={MICROVM_PLACE}@{address:#x}:{interrupt}"));
        }
    }
    if let (Accelerator::Tcg, Some(khz)) = (shape.accelerator, shape.tsc_khz) {
        add(&format!("tsc_early_khz={khz}"));
        add(EMULATED);
    }
    match shape.mitigations {
        Mitigations::On => {}
        Mitigations::Off => add(MITIGATIONS_OFF),
    }
    match shape.tee {
        TeePlatform::Simulated => add("postern.tee=simulated"),
    }
    cmdline
}

fn text(path: PathBuf) -> Result<String, SpecError> {
    path.into_os_string().into_string().map_err(|path| SpecError::Path(path.into()))
}

/// A value inside a QEMU option list, where a comma is written twice.
fn escaped(value: &str) -> String {
    value.replace(',', ",,")
}

struct Args(Vec<String>);

impl Args {
    fn option(&mut self, name: &str, value: impl AsRef<str>) {
        self.0.push(name.to_owned());
        self.0.push(value.as_ref().to_owned());
    }
}
