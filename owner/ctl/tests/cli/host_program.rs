//! What `postern` makes of a `postern-host` that fails, is slow or lies. The program here is a script that plays one.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use postern_launch::{
    ImageManifest,
    image::{FORMAT, ImageFile, MANIFEST_FILE},
};

use crate::rig::{Owner, text};

const PROBE: &str = r#"{"accelerator":"tcg","tsc_khz":1000000,"machine":"q35","simulated_root":null}"#;

/// An owner whose `postern-host` answers a start with this line, and writes down what it is asked to remove.
fn owner(dir: &Path, start: &str) -> anyhow::Result<Owner> {
    let owner = Owner::new(dir.join("owner"))?;
    owner.ok(&["init"]);
    let image = dir.join("image");
    fs::create_dir(&image)?;
    fs::write(image.join("kernel"), b"kernel")?;
    fs::write(image.join("initramfs"), b"initramfs")?;
    let manifest = ImageManifest {
        format: FORMAT,
        kernel: ImageFile::describe(&image, "kernel")?,
        initramfs: ImageFile::describe(&image, "initramfs")?,
        cmdline: "quiet".into(),
        agent_version: "0".into(),
        kernel_release: "0".into(),
        kernel_profile: None,
    };
    fs::write(image.join(MANIFEST_FILE), serde_json::to_vec(&manifest)?)?;
    let program = dir.join("host");
    let removed = dir.join("removed");
    let script = format!(
        "#!/bin/sh\ncase $1 in\nprobe) printf '%s\\n' '{PROBE}';;\nstart) printf '%s\\n' '{start}'; exit 4;;\n\
         rm) echo \"$@\" >> {};;\nesac\n",
        removed.display()
    );
    fs::write(&program, script)?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    let config = format!("postern_host = {:?}\nimage_dir = {:?}\n", text(&program), text(&image));
    fs::write(owner.path("config/postern/config.toml"), config)?;
    Ok(owner)
}

const CREATE: [&str; 4] = ["pod", "create", "demo", "--accept-risk=simulated-tee"];

#[test]
fn a_name_that_is_anothers_on_this_machine_is_not_taken_down() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let exists = r#"{"stage":"failed","kind":"pod-exists","exit":4,"message":"a pod named \"demo\" exists already; it is running","causes":[],"hint":null}"#;
    let owner = owner(dir.path(), exists)?;
    let said = owner.fails_with(1, &CREATE);
    assert!(
        said.stderr.contains("cannot boot pod demo: a pod named \"demo\" exists already"),
        "{}",
        said.stderr
    );
    // Only what was started with the init data of this very attempt.
    let removed = fs::read_to_string(dir.path().join("removed"))?;
    let digest = removed.trim().strip_prefix("rm --stop demo --host-data ").unwrap_or_default();
    assert_eq!(digest.len(), 64, "{removed}");
    assert!(!owner.record("demo").exists());
    Ok(())
}

/// An endpoint may be a command that the owner runs: never one of the host's.
#[test]
fn a_host_cannot_name_a_command_as_the_pods_endpoint() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let pwned = dir.path().join("pwned");
    let ready =
        format!(r#"{{"stage":"ready","millis":1,"endpoint":"exec:touch {}","directory":"/"}}"#, text(&pwned));
    let owner = owner(dir.path(), &ready)?;
    let said = owner.fails_with(1, &CREATE);
    assert!(said.stderr.contains("which is no tcp://ADDRESS:PORT"), "{}", said.stderr);
    assert!(!pwned.exists());
    Ok(())
}

#[test]
fn a_host_that_says_nothing_useful() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let owner = owner(dir.path(), r#"{"stage":"vmm\u001b]0;evil\u0007","millis":18446744073709551615}"#)?;
    let said = owner.fails_with(1, &CREATE);
    assert!(said.stderr.contains("cannot boot pod demo"), "{}", said.stderr);
    assert!(!said.stderr.contains("\u{1b}]0;evil"), "{}", said.stderr);
    Ok(())
}
