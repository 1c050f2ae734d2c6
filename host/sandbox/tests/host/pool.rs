//! Pools: a start takes what stands ready if it is just what it would make; a shell serves one tenant or none.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    process::{Child, ExitStatus, Stdio},
    sync::mpsc,
    time::Instant,
};

use postern_launch::ImageManifest;
use postern_sandbox::{
    Home,
    process::ProcessId,
    state::{PodRecord, Shell, ShellRecord, ShellStatus},
};
use rustix::process::Signal;
use serde_json::Value;

use crate::rig::{Begun, Guest, Rig, SOON};

mod claims;

struct Pool<'a> {
    rig: &'a Rig,
    child: Child,
    events: mpsc::Receiver<Value>,
}

impl<'a> Pool<'a> {
    fn new(rig: &'a Rig, size: &str, more: &[&str]) -> Self {
        let mut command = rig.command(&["pool", "--size", size, "--tee", "simulated", "--output", "json"]);
        command.arg("--image").arg(rig.image()).args(more);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (sender, events) = mpsc::sync_channel(1000);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let _ = sender.send(serde_json::from_str(&line).unwrap());
            }
        });
        Self { rig, child, events }
    }

    /// Waits for an event of this kind.
    #[track_caller]
    fn says(&mut self, event: &str) -> Value {
        let end = Instant::now() + SOON;
        while let Ok(said) = self.events.recv_timeout(end.saturating_duration_since(Instant::now())) {
            if said["event"] == event {
                return said;
            }
        }
        panic!("the pool did not say {event}");
    }

    /// Waits until so many can be claimed.
    #[track_caller]
    fn has(&self, count: usize) -> Vec<ShellRecord> {
        let end = Instant::now() + SOON;
        loop {
            let mut shells = self.shells();
            shells.retain(|shell| shell.status().unwrap() == Some(ShellStatus::Shell));
            if shells.len() == count {
                return shells.iter().map(|shell| shell.record().unwrap()).collect();
            }
            assert!(Instant::now() < end, "not {count}: {shells:?}");
            std::thread::yield_now();
        }
    }

    fn signal(&self, signal: Signal) {
        ProcessId::of(self.child.id()).unwrap().open().unwrap().unwrap().signal(signal).unwrap();
    }

    fn ends(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    fn shells(&self) -> Vec<Shell> {
        Home::at(self.rig.state()).shells().unwrap()
    }

    /// The only shell.
    #[track_caller]
    fn shell(&self) -> ShellRecord {
        let shells = self.shells();
        assert_eq!(shells.len(), 1, "{shells:?}");
        shells[0].record().unwrap()
    }
}

impl Drop for Pool<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn qemu(children: &[postern_sandbox::state::ChildRecord]) -> ProcessId {
    children.iter().find(|child| child.role == "qemu").unwrap().process
}

fn pod(rig: &Rig, name: &str) -> PodRecord {
    Home::at(rig.state()).pod(&name.parse().unwrap()).unwrap().record().unwrap()
}

#[track_caller]
fn is_gone(process: ProcessId) {
    if let Some(running) = process.open().unwrap() {
        assert!(running.wait(SOON).unwrap(), "{process:?} is still there");
    }
}

/// `start NAME` until its guest runs.
fn started(rig: &Rig, name: &str, more: &[&str]) -> Begun {
    let mut begun = rig.begin_named("start", name, more);
    begun.reaches("kernel");
    begun
}

fn end(begun: Begun) {
    begun.signal(Signal::INT);
    assert_eq!(begun.ends().code(), Some(130));
}

#[test]
fn a_start_takes_what_stands_ready_and_the_pool_makes_another() {
    let rig = Rig::new(Guest::Silent);
    let mut pool = Pool::new(&rig, "1", &[]);
    let ready = pool.says("ready");
    let shell = pool.shell();
    assert_eq!(ready["shell"], shell.name.as_str());
    let listed = rig.host(&["ls", "--output", "json"]).json();
    assert_eq!(
        (listed[0]["status"].as_str(), listed[0]["name"].as_str()),
        (Some("shell"), Some(shell.name.as_str()))
    );
    assert!(rig.host(&["ls"]).stdout.contains("shell"));
    // Nothing of anybody is in it.
    let device = fs::read(pool.shells()[0].directory().join("init-data.img")).unwrap();
    assert!(device.len() == 4 << 20 && device.iter().all(|&byte| byte == 0));

    let begun = started(&rig, "demo", &[]);
    assert_eq!(pool.says("claimed")["pod"], "demo");
    let demo = pod(&rig, "demo");
    assert_eq!(qemu(&demo.children), qemu(&shell.children));
    assert_eq!(demo.measurement, shell.measurement);
    let given = fs::read(rig.init_data()).unwrap();
    assert!(fs::read(rig.pod("demo").join("init-data.img")).unwrap().starts_with(&given));
    assert_eq!(fs::read_to_string(rig.pod("demo").join("console.log")).unwrap(), "postern: up\n");

    pool.says("ready");
    assert_ne!(pool.shell().name, shell.name);
    end(begun);
    // It was used, and is no shell again.
    assert_ne!(pool.shell().name, shell.name);
    is_gone(qemu(&shell.children));

    // A cold start measures the same.
    let cold = started(&rig, "cold", &["--no-pool"]);
    assert_eq!(pod(&rig, "cold").measurement, shell.measurement);
    assert_ne!(qemu(&pod(&rig, "cold").children), qemu(&pool.shell().children));
    end(cold);
    pool.signal(Signal::TERM);
    assert!(pool.ends().success());
    rig.assert_nothing_left();
}

#[test]
fn of_many_starts_at_once_none_share_a_shell() {
    let rig = Rig::new(Guest::Silent);
    let pool = Pool::new(&rig, "2", &[]);
    let shells: Vec<ProcessId> = pool.has(2).iter().map(|shell| qemu(&shell.children)).collect();
    let names = ["one", "two", "three", "four"];
    let mut begun: Vec<Begun> = names.iter().map(|name| rig.begin_named("start", name, &[])).collect();
    begun.iter_mut().for_each(|begun| begun.reaches("kernel"));
    let mut used: Vec<u32> = names.iter().map(|name| qemu(&pod(&rig, name).children).pid).collect();
    assert!(shells.iter().all(|shell| used.contains(&shell.pid)), "{shells:?} {used:?}");
    used.sort_unstable();
    used.dedup();
    assert_eq!(used.len(), names.len());
    begun.into_iter().for_each(end);
    drop(pool);
    rig.host(&["cleanup"]);
    eventually_nothing_left(&rig);
}

#[test]
fn another_shape_or_address_is_not_taken_and_the_shell_stays() {
    let rig = Rig::new(Guest::Silent);
    let mut pool = Pool::new(&rig, "1", &[]);
    pool.says("ready");
    let shell = pool.shell();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    for more in [
        ["--memory", "256"],
        ["--cpus", "1"],
        ["--machine", "q35"],
        ["--listen", "127.0.0.2:0"],
        ["--listen", &free],
        ["--mitigations", "off"],
    ] {
        let begun = started(&rig, "demo", &more);
        assert_ne!(qemu(&pod(&rig, "demo").children), qemu(&shell.children), "{more:?}");
        end(begun);
    }
    assert_eq!(pool.shell(), shell);
}

#[test]
fn a_shell_of_an_image_that_has_changed_is_never_used() {
    let rig = Rig::new(Guest::Silent);
    let mut pool = Pool::new(&rig, "1", &[]);
    pool.says("ready");
    let old = pool.shell();
    rig.change_image();
    let begun = started(&rig, "demo", &[]);
    assert_eq!(pool.says("discarded")["why"], "the image has changed since");
    let demo = pod(&rig, "demo");
    assert_ne!(qemu(&demo.children), qemu(&old.children));
    let image = ImageManifest::load(&rig.image()).unwrap();
    assert_eq!(demo.measurement, Some(postern_launch::expected_measurement(&image, &demo.shape)));
    assert_ne!(demo.measurement, old.measurement);
    end(begun);
    // The next one is of the image as it is now, and serves.
    pool.says("ready");
    let new = pool.shell();
    assert_eq!(new.measurement, demo.measurement);
    let begun = started(&rig, "demo", &[]);
    assert_eq!(qemu(&pod(&rig, "demo").children), qemu(&new.children));
    end(begun);
}

#[test]
fn an_image_whose_file_was_changed_is_refused_as_ever() {
    let rig = Rig::new(Guest::Silent);
    let mut pool = Pool::new(&rig, "1", &[]);
    pool.says("ready");
    fs::write(rig.image().join("initramfs"), "Initramfs").unwrap();
    let shell = pool.shell();
    rig.start(&[]).assert_failed(9, "bad-image");
    assert_eq!(pool.shell(), shell);
}

#[test]
fn a_shell_that_dies_is_discarded_and_replaced() {
    let rig = Rig::new(Guest::Silent);
    let mut pool = Pool::new(&rig, "1", &[]);
    pool.says("ready");
    let shell = pool.shell();
    qemu(&shell.children).open().unwrap().unwrap().signal(Signal::KILL).unwrap();
    assert!(pool.says("discarded")["why"].as_str().unwrap().contains("QEMU ended unexpectedly"));
    pool.says("ready");
    let second = pool.shell();
    assert_ne!(second.name, shell.name);
    // One whose supervisor is killed leaves its directory, which is not taken for a shell.
    second.supervisor.open().unwrap().unwrap().signal(Signal::KILL).unwrap();
    assert!(pool.says("discarded")["why"].as_str().unwrap().contains("its supervisor ended"));
    is_gone(qemu(&second.children));
    let begun = started(&rig, "demo", &[]);
    assert_ne!(qemu(&pod(&rig, "demo").children), qemu(&second.children));
    end(begun);
    assert!(rig.host(&["cleanup"]).stdout.contains(&format!("{}: removed\n", second.name)));
}

#[test]
fn a_pool_that_is_killed_takes_its_shells_along_and_no_pod() {
    let rig = Rig::new(Guest::Silent);
    let mut pool = Pool::new(&rig, "2", &[]);
    pool.has(2);
    let begun = started(&rig, "demo", &[]);
    pool.says("claimed");
    let shells = pool.has(2);
    pool.signal(Signal::KILL);
    pool.ends();
    for shell in shells {
        is_gone(shell.supervisor);
        is_gone(qemu(&shell.children));
    }
    rig.host(&["cleanup"]);
    let listed = rig.host(&["ls", "--output", "json"]).json();
    assert_eq!(listed.as_array().map(Vec::len), Some(1), "{listed}");
    assert_eq!(listed[0]["name"], "demo");
    end(begun);
    rig.assert_nothing_left();
}

#[test]
fn supervisors_of_shells_that_are_killed_with_the_pool_are_cleaned_up_after() {
    let rig = Rig::new(Guest::Silent);
    let mut pool = Pool::new(&rig, "1", &[]);
    pool.says("ready");
    let shell = pool.shell();
    shell.supervisor.open().unwrap().unwrap().signal(Signal::STOP).unwrap();
    pool.signal(Signal::KILL);
    pool.ends();
    shell.supervisor.open().unwrap().unwrap().signal(Signal::KILL).unwrap();
    is_gone(shell.supervisor);
    is_gone(qemu(&shell.children));
    assert_eq!(rig.host(&["ls", "--output", "json"]).json()[0]["status"], "crashed");
    assert_eq!(rig.host(&["cleanup"]).stdout, format!("{}: removed\n", shell.name));
    rig.assert_nothing_left();
}

#[test]
fn a_start_that_fails_uses_its_shell_up() {
    let rig = Rig::new(Guest::Silent);
    let mut pool = Pool::new(&rig, "1", &[]);
    pool.says("ready");
    let first = started(&rig, "demo", &[]);
    pool.says("ready");
    let shell = pool.shell();
    // The name is taken: that is found when the shell has been taken.
    rig.start(&[]).assert_failed(4, "pod-exists");
    is_gone(qemu(&shell.children));
    pool.says("ready");
    let shell = pool.shell();
    fs::write(rig.root.join("nonsense"), "nonsense").unwrap();
    let nonsense = rig.root.join("nonsense").display().to_string();
    let ran = rig.host(&[
        "start",
        "other",
        "--tee",
        "simulated",
        "--output",
        "json",
        "--init-data",
        &nonsense,
        "--image",
        rig.image().to_str().unwrap(),
    ]);
    ran.assert_failed(10, "bad-init-data");
    is_gone(qemu(&shell.children));
    end(first);
}

#[test]
fn a_start_that_is_killed_takes_the_pod_with_it() {
    let rig = Rig::new(Guest::Silent);
    let mut pool = Pool::new(&rig, "1", &[]);
    pool.says("ready");
    let begun = started(&rig, "demo", &[]);
    let demo = pod(&rig, "demo");
    begun.signal(Signal::KILL);
    begun.ends();
    is_gone(demo.supervisor);
    is_gone(qemu(&demo.children));
    assert_eq!(rig.host(&["inspect", "demo"]).code, Some(3));
}

#[test]
fn what_is_no_claim_is_not_one() {
    let rig = Rig::new(Guest::Silent);
    let mut pool = Pool::new(&rig, "1", &[]);
    pool.says("ready");
    let shell = pool.shell();
    let socket = pool.shells()[0].directory().join("claim.sock");
    for nonsense in [&b""[..], b"\n", b"{}\n", b"{\"tenant\":", &[b'x'; 100_000]] {
        // The shell may be gone from the connection before all of it is written.
        let _ = UnixStream::connect(&socket).unwrap().write_all(nonsense);
    }
    let begun = started(&rig, "demo", &[]);
    assert_eq!(qemu(&pod(&rig, "demo").children), qemu(&shell.children));
    end(begun);
}

#[test]
fn a_pool_that_cannot_make_one_says_why() {
    let rig = Rig::new(Guest::Silent);
    fs::remove_file(rig.image().join("kernel")).unwrap();
    let image = rig.image().display().to_string();
    let pool = |more: &[&str]| {
        rig.host(&[&["pool", "--size", "1", "--tee", "simulated", "--image", &image], more].concat())
    };
    let ran = pool(&[]);
    assert_eq!(ran.code, Some(9), "{ran:?}");
    assert!(ran.stderr.contains("hint: build one with"), "{ran:?}");
    assert_eq!(pool(&["--listen", "127.0.0.1:7443"]).code, Some(2));
    assert_eq!(pool(&["--size", "0"]).code, Some(2));
    assert_eq!(pool(&["--size", "65"]).code, Some(2));
    rig.assert_nothing_left();
}

/// A dropped pool's shells end when they notice.
#[track_caller]
fn eventually_nothing_left(rig: &Rig) {
    let deadline = Instant::now() + SOON;
    while !rig.processes().is_empty() && Instant::now() < deadline {
        std::thread::yield_now();
    }
    rig.host(&["cleanup"]);
    rig.assert_nothing_left();
}
