//! Input that is wrong, and places that cannot be written.

use std::{fs, process::Command};

use crate::rig::{Guest, Rig};

#[test]
fn unknown_pods() {
    let rig = Rig::new(Guest::Silent);
    for verb in ["stop", "inspect", "rm"] {
        let ran = rig.host(&[verb, "nobody"]);
        assert_eq!(ran.code, Some(3), "{ran:?}");
        assert!(ran.stderr.contains("no pod is named \"nobody\" here"), "{ran:?}");
    }
    assert_eq!(rig.host(&["stop", "../demo"]).code, Some(2));
    assert_eq!(rig.host(&["ls", "--output", "json"]).stdout, "[]\n");
    assert_eq!(rig.host(&["cleanup"]).stdout, "nothing to clean up\n");
}

#[test]
fn a_pod_that_was_started_with_other_init_data_is_left_alone() {
    let rig = Rig::new(Guest::Silent);
    let mut start = rig.begin("start");
    start.reaches("vmm");
    let anothers = rig.host(&["rm", "--stop", "demo", "--host-data", &"00".repeat(32)]);
    assert_eq!(anothers.code, Some(3), "{anothers:?}");
    let pod = rig.host(&["inspect", "demo", "--output", "json"]).json();
    assert_eq!(pod["status"], "starting");
    let host_data = pod["host_data"].as_str().unwrap();
    assert_eq!(rig.host(&["rm", "--stop", "demo", "--host-data", host_data]).code, Some(0));
    assert!(!start.ends().success());
    rig.assert_nothing_left();
}

#[test]
fn broken_images() {
    let rig = Rig::new(Guest::Silent);
    let kernel = rig.image().join("kernel");
    let mut changed = fs::read(&kernel).unwrap();
    *changed.last_mut().unwrap() ^= 1;
    fs::write(&kernel, changed).unwrap();
    let ran = rig.start(&[]);
    ran.assert_failed(9, "bad-image");
    assert!(ran.stderr.contains("has digest sha256:"), "{}", ran.stderr);
    fs::write(rig.image().join("image.json"), "{").unwrap();
    rig.start(&[]).assert_failed(9, "bad-image");
    fs::remove_dir_all(rig.image()).unwrap();
    rig.start(&[]).assert_failed(9, "bad-image");
    rig.assert_nothing_left();
}

#[test]
fn broken_init_data() {
    let rig = Rig::new(Guest::Silent);
    let device = fs::read(rig.init_data()).unwrap();
    let doubled = [device.clone(), device.clone()].concat();
    let oversized = [device.clone(), vec![0; 5 << 20]].concat();
    let truncated = device[..20].to_vec();
    for (broken, why) in [
        (doubled, "holds something after the init data"),
        (oversized, "at most 4194304 are accepted"),
        (truncated, "device ends after 20 bytes"),
        (Vec::new(), "there is no init data"),
        (b"version = ".to_vec(), "not the TOML that is expected"),
    ] {
        fs::write(rig.init_data(), broken).unwrap();
        let ran = rig.start(&[]);
        ran.assert_failed(10, "bad-init-data");
        assert!(ran.stderr.contains(why), "{}", ran.stderr);
    }
    fs::remove_file(rig.init_data()).unwrap();
    rig.start(&[]).assert_failed(10, "bad-init-data");
    rig.assert_nothing_left();
}

#[test]
fn no_space_left() {
    let rig = Rig::new(Guest::Silent);
    fs::create_dir(rig.state()).unwrap();
    // A file system of one page, which a directory fills.
    let start = rig.start_command("start", &[]);
    let mount = "mount -t tmpfs -o size=4k,mode=700 none \"$1\"; head -c 4096 /dev/zero > \"$1/filler\"; shift; exec \"$@\"";
    let mut unshare = Command::new("unshare");
    unshare.args(["--map-root-user", "--mount", "sh", "-c", mount, "sh"]).arg(rig.state());
    let output = unshare.arg(start.get_program()).args(start.get_args()).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(18), "{stderr}");
    assert!(stderr.contains("No space left on device"), "{stderr}");
    assert!(stderr.contains("hint: free some space"), "{stderr}");
    rig.assert_nothing_left();
}

#[test]
fn a_state_directory_that_is_none() {
    let rig = Rig::new(Guest::Silent);
    fs::write(rig.state(), "a file").unwrap();
    rig.start(&[]).assert_failed(11, "state");
    assert_eq!(fs::read_to_string(rig.state()).unwrap(), "a file");
}
