//! Full disks.

use super::support::*;
use crate::{Limits, Store};

/// Bytes no compression makes smaller.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as u8
    };
    (0..length).map(|_| next()).collect()
}

#[tokio::test]
async fn a_full_disk_is_an_error_and_nothing_else() {
    if without_root("a_full_disk_is_an_error_and_nothing_else") {
        return;
    }
    let disk = Tmpfs::of_mib(16);
    let store = Store::open(disk.path(), Limits { reserve_bytes: 4 << 20, ..limits() }).unwrap();
    import(&store, &TestImage::new(&[tar(&[("kept", b"kept")])]).oci()).await.unwrap();
    let before = snapshot(&store);
    // Fits spooled, not unpacked; then not even spooled.
    let zeros_and_noise = tar(&[("a", &noise(9 << 20)), ("b", &vec![1; 9 << 20])]);
    let packed = TestImage::new(&[tar(&[("x", b"")]), zeros_and_noise]);
    let large = TestImage::new(&[tar(&[("a", &noise(14 << 20))])]);
    for (image, start) in [
        (packed, "layer 2 of 2 is refused: no space for the layer: "),
        (large, "archive cannot be read: there is no space for it: "),
    ] {
        let error = chain(&import(&store, &image.oci()).await.unwrap_err());
        assert!(error.starts_with(&format!("{start}the pod's storage is full: ")), "{error}");
        assert!(error.contains("remove images or containers that are not needed"), "{error}");
        assert_eq!(snapshot(&store), before);
    }
    // What fits still does.
    import(&store, &TestImage::new(&[tar(&[("a", &noise(2 << 20))])]).oci()).await.unwrap();
}

#[tokio::test]
async fn without_a_reserve_the_kernels_answer_reads_the_same() {
    if without_root("without_a_reserve_the_kernels_answer_reads_the_same") {
        return;
    }
    let disk = Tmpfs::of_mib(8);
    let store = Store::open(disk.path(), Limits { reserve_bytes: 0, ..limits() }).unwrap();
    let before = snapshot(&store);
    let image = TestImage::new(&[tar(&[("x", b"")]), tar(&[("a", &vec![1; 9 << 20])])]);
    let error = chain(&import(&store, &image.oci()).await.unwrap_err());
    assert!(
        error.starts_with("layer 2 of 2 is refused: no space for the layer: the pod's storage is full: "),
        "{error}"
    );
    assert_eq!(snapshot(&store), before);
}

#[tokio::test]
async fn the_stores_own_limit_holds() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path(), Limits { total_bytes: 1 << 20, ..limits() }).unwrap();
    let image = TestImage::new(&[tar(&[("a", &noise(700_000))]), tar(&[("b", &vec![1; 700_000])])]);
    let before = snapshot(&store);
    let error = chain(&import(&store, &image.oci()).await.unwrap_err());
    assert!(error.contains("images would take more than the 1048576 bytes they may"), "{error}");
    assert_eq!(snapshot(&store), before);
}
