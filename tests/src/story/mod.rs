//! The main story: an owner starts a pod in a real VM, verifies it, works in it; the host tries and fails.
//!
//! `make demo` plays it for people, the `e2e` test plays it for CI: the same steps, each failing when it did not go as
//! it should.

mod attacker;
mod begin;
mod end;
mod images;
mod work;

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::{
    home::{Home, Said},
    registry::Registry,
    relay::Relay,
    vsock_tap::Tap,
};

/// Given to a container; must be nowhere in what the host can see.
pub const CANARY: &str = "canary-7f3a9d52c1e84b60";
/// The pod of the story.
pub const POD: &str = "demo";
/// How long a line of a stream may take to appear.
const SOON: Duration = Duration::from_secs(60);

/// What the steps share.
#[derive(Debug)]
pub struct Stage {
    pub home: Home,
    folder: tempfile::TempDir,
    registry: Option<Registry>,
    archive: PathBuf,
    /// Carries all of the owner's traffic after the pod's creation.
    relay: Option<Relay>,
    /// Carries all that crosses the VM's vsock, from its first moment on.
    tap: Tap,
    started: Instant,
}

/// A step's name, what it does, and what its success proves.
struct Step {
    name: &'static str,
    play: fn(&mut Stage) -> anyhow::Result<String>,
}

const STEPS: &[Step] = &[
    Step { name: "owner identity", play: begin::identity },
    Step { name: "pod \"demo\" booted", play: begin::create },
    Step { name: "verified", play: begin::verify },
    Step { name: "image pushed, container up", play: images::push_and_run },
    Step { name: "image pulled in the guest", play: images::pull_and_run },
    Step { name: "exec", play: work::exec },
    Step { name: "exec -it", play: work::terminal },
    Step { name: "stdin piped in", play: work::stdin },
    Step { name: "logs -f", play: work::logs },
    Step { name: "cp, both ways", play: work::copy },
    Step { name: "ps, stats, inspect", play: work::look },
    Step { name: "kill, wait, stop, start, rm", play: work::life_cycle },
    Step { name: "host tried", play: attacker::tries },
    Step { name: "canary", play: attacker::canary },
    Step { name: "second owner refused", play: attacker::second_owner },
    Step { name: "changed kernel refused", play: attacker::changed_command_line },
    Step { name: "pod removed", play: end::remove },
];

/// Plays every step and prints a line for each. Ends at the first that fails, after taking down what runs. `tap` is the
/// program that taps the VM's vsock when it is called so ([`crate::vsock_tap`]).
pub fn play(out: &mut dyn std::io::Write, tap: &Path) -> anyhow::Result<()> {
    let mut stage = Stage::new(tap)?;
    let mut failure = None;
    for step in STEPS {
        let begun = Instant::now();
        let result = (step.play)(&mut stage);
        let seconds = begun.elapsed().as_secs_f64();
        match result {
            Ok(detail) => writeln!(out, "  ✓ {:<28} {seconds:>5.1} s   {detail}", step.name)?,
            Err(error) => {
                writeln!(out, "  ✗ {:<28} {seconds:>5.1} s   {error:#}", step.name)?;
                failure = Some(error.context(format!("step \"{}\"", step.name)));
                break;
            }
        }
        out.flush()?;
    }
    let total = stage.started.elapsed().as_secs_f64();
    match failure {
        Some(error) => {
            end::take_down(&stage);
            Err(error)
        }
        None => Ok(writeln!(out, "All {} steps went as they should, in {total:.1} s.", STEPS.len())?),
    }
}

impl Stage {
    fn new(tap: &Path) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("postern-story-").tempdir()?;
        let home = Home::new(folder.path().join("owner"))?;
        let archive = folder.path().join("busybox.tar");
        let tap = Tap::install(&folder.path().join("tap"), tap)?;
        Ok(Self { home, folder, registry: None, archive, relay: None, tap, started: Instant::now() })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Has the owner use this `postern-host`.
    fn use_host(&self, program: &Path) -> anyhow::Result<()> {
        let config = self.home.root().join("config/postern/config.toml");
        Ok(std::fs::write(config, format!("postern_host = {:?}\n", program.display().to_string()))?)
    }

    /// Runs `postern`, which must succeed.
    fn ok(&self, args: &[&str]) -> anyhow::Result<Said> {
        self.home.postern(args)?.ok()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        end::take_down(self);
    }
}

/// Fails with `what` and both texts unless `found` contains `wanted`.
fn contains(what: &str, found: &str, wanted: &str) -> anyhow::Result<()> {
    anyhow::ensure!(found.contains(wanted), "{what} does not contain {wanted:?}: {}", found.trim_end());
    Ok(())
}
