//! `postern-image` as its users meet it: exit codes, one precise error, and nothing left behind.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

fn postern_image(arguments: &[&str], directory: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_postern-image")).args(arguments).current_dir(directory).output().unwrap()
}

fn failure(arguments: &[&str], directory: &Path) -> (i32, String) {
    let output = postern_image(arguments, directory);
    assert!(!output.status.success(), "{arguments:?} succeeded");
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn wrong_use_is_2() {
    let directory = tempfile::tempdir().unwrap();
    assert_eq!(failure(&["build"], directory.path()).0, 2);
    assert_eq!(failure(&["build", "--agent", "a", "--out", "o", "--frobnicate"], directory.path()).0, 2);
    let both = ["build", "--agent", "a", "--out", "o", "--kernel", "k", "--lock", "l"];
    assert_eq!(failure(&both, directory.path()).0, 2);
}

#[test]
fn a_bad_agent_is_named_before_anything_is_downloaded() {
    let directory = tempfile::tempdir().unwrap();
    let (code, error) = failure(&["build", "--agent", "/bin/sh", "--out", "image"], directory.path());
    assert_eq!(code, 1);
    assert!(error.contains("/bin/sh cannot be the agent of an image: linked dynamically"), "{error}");
    assert!(!directory.path().join("image").exists());
}

#[test]
fn an_image_that_is_none_fails_verify_with_3() {
    let directory = tempfile::tempdir().unwrap();
    assert_eq!(failure(&["verify", "."], directory.path()).0, 3);
    fs::write(directory.path().join("image.json"), b"{").unwrap();
    let (code, error) = failure(&["verify", "."], directory.path());
    assert_eq!(code, 3);
    assert!(error.contains("image.json is not an image manifest"), "{error}");
    assert_eq!(failure(&["inspect", "."], directory.path()).0, 1);
}

#[test]
fn a_lock_that_is_none_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let agent = env!("CARGO_BIN_EXE_postern-image");
    fs::write(directory.path().join("broken.lock"), b"{}").unwrap();
    for (lock, expected) in
        [("broken.lock", "broken.lock is not an image lock"), ("none.lock", "reading none.lock")]
    {
        let (code, error) =
            failure(&["build", "--agent", agent, "--out", "o", "--lock", lock], directory.path());
        assert_eq!(code, 1);
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn completion_names_the_commands() {
    let directory = tempfile::tempdir().unwrap();
    let output = postern_image(&["completion", "bash"], directory.path());
    assert!(output.status.success());
    let script = String::from_utf8(output.stdout).unwrap();
    assert!(script.contains("inspect") && script.contains("--lock"));
}
