//! What the pod shows, as it stands on the wire.

use postern_api::owner as wire;
use postern_container::ProcessInfo;
use postern_rootfs::{Image, Progress};

use crate::pod::{ContainerSample, ContainerView, Event, Exit, LogStream};

pub(super) fn exit(exit: Exit) -> wire::Exit {
    wire::Exit { oom_killed: exit.oom_killed, ..exit.status.into() }
}

pub(super) fn summary(container: &ContainerView) -> wire::ContainerSummary {
    wire::ContainerSummary {
        name: container.spec.name.to_string(),
        image: container.spec.image.clone(),
        command: container.command.to_vec(),
        state: container.state.as_str().to_owned(),
        created_unix_millis: container.created_unix_millis,
        started_unix_millis: container.started_unix_millis.unwrap_or_default(),
        exited_unix_millis: container.exited_unix_millis.unwrap_or_default(),
        exit: container.exit.map(exit),
        labels: container.spec.labels.clone().into_iter().collect(),
    }
}

pub(super) fn stats(sample: ContainerSample) -> wire::ContainerStats {
    let ContainerSample { container, unix_millis, stats } = sample;
    wire::ContainerStats {
        container: container.into(),
        cpu_usage_nanos: stats.cpu_usage_nanos,
        memory_bytes: stats.memory_bytes,
        memory_limit_bytes: stats.memory_limit.unwrap_or_default(),
        pids: stats.pids,
        pids_limit: stats.pids_limit.unwrap_or_default(),
        unix_millis,
    }
}

pub(super) fn process(process: ProcessInfo) -> wire::ProcessInfo {
    wire::ProcessInfo {
        pid: process.pid,
        parent_pid: process.parent_pid,
        uid: process.uid,
        state: process.state.to_string(),
        cpu_millis: process.cpu_millis,
        resident_bytes: process.resident_bytes,
        command: process.command,
    }
}

pub(super) fn stream(stream: LogStream) -> wire::Stream {
    match stream {
        LogStream::Stdout => wire::Stream::Stdout,
        LogStream::Stderr => wire::Stream::Stderr,
    }
}

pub(super) fn event(event: &Event) -> wire::Event {
    wire::Event {
        unix_millis: event.unix_millis,
        kind: event.kind.to_owned(),
        subject: event.subject.clone(),
        attributes: event.attributes.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect(),
    }
}

pub(super) fn image(image: &Image) -> wire::Image {
    wire::Image {
        reference: image.reference.as_ref().map(ToString::to_string).unwrap_or_default(),
        digest: image.manifest_digest.to_string(),
        config_digest: image.config_digest.to_string(),
        size_bytes: image.size,
        created_unix_millis: image.created_unix_millis.unwrap_or_default(),
        layers: u32::try_from(image.layers.len()).unwrap_or(u32::MAX),
        platform: image.platform(),
        diff_ids: image.layers.iter().map(ToString::to_string).collect(),
    }
}

pub(super) fn progress(progress: Progress) -> wire::PullProgress {
    wire::PullProgress {
        received_bytes: progress.received_bytes,
        total_bytes: progress.total_bytes,
        layers_done: progress.layers_done,
        layers_total: progress.layers_total,
    }
}
