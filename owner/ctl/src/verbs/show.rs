//! Wire messages as JSON, with the names and forms that users see.

use postern_api::owner as wire;
use serde_json::{Value, json};

use crate::human;

pub(super) fn moment(unix_millis: u64) -> Value {
    match unix_millis {
        0 => Value::Null,
        millis => json!(human::rfc3339(millis)),
    }
}

pub(super) fn exit(exit: Option<&wire::Exit>) -> Value {
    exit.map_or(Value::Null, |exit| {
        json!({
            "code": exit.code,
            "signal": if exit.signal == 0 { Value::Null } else { json!(exit.signal) },
            "oom_killed": exit.oom_killed,
        })
    })
}

pub(super) fn summary(container: &wire::ContainerSummary) -> Value {
    json!({
        "name": container.name,
        "image": container.image,
        "command": container.command,
        "state": container.state,
        "created": moment(container.created_unix_millis),
        "started": moment(container.started_unix_millis),
        "exited": moment(container.exited_unix_millis),
        "exit": exit(container.exit.as_ref()),
        "labels": sorted(&container.labels),
    })
}

pub(super) fn image(image: &wire::Image) -> Value {
    json!({
        "reference": image.reference,
        "digest": image.digest,
        "id": image.config_digest,
        "size_bytes": image.size_bytes,
        "created": moment(image.created_unix_millis),
        "layers": image.layers,
        "platform": image.platform,
    })
}

/// Maps come off the wire in any order; people and tests like one.
pub(super) fn sorted<'a>(map: impl IntoIterator<Item = (&'a String, &'a String)>) -> Value {
    let map: std::collections::BTreeMap<_, _> = map.into_iter().collect();
    json!(map)
}

/// `exited (1) 3 minutes ago`, `running 5 seconds`.
pub(super) fn status(container: &wire::ContainerSummary, now: u64) -> String {
    let since = |millis: u64| human::span(now.saturating_sub(millis));
    match (container.state.as_str(), &container.exit) {
        ("exited", Some(exit)) if exit.oom_killed => {
            format!("exited ({}, out of memory) {} ago", exit.code, since(container.exited_unix_millis))
        }
        ("exited", Some(exit)) => {
            format!("exited ({}) {} ago", exit.code, since(container.exited_unix_millis))
        }
        ("running", _) => format!("running {}", since(container.started_unix_millis)),
        ("created", _) => format!("created {} ago", since(container.created_unix_millis)),
        (state, _) => state.to_owned(),
    }
}
