//! `postern-image profile derive`: the options that an image needs, and a profile of them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use clap::Args;
use postern_builder::{
    kernel,
    profile::{
        check::LABEL,
        compose::{self, Added, Extent},
        findings::Findings,
        kernel_config::KernelOptions,
        rules::{Need, Rules},
        scan,
        stage::{self, Outcome, Plan},
    },
};
use serde_json::json;

use super::{Report, open, options_of};

/// What the profile of an application adds to.
const BASE: &str = "base";

#[derive(Debug, Args)]
pub(crate) struct Derive {
    /// An OCI layout directory, an OCI archive or a docker archive
    #[arg(long, value_name = "IMAGE")]
    image: PathBuf,
    /// Which image, where the archive holds several
    #[arg(long)]
    tag: Option<String>,
    /// Look at this program instead of what the image starts; once for each argument
    #[arg(long, value_name = "ARGUMENT", allow_hyphen_values = true)]
    entrypoint: Vec<String>,
    /// What a client does: run by the image's shell beside the program, until it succeeds
    #[arg(long, value_name = "COMMAND", conflicts_with = "scan")]
    run: Option<String>,
    /// Read the program and its libraries instead of running them; sees less, needs no root
    #[arg(long)]
    scan: bool,
    /// Until the client has to have succeeded; without one, how long to watch [default: 120, or 10]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: Option<u64>,
    /// Most memory that the unpacked image and its trace may take, in MiB
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = clap::value_parser!(u64).range(16..=1_048_576))]
    space: u64,
    /// Add what a program would use but does without, too
    #[arg(long)]
    everything: bool,
    /// Write the profile to this file; its name is the profile's
    #[arg(long, value_name = "FILE.toml")]
    write: Option<PathBuf>,
    /// The profile's first line
    #[arg(long, value_name = "TEXT", requires = "write")]
    summary: Option<String>,
    /// Where the profiles are
    #[arg(long, value_name = "DIRECTORY", default_value = kernel::profile::DIRECTORY)]
    profiles: PathBuf,
}

/// What a derivation found, and how.
struct Derived {
    findings: Findings,
    how: serde_json::Value,
    notes: Vec<String>,
}

impl Derive {
    pub(super) fn run(&self) -> anyhow::Result<Report> {
        // Whatever can be wrong without a look at the image is said before one, which takes minutes.
        let name = self.write.as_deref().map(profile_name).transpose()?;
        let rules = Rules::built_in()?;
        let base = options_of(&self.profiles, BASE)?;
        let derived = if self.scan { self.scan(&rules)? } else { self.trace()? };
        let extent = if self.everything { Extent::Everything } else { Extent::Required };
        let added = compose::added(&rules, &derived.findings, &base, extent);
        if let (Some(path), Some(name)) = (&self.write, name) {
            let summary =
                self.summary.clone().unwrap_or_else(|| format!("what {name} needs beyond the base"));
            fs::write(path, compose::profile(&summary, BASE, &added))
                .with_context(|| format!("writing {}", path.display()))?;
        }
        Ok(self.report(&rules, &derived, &base, &added))
    }

    fn scan(&self, rules: &Rules) -> anyhow::Result<Derived> {
        let image = open(&self.image, self.tag.as_deref())?;
        let command = (!self.entrypoint.is_empty()).then_some(self.entrypoint.as_slice());
        let scanned = scan::scan(rules, &image, command)?;
        anyhow::ensure!(
            !scanned.says_nothing(),
            "{} is static and without symbols: nothing can be said of it; run it, without --scan, or name another \
             program with --entrypoint",
            scanned.opaque.join(", ")
        );
        let mut notes = scanned.gaps();
        notes.push(
            "these are calls that the programs could make; which they make, and with what, a run tells, without --scan"
                .into(),
        );
        Ok(Derived { findings: scanned.findings, how: json!({ "scanned": scanned.programs }), notes })
    }

    fn trace(&self) -> anyhow::Result<Derived> {
        stage::ready()?;
        // Said here, and not by the process that unpacks it.
        open(&self.image, self.tag.as_deref())?;
        let directory = stage_directory()?;
        let absolute = self.image.canonicalize().with_context(|| format!("{}", self.image.display()))?;
        let plan = Plan {
            image: absolute,
            tag: self.tag.clone(),
            command: (!self.entrypoint.is_empty()).then(|| self.entrypoint.clone()),
            check: self.run.clone(),
            seconds: self.seconds.unwrap_or(if self.run.is_some() { 120 } else { 10 }),
            space: self.space << 20,
            directory,
        };
        let report = stage::run(&plan)?;
        if let Some(fault) = fault(&report.outcome) {
            let log = match report.log.trim_end() {
                "" => "It printed nothing.".to_owned(),
                log => format!("The end of what it printed:\n{log}"),
            };
            anyhow::bail!("{fault}; nothing was derived. {log}");
        }
        let mut notes = Vec::new();
        if report.unreadable > 0 {
            notes.push(format!("{} lines of the trace were not understood", report.unreadable));
        }
        let how = json!({
            "outcome": report.outcome, "calls": report.calls, "processes": report.processes,
            "unreadable": report.unreadable,
        });
        Ok(Derived { findings: report.findings, how, notes })
    }

    fn report(&self, rules: &Rules, derived: &Derived, base: &KernelOptions, added: &[Added]) -> Report {
        use std::fmt::Write as _;
        let findings = &derived.findings;
        let mut text = table(findings, base);
        for note in &derived.notes {
            let _ = writeln!(text, "note: {note}");
        }
        let required = compose::added(rules, findings, base, Extent::Required);
        let label = required.iter().map(|one| one.option.as_str()).collect::<Vec<_>>().join(" ");
        let _ = match added {
            [] => writeln!(text, "the profile {BASE} has everything"),
            [one] => writeln!(text, "one option beyond the profile {BASE}: {}", one.option),
            _ => writeln!(text, "{} options beyond the profile {BASE}", added.len()),
        };
        if !label.is_empty() {
            let _ = writeln!(text, "label for the image: LABEL {LABEL}=\"{label}\"");
        }
        if let Some(path) = &self.write {
            let _ = writeln!(text, "wrote {}", path.display());
        }
        let options = added.iter().map(|one| json!({ "option": one.option, "why": one.why }));
        let json = json!({
            "findings": findings, "how": derived.how, "notes": derived.notes, "label": label,
            "added": options.collect::<Vec<_>>(), "profile": self.write,
        });
        Report { text, json }
    }
}

/// A line for each option and each call.
fn table(findings: &Findings, base: &KernelOptions) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    let mut row = |option: &str, state: &str, by: &str| {
        let _ = writeln!(text, "{option:<28} {state:<9} {by}");
    };
    if findings != &Findings::default() {
        row("OPTION", "BASE", "NEEDED BY");
    }
    for (option, needed) in &findings.options {
        let state = match (base.has(option), needed.need) {
            (true, _) => "has it",
            (false, Need::Required) => "lacks it",
            (false, Need::Optional) => "optional",
        };
        row(option, state, &compose::reasons(needed));
    }
    for (option, needed) in &findings.refused {
        row(option, "refused", &compose::reasons(needed));
    }
    for reason in &findings.unknown {
        row("?", "unknown", &format!("{} of {}", reason.what, reason.who));
    }
    if !findings.refused.is_empty() {
        let _ =
            writeln!(text, "refused: the filter of containers refuses these calls, and no option would help");
    }
    text
}

/// Why a run says nothing of the image.
fn fault(outcome: &Outcome) -> Option<String> {
    match outcome {
        Outcome::Checked | Outcome::Watched => None,
        Outcome::Ended { status } if status == "exit status: 0" => None,
        Outcome::Ended { status } => Some(format!("the program ended with {status}")),
        Outcome::EndedEarly { status } => {
            Some(format!("the program ended with {status} before the client had succeeded"))
        }
        Outcome::CheckFailed { last } => Some(format!("the client did not succeed in time: {last}")),
        Outcome::NotStarted { reason } => Some(format!("the program could not be started: {reason}")),
    }
}

/// The name of the profile that will be in this file, which can be written.
fn profile_name(file: &Path) -> anyhow::Result<String> {
    let name = file.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".toml"));
    let name = name.filter(|name| !name.is_empty()).with_context(|| {
        format!("{} cannot hold a profile; --write needs a file NAME.toml", file.display())
    })?;
    let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    anyhow::ensure!(parent.is_dir(), "there is no directory {} to write a profile in", parent.display());
    Ok(name.to_owned())
}

/// An empty directory that stages are mounted on, each in its own name space; it stays.
fn stage_directory() -> anyhow::Result<PathBuf> {
    let directory = kernel::cache_directory()?.join("stage");
    fs::create_dir_all(&directory).with_context(|| format!("making {}", directory.display()))?;
    Ok(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_named_after_its_file() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(profile_name(&folder.path().join("redis.toml")).unwrap(), "redis");
        assert_eq!(profile_name(Path::new("redis.toml")).unwrap(), "redis");
        for wrong in ["redis", ".toml", "redis.json", ""] {
            assert!(profile_name(&folder.path().join(wrong)).is_err(), "{wrong:?}");
        }
        let said = profile_name(&folder.path().join("none/redis.toml")).unwrap_err().to_string();
        assert!(said.contains("no directory"), "{said}");
    }
}
