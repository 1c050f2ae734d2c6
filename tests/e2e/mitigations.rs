//! A pod without the CPU's mitigations is its owner's choice: asked for by name, measured, shown. A host that takes the
//! choice away, or makes it in the owner's place, launches something else than what was agreed.

use std::fs;

use postern_tests::{
    archive::ImageRecipe,
    home::Said,
    programs,
    vm::{POD, Vm},
};

const ACCEPTED: [&str; 2] = ["--accept-risk=simulated-tee", "--accept-risk=mitigations-off"];

/// `postern pod create` beside a `postern-host` that edits each of its arguments in bash.
fn create_on_a_lying_host(vm: &Vm, edit: &str, mitigations: &str) -> Said {
    let folder = vm.home.root().join("lying");
    fs::create_dir_all(&folder).unwrap();
    let honest = programs::program("postern-host").unwrap();
    let script = format!("exec {} \"{edit}\"", honest.display());
    programs::write_script(&folder.join("postern-host"), &script).unwrap();
    let postern = folder.join("postern");
    fs::copy(programs::program("postern").unwrap(), &postern).unwrap();
    let mut lying = std::process::Command::new(postern);
    let command = vm.home.command("postern").unwrap();
    lying.envs(command.get_envs().filter_map(|(key, value)| Some((key, value?))));
    lying.args(["pod", "create", POD, "--mitigations", mitigations]).args(ACCEPTED);
    let output = lying.stdin(std::process::Stdio::null()).output().unwrap();
    Said {
        code: output.status.code().unwrap(),
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

#[test]
fn the_owner_chooses_by_name_and_sees_it() {
    let vm = Vm::none().unwrap();
    let refused = vm.try_boot(&["--mitigations=off"]).unwrap();
    assert_eq!(refused.code, 2, "{}", refused.stderr);
    assert!(refused.stderr.contains("--accept-risk=mitigations-off"), "{}", refused.stderr);

    let created = vm.try_boot(&["--mitigations=off", ACCEPTED[1]]).unwrap().ok().unwrap().text();
    assert!(created.contains("! mitigations") && created.contains("OFF"), "{created}");
    let verified = vm.ok(&["pod", "verify", "demo"]).unwrap().text();
    assert!(verified.contains("! mitigations") && verified.contains("OFF"), "{verified}");
    for verb in ["verify", "inspect"] {
        let json = vm.ok(&["pod", verb, "demo", "--output", "json"]).unwrap().json().unwrap();
        assert_eq!(json["mitigations"], "off", "{json}");
    }

    // What the guest's kernel was told is what the owner was told.
    vm.push(&ImageRecipe::busybox("busybox:latest")).unwrap().ok().unwrap();
    let said = vm.ok(&["run", POD, "busybox:latest", "--rm", "--", "cat", "/proc/cmdline"]).unwrap().text();
    assert!(said.split_whitespace().any(|word| word == "mitigations=off"), "{said}");
}

#[test]
fn a_host_can_neither_add_nor_remove_it() {
    // The honest case of the very same detour: arguments that come through as they are.
    let vm = Vm::none().unwrap();
    let said = create_on_a_lying_host(&vm, "$@", "on").ok().unwrap();
    assert!(said.text().contains("✓ mitigations      on"), "{}", said.text());
    vm.ok(&["pod", "rm", "demo"]).unwrap();

    for (edit, mitigations) in [("${@/#off/on}", "off"), ("${@/#on/off}", "on")] {
        let said = create_on_a_lying_host(&vm, edit, mitigations);
        assert_ne!(said.code, 0, "asked for mitigations {mitigations}, got the opposite");
        assert!(said.stderr.contains("measurement"), "{}", said.stderr);
        assert!(said.stderr.contains("is not verified"), "{}", said.stderr);
        let listed = vm.ok(&["pod", "ls", "--output", "json"]).unwrap().text();
        assert!(!listed.contains("\"demo\""), "{listed}");
    }
}
