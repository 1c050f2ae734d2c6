//! `postern-image profile`: what an image asks of a kernel, found out by running it or by reading it.

use std::{path::Path, process::ExitCode};

use clap::Subcommand;
use postern_builder::{
    kernel::{self, profile::Profiles, specialised::RESOLVED},
    profile::{image::ContainerImage, kernel_config::KernelOptions, stage},
};

use super::Report;

mod check;
mod derive;

/// `check`: the kernel lacks what the image needs.
const LACKS: u8 = 4;

#[derive(Debug, Subcommand)]
pub(super) enum ProfileCommand {
    /// Find out which kernel options an image needs, and make a profile of them
    Derive(derive::Derive),
    /// Say what a kernel lacks for an image, before there is a pod
    Check(check::Check),
    #[command(hide = true)]
    Stage,
    #[command(hide = true)]
    Unpack,
    #[command(hide = true)]
    Enter,
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

fn open(path: &Path, tag: Option<&str>) -> anyhow::Result<ContainerImage> {
    Ok(ContainerImage::open(path, tag)?)
}

/// What a kernel of this profile has: as it was resolved, or as far as the profile says.
fn options_of(directory: &Path, profile: &str) -> anyhow::Result<KernelOptions> {
    let profiles = Profiles::read(directory)?;
    let composition = profiles.compose(profile)?;
    let resolved = directory.join(RESOLVED).join(format!("{profile}.config"));
    if resolved.is_file() {
        return Ok(KernelOptions::read(&resolved)?);
    }
    let on = composition.options.into_iter().filter(|(_, wanted)| wanted.value == kernel::profile::Value::On);
    Ok(on.map(|(name, _)| name).collect())
}
