//! The same inputs give the same bytes anywhere, other inputs give other ones, and a broken build leaves no image.

use super::*;
use crate::{kernel::Specialised, test_files};

const RELEASE: &str = "6.1.0-test";

/// A place with everything an image is built from.
struct Inputs {
    directory: tempfile::TempDir,
}

impl Inputs {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let modules = directory.path().join("modules/kernel");
        fs::create_dir_all(&modules).unwrap();
        fs::write(directory.path().join("agent"), test_files::program()).unwrap();
        fs::write(directory.path().join("vmlinuz"), test_files::kernel(RELEASE)).unwrap();
        let names = [
            "virtio_mmio",
            "virtio_pci",
            "virtio_blk",
            "vmw_vsock_virtio_transport",
            "virtio_net",
            "overlay",
        ];
        for name in names {
            fs::write(modules.join(format!("{name}.ko")), test_files::module(RELEASE, "")).unwrap();
        }
        Self { directory }
    }

    fn agent(&self) -> Agent {
        Agent::read(&self.directory.path().join("agent")).unwrap()
    }

    fn kernel(&self) -> Kernel {
        let path = self.directory.path();
        Kernel::from_files(&path.join("vmlinuz"), Some(&path.join("modules"))).unwrap()
    }

    /// Builds and gives back every file of the image.
    fn build(&self, out: &Path) -> Vec<(String, Vec<u8>)> {
        build(&self.agent(), &self.kernel(), out).unwrap();
        files(out)
    }
}

fn files(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    let mut files: Vec<_> =
        entries.map(|e| (e.file_name().into_string().unwrap(), fs::read(e.path()).unwrap())).collect();
    files.sort();
    files
}

#[test]
fn two_builds_in_different_directories_give_the_same_bytes() {
    let (one, other) = (Inputs::new(), Inputs::new());
    let first = one.build(&one.directory.path().join("image"));
    let second = other.build(&other.directory.path().join("somewhere/else entirely"));
    let names: Vec<_> = first.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["image.json", "image.lock", "initramfs.cpio.lz4", "vmlinuz"]);
    for ((name, one), (_, other)) in first.iter().zip(&second) {
        assert!(one == other, "{name} differs");
    }
    // And over what is there already.
    assert!(one.build(&one.directory.path().join("image")) == second);
}

#[test]
fn another_module_is_another_image() {
    let inputs = Inputs::new();
    let before = inputs.build(&inputs.directory.path().join("a"));
    fs::remove_file(inputs.directory.path().join("modules/kernel/overlay.ko")).unwrap();
    fs::write(inputs.directory.path().join("modules/modules.builtin"), "kernel/overlay.ko\n").unwrap();
    let after = inputs.build(&inputs.directory.path().join("b"));
    assert_ne!(before[2].1, after[2].1);
    assert_ne!(before[0].1, after[0].1);
}

#[test]
fn a_kernel_without_acpi_is_said_to_be_one() {
    let inputs = Inputs::new();
    let uses_acpi = |config: &str| {
        let specialised = Specialised { profile: "p".into(), config: config.into(), drivers: Vec::new() };
        let mut kernel = inputs.kernel();
        kernel.specialised = Some(specialised);
        let image = build(&inputs.agent(), &kernel, &inputs.directory.path().join("image")).unwrap();
        image.manifest.uses_acpi()
    };
    assert!(uses_acpi("CONFIG_ACPI=y\nCONFIG_PCI=y\n"));
    assert!(!uses_acpi("# CONFIG_ACPI is not set\nCONFIG_HAVE_ACPI_APEI=y\n"));
    // A distribution's kernel has it.
    build(&inputs.agent(), &inputs.kernel(), &inputs.directory.path().join("image")).unwrap();
    assert!(ImageManifest::load(&inputs.directory.path().join("image")).unwrap().uses_acpi());
}

#[test]
fn an_image_is_what_its_manifest_says_or_refused() {
    let inputs = Inputs::new();
    let out = inputs.directory.path().join("image");
    inputs.build(&out);
    assert_eq!(Image::load(&out).unwrap().manifest.kernel_release, RELEASE);
    fs::write(out.join("initramfs.cpio.lz4"), b"another").unwrap();
    assert!(matches!(Image::load(&out), Err(LoadError::Image(_))));
    inputs.build(&out);
    fs::write(out.join("image.lock"), b"{}").unwrap();
    assert!(matches!(Image::load(&out), Err(LoadError::Lock(_))));
    fs::remove_file(out.join("image.json")).unwrap();
    assert!(matches!(Image::load(&out), Err(LoadError::Image(_))));
}

#[test]
fn knows_when_there_is_nothing_to_do() {
    let inputs = Inputs::new();
    let out = inputs.directory.path().join("image");
    let package = Package { name: "linux-image-1".into(), version: "1".into(), sha256: sha256(b"") };
    let packages = [package];
    let mut kernel = inputs.kernel();
    kernel.packages = packages.to_vec();
    build(&inputs.agent(), &kernel, &out).unwrap();
    assert!(Image::up_to_date(&out, &inputs.agent(), &packages).is_some());

    let newer = [Package { version: "2".into(), ..packages[0].clone() }];
    assert!(Image::up_to_date(&out, &inputs.agent(), &newer).is_none());
    let mut changed = inputs.agent();
    changed.bytes.push(0);
    assert!(Image::up_to_date(&out, &changed, &packages).is_none());
    fs::write(out.join("vmlinuz"), b"another").unwrap();
    assert!(Image::up_to_date(&out, &inputs.agent(), &packages).is_none());
}

#[test]
fn a_failed_build_leaves_what_was_there() {
    let inputs = Inputs::new();
    let out = inputs.directory.path().join("image");
    let before = inputs.build(&out);
    fs::remove_file(inputs.directory.path().join("modules/kernel/overlay.ko")).unwrap();
    let error = build(&inputs.agent(), &inputs.kernel(), &out).unwrap_err();
    assert!(matches!(error, BuildError::Modules(ModulesError::Missing { .. })), "{error}");
    assert!(files(&out) == before);
}

#[test]
fn refuses_what_cannot_be_an_agent() {
    let error = Agent::read(Path::new("/bin/sh")).unwrap_err();
    assert!(matches!(&error, BuildError::Agent { source: ProgramError::Dynamic, .. }), "{error}");
    let error = Agent::read(Path::new("/nonexistent")).unwrap_err();
    assert!(matches!(&error, BuildError::Io { action: "reading the agent", .. }), "{error}");
}

#[test]
fn says_what_to_do_about_a_full_disk() {
    let source = io::Error::from(io::ErrorKind::StorageFull);
    let error = BuildError::Io { action: "writing", path: "image/vmlinuz".into(), source };
    assert_eq!(
        error.to_string(),
        "writing image/vmlinuz: no space left there; free some, or choose another directory with --out"
    );
}
