//! `postern completion`: scripts for shells.

use clap::CommandFactory;
use clap_complete::{Shell, generate};

use crate::{cli::Cli, door::Owner, exit::Exit, failure::Failure, output};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  postern completion bash > ~/.local/share/bash-completion/completions/postern\n  postern completion zsh > ~/.zfunc/_postern\n  postern completion fish > ~/.config/fish/completions/postern.fish"
)]
pub(crate) struct Args {
    #[arg(value_enum)]
    shell: SupportedShell,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum SupportedShell {
    Bash,
    Zsh,
    Fish,
}

pub(crate) async fn run(args: Args, _owner: &Owner) -> Result<Exit, Failure> {
    let shell = match args.shell {
        SupportedShell::Bash => Shell::Bash,
        SupportedShell::Zsh => Shell::Zsh,
        SupportedShell::Fish => Shell::Fish,
    };
    let mut script = Vec::new();
    generate(shell, &mut Cli::command(), "postern", &mut script);
    output::print(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Done)
}
