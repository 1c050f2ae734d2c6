//! Times create, start, delete and exec of `true`, by this runtime or by crun, in one process and one root file system:
//! `figures ours|crun ROUNDS`. Also `figures stream`: bytes per second of `cat`, copy in and copy out.
//!
//! As a worker it is called with the worker's argument. crun needs the unified hierarchy hidden where v1 is in use:
//! `unshare -m --propagation private sh -c 'umount /sys/fs/cgroup/unified; exec figures crun 25'`.

// A test stops at the first surprise.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio as Std},
    time::{Duration, Instant},
};

use oci_spec::image::{Config, ImageConfigurationBuilder, RootFsBuilder};
use postern_container::{
    CopyInOptions, CopyOutOptions, CreateContainer, ExecProcess, Init, Reaper, Runtime, RuntimeConfig,
    SpecContext, Stdio, spec, worker,
};
use postern_model::{ContainerName, ContainerSpec};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn main() {
    worker::main();
    let arguments: Vec<String> = std::env::args().collect();
    let rounds = arguments.get(2).and_then(|rounds| rounds.parse().ok()).unwrap_or(25);
    match arguments.get(1).map(String::as_str) {
        Some("ours") => tokio_run(ours(rounds)),
        Some("stream") => tokio_run(stream()),
        Some("crun") => crun(rounds),
        _ => eprintln!("usage: figures ours|crun|stream [ROUNDS]"),
    }
}

fn tokio_run(work: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work);
}

struct Place {
    directory: PathBuf,
}

impl Place {
    fn new() -> Self {
        let directory = std::env::temp_dir().join(format!("postern-figures-{}", std::process::id()));
        fs::create_dir_all(directory.join("rootfs/bin")).unwrap();
        fs::create_dir_all(directory.join("rootfs/tmp")).unwrap();
        fs::copy("/bin/busybox", directory.join("rootfs/bin/busybox")).unwrap();
        for applet in ["sleep", "true", "cat", "sh"] {
            symlink("busybox", directory.join("rootfs/bin").join(applet)).unwrap();
        }
        for name in ["hosts", "hostname", "resolv.conf"] {
            fs::write(directory.join(name), "").unwrap();
        }
        Self { directory }
    }

    fn spec(&self, name: &str) -> oci_spec::runtime::Spec {
        let mut wish = ContainerSpec::new(ContainerName::new(name).unwrap(), "image");
        wish.args = vec!["sleep".into(), "1000".into()];
        let layers = RootFsBuilder::default().typ("layers").diff_ids(Vec::new()).build().unwrap();
        let image = ImageConfigurationBuilder::default()
            .architecture("amd64")
            .os("linux")
            .config(Config::default())
            .rootfs(layers)
            .build()
            .unwrap();
        let file = |name: &str| self.directory.join(name);
        let context = SpecContext {
            rootfs: file("rootfs"),
            hosts: file("hosts"),
            hostname_file: file("hostname"),
            resolv_conf: file("resolv.conf"),
            hostname: "pod".into(),
            volumes: file("volumes"),
        };
        spec::build(&wish, &image, &context).unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

#[derive(Default)]
struct Times(Vec<(&'static str, Vec<Duration>)>);

impl Times {
    fn add(&mut self, what: &'static str, since: Instant) {
        let took = since.elapsed();
        match self.0.iter_mut().find(|(name, _)| *name == what) {
            Some((_, times)) => times.push(took),
            None => self.0.push((what, vec![took])),
        }
    }

    fn print(mut self, who: &str) {
        for (what, times) in &mut self.0 {
            times.sort();
            let millis = |time: Duration| time.as_secs_f64() * 1000.0;
            let (median, least) = (millis(times[times.len() / 2]), millis(times[0]));
            println!("{who:6} {what:14} median {median:7.2} ms  min {least:7.2} ms");
        }
    }
}

fn process(args: &[&str]) -> ExecProcess {
    ExecProcess { args: args.iter().map(|arg| (*arg).to_owned()).collect(), ..ExecProcess::default() }
}

fn runtime(place: &Place) -> Runtime {
    let parent = format!("postern-figures-{}", std::process::id());
    let config = RuntimeConfig::new(place.directory.join("state"), "/proc/self/exe", parent);
    Runtime::new(config, Reaper::start().unwrap()).unwrap()
}

async fn ours(rounds: u32) {
    let place = Place::new();
    let runtime = runtime(&place);
    let mut times = Times::default();
    let id = ContainerName::new("c").unwrap();
    for _ in 0..rounds {
        let spec = place.spec("c");
        let begin = Instant::now();
        let create = CreateContainer { id: id.clone(), spec, init: Init::Command, stdio: Stdio::OutputOnly };
        let created = runtime.create(create).await.unwrap();
        times.add("create", begin);
        let start = Instant::now();
        runtime.start(&id).await.unwrap();
        times.add("start", start);
        times.add("create+start", begin);
        for _ in 0..4 {
            let exec = Instant::now();
            let done = runtime.exec(&id, process(&["true"]), Stdio::Pipes).await.unwrap();
            times.add("exec-started", exec);
            assert!(done.process.exit().wait().await.success());
            times.add("exec", exec);
        }
        let delete = Instant::now();
        runtime.delete(&id).await.unwrap();
        times.add("delete", delete);
        drop(created);
    }
    runtime.shut_down().await;
    times.print("ours");
}

fn crun(rounds: u32) {
    let place = Place::new();
    let mut times = Times::default();
    let mut spec = place.spec("c");
    // The newest that crun 1.8 knows.
    spec.set_version("1.0.2".into());
    let name = format!("figures-{}", std::process::id());
    spec.linux_mut().as_mut().unwrap().set_cgroups_path(Some(format!("/postern-crun/{name}").into()));
    fs::write(place.directory.join("config.json"), serde_json::to_vec(&spec).unwrap()).unwrap();
    let run = |arguments: &[&str]| {
        let status = Command::new("crun")
            .args(["--root", place.directory.join("crun").to_str().unwrap()])
            .args(arguments)
            .stdin(Std::null())
            .stdout(Std::null())
            .status()
            .unwrap();
        assert!(status.success(), "{arguments:?}");
    };
    let bundle = place.directory.to_str().unwrap();
    for _ in 0..rounds {
        let begin = Instant::now();
        run(&["create", "-b", bundle, &name]);
        times.add("create", begin);
        let start = Instant::now();
        run(&["start", &name]);
        times.add("start", start);
        times.add("create+start", begin);
        for _ in 0..4 {
            let exec = Instant::now();
            run(&["exec", &name, "true"]);
            times.add("exec", exec);
        }
        let delete = Instant::now();
        run(&["delete", "-f", &name]);
        times.add("delete", delete);
    }
    times.print("crun");
}

const STREAM: usize = 1 << 30;

async fn stream() {
    let place = Place::new();
    let runtime = runtime(&place);
    let id = ContainerName::new("c").unwrap();
    let create = CreateContainer {
        id: id.clone(),
        spec: place.spec("c"),
        init: Init::Command,
        stdio: Stdio::OutputOnly,
    };
    let _created = runtime.create(create).await.unwrap();
    runtime.start(&id).await.unwrap();
    let rate = |what: &str, begin: Instant| {
        println!("{what:8} {:7.0} MiB/s", STREAM as f64 / (1 << 20) as f64 / begin.elapsed().as_secs_f64());
    };

    let mut header = tar::Header::new_gnu();
    header.set_path("big").unwrap();
    header.set_size(STREAM as u64);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_cksum();
    let piece = vec![7u8; 1 << 20];
    let begin = Instant::now();
    let options = CopyInOptions { preserve_owner: true };
    let mut copy = runtime.copy_in(&id, Path::new("/tmp"), options).await.unwrap();
    let writer = copy.writer.as_mut().unwrap();
    writer.write_all(header.as_bytes()).await.unwrap();
    for _ in 0..STREAM >> 20 {
        writer.write_all(&piece).await.unwrap();
    }
    writer.write_all(&[0; 1024]).await.unwrap();
    copy.finish().await.unwrap();
    rate("copy in", begin);

    let begin = Instant::now();
    let mut copy = runtime.copy_out(&id, Path::new("/tmp/big"), CopyOutOptions::default()).await.unwrap();
    let mut buffer = vec![0; 1 << 20];
    while copy.reader.read(&mut buffer).await.unwrap() > 0 {}
    copy.finish().await.unwrap();
    rate("copy out", begin);

    let begin = Instant::now();
    let mut cat = runtime.exec(&id, process(&["cat", "/tmp/big"]), Stdio::OutputOnly).await.unwrap();
    let stdout = cat.io.stdout.as_mut().unwrap();
    while stdout.read(&mut buffer).await.unwrap() > 0 {}
    assert!(cat.process.exit().wait().await.success());
    rate("cat", begin);
    runtime.delete(&id).await.unwrap();
    runtime.shut_down().await;
}
