//! Root file systems as a container sees them.

use std::{fs, mem::ManuallyDrop, os::unix::fs::PermissionsExt};

use postern_model::ContainerName;

use super::support::*;
use crate::{PrepareError, RemoveError, Store};

fn container(name: &str) -> ContainerName {
    ContainerName::new(name).unwrap()
}

#[tokio::test]
async fn a_container_sees_its_layers_and_changes_none() {
    if without_root("a_container_sees_its_layers_and_changes_none") {
        return;
    }
    let disk = Tmpfs::of_mib(64);
    let store = Store::open(disk.path(), limits()).unwrap();
    let image = import(&store, &two_layers().oci()).await.unwrap();
    let before = snapshot(&store);
    let one = store.prepare(&image, &container("one")).await.unwrap();
    let two = store.prepare(&image, &container("two")).await.unwrap();
    let read = |path: &str| fs::read_to_string(one.path().join(path));
    assert_eq!(read("bin/sh").unwrap(), "shell");
    assert_eq!(read("etc/motd").unwrap(), "new");
    assert!(read("etc/gone").is_err());
    let cache: Vec<_> =
        fs::read_dir(one.path().join("var/cache")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(cache, ["c"]);
    fs::write(one.path().join("etc/motd"), "mine").unwrap();
    fs::remove_file(one.path().join("bin/sh")).unwrap();
    fs::write(one.path().join("new"), "mine").unwrap();
    assert_eq!(fs::read_to_string(two.path().join("etc/motd")).unwrap(), "new");
    assert!(two.path().join("bin/sh").exists() && !two.path().join("new").exists());
    assert_eq!(fs::metadata(one.path()).unwrap().permissions().mode() & 0o7777, 0o755);
    one.remove().await.unwrap();
    one.remove().await.unwrap();
    assert!(!one.path().exists());
    drop(two);
    assert_eq!(snapshot(&store), before);
}

#[tokio::test]
async fn mounts_as_many_layers_as_an_image_may_have() {
    if without_root("mounts_as_many_layers_as_an_image_may_have") {
        return;
    }
    let disk = Tmpfs::of_mib(64);
    let store = Store::open(disk.path(), limits()).unwrap();
    let layers: Vec<_> = (0..128).map(|i| tar(&[(&format!("f{i}"), b"x"), ("last", &[i as u8])])).collect();
    let image = import(&store, &TestImage::new(&layers).oci()).await.unwrap();
    let rootfs = store.prepare(&image, &container("many")).await.unwrap();
    assert_eq!(fs::read_dir(rootfs.path()).unwrap().count(), 129);
    assert_eq!(fs::read(rootfs.path().join("last")).unwrap(), [127]);
    rootfs.remove().await.unwrap();
    let too_many: Vec<_> = (0..129).map(|i| tar(&[("f", &[i as u8])])).collect();
    let error = import(&store, &TestImage::new(&too_many).oci()).await.unwrap_err();
    assert!(chain(&error).ends_with("image has 129 layers; at most 128 are allowed"), "{}", chain(&error));
}

#[tokio::test]
async fn an_image_in_use_is_not_removed() {
    if without_root("an_image_in_use_is_not_removed") {
        return;
    }
    let disk = Tmpfs::of_mib(64);
    let store = Store::open(disk.path(), limits()).unwrap();
    let image = import(&store, &two_layers().oci()).await.unwrap();
    let rootfs = store.prepare(&image, &container("web")).await.unwrap();
    let error = store.remove("example.org/test:1").await.unwrap_err();
    assert!(matches!(error, RemoveError::InUse { .. }));
    assert_eq!(error.to_string(), "image example.org/test:1 is in use by container web; remove it first");
    assert!(matches!(store.prepare(&image, &container("web")).await, Err(PrepareError::Exists(_))));
    rootfs.remove().await.unwrap();
    store.remove("example.org/test:1").await.unwrap();
    assert!(matches!(store.prepare(&image, &container("web")).await, Err(PrepareError::NoImage(_))));
    assert_eq!(fs::read_dir(disk.path().join("layers")).unwrap().count(), 0);
    assert_eq!(store.0.budget.used(), 0);
}

#[tokio::test]
async fn a_process_that_died_left_nothing_the_next_keeps() {
    if without_root("a_process_that_died_left_nothing_the_next_keeps") {
        return;
    }
    let disk = Tmpfs::of_mib(64);
    let store = Store::open(disk.path(), limits()).unwrap();
    let image = import(&store, &two_layers().oci()).await.unwrap();
    let before = snapshot(&store);
    let rootfs = store.prepare(&image, &container("web")).await.unwrap();
    fs::write(rootfs.path().join("new"), "x").unwrap();
    fs::create_dir(disk.path().join("tmp/half")).unwrap();
    fs::create_dir(disk.path().join("layers").join("0".repeat(64))).unwrap();
    // As a killed process would: nothing is dropped, but the kernel takes the lock back.
    let _never_dropped = ManuallyDrop::new(rootfs);
    rustix::fs::flock(store.0.area.lock(), rustix::fs::FlockOperation::Unlock).unwrap();
    let again = Store::open(disk.path(), limits()).unwrap();
    assert_eq!(snapshot(&again), before);
    assert_eq!(again.resolve("example.org/test:1").unwrap(), image);
    again.prepare(&image, &container("web")).await.unwrap().remove().await.unwrap();
}
