//! A pod without the CPU's mitigations is its owner's choice: asked for by name, measured, shown. A host that takes the
//! choice away, or makes it in the owner's place, launches something else than what was agreed.

use std::{fs, os::unix::fs::PermissionsExt as _};

use postern_tests::{
    archive::ImageRecipe,
    home::{Home, Said},
    programs,
};

const ACCEPTED: [&str; 2] = ["--accept-risk=simulated-tee", "--accept-risk=mitigations-off"];

struct Owner {
    home: Home,
    folder: tempfile::TempDir,
}

fn owner() -> Owner {
    let folder = tempfile::tempdir().unwrap();
    let home = Home::new(folder.path().join("owner")).unwrap();
    home.postern(&["init"]).unwrap().ok().unwrap();
    Owner { home, folder }
}

impl Owner {
    fn ok(&self, args: &[&str]) -> Said {
        self.home.postern(args).unwrap().ok().unwrap()
    }

    /// `postern pod create` beside a `postern-host` that edits each of its arguments in bash.
    fn create_on_a_lying_host(&self, edit: &str, mitigations: &str) -> Said {
        let folder = self.folder.path().join("lying");
        fs::create_dir_all(&folder).unwrap();
        let honest = programs::program("postern-host").unwrap();
        let script = folder.join("postern-host");
        fs::write(&script, format!("#!/bin/bash\nexec {} \"{edit}\"\n", honest.display())).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        let postern = folder.join("postern");
        fs::copy(programs::program("postern").unwrap(), &postern).unwrap();
        let mut lying = std::process::Command::new(postern);
        let command = self.home.command("postern").unwrap();
        lying.envs(command.get_envs().filter_map(|(key, value)| Some((key, value?))));
        lying.args(["pod", "create", "demo", "--mitigations", mitigations]).args(ACCEPTED);
        let output = lying.stdin(std::process::Stdio::null()).output().unwrap();
        Said {
            code: output.status.code().unwrap(),
            stdout: output.stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let _ = self.home.host(&["rm", "--stop", "demo"]);
    }
}

#[test]
fn the_owner_chooses_by_name_and_sees_it() {
    let owner = owner();
    let refused = owner
        .home
        .postern(&["pod", "create", "demo", "--mitigations=off", "--accept-risk=simulated-tee"])
        .unwrap();
    assert_eq!(refused.code, 2, "{}", refused.stderr);
    assert!(refused.stderr.contains("--accept-risk=mitigations-off"), "{}", refused.stderr);

    let create = ["pod", "create", "demo", "--mitigations=off", ACCEPTED[0], ACCEPTED[1]];
    let created = owner.ok(&create).text();
    assert!(created.contains("! mitigations") && created.contains("OFF"), "{created}");
    let verified = owner.ok(&["pod", "verify", "demo"]).text();
    assert!(verified.contains("! mitigations") && verified.contains("OFF"), "{verified}");
    for verb in ["verify", "inspect"] {
        let json = owner.ok(&["pod", verb, "demo", "--output", "json"]).json().unwrap();
        assert_eq!(json["mitigations"], "off", "{json}");
    }

    // What the guest's kernel was told is what the owner was told.
    let archive = owner.folder.path().join("busybox.tar");
    ImageRecipe::busybox("busybox:latest").write_oci_archive(&archive).unwrap();
    let source = format!("oci-archive:{}", archive.display());
    let said = owner.ok(&["run", "demo", &source, "--rm", "--", "cat", "/proc/cmdline"]).text();
    assert!(said.split_whitespace().any(|word| word == "mitigations=off"), "{said}");
}

#[test]
fn a_host_can_neither_add_nor_remove_it() {
    // The honest case of the very same detour: arguments that come through as they are.
    let owner = owner();
    let said = owner.create_on_a_lying_host("$@", "on").ok().unwrap();
    assert!(said.text().contains("✓ mitigations      on"), "{}", said.text());
    owner.ok(&["pod", "rm", "demo"]);

    for (edit, mitigations) in [("${@/#off/on}", "off"), ("${@/#on/off}", "on")] {
        let said = owner.create_on_a_lying_host(edit, mitigations);
        assert_ne!(said.code, 0, "asked for mitigations {mitigations}, got the opposite");
        assert!(said.stderr.contains("measurement"), "{}", said.stderr);
        assert!(said.stderr.contains("is not verified"), "{}", said.stderr);
        let listed = owner.ok(&["pod", "ls", "--output", "json"]).text();
        assert!(!listed.contains("\"demo\""), "{listed}");
    }
}
