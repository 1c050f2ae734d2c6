//! A host that says what is not so: that a pod is there when it is not, that there is an image, that QEMU is installed.
//! Each is one precise error, its exit code, and nothing left running or half made.

use postern_tests::{
    home::Said,
    programs::write_script,
    vm::{POD, Vm},
};

/// Nothing of the pod is left, on either side.
fn has_nothing(vm: &Vm) {
    let name = format!("\"{POD}\"");
    for listed in
        [vm.home.postern(&["pod", "ls", "--output", "json"]), vm.home.host(&["ls", "--output", "json"])]
    {
        let listed = listed.unwrap().ok().unwrap().text();
        assert!(!listed.contains(&name), "{listed}");
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
    let vm = Vm::none().unwrap();
    says(&vm.try_boot(&["--image-dir", "/nonexistent/image"]).unwrap(), &["/nonexistent/image"]);
    has_nothing(&vm);
}

#[test]
fn a_changed_kernel_file_is_found_before_anything_starts() {
    let vm = Vm::none().unwrap();
    let image = vm.home.root().join("image");
    std::fs::create_dir(&image).unwrap();
    for entry in std::fs::read_dir(postern_tests::programs::image().unwrap()).unwrap().flatten() {
        std::fs::copy(entry.path(), image.join(entry.file_name())).unwrap();
    }
    let kernel = image.join("vmlinuz");
    let mut bytes = std::fs::read(&kernel).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&kernel, bytes).unwrap();
    says(&vm.try_boot(&["--image-dir", &image.display().to_string()]).unwrap(), &["vmlinuz"]);
    has_nothing(&vm);
}

#[test]
fn a_port_in_use_is_named() {
    let vm = Vm::none().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    says(&vm.try_boot(&["--listen", &address]).unwrap(), &[&address]);
    has_nothing(&vm);
}

#[test]
fn a_missing_qemu_is_named_with_what_to_do() {
    let vm = Vm::none().unwrap();
    let mut command = vm.home.command("postern").unwrap();
    command.args(["pod", "create", POD, "--accept-risk=simulated-tee"]).env("PATH", "/nonexistent");
    let output = command.output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    let code = output.status.code().unwrap();
    says(&Said { code, stdout: output.stdout, stderr }, &["qemu-system-x86_64", "apt-get install"]);
    has_nothing(&vm);
}

#[test]
fn a_qemu_that_dies_is_quoted() {
    let mut vm = Vm::none().unwrap();
    let folder = vm.home.root().join("bin");
    std::fs::create_dir(&folder).unwrap();
    let version = "[ \"$1\" != --version ] || { echo 'QEMU emulator version 7.2.0'; exit; }";
    let script = format!("{version}\necho out of luck >&2; exit 1");
    write_script(&folder.join("qemu-system-x86_64"), &script).unwrap();
    vm.home = vm.home.clone().with_programs(folder);
    says(&vm.try_boot(&[]).unwrap(), &["QEMU ended unexpectedly", "out of luck"]);
    has_nothing(&vm);
}

#[test]
fn unknown_names_are_named() {
    let vm = Vm::none().unwrap();
    for args in [
        &["ps", "nobody"][..],
        &["exec", "nobody/x", "--", "true"],
        &["pod", "rm", "nobody"],
        &["logs", "nobody/x"],
    ] {
        says(&vm.home.postern(args).unwrap(), &["nobody"]);
    }
}
