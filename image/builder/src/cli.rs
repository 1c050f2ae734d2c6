//! The commands of `postern-image` and what each does.

use std::{
    io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};
use postern_builder::{
    build::{self, AGENT_BUDGET, Agent, Image},
    kernel::{Kernel, KernelPackages, profile::DIRECTORY},
    lock::Lock,
    records, sources,
};

use crate::report::{self, Report};

mod figures;
mod kernel;
mod profile;

/// `verify`: the image is not what its manifest says.
const NOT_INTACT: u8 = 3;
/// `kernel build`: the distribution no longer offers the source that is locked.
const SOURCE_MOVED_ON: u8 = 6;

#[derive(Debug, Parser)]
#[command(
    name = "postern-image",
    version,
    about = "Build the image a pod boots from: kernel, initramfs, image.json"
)]
#[command(after_help = "\
Examples:
  postern-image build --agent target/release/postern-agent --out image
  postern-image build --agent postern-agent --out image --lock known-good/image.lock
  postern-image build --agent postern-agent --out image --kernel vmlinux      (everything built in)
  postern-image kernel build --profile general                                (in a checkout)
  postern-image build --agent postern-agent --out image --profile general
  postern-image verify image

Exit codes: 0 done, 1 failed, 2 wrong use, 3 the image is not what its manifest says,\n            4 the kernel lacks what a container image needs,\n            5 a figure is over its budget,\n            6 the distribution no longer offers the kernel source that is locked")]
pub(crate) struct Arguments {
    /// How to print the result
    #[arg(long, global = true, value_enum, default_value_t = Output::Text)]
    output: Output,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build an image; does nothing when the one there was built from the same inputs
    Build(Build),
    /// The kernels that images are built with
    #[command(subcommand)]
    Kernel(kernel::KernelCommand),
    /// What a container image asks of a kernel
    #[command(subcommand)]
    Profile(profile::ProfileCommand),
    /// Show an image: its files, its inputs and what is in the initramfs
    Inspect { directory: PathBuf },
    /// How much of an image has to be trusted, figure by figure, held to budgets
    Report(figures::ReportCommand),
    /// Check every file of an image against its digest
    Verify { directory: PathBuf },
    /// Print a completion script for a shell
    Completion { shell: clap_complete::Shell },
}

#[derive(Debug, Args)]
struct Build {
    /// The agent: a static x86-64 program
    #[arg(long, value_name = "FILE")]
    agent: PathBuf,
    /// Directory for the image; made when it is not there
    #[arg(long, value_name = "DIRECTORY")]
    out: PathBuf,
    /// The workspace that the agent was built from, for the bill of materials
    #[arg(long, value_name = "DIRECTORY")]
    sources: Option<PathBuf>,
    /// Build even if the image is up to date
    #[arg(long)]
    rebuild: bool,
    #[command(flatten)]
    kernel: KernelSource,
}

#[derive(Debug, Args)]
struct KernelSource {
    /// The kernel of this profile, which `kernel build` has built, instead of the distribution's
    #[arg(long, value_name = "NAME", conflicts_with_all = ["kernel", "package", "lock"])]
    profile: Option<String>,
    /// Directory of the profiles
    #[arg(long, value_name = "DIRECTORY", requires = "profile", default_value = DIRECTORY)]
    profiles: PathBuf,
    /// A kernel (bzImage or vmlinux) instead of the distribution's
    #[arg(long, value_name = "FILE", conflicts_with_all = ["package", "lock"])]
    kernel: Option<PathBuf>,
    /// The kernel's lib/modules/RELEASE; leave out when it has everything built in
    #[arg(long, value_name = "DIRECTORY", requires = "kernel")]
    modules: Option<PathBuf>,
    /// A kernel package instead of the distribution's for virtual machines
    #[arg(long, value_name = "NAME", conflicts_with = "lock")]
    package: Option<String>,
    /// Use exactly the kernel packages that this image.lock names
    #[arg(long, value_name = "FILE")]
    lock: Option<PathBuf>,
}

impl Arguments {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let report = match &self.command {
            Command::Profile(command) => {
                let (report, code) = command.run()?;
                if let Some(report) = report {
                    print(&report, self.output)?;
                }
                return Ok(code);
            }
            Command::Report(command) => {
                let (report, code) = command.run()?;
                print(&report, self.output)?;
                return Ok(code);
            }
            Command::Build(build) => build.run()?,
            Command::Kernel(command) => match command.run() {
                Err(error) if kernel::source_moved_on(&error) => {
                    eprintln!("postern-image: {error:#}");
                    return Ok(ExitCode::from(SOURCE_MOVED_ON));
                }
                done => done?,
            },
            Command::Inspect { directory } => {
                let image = Image::load(directory).with_context(|| not_an_image(directory))?;
                report::inspect(directory, &image)?
            }
            Command::Verify { directory } => match Image::load(directory) {
                Ok(image) => report::image("intact", directory, &image),
                Err(error) => {
                    eprintln!("postern-image: {}: {:#}", directory.display(), anyhow::Error::from(error));
                    return Ok(ExitCode::from(NOT_INTACT));
                }
            },
            Command::Completion { shell } => {
                clap_complete::generate(*shell, &mut Self::command(), "postern-image", &mut io::stdout());
                return Ok(ExitCode::SUCCESS);
            }
        };
        print(&report, self.output)?;
        Ok(ExitCode::SUCCESS)
    }
}

fn print(report: &Report, output: Output) -> anyhow::Result<()> {
    use io::Write;
    let text = match output {
        Output::Text => report.text.clone(),
        Output::Json => serde_json::to_string_pretty(&report.json)? + "\n",
    };
    match io::stdout().write_all(text.as_bytes()) {
        // Whoever reads has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.context("writing the result"),
    }
}

fn not_an_image(directory: &Path) -> String {
    format!("{} is not a usable image; build one with `postern-image build`", directory.display())
}

impl Build {
    fn run(&self) -> anyhow::Result<Report> {
        let agent = Agent::read(&self.agent)?;
        self.warn(&agent);
        records::remove(&self.out)?;
        let (state, image) = self.image(&agent)?;
        let crates = self.sources.as_deref().map(sources::agent_crates).transpose()?;
        records::write(&self.out, &image, &agent, crates.as_deref())?;
        Ok(report::image(state, &self.out, &image))
    }

    /// The image, and what was done for it.
    fn image(&self, agent: &Agent) -> anyhow::Result<(&'static str, Image)> {
        if let Some(profile) = &self.kernel.profile {
            let kernel = kernel::plan(&self.kernel.profiles, profile)?.load()?;
            return Ok(("built", build::build(agent, &kernel, &self.out)?));
        }
        if let Some(file) = &self.kernel.kernel {
            let kernel = Kernel::from_files(file, self.kernel.modules.as_deref())?;
            return Ok(("built", build::build(agent, &kernel, &self.out)?));
        }
        let packages = match &self.kernel.lock {
            Some(lock) => {
                let lock = Lock::read(lock)?;
                anyhow::ensure!(
                    !lock.kernel.packages.is_empty() && lock.kernel.profile.is_none(),
                    "the lock names no kernel packages: its image was built with --kernel or --profile"
                );
                KernelPackages::locked(&lock.kernel.packages)
            }
            None => KernelPackages::resolve(self.kernel.package.as_deref())?,
        };
        if !self.rebuild
            && let Some(image) = Image::up_to_date(&self.out, agent, packages.packages())
        {
            return Ok(("up to date", image));
        }
        let kernel = kernel::obtain(&packages)?;
        Ok(("built", build::build(agent, &kernel, &self.out)?))
    }

    fn warn(&self, agent: &Agent) {
        let (path, size) = (self.agent.display(), agent.input().size);
        if agent.has_symbols() {
            eprintln!("postern-image: warning: {path} is not stripped; the guest would carry its symbols");
        }
        if size > AGENT_BUDGET {
            eprintln!(
                "postern-image: warning: {path} has {size} bytes, more than its budget of {AGENT_BUDGET}"
            );
        }
    }
}
