//! `postern-image profile check`: what a kernel lacks for an image, before there is a pod.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{ArgGroup, Args};
use postern_builder::{
    build::Image,
    kernel,
    profile::{
        check::{LABEL, Lacks, Requirements, suited},
        image::ContainerImage,
        kernel_config::KernelOptions,
        rules::{Need, Rules},
        scan,
    },
};
use serde_json::json;

use super::{Report, open, options_of};

/// Its configuration, in the directory of an image with a kernel of ours.
const KERNEL_CONFIG: &str = "kernel.config";
/// How many profiles are named.
const NAMED: usize = 4;

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("kernel").required(true))]
pub(crate) struct Check {
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

/// Where the requirements are from, which decides how much they say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ground {
    /// Somebody who knows has written them down.
    Told,
    /// The programs could make such calls.
    Seen,
}

impl Check {
    pub(super) fn run(&self) -> anyhow::Result<(Report, bool)> {
        let rules = Rules::built_in()?;
        // What costs no look at the image first.
        let (kernel, name) = self.kernel()?;
        let image = open(&self.image, self.tag.as_deref())?;
        let (requirements, ground) = self.requirements(&rules, &image)?;
        let lacks = requirements.missing(&rules, &kernel);
        let required = lacks.iter().any(|lack| lack.requirement.need == Need::Required);
        let suited = if required { suited(&self.profiles, &requirements) } else { Vec::new() };
        Ok((report(&requirements, ground, &name, &lacks, &suited), required))
    }

    fn requirements(&self, rules: &Rules, image: &ContainerImage) -> anyhow::Result<(Requirements, Ground)> {
        if let Some(path) = &self.requirements {
            return Ok((Requirements::read(path)?, Ground::Told));
        }
        if let Some(label) = image.config.labels.as_ref().and_then(|labels| labels.get(LABEL)) {
            return Ok((Requirements::of_label(label)?, Ground::Told));
        }
        let scanned = scan::scan(rules, image, None)?;
        anyhow::ensure!(
            !scanned.says_nothing(),
            "the image has no label {LABEL}, and {} is static and without symbols: what it needs is not known; \
             find it out with `postern-image profile derive`, and give that with --requirements",
            scanned.opaque.join(", ")
        );
        for gap in scanned.gaps() {
            eprintln!("postern-image: warning: {gap}");
        }
        let requirements = Requirements::of_findings(&scanned.findings, "a look at the image's programs");
        Ok((requirements, Ground::Seen))
    }

    fn kernel(&self) -> anyhow::Result<(KernelOptions, String)> {
        if let Some(path) = &self.kernel_config {
            return Ok((KernelOptions::read(path)?, path.display().to_string()));
        }
        if let Some(name) = &self.profile {
            return Ok((options_of(&self.profiles, name)?, format!("profile {name}")));
        }
        let directory = self.image_dir.as_deref().context("name a kernel")?;
        Ok((of_image(directory)?, directory.display().to_string()))
    }
}

fn of_image(directory: &Path) -> anyhow::Result<KernelOptions> {
    Image::load(directory).with_context(|| super::super::not_an_image(directory))?;
    let path = directory.join(KERNEL_CONFIG);
    anyhow::ensure!(
        path.exists(),
        "{} has no {KERNEL_CONFIG}: its kernel is a distribution's; give its configuration with --kernel-config",
        directory.display()
    );
    Ok(KernelOptions::read(&path)?)
}

fn report(
    requirements: &Requirements,
    ground: Ground,
    kernel: &str,
    lacks: &[Lacks],
    suited: &[String],
) -> Report {
    use std::fmt::Write as _;
    let mut text = String::new();
    let required = lacks.iter().any(|lack| lack.requirement.need == Need::Required);
    let verdict = match (required, lacks.is_empty(), ground) {
        (true, _, Ground::Told) => "lacks what the image needs",
        (true, _, Ground::Seen) => "lacks what the image could need",
        (false, false, _) => "has what the image needs, but not all that it could use",
        (false, true, _) => "has all that the image needs",
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
    if ground == Ground::Seen {
        text.push_str(
            "note: these are calls that the programs could make; which they make, `postern-image profile derive` tells\n",
        );
    }
    if required {
        text.push_str(&next(suited));
    }
    let one = |lack: &Lacks| {
        json!({
            "option": lack.option, "need": lack.requirement.need, "by": lack.requirement.by, "without": lack.without,
        })
    };
    let json = json!({
        "kernel": kernel, "source": requirements.source, "fits": !required,
        "needed": requirements.options.keys().collect::<Vec<_>>(),
        "lacks": lacks.iter().map(one).collect::<Vec<_>>(), "suited": suited,
    });
    Report { text, json }
}

/// What to do about it: the narrowest kernels that have everything, or a profile that does not exist yet.
fn next(suited: &[String]) -> String {
    match suited {
        [] => {
            "next: make a profile that has them with `postern-image profile derive`, and build its kernel\n"
                .into()
        }
        [first, ..] => {
            let names = suited.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
            let more = if suited.len() > NAMED { ", and others" } else { "" };
            format!(
                "next: boot the pod with a kernel that has them; these profiles do: {names}{more}\n      \
                 `postern-image kernel build --profile {first}`\n"
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_to_do_next_is_said() {
        assert!(next(&[]).contains("profile derive"));
        let names = ["sqlite", "python", "mariadb", "general", "tee"].map(str::to_owned);
        let said = next(&names);
        assert!(said.contains("--profile sqlite`") && said.contains("general, and others"), "{said}");
        assert!(next(&names[..1]).contains("do: sqlite\n"));
    }

    #[test]
    fn a_directory_without_an_image_is_no_distributions_kernel() {
        let folder = tempfile::tempdir().unwrap();
        let said = format!("{:#}", of_image(folder.path()).unwrap_err());
        assert!(said.contains("not a usable image") && !said.contains("distribution"), "{said}");
    }
}
