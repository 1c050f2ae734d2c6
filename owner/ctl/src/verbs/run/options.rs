//! The options of `run` that describe the container, and the specification they make.

use std::{collections::BTreeMap, path::PathBuf};

use postern_api::owner as wire;
use postern_model::{
    ContainerName, ContainerSpec, Resources, RunUser,
    container::{MountKind, MountSpec},
};
use ring::rand::{SecureRandom, SystemRandom};

use crate::{
    failure::{Failure, OrFail},
    human,
    image::{ImageArgument, ImageSource},
    launch::parse,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Keep standard input open, and connect it in the foreground
    #[arg(long, short)]
    pub(super) interactive: bool,
    /// Give it a terminal
    #[arg(long, short)]
    pub(super) tty: bool,
    /// Remove the container when it ends
    #[arg(long)]
    pub(super) rm: bool,
    /// Its name; made up when left out
    #[arg(long, value_name = "NAME", value_parser = parse::<ContainerName>)]
    name: Option<ContainerName>,
    /// Set a variable; without a value, take it from here
    #[arg(long, short, value_name = "KEY[=VALUE]")]
    env: Vec<String>,
    /// Read variables from a file, one KEY=VALUE per line
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Mount a volume of the pod
    #[arg(long, short, value_name = "NAME:PATH[:ro]", value_parser = volume)]
    volume: Vec<MountSpec>,
    /// Mount memory
    #[arg(long, value_name = "PATH[:size=SIZE][,ro]", value_parser = tmpfs)]
    tmpfs: Vec<MountSpec>,
    /// Directory to start in
    #[arg(long, short, value_name = "DIR")]
    workdir: Option<PathBuf>,
    /// Run as this user: name or number, with an optional group
    #[arg(long, short, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Most memory it may use, for example 64M
    #[arg(long, short, value_name = "SIZE", value_parser = human::parse_memory)]
    memory: Option<u64>,
    /// Most CPU time it may use, in CPUs, for example 0.5
    #[arg(long, value_name = "N", value_parser = human::parse_cpus)]
    cpus: Option<u64>,
    /// Most processes and threads it may have
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pids_limit: Option<u64>,
    /// Make its root file system read-only
    #[arg(long)]
    read_only: bool,
    /// The program to run, in place of the image's entry point; empty for none
    #[arg(long, value_name = "PROGRAM")]
    entrypoint: Option<String>,
    /// Its host name
    #[arg(long, value_name = "NAME")]
    hostname: Option<String>,
    /// Add a capability, for example NET_ADMIN
    #[arg(long, value_name = "CAPABILITY")]
    cap_add: Vec<String>,
    /// Drop a capability, or ALL
    #[arg(long, value_name = "CAPABILITY")]
    cap_drop: Vec<String>,
    /// Attach a label
    #[arg(long, short, value_name = "KEY=VALUE", value_parser = label)]
    label: Vec<(String, String)>,
}

impl Options {
    /// The specification, checked as the wire will check it. The image of a local source is filled in after the push.
    pub(super) fn spec(&self, image: &ImageArgument, command: Vec<String>) -> Result<ContainerSpec, Failure> {
        let name = match &self.name {
            Some(name) => name.clone(),
            None => made_up(image)?,
        };
        let image = match image {
            ImageArgument::Reference(reference) => reference.clone(),
            ImageArgument::Local(source) => source.to_string(),
        };
        let mut spec = ContainerSpec::new(name, image);
        spec.entrypoint = self.entrypoint.clone().map(|program| match program.is_empty() {
            true => Vec::new(),
            false => vec![program],
        });
        spec.args = command;
        spec.env = variables(&self.env, &self.env_file)?;
        spec.working_dir.clone_from(&self.workdir);
        spec.user = self.user.clone().map_or(RunUser::Image, RunUser::Named);
        spec.hostname.clone_from(&self.hostname);
        spec.terminal = self.tty;
        spec.stdin = self.interactive;
        spec.read_only_rootfs = self.read_only;
        spec.mounts = self.volume.iter().chain(&self.tmpfs).cloned().collect();
        spec.resources = Resources { memory: self.memory, cpu_millis: self.cpus, pids: self.pids_limit };
        spec.add_capabilities.clone_from(&self.cap_add);
        spec.drop_capabilities.clone_from(&self.cap_drop);
        spec.auto_remove = self.rm;
        spec.labels = self.label.iter().cloned().collect();
        ContainerSpec::try_from(wire::ContainerSpec::from(spec))
            .map_err(|error| Failure::usage("the container cannot be described so").caused_by(error))
    }
}

/// The image's own name and four random digits.
fn made_up(image: &ImageArgument) -> Result<ContainerName, Failure> {
    let text = match image {
        ImageArgument::Reference(reference) => reference.clone(),
        ImageArgument::Local(
            ImageSource::OciDirectory { path, .. }
            | ImageSource::Archive { path }
            | ImageSource::Disk { path },
        ) => path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
        ImageArgument::Local(ImageSource::Stdin) => String::new(),
    };
    let text = text.split('@').next().unwrap_or_default();
    let last = text.rsplit('/').next().unwrap_or_default();
    let base: String = last
        .split(':')
        .next()
        .unwrap_or_default()
        .to_ascii_lowercase()
        .chars()
        .map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' })
        .take(32)
        .collect();
    let base = base.trim_matches('-');
    let base = if base.is_empty() { "container" } else { base };
    let mut random = [0; 2];
    SystemRandom::new()
        .fill(&mut random)
        .map_err(|_| Failure::general("no random numbers from the operating system"))?;
    format!("{base}-{}", hex::encode(random)).parse().or_fail(|| "cannot make up a name".into())
}

/// Files first, flags over them, as docker does.
pub(in crate::verbs) fn variables(
    flags: &[String],
    files: &[PathBuf],
) -> Result<BTreeMap<String, String>, Failure> {
    let mut env = BTreeMap::new();
    for path in files {
        let text = std::fs::read_to_string(path).or_fail(|| format!("cannot read {}", path.display()))?;
        for (number, line) in text.lines().enumerate() {
            if line.trim().is_empty() || line.trim_start().starts_with('#') {
                continue;
            }
            let bad = || Failure::usage(format!("{}:{}: no KEY=VALUE", path.display(), number + 1));
            set(&mut env, line, bad)?;
        }
    }
    for flag in flags {
        set(&mut env, flag, || Failure::usage(format!("--env {flag:?}: no KEY[=VALUE]")))?;
    }
    Ok(env)
}

/// A name alone takes its value from this program's environment, and is left out when it has none there.
fn set(env: &mut BTreeMap<String, String>, text: &str, bad: impl FnOnce() -> Failure) -> Result<(), Failure> {
    let (key, value) = match text.split_once('=') {
        Some((key, value)) => (key, Some(value.to_owned())),
        None => (text, std::env::var(text.trim()).ok()),
    };
    let key = key.trim();
    if key.is_empty() || key.contains(char::is_whitespace) {
        return Err(bad());
    }
    if let Some(value) = value {
        env.insert(key.to_owned(), value);
    }
    Ok(())
}

fn volume(text: &str) -> Result<MountSpec, String> {
    let usage = "a volume is written NAME:PATH or NAME:PATH:ro";
    let (name, rest) = text.split_once(':').ok_or(usage)?;
    if name.starts_with(['/', '.', '~']) {
        return Err("nothing of this machine can be mounted in the pod; copy it with `postern cp`".into());
    }
    let (path, read_only) = read_only(rest, ':')?;
    let name = name.parse().map_err(|error| format!("{error}; {usage}"))?;
    Ok(MountSpec { destination: absolute(path)?, kind: MountKind::Volume { name }, read_only })
}

fn tmpfs(text: &str) -> Result<MountSpec, String> {
    let (path, options) = text.split_once(':').unwrap_or((text, ""));
    let (mut size, mut read_only) = (None, false);
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option.split_once('=') {
            Some(("size", value)) => size = Some(human::parse_memory(value)?),
            None if option == "ro" => read_only = true,
            None if option == "rw" => read_only = false,
            _ => return Err(format!("unknown option {option:?}; use size=SIZE or ro")),
        }
    }
    Ok(MountSpec { destination: absolute(path)?, kind: MountKind::Tmpfs { size }, read_only })
}

fn read_only(text: &str, separator: char) -> Result<(&str, bool), String> {
    match text.split_once(separator) {
        None => Ok((text, false)),
        Some((path, "ro")) => Ok((path, true)),
        Some((path, "rw")) => Ok((path, false)),
        Some((_, other)) => Err(format!("unknown mode {other:?}; use ro or rw")),
    }
}

fn absolute(path: &str) -> Result<PathBuf, String> {
    match path.starts_with('/') {
        true => Ok(path.into()),
        false => Err(format!("{path:?} is not an absolute path in the container")),
    }
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some(("", _)) => Err("a label has a key".into()),
        Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
        None => Ok((text.to_owned(), String::new())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_read_as_written() {
        let mount = volume("data:/srv:ro").unwrap();
        assert_eq!(mount.kind, MountKind::Volume { name: "data".parse().unwrap() });
        assert!(mount.read_only);
        assert_eq!(tmpfs("/tmp:size=1M").unwrap().kind, MountKind::Tmpfs { size: Some(1 << 20) });
        assert_eq!(tmpfs("/tmp").unwrap().kind, MountKind::Tmpfs { size: None });
        for text in ["data", "data:srv", "data:/srv:rx", "DATA:/srv"] {
            assert!(volume(text).is_err(), "{text}");
        }
        assert!(volume("/etc:/etc").unwrap_err().contains("postern cp"), "host paths get their own answer");
        for text in ["tmp", "/tmp:size=x", "/tmp:exec"] {
            assert!(tmpfs(text).is_err(), "{text}");
        }
    }

    #[test]
    fn variables_come_from_files_and_flags() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("env");
        std::fs::write(&file, "# comment\n\nA=1\nB=x=y\n").unwrap();
        let env = variables(&["A=2".into(), "POSTERN_NOT_SET_ANYWHERE".into()], std::slice::from_ref(&file))
            .unwrap();
        assert_eq!(
            env.into_iter().collect::<Vec<_>>(),
            [("A".into(), "2".into()), ("B".into(), "x=y".into())]
        );
        std::fs::write(&file, "A=1\n=2\n").unwrap();
        assert!(variables(&[], &[file]).unwrap_err().to_string().contains("env:2"));
        assert!(variables(&["=x".into()], &[]).is_err());
    }

    #[test]
    fn a_name_is_made_up_from_the_image() {
        let name = |text: &str| made_up(&text.parse().unwrap()).unwrap().to_string();
        assert!(name("10.0.2.2:5000/tools/my_job:1.2").starts_with("my-job-"));
        assert!(name("busybox").starts_with("busybox-"));
        assert!(name("./some/web.image.tar").starts_with("web-image-"));
    }
}
