//! The programs a pod needs on its host: where they are looked for, and what to do when they are missing.

use std::{
    env, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

pub const QEMU: &str = "qemu-system-x86_64";
pub const VSOCK_HELPER: &str = "vhost-device-vsock";

/// How long a program may take to say its version.
const VERSION: Duration = Duration::from_secs(20);

/// A program that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    #[error("{program} was not found")]
    NotFound { program: &'static str, looked_in: Vec<PathBuf> },
    #[error("{} is not a program that can be run", path.display())]
    NotExecutable { path: PathBuf },
    #[error("{} did not say its version", path.display())]
    Version { path: PathBuf, source: io::Error },
}

impl ToolError {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::NotFound { program: QEMU, .. } => {
                "install it (apt-get install qemu-system-x86), or name it with `postern-host start --qemu PATH`".into()
            }
            Self::NotFound { looked_in, .. } => {
                let places: Vec<_> = looked_in.iter().map(|place| place.display().to_string()).collect();
                format!(
                    "install it (cargo install --locked vhost-device-vsock), or name it with `postern-host start --vsock-helper PATH`; \
                     looked in {} and PATH",
                    places.join(", ")
                )
            }
            Self::NotExecutable { .. } | Self::Version { .. } => "check the path and its permissions".into(),
        }
    }
}

/// Programs that were named on the command line, to be used instead of those that are found.
#[derive(Debug, Clone, Default)]
pub struct Tools {
    pub qemu: Option<PathBuf>,
    pub vsock_helper: Option<PathBuf>,
}

impl Tools {
    pub fn qemu(&self) -> Result<PathBuf, ToolError> {
        find(QEMU, self.qemu.as_deref(), Vec::new())
    }

    pub fn vsock_helper(&self) -> Result<PathBuf, ToolError> {
        find(VSOCK_HELPER, self.vsock_helper.as_deref(), beside_this_program())
    }
}

/// Beside this program, in an installation's `libexec`, and where a checkout's build puts what ships.
fn beside_this_program() -> Vec<PathBuf> {
    let Some(directory) = env::current_exe().ok().and_then(|exe| exe.parent().map(Path::to_owned)) else {
        return Vec::new();
    };
    vec![directory.join("../libexec/postern"), directory.join("../../dist/bin"), directory]
}

fn find(
    program: &'static str,
    explicit: Option<&Path>,
    mut looked_in: Vec<PathBuf>,
) -> Result<PathBuf, ToolError> {
    if let Some(path) = explicit {
        // A child runs in a directory of its own, so the path must not be relative to ours.
        return match is_executable(path).then(|| path.canonicalize()) {
            Some(Ok(path)) => Ok(path),
            _ => Err(ToolError::NotExecutable { path: path.to_owned() }),
        };
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let everywhere = looked_in.iter().cloned().chain(env::split_paths(&path).filter(|dir| dir.is_absolute()));
    match everywhere.map(|directory| directory.join(program)).find(|path| is_executable(path)) {
        Some(path) => Ok(path),
        None => {
            looked_in.retain(|place| place.is_dir());
            Err(ToolError::NotFound { program, looked_in })
        }
    }
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// QEMU's version, such as `7.2.22`.
pub async fn qemu_version(qemu: &Path) -> Result<String, ToolError> {
    let failed = |source| ToolError::Version { path: qemu.to_owned(), source };
    let output =
        tokio::process::Command::new(qemu).arg("--version").stdin(Stdio::null()).kill_on_drop(true).output();
    let output = match tokio::time::timeout(VERSION, output).await {
        Ok(output) => output.map_err(failed)?,
        Err(_) => return Err(failed(io::ErrorKind::TimedOut.into())),
    };
    let text = String::from_utf8_lossy(&output.stdout);
    parse_version(&text).ok_or_else(|| failed(io::ErrorKind::InvalidData.into()))
}

/// `QEMU emulator version 7.2.22 (Debian …)`.
fn parse_version(text: &str) -> Option<String> {
    let version = text.strip_prefix("QEMU emulator version ")?.split_ascii_whitespace().next()?;
    let plain = version.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'-' | b'+'));
    (plain && version.len() <= 32).then(|| version.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_versions() {
        let text = "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)\nCopyright (c)";
        assert_eq!(parse_version(text).as_deref(), Some("7.2.22"));
        assert_eq!(parse_version("QEMU emulator version 10.0.2\n").as_deref(), Some("10.0.2"));
        assert_eq!(parse_version("busybox"), None);
    }

    #[test]
    fn what_was_named_is_used_or_refused() {
        let tools = |path: &str| Tools { qemu: Some(path.into()), vsock_helper: None };
        assert!(tools("/bin/sh").qemu().is_ok());
        assert!(matches!(tools("/etc/passwd").qemu(), Err(ToolError::NotExecutable { .. })));
        assert!(matches!(tools("/no/such").qemu(), Err(ToolError::NotExecutable { .. })));
    }
}
