//! How an image came to be: an in-toto statement with SLSA's provenance predicate, version 1. Subjects are the files of
//! the image, materials everything that `image.lock` names, by digest. It is not signed: whoever publishes an image does
//! that, and whoever doubts it builds again, because the same materials give the same subjects.

use std::collections::BTreeMap;

use postern_launch::image::MANIFEST_FILE;
use postern_model::Sha256;
use serde::Serialize;

use crate::{build::Image, lock::LOCK_FILE, sha256};

/// Name of the statement beside `image.json`.
pub const PROVENANCE_FILE: &str = "provenance.json";
/// <https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md>
const STATEMENT: &str = "https://in-toto.io/Statement/v1";
/// <https://slsa.dev/spec/v1.0/provenance>
const PREDICATE: &str = "https://slsa.dev/provenance/v1";
/// What `postern-image build` does, first edition.
const BUILD_TYPE: &str = "urn:postern:image-build:1";
const BUILDER: &str = "urn:postern:postern-image";

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Statement {
    #[serde(rename = "_type")]
    kind: &'static str,
    subject: Vec<Resource>,
    predicate_type: &'static str,
    predicate: Predicate,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Predicate {
    build_definition: BuildDefinition,
    run_details: RunDetails,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct BuildDefinition {
    build_type: &'static str,
    external_parameters: BTreeMap<&'static str, String>,
    resolved_dependencies: Vec<Resource>,
}

#[derive(Debug, Serialize)]
struct RunDetails {
    builder: Builder,
}

#[derive(Debug, Serialize)]
struct Builder {
    id: &'static str,
    /// Of this program, and of the compilers that made the agent.
    version: BTreeMap<&'static str, String>,
    #[serde(rename = "builderDependencies")]
    dependencies: Vec<Resource>,
}

/// A file, by name and digest.
#[derive(Debug, Serialize)]
struct Resource {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    uri: Option<String>,
    digest: BTreeMap<&'static str, String>,
}

impl Resource {
    fn new(name: impl Into<String>, digest: Sha256) -> Self {
        Self { name: name.into(), uri: None, digest: BTreeMap::from([("sha256", digest.to_hex())]) }
    }
}

/// The statement about an image, whose `image.json` and `image.lock` are these bytes, and whose agent these compilers made.
pub fn provenance(
    image: &Image,
    manifest: &[u8],
    lock: &[u8],
    compilers: &[(&'static str, String)],
) -> serde_json::Result<Vec<u8>> {
    let files = &image.manifest;
    let subject = vec![
        Resource::new(MANIFEST_FILE, sha256(manifest)),
        Resource::new(&files.kernel.file, files.kernel.sha256),
        Resource::new(&files.initramfs.file, files.initramfs.sha256),
    ];
    let mut parameters =
        BTreeMap::from([("cmdline", files.cmdline.clone()), ("kernelRelease", files.kernel_release.clone())]);
    if let Some(profile) = &files.kernel_profile {
        parameters.insert("kernelProfile", profile.clone());
    }
    let mut version: BTreeMap<_, _> = compilers.iter().cloned().collect();
    version.insert("postern-image", env!("CARGO_PKG_VERSION").to_owned());
    let builder =
        Builder { id: BUILDER, version, dependencies: vec![Resource::new("recipe", image.lock.recipe)] };
    let statement = Statement {
        kind: STATEMENT,
        subject,
        predicate_type: PREDICATE,
        predicate: Predicate {
            build_definition: BuildDefinition {
                build_type: BUILD_TYPE,
                external_parameters: parameters,
                resolved_dependencies: materials(image, lock),
            },
            run_details: RunDetails { builder },
        },
    };
    let mut bytes = serde_json::to_vec_pretty(&statement)?;
    bytes.push(b'\n');
    Ok(bytes)
}

fn materials(image: &Image, lock: &[u8]) -> Vec<Resource> {
    let inputs = &image.lock;
    let mut materials = vec![
        Resource::new(LOCK_FILE, sha256(lock)),
        Resource::new("postern-agent", inputs.agent.sha256),
        Resource::new("kernel", inputs.kernel.sha256),
    ];
    for package in &inputs.kernel.packages {
        let uri =
            format!("pkg:deb/{}@{}", package.name, package.version.replace('+', "%2B").replace(':', "%3A"));
        materials.push(Resource { uri: Some(uri), ..Resource::new(&package.name, package.sha256) });
    }
    materials.extend(inputs.modules.iter().map(|module| Resource::new(&module.file, module.sha256)));
    materials
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_files;

    #[test]
    fn subjects_are_the_files_and_materials_the_lock() {
        let image = test_files::image();
        let made_by = [("rustc", "1.0".to_owned())];
        let bytes = provenance(&image, b"{}", b"lock", &made_by).unwrap();
        assert_eq!(bytes, provenance(&image, b"{}", b"lock", &made_by).unwrap());
        let json: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!((&json["_type"], &json["predicateType"]), (&STATEMENT.into(), &PREDICATE.into()));
        let digest = |list: &serde_json::Value, name: &str| {
            let entry = list.as_array().unwrap().iter().find(|entry| entry["name"] == name).unwrap().clone();
            entry["digest"]["sha256"].as_str().unwrap().to_owned()
        };
        assert_eq!(digest(&json["subject"], "vmlinuz"), image.manifest.kernel.sha256.to_hex());
        assert_eq!(digest(&json["subject"], MANIFEST_FILE), sha256(b"{}").to_hex());
        let materials = &json["predicate"]["buildDefinition"]["resolvedDependencies"];
        assert_eq!(digest(materials, "postern-agent"), image.lock.agent.sha256.to_hex());
        assert_eq!(digest(materials, LOCK_FILE), sha256(b"lock").to_hex());
        let package = &image.lock.kernel.packages[0];
        assert_eq!(digest(materials, &package.name), package.sha256.to_hex());
        assert_eq!(json["predicate"]["runDetails"]["builder"]["version"]["rustc"], "1.0");
        assert_ne!(bytes, provenance(&image, b"{ }", b"lock", &made_by).unwrap());
    }
}
