//! An image on a disk that the host lends, in a real VM: the honest one runs; whatever the host changes, before or while
//! the pod runs, is an error and never other content.

use std::{
    fs::{self, File, OpenOptions},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use postern_launch::DiskFooter;
use postern_tests::{
    archive::{ImageRecipe, sha256},
    programs,
    vm::{POD, Vm},
};

const REFERENCE: &str = "example.org/disk:1";
const MEMORY: [&str; 2] = ["--memory", "128M"];

/// What only the image holds, long enough to have blocks of its own: no part of it occurs twice.
fn content(seed: u8) -> Vec<u8> {
    (0..75_000_u32).flat_map(|at| [seed, (at >> 16) as u8, (at >> 8) as u8, at as u8]).collect()
}

struct Packed {
    vm: Vm,
    /// What the host lends, and what its owner kept.
    lent: PathBuf,
    kept: PathBuf,
    footer: DiskFooter,
}

fn packed() -> Packed {
    let vm = Vm::none().unwrap();
    let recipe = ImageRecipe {
        files: vec![
            ("data/first".into(), content(1), 0o644),
            ("data/second".into(), content(2), 0o644),
            ("etc/passwd".into(), b"root:x:0:0:root:/root:/bin/sh\n".to_vec(), 0o644),
        ],
        ..ImageRecipe::busybox(REFERENCE)
    };
    let [archive, lent, kept] = ["image.tar", "lent.disk", "kept.disk"].map(|name| vm.home.root().join(name));
    recipe.write_oci_archive(&archive).unwrap();
    vm.ok(&["image", "pack", text(&archive), "--to", text(&kept)]).unwrap();
    fs::copy(&kept, &lent).unwrap();
    let footer = DiskFooter::read(&mut File::open(&kept).unwrap()).unwrap();
    Packed { vm, lent, kept, footer }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

impl Packed {
    fn create(&self) -> postern_tests::home::Said {
        self.vm.try_boot(&[&MEMORY[..], &["--image-disk", text(&self.lent)]].concat()).unwrap()
    }

    /// The host changes one byte of the file that the pod has; again gives it back.
    fn flip(&self, at: u64) {
        let file = OpenOptions::new().read(true).write(true).open(&self.lent).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 0x20], at).unwrap();
    }

    /// Where on the disk this file of the image begins.
    fn offset(&self, content: &[u8]) -> u64 {
        let disk = fs::read(&self.kept).unwrap();
        disk.windows(64).position(|window| window == &content[..64]).unwrap() as u64
    }

    fn push(&self) -> postern_tests::home::Said {
        self.vm.home.postern(&["image", "push", POD, &format!("disk:{}", text(&self.kept))]).unwrap()
    }
}

#[test]
fn what_the_host_changes_is_never_read() {
    let packed = packed();
    packed.create().ok().unwrap();
    let vm = &packed.vm;
    let listed = vm.ok(&["image", "ls", POD]).unwrap().text();
    assert!(listed.contains(REFERENCE), "{listed}");
    vm.ok(&["run", "-d", "--name", "c", POD, REFERENCE, "--", "sleep", "100000"]).unwrap();
    let digest = |file: &str| vm.script("c", &format!("sha256sum < /data/{file}"));
    let expected = |byte| sha256(&content(byte)).trim_start_matches("sha256:").to_owned();

    // While the pod runs: the file that is not what it was cannot be read, another one can, and so can it once it is.
    let changed = packed.offset(&content(2)) + 100_000;
    packed.flip(changed);
    let refused = digest("second").unwrap_err();
    assert!(format!("{refused:#}").contains("Input/output error"), "{refused:#}");
    assert!(digest("first").unwrap().starts_with(&expected(1)));
    packed.flip(changed);
    assert!(digest("second").unwrap().starts_with(&expected(2)));
    // Containers write above it.
    vm.script("c", "echo mine > /data/first && test \"$(cat /data/first)\" = mine").unwrap();

    // Removed, it can be attached again, and is looked at again.
    vm.ok(&["rm", "-f", &format!("{POD}/c")]).unwrap();
    vm.ok(&["image", "rm", POD, REFERENCE]).unwrap();
    for (at, words) in
        [(packed.footer.disk.data_bytes(), "has the root hash"), (1024, "is not what its root hash says")]
    {
        packed.flip(at);
        let said = packed.push();
        assert!(said.code != 0 && said.stderr.contains(words), "{at}: {}", said.stderr);
        let listed = vm.ok(&["image", "ls", POD]).unwrap().text();
        assert!(!listed.contains(REFERENCE), "{listed}");
        packed.flip(at);
    }
    packed.push().ok().unwrap();
    let ran = vm.ok(&["run", "--rm", POD, REFERENCE, "--", "sha256sum", "/data/first"]).unwrap().text();
    assert!(ran.starts_with(&expected(1)), "{ran}");
}

/// A host that plugs in something else than it was told to: `lie` is what its script does to QEMU's arguments.
fn refused(lie: impl FnOnce(&Packed) -> String, words: &[&str]) {
    let mut packed = packed();
    let folder = packed.vm.home.root().join("bin");
    fs::create_dir_all(&folder).unwrap();
    let qemu = programs::system("qemu-system-x86_64", "qemu-system-x86").unwrap();
    let script = format!("args=(\"$@\")\n{}\nexec {} \"${{args[@]}}\"", lie(&packed), qemu.display());
    programs::write_script(&folder.join("qemu-system-x86_64"), &script).unwrap();
    packed.vm.home = packed.vm.home.clone().with_programs(folder);
    let said = packed.create();
    assert_ne!(said.code, 0, "{said:?}");
    for word in words {
        assert!(said.stderr.contains(word), "no {word:?} in: {}", said.stderr);
    }
    assert_eq!(packed.vm.ok(&["pod", "ls", "--output", "json"]).unwrap().text().trim(), "[]");
}

#[test]
fn a_disk_that_is_not_attached_is_missed() {
    let lie = |packed: &Packed| {
        format!("args=(\"${{args[@]/serial={}/serial=other}}\")", packed.footer.disk.serial())
    };
    refused(lie, &["no disk has the serial number"]);
}

#[test]
fn a_disk_that_is_attached_twice_is_refused() {
    let lie = |packed: &Packed| {
        format!(
            "if [[ \"$*\" == *drive=disk0* ]]; then args+=(\
             -blockdev driver=file,node-name=again-file,read-only=on,locking=off,filename={} \
             -blockdev driver=raw,node-name=again,read-only=on,file=again-file \
             -device virtio-blk-device,drive=again,serial={}); fi",
            text(&packed.lent),
            packed.footer.disk.serial()
        )
    };
    refused(lie, &["both have the serial number", "twice"]);
}

#[test]
fn a_disk_that_was_cut_off_is_refused() {
    let lie = |packed: &Packed| {
        let short = packed.vm.home.root().join("short.disk");
        fs::copy(&packed.lent, &short).unwrap();
        let file = OpenOptions::new().write(true).open(&short).unwrap();
        file.set_len(packed.footer.disk.data_bytes()).unwrap();
        String::from("args=(\"${args[@]/lent.disk/short.disk}\")")
    };
    refused(lie, &["are needed; the host cut it off"]);
}

#[test]
fn a_file_that_is_no_image_disk_is_not_even_lent() {
    let packed = packed();
    fs::write(&packed.lent, [0; 16_384]).unwrap();
    let said = packed.create();
    assert!(said.code != 0 && said.stderr.contains("image disk"), "{}", said.stderr);
}
