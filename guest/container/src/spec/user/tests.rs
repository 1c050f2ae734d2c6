//! Users and groups by name and number, and account files that are traps.

use std::fs::{self, File};

use rustix::fs::{CWD, Mode, mkfifoat};

use super::*;

fn accounts() -> Accounts {
    Accounts {
        passwd:
            "root:x:0:0:root:/root:/bin/sh\nbroken\nweb:x:33:44:web:/srv/web:/bin/false\nbare:x:7:8::\n:::\n"
                .into(),
        group: "root:x:0:root\nadm:x:4:root,web\nweb:x:44:\ndocker:x:99:web,other\nbroken:x:y:web\n".into(),
    }
}

fn identity(uid: u32, gid: u32, groups: &[u32], home: &str) -> Identity {
    Identity { uid, gid, groups: groups.to_vec(), home: home.into() }
}

#[test]
fn finds_users_and_groups() {
    let accounts = accounts();
    for (text, expected) in [
        ("", identity(0, 0, &[0, 4], "/root")),
        ("root", identity(0, 0, &[0, 4], "/root")),
        ("web", identity(33, 44, &[4, 99], "/srv/web")),
        ("33", identity(33, 44, &[4, 99], "/srv/web")),
        ("web:adm", identity(33, 4, &[], "/srv/web")),
        ("web:12345", identity(33, 12345, &[], "/srv/web")),
        ("web:", identity(33, 44, &[4, 99], "/srv/web")),
        ("1000", identity(1000, 0, &[], "/")),
        ("1000:1001", identity(1000, 1001, &[], "/")),
        (":adm", identity(0, 4, &[], "/root")),
        ("bare", identity(7, 8, &[], "/")),
    ] {
        assert_eq!(accounts.identify(text).unwrap(), expected, "{text}");
    }
}

#[test]
fn refuses_the_unknown() {
    let accounts = accounts();
    // 4294967295 means "unchanged" to setuid(2): it would leave the process root.
    for text in [
        "nobody",
        "web:nogroup",
        "-1",
        "4294967295",
        "web:4294967295",
        "99999999999",
        "root:root:root",
        "broken",
    ] {
        assert!(accounts.identify(text).is_err(), "{text}");
    }
}

#[test]
fn reads_only_beneath_the_root() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("etc")).unwrap();
    std::os::unix::fs::symlink("/../../../../etc/hostname", root.path().join("etc/passwd")).unwrap();
    let directory = File::open(root.path()).unwrap();
    // The link is followed within the root, where there is no such file.
    assert_eq!(Accounts::read(&directory).unwrap().passwd, "");
    fs::write(root.path().join("etc/hostname"), "in:x:5:5::/:\n").unwrap();
    assert_eq!(Accounts::read(&directory).unwrap().identify("in").unwrap().uid, 5);
}

#[test]
fn a_pipe_in_place_of_the_file_does_not_block() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("etc")).unwrap();
    mkfifoat(CWD, root.path().join("etc/passwd"), Mode::from_raw_mode(0o600)).unwrap();
    let error = Accounts::read(File::open(root.path()).unwrap()).unwrap_err();
    assert!(matches!(error, UserError::Read { path: "/etc/passwd", .. }), "{error}");
}

#[test]
fn a_magic_link_is_not_followed() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("etc")).unwrap();
    std::os::unix::fs::symlink("/proc/self/root/etc/passwd", root.path().join("etc/passwd")).unwrap();
    assert_eq!(Accounts::read(File::open(root.path()).unwrap()).unwrap().passwd, "");
}
