//! `postern-image profile check` and `derive --scan` as their users meet them: what is said of an image that fits, of one that
//! does not, of one that nobody can say anything about, and of what is no image.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};

const LACKS: i32 = 4;

/// A layout in `directory` whose one layer holds `files`.
fn layout(directory: &Path, config: &Value, files: &[(&str, &[u8])]) {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o755);
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, path, *content).unwrap();
    }
    let layer = put(directory, &tar.into_inner().unwrap());
    let config = put(directory, json!({ "config": config }).to_string().as_bytes());
    let manifest = put(directory, json!({"config": config, "layers": [layer]}).to_string().as_bytes());
    fs::write(directory.join("index.json"), json!({"manifests": [manifest]}).to_string()).unwrap();
}

fn put(directory: &Path, content: &[u8]) -> Value {
    let hash = ring::digest::digest(&ring::digest::SHA256, content);
    let hex: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let blobs = directory.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    fs::write(blobs.join(&hex), content).unwrap();
    json!({"mediaType": "", "digest": format!("sha256:{hex}"), "size": content.len()})
}

struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    /// An image, and profiles of which one is resolved with what it needs and one without.
    fn new(config: &Value, files: &[(&str, &[u8])]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let profiles = directory.path().join("profiles");
        fs::create_dir_all(profiles.join("resolved")).unwrap();
        for (name, options) in [("base", "CONFIG_EPOLL=y\n"), ("wide", "CONFIG_EPOLL=y\nCONFIG_AIO=y\n")] {
            fs::write(profiles.join(format!("{name}.toml")), "summary = \"s\"\n").unwrap();
            fs::write(profiles.join("resolved").join(format!("{name}.config")), options).unwrap();
        }
        layout(&directory.path().join("image"), config, files);
        Self { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_postern-image"))
            .args(["profile"])
            .args(arguments)
            .args(["--profiles", "profiles"])
            .current_dir(self.directory.path())
            .output()
            .unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }
}

fn labelled() -> Place {
    Place::new(&json!({"Cmd": ["/p"], "Labels": {"org.postern.kernel-options": "AIO EPOLL"}}), &[("p", b"x")])
}

#[test]
fn what_is_lacking_is_named_with_a_kernel_that_has_it() {
    let place = labelled();
    let (code, said, _) = place.run(&["check", "image", "--profile", "base"]);
    assert_eq!(code, LACKS, "{said}");
    assert!(said.contains("AIO") && !said.contains("EPOLL"), "{said}");
    assert!(said.contains("kernel build --profile wide`"), "{said}");
    let (code, said, _) = place.run(&["check", "image", "--profile", "wide"]);
    assert!(code == 0 && said.contains("has all"), "{said}");
    fs::write(place.path("config"), "CONFIG_AIO=y\n# CONFIG_EPOLL is not set\n").unwrap();
    let (code, said, _) = place.run(&["check", "image", "--kernel-config", "config"]);
    assert!(code == LACKS && said.contains("EPOLL"), "{said}");
}

#[test]
fn what_is_no_image_is_said_in_words() {
    let place = labelled();
    fs::write(place.path("noise"), [0xff, 0, 0x1b, b'[', b'3', b'1', b'm'].repeat(300)).unwrap();
    fs::write(place.path("empty.tar"), [0; 1024]).unwrap();
    fs::create_dir(place.path("folder")).unwrap();
    for (image, expected) in [
        ("none.tar", "none.tar: No such file"),
        ("noise", "noise is no image: neither a directory nor a tar archive"),
        ("empty.tar", "empty.tar holds neither index.json nor manifest.json"),
        ("folder", "folder holds neither index.json nor manifest.json"),
    ] {
        for arguments in [&["check", image, "--profile", "base"][..], &["derive", "--scan", "--image", image]]
        {
            let (code, _, error) = place.run(arguments);
            assert_eq!(code, 1, "{image}");
            assert!(error.contains(expected) && !error.contains('\x1b'), "{error}");
        }
    }
}

#[test]
fn what_is_no_kernel_is_said_before_the_image_is_read() {
    let place = labelled();
    fs::create_dir(place.path("folder")).unwrap();
    fs::write(place.path("text"), "nothing\n").unwrap();
    for (arguments, expected) in [
        (["--profile", "none"], "there is no profile none"),
        (["--image-dir", "folder"], "folder is not a usable image"),
        (["--kernel-config", "text"], "text is no kernel configuration"),
        (["--kernel-config", "none"], "none: No such file"),
    ] {
        let (code, _, error) = place.run(&["check", "not-there", arguments[0], arguments[1]]);
        assert!(code == 1 && error.contains(expected), "{error}");
    }
    assert_eq!(place.run(&["check", "image"]).0, 2, "a kernel has to be named");
}

/// To have found nothing in a program that cannot be read is no finding.
#[test]
fn what_cannot_be_looked_into_is_not_called_fitting() {
    let mut program = b"\x7fELF\x02\x01\x01".to_vec();
    program.resize(64, 0);
    program[16] = 2; // e_type: an executable
    program[18] = 62; // e_machine: x86-64
    program[20] = 1;
    program[52] = 64; // e_ehsize
    let place = Place::new(&json!({"Cmd": ["/p"]}), &[("p", &program)]);
    let (code, said, error) = place.run(&["check", "image", "--profile", "wide"]);
    assert!(code == 1 && said.is_empty() && error.contains("not known"), "{code} {said} {error}");
    let (code, said, error) = place.run(&["derive", "--scan", "--image", "image"]);
    assert!(code == 1 && said.is_empty() && error.contains("nothing can be said"), "{code} {said} {error}");
}

#[test]
fn a_profile_that_could_not_be_written_is_said_before_the_work() {
    let place = labelled();
    for (file, expected) in
        [("none/app.toml", "no directory none"), ("app.json", "NAME.toml"), (".", "NAME.toml")]
    {
        let (code, _, error) = place.run(&["derive", "--scan", "--image", "not-there", "--write", file]);
        assert!(code == 1 && error.contains(expected), "{error}");
    }
}
