//! `postern audit`: every call of the host, and what it was told.

use postern_api::owner::{AuditRecord, AuditRequest};
use postern_model::PodName;
use serde_json::json;

use crate::{
    door::{Intent, Owner, Session, Subject},
    exit::Exit,
    failure::Failure,
    human,
    launch::parse,
    output::{self, Format, FormatArg},
    text,
};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Verdicts: allowed, sanitised (answered with less than was asked), refused, unknown (no such method).\n\nExamples:\n  postern audit demo\n  postern audit -f demo\n  postern audit demo --output json | jq '.[] | select(.verdict == \"refused\")'"
)]
pub(crate) struct Args {
    /// Name of the pod
    #[arg(value_name = "POD", value_parser = parse::<PodName>)]
    pod: PodName,
    /// Go on with new calls until Ctrl-C
    #[arg(long, short)]
    follow: bool,
    /// Begin with this record
    #[arg(long, value_name = "SEQUENCE", default_value_t = 0)]
    from: u64,
    #[command(flatten)]
    output: FormatArg,
}

pub(crate) async fn run(args: Args, owner: &Owner) -> Result<Exit, Failure> {
    let session = Session::open(owner, &args.pod, Intent::Read).await?;
    let subject = Subject { pod: session.name(), doing: "read the audit" };
    let request = AuditRequest { from: args.from, follow: args.follow };
    let mut records = session.open_stream(subject, session.pod().audit(request)).await?;
    let mut header = args.output.format == Format::Text;
    let mut documents = Vec::new();
    while let Some(record) = records.message().await.map_err(|status| session.failure(subject, &status))? {
        if std::mem::take(&mut header) {
            output::line(&row("SEQ", "TIME", "PHASE", "VERDICT", "METHOD", "TIMES"))?;
        }
        match args.output.format {
            Format::Json if args.follow => output::json_line(&document(&record))?,
            Format::Json => documents.push(document(&record)),
            Format::Text => print(&record)?,
        }
    }
    if args.output.format == Format::Json && !args.follow {
        output::json(&documents)?;
    }
    Ok(Exit::Done)
}

/// Fixed widths, since the audit is a stream: what comes later must line up too.
fn row(sequence: &str, time: &str, phase: &str, verdict: &str, method: &str, times: &str) -> String {
    let line = format!("{sequence:<6} {time:<24} {phase:<8} {verdict:<9} {method:<48} {times}");
    text::clean(line.trim_end())
}

fn print(record: &AuditRecord) -> Result<(), Failure> {
    if record.dropped_before > 0 {
        output::line(&format!(
            "       ({} records before this one were dropped: the audit is bounded)",
            record.dropped_before
        ))?;
    }
    output::line(&row(
        &record.sequence.to_string(),
        &human::rfc3339(record.unix_millis),
        &record.phase,
        &record.verdict,
        &record.method,
        &record.repeated.to_string(),
    ))
}

fn document(record: &AuditRecord) -> serde_json::Value {
    json!({
        "sequence": record.sequence,
        "time": human::rfc3339(record.unix_millis),
        "phase": record.phase,
        "verdict": record.verdict,
        "method": record.method,
        "request_digest": record.request_digest,
        "repeated": record.repeated,
        "dropped_before": record.dropped_before,
    })
}
