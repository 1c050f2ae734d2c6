//! What a hostile registry says, and what the pull must make of it.

use super::{
    registry::{Asked, Reply, is_layer},
    support::*,
};

/// What a hostile registry answers instead, and what the pull must say.
pub(super) type Lie = (&'static str, Box<dyn Fn(&TestImage, &Asked) -> Option<Reply> + Send + Sync>, String);

pub(super) fn false_content(image: &TestImage) -> Vec<Lie> {
    let gzip_digest = digest(&image.layers[1].0);
    let (manifest, evil) = (digest(&image.manifest_bytes()), digest(b"evil"));
    let first = image.layers[0].0.len();
    vec![
        (
            "other manifest",
            Box::new({
                let manifest = manifest.clone();
                move |_, asked| asked.path.ends_with(&manifest).then(|| Reply::ok(b"evil".to_vec()))
            }),
            format!("manifest has the digest {evil}, not {manifest}: the registry serves something else"),
        ),
        (
            "other configuration",
            Box::new(|image, asked| {
                asked.path.ends_with(&digest(&image.config_bytes())).then(|| Reply::ok(b"evil".to_vec()))
            }),
            format!(
                "image configuration has the digest {evil}, not {}: the registry serves something else",
                digest(&image.config_bytes())
            ),
        ),
        (
            "other layer of the same length",
            Box::new(|image, asked| {
                is_layer(image, 1, asked).then(|| {
                    // The file's time in gzip's header: another digest, the same content.
                    let mut blob = image.layers[1].0.clone();
                    blob[4] ^= 1;
                    Reply::ok(blob)
                })
            }),
            format!(
                "layer 2 of 3 is refused: its content has the digest {}; the manifest says {gzip_digest}",
                {
                    let mut blob = image.layers[1].0.clone();
                    blob[4] ^= 1;
                    digest(&blob)
                }
            ),
        ),
        (
            "short layer",
            Box::new(|image, asked| {
                is_layer(image, 0, asked).then(|| Reply::ok(image.layers[0].0[..100_000].to_vec()))
            }),
            format!("layer 1 of 3 is refused: it ends after 100000 of {first} bytes"),
        ),
        (
            "long layer",
            Box::new(|image, asked| {
                is_layer(image, 0, asked).then(|| Reply::ok([&image.layers[0].0[..], b"x"].concat()))
            }),
            format!("layer 1 of 3 is refused: it has more than the {first} bytes its manifest says"),
        ),
    ]
}

pub(super) fn strange_answers() -> Vec<Lie> {
    vec![
        (
            "endless manifest",
            Box::new(|_, asked| asked.path.ends_with("/manifests/1").then(|| Reply::ok(vec![b' '; 70_000]))),
            "sends more than 65536 bytes for manifest 1".into(),
        ),
        (
            "no such image",
            Box::new(|_, asked| {
                let body =
                    br#"{"errors":[{"code":"NAME_UNKNOWN","message":"repository\u001b[31m unknown"}]}"#;
                asked
                    .path
                    .ends_with("/manifests/1")
                    .then(|| Reply { body: body.to_vec(), ..Reply::status(404) })
            }),
            "has no manifest 1 in test: repository\\x1b[31m unknown".into(),
        ),
        (
            "circle of redirects",
            Box::new(|image, asked| {
                is_layer(image, 0, asked).then(|| Reply::status(307).header("location", asked.path.clone()))
            }),
            "with status 307".into(),
        ),
        (
            "redirect to a file",
            Box::new(|image, asked| {
                is_layer(image, 0, asked).then(|| Reply::status(307).header("location", "file:///etc/passwd"))
            }),
            "to \"file:///etc/passwd\", which is not followed".into(),
        ),
        (
            "layer that is gone",
            Box::new(|image, asked| is_layer(image, 2, asked).then(|| Reply::status(404))),
            "layer 3 of 3 cannot be fetched: ".into(),
        ),
    ]
}
