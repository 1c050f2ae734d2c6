//! How long something took, stage by stage: the stages always sum to the whole, whoever they were told by.

use std::{
    sync::OnceLock,
    time::{Duration, Instant},
};

use postern_api::owner::BootStage;

use crate::{host::Stage, text};

/// What the host can tell of the guest's own start: when the agent's first word was on the console, and when it answered.
const SEEN_BY_HOST: [&str; 2] = ["kernel", "agent"];
/// From the guest's last stamp to the host's first answer.
const ANSWER: &str = "answer";

/// A clock with laps.
#[derive(Debug)]
pub(crate) struct Clock {
    last: Instant,
    stages: Vec<Stage>,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self { last: Instant::now(), stages: Vec::new() }
    }

    /// Ends the stage that began with the lap before.
    pub(crate) fn lap(&mut self, name: &str) {
        self.lap_at(name, Instant::now());
    }

    /// Ends a stage at a moment that was noted; one before the last lap's took no time.
    pub(crate) fn lap_at(&mut self, name: &str, end: Instant) {
        let end = end.max(self.last);
        self.stages.push(Stage { stage: name.to_owned(), millis: millis(end.duration_since(self.last)) });
        self.last = end;
    }

    /// A lap with parts, as somebody else tells them: together they are no longer than the lap, and `name` is what they
    /// leave over.
    pub(crate) fn lap_with(&mut self, name: &str, parts: Vec<Stage>) {
        let now = Instant::now();
        let mut left = millis(now.duration_since(self.last));
        for Stage { stage, millis } in parts {
            let millis = millis.min(left);
            left -= millis;
            self.stages.push(Stage { stage, millis });
        }
        self.stages.push(Stage { stage: name.to_owned(), millis: left });
        self.last = now;
    }

    pub(crate) fn stages(self) -> Vec<Stage> {
        self.stages
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Puts the guest's own stamps in the place of what the host could see of its start. The guest counts from the moment its
/// machine ran, the host's stages are what passed here, so the sum stays what it was.
pub(crate) fn told_by_guest(stages: Vec<Stage>, boot: &[BootStage]) -> Vec<Stage> {
    let seen = |stage: &Stage| SEEN_BY_HOST.contains(&stage.stage.as_str());
    let Some(place) = stages.iter().position(seen).filter(|_| !boot.is_empty()) else { return stages };
    let mut left: u64 = stages.iter().filter(|stage| seen(stage)).map(|stage| stage.millis).sum();
    let mut told = Vec::with_capacity(boot.len() + 1);
    let mut before = 0;
    for stamp in boot {
        let took = stamp.boottime_micros.saturating_sub(before).div_euclid(1000).min(left);
        before += took * 1000;
        left -= took;
        told.push(Stage { stage: text::clean(&stamp.name), millis: took });
    }
    told.push(Stage { stage: ANSWER.into(), millis: left });
    let mut all: Vec<_> = stages.into_iter().filter(|stage| !seen(stage)).collect();
    all.splice(place..place, told);
    all
}

/// One line per stage, for people.
pub(crate) fn lines(stages: &[Stage]) -> String {
    let line =
        |Stage { stage, millis }: &Stage| format!("  {stage:<12} {:>8.3} s\n", *millis as f64 / 1000.0);
    stages.iter().map(line).collect()
}

/// Moments in the life of a process in the pod, as seen from here.
#[derive(Debug, Default)]
pub(crate) struct Moments {
    started: OnceLock<Instant>,
    first_output: OnceLock<Instant>,
}

impl Moments {
    pub(crate) fn started_now(&self) {
        let _ = self.started.set(Instant::now());
    }

    pub(crate) fn output_now(&self) {
        let _ = self.first_output.set(Instant::now());
    }

    pub(crate) fn started(&self) -> Option<Instant> {
        self.started.get().copied()
    }

    pub(crate) fn first_output(&self) -> Option<Instant> {
        self.first_output.get().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage(stage: &str, millis: u64) -> Stage {
        Stage { stage: stage.into(), millis }
    }

    fn stamp(name: &str, boottime_micros: u64) -> BootStage {
        BootStage { name: name.into(), boottime_micros }
    }

    #[test]
    fn the_guests_stamps_replace_what_the_host_saw_and_the_sum_stays() {
        let host = vec![
            stage("prepare", 10),
            stage("vmm", 50),
            stage("kernel", 900),
            stage("agent", 250),
            stage("sandbox", 40),
        ];
        let boot = [stamp("kernel", 880_400), stamp("mounts", 890_900), stamp("serving", 1_100_000)];
        let told = told_by_guest(host.clone(), &boot);
        let names: Vec<_> = told.iter().map(|stage| stage.stage.as_str()).collect();
        assert_eq!(names, ["prepare", "vmm", "kernel", "mounts", "serving", "answer", "sandbox"]);
        let sum = |stages: &[Stage]| stages.iter().map(|stage| stage.millis).sum::<u64>();
        assert_eq!(sum(&told), sum(&host));
        assert_eq!(told[5], stage("answer", 50));
        // A guest whose clock runs ahead of ours, one whose clock goes back, and one that tells nothing.
        assert_eq!(sum(&told_by_guest(host.clone(), &[stamp("kernel", u64::MAX)])), sum(&host));
        assert_eq!(
            sum(&told_by_guest(host.clone(), &[stamp("kernel", 500_000), stamp("mounts", 1)])),
            sum(&host)
        );
        assert_eq!(told_by_guest(host.clone(), &[]), host);
    }

    #[test]
    fn laps_sum_to_the_whole() {
        let begun = Instant::now();
        let mut clock = Clock::new();
        clock.lap("one");
        clock.lap_at("early", begun);
        clock.lap_with("rest", vec![stage("part", 0)]);
        let stages = clock.stages();
        assert_eq!(
            stages.iter().map(|stage| stage.stage.as_str()).collect::<Vec<_>>(),
            ["one", "early", "part", "rest"]
        );
        assert_eq!(stages[1].millis, 0);
        // A host that claims more time than has passed.
        let mut clock = Clock::new();
        clock.lap_with("host", vec![stage("vmm", u64::MAX), stage("kernel", u64::MAX)]);
        let sum: u64 = clock.stages().iter().map(|stage| stage.millis).sum();
        assert!(Duration::from_millis(sum) <= begun.elapsed());
        assert_eq!(lines(&[stage("kernel", 1234)]), "  kernel          1.234 s\n");
    }
}
