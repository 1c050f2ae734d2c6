//! `ls`: the pods of this host.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use postern_sandbox::{
    Home,
    state::{Pod, PodRecord},
};

use super::{Failure, Output, inspect, print, print_json};

/// List the pods of this host
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  postern-host ls\n  postern-host ls --output json")]
pub(super) struct Arguments {
    /// How the result is printed
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

pub(super) fn run(home: &Home, arguments: &Arguments) -> Result<(), Failure> {
    let pods = home.list()?;
    match arguments.output {
        Output::Json => print_json(&pods.iter().map(inspect::describe).collect::<Result<Vec<_>, _>>()?),
        Output::Text => {
            let mut table = format!("{:<24} {:<9} {:<10} ENDPOINT\n", "NAME", "STATUS", "CREATED");
            for pod in &pods {
                table.push_str(&row(pod)?);
            }
            print(&table)
        }
    }
}

fn row(pod: &Pod) -> Result<String, Failure> {
    // A record that cannot be read is a pod that can still be removed.
    let record = pod.record().ok();
    let created = record.as_ref().map_or("?".into(), |record| ago(age(record)));
    let endpoint = record.and_then(|record| record.endpoint).unwrap_or_else(|| "-".into());
    let status = pod.status()?.as_str();
    Ok(format!("{:<24} {status:<9} {created:<10} {endpoint}\n", pod.name().as_str()))
}

fn age(record: &PodRecord) -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(Duration::from_millis(record.created_unix_millis))
}

fn ago(age: Duration) -> String {
    match age.as_secs() {
        seconds @ 0..120 => format!("{seconds} s ago"),
        seconds @ 120..7200 => format!("{} min ago", seconds / 60),
        seconds @ 7200..172_800 => format!("{} h ago", seconds / 3600),
        seconds => format!("{} d ago", seconds / 86_400),
    }
}
