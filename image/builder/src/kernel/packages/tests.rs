//! What is read out of apt's answers, and that a download that is not what was asked for is not used.

use super::*;

const META: &str = "\
Package: linux-image-cloud-amd64
Version: 6.1.9-2
Depends: linux-image-6.1.0-9-cloud-amd64 (= 6.1.9-2)
SHA256: 00be21c0c17f08ddf26e82d3b53fe7a41efa4a288938da6bb69e89c4b25c281d

Package: linux-image-cloud-amd64
Version: 6.1.1-1
";

const GENERIC: &str = "\
Package: linux-image-6.8.0-1-generic
Description: Signed kernel image generic
 A continuation line, SHA256: nothing
Depends: kmod, linux-base (>= 4.5), linux-modules-6.8.0-1-generic, grub-pc | grub-efi
Version: 6.8.0-1.1
";

fn package(bytes: &[u8]) -> Package {
    Package { name: "linux-image-1".into(), version: "1".into(), sha256: crate::sha256(bytes) }
}

#[test]
fn reads_the_first_stanza() {
    let record = Record::parse(META).unwrap();
    assert_eq!(record.depends, ["linux-image-6.1.0-9-cloud-amd64"]);
    assert_eq!(record.package().unwrap().version, "6.1.9-2");
    assert!(is_kernel(&record.depends[0]) && !is_kernel(&record.name));
}

#[test]
fn finds_the_modules_beside_the_kernel() {
    let record = Record::parse(GENERIC).unwrap();
    let modules: Vec<_> = record.depends.iter().filter(|name| is_modules(name)).collect();
    assert_eq!(modules, ["linux-modules-6.8.0-1-generic"]);
    assert!(matches!(record.package(), Err(FetchError::Answer { field: "SHA256", .. })));
}

#[test]
fn refuses_answers_and_names_it_cannot_use() {
    assert_eq!(Record::parse(""), None);
    assert_eq!(Record::parse("E: No packages found"), None);
    for name in ["", "-o=x", "linux image", "linux-image-*", "../x", "a\nb"] {
        assert!(matches!(Record::ask(name), Err(FetchError::NotFound { .. })), "{name:?}");
    }
}

#[test]
fn uses_the_cache_only_when_it_holds_what_was_asked_for() {
    let cache = tempfile::tempdir().unwrap();
    let wanted = package(b"a package");
    let file = cache.path().join(format!("linux-image-1_{}.deb", wanted.sha256.to_hex()));
    fs::write(&file, b"a package").unwrap();
    assert_eq!(cached(&wanted, cache.path()).unwrap(), file);
    // A damaged file is downloaded anew, which fails here: there is no such package.
    fs::write(&file, b"half a pack").unwrap();
    assert!(matches!(cached(&wanted, cache.path()), Err(FetchError::Download { .. })));
    assert!(matches!(check(&file, wanted.sha256), Err(FetchError::Digest { .. })));
    let left: Vec<_> = fs::read_dir(cache.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "nothing of the failed download is left: {left:?}");
}

#[test]
fn a_missing_program_is_named() {
    let error = run("apt-get", Command::new("/nonexistent/apt-get")).unwrap_err();
    assert!(matches!(error, FetchError::NoProgram { program: "apt-get" }), "{error}");
}

#[test]
fn unpacks_no_package_that_is_none() {
    let cache = tempfile::tempdir().unwrap();
    let wanted = package(b"not a deb");
    fs::write(cache.path().join(format!("linux-image-1_{}.deb", wanted.sha256.to_hex())), b"not a deb")
        .unwrap();
    let error = KernelPackages::locked(&[wanted]).fetch(cache.path()).unwrap_err();
    assert!(matches!(error, FetchError::Program { program: "dpkg-deb", .. }), "{error}");
}

#[test]
fn versions_are_compared_as_the_distribution_does() {
    for (version, than) in [("6.12.115-1", "6.12.99-1"), ("1.0-1", "1.0-1~deb12u1"), ("1:1", "2")] {
        assert!(is_newer(version, than) && !is_newer(than, version), "{version} {than}");
    }
    assert!(!is_newer("1", "1"));
}
