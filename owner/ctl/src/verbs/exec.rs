//! `postern exec`: a command in a running container.

use std::collections::HashMap;

use postern_api::owner::{ExecStart, process_input::Kind};

use super::run::variables;
use crate::{
    door::{Intent, Owner, Session, Subject},
    exit::Exit,
    failure::Failure,
    launch::parse,
    process::{
        stream::{Connection, Leave, drive},
        terminal,
    },
    target::Target,
};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Ends with the command's exit code; 125 when Postern failed, 126 and 127 as a shell.\n\nExamples:\n  postern exec demo/web ls /srv\n  postern exec -it demo/web sh\n  postern exec -i demo/db -- psql < dump.sql"
)]
pub(crate) struct Args {
    /// The container, as POD/CONTAINER
    #[arg(value_name = "POD/CONTAINER", value_parser = parse::<Target>)]
    container: Target,
    /// The command and its arguments
    #[arg(value_name = "COMMAND", required = true, trailing_var_arg = true)]
    command: Vec<String>,
    /// Connect standard input
    #[arg(long, short)]
    interactive: bool,
    /// Give it a terminal
    #[arg(long, short)]
    tty: bool,
    /// Set a variable; without a value, take it from here
    #[arg(long, short, value_name = "KEY[=VALUE]")]
    env: Vec<String>,
    /// Read variables from a file, one KEY=VALUE per line
    #[arg(long, value_name = "FILE")]
    env_file: Vec<std::path::PathBuf>,
    /// Directory to start in
    #[arg(long, short, value_name = "DIR", default_value = "", hide_default_value = true)]
    workdir: String,
    /// Run as this user: name or number, with an optional group
    #[arg(long, short, value_name = "USER[:GROUP]", default_value = "", hide_default_value = true)]
    user: String,
}

pub(crate) async fn run(args: Args, owner: &Owner) -> Result<Exit, Failure> {
    terminal_fits(args.interactive, args.tty)?;
    let env: HashMap<String, String> = variables(&args.env, &args.env_file)?.into_iter().collect();
    let Target { pod, container } = args.container;
    let session = Session::open(owner, &pod, Intent::Change).await?;
    let doing = format!("run {:?} in container {container}", args.command[0]);
    let first = Kind::Exec(ExecStart {
        container: container.to_string(),
        args: args.command,
        env,
        working_dir: args.workdir,
        user: args.user,
        terminal: args.tty,
        stdin: args.interactive,
        size: if args.tty { terminal::window_size() } else { None },
    });
    let connection = Connection {
        subject: Subject { pod: session.name(), doing: &doing },
        terminal: args.tty,
        stdin: args.interactive,
        leave: Leave::Ends,
        moments: None,
    };
    let mut containers = session.bulk();
    drive(&session, connection, first, async |input| containers.exec(input).await).await
}

/// `-it` is for a person: a pipe at standard input means that -t was not meant.
pub(super) fn terminal_fits(interactive: bool, tty: bool) -> Result<(), Failure> {
    match interactive && tty && !terminal::stdin_is_terminal() {
        true => Err(Failure::usage("standard input is not a terminal").hint("leave -t away to pipe data in")),
        false => Ok(()),
    }
}
