//! Loads the kernel modules of the image, in the order the image builder wrote down.
//!
//! `/lib/postern/modules/list` has a line per module, `FILE [CLASS]`; dependencies come first. A class names what
//! the module is for, and one whose purpose this machine does not have is left out: each costs milliseconds.
//! A kernel without modules comes without the list.

use std::{
    fs::{self, File},
    io,
    path::Path,
};

use rustix::{io::Errno, system::finit_module};

const DIRECTORY: &str = "/lib/postern/modules";
/// A list longer than this was not made by our image builder.
const MAX_LIST: u64 = 16 * 1024;

/// Why the modules could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum ModuleError {
    #[error("reading the list of kernel modules")]
    List(#[source] io::Error),
    #[error("line {line} of the list of kernel modules is not \"FILE [mmio|pci|tee|disk]\"")]
    Line { line: usize },
    #[error("opening kernel module {name}")]
    Open { name: String, source: io::Error },
    #[error("loading kernel module {name}")]
    Load { name: String, source: io::Error },
}

/// What a module is for; without a class it is for every machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Always,
    /// Virtio devices on the platform bus, as microvm has them.
    Mmio,
    /// Virtio devices on PCI, as q35 has them.
    Pci,
    /// Reports of a real TEE.
    Tee,
    /// Image disks.
    Disk,
}

#[derive(Debug, PartialEq, Eq)]
struct Listed<'a> {
    file: &'a str,
    class: Class,
}

pub(super) fn load_all() -> Result<(), ModuleError> {
    let directory = Path::new(DIRECTORY);
    let list = match read_list(&directory.join("list")) {
        Ok(list) => list,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(ModuleError::List(error)),
    };
    let machine = Machine::look();
    for (number, line) in list.lines().enumerate() {
        let module = parse(line).ok_or(ModuleError::Line { line: number + 1 })?;
        if machine.wants(module.class) {
            load(directory, &module)?;
        }
    }
    // They are in the kernel now; the files would only take memory.
    let _ = fs::remove_dir_all(directory);
    Ok(())
}

fn read_list(path: &Path) -> io::Result<String> {
    if fs::metadata(path)?.len() > MAX_LIST {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "longer than 16 KiB"));
    }
    fs::read_to_string(path)
}

fn parse(line: &str) -> Option<Listed<'_>> {
    let mut words = line.split(' ');
    let file = words.next()?;
    let class = match words.next() {
        None => Class::Always,
        Some("mmio") => Class::Mmio,
        Some("pci") => Class::Pci,
        Some("tee") => Class::Tee,
        Some("disk") => Class::Disk,
        Some(_) => return None,
    };
    let plain = |c: u8| c.is_ascii_alphanumeric() || b"-_.".contains(&c);
    let is_name = file.ends_with(".ko") && !file.starts_with('.') && file.bytes().all(plain);
    (is_name && words.next().is_none()).then_some(Listed { file, class })
}

fn load(directory: &Path, module: &Listed<'_>) -> Result<(), ModuleError> {
    let name = || module.file.to_owned();
    let file = File::open(directory.join(module.file))
        .map_err(|source| ModuleError::Open { name: name(), source })?;
    match finit_module(&file, c"", 0) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        // The driver looked and there is no such TEE; then asking for a report is what fails, with its reason.
        Err(Errno::NODEV) if module.class == Class::Tee => Ok(()),
        Err(error) => Err(ModuleError::Load { name: name(), source: error.into() }),
    }
}

/// What the machine has that modules are for.
#[derive(Debug, Clone, Copy)]
struct Machine {
    mmio: bool,
    pci: bool,
    tee: bool,
}

impl Machine {
    fn look() -> Self {
        let any = |bus: &str, test: &dyn Fn(&str) -> bool| {
            fs::read_dir(bus).is_ok_and(|mut entries| {
                entries.any(|e| e.is_ok_and(|e| e.file_name().to_str().is_some_and(test)))
            })
        };
        // LNRO0005 is the ACPI id of a virtio-mmio device (drivers/virtio/virtio_mmio.c).
        let is_mmio = |name: &str| name.starts_with("LNRO0005") || name.starts_with("virtio-mmio");
        // The command line is measured, so this is the owner's word: a simulated platform has nothing to load.
        let simulated = fs::read_to_string("/proc/cmdline")
            .is_ok_and(|line| line.split_ascii_whitespace().any(|word| word == "postern.tee=simulated"));
        Self {
            mmio: any("/sys/bus/platform/devices", &is_mmio),
            pci: any("/sys/bus/pci/devices", &|_| true),
            tee: !simulated,
        }
    }

    fn wants(self, class: Class) -> bool {
        match class {
            Class::Always => true,
            Class::Mmio => self.mmio,
            Class::Pci => self.pci,
            Class::Tee => self.tee,
            // The drivers of disks are loaded by now: these come last.
            Class::Disk => has_image_disks(),
        }
    }
}

/// Whether there is a disk beside the one with init data.
fn has_image_disks() -> bool {
    let disks = fs::read_dir("/sys/block").into_iter().flatten().flatten();
    disks.filter(|disk| disk.file_name().as_encoded_bytes().starts_with(b"vd")).count() > 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_lines_the_builder_writes() {
        assert_eq!(parse("overlay.ko"), Some(Listed { file: "overlay.ko", class: Class::Always }));
        assert_eq!(parse("virtio_pci.ko pci"), Some(Listed { file: "virtio_pci.ko", class: Class::Pci }));
    }

    #[test]
    fn refuses_other_lines() {
        for line in [
            "",
            " ",
            "overlay",
            "../x.ko",
            "/x.ko",
            ".ko",
            "a.ko usb",
            "a.ko pci mmio",
            "a.ko ",
            "a\0.ko",
            "a b.ko",
        ] {
            assert_eq!(parse(line), None, "{line:?}");
        }
    }

    #[test]
    fn leaves_out_what_the_machine_has_not() {
        let microvm = Machine { mmio: true, pci: false, tee: false };
        assert!(microvm.wants(Class::Always) && microvm.wants(Class::Mmio));
        assert!(!microvm.wants(Class::Pci) && !microvm.wants(Class::Tee));
    }
}
