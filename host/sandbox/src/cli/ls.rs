//! `ls`: the pods of this host, and the shells that may become some.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use postern_model::PodName;
use postern_sandbox::{
    Home,
    state::{Pod, Shell, ShellStatus},
};

use super::{Failure, Output, inspect, print, print_json};

/// List the pods of this host, and the shells that pools keep ready
#[derive(Debug, Args)]
#[command(after_help = "A VM that nobody has claimed yet has status \"shell\".\n\n\
    Examples:\n  postern-host ls\n  postern-host ls --output json")]
pub(super) struct Arguments {
    /// How the result is printed
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

pub(super) fn run(home: &Home, arguments: &Arguments) -> Result<(), Failure> {
    let mut pods = home.list()?;
    // Some may go while they are looked at.
    pods.retain(|pod| pod.status().is_ok() || pod.directory().exists());
    let shells = living(home)?;
    match arguments.output {
        Output::Json => {
            let mut all = pods.iter().map(inspect::describe).collect::<Result<Vec<_>, _>>()?;
            for (shell, status) in &shells {
                all.push(inspect::describe_shell(shell, *status)?);
            }
            print_json(&all)
        }
        Output::Text => {
            let mut table = format!("{:<24} {:<9} {:<10} ENDPOINT\n", "NAME", "STATUS", "CREATED");
            for pod in &pods {
                table.push_str(&row(pod)?);
            }
            for (shell, status) in &shells {
                let created = shell.record().ok().map(|record| record.created_unix_millis);
                table.push_str(&line(shell.name(), status.as_str(), created, "-"));
            }
            print(&table)
        }
    }
}

/// The shells that have not gone while they were looked at.
fn living(home: &Home) -> Result<Vec<(Shell, ShellStatus)>, Failure> {
    let mut found = Vec::new();
    for shell in home.shells()? {
        found.extend(shell.status()?.map(|status| (shell, status)));
    }
    Ok(found)
}

fn row(pod: &Pod) -> Result<String, Failure> {
    // A record that cannot be read is a pod that can still be removed.
    let record = pod.record().ok();
    let created = record.as_ref().map(|record| record.created_unix_millis);
    let endpoint = record.and_then(|record| record.endpoint).unwrap_or_else(|| "-".into());
    Ok(line(pod.name(), pod.status()?.as_str(), created, &endpoint))
}

fn line(name: &PodName, status: &str, created_unix_millis: Option<u64>, endpoint: &str) -> String {
    let created = created_unix_millis.map_or("?".into(), |millis| ago(age(millis)));
    format!("{:<24} {status:<9} {created:<10} {endpoint}\n", name.as_str())
}

fn age(created_unix_millis: u64) -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(Duration::from_millis(created_unix_millis))
}

fn ago(age: Duration) -> String {
    match age.as_secs() {
        seconds @ 0..120 => format!("{seconds} s ago"),
        seconds @ 120..7200 => format!("{} min ago", seconds / 60),
        seconds @ 7200..172_800 => format!("{} h ago", seconds / 3600),
        seconds => format!("{} d ago", seconds / 86_400),
    }
}
