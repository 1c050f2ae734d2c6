//! `postern inspect`: everything the pod knows about containers, as JSON.

use postern_api::owner::{ContainerSpec, InspectRequest, InspectResponse, Mount, mount::Kind};
use serde_json::{Value, json};

use super::show;
use crate::{
    door::{Intent, Owner, Session},
    exit::Exit,
    failure::Failure,
    launch::parse,
    output::{self, Format},
    target::Target,
};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  postern inspect demo/web\n  postern inspect demo/web | jq -r '.[0].state'"
)]
pub(crate) struct Args {
    /// Containers, each as POD/CONTAINER
    #[arg(value_name = "POD/CONTAINER", required = true, value_parser = parse::<Target>)]
    containers: Vec<Target>,
    /// JSON is the only form there is
    #[arg(
        long = "output",
        short = 'o',
        value_enum,
        value_name = "FORMAT",
        default_value = "json",
        hide = true
    )]
    output: Format,
}

pub(crate) async fn run(args: Args, owner: &Owner) -> Result<Exit, Failure> {
    let mut found = Vec::new();
    let mut session: Option<Session> = None;
    for target in &args.containers {
        let current = match session.take() {
            Some(current) if current.name() == target.pod.as_str() => current,
            _ => Session::open(owner, &target.pod, Intent::Read).await?,
        };
        let doing = format!("inspect container {}", target.container);
        let request = InspectRequest { container: target.container.to_string() };
        let response = current.call(&doing, current.containers().inspect(request)).await?;
        found.push(document(&current, response));
        session = Some(current);
    }
    output::json(&found)?;
    Ok(Exit::Done)
}

fn document(session: &Session, response: InspectResponse) -> Value {
    let mut document = response.summary.as_ref().map(show::summary).unwrap_or_else(|| json!({}));
    document["pod"] = json!(session.name());
    document["simulated"] = json!(session.is_simulated());
    document["image_digest"] = json!(response.image_digest);
    document["pid"] = if response.pid == 0 { Value::Null } else { json!(response.pid) };
    document["log_dropped_bytes"] = json!(response.log_dropped_bytes);
    document["spec"] = response.spec.as_ref().map_or(Value::Null, spec);
    // The guest wrote it as JSON; what is not, is shown as text.
    document["oci_config"] =
        serde_json::from_str(&response.oci_config).unwrap_or_else(|_| json!(response.oci_config));
    document
}

fn spec(spec: &ContainerSpec) -> Value {
    let resources = spec.resources.unwrap_or_default();
    let limit = |value: u64| if value == 0 { Value::Null } else { json!(value) };
    json!({
        "name": spec.name,
        "image": spec.image,
        "entrypoint": spec.entrypoint.as_ref().map(|list| &list.values),
        "args": spec.args,
        "env": show::sorted(&spec.env),
        "working_dir": spec.working_dir,
        "user": spec.user,
        "hostname": spec.hostname,
        "terminal": spec.terminal,
        "stdin": spec.stdin,
        "read_only_rootfs": spec.read_only_rootfs,
        "mounts": spec.mounts.iter().map(mount).collect::<Vec<_>>(),
        "resources": {
            "memory_bytes": limit(resources.memory_bytes),
            "cpu_millis": limit(resources.cpu_millis),
            "pids": limit(resources.pids),
        },
        "add_capabilities": spec.add_capabilities,
        "drop_capabilities": spec.drop_capabilities,
        "auto_remove": spec.auto_remove,
        "host_may_start": spec.host_may_start,
        "labels": show::sorted(&spec.labels),
    })
}

fn mount(mount: &Mount) -> Value {
    let (kind, detail) = match &mount.kind {
        Some(Kind::Tmpfs(tmpfs)) => ("tmpfs", json!(tmpfs.size_bytes)),
        Some(Kind::Volume(name)) => ("volume", json!(name)),
        None => ("unknown", Value::Null),
    };
    json!({ "destination": mount.destination, "read_only": mount.read_only, "kind": kind, kind: detail })
}
