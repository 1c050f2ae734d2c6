//! `postern-image kernel`: the kernels that images are built with, the distribution's and ours.

use std::{
    fs,
    path::{Path, PathBuf},
    thread::available_parallelism,
};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use postern_builder::kernel::{
    Kernel, KernelPackages, cache_directory,
    profile::{self, Profiles},
    source::{Source, SourceError},
    specialised::{Plan, RESOLVED},
};
use serde_json::json;

use crate::report::{self, Report};

#[derive(Debug, Subcommand)]
pub(crate) enum KernelCommand {
    /// Download the distribution's kernel package and unpack the kernel and its modules
    Fetch {
        /// Directory for vmlinuz and modules/; made when it is not there
        #[arg(long, value_name = "DIRECTORY")]
        out: PathBuf,
        /// A kernel package instead of the distribution's for virtual machines
        #[arg(long, value_name = "NAME")]
        package: Option<String>,
    },
    /// Build the kernels of profiles, unless they are in the cache, and print where they are
    Build {
        /// Which profile; several are built in one tree, which is much faster than one after another
        #[arg(long, value_name = "NAME", default_value = "general")]
        profile: Vec<String>,
        #[command(flatten)]
        directory: ProfilesDirectory,
        /// How many compilers run at once [default: as many as there are processors]
        #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..))]
        jobs: Option<u16>,
    },
    /// Print where the kernel of a profile is; fails when it is not built
    Path {
        #[command(flatten)]
        chosen: Chosen,
    },
    /// Show the options of a profile: value, group, reason, and the profile each comes from
    Show {
        #[command(flatten)]
        chosen: Chosen,
    },
    /// Resolve profiles anew and write the configurations that builds are held to
    Bless {
        #[command(flatten)]
        profiles: ProfilesDirectory,
        /// Which profile [default: all that have a committed configuration]
        #[arg(long, value_name = "NAME")]
        profile: Vec<String>,
    },
    /// Move source.lock to the newest source package that apt knows
    Lock {
        #[command(flatten)]
        profiles: ProfilesDirectory,
    },
}

#[derive(Debug, Args)]
pub(crate) struct ProfilesDirectory {
    /// Directory of the profiles
    #[arg(long, value_name = "DIRECTORY", default_value = profile::DIRECTORY)]
    profiles: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Chosen {
    /// Which profile
    #[arg(long, value_name = "NAME", default_value = "general")]
    profile: String,
    #[command(flatten)]
    directory: ProfilesDirectory,
}

impl Chosen {
    fn plan(&self) -> anyhow::Result<Plan> {
        plan(&self.directory.profiles, &self.profile)
    }
}

/// The kernel of `profile`, to be built or to be found.
pub(crate) fn plan(profiles: &Path, profile: &str) -> anyhow::Result<Plan> {
    Ok(Plan::new(profiles, profile, &cache_directory()?)?)
}

impl KernelCommand {
    pub(crate) fn run(&self) -> anyhow::Result<Report> {
        match self {
            Self::Fetch { out, package } => fetch(out, package.as_deref()),
            Self::Build { profile, directory, jobs } => {
                let processors = || available_parallelism().map_or(1, usize::from);
                build(&directory.profiles, profile, jobs.map_or_else(processors, usize::from))
            }
            Self::Path { chosen } => found(&chosen.profile, &chosen.plan()?.path()?),
            Self::Show { chosen } => show(chosen),
            Self::Bless { profiles, profile } => bless(&profiles.profiles, profile),
            Self::Lock { profiles } => {
                let (before, after) = Source::move_lock(&profiles.profiles)?;
                let text = match before == after {
                    true => format!("{} {} is the newest\n", after.name, after.version),
                    false => format!(
                        "{} {} -> {}\nnext: postern-image kernel bless\n",
                        after.name, before.version, after.version
                    ),
                };
                Ok(Report { text, json: json!({ "before": before, "after": after }) })
            }
        }
    }
}

/// Whether it failed because the distribution has moved on: nothing that a change of ours has broken.
pub(crate) fn source_moved_on(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| matches!(cause.downcast_ref(), Some(SourceError::MovedOn { .. })))
}

fn build(directory: &Path, profiles: &[String], jobs: usize) -> anyhow::Result<Report> {
    let mut say = |profile: &str, text: &str| eprintln!("kernel {profile}: {text}");
    if let [profile] = profiles {
        let path = plan(directory, profile)?.build(jobs, &mut |text| say(profile, text))?;
        return found(profile, &path);
    }
    let plans = profiles.iter().map(|profile| plan(directory, profile));
    let plans = plans.collect::<anyhow::Result<Vec<_>>>()?;
    let paths = Plan::build_all(&plans, jobs, &mut say)?;
    let reports = profiles.iter().zip(&paths).map(|(profile, path)| found(profile, path));
    let reports = reports.collect::<anyhow::Result<Vec<_>>>()?;
    let text = reports.iter().map(|report| report.text.as_str()).collect();
    Ok(Report { text, json: reports.into_iter().map(|report| report.json).collect() })
}

fn found(profile: &str, path: &Path) -> anyhow::Result<Report> {
    Ok(Report { text: format!("{}\n", path.display()), json: json!({ "profile": profile, "kernel": path }) })
}

fn show(chosen: &Chosen) -> anyhow::Result<Report> {
    use std::fmt::Write as _;
    let composition = Profiles::read(&chosen.directory.profiles)?.compose(&chosen.profile)?;
    let mut groups: Vec<&str> = composition.options.values().map(|wanted| wanted.group.as_str()).collect();
    groups.sort_unstable();
    groups.dedup();
    let mut text = format!("{}: {}\n", composition.profile, composition.summary);
    let mut options = Vec::new();
    for group in groups {
        let _ = writeln!(text, "\n{group}");
        for (name, wanted) in composition.options.iter().filter(|(_, wanted)| wanted.group == group) {
            let setting = format!("{name}={}", wanted.value);
            let _ = writeln!(text, "  {setting:<42} {}  ({})", wanted.why, wanted.profile);
            options.push(json!({
                "option": name, "value": wanted.value.to_string(), "group": group, "why": wanted.why,
                "profile": wanted.profile,
            }));
        }
    }
    let json = json!({ "profile": composition.profile, "summary": composition.summary, "options": options });
    Ok(Report { text, json })
}

fn bless(directory: &Path, chosen: &[String]) -> anyhow::Result<Report> {
    let profiles = if chosen.is_empty() { committed(&directory.join(RESOLVED))? } else { chosen.to_vec() };
    anyhow::ensure!(
        !profiles.is_empty(),
        "no profile has a committed configuration; name one with --profile"
    );
    let mut say = |text: &str| eprintln!("kernel: {text}");
    let blessed = Plan::bless(directory, &profiles, &cache_directory()?, &mut say)?;
    let mut text = String::new();
    let mut json = Vec::new();
    for resolved in blessed {
        let (path, changes) = (resolved.path.display(), resolved.changes);
        text.push_str(&format!("{path}: {} options built in, {} changed\n", resolved.options, changes.len()));
        changes.iter().for_each(|change| text.push_str(&format!("  {change}\n")));
        json.push(json!({ "path": resolved.path, "options": resolved.options, "changes": changes }));
    }
    Ok(Report { text, json: json.into() })
}

fn committed(directory: &Path) -> anyhow::Result<Vec<String>> {
    let entries = fs::read_dir(directory).with_context(|| format!("listing {}", directory.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        let path = entry.with_context(|| format!("listing {}", directory.display()))?.path();
        if path.extension().is_some_and(|extension| extension == "config") {
            names.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
        }
    }
    names.sort();
    Ok(names)
}

/// Downloads the distribution's kernel, saying which.
pub(crate) fn obtain(packages: &KernelPackages) -> anyhow::Result<Kernel> {
    for package in packages.packages() {
        eprintln!("kernel package {} {}", package.name, package.version);
    }
    Ok(packages.fetch(&cache_directory()?)?)
}

fn fetch(out: &Path, package: Option<&str>) -> anyhow::Result<Report> {
    let kernel = obtain(&KernelPackages::resolve(package)?)?;
    fs::create_dir_all(out).with_context(|| format!("making {}", out.display()))?;
    let image = out.join("vmlinuz");
    fs::write(&image, &kernel.image).with_context(|| format!("writing {}", image.display()))?;
    let modules = out.join("modules");
    if let Some(from) = &kernel.modules {
        copy_tree(from, &modules)?;
    }
    Ok(report::kernel(&kernel, &image, &modules))
}

fn copy_tree(from: &Path, to: &Path) -> anyhow::Result<()> {
    let mut pending = vec![(from.to_path_buf(), to.to_path_buf())];
    while let Some((from, to)) = pending.pop() {
        fs::create_dir_all(&to).with_context(|| format!("making {}", to.display()))?;
        for entry in fs::read_dir(&from).with_context(|| format!("listing {}", from.display()))? {
            let entry = entry.with_context(|| format!("listing {}", from.display()))?;
            let target = to.join(entry.file_name());
            let kind = entry.file_type().with_context(|| format!("reading {}", entry.path().display()))?;
            if kind.is_dir() {
                pending.push((entry.path(), target));
            } else if kind.is_file() {
                fs::copy(entry.path(), &target).with_context(|| format!("writing {}", target.display()))?;
            }
        }
    }
    Ok(())
}
