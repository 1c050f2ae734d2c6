//! Resolution of modules over a tree made here: ELF files with nothing in them but `.modinfo`.

use super::*;
use crate::test_files::module;

const RELEASE: &str = "6.1.0-test";

/// What a guest needs at least, none of it depending on anything.
const PLAIN: [&str; 6] =
    ["virtio_mmio", "virtio_pci", "virtio_blk", "vmw_vsock_virtio_transport", "virtio_net", "overlay"];

fn tree() -> tempfile::TempDir {
    let tree = tempfile::tempdir().unwrap();
    fs::create_dir_all(tree.path().join("kernel/drivers")).unwrap();
    for name in PLAIN {
        add(&tree, &format!("{name}.ko"), &module(RELEASE, ""));
    }
    tree
}

fn add(tree: &tempfile::TempDir, file: &str, content: &[u8]) {
    fs::write(tree.path().join("kernel/drivers").join(file), content).unwrap();
}

fn names(modules: &[Module]) -> Vec<&str> {
    modules.iter().map(|module| module.file.as_str()).collect()
}

#[test]
fn loads_dependencies_first_and_each_once() {
    let tree = tree();
    add(&tree, "virtio_mmio.ko", &module(RELEASE, "virtio,virtio-ring"));
    add(&tree, "virtio_blk.ko", &module(RELEASE, "virtio"));
    add(&tree, "virtio.ko", &module(RELEASE, "virtio-ring"));
    add(&tree, "virtio_ring.ko", &module(RELEASE, ""));
    add(&tree, "unrelated.ko", b"never read");
    let modules = collect(tree.path(), RELEASE).unwrap();
    assert_eq!(
        names(&modules),
        [
            "virtio_ring.ko",
            "virtio.ko",
            "virtio_mmio.ko",
            "virtio_pci.ko",
            "virtio_blk.ko",
            "vmw_vsock_virtio_transport.ko",
            "virtio_net.ko",
            "overlay.ko"
        ]
    );
    let class = |file: &str| modules.iter().find(|module| module.file == file).unwrap().class;
    assert_eq!(class("virtio_mmio.ko"), Class::Mmio);
    // First wanted for mmio, then by a module that every machine loads.
    assert_eq!(class("virtio_ring.ko"), Class::Always);
}

#[test]
fn unpacks_compressed_modules() {
    let tree = tree();
    let plain = module(RELEASE, "");
    for name in ["virtio_net.ko", "overlay.ko"] {
        fs::remove_file(tree.path().join("kernel/drivers").join(name)).unwrap();
    }
    add(&tree, "virtio_net.ko.xz", crate::test_files::MODULE_XZ);
    add(&tree, "overlay.ko.zst", &zstd::bulk::compress(&plain, 3).unwrap());
    let modules = collect(tree.path(), RELEASE).unwrap();
    assert_eq!(names(&modules)[4..], ["virtio_net.ko", "overlay.ko"]);
    assert!(modules.iter().all(|module| module.content == plain));

    add(&tree, "virtio_net.ko.xz", &crate::test_files::MODULE_XZ[..100]);
    let cut = collect(tree.path(), RELEASE).unwrap_err();
    assert!(matches!(cut, ModulesError::Io { action: "reading", .. }), "{cut:?}");
}

#[test]
fn what_is_built_in_needs_no_file() {
    let tree = tree();
    fs::remove_file(tree.path().join("kernel/drivers/virtio_blk.ko")).unwrap();
    let missing = collect(tree.path(), RELEASE).unwrap_err();
    assert!(matches!(&missing, ModulesError::Missing { name, .. } if name == "virtio_blk"));
    fs::write(tree.path().join("modules.builtin"), "kernel/drivers/block/virtio_blk.ko\n").unwrap();
    assert_eq!(collect(tree.path(), RELEASE).unwrap().len(), PLAIN.len() - 1);
}

#[test]
fn takes_what_a_tee_needs_where_there_is_such() {
    let tree = tree();
    add(&tree, "sev-guest.ko", &module(RELEASE, "tsm"));
    add(&tree, "tsm.ko", &module(RELEASE, ""));
    let modules = collect(tree.path(), RELEASE).unwrap();
    let tee: Vec<_> = modules.iter().filter(|m| m.class == Class::Tee).map(|m| m.file.as_str()).collect();
    assert_eq!(tee, ["tsm.ko", "sev_guest.ko"]);
}

#[test]
fn refuses_modules_of_another_kernel_and_other_files() {
    let tree = tree();
    add(&tree, "overlay.ko", &module("5.10.0", ""));
    assert!(
        matches!(collect(tree.path(), RELEASE), Err(ModulesError::Release { found, .. }) if found == "5.10.0")
    );
    add(&tree, "overlay.ko", b"no ELF");
    assert!(matches!(collect(tree.path(), RELEASE), Err(ModulesError::Format { .. })));
    let nowhere = tree.path().join("nowhere");
    assert!(matches!(collect(&nowhere, RELEASE), Err(ModulesError::Io { action: "listing", .. })));
}

#[test]
fn refuses_a_circle() {
    let tree = tree();
    add(&tree, "overlay.ko", &module(RELEASE, "a"));
    add(&tree, "a.ko", &module(RELEASE, "overlay"));
    assert!(matches!(collect(tree.path(), RELEASE), Err(ModulesError::Cycle(_))));
}
