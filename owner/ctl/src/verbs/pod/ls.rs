//! `postern pod ls`: every pod the owner knows, and whether it answers.

use std::time::Duration;

use futures_util::future::join_all;
use postern_api::owner::InspectPodRequest;
use serde_json::json;

use crate::{
    door::{Intent, Owner, Session},
    exit::Exit,
    failure::Failure,
    human,
    output::{self, Format, FormatArg, Table},
    record::PodRecord,
};

/// How long a pod may take to say how it is; a list must not hang for one that is gone.
const ANSWER: Duration = Duration::from_secs(5);

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Every pod is verified on the way; `--offline` shows only what is known here.\n\nExamples:\n  postern pod ls\n  postern pod ls --output json"
)]
pub(crate) struct Args {
    /// Connect to nothing
    #[arg(long)]
    offline: bool,
    /// Print names only
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    output: FormatArg,
}

struct Row {
    name: String,
    record: Result<PodRecord, Failure>,
    /// The phase, or why there is none.
    status: String,
    containers: Option<u32>,
}

pub(crate) async fn run(args: Args, owner: &Owner) -> Result<Exit, Failure> {
    let offline = args.offline || args.quiet;
    let pods = PodRecord::all(&owner.home)?;
    let rows = join_all(pods.into_iter().map(|(name, record)| async move {
        let (status, containers) = match &record {
            Err(failure) => (failure.to_string(), None),
            Ok(_) if offline => ("not asked".into(), None),
            Ok(record) => ask(owner, record).await,
        };
        Row { name: name.to_string(), record, status, containers }
    }))
    .await;
    match (args.quiet, args.output.format) {
        (true, _) => output::print(&rows.iter().map(|row| format!("{}\n", row.name)).collect::<String>())?,
        (false, Format::Json) => output::json(&rows.iter().map(document).collect::<Vec<_>>())?,
        (false, Format::Text) => table(rows)?,
    }
    Ok(Exit::Done)
}

async fn ask(owner: &Owner, record: &PodRecord) -> (String, Option<u32>) {
    let asked = async {
        let session = Session::open(owner, &record.name, Intent::Read).await?;
        session.call("inspect the pod", session.pod().inspect(InspectPodRequest {})).await
    };
    match tokio::time::timeout(ANSWER, asked).await {
        Ok(Ok(pod)) => (pod.phase, Some(pod.containers)),
        Ok(Err(failure)) => match failure.exit() {
            Exit::NotVerified => ("NOT VERIFIED".into(), None),
            Exit::Denied => ("denied".into(), None),
            _ => ("unreachable".into(), None),
        },
        Err(_) => ("unreachable".into(), None),
    }
}

fn tee(record: &PodRecord) -> &'static str {
    if record.accepts_simulated { "SIMULATED" } else { "snp" }
}

fn document(row: &Row) -> serde_json::Value {
    match &row.record {
        Err(failure) => json!({"pod": row.name, "status": "broken record", "error": failure.to_string()}),
        Ok(record) => json!({
            "pod": row.name,
            "status": row.status,
            "endpoint": record.endpoint,
            "tee": tee(record),
            "simulated": record.accepts_simulated,
            "containers": row.containers,
            "origin": record.origin,
            "created": human::rfc3339(record.created_unix_millis),
        }),
    }
}

fn table(rows: Vec<Row>) -> Result<(), Failure> {
    let now = human::now_millis();
    let mut table = Table::new(&["POD", "STATUS", "TEE", "CONTAINERS", "ENDPOINT", "AGE"]);
    for row in rows {
        match row.record {
            Err(_) => table.row([row.name, row.status]),
            Ok(record) => table.row([
                row.name,
                row.status,
                tee(&record).into(),
                row.containers.map(|count| count.to_string()).unwrap_or_default(),
                record.endpoint,
                human::span(now.saturating_sub(record.created_unix_millis)),
            ]),
        }
    }
    table.print()
}
