//! What the processes of one pod take of its host, from `/proc`: processor time and proportional memory. Time of the
//! processor is what stays comparable when other work is on the machine; the clock on the wall is not.

use anyhow::Context as _;
use postern_tests::home::Home;

/// The processes that a pod has on its host.
#[derive(Debug, Clone)]
pub(crate) struct PodProcesses {
    pub(crate) qemu: u32,
    pub(crate) vsock: Option<u32>,
    pub(crate) supervisor: u32,
}

impl PodProcesses {
    pub(crate) fn of(home: &Home, pod: &str) -> anyhow::Result<Self> {
        let inspected = home.host(&["inspect", pod, "--output", "json"])?.ok()?.json()?;
        let pid = |value: &serde_json::Value| value["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
        let children = inspected["children"].as_array().cloned().unwrap_or_default();
        let child = |role: &str| {
            let found = children.iter().find(|child| child["role"] == role);
            found.and_then(|child| pid(&child["process"]))
        };
        Ok(Self {
            qemu: child("qemu").context("the pod has no QEMU")?,
            vsock: child("vsock"),
            supervisor: pid(&inspected["supervisor"]).context("the pod has no supervisor")?,
        })
    }

    /// With names for people.
    pub(crate) fn all(&self) -> Vec<(&'static str, u32)> {
        let mut all = vec![("QEMU", self.qemu), ("postern-host", self.supervisor)];
        all.extend(self.vsock.map(|vsock| ("vsock helper", vsock)));
        all
    }

    /// Of all of them, since they began.
    pub(crate) fn cpu_seconds(&self) -> anyhow::Result<f64> {
        self.all().into_iter().map(|(_, pid)| cpu_seconds(pid)).sum()
    }
}

/// User and system time of a process and its threads (`/proc/PID/stat`, fields 14 and 15).
pub(crate) fn cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = stat.rsplit_once(')').context("/proc/PID/stat has no name")?;
    let ticks = |index: usize| -> anyhow::Result<u64> {
        let field = fields.split_ascii_whitespace().nth(index - 3);
        Ok(field.context("/proc/PID/stat is short")?.parse()?)
    };
    let per_second = rustix::param::clock_ticks_per_second();
    Ok((ticks(14)? + ticks(15)?) as f64 / per_second as f64)
}

/// Memory of a process, with what it shares divided among those that share it.
pub(crate) fn pss_mib(pid: u32) -> anyhow::Result<f64> {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line =
        rollup.lines().find_map(|line| line.strip_prefix("Pss:")).context("smaps_rollup has no Pss")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").trim().parse()?;
    Ok(kib / 1024.0)
}

/// Pods that are taken down whatever becomes of the benchmark.
#[derive(Debug)]
pub(crate) struct Pods<'a> {
    home: &'a Home,
    names: Vec<String>,
}

impl<'a> Pods<'a> {
    pub(crate) fn of(home: &'a Home) -> Self {
        Self { home, names: Vec::new() }
    }

    /// `postern pod create NAME`, in this much memory.
    pub(crate) fn create(&mut self, name: &str, memory_mib: u32) -> anyhow::Result<()> {
        let memory = format!("{memory_mib}M");
        self.names.push(name.to_owned());
        let args = ["pod", "create", name, "--memory", &memory, "--accept-risk=simulated-tee"];
        self.home.postern(&args)?.ok().map(drop)
    }

    pub(crate) fn remove(&mut self, name: &str) -> anyhow::Result<()> {
        self.names.retain(|known| known != name);
        self.home.postern(&["pod", "rm", name])?.ok().map(drop)
    }
}

impl Drop for Pods<'_> {
    fn drop(&mut self) {
        for name in &self.names {
            let _ = self.home.host(&["rm", "--stop", name]);
        }
    }
}
