//! Documents as registries and tools write them, and those that have two meanings or none.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn digest(byte: u8) -> String {
    Sha256::new([byte; 32]).to_string()
}

fn entry(byte: u8, platform: Option<&str>, name: Option<&str>) -> Value {
    let mut entry = json!({ "mediaType": OCI_MANIFEST, "digest": digest(byte), "size": 1 });
    if let Some((os, architecture)) = platform.and_then(|platform| platform.split_once('/')) {
        let (architecture, variant) =
            architecture.split_once('/').map_or((architecture, None), |(a, v)| (a, Some(v)));
        entry["platform"] = json!({ "os": os, "architecture": architecture, "variant": variant });
    }
    if let Some(name) = name {
        entry["annotations"] = json!({ "org.opencontainers.image.ref.name": name });
    }
    entry
}

fn index(entries: &[Value]) -> Vec<Descriptor> {
    match Document::parse(json!({ "schemaVersion": 2, "manifests": entries }).to_string().as_bytes()).unwrap()
    {
        Document::Index(entries) => entries,
        Document::Manifest(_) => panic!("not an index"),
    }
}

fn chosen(entries: &[Value], wanted: Option<&str>) -> Result<u8, ManifestError> {
    choose(&index(entries), wanted).map(|d| d.digest.as_bytes()[0])
}

#[test]
fn picks_the_guests_platform() {
    let amd = entry(1, Some("linux/amd64"), None);
    let arm = entry(2, Some("linux/arm64"), None);
    let attestation = entry(3, Some("unknown/unknown"), None);
    let v3 = entry(4, Some("linux/amd64/v3"), None);
    assert_eq!(chosen(&[arm.clone(), attestation.clone(), amd.clone()], None).unwrap(), 1);
    assert_eq!(chosen(&[v3.clone(), amd.clone()], None).unwrap(), 1);
    assert_eq!(chosen(&[v3], None).unwrap(), 4);
    assert_eq!(chosen(&[entry(5, None, None)], None).unwrap(), 5);
    let error = chosen(&[arm, attestation], None).unwrap_err();
    assert_eq!(
        error.to_string(),
        "index holds no image for linux/amd64; it has: linux/arm64, unknown/unknown"
    );
    assert!(matches!(chosen(&[], None), Err(ManifestError::EmptyIndex)));
}

#[test]
fn asks_which_image_when_there_are_several() {
    let images = [entry(1, None, Some("r.io/a:1")), entry(2, None, Some("r.io/b:1"))];
    let error = chosen(&images, None).unwrap_err();
    assert_eq!(error.to_string(), "index holds 2 images for linux/amd64; name one of: r.io/a:1, r.io/b:1");
    assert_eq!(chosen(&images, Some("r.io/b:1")).unwrap(), 2);
    assert!(chosen(&images, Some("r.io/c:1")).is_err());
}

fn manifest(layers: &[&str], config_type: &str) -> Manifest {
    let layers: Vec<_> =
        layers.iter().map(|kind| json!({ "mediaType": kind, "digest": digest(9), "size": 5 })).collect();
    let document = json!({
        "schemaVersion": 2,
        "config": { "mediaType": config_type, "digest": digest(8), "size": 2 },
        "layers": layers,
    });
    match Document::parse(document.to_string().as_bytes()).unwrap() {
        Document::Manifest(manifest) => manifest,
        Document::Index(_) => panic!("not a manifest"),
    }
}

fn config(architecture: &str, diff_ids: &[String]) -> Vec<u8> {
    // As Docker writes it: null where there is nothing, fields nobody else knows.
    json!({
        "architecture": architecture, "os": "linux", "docker_version": "20", "container": "x",
        "config": { "Env": ["A=b"], "Volumes": null, "Cmd": null, "Labels": null, "OnBuild": null, "Healthcheck": {} },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
        "history": [{ "created": "2024-01-01T00:00:00Z", "empty_layer": true }],
    })
    .to_string()
    .into_bytes()
}

fn plan(manifest: &Manifest, config: &[u8]) -> Result<Plan, ManifestError> {
    Plan::new(Sha256::new([7; 32]), manifest, config, &Limits::default())
}

#[test]
fn plans_an_image() {
    let plan =
        plan(&manifest(&[LAYERS[1], LAYERS[4]], OCI_CONFIG), &config("amd64", &[digest(1), digest(2)]))
            .unwrap();
    assert_eq!(plan.layers.len(), 2);
    assert_eq!(
        plan.layers[1],
        PlannedLayer { blob: Sha256::new([9; 32]), size: 5, diff_id: Sha256::new([2; 32]) }
    );
}

#[test]
fn says_what_is_wrong_with_an_image() {
    let one = [digest(1)];
    for (layers, config_type, config, text) in [
        (
            &[LAYERS[0]][..],
            OCI_CONFIG,
            config("arm64", &one),
            "image is for linux/arm64; this pod runs linux/amd64",
        ),
        (&[], OCI_CONFIG, config("amd64", &[]), "image has no layers, so there is nothing to run"),
        (&[LAYERS[0]], OCI_CONFIG, config("amd64", &[]), "image has no layers, so there is nothing to run"),
        (
            &[LAYERS[0]; 2],
            OCI_CONFIG,
            config("amd64", &one),
            "manifest has 2 layers and the configuration 1 diff ids",
        ),
        (
            &[LAYERS[0]],
            "application/x",
            config("amd64", &one),
            "this is not a container image but an artifact of type \"application/x\"",
        ),
        (
            &["application/vnd.oci.image.layer.v1.tar+encrypted"],
            OCI_CONFIG,
            config("amd64", &one),
            "layer 0 is of type \"application/vnd.oci.image.layer.v1.tar+encrypted\", which is not supported",
        ),
        (
            &[LAYERS[0]],
            OCI_CONFIG,
            config("amd64", &["sha256:1".into()]),
            "diff id 0 of the configuration is not valid",
        ),
        (&[LAYERS[0]], OCI_CONFIG, b"{".to_vec(), "image configuration is not valid"),
        (
            &[LAYERS[0]; 129],
            OCI_CONFIG,
            config("amd64", &vec![digest(1); 129]),
            "image has 129 layers; at most 128 are allowed",
        ),
    ] {
        assert_eq!(plan(&manifest(layers, config_type), &config).unwrap_err().to_string(), text);
    }
}

#[test]
fn refuses_documents_with_two_meanings() {
    let config = json!({ "digest": digest(1), "size": 1 });
    for document in [
        json!({ "schemaVersion": 2, "manifests": [], "config": config, "layers": [] }),
        json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "config": config, "layers": [] }),
        json!({ "schemaVersion": 2, "mediaType": OCI_MANIFEST, "manifests": [] }),
        json!({ "schemaVersion": 2 }),
    ] {
        assert!(
            matches!(Document::parse(document.to_string().as_bytes()), Err(ManifestError::Ambiguous)),
            "{document}"
        );
    }
    let old = json!({ "schemaVersion": 1, "fsLayers": [] }).to_string();
    assert!(matches!(Document::parse(old.as_bytes()), Err(ManifestError::Schema(1))));
}

proptest! {
    #[test]
    fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Document::parse(&bytes);
        let _ = configuration(&bytes, &Limits::default());
    }
}
