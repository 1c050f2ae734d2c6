//! Deriving a real image: Debian's static busybox, run under trace in name spaces of its own; and an image that tries
//! to get out of them.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use serde_json::{Value, json};

fn put(directory: &Path, content: &[u8]) -> Value {
    let hash = ring::digest::digest(&ring::digest::SHA256, content);
    let hex: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let blobs = directory.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    fs::write(blobs.join(&hex), content).unwrap();
    json!({"mediaType": "", "digest": format!("sha256:{hex}"), "size": content.len()})
}

/// A layout with busybox, links of these names to files outside, and a file behind each.
fn image(directory: &Path, command: &[&str], links: &[(&str, &str)]) {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    let busybox = fs::read("/bin/busybox").unwrap();
    header.set_mode(0o755);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(busybox.len() as u64);
    tar.append_data(&mut header, "bin/busybox", busybox.as_slice()).unwrap();
    header.set_size(10);
    tar.append_data(&mut header, "bin/script", &b"#!/bin/sh\n"[..]).unwrap();
    header.set_size(0);
    header.set_entry_type(tar::EntryType::Symlink);
    for (name, target) in [("bin/sh", "busybox")].iter().chain(links) {
        tar.append_link(&mut header, name, target).unwrap();
    }
    header.set_entry_type(tar::EntryType::Regular);
    header.set_size(6);
    for (name, _) in links {
        tar.append_data(&mut header, format!("{name}/escaped"), &b"escape"[..]).unwrap();
    }
    let layer = put(directory, &tar.into_inner().unwrap());
    let config = json!({"config": {"Cmd": command}}).to_string();
    let config = put(directory, config.as_bytes());
    let manifest = put(directory, json!({"config": config, "layers": [layer]}).to_string().as_bytes());
    fs::write(directory.join("index.json"), json!({"manifests": [manifest]}).to_string()).unwrap();
}

fn derive(directory: &Path, more: &[&str]) -> Output {
    let profiles = Path::new(env!("CARGO_MANIFEST_DIR")).join("../kernel");
    Command::new(env!("CARGO_BIN_EXE_postern-image"))
        .args(["--output", "json", "profile", "derive", "--image"])
        .arg(directory)
        .arg("--profiles")
        .arg(profiles)
        .args(more)
        .env("XDG_CACHE_HOME", directory.join("cache"))
        .output()
        .unwrap()
}

fn options(output: &Output) -> Vec<String> {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    report["findings"]["options"].as_object().unwrap().keys().cloned().collect()
}

#[test]
fn busybox_is_run_and_its_options_are_found() {
    let directory = tempfile::tempdir().unwrap();
    image(directory.path(), &["/bin/busybox", "sleep", "600"], &[]);
    let found = options(&derive(
        directory.path(),
        &["--run", "/bin/script; nc -w 1 127.0.0.1 9; exec /bin/script", "--seconds", "60"],
    ));
    for option in ["INET", "BINFMT_SCRIPT"] {
        assert!(found.iter().any(|one| one == option), "{option} is not among {found:?}");
    }
    let failing = derive(directory.path(), &["--run", "exit 3", "--seconds", "2"]);
    let said = String::from_utf8_lossy(&failing.stderr).into_owned();
    assert!(!failing.status.success() && said.contains("the client did not succeed in time"), "{said}");
}

#[test]
fn an_image_writes_nothing_outside() {
    let outside = tempfile::tempdir().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = outside.path().to_str().unwrap();
    let up = format!("../../../../../../../..{path}");
    let command = [
        "/bin/sh",
        "-c",
        "mount -t tmpfs none /tmp && exit 9; echo 1 > /proc/sys/vm/drop_caches && exit 8; exit 0",
    ];
    image(directory.path(), &command, &[("absolute", path), ("upwards", &up)]);
    let output = derive(directory.path(), &["--seconds", "30"]);
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0, "a link led out");
    // Links whose targets are not in the image lead nowhere, and the layer is refused for it.
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("layer 0"), "{said}");
    image(directory.path(), &command, &[]);
    options(&derive(directory.path(), &["--seconds", "30"]));
}
