//! Names, shared layers, and stores that are opened again.

use std::fs;

use super::support::*;
use crate::{OpenError, ResolveError, Store, stream::sha256};

fn named(name: &str, layers: &[Vec<u8>]) -> TestImage {
    let mut image = TestImage::new(layers);
    image.name = Some(name.into());
    image
}

fn layer_count(directory: &std::path::Path) -> usize {
    fs::read_dir(directory.join("layers")).unwrap().count()
}

#[tokio::test]
async fn layers_are_shared_and_go_with_their_last_image() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path(), limits()).unwrap();
    let base = tar(&[("base", &[1; 5000])]);
    import(&store, &named("a.org/a:1", &[base.clone(), tar(&[("a", b"a")])]).oci()).await.unwrap();
    let used = store.0.budget.used();
    import(&store, &named("a.org/b:1", &[base, tar(&[("b", b"b")])]).oci()).await.unwrap();
    assert_eq!(layer_count(directory.path()), 3);
    assert!(store.0.budget.used() < used + 5000);
    store.remove("a.org/a:1").await.unwrap();
    assert_eq!(layer_count(directory.path()), 2);
    let id = store.resolve("a.org/b:1").unwrap().config_digest.to_hex();
    assert_eq!(store.remove(&id[..12]).await.unwrap().to_string(), "a.org/b:1");
    assert_eq!((layer_count(directory.path()), store.0.budget.used()), (0, 0));
    assert!(matches!(store.resolve("a.org/b:1"), Err(ResolveError::Unknown(_))));
}

#[tokio::test]
async fn layers_that_are_there_may_be_left_out() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path(), limits()).unwrap();
    let (base, more) = (tar(&[("base", &[1; 5000])]), tar(&[("more", b"more")]));
    // The second one's blob is compressed: its digest is not its diff id.
    let first = import(&store, &named("a.org/a:1", &[more.clone(), base.clone()]).oci()).await.unwrap();
    let second = named("a.org/b:1", &[tar(&[("b", b"b")]), base.clone(), more]);
    let without = |image: &TestImage, layers: &[usize]| {
        let left_out: Vec<_> = layers.iter().map(|&layer| digest(&image.layers[layer].0)).collect();
        let mut files = image.files();
        files.retain(|(_, bytes)| !left_out.contains(&digest(bytes)));
        pack(&files)
    };
    let thin = import(&store, &without(&second, &[1, 2])).await.unwrap();
    assert_eq!((thin.layers[1], thin.layers[2]), (first.layers[1], first.layers[0]));
    assert_eq!(thin.manifest_digest, sha256(&second.manifest_bytes()));
    assert_eq!(layer_count(directory.path()), 3);

    // What is not there cannot be left out, whatever else is, and the failure leaves nothing.
    let before = snapshot(&store);
    let third = named("a.org/c:1", &[tar(&[("c", b"c")]), tar(&[("d", b"d")]), base]);
    let refused = import(&store, &without(&third, &[1, 2])).await.unwrap_err();
    assert!(chain(&refused).contains("this pod has no layer with the diff id"), "{}", chain(&refused));
    assert_eq!(snapshot(&store), before);

    // A blob's digest is nobody's diff id, and naming one that is there does not bring it.
    let mut liar = third.clone();
    liar.manifest["layers"][1]["digest"] = digest(&second.layers[0].0).into();
    let refused = import(&store, &without(&liar, &[1, 2])).await.unwrap_err();
    assert!(chain(&refused).contains("this pod has no layer with the diff id"), "{}", chain(&refused));
    assert_eq!(snapshot(&store), before);
}

#[tokio::test]
async fn a_name_moves_to_the_newer_image() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path(), limits()).unwrap();
    import(&store, &named("a.org/a:1", &[tar(&[("a", b"old")])]).oci()).await.unwrap();
    let newer = import(&store, &named("a.org/a:1", &[tar(&[("a", b"new")])]).oci()).await.unwrap();
    assert_eq!(store.list(), [newer]);
    assert_eq!(layer_count(directory.path()), 1);
}

#[tokio::test]
async fn the_same_image_twice_is_one() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path(), limits()).unwrap();
    let image = named("a.org/a:1", &[tar(&[("a", b"a")]), tar(&[("a", b"a")])]);
    let archive = image.oci();
    let (one, two) = tokio::join!(import(&store, &archive), import(&store, &archive));
    assert_eq!(one.unwrap(), two.unwrap());
    assert_eq!((store.list().len(), layer_count(directory.path())), (1, 1));
}

#[tokio::test]
async fn a_store_has_one_owner_and_keeps_its_images() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path(), limits()).unwrap();
    let mut nameless = TestImage::new(&[tar(&[("n", b"n")])]);
    nameless.name = None;
    import(&store, &nameless.oci()).await.unwrap();
    import(&store, &named("a.org/a:1", &[tar(&[("a", b"a")])]).oci()).await.unwrap();
    assert!(matches!(Store::open(directory.path(), limits()), Err(OpenError::InUse(_))));
    let before = snapshot(&store);
    drop(store);
    let again = Store::open(directory.path(), limits()).unwrap();
    assert_eq!(snapshot(&again), before);
    drop(again);
    fs::write(directory.path().join("index.json"), "{").unwrap();
    let error = Store::open(directory.path(), limits()).unwrap_err();
    assert_eq!(error.to_string(), "the image store's index is not valid");
}
