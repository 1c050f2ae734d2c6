//! A state directory, an image and init data of a test's own, and `postern-host` run on them.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio},
    time::Duration,
};

use postern_launch::{
    ImageManifest, InitData, Mode, encode,
    image::{FORMAT, ImageFile, MANIFEST_FILE},
};
use postern_sandbox::{process::ProcessId, progress::Report};
use serde_json::Value;

/// Longer than anything here takes, shorter than a person's patience.
pub(crate) const SOON: Duration = Duration::from_secs(120);

/// What a guest does once it runs.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Guest {
    /// Says a line as the agent does, and nothing more for ever.
    Silent,
    /// Crashes at once.
    Crashes,
    /// Is nothing that QEMU could boot.
    NoKernel,
}

pub(crate) struct Rig {
    _dir: tempfile::TempDir,
    pub(crate) root: PathBuf,
}

impl Rig {
    pub(crate) fn new(guest: Guest) -> Self {
        Self::below("", guest)
    }

    /// A rig whose state is `below` its directory.
    pub(crate) fn below(below: &str, guest: Guest) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap().join(below);
        fs::create_dir_all(root.join("image")).unwrap();
        let rig = Self { _dir: dir, root };
        let kernel = match guest {
            Guest::Silent => kernel(&[PRINT, HALT].concat()),
            Guest::Crashes => kernel(CRASH),
            Guest::NoKernel => b"not a kernel".to_vec(),
        };
        fs::write(rig.image().join("kernel"), kernel).unwrap();
        rig.write_image("initramfs");
        let init_data = InitData {
            pod: "demo".parse().unwrap(),
            owner_ca_der: vec![0x30, 0],
            instance: [7; 32],
            mode: Mode::Direct,
        };
        fs::write(rig.init_data(), encode(&init_data).device()).unwrap();
        rig
    }

    /// Another image in the same place.
    pub(crate) fn change_image(&self) {
        self.write_image("another initramfs");
    }

    fn write_image(&self, initramfs: &str) {
        fs::write(self.image().join("initramfs"), initramfs).unwrap();
        let manifest = ImageManifest {
            format: FORMAT,
            kernel: ImageFile::describe(&self.image(), "kernel").unwrap(),
            initramfs: ImageFile::describe(&self.image(), "initramfs").unwrap(),
            cmdline: "quiet".into(),
            agent_version: "0".into(),
            kernel_release: "0".into(),
            kernel_profile: None,
        };
        fs::write(self.image().join(MANIFEST_FILE), serde_json::to_vec(&manifest).unwrap()).unwrap();
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.root.join("state")
    }

    pub(crate) fn image(&self) -> PathBuf {
        self.root.join("image")
    }

    pub(crate) fn init_data(&self) -> PathBuf {
        self.root.join("init-data.img")
    }

    pub(crate) fn pod(&self, name: &str) -> PathBuf {
        self.state().join("pods").join(name)
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_postern-host"));
        command.arg("--state").arg(self.state()).args(args).stdin(Stdio::null());
        command
    }

    /// Runs to the end.
    pub(crate) fn host(&self, args: &[&str]) -> Ran {
        Ran::of(self.command(args).output().unwrap())
    }

    pub(crate) fn start_command(&self, verb: &str, more: &[&str]) -> Command {
        self.start_named(verb, "demo", more)
    }

    fn start_named(&self, verb: &str, name: &str, more: &[&str]) -> Command {
        let mut command = self.command(&[verb, name, "--tee", "simulated", "--output", "json"]);
        command.arg("--image").arg(self.image()).arg("--init-data").arg(self.init_data()).args(more);
        command
    }

    /// `start demo`, to its end.
    pub(crate) fn start(&self, more: &[&str]) -> Ran {
        Ran::of(self.start_command("start", more).output().unwrap())
    }

    /// `start demo` or `run demo` that goes on.
    pub(crate) fn begin(&self, verb: &str) -> Begun {
        self.begin_named(verb, "demo", &[])
    }

    pub(crate) fn begin_named(&self, verb: &str, name: &str, more: &[&str]) -> Begun {
        let mut command = self.start_named(verb, name, &[&["--deadline", "3600"], more].concat());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Begun { child, lines }
    }

    /// Nothing runs in the rig's directory, and nothing is left there that a failed start could have made.
    #[track_caller]
    pub(crate) fn assert_nothing_left(&self) {
        assert_eq!(self.processes(), Vec::<String>::new());
        let pods = self.state().join("pods");
        for directory in [pods, self.state().join("shells")] {
            let entries = fs::read_dir(&directory);
            let left: Vec<_> = entries.map(|entries| entries.flatten().collect()).unwrap_or_default();
            assert!(left.is_empty(), "{left:?}");
        }
    }

    /// Command names of the processes that work below the rig's directory or were told of it.
    pub(crate) fn processes(&self) -> Vec<String> {
        let root = self.root.to_str().unwrap();
        let concerned = |directory: &Path| {
            let told = fs::read(directory.join("cmdline")).unwrap_or_default();
            let works = fs::read_link(directory.join("cwd")).unwrap_or_default();
            works.starts_with(&self.root) || String::from_utf8_lossy(&told).contains(root)
        };
        let all = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
        let ours = all.filter(|path| path.join("cmdline").exists() && concerned(path));
        ours.filter_map(|path| fs::read_to_string(path.join("comm")).ok()).collect()
    }
}

/// What a command said.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    fn of(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn stages(&self) -> Vec<String> {
        let lines = self.stdout.lines().map(|line| serde_json::from_str::<Report>(line).unwrap());
        lines.map(|report| report.stage().to_owned()).collect()
    }

    /// The command failed with this code, said so in JSON with the same code and this kind, and on standard error.
    #[track_caller]
    pub(crate) fn assert_failed(&self, code: i32, kind: &str) {
        assert_eq!(self.code, Some(code), "{self:?}");
        let last = self.stdout.lines().last().unwrap_or_default();
        let Ok(Report::Failed { kind: said, exit, message, .. }) = serde_json::from_str(last) else {
            panic!("no failure reported: {self:?}");
        };
        assert_eq!((said.as_str(), i32::from(exit)), (kind, code));
        assert!(self.stderr.contains(&message), "{self:?}");
    }
}

/// A command that goes on.
#[derive(Debug)]
pub(crate) struct Begun {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Begun {
    pub(crate) fn id(&self) -> ProcessId {
        ProcessId::of(self.child.id()).unwrap()
    }

    /// Reads lines until `stage` is reported.
    #[track_caller]
    pub(crate) fn reaches(&mut self, stage: &str) {
        let mut line = String::new();
        while self.lines.read_line(&mut line).unwrap() > 0 {
            let report: Report = serde_json::from_str(&line).unwrap();
            if report.stage() == stage {
                return;
            }
            line.clear();
        }
        let mut stderr = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        panic!("{stage} was not reached: {stderr}");
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        self.id().open().unwrap().unwrap().signal(signal).unwrap();
    }

    #[track_caller]
    pub(crate) fn ends(mut self) -> ExitStatus {
        if let Some(running) = self.id().open().unwrap() {
            assert!(running.wait(SOON).unwrap(), "still running");
        }
        self.child.wait().unwrap()
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

// 32-bit code, as a PVH kernel is entered (Xen's docs/misc/pvh.pandoc).
/// Writes "postern: up\n" to the first serial port.
const PRINT: &[u8] = &[
    0xe8, 0x0c, 0x00, 0x00, 0x00, // call over the text
    b'p', b'o', b's', b't', b'e', b'r', b'n', b':', b' ', b'u', b'p', b'\n', //
    0x5e,  // pop esi
    0x66, 0xba, 0xf8, 0x03, // mov dx, 0x3f8
    0xb9, 0x0c, 0x00, 0x00, 0x00, // mov ecx, 12
    0xf3, 0x6e, // rep outsb
];
const HALT: &[u8] = &[0xf4, 0xeb, 0xfd];
/// Loads an empty interrupt table and causes an exception: a triple fault.
const CRASH: &[u8] = &[
    0x6a, 0x00, 0x6a, 0x00, // push 0, twice
    0x0f, 0x01, 0x1c, 0x24, // lidt [esp]
    0x0f, 0x0b, // ud2
    0xf4, 0xeb, 0xfd,
];

/// An ELF file with a PVH note, which QEMU boots as it is.
fn kernel(code: &[u8]) -> Vec<u8> {
    const BASE: u64 = 0x10_0000;
    const CODE_AT: u64 = 0x1000;
    const NOTE_AT: u64 = 0x200;
    let entry = BASE + CODE_AT;
    let note: Vec<u8> = [
        &4u32.to_le_bytes()[..], // length of the name
        &4u32.to_le_bytes(),     // length of the value
        &18u32.to_le_bytes(),    // XEN_ELFNOTE_PHYS32_ENTRY
        b"Xen\0",
        &(entry as u32).to_le_bytes(),
    ]
    .concat();
    let segment = |kind: u32, at: u64, length: u64| -> Vec<u8> {
        let words = [at, BASE + at, BASE + at, length, length, 4];
        let head = [kind.to_le_bytes(), 7u32.to_le_bytes()].concat();
        [head, words.iter().flat_map(|word| word.to_le_bytes()).collect()].concat()
    };
    let mut elf = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    elf.extend([2u16.to_le_bytes(), 62u16.to_le_bytes()].concat()); // executable, x86-64
    elf.extend(1u32.to_le_bytes());
    elf.extend([entry, 64, 0].iter().flat_map(|word| word.to_le_bytes())); // entry, program headers, no sections
    elf.extend(0u32.to_le_bytes());
    elf.extend([64u16, 56, 2, 0, 0, 0].iter().flat_map(|half| half.to_le_bytes()));
    elf.extend(segment(1, CODE_AT, code.len() as u64));
    elf.extend(segment(4, NOTE_AT, note.len() as u64));
    elf.resize(NOTE_AT as usize, 0);
    elf.extend(note);
    elf.resize(CODE_AT as usize, 0);
    elf.extend_from_slice(code);
    elf
}
