//! A pod from the pool is a pod like any other: the owner expects the same measurement of it, and finds it. What one
//! tenant has used nobody else gets.

use std::{process::Stdio, time::Duration};

use postern_tests::{
    home::{Home, Said},
    process::{Guarded, Lines},
    programs,
};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(120);
const MEMORY: &str = "128";

struct Pool {
    process: Guarded,
    said: Lines,
}

impl Pool {
    fn of(home: &Home) -> Self {
        let mut command = home.command("postern-host").unwrap();
        let image = programs::image().unwrap();
        command
            .args(["pool", "--size", "1", "--tee", "simulated", "--output", "json", "--cpus", "1"])
            .args(["--memory", MEMORY, "--image"])
            .arg(image)
            .stdout(Stdio::piped());
        let mut process = Guarded::spawn(&mut command).unwrap();
        let said = Lines::of(process.child().stdout.take().unwrap());
        Self { process, said }
    }

    fn says(&self, event: &str) -> Value {
        let pick =
            |line: &str| serde_json::from_str::<Value>(line).ok().filter(|said| said["event"] == event);
        self.said.find(SOON, pick).unwrap()
    }
}

fn create(home: &Home, name: &str) -> Said {
    let memory = format!("{MEMORY}M");
    home.postern(&["pod", "create", name, "--memory", &memory, "--accept-risk=simulated-tee"]).unwrap()
}

fn json(home: &Home, args: &[&str]) -> Value {
    home.host(&[args, &["--output", "json"]].concat()).unwrap().ok().unwrap().json().unwrap()
}

fn qemu(pod: &Value) -> u64 {
    let children = pod["children"].as_array().unwrap();
    children.iter().find(|child| child["role"] == "qemu").unwrap()["process"]["pid"].as_u64().unwrap()
}

#[test]
fn a_pod_from_the_pool_is_verified_like_any_other_and_its_vm_is_used_once() {
    let folder = tempfile::tempdir().unwrap();
    let home = Home::new(folder.path().join("owner")).unwrap();
    home.postern(&["init"]).unwrap().ok().unwrap();
    create(&home, "cold").ok().unwrap();
    let cold = json(&home, &["inspect", "cold"]);
    home.postern(&["pod", "rm", "cold"]).unwrap().ok().unwrap();

    let mut pool = Pool::of(&home);
    pool.says("ready");
    let shell = json(&home, &["ls"])[0].clone();
    assert_eq!((shell["status"].as_str(), &shell["measurement"]), (Some("shell"), &cold["measurement"]));
    create(&home, "warm").ok().unwrap();
    assert_eq!(pool.says("claimed")["pod"], "warm");
    let warm = json(&home, &["inspect", "warm"]);
    assert_eq!(qemu(&warm), qemu(&shell));
    assert_eq!(warm["measurement"], cold["measurement"]);
    assert_ne!(warm["host_data"], cold["host_data"]);
    // The owner's own words: what it expects, from the image and the shape, and what the guest proves.
    let verified = home.postern(&["pod", "verify", "warm"]).unwrap().ok().unwrap();
    assert!(verified.text().contains(warm["measurement"].as_str().unwrap()), "{}", verified.text());

    // Another owner's pod is another VM, even when the first has ended.
    pool.says("ready");
    home.postern(&["pod", "rm", "warm"]).unwrap().ok().unwrap();
    let other = home.other_owner("other").unwrap();
    other.postern(&["init"]).unwrap().ok().unwrap();
    let memory = format!("{MEMORY}M");
    let mut command = other.command("postern").unwrap();
    command.env("POSTERN_HOST_STATE", home.host_state());
    command.args(["pod", "create", "theirs", "--memory", &memory, "--accept-risk=simulated-tee"]);
    assert!(command.stdout(Stdio::null()).status().unwrap().success());
    let theirs = json(&home, &["inspect", "theirs"]);
    assert_ne!(qemu(&theirs), qemu(&warm));
    assert_ne!(theirs["host_data"], warm["host_data"]);

    // The pool ends in the worst way: its shells go, the pod stays, and nothing is left after it.
    pool.says("ready");
    pool.process.signal(rustix::process::Signal::KILL).unwrap();
    pool.process.wait(SOON).unwrap();
    home.host(&["rm", "--stop", "theirs"]).unwrap().ok().unwrap();
    let end = std::time::Instant::now() + SOON;
    while json(&home, &["ls"]) != Value::Array(Vec::new()) {
        assert!(std::time::Instant::now() < end, "shells outlive their pool");
        home.host(&["cleanup"]).unwrap().ok().unwrap();
    }
    let shells: Vec<_> = std::fs::read_dir(home.host_state().join("shells")).unwrap().flatten().collect();
    assert!(shells.is_empty(), "{shells:?}");
}
