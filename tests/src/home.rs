//! An owner and a host with folders of their own, so that a test or the demo touches nothing of the user's, and the
//! `postern` command run as a user would.

use std::{
    ffi::OsStr,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, ensure};

use crate::{process::Guarded, programs};

/// How long one command may take; a pod's start under emulation on a loaded machine is the longest.
const COMMAND: Duration = Duration::from_secs(180);

/// Folders of one owner and one host.
#[derive(Debug, Clone)]
pub struct Home {
    root: PathBuf,
    /// Searched for programs before PATH.
    programs: Option<PathBuf>,
}

/// What a command said.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Home {
    pub fn new(root: impl Into<PathBuf>) -> anyhow::Result<Self> {
        let root = root.into();
        for folder in ["config", "state", "host", "tmp"] {
            std::fs::create_dir_all(root.join(folder))?;
        }
        Ok(Self { root, programs: None })
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Everything the host keeps.
    pub fn host_state(&self) -> PathBuf {
        self.root.join("host")
    }

    /// The same, with the programs in `folder` found before this machine's own.
    pub fn with_programs(self, folder: impl Into<PathBuf>) -> Self {
        Self { programs: Some(folder.into()), ..self }
    }

    /// Another owner on the same machine: an identity of its own, the same host.
    pub fn other_owner(&self, name: &str) -> anyhow::Result<Self> {
        Self::new(self.root.join(name))
    }

    /// One of the project's programs with this home's folders.
    pub fn command(&self, program: &str) -> anyhow::Result<Command> {
        let mut command = Command::new(programs::program(program)?);
        command
            .env("XDG_CONFIG_HOME", self.root.join("config"))
            .env("XDG_STATE_HOME", self.root.join("state"))
            .env("XDG_CACHE_HOME", self.root.join("cache"))
            .env("POSTERN_HOST_STATE", self.host_state())
            .env("POSTERN_IMAGE_DIR", programs::dist().join("image"))
            .env("TMPDIR", self.root.join("tmp"))
            .env("NO_COLOR", "1")
            .stdin(Stdio::null());
        if let Some(first) = &self.programs {
            let path = std::env::var_os("PATH").unwrap_or_default();
            let folders = std::iter::once(first.clone()).chain(std::env::split_paths(&path));
            command.env("PATH", std::env::join_paths(folders)?);
        }
        Ok(command)
    }

    /// Runs `postern ARGS` to its end.
    pub fn postern<S: AsRef<OsStr>>(&self, args: &[S]) -> anyhow::Result<Said> {
        self.run("postern", args, None)
    }

    /// Runs `postern ARGS` with `input` on its standard input.
    pub fn postern_with_input<S: AsRef<OsStr>>(&self, args: &[S], input: &[u8]) -> anyhow::Result<Said> {
        self.run("postern", args, Some(input))
    }

    /// Runs `postern-host ARGS` to its end.
    pub fn host<S: AsRef<OsStr>>(&self, args: &[S]) -> anyhow::Result<Said> {
        self.run("postern-host", args, None)
    }

    fn run<S: AsRef<OsStr>>(&self, program: &str, args: &[S], input: Option<&[u8]>) -> anyhow::Result<Said> {
        let mut command = self.command(program)?;
        command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
        if input.is_some() {
            command.stdin(Stdio::piped());
        }
        let mut process = Guarded::spawn(&mut command)?;
        let child = process.child();
        let stdout = reader(child.stdout.take().context("no stdout")?);
        let stderr = reader(child.stderr.take().context("no stderr")?);
        if let (Some(input), Some(mut stdin)) = (input.map(<[u8]>::to_vec), child.stdin.take()) {
            std::thread::spawn(move || stdin.write_all(&input));
        }
        let status = process.wait(COMMAND).with_context(|| {
            let words: Vec<_> = args.iter().map(|arg| arg.as_ref().to_string_lossy()).collect();
            format!("{program} {}", words.join(" "))
        })?;
        let collect = |thread: std::thread::JoinHandle<Vec<u8>>| thread.join().unwrap_or_default();
        use std::os::unix::process::ExitStatusExt as _;
        Ok(Said {
            code: status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default()),
            stdout: collect(stdout),
            stderr: String::from_utf8_lossy(&collect(stderr)).into_owned(),
        })
    }
}

fn reader(mut stream: impl std::io::Read + Send + 'static) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        bytes
    })
}

impl Said {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Fails unless the command ended with `code`.
    pub fn expect_code(self, code: i32) -> anyhow::Result<Self> {
        ensure!(
            self.code == code,
            "exit code {} instead of {code}\nstdout: {}\nstderr: {}",
            self.code,
            self.text().trim_end(),
            self.stderr.trim_end()
        );
        Ok(self)
    }

    pub fn ok(self) -> anyhow::Result<Self> {
        self.expect_code(0)
    }

    /// Standard output, read as JSON.
    pub fn json(&self) -> anyhow::Result<serde_json::Value> {
        serde_json::from_slice(&self.stdout).with_context(|| format!("not JSON: {}", self.text()))
    }
}
