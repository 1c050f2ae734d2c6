//! Names, layers and users, without a disk.

use super::*;

fn image(manifest: u8, config: u8, layers: &[u8]) -> Stored {
    Stored {
        manifest_digest: Sha256::new([manifest; 32]),
        config_digest: Sha256::new([config; 32]),
        anonymous: false,
        created_unix_millis: None,
        layers: layers.iter().map(|&layer| Sha256::new([layer; 32])).collect(),
        config: Arc::default(),
    }
}

fn name(text: &str) -> ImageReference {
    text.parse().unwrap()
}

fn with_layers(layers: &[u8]) -> State {
    let mut state = State::default();
    for &layer in layers {
        state.add_layer(Sha256::new([layer; 32]), 100);
    }
    state
}

fn orphans(state: &mut State) -> Vec<u8> {
    state.take_orphans().iter().map(|(diff_id, _)| diff_id.as_bytes()[0]).collect()
}

#[test]
fn finds_images_by_name_digest_and_id() {
    let mut state = with_layers(&[1, 2]);
    state.add(image(0xa1, 0xc1, &[1, 2, 1]), &[name("busybox"), name("r.io/x:1")]);
    let full = "c1".repeat(32);
    let manifest = format!("sha256:{}", "a1".repeat(32));
    let pinned = format!("r.io/x@{manifest}");
    for text in [
        "busybox",
        "busybox:latest",
        "docker.io/library/busybox",
        "r.io/x:1",
        &full,
        &full[..12],
        &manifest,
        &pinned,
    ] {
        let found = state.resolve(text).unwrap();
        assert_eq!((found.manifest_digest, found.size), (Sha256::new([0xa1; 32]), 200), "{text}");
    }
    for text in
        ["busybox:1", "r.io/x", &full[..11], "c1c1c1c1c1c2", &format!("busybox@sha256:{}", "0".repeat(64))]
    {
        assert!(matches!(state.resolve(text), Err(ResolveError::Unknown(_))), "{text}");
    }
    for text in ["", "Not a name", "sha256:12"] {
        assert!(matches!(state.resolve(text), Err(ResolveError::Malformed(_))), "{text}");
    }
}

#[test]
fn a_short_id_of_two_images_is_refused() {
    let mut state = State::default();
    state.add(image(1, 0xcc, &[]), &[name("a")]);
    state.add(image(2, 0xcc, &[]), &[name("b")]);
    assert!(matches!(state.resolve("cccccccccccc"), Err(ResolveError::Ambiguous(_))));
}

#[test]
fn removal_takes_names_first_and_layers_last() {
    let mut state = with_layers(&[1, 2, 3]);
    state.add(image(1, 1, &[1, 2]), &[name("a"), name("b")]);
    state.add(image(2, 2, &[2, 3]), &[name("c")]);
    let named_a = state.resolve("a").unwrap();
    state.remove(&named_a, false).unwrap();
    assert!(state.resolve("a").is_err());
    assert!(orphans(&mut state).is_empty());
    let named_b = state.resolve("b").unwrap();
    state.remove(&named_b, false).unwrap();
    assert_eq!(orphans(&mut state), [1]);
    assert_eq!(state.list().len(), 1);
}

#[test]
fn a_name_given_away_takes_the_old_image_along_unless_it_is_used() {
    let mut state = with_layers(&[1, 2, 3]);
    let container = ContainerName::new("web").unwrap();
    state.add(image(1, 1, &[1]), &[name("a")]);
    assert!(state.use_image(&container, Sha256::new([1; 32])));
    state.add(image(2, 2, &[2]), &[name("a")]);
    assert_eq!(orphans(&mut state), [3]);
    assert_eq!(state.list().len(), 2);
    state.end_use(&container);
    assert_eq!(orphans(&mut state), [1]);
    assert_eq!(state.list().len(), 1);
}

#[test]
fn an_image_in_use_stays() {
    let mut state = with_layers(&[1]);
    let container = ContainerName::new("web").unwrap();
    state.add(image(1, 1, &[1]), &[name("a")]);
    assert!(state.use_image(&container, Sha256::new([1; 32])));
    assert!(!state.use_image(&container, Sha256::new([1; 32])));
    let found = state.resolve("a").unwrap();
    assert_eq!(state.remove(&found, false), Err(InUse(vec![container.clone()])));
    assert_eq!(state.remove(&found, true), Err(InUse(vec![container.clone()])));
    state.end_use(&container);
    assert_eq!(state.remove(&found, false), Ok(()));
    assert_eq!(orphans(&mut state), [1]);
}

#[test]
fn a_pin_holds_a_layer_without_an_image() {
    let mut state = with_layers(&[1]);
    let layer = Sha256::new([1; 32]);
    state.pin(layer);
    state.pin(layer);
    state.unpin(&layer);
    assert!(orphans(&mut state).is_empty());
    state.unpin(&layer);
    assert_eq!(orphans(&mut state), [1]);
}

#[test]
fn an_image_without_a_name_stays_until_it_is_removed() {
    let mut state = with_layers(&[1]);
    state.add(Stored { anonymous: true, ..image(1, 1, &[1]) }, &[]);
    state.add(image(2, 2, &[1]), &[name("a")]);
    let listed = state.list();
    assert_eq!(listed.iter().map(|image| image.reference.is_some()).collect::<Vec<_>>(), [true, false]);
    state.remove(&listed[1], false).unwrap();
    assert_eq!(state.list().len(), 1);
    assert!(orphans(&mut state).is_empty());
}
