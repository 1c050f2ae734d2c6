//! `postern pod inspect`: what is known here about a pod, and what the pod says itself.

use postern_api::owner::{BootStage, InspectPodRequest, InspectPodResponse};
use postern_model::PodName;
use serde_json::{Value, json};

use crate::{
    door::{Intent, Owner, Session},
    exit::Exit,
    failure::Failure,
    human,
    launch::parse,
    output::{self, Format, FormatArg},
    record::PodRecord,
    text,
};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  postern pod inspect demo\n  postern pod inspect demo --output json | jq -r .pod.phase"
)]
pub(crate) struct Args {
    /// Name of the pod
    #[arg(value_name = "POD", value_parser = parse::<PodName>)]
    pod: PodName,
    #[command(flatten)]
    output: FormatArg,
}

pub(crate) async fn run(args: Args, owner: &Owner) -> Result<Exit, Failure> {
    let record = PodRecord::load(&owner.home, &args.pod)?;
    let asked = async {
        let session = Session::open(owner, &args.pod, Intent::Read).await?;
        session.call("inspect the pod", session.pod().inspect(InspectPodRequest {})).await
    }
    .await;
    let known = known(&record);
    match args.output.format {
        Format::Json => {
            let mut document = known;
            document["pod"] = asked.as_ref().map_or(Value::Null, live);
            document["error"] = json!(asked.as_ref().err().map(ToString::to_string));
            output::json(&document)?;
        }
        Format::Text => {
            let mut out = String::new();
            section(&mut out, "known here", &known);
            if let Ok(pod) = &asked {
                section(&mut out, "said by the pod", &live(pod));
            }
            output::print(&out)?;
        }
    }
    asked.map(|_| Exit::Done)
}

fn known(record: &PodRecord) -> Value {
    json!({
        "name": record.name,
        "endpoint": record.endpoint,
        "tee": if record.accepts_simulated { "SIMULATED, protects nothing" } else { "snp" },
        "simulated": record.accepts_simulated,
        "origin": record.origin,
        "created": human::rfc3339(record.created_unix_millis),
        "machine": record.shape.map(|shape| shape.machine),
        "accelerator": record.shape.map(|shape| shape.accelerator),
        "cpus": record.shape.map(|shape| shape.cpus),
        "memory_mib": record.shape.map(|shape| shape.memory_mib),
        "mitigations": record.shape.map(|shape| shape.mitigations),
        "tsc_khz": record.shape.and_then(|shape| shape.tsc_khz),
        "measurements": record.measurements.iter().map(postern_model::Measurement::to_hex).collect::<Vec<_>>(),
        "host_data": record.host_data.to_hex(),
        "instance": record.instance,
        "owned": record.owned,
        "timeline": record.timeline,
    })
}

fn live(pod: &InspectPodResponse) -> Value {
    json!({
        "name": pod.pod,
        "phase": pod.phase,
        "hostname": pod.hostname,
        "agent_version": pod.agent_version,
        "kernel_release": pod.kernel_release,
        "uptime_millis": pod.uptime_millis,
        "memory_total_bytes": pod.memory_total_bytes,
        "memory_available_bytes": pod.memory_available_bytes,
        "cpus": pod.cpus,
        "containers": pod.containers,
        "images": pod.images,
        "your_role": pod.role,
        "boot": pod.boot.iter().map(stage).collect::<Vec<_>>(),
    })
}

fn stage(stage: &BootStage) -> Value {
    json!({"stage": stage.name, "boottime_micros": stage.boottime_micros})
}

/// One `key  value` line per field.
fn section(out: &mut String, title: &str, fields: &Value) {
    out.push_str(title);
    out.push('\n');
    for (key, value) in fields.as_object().into_iter().flatten() {
        let shown = match value {
            Value::Null => continue,
            Value::Array(items) if items.is_empty() => continue,
            Value::String(text) => text.clone(),
            Value::Array(items) if key == "boot" || key == "timeline" => timed(items),
            Value::Array(items) => {
                items.iter().map(|item| item.as_str().unwrap_or_default()).collect::<Vec<_>>().join(", ")
            }
            Value::Number(bytes) if key.ends_with("_bytes") => {
                human::memory(bytes.as_u64().unwrap_or_default())
            }
            Value::Number(millis) if key.ends_with("_millis") => {
                human::span(millis.as_u64().unwrap_or_default())
            }
            other => other.to_string(),
        };
        let key = key.trim_end_matches("_bytes").trim_end_matches("_millis").replace('_', " ");
        out.push_str(text::clean(&format!("  {key:<18} {shown}")).trim_end());
        out.push('\n');
    }
}

/// Stages of the guest's own boot are moments, those of the creation are spans.
fn timed(stages: &[Value]) -> String {
    let stage = |stage: &Value| {
        let micros =
            stage["boottime_micros"].as_f64().or(stage["millis"].as_f64().map(|millis| millis * 1e3));
        let seconds = micros.unwrap_or_default() / 1e6;
        format!("{} {seconds:.2} s", stage["stage"].as_str().unwrap_or_default())
    };
    stages.iter().map(stage).collect::<Vec<_>>().join(" · ")
}
