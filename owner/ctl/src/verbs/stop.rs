//! `postern stop`: the stop signal, a grace, SIGKILL.

use std::time::Duration;

use postern_api::owner::StopRequest;

use super::each::each;
use crate::{
    door::{Intent, Owner},
    exit::Exit,
    failure::Failure,
    human,
    launch::parse,
    target::Target,
};

/// What the guest may take on top of the grace.
const SLACK: Duration = Duration::from_secs(30);
/// Longest grace that can be asked for.
const MAX_GRACE: u64 = 86_400_000;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Returns when the container has ended.\n\nExamples:\n  postern stop demo/web\n  postern stop -t 1m demo/db"
)]
pub(crate) struct Args {
    /// Containers, each as POD/CONTAINER
    #[arg(value_name = "POD/CONTAINER", required = true, value_parser = parse::<Target>)]
    containers: Vec<Target>,
    /// How long it may take to end by itself; 0 kills at once
    #[arg(long, short, value_name = "DURATION", value_parser = grace, default_value = "10s")]
    time: u64,
}

fn grace(text: &str) -> Result<u64, String> {
    human::parse_duration(text).and_then(|millis| match millis {
        0..=MAX_GRACE => Ok(millis),
        _ => Err("a grace is at most one day".into()),
    })
}

pub(crate) async fn run(args: Args, owner: &Owner) -> Result<Exit, Failure> {
    let limit = Duration::from_millis(args.time) + SLACK;
    each(owner, &args.containers, Intent::Change, async |session, target| {
        let doing = format!("stop container {}", target.container);
        let request = StopRequest { container: target.container.to_string(), grace_millis: args.time };
        session.call_within(limit, &doing, session.containers().stop(request)).await?;
        Ok(target.container.to_string())
    })
    .await
}
