//! `postern stats`: CPU, memory and processes of containers, pushed by the pod.

use std::{
    collections::HashMap,
    io::{IsTerminal, stdout},
};

use postern_api::owner::{ContainerStats, StatsRequest, StatsResponse};
use serde_json::json;

use crate::{
    door::{Intent, Owner, Session, Subject},
    exit::Exit,
    failure::Failure,
    human,
    launch::parse,
    output::{self, Format, FormatArg, Table},
    target::PodOrTarget,
};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "On a terminal the table is refreshed until Ctrl-C; elsewhere one sample is printed.\n\nExamples:\n  postern stats demo\n  postern stats --no-stream --output json demo/web"
)]
pub(crate) struct Args {
    /// A pod, or one of its containers
    #[arg(value_name = "POD[/CONTAINER]", value_parser = parse::<PodOrTarget>)]
    target: PodOrTarget,
    /// Print one sample and end
    #[arg(long)]
    no_stream: bool,
    /// Time between samples
    #[arg(long, value_name = "DURATION", value_parser = interval, default_value = "1s")]
    interval: u64,
    #[command(flatten)]
    output: FormatArg,
}

/// Between the two samples that a share of CPU time needs.
const ONE_SAMPLE_MILLIS: u64 = 200;

fn interval(text: &str) -> Result<u64, String> {
    human::parse_duration(text).and_then(|millis| match millis {
        100..=3_600_000 => Ok(millis),
        _ => Err("an interval is 100ms to 1h".into()),
    })
}

pub(crate) async fn run(args: Args, owner: &Owner) -> Result<Exit, Failure> {
    let screen = stdout().is_terminal() && args.output.format == Format::Text && !args.no_stream;
    let stream = screen || (args.output.format == Format::Json && !args.no_stream);
    let session = Session::open(owner, &args.target.pod, Intent::Read).await?;
    let subject = Subject { pod: session.name(), doing: "read what containers use" };
    let request = StatsRequest {
        containers: args.target.container.iter().map(ToString::to_string).collect(),
        interval_millis: if stream { args.interval } else { ONE_SAMPLE_MILLIS },
    };
    let mut samples = session.open_stream(subject, session.containers().stats(request)).await?;
    let mut before: HashMap<String, ContainerStats> = HashMap::new();
    let mut taken = 0;
    while let Some(sample) = samples.message().await.map_err(|status| session.failure(subject, &status))? {
        taken += 1;
        let rows = rows(&sample, &before);
        before = sample.containers.into_iter().map(|stats| (stats.container.clone(), stats)).collect();
        // The first sample has nothing to compare with.
        if taken == 1 && !rows.is_empty() {
            continue;
        }
        print(&rows, args.output.format, screen)?;
        if !stream {
            break;
        }
    }
    Ok(Exit::Done)
}

struct Row {
    stats: ContainerStats,
    /// Of one CPU.
    cpu_percent: f64,
}

fn rows(sample: &StatsResponse, before: &HashMap<String, ContainerStats>) -> Vec<Row> {
    let row = |stats: &ContainerStats| {
        let cpu_percent = before.get(&stats.container).map_or(0.0, |earlier| {
            let nanos = stats.cpu_usage_nanos.saturating_sub(earlier.cpu_usage_nanos) as f64;
            let millis = stats.unix_millis.saturating_sub(earlier.unix_millis).max(1) as f64;
            nanos / (millis * 1e6) * 100.0
        });
        Row { stats: stats.clone(), cpu_percent }
    };
    sample.containers.iter().map(row).collect()
}

fn print(rows: &[Row], format: Format, screen: bool) -> Result<(), Failure> {
    if format == Format::Json {
        let rows = rows.iter().map(|Row { stats, cpu_percent }| {
            json!({
                "container": stats.container,
                "time": human::rfc3339(stats.unix_millis),
                "cpu_percent": (cpu_percent * 100.0).round() / 100.0,
                "cpu_usage_nanos": stats.cpu_usage_nanos,
                "memory_bytes": stats.memory_bytes,
                "memory_limit_bytes": limit(stats.memory_limit_bytes),
                "pids": stats.pids,
                "pids_limit": limit(stats.pids_limit),
            })
        });
        return output::json_line(&rows.collect::<Vec<_>>());
    }
    let mut table = Table::new(&["NAME", "CPU", "MEMORY", "LIMIT", "PIDS", "LIMIT"]);
    for Row { stats, cpu_percent } in rows {
        let or_none = |value: u64, shown: String| if value == 0 { "none".to_owned() } else { shown };
        table.row([
            stats.container.clone(),
            format!("{cpu_percent:.1} %"),
            human::memory(stats.memory_bytes),
            or_none(stats.memory_limit_bytes, human::memory(stats.memory_limit_bytes)),
            stats.pids.to_string(),
            or_none(stats.pids_limit, stats.pids_limit.to_string()),
        ]);
    }
    // Home, then clear to the end: no flicker.
    let start = if screen { "\x1b[H\x1b[J" } else { "" };
    output::print(&format!("{start}{}", table.render()))
}

fn limit(value: u64) -> serde_json::Value {
    if value == 0 { serde_json::Value::Null } else { json!(value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_cpu_is_taken_between_two_samples() {
        let stats = |nanos, millis| ContainerStats {
            container: "web".into(),
            cpu_usage_nanos: nanos,
            unix_millis: millis,
            ..Default::default()
        };
        let before = HashMap::from([("web".to_owned(), stats(1_000_000_000, 1000))]);
        let sample = StatsResponse { containers: vec![stats(1_500_000_000, 2000)] };
        assert!((rows(&sample, &before)[0].cpu_percent - 50.0).abs() < 1e-9);
        let same_moment = StatsResponse { containers: vec![stats(0, 1000)] };
        assert!(
            rows(&same_moment, &before)[0].cpu_percent.abs() < 1e-9,
            "counters that go back are no share"
        );
    }
}
