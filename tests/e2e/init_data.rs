//! A host that gives the guest something else than its owner's init data: the guest says what it found, in one line of its
//! console, and ends; its owner gets that as one error; the host has nothing left of it.

use postern_tests::{
    home::Said,
    lying_qemu::Devices,
    vm::{POD, Vm},
};

const MAGIC: &[u8] = b"initdata";
const SECTOR: usize = 512;
/// What the guest reads at most.
const MAX_DEVICE: usize = 4 << 20;

/// A device as it is laid out, with these bytes where compressed init data should be.
fn device(claimed: usize, bytes: &[u8]) -> Vec<u8> {
    let mut device = [MAGIC, &(claimed as u64).to_le_bytes(), bytes].concat();
    device.resize(device.len().next_multiple_of(SECTOR), 0);
    device
}

/// An owner, and init data of the same owner's for a pod of the same name, for another launch: the best that a host can
/// have that was not meant for this one.
fn owner() -> (Vm, Vec<u8>) {
    let vm = Vm::none().unwrap();
    let file = vm.home.root().join("other-initdata.img");
    vm.ok(&["pod", "init-data", POD, "--device", "--file", file.to_str().unwrap()]).unwrap();
    let device = std::fs::read(file).unwrap();
    (vm, device)
}

/// Creates the pod on a host whose QEMU attaches `devices`.
fn create(mut vm: Vm, devices: &Devices) -> (Vm, Said) {
    let folder = devices.install(&vm.home.root().join("bin")).unwrap();
    vm.home = vm.home.clone().with_programs(folder);
    let said = vm.try_boot(&["--memory", "128M"]).unwrap();
    (vm, said)
}

/// The guest ends and its owner is told why, in these words; nothing of the pod is left on either side.
fn refused(vm: Vm, devices: &Devices, words: &[&str]) {
    let (vm, said) = create(vm, devices);
    assert_eq!(said.code, 1, "{said:?}");
    let error = said.stderr.lines().find(|line| line.starts_with("postern: ")).unwrap_or_default();
    for word in words.iter().chain(&["the guest gave up: "]) {
        assert!(error.contains(word), "no {word:?} in: {}", said.stderr);
    }
    let pods: Vec<_> = std::fs::read_dir(vm.home.host_state().join("pods")).unwrap().flatten().collect();
    assert!(pods.is_empty(), "{pods:?}");
    assert_eq!(vm.ok(&["pod", "ls", "--output", "json"]).unwrap().text().trim(), "[]");
}

#[test]
fn the_owners_own_through_the_same_script_is_accepted() {
    let (vm, said) = create(owner().0, &Devices::default());
    said.ok().unwrap();
    vm.ok(&["pod", "verify", POD]).unwrap();
}

#[test]
fn none() {
    refused(owner().0, &Devices::replaced(vec![0; 4096]), &["no block device carries init data"]);
}

#[test]
fn two() {
    let (vm, other) = owner();
    refused(vm, &Devices::second(other), &["init data on both /dev/vda and /dev/vdb", "exactly one owner"]);
}

#[test]
fn more_than_is_read() {
    let mut oversized = device(MAX_DEVICE + 1, &[]);
    oversized.resize(MAX_DEVICE + 2 * SECTOR, 0x5a);
    refused(owner().0, &Devices::replaced(oversized), &["claims 4194305 bytes; at most"]);
}

#[test]
fn of_another_launch() {
    let (vm, other) = owner();
    let why = ["init data has digest", "the launch was made for", "the host exchanged one of the two"];
    refused(vm, &Devices::replaced(other), &why);
}

#[test]
fn half_of_its_gzip() {
    let (vm, other) = owner();
    let half = other.len() / 2;
    refused(vm, &Devices::replaced(device(half, &other[16..16 + half])), &["init data is not valid gzip"]);
}

#[test]
fn no_gzip() {
    let text = b"version = \"0.1.0\"";
    refused(owner().0, &Devices::replaced(device(text.len(), text)), &["init data is not valid gzip"]);
}
