//! Specifications from wishes and images, without any container.

use std::{collections::BTreeMap, fs, path::PathBuf};

use oci_spec::image::{Config, ConfigBuilder, ImageConfigurationBuilder, RootFsBuilder};
use postern_model::{ContainerName, RunUser};

use super::*;

struct Pod {
    directory: tempfile::TempDir,
}

impl Pod {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir_all(directory.path().join("rootfs/etc")).unwrap();
        fs::write(directory.path().join("rootfs/etc/passwd"), "root:x:0:0::/root:\nweb:x:33:44::/srv:\n")
            .unwrap();
        Self { directory }
    }

    fn context(&self) -> SpecContext {
        let path = |name: &str| self.directory.path().join(name);
        SpecContext {
            rootfs: path("rootfs"),
            hosts: path("hosts"),
            hostname_file: path("hostname"),
            resolv_conf: path("resolv.conf"),
            hostname: "pod".into(),
            volumes: path("volumes"),
        }
    }

    fn build(&self, wish: &ContainerSpec, config: Config) -> Result<Spec, SpecError> {
        let image = ImageConfigurationBuilder::default()
            .architecture("amd64")
            .os("linux")
            .config(config)
            .rootfs(RootFsBuilder::default().typ("layers").diff_ids(Vec::new()).build().unwrap())
            .build()
            .unwrap();
        build(wish, &image, &self.context())
    }
}

fn strings(items: &[&str]) -> Vec<String> {
    items.iter().map(|item| (*item).to_owned()).collect()
}

fn wish(args: &[&str]) -> ContainerSpec {
    ContainerSpec { args: strings(args), ..ContainerSpec::new(ContainerName::new("c").unwrap(), "image") }
}

fn config() -> ConfigBuilder {
    ConfigBuilder::default()
}

fn args_of(spec: &Spec) -> Vec<String> {
    spec.process().as_ref().unwrap().args().clone().unwrap()
}

fn env_of(spec: &Spec) -> BTreeMap<String, String> {
    let env = spec.process().as_ref().unwrap().env().clone().unwrap();
    env.iter()
        .map(|pair| pair.split_once('=').unwrap())
        .map(|(key, value)| (key.into(), value.into()))
        .collect()
}

#[test]
fn entry_point_and_command_combine_as_dockers_do() {
    let pod = Pod::new();
    let image = || config().entrypoint(strings(&["entry"])).cmd(strings(&["default"])).build().unwrap();
    let with_entrypoint = |entrypoint: &[&str], args: &[&str]| ContainerSpec {
        entrypoint: Some(strings(entrypoint)),
        ..wish(args)
    };
    for (wish, expected) in [
        (wish(&[]), &["entry", "default"][..]),
        (wish(&["own"]), &["entry", "own"]),
        (with_entrypoint(&["other"], &[]), &["other"]),
        (with_entrypoint(&["other"], &["own"]), &["other", "own"]),
        (with_entrypoint(&[], &["own"]), &["own"]),
    ] {
        assert_eq!(args_of(&pod.build(&wish, image()).unwrap()), expected);
    }
    for wish in [with_entrypoint(&[], &[]), with_entrypoint(&[""], &[])] {
        assert!(matches!(pod.build(&wish, image()), Err(SpecError::NoCommand)));
    }
    assert!(matches!(pod.build(&wish(&[]), Config::default()), Err(SpecError::NoCommand)));
    assert!(matches!(pod.build(&wish(&["a\0b"]), Config::default()), Err(SpecError::Nul(_))));
}

#[test]
fn environment_is_layered() {
    let pod = Pod::new();
    let image =
        config().env(strings(&["A=1", "B=1=2", "broken", "PATH=/image"])).user("web").build().unwrap();
    let mut owner = wish(&["x"]);
    owner.env = [("A".into(), "2".into()), ("C".into(), String::new())].into();
    owner.terminal = true;
    let env = env_of(&pod.build(&owner, image).unwrap());
    let expected = [
        ("A", "2"),
        ("B", "1=2"),
        ("C", ""),
        ("HOME", "/srv"),
        ("HOSTNAME", "pod"),
        ("PATH", "/image"),
        ("TERM", "xterm"),
    ];
    assert_eq!(env, expected.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
    for (key, value) in [("", "x"), ("A=B", "x"), ("A", "x\0"), ("A\0", "x")] {
        let mut broken = wish(&["x"]);
        broken.env = [(key.to_owned(), value.to_owned())].into();
        assert!(pod.build(&broken, Config::default()).is_err(), "{key:?}={value:?}");
    }
}

#[test]
fn user_and_directory_come_from_the_owner_first() {
    let pod = Pod::new();
    let image = || config().user("web").working_dir("/from/image").build().unwrap();
    let spec = pod.build(&wish(&["x"]), image()).unwrap();
    let process = spec.process().as_ref().unwrap();
    assert_eq!((process.user().uid(), process.user().gid()), (33, 44));
    assert_eq!(process.cwd(), &PathBuf::from("/from/image"));
    assert!(pod.directory.path().join("rootfs/from/image").is_dir());

    let mut owner = wish(&["x"]);
    owner.user = RunUser::Named("0:7".into());
    owner.working_dir = Some("/".into());
    let spec = pod.build(&owner, image()).unwrap();
    let process = spec.process().as_ref().unwrap();
    assert_eq!((process.user().uid(), process.user().gid()), (0, 7));
    assert_eq!(process.cwd(), &PathBuf::from("/"));

    owner.user = RunUser::Named("nobody".into());
    assert!(matches!(pod.build(&owner, image()), Err(SpecError::User(_))));
}

#[test]
fn every_specification_confines() {
    let pod = Pod::new();
    let pause = pause(&pod.context()).unwrap();
    for spec in [pod.build(&wish(&["x"]), Config::default()).unwrap(), pause] {
        let (process, linux) = (spec.process().as_ref().unwrap(), spec.linux().as_ref().unwrap());
        assert_eq!(process.no_new_privileges(), Some(true));
        assert!(linux.seccomp().is_some() && process.capabilities().is_some() && spec.hooks().is_none());
        assert_eq!(linux.namespaces().as_ref().unwrap().len(), 5);
        assert!(linux.masked_paths().as_ref().unwrap().iter().any(|path| path == "/proc/kcore"));
        assert!(!linux.resources().as_ref().unwrap().devices().as_ref().unwrap()[0].allow());
        // Through a file and back, as it is kept.
        let json = serde_json::to_string(&spec).unwrap();
        assert_eq!(serde_json::from_str::<Spec>(&json).unwrap(), spec);
    }
}

#[test]
fn volumes_take_owner_and_mode_once() {
    let pod = Pod::new();
    fs::create_dir(pod.directory.path().join("volumes")).unwrap();
    fs::create_dir(pod.directory.path().join("rootfs/data")).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode;
    fs::set_permissions(pod.directory.path().join("rootfs/data"), mode(0o1770)).unwrap();
    let mut owner = wish(&["x"]);
    let kind = postern_model::container::MountKind::Volume { name: ContainerName::new("v").unwrap() };
    owner.mounts =
        vec![postern_model::container::MountSpec { destination: "/data".into(), kind, read_only: false }];
    pod.build(&owner, Config::default()).unwrap();
    let volume = pod.directory.path().join("volumes/v");
    let mode_of = || std::os::unix::fs::MetadataExt::mode(&fs::metadata(&volume).unwrap()) & 0o7777;
    assert_eq!(mode_of(), 0o1770);
    fs::set_permissions(&volume, mode(0o700)).unwrap();
    pod.build(&owner, Config::default()).unwrap();
    assert_eq!(mode_of(), 0o700);

    // A volume that is a link is none.
    fs::remove_dir(&volume).unwrap();
    std::os::unix::fs::symlink("/etc", &volume).unwrap();
    assert!(matches!(pod.build(&owner, Config::default()), Err(SpecError::Volume { .. })));
}
