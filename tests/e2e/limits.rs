//! What a pod's shape and a container's limits say is so in a real guest, on cgroup v2: memory, CPU time, processes, storage;
//! and whoever hits a limit hits nobody else. One VM for all: a boot is dear.

use std::{process::Stdio, time::Duration};

use anyhow::{Context as _, ensure};
use postern_tests::{
    archive::ImageRecipe,
    process::{Guarded, Lines},
    registry::Registry,
    vm::{POD, Vm},
};

const SOON: Duration = Duration::from_secs(60);
/// Exit codes of `postern`.
const NO_ROOM: i32 = 7;
const MEASUREMENT: i32 = 12;
/// A process ended by SIGKILL.
const KILLED: i32 = 137;

#[test]
fn limits_hold_in_the_guest() {
    let vm = Vm::boot(&["--cpus", "2", "--memory", "192M"]).unwrap();
    vm.ok(&["run", POD, "busybox:latest", "-d", "--name", "bystander", "--", "sleep", "100000"]).unwrap();
    for part in [processors, memory, cpu_time, processes, storage, owners_door] {
        part(&vm).unwrap();
        vm.script("bystander", "true").unwrap();
    }
}

/// Two virtual CPUs are there and measured: who expects one does not take this pod for theirs.
fn processors(vm: &Vm) -> anyhow::Result<()> {
    let online =
        vm.script("bystander", "cat /sys/devices/system/cpu/online; grep -c ^processor /proc/cpuinfo")?;
    ensure!(online == "0-1\n2\n", "the guest has {online:?}");
    vm.ok(&["pod", "verify", POD])?;
    let record = vm.home.root().join("state/postern/pods").join(POD);
    let mut shape: serde_json::Value = serde_json::from_slice(&std::fs::read(record.join("shape.json"))?)?;
    ensure!(shape["cpus"] == 2, "the owner's record says {shape}");
    shape["cpus"] = 1.into();
    let other = vm.home.root().join("one-cpu.json");
    std::fs::write(&other, shape.to_string())?;
    let inspected = vm.ok(&["pod", "inspect", POD, "--output", "json"])?.json()?;
    let args = [
        "pod",
        "add",
        "one-cpu",
        "--endpoint",
        inspected["endpoint"].as_str().context("no endpoint")?,
        "--init-data",
        &record.join("initdata.toml").display().to_string(),
        "--image-dir",
        &postern_tests::programs::image()?.display().to_string(),
        "--shape",
        &other.display().to_string(),
        "--accept-risk=simulated-tee",
    ];
    let added = vm.home.postern(&args)?;
    ensure!(added.code == 0, "{}", added.stderr);
    let said = vm.home.postern(&["pod", "verify", "one-cpu"])?.expect_code(MEASUREMENT)?;
    ensure!(said.stderr.contains("measurement"), "{}", said.stderr);
    vm.ok(&["pod", "rm", "--keep-running", "one-cpu"])?;
    Ok(())
}

/// An allocation above the limit is ended, and told at every place that tells ends; one below is not.
fn memory(vm: &Vm) -> anyhow::Result<()> {
    let fill = |name: &str, mib: &str| {
        let count = format!("count={mib}");
        let dd = ["dd", "if=/dev/zero", "of=/dev/shm/filled", "bs=1M", &count];
        vm.home.postern(
            &[&["run", POD, "busybox:latest", "--memory", "32M", "--name", name, "--"][..], &dd].concat(),
        )
    };
    fill("modest", "8")?.ok()?;
    let said = fill("hog", "60")?.expect_code(KILLED)?;
    ensure!(said.stderr.contains("ran out of memory"), "{}", said.stderr);
    let exit = |name: &str| -> anyhow::Result<serde_json::Value> {
        let container = format!("{POD}/{name}");
        let inspected = vm.ok(&["inspect", &container, "--output", "json"])?.json()?;
        Ok(inspected[0]["exit"].clone())
    };
    let hog = exit("hog")?;
    ensure!(hog["oom_killed"] == true && hog["code"] == KILLED, "inspect tells {hog}");
    let modest = exit("modest")?;
    ensure!(modest["oom_killed"] == false && modest["code"] == 0, "inspect tells {modest}");
    let listed = vm.ok(&["ps", "-a", POD])?.text();
    ensure!(listed.contains("out of memory"), "{listed}");
    let (oom, end) = events_of(vm, "hog", "exit")?;
    ensure!(oom == 1 && end.contains("137"), "{oom} oom events before {end}");
    ensure!(
        events_of(vm, "modest", "exit")?.0 == 0,
        "a container within its limit was told of as out of memory"
    );
    vm.ok(&["rm", "demo/modest", "demo/hog"])?;
    Ok(())
}

/// How many `oom` events came before the first event of `kind`, and that one.
fn events_of(vm: &Vm, container: &str, kind: &str) -> anyhow::Result<(usize, String)> {
    let mut command = vm.home.command("postern")?;
    command.args(["events", POD, "--history", "--output", "json"]).stdout(Stdio::piped());
    let mut follower = Guarded::spawn(&mut command)?;
    let lines = Lines::of(follower.child().stdout.take().context("no stdout")?);
    let mut ooms = 0;
    let name = format!("\"{container}\"");
    let end = lines.find(SOON, |line| {
        let of_it = line.contains(&name);
        ooms += usize::from(of_it && line.contains("\"oom\""));
        (of_it && line.contains(&format!("\"{kind}\""))).then(|| line.to_owned())
    })?;
    Ok((ooms, end))
}

/// Half a CPU is what the control group says and what the kernel enforces; without a limit it does neither.
fn cpu_time(vm: &Vm) -> anyhow::Result<()> {
    vm.ok(&["run", POD, "busybox:latest", "-d", "--cpus", "0.5", "--name", "half", "--", "sleep", "100000"])?;
    ensure!(vm.script("half", "cat /sys/fs/cgroup/cpu.max")? == "50000 100000\n");
    // Ends when the kernel has held it back, which it does to whoever never sleeps.
    vm.script("half", "until grep -q '^nr_throttled [1-9]' /sys/fs/cgroup/cpu.stat; do :; done")?;
    ensure!(vm.script("bystander", "cat /sys/fs/cgroup/cpu.max")? == "max 100000\n");
    let busy = "i=0; while [ $i -lt 3000 ]; do i=$((i+1)); done; grep ^nr_throttled /sys/fs/cgroup/cpu.stat";
    ensure!(vm.script("bystander", busy)? == "nr_throttled 0\n");
    vm.ok(&["rm", "-f", "demo/half"])?;
    Ok(())
}

/// A fork bomb gets EAGAIN at its limit, and one without a limit leaves a pod that answers.
fn processes(vm: &Vm) -> anyhow::Result<()> {
    let script = "while :; do sleep 100000 & done";
    let limit =
        ["run", POD, "busybox:latest", "--pids-limit", "24", "--name", "bomb", "--", "sh", "-c", script];
    let said = vm.home.postern(&limit)?;
    ensure!(said.code != 0 && said.stderr.contains("Resource temporarily unavailable"), "{said:?}");
    let bomb = "b() { b | b & }; b; sleep 100000";
    vm.ok(&[
        "run",
        POD,
        "busybox:latest",
        "-d",
        "--pids-limit",
        "24",
        "--name",
        "limited",
        "--",
        "sh",
        "-c",
        bomb,
    ])?;
    // Ends when the kernel has refused a fork.
    let container = "demo/limited";
    loop {
        let stats = vm.ok(&["stats", container, "--no-stream", "--output", "json"])?.json()?;
        let stats = stats.get(0).unwrap_or(&stats);
        ensure!(stats["pids_limit"] == 24, "{stats}");
        let pids = stats["pids"].as_u64().with_context(|| format!("no pids in {stats}"))?;
        ensure!(pids <= 24, "{pids} processes where 24 are allowed");
        if pids >= 20 {
            break;
        }
    }
    vm.ok(&["run", POD, "busybox:latest", "-d", "--name", "unlimited", "--", "sh", "-c", bomb])?;
    ensure!(
        vm.ok(&["run", POD, "busybox:latest", "--rm", "--", "echo", "still here"])?.text() == "still here\n"
    );
    vm.ok(&["rm", "-f", container, "demo/unlimited", "demo/bomb"])?;
    Ok(())
}

/// A pod whose memory is taken says so of a push and of a pull, keeps what it has, and takes both when there is room again.
fn storage(vm: &Vm) -> anyhow::Result<()> {
    let mut recipe = ImageRecipe::busybox("large:1");
    // Not zeros: those become holes.
    let noise: Vec<u8> = (0..24_000_000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    recipe.files.push(("noise".into(), noise, 0o644));
    let registry = Registry::start()?;
    registry.push(&recipe, "large:1")?;
    let reference = format!("10.0.2.2:{}/large:1", registry.port());
    let pull = ["image", "pull", POD, &reference, "--plain-http"];
    // Below the reserve of 32 MiB that images leave, and by more than what others give back meanwhile.
    let fill = "until [ $(sed -n 's/MemAvailable: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo) -lt 30000 ]; \
                do head -c 1000000 /dev/zero >> /tmp/filler; done";
    vm.script("bystander", fill)?;
    for said in [vm.push(&recipe)?, vm.home.postern(&pull)?] {
        let said = said.expect_code(NO_ROOM)?;
        ensure!(said.stderr.contains("storage is full") && said.stderr.contains("hint: "), "{}", said.stderr);
    }
    ensure!(!vm.ok(&["image", "ls", POD])?.text().contains("large"), "half an image is left");
    vm.script("bystander", "rm /tmp/filler")?;
    vm.ok(&pull)?;
    vm.ok(&["image", "rm", POD, &reference])?;
    vm.push(&recipe)?.ok()?;
    Ok(())
}

/// A container shares the pod's loopback, where the owner's endpoint listens too: one that knocks there without end, and
/// never says a word, leaves the owner's places free.
fn owners_door(vm: &Vm) -> anyhow::Result<()> {
    let knock = "busybox mkfifo /tmp/silence; sleep 100000 > /tmp/silence & i=0; while [ $i -lt 80 ]; do i=$((i+1)); \
                 (while :; do nc 127.0.0.1 50090 < /tmp/silence > /dev/null 2>&1; done) & done; wait";
    vm.ok(&["run", POD, "busybox:latest", "-d", "--name", "knocker", "--", "sh", "-c", knock])?;
    // Port 50090, in whatever state: connections that were turned away are remembered for a while.
    vm.script("bystander", "until [ $(grep -c :C3AA /proc/net/tcp) -gt 64 ]; do sleep 1; done")?;
    for _ in 0..5 {
        vm.ok(&["ps", POD])?;
    }
    vm.ok(&["rm", "--force", &format!("{POD}/knocker")])?;
    Ok(())
}
