//! What the host may learn, made coarse: counters in wide steps, renewed seldom, in a schema that never changes.

use std::{
    fs,
    time::{Duration, Instant},
};

use postern_model::Phase;
use tokio::sync::Mutex;

use crate::pod::{ExitClass, PodUsage};

/// One CPU second.
const CPU_STEP: u64 = 1_000_000_000;
/// 16 MiB.
const MEMORY_STEP: u64 = 16 << 20;
/// Five minutes.
const UPTIME_STEP: u64 = 300;

const USAGE_EVERY: Duration = Duration::from_secs(10);
const METRICS_EVERY: Duration = Duration::from_secs(30);

/// Keeps the last coarse answers, so that asking more often yields nothing more.
#[derive(Debug)]
pub(super) struct Sanitiser {
    started: Instant,
    memory_total: u64,
    usage: Seldom<PodUsage>,
    metrics: Seldom<String>,
}

impl Sanitiser {
    pub(super) fn new() -> Self {
        let memory_total = fs::read_to_string("/proc/meminfo").map_or(0, |text| memory_total(&text));
        Self {
            started: Instant::now(),
            memory_total,
            usage: Seldom::new(USAGE_EVERY),
            metrics: Seldom::new(METRICS_EVERY),
        }
    }

    /// Pod-wide usage in wide steps, at most every ten seconds anew.
    pub(super) async fn usage<E>(
        &self,
        measure: impl Future<Output = Result<PodUsage, E>>,
    ) -> Result<PodUsage, E> {
        self.usage.get(async { measure.await.map(coarse) }).await
    }

    /// The pod's metrics in Prometheus text, at most every thirty seconds anew.
    pub(super) async fn metrics(&self, phase: Phase) -> String {
        let uptime = step(self.started.elapsed().as_secs(), UPTIME_STEP);
        let text = async { Ok::<_, std::convert::Infallible>(metrics(phase, uptime, self.memory_total)) };
        match self.metrics.get(text).await {
            Ok(text) => text,
        }
    }
}

/// A value that is renewed at most once in a while.
#[derive(Debug)]
struct Seldom<T> {
    every: Duration,
    last: Mutex<Option<(Instant, T)>>,
}

impl<T: Clone> Seldom<T> {
    fn new(every: Duration) -> Self {
        Self { every, last: Mutex::new(None) }
    }

    async fn get<E>(&self, renew: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        let mut last = self.last.lock().await;
        if let Some((at, value)) = &*last
            && at.elapsed() < self.every
        {
            return Ok(value.clone());
        }
        let value = renew.await?;
        *last = Some((Instant::now(), value.clone()));
        Ok(value)
    }
}

/// The status that the host's wait gets: it learns success, failure or killed, and nothing of 253 other codes.
pub(super) fn exit_status(class: ExitClass) -> i32 {
    match class {
        ExitClass::Success => 0,
        ExitClass::Failure => 1,
        ExitClass::Killed => 137,
    }
}

fn coarse(usage: PodUsage) -> PodUsage {
    PodUsage {
        cpu_usage_nanos: step(usage.cpu_usage_nanos, CPU_STEP),
        memory_bytes: step(usage.memory_bytes, MEMORY_STEP),
    }
}

fn step(value: u64, width: u64) -> u64 {
    value - value % width
}

fn metrics(phase: Phase, uptime: u64, memory_total: u64) -> String {
    let phase = match phase {
        Phase::Booting => 0,
        Phase::Ready => 1,
        Phase::Owned => 2,
        Phase::Released => 3,
    };
    let memory_total = step(memory_total, MEMORY_STEP);
    format!(
        "# TYPE postern_pod_phase gauge\npostern_pod_phase {phase}\n\
         # TYPE postern_pod_uptime_seconds gauge\npostern_pod_uptime_seconds {uptime}\n\
         # TYPE postern_pod_memory_total_bytes gauge\npostern_pod_memory_total_bytes {memory_total}\n"
    )
}

/// `MemTotal` of /proc/meminfo in bytes; 0 when it is not there.
fn memory_total(meminfo: &str) -> u64 {
    let kibibytes = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|number| number.parse::<u64>().ok());
    kibibytes.unwrap_or(0).saturating_mul(1024)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    #[test]
    fn counters_come_in_wide_steps() {
        let usage = PodUsage { cpu_usage_nanos: 2_999_999_999, memory_bytes: (32 << 20) + 1 };
        assert_eq!(coarse(usage), PodUsage { cpu_usage_nanos: 2_000_000_000, memory_bytes: 32 << 20 });
        assert_eq!(coarse(PodUsage::default()), PodUsage::default());
    }

    #[test]
    fn metrics_have_one_schema() {
        let names = |text: &str| {
            text.lines().filter_map(|l| l.split(' ').next().map(str::to_owned)).collect::<Vec<_>>()
        };
        let (one, other) = (metrics(Phase::Booting, 0, 0), metrics(Phase::Owned, 90_000, 1 << 40));
        assert_eq!(names(&one), names(&other));
        assert!(other.contains("postern_pod_uptime_seconds 90000\n"));
    }

    #[test]
    fn reads_the_total_of_memory() {
        assert_eq!(memory_total("MemFree: 1 kB\nMemTotal:       2048 kB\n"), 2 << 20);
        assert_eq!(memory_total("MemTotal: many kB"), 0);
    }

    #[tokio::test]
    async fn asking_more_often_yields_nothing_more() {
        let sanitiser = Sanitiser::new();
        let at = |seconds: u64| async move {
            Ok::<_, Infallible>(PodUsage { cpu_usage_nanos: seconds * CPU_STEP, memory_bytes: 0 })
        };
        let first = sanitiser.usage(at(3)).await;
        assert_eq!(sanitiser.usage(at(500)).await, first);
        assert_eq!(sanitiser.metrics(Phase::Ready).await, sanitiser.metrics(Phase::Owned).await);
    }

    #[tokio::test]
    async fn a_failure_is_not_kept() {
        let seldom = Seldom::new(Duration::from_secs(3600));
        assert_eq!(seldom.get(async { Err::<u8, _>("no") }).await, Err("no"));
        assert_eq!(seldom.get(async { Ok::<_, &str>(1) }).await, Ok(1));
    }
}
