//! `postern-image profile`: what an image asks of a kernel, found out by running it or by reading it.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::{ArgGroup, Args, Subcommand};
use postern_builder::{
    kernel::{self, profile::Profiles},
    profile::{
        check::{LABEL, Lacks, Requirements},
        compose::{self, Added, Extent},
        findings::Findings,
        image::ContainerImage,
        kernel_config::KernelOptions,
        rules::{Need, Rules},
        scan,
        stage::{self, Outcome, Plan},
    },
};
use serde_json::json;

use super::Report;

/// `check`: the kernel lacks what the image needs.
pub(super) const LACKS: u8 = 4;
/// What the profile of an application adds to.
const BASE: &str = "base";

#[derive(Debug, Subcommand)]
pub(super) enum ProfileCommand {
    /// Find out which kernel options an image needs, and make a profile of them
    Derive(Derive),
    /// Say what a kernel lacks for an image, before there is a pod
    Check(Check),
    #[command(hide = true)]
    Stage,
    #[command(hide = true)]
    Unpack,
    #[command(hide = true)]
    Enter,
}

#[derive(Debug, Args)]
pub(super) struct Derive {
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

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("kernel").required(true))]
pub(super) struct Check {
    /// An OCI layout directory, an OCI archive or a docker archive
    image: PathBuf,
    /// Which image, where the archive holds several
    #[arg(long)]
    tag: Option<String>,
    /// A profile, or what `derive --output json` printed, instead of the image's label or a look at its programs
    #[arg(long, value_name = "FILE")]
    requirements: Option<PathBuf>,
    /// A kernel's configuration, plain or gzip
    #[arg(long, value_name = "FILE", group = "kernel")]
    kernel_config: Option<PathBuf>,
    /// A profile of this checkout
    #[arg(long, value_name = "NAME", group = "kernel")]
    profile: Option<String>,
    /// An image that pods boot from, with a kernel of ours
    #[arg(long, value_name = "DIRECTORY", group = "kernel")]
    image_dir: Option<PathBuf>,
    /// Where the profiles are
    #[arg(long, value_name = "DIRECTORY", default_value = kernel::profile::DIRECTORY)]
    profiles: PathBuf,
}

impl ProfileCommand {
    /// The report, if there is one to print, and the exit code.
    pub(super) fn run(&self) -> anyhow::Result<(Option<Report>, ExitCode)> {
        match self {
            Self::Derive(derive) => Ok((Some(derive.run()?), ExitCode::SUCCESS)),
            Self::Check(check) => {
                let (report, lacks) = check.run()?;
                Ok((Some(report), if lacks { ExitCode::from(LACKS) } else { ExitCode::SUCCESS }))
            }
            Self::Stage => Ok((None, stage::stage().map(|()| ExitCode::SUCCESS)?)),
            Self::Unpack => Ok((None, stage::unpack().map(|()| ExitCode::SUCCESS)?)),
            Self::Enter => Ok((None, stage::enter().map(|()| ExitCode::SUCCESS)?)),
        }
    }
}

/// What a derivation found, and how.
struct Derived {
    findings: Findings,
    how: serde_json::Value,
    notes: Vec<String>,
}

impl Derive {
    fn run(&self) -> anyhow::Result<Report> {
        let rules = Rules::built_in()?;
        let derived = if self.scan { self.scan(&rules)? } else { self.trace()? };
        let base = options_of(&self.profiles, BASE)?;
        let extent = if self.everything { Extent::Everything } else { Extent::Required };
        let added = compose::added(&rules, &derived.findings, &base, extent);
        if let Some(path) = &self.write {
            let name =
                path.file_stem().and_then(|stem| stem.to_str()).context("--write needs a file name")?;
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
        let notes = scanned.opaque.iter().map(|path| {
            format!(
                "{path} is static and without symbols: what it calls is not known; run it, without --scan"
            )
        });
        let notes = notes.collect();
        Ok(Derived { findings: scanned.findings, how: json!({ "scanned": scanned.programs }), notes })
    }

    fn trace(&self) -> anyhow::Result<Derived> {
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
        let fault = match &report.outcome {
            Outcome::Checked | Outcome::Watched => None,
            Outcome::Ended { status } if status == "exit status: 0" => None,
            Outcome::Ended { status } => Some(format!("the program ended with {status}")),
            Outcome::EndedEarly { status } => {
                Some(format!("the program ended with {status} before the client had succeeded"))
            }
            Outcome::CheckFailed { last } => Some(format!("the client did not succeed in time: {last}")),
            Outcome::NotStarted { reason } => Some(format!("the program could not be started: {reason}")),
        };
        if let Some(fault) = fault {
            anyhow::bail!("{fault}; nothing was derived. The end of what it printed:\n{}", report.log);
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
        let mut text = String::new();
        let mut row = |option: &str, state: &str, by: &str| {
            let _ = writeln!(text, "{option:<28} {state:<9} {by}");
        };
        row("OPTION", "BASE", "NEEDED BY");
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
            let _ = writeln!(
                text,
                "refused: the filter of containers refuses these calls, and no option would help"
            );
        }
        for note in &derived.notes {
            let _ = writeln!(text, "note: {note}");
        }
        let required = compose::added(rules, findings, base, Extent::Required);
        let label = required.iter().map(|one| one.option.as_str()).collect::<Vec<_>>().join(" ");
        let _ = match added {
            [] => writeln!(text, "the profile {BASE} has everything"),
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

/// An empty directory that stages are mounted on, each in its own name space; it stays.
fn stage_directory() -> anyhow::Result<PathBuf> {
    let directory = kernel::cache_directory()?.join("stage");
    fs::create_dir_all(&directory).with_context(|| format!("making {}", directory.display()))?;
    Ok(directory)
}

fn open(path: &Path, tag: Option<&str>) -> anyhow::Result<ContainerImage> {
    Ok(ContainerImage::open(path, tag)?)
}

/// What a kernel of this profile has: as it was resolved, or as far as the profile says.
fn options_of(directory: &Path, profile: &str) -> anyhow::Result<KernelOptions> {
    let profiles = Profiles::read(directory)?;
    let composition = profiles.compose(profile)?;
    let resolved = directory.join("resolved").join(format!("{profile}.config"));
    if resolved.is_file() {
        return Ok(KernelOptions::read(&resolved)?);
    }
    let on = composition.options.into_iter().filter(|(_, wanted)| wanted.value == kernel::profile::Value::On);
    Ok(on.map(|(name, _)| name).collect())
}

impl Check {
    fn run(&self) -> anyhow::Result<(Report, bool)> {
        let rules = Rules::built_in()?;
        let image = open(&self.image, self.tag.as_deref())?;
        let requirements = self.requirements(&rules, &image)?;
        let (kernel, name) = self.kernel()?;
        let lacks = requirements.missing(&rules, &kernel);
        let required = lacks.iter().any(|lack| lack.requirement.need == Need::Required);
        Ok((report(&requirements, &name, &lacks, required), required))
    }

    fn requirements(&self, rules: &Rules, image: &ContainerImage) -> anyhow::Result<Requirements> {
        if let Some(path) = &self.requirements {
            return Ok(Requirements::read(path)?);
        }
        if let Some(label) = image.config.labels.as_ref().and_then(|labels| labels.get(LABEL)) {
            return Ok(Requirements::of_label(label)?);
        }
        let scanned = scan::scan(rules, image, None)?;
        for path in &scanned.opaque {
            eprintln!(
                "postern-image: warning: {path} is static and without symbols: what it calls is not known"
            );
        }
        Ok(Requirements::of_findings(&scanned.findings, "a look at the image's programs"))
    }

    fn kernel(&self) -> anyhow::Result<(KernelOptions, String)> {
        if let Some(path) = &self.kernel_config {
            return Ok((KernelOptions::read(path)?, path.display().to_string()));
        }
        if let Some(name) = &self.profile {
            return Ok((options_of(&self.profiles, name)?, format!("profile {name}")));
        }
        let directory = self.image_dir.as_deref().context("name a kernel")?;
        let path = directory.join("kernel.config");
        if fs::metadata(&path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            anyhow::bail!(
                "{} has no kernel.config: its kernel is a distribution's; give its configuration with --kernel-config",
                directory.display()
            );
        }
        Ok((KernelOptions::read(&path)?, directory.display().to_string()))
    }
}

fn report(requirements: &Requirements, kernel: &str, lacks: &[Lacks], required: bool) -> Report {
    use std::fmt::Write as _;
    let mut text = String::new();
    let verdict = match (required, lacks.is_empty()) {
        (true, _) => "lacks what the image needs",
        (false, false) => "has what the image needs, but not all that it could use",
        (false, true) => "has all that the image needs",
    };
    let _ = writeln!(text, "{kernel} {verdict}, by {}", requirements.source);
    for lack in lacks {
        let word = match lack.requirement.need {
            Need::Required => "missing",
            Need::Optional => "optional",
        };
        let _ = writeln!(text, "  {word:<9} {:<24} {}", lack.option, lack.requirement.by);
        if !lack.without.is_empty() {
            let _ = writeln!(text, "  {:<9} {:<24} without it: {}", "", "", lack.without);
        }
    }
    if required {
        let _ = writeln!(
            text,
            "next: boot a pod with a kernel that has them: `postern-image kernel build --profile NAME`"
        );
    }
    let one = |lack: &Lacks| {
        json!({
            "option": lack.option, "need": lack.requirement.need, "by": lack.requirement.by, "without": lack.without,
        })
    };
    let json = json!({
        "kernel": kernel, "source": requirements.source, "fits": !required,
        "needed": requirements.options.keys().collect::<Vec<_>>(),
        "lacks": lacks.iter().map(one).collect::<Vec<_>>(),
    });
    Report { text, json }
}
