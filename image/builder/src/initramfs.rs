//! The guest's first and only file system: the agent, the modules it loads, and the directories it mounts on.

use crate::{
    cpio::{Archive, CpioError},
    lz4,
    modules::{Class, Module},
};

/// Where the agent looks for modules.
const MODULES: &str = "lib/postern/modules";
/// Where the agent looks for what the kernel has, to say what an image misses.
const KERNEL_OPTIONS: &str = "lib/postern/kernel.options";
/// What the kernel and the agent expect to be there. The agent makes whatever else it mounts on.
const DIRECTORIES: &[&str] =
    &["dev", "etc", "lib", "lib/postern", MODULES, "newroot", "proc", "run", "sys", "tmp", "var", "var/lib"];
/// Processes of the guest are root's, and group 5 has the terminals; nobody logs in.
const PASSWD: &str = "root:x:0:0:root:/:/sbin/nologin\n";
const GROUP: &str = "root:x:0:\ntty:x:5:\n";

/// The parts of an initramfs.
#[derive(Debug)]
pub struct Initramfs {
    archive: Archive,
}

impl Initramfs {
    /// An archive with `agent` as process 1 and a list of `modules` in their order of loading.
    pub fn new(agent: Vec<u8>, modules: &[Module]) -> Result<Self, CpioError> {
        let mut archive = Archive::default();
        for directory in DIRECTORIES {
            archive.directory(directory, 0o755)?;
        }
        // The kernel opens the console for process 1 before anything is mounted, and a Rust program without standard
        // streams opens /dev/null or aborts.
        archive.character_device("dev/console", 0o600, (5, 1))?;
        archive.character_device("dev/null", 0o666, (1, 3))?;
        archive.file("etc/passwd", 0o644, PASSWD.into())?;
        archive.file("etc/group", 0o644, GROUP.into())?;
        archive.file("init", 0o755, agent)?;
        for module in modules {
            archive.file(&format!("{MODULES}/{}", module.file), 0o644, module.content.clone())?;
        }
        if !modules.is_empty() {
            archive.file(&format!("{MODULES}/list"), 0o644, list(modules).into_bytes())?;
        }
        Ok(Self { archive })
    }

    /// The same, with a list of the options that are built into a kernel of this configuration.
    pub fn with_kernel_options(mut self, config: &[u8]) -> Result<Self, CpioError> {
        let config = String::from_utf8_lossy(config);
        let option = |line: &str| Some(line.strip_prefix("CONFIG_")?.strip_suffix("=y")?.to_owned() + "\n");
        let list: String = config.lines().filter_map(option).collect();
        self.archive.file(KERNEL_OPTIONS, 0o644, list.into_bytes())?;
        Ok(self)
    }

    /// The compressed archive: the same bytes from the same input, always. Not the smallest form but the one that is
    /// unpacked fastest, at every boot, before anything else: a tenth of a second less than zstd under emulation.
    pub fn to_bytes(&self) -> std::io::Result<Vec<u8>> {
        lz4::pack(&self.archive.to_bytes())
    }
}

/// A line per module, `FILE [CLASS]`, as the agent reads it.
fn list(modules: &[Module]) -> String {
    let mut list = String::new();
    for module in modules {
        list.push_str(&module.file);
        match module.class {
            Class::Always => {}
            Class::Mmio => list.push_str(" mmio"),
            Class::Pci => list.push_str(" pci"),
            Class::Tee => list.push_str(" tee"),
            Class::Disk => list.push_str(" disk"),
        }
        list.push('\n');
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpio;

    fn module(file: &str, class: Class) -> Module {
        Module { file: file.into(), class, content: file.as_bytes().to_vec() }
    }

    #[test]
    fn holds_the_agent_and_the_modules_in_order() {
        let modules = [module("virtio.ko", Class::Always), module("a.ko", Class::Pci)];
        let bytes = Initramfs::new(b"agent".to_vec(), &modules).unwrap().to_bytes().unwrap();
        let archive = lz4::unpack(&bytes, 1 << 20).unwrap();
        let entries = cpio::list(&archive).unwrap();
        let content = |path: &str| entries.iter().find(|e| e.path == path).unwrap().content;
        assert_eq!(content("init"), b"agent");
        assert_eq!(content("lib/postern/modules/a.ko"), b"a.ko");
        assert_eq!(content("lib/postern/modules/list"), b"virtio.ko\na.ko pci\n");
    }

    #[test]
    fn a_kernel_without_modules_has_no_list() {
        let bytes = Initramfs::new(b"agent".to_vec(), &[]).unwrap().to_bytes().unwrap();
        let archive = lz4::unpack(&bytes, 1 << 20).unwrap();
        assert!(!cpio::list(&archive).unwrap().iter().any(|entry| entry.path.ends_with("list")));
    }
}
