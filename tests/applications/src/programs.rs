//! The programs that this one drives: the project's, of `$POSTERN_DIST` or target/dist, and those of the system.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The workspace's root.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).map(Path::to_owned).unwrap_or_default()
}

/// One of the project's programs, or what to do about its absence.
pub(crate) fn program(name: &str) -> anyhow::Result<PathBuf> {
    let dist = std::env::var_os("POSTERN_DIST").map_or_else(|| root().join("target/dist"), PathBuf::from);
    let path = dist.join("bin").join(name);
    anyhow::ensure!(path.is_file(), "{} is missing; run `make build`", path.display());
    Ok(path)
}

/// A program of the system, or which package brings it.
pub(crate) fn system(name: &str, package: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
        .ok_or_else(|| anyhow::anyhow!("{name} is missing; install the package {package}"))
}

/// An owner and a host with folders of their own.
#[derive(Debug)]
pub(crate) struct Home(tempfile::TempDir);

/// What a command said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) success: bool,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Home {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("postern-applications-").tempdir()?;
        for name in ["config", "state", "host", "tmp"] {
            std::fs::create_dir(folder.path().join(name))?;
        }
        Ok(Self(folder))
    }

    /// Runs `postern ARGS` to its end, which has deadlines of its own.
    pub(crate) fn postern<S: AsRef<OsStr>>(&self, args: &[S]) -> anyhow::Result<Said> {
        let folder = self.0.path();
        let output = Command::new(program("postern")?)
            .args(args)
            .env("XDG_CONFIG_HOME", folder.join("config"))
            .env("XDG_STATE_HOME", folder.join("state"))
            .env("POSTERN_HOST_STATE", folder.join("host"))
            .env("TMPDIR", folder.join("tmp"))
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .output()?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(Said {
            success: output.status.success(),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        })
    }

    /// The same, where only success will do.
    pub(crate) fn must<S: AsRef<OsStr>>(&self, args: &[S]) -> anyhow::Result<()> {
        let said = self.postern(args)?;
        let words: Vec<_> = args.iter().map(|arg| arg.as_ref().to_string_lossy()).collect();
        anyhow::ensure!(said.success, "postern {}: {}{}", words.join(" "), said.stdout, said.stderr);
        Ok(())
    }
}
