//! Where the programs under test are: `$POSTERN_DIST/bin` when set (as `make` does), else `target/dist/bin`.

use std::{
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

/// The folder that `make build` fills.
pub fn dist() -> PathBuf {
    match std::env::var_os("POSTERN_DIST") {
        Some(dist) => PathBuf::from(dist),
        None => root().join("target/dist"),
    }
}

/// The workspace's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_owned).unwrap_or_default()
}

/// One of the project's programs, or what to do about its absence.
pub fn program(name: &str) -> anyhow::Result<PathBuf> {
    let path = dist().join("bin").join(name);
    anyhow::ensure!(path.is_file(), "{} is missing; run `make build`", path.display());
    Ok(path)
}

/// The folder of the guest image.
pub fn image() -> anyhow::Result<PathBuf> {
    let path = dist().join("image");
    anyhow::ensure!(path.join("image.json").is_file(), "{} holds no image; run `make image`", path.display());
    Ok(path)
}

/// A program of the system, or which package brings it.
pub fn system(name: &str, package: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into(), "/bin".into()]);
    folders
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
        .ok_or_else(|| anyhow::anyhow!("{name} is missing; install the package {package}"))
}

/// Makes a shell script that can be run: what a host puts in a program's place.
pub fn write_script(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, format!("#!/bin/bash\n{text}\n"))?;
    Ok(std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))?)
}
