//! The host's part of the story: it tries, is refused, and is seen.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use postern_sandbox::VsockAddress;

use super::{CANARY, POD, Stage, contains};
use crate::{
    host::{AGENT, HEALTH, Host},
    programs,
};

/// What a host would like to do, and the method it would do it with. Bodies are empty: a refusal comes before decoding.
const TRIES: [&str; 17] = [
    "ExecProcess",
    "WriteStdin",
    "CopyFile",
    "CreateContainer",
    "SetPolicy",
    "UpdateContainer",
    "PauseContainer",
    "ResumeContainer",
    "ReseedRandomDev",
    "SetGuestDateTime",
    "GetIPTables",
    "SetIPTables",
    "AddSwap",
    "MemHotplugByProbe",
    "UpdateInterface",
    "GetDiagnosticData",
    "MemAgentMemcgSet",
];
/// Exit code of `postern` when the pod does not take this owner's certificate.
const REFUSED_BY_POD: i32 = 5;
/// google.rpc.Code
const PERMISSION_DENIED: i32 = 7;

pub(super) fn tries(stage: &mut Stage) -> anyhow::Result<String> {
    let before = audit(stage)?.len();
    let client = client(stage)?;
    // The honest case: the same client, on the same socket, gets an answer to what a host may ask.
    let version = client.call(HEALTH, "Version", Vec::new())?;
    ensure!(!version.is_empty(), "Health.Version answered nothing");
    for method in TRIES {
        match client.call(AGENT, method, body()) {
            Ok(_) => bail!("the host was allowed {method}"),
            Err(status) => {
                ensure!(status.code == PERMISSION_DENIED, "{method}: {status}");
            }
        }
    }
    // The host may read, but a stream never gives it a byte: the call ends by its deadline or empty.
    if let Ok(bytes) = client.call_within(AGENT, "ReadStdout", body(), Duration::from_millis(300)) {
        ensure!(bytes.is_empty(), "the host read {} bytes of standard output", bytes.len());
    }
    let records = audit(stage)?;
    let fresh = records.get(before..).unwrap_or_default();
    for method in TRIES {
        let seen = fresh.iter().any(|record| {
            record["method"].as_str().is_some_and(|m| m.ends_with(method)) && record["verdict"] == "refused"
        });
        ensure!(seen, "{method} is not in the owner's audit as refused");
    }
    Ok(format!("{} calls: all refused, all in the owner's audit", TRIES.len()))
}

pub(super) fn canary(stage: &mut Stage) -> anyhow::Result<String> {
    let inside = stage.ok(&["exec", "demo/web", "--", "sh", "-c", "echo $SECRET"])?;
    contains("the container", &inside.text(), CANARY)?;
    let files = files_below(&stage.home.host_state());
    let mut searched = 0;
    let mut phases_found = false;
    for file in &files {
        let bytes = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        searched += bytes.len();
        ensure!(!holds(&bytes, CANARY.as_bytes()), "the canary is in {}", file.display());
        phases_found |= holds(&bytes, b"postern: ");
    }
    // The console does carry the agent's phases, so the search finds what is there.
    ensure!(phases_found, "no file of the host's holds the guest's console; searched {files:?}");
    let network = stage.relay.as_ref().context("no relay")?.kept();
    // The first bytes are a TLS handshake record, and an image of two megabytes went by.
    ensure!(
        network.starts_with(&[0x16, 3]) && network.len() > 2_000_000,
        "the wiretap saw {} bytes",
        network.len()
    );
    ensure!(!holds(&network, CANARY.as_bytes()), "the canary is in the tunnel's bytes");
    let vsock = vsock(stage)?;
    ensure!(!holds(&vsock, CANARY.as_bytes()), "the canary is in the vsock's bytes");
    searched += network.len() + vsock.len();
    Ok(format!(
        "not in console, logs, {} host files, all TCP and vsock bytes, evidence included ({:.1} MB searched)",
        files.len(),
        searched as f64 / 1e6
    ))
}

/// All that crossed the VM's vsock. That the search finds what is there is seen by what has to be.
fn vsock(stage: &Stage) -> anyhow::Result<Vec<u8>> {
    let mut bytes = stage.tap.of_host()?;
    ensure!(holds(&bytes, b"CreateSandbox") && holds(&bytes, b"ExecProcess"), "the vsock was not tapped");
    let evidence = stage.tap.of_platform()?;
    let inspected = stage.home.host(&["inspect", POD, "--output", "json"])?.ok()?.json()?;
    let measurement =
        inspected["measurement"].as_str().context("postern-host inspect tells no measurement")?;
    ensure!(holds(&evidence, &hex::decode(measurement)?), "the exchange with the platform was not tapped");
    bytes.extend(evidence);
    Ok(bytes)
}

pub(super) fn second_owner(stage: &mut Stage) -> anyhow::Result<String> {
    let other = stage.home.other_owner("second-owner")?;
    other.postern(&["init"])?.ok()?;
    let inspected = stage.ok(&["pod", "inspect", POD, "--output", "json"])?.json()?;
    let endpoint = inspected["endpoint"].as_str().context("pod inspect tells no endpoint")?;
    let record = stage.home.root().join("state/postern/pods").join(POD);
    let init_data = record.join("initdata.toml");
    let image = programs::image()?;
    let shape = record.join("shape.json");
    other
        .postern(&["trust", "add", "--simulated", &simulated_root(stage)?, "--accept-risk=simulated-tee"])?
        .ok()?;
    let added = other.postern(&[
        "pod",
        "add",
        POD,
        "--endpoint",
        endpoint,
        "--init-data",
        &init_data.display().to_string(),
        "--image-dir",
        &image.display().to_string(),
        "--shape",
        &shape.display().to_string(),
        "--accept-risk=simulated-tee",
    ])?;
    // It may know everything about the pod, and verify it. What it lacks is the owner's key, and that is what is said.
    let said = if added.code == 0 { other.postern(&["ps", POD])? } else { added };
    ensure!(said.code == REFUSED_BY_POD, "exit code {}: {}", said.code, said.stderr);
    contains("the refusal", &said.stderr, "not issued by the owner CA")?;
    Ok("knows address, init data and measurement; its certificate is not of the owner's CA".into())
}

pub(super) fn changed_command_line(stage: &mut Stage) -> anyhow::Result<String> {
    stage.use_host(&lying_host(&stage.path("lying-host"))?)?;
    let said = stage.home.postern(&["pod", "create", "evil", "--accept-risk=simulated-tee"])?;
    stage.use_host(&stage.tap.host())?;
    ensure!(said.code != 0, "a pod with a changed command line was accepted");
    contains("the refusal", &said.stderr, "measurement")?;
    let listed = stage.ok(&["pod", "ls", "--output", "json"])?.json()?;
    ensure!(!listed.to_string().contains("\"evil\""), "the refused pod is still listed: {listed}");
    Ok("`debug` added to the command line: fails at the measurement, by name; VM taken down".into())
}

/// A `postern-host` that boots the same files with another command line.
fn lying_host(folder: &Path) -> anyhow::Result<PathBuf> {
    let image = programs::image()?;
    let doctored = folder.join("image");
    std::fs::create_dir_all(&doctored)?;
    for entry in std::fs::read_dir(&image)?.flatten() {
        std::fs::copy(entry.path(), doctored.join(entry.file_name()))?;
    }
    let manifest = doctored.join("image.json");
    let mut json: serde_json::Value = serde_json::from_slice(&std::fs::read(&manifest)?)?;
    let command_line = json["cmdline"].as_str().context("image.json has no cmdline")?.to_owned();
    json["cmdline"] = format!("{command_line} debug").into();
    std::fs::write(&manifest, serde_json::to_vec(&json)?)?;
    let host = folder.join("postern-host");
    let script = format!(
        "exec {} \"${{@/#{}/{}}}\"",
        programs::program("postern-host")?.display(),
        image.display().to_string().replace('/', "\\/"),
        doctored.display(),
    );
    programs::write_script(&host, &script)?;
    Ok(host)
}

/// The attacker is root on the host: it has the VM's vsock.
fn client(stage: &Stage) -> anyhow::Result<Host> {
    let inspected = stage.home.host(&["inspect", POD, "--output", "json"])?.ok()?.json()?;
    let address: VsockAddress = serde_json::from_value(inspected["vsock"].clone())
        .with_context(|| format!("postern-host inspect tells no vsock: {inspected}"))?;
    Host::connect(&address)
}

/// A body with a recognisable container id (field 1) that no refused call may act on.
fn body() -> Vec<u8> {
    let mut body = vec![0x0a, 3];
    body.extend_from_slice(b"web");
    body
}

fn audit(stage: &Stage) -> anyhow::Result<Vec<serde_json::Value>> {
    let said = stage.ok(&["audit", POD, "--output", "json"])?;
    match said.json()? {
        serde_json::Value::Array(records) => Ok(records),
        other => bail!("audit is no list: {other}"),
    }
}

fn simulated_root(stage: &Stage) -> anyhow::Result<String> {
    let probed = stage.home.host(&["probe", "--output", "json"])?.ok()?.json()?;
    Ok(probed["simulated_root"].as_str().context("probe tells no simulated root")?.to_owned())
}

fn holds(bytes: &[u8], needle: &[u8]) -> bool {
    // First bytes are rare enough that this is quick on tens of megabytes.
    let Some((&first, _)) = needle.split_first() else { return true };
    bytes.iter().enumerate().any(|(at, &byte)| byte == first && bytes[at..].starts_with(needle))
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                Ok(kind) if kind.is_file() => files.push(entry.path()),
                _ => {}
            }
        }
    }
    files
}
