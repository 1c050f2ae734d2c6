//! A host that says what is not so: that a pod is there when it is not, that there is an image, that QEMU is installed.
//! Each is one precise error, its exit code, and nothing left running or half made.

use postern_tests::{
    home::{Home, Said},
    programs::write_script,
};

struct Owner {
    home: Home,
    _folder: tempfile::TempDir,
}

fn owner() -> Owner {
    let folder = tempfile::tempdir().unwrap();
    let home = Home::new(folder.path().join("owner")).unwrap();
    home.postern(&["init"]).unwrap().ok().unwrap();
    Owner { home, _folder: folder }
}

impl Owner {
    fn create(&self, extra: &[&str]) -> Said {
        let mut args = vec!["pod", "create", "demo", "--accept-risk=simulated-tee"];
        args.extend(extra);
        self.home.postern(&args).unwrap()
    }

    /// Nothing of the pod is left, on either side.
    fn has_nothing(&self) {
        let listed = self.home.postern(&["pod", "ls", "--output", "json"]).unwrap().ok().unwrap();
        assert!(!listed.text().contains("\"demo\""), "{}", listed.text());
        let listed = self.home.host(&["ls", "--output", "json"]).unwrap().ok().unwrap();
        assert!(!listed.text().contains("\"demo\""), "{}", listed.text());
    }
}

fn says(said: &Said, words: &[&str]) {
    assert_ne!(said.code, 0);
    assert!(said.stderr.starts_with("postern: ") || said.stderr.contains("\npostern: "), "{}", said.stderr);
    for word in words {
        assert!(said.stderr.contains(word), "no {word:?} in: {}", said.stderr);
    }
}

#[test]
fn a_missing_image_is_named() {
    let owner = owner();
    says(&owner.create(&["--image-dir", "/nonexistent/image"]), &["/nonexistent/image"]);
    owner.has_nothing();
}

#[test]
fn a_changed_kernel_file_is_found_before_anything_starts() {
    let owner = owner();
    let image = owner.home.root().join("image");
    std::fs::create_dir(&image).unwrap();
    for entry in std::fs::read_dir(postern_tests::programs::image().unwrap()).unwrap().flatten() {
        std::fs::copy(entry.path(), image.join(entry.file_name())).unwrap();
    }
    let kernel = image.join("vmlinuz");
    let mut bytes = std::fs::read(&kernel).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&kernel, bytes).unwrap();
    says(&owner.create(&["--image-dir", &image.display().to_string()]), &["vmlinuz"]);
    owner.has_nothing();
}

#[test]
fn a_port_in_use_is_named() {
    let owner = owner();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    says(&owner.create(&["--listen", &address]), &[&address]);
    owner.has_nothing();
}

#[test]
fn a_missing_qemu_is_named_with_what_to_do() {
    let owner = owner();
    let mut command = owner.home.command("postern").unwrap();
    command.args(["pod", "create", "demo", "--accept-risk=simulated-tee"]).env("PATH", "/nonexistent");
    let output = command.output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    let code = output.status.code().unwrap();
    says(&Said { code, stdout: output.stdout, stderr }, &["qemu-system-x86_64", "apt-get install"]);
    owner.has_nothing();
}

#[test]
fn a_qemu_that_dies_is_quoted() {
    let mut owner = owner();
    let folder = owner.home.root().join("bin");
    std::fs::create_dir(&folder).unwrap();
    let version = "[ \"$1\" != --version ] || { echo 'QEMU emulator version 7.2.0'; exit; }";
    let script = format!("{version}\necho out of luck >&2; exit 1");
    write_script(&folder.join("qemu-system-x86_64"), &script).unwrap();
    owner.home = owner.home.with_programs(folder);
    says(&owner.create(&[]), &["QEMU ended unexpectedly", "out of luck"]);
    owner.has_nothing();
}

#[test]
fn unknown_names_are_named() {
    let owner = owner();
    for args in [
        &["ps", "nobody"][..],
        &["exec", "nobody/x", "--", "true"],
        &["pod", "rm", "nobody"],
        &["logs", "nobody/x"],
    ] {
        says(&owner.home.postern(args).unwrap(), &["nobody"]);
    }
}
