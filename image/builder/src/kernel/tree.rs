//! An unpacked kernel source and what is done with it: patched, configured, compiled by the kernel's own Makefile.
//!
//! The environment of every program here is ours alone, so that neither the user's variables nor the time, the place
//! or the name of the machine reach the kernel.

use std::{
    env,
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use super::{
    cache::Workspace,
    config::Configuration,
    interruptible::{RunError, Runner},
    source::Patch,
};

/// What the kernel says of its build, instead of who, where and when.
const IDENTITY: &[(&str, &str)] = &[
    ("KBUILD_BUILD_TIMESTAMP", "1970-01-01 00:00:00 UTC"),
    ("KBUILD_BUILD_USER", "postern"),
    ("KBUILD_BUILD_HOST", "postern"),
    ("KBUILD_BUILD_VERSION", "1"),
    ("LC_ALL", "C"),
    ("TZ", "UTC"),
];
/// The variables of the user's that do reach the programs.
const PASSED: &[&str] = &["PATH", "HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "CCACHE_DIR", "TMPDIR"];
/// Programs that a build runs, with the packages they are in.
const PROGRAMS: &[(&str, &str)] = &[
    ("make", "make"),
    ("gcc", "gcc"),
    ("ld", "binutils"),
    ("flex", "flex"),
    ("bison", "bison"),
    ("bc", "bc"),
    ("xz", "xz-utils"),
    ("tar", "tar"),
    ("patch", "patch"),
    ("lz4", "lz4"),
    ("cpio", "cpio"),
];
/// A header that objtool is compiled with, and its package.
const LIBELF: (&str, &str) = ("/usr/include/gelf.h", "libelf-dev");
/// Parts of the source without a line that is compiled or configured here: a third of it.
const LEFT_PACKED: &[&str] =
    &["*/arch/*/boot/dts/*", "*/Documentation/*/*", "*/drivers/gpu/drm/amd/include/*", "*/tools/testing/*"];
/// How often a long step says that it goes on.
const PROGRESS: Duration = Duration::from_secs(15);
/// Lines of a failed step that are shown.
const SHOWN: usize = 20;
/// Below this the disk counts as full.
const FULL: u64 = 16 << 20;

/// Why a step of a build failed.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    #[error("a kernel cannot be built without {}; install {}, or run ./setup.sh kernel", missing.join(", "), packages.join(" "))]
    Missing { missing: Vec<&'static str>, packages: Vec<&'static str> },
    #[error("listening for signals")]
    Signals(#[source] io::Error),
    #[error("{action} {}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("{step} failed with {status}:\n  {}", lines.join("\n  "))]
    Step { step: String, status: String, lines: Vec<String> },
    #[error("the disk of {} is full; free some space, or set XDG_CACHE_HOME to another disk", .0.display())]
    DiskFull(PathBuf),
    #[error("the package holds no usr/src/linux-source-*.tar.xz")]
    NoTarball,
    #[error("a program that the build needs")]
    Run(#[from] RunError),
    #[error("`size` said nothing that can be read")]
    Size,
}

/// A source tree in a directory of its own.
#[derive(Debug)]
pub(super) struct Tree {
    /// Removed with everything in it when the tree is dropped.
    workspace: Workspace,
    path: PathBuf,
}

impl Tree {
    /// The compiler and the linker, as they name themselves.
    pub(super) fn toolchain() -> Result<String, TreeError> {
        check_programs()?;
        let version = |program: &str| {
            let mut command = Command::new(program);
            isolate(command.arg("--version"));
            let output = command.output().map_err(|e| RunError::Start(program.to_owned(), e))?;
            let text = String::from_utf8_lossy(&output.stdout);
            Ok::<_, TreeError>(text.lines().next().unwrap_or_default().to_owned())
        };
        Ok(format!("{}; {}", version("gcc")?, version("ld")?))
    }

    /// Unpacks a source package of the distribution.
    pub(super) fn unpack(
        package: &Path,
        workspace: Workspace,
        runner: &mut Runner,
    ) -> Result<Self, TreeError> {
        let unpacked = workspace.path().join("package");
        let path = workspace.path().join("linux");
        let tree = Self { workspace, path };
        let mut command = Command::new("dpkg-deb");
        command.arg("--extract").arg(package).arg(&unpacked);
        tree.step("unpacking the package", command, runner, &mut |_| {})?;
        let tarball = find_tarball(&unpacked.join("usr/src"))?;
        fs::create_dir(&tree.path).map_err(|source| tree.failed("making", source))?;
        let mut command = Command::new("tar");
        command.args([
            "--extract",
            "--xz",
            "--strip-components=1",
            "--no-same-owner",
            "--wildcards",
            "--file",
        ]);
        command.arg(&tarball).arg("--directory").arg(&tree.path);
        command.args(LEFT_PACKED.iter().map(|part| format!("--exclude={part}")));
        tree.step("unpacking the source", command, runner, &mut |_| {})?;
        fs::remove_dir_all(&unpacked).map_err(|source| tree.failed("emptying", source))?;
        Ok(tree)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The kernel that was compiled.
    pub(super) fn kernel(&self) -> PathBuf {
        self.path.join("arch/x86/boot/bzImage")
    }

    /// Applies a patch; one that does not fit exactly is refused.
    pub(super) fn patch(&self, patch: &Patch, runner: &mut Runner) -> Result<(), TreeError> {
        let file = self.workspace.path().join(&patch.name);
        fs::write(&file, &patch.text).map_err(|source| self.failed("writing", source))?;
        let mut command = Command::new("patch");
        command.args(["--strip=1", "--fuzz=0", "--batch", "--forward", "--input"]).arg(&file);
        command.arg("--directory").arg(&self.path);
        self.step(&format!("applying {}", patch.name), command, runner, &mut |_| {})
    }

    /// Resolves a fragment: what it names as it says, everything else off unless something needs it.
    pub(super) fn configure(&self, fragment: &str, runner: &mut Runner) -> Result<Configuration, TreeError> {
        let file = self.workspace.path().join("fragment");
        fs::write(&file, fragment).map_err(|source| self.failed("writing", source))?;
        let mut command = self.make();
        command.env("KCONFIG_ALLCONFIG", &file).arg("allnoconfig");
        self.step("configuring", command, runner, &mut |_| {})?;
        let text = fs::read_to_string(self.path.join(".config"));
        Ok(Configuration::parse(&text.map_err(|source| self.failed("reading .config in", source))?))
    }

    /// Compiles, in a low priority.
    pub(super) fn compile(
        &self,
        jobs: usize,
        runner: &mut Runner,
        say: &mut dyn FnMut(&str),
    ) -> Result<(), TreeError> {
        let mut command = self.make();
        command.arg(format!("--jobs={jobs}")).arg("bzImage");
        let start = Instant::now();
        let (mut steps, mut said) = (0_usize, start);
        self.step("compiling", command, runner, &mut |_| {
            steps += 1;
            if said.elapsed() >= PROGRESS {
                said = Instant::now();
                let seconds = start.elapsed().as_secs();
                say(&format!("compiling: {steps} files after {}:{:02}", seconds / 60, seconds % 60));
            }
        })
    }

    /// Bytes of text, data and bss of the kernel that was compiled.
    pub(super) fn sections(&self, runner: &mut Runner) -> Result<[u64; 3], TreeError> {
        let mut command = Command::new("size");
        command.arg(self.path.join("vmlinux"));
        let mut last = String::new();
        self.step("measuring", command, runner, &mut |line| line.clone_into(&mut last))?;
        let mut numbers = last.split_whitespace().map_while(|word| word.parse().ok());
        match (numbers.next(), numbers.next(), numbers.next()) {
            (Some(text), Some(data), Some(bss)) => Ok([text, data, bss]),
            _ => Err(TreeError::Size),
        }
    }

    fn make(&self) -> Command {
        let mut command = Command::new("nice");
        command
            .args(["-n", "5", "make", "--no-print-directory", "ARCH=x86"])
            .arg("--directory")
            .arg(&self.path);
        if has("ccache") {
            // The path of this directory is not part of what is compiled, so it is none of what is looked up.
            command.args(["CC=ccache gcc", "HOSTCC=ccache gcc"]);
            command.env("CCACHE_BASEDIR", &self.path).env("CCACHE_NOHASHDIR", "1");
        }
        command
    }

    fn step(
        &self,
        step: &str,
        mut command: Command,
        runner: &mut Runner,
        line: &mut dyn FnMut(&str),
    ) -> Result<(), TreeError> {
        isolate(&mut command);
        let mut last = std::collections::VecDeque::new();
        let status = runner.run(step, command, |text| {
            if last.len() == SHOWN {
                last.pop_front();
            }
            last.push_back(text.to_owned());
            line(text);
        })?;
        if status.success() {
            return Ok(());
        }
        let full = rustix::fs::statvfs(self.workspace.path())
            .is_ok_and(|space| space.f_bavail.saturating_mul(space.f_frsize) < FULL);
        if full || last.iter().any(|line| line.contains("No space left on device")) {
            return Err(TreeError::DiskFull(self.workspace.path().into()));
        }
        // Compilers name their place; the last lines alone can be of other jobs.
        let errors: Vec<String> = last.iter().filter(|line| line.contains("rror:")).cloned().collect();
        let lines = if errors.is_empty() { last.into() } else { errors };
        Err(TreeError::Step { step: step.to_owned(), status: status.to_string(), lines })
    }

    fn failed(&self, action: &'static str, source: io::Error) -> TreeError {
        match source.kind() {
            io::ErrorKind::StorageFull => TreeError::DiskFull(self.workspace.path().into()),
            _ => TreeError::Io { action, path: self.path.clone(), source },
        }
    }
}

/// Leaves of the environment only what [`PASSED`] names, and what was set for this command.
fn isolate(command: &mut Command) {
    let own: Vec<(OsString, Option<OsString>)> =
        command.get_envs().map(|(name, value)| (name.into(), value.map(Into::into))).collect();
    command.env_clear();
    command.envs(PASSED.iter().filter_map(|name| Some((*name, env::var_os(name)?))));
    command.envs(IDENTITY.iter().copied());
    command.envs(own.into_iter().filter_map(|(name, value)| Some((name, value?))));
}

fn check_programs() -> Result<(), TreeError> {
    let mut missing: Vec<(&str, &str)> = PROGRAMS.iter().copied().filter(|(name, _)| !has(name)).collect();
    if !Path::new(LIBELF.0).is_file() {
        missing.push(LIBELF);
    }
    if missing.is_empty() {
        return Ok(());
    }
    let (missing, packages) = missing.into_iter().unzip();
    Err(TreeError::Missing { missing, packages })
}

fn has(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

fn find_tarball(directory: &Path) -> Result<PathBuf, TreeError> {
    let entries = fs::read_dir(directory).map_err(|_| TreeError::NoTarball)?;
    let is_source = |path: &PathBuf| {
        path.file_name()
            .and_then(|name| name.to_str())
            .is_some_and(|name| name.starts_with("linux-source-") && name.ends_with(".tar.xz"))
    };
    entries.filter_map(|entry| Some(entry.ok()?.path())).find(is_source).ok_or(TreeError::NoTarball)
}
