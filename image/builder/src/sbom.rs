//! The image's bill of materials, CycloneDX 1.5: the kernel, the agent, every crate the agent links and how they hang
//! together. The same image and sources give the same bytes: no time and nothing random is in it.
//!
//! A crate that only macros use ran while the agent was built and is listed as excluded from it. Crates carry the digest of their archive in the registry, packages of the distribution theirs. What is linked from the
//! build machine's C libraries is named without a version, which no input of the build records, and the list says itself
//! that it is incomplete there.

use cyclonedx_bom::{
    models::{
        bom::BomReference,
        component::{Classification, Components, Scope},
        composition::{AggregateType, Composition, Compositions},
        dependency::{Dependencies, Dependency},
        hash::{Hash, HashAlgorithm, HashValue, Hashes},
        license::{LicenseChoice, Licenses},
        property::{Properties, Property},
        tool::{Tool, Tools},
    },
    prelude::{Bom, Component, Metadata, NormalizedString, Purl, SpecVersion, UrnUuid, Validate},
};
use postern_launch::image::MANIFEST_FILE;
use postern_model::Sha256;

use crate::{
    build::Image,
    lock::Package,
    sha256,
    sources::{AGENT_PACKAGE, Crate, Origin},
};

/// Name of the bill of materials beside `image.json`.
pub const SBOM_FILE: &str = "sbom.cdx.json";
const GUEST: &str = "guest";
const KERNEL: &str = "kernel";
const AGENT: &str = "agent";
/// What the agent links besides crates: (name, licence).
const C_LIBRARIES: [(&str, &str); 2] = [("libseccomp", "LGPL-2.1-only"), ("glibc", "LGPL-2.1-or-later")];

/// A bill of materials that could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SbomError {
    #[error("writing the bill of materials")]
    Write(#[from] cyclonedx_bom::errors::JsonWriteError),
    #[error("the bill of materials is not valid CycloneDX: {0}")]
    Invalid(String),
    #[error("component {name} has no package URL")]
    Purl { name: String },
}

/// The bill of materials of an image, whose `image.json` is `manifest`. Without `crates` the agent is one piece, of which the list says so.
pub fn sbom(image: &Image, manifest: &[u8], crates: Option<&[Crate]>) -> Result<Vec<u8>, SbomError> {
    let digest = sha256(manifest);
    let mut parts = Parts::default();
    parts.kernel(image)?;
    parts.modules(image);
    parts.agent(image, crates.unwrap_or_default())?;
    let mut guest =
        component(Classification::Firmware, "postern-guest", &image.manifest.agent_version, GUEST);
    guest.hashes = Some(hashes(digest));
    guest.properties = Some(Properties(vec![Property::new("postern:digest-of", MANIFEST_FILE)]));
    parts.link(GUEST, vec![KERNEL.into(), AGENT.into()]);
    let tool = Tool::new("Postern", "postern-image", env!("CARGO_PKG_VERSION"));
    let bom = Bom {
        serial_number: UrnUuid::new(serial_number(digest)).ok(),
        metadata: Some(Metadata {
            tools: Some(Tools::List(vec![tool])),
            component: Some(guest),
            ..Metadata::default()
        }),
        components: Some(Components(parts.components)),
        dependencies: Some(Dependencies(parts.dependencies)),
        compositions: Some(Compositions(vec![composition(crates.is_some())])),
        spec_version: SpecVersion::V1_5,
        ..Bom::default()
    };
    let validation = bom.validate_version(SpecVersion::V1_5);
    if !validation.passed() {
        return Err(SbomError::Invalid(format!("{validation:?}")));
    }
    let mut bytes = Vec::new();
    bom.output_as_json(&mut bytes, SpecVersion::V1_5)?;
    bytes.push(b'\n');
    Ok(bytes)
}

#[derive(Default)]
struct Parts {
    components: Vec<Component>,
    dependencies: Vec<Dependency>,
}

impl Parts {
    fn link(&mut self, from: &str, to: Vec<String>) {
        self.dependencies.push(Dependency { dependency_ref: from.into(), dependencies: to });
    }

    fn kernel(&mut self, image: &Image) -> Result<(), SbomError> {
        let input = &image.lock.kernel;
        let mut kernel = component(Classification::OperatingSystem, "linux", &input.release, KERNEL);
        kernel.hashes = Some(hashes(input.sha256));
        kernel.licenses = Some(licenses("GPL-2.0-only WITH Linux-syscall-note"));
        if let Some(profile) = &image.manifest.kernel_profile {
            kernel.properties = Some(Properties(vec![Property::new("postern:kernel-profile", profile)]));
        }
        self.components.push(kernel);
        let packages: Vec<String> =
            input.packages.iter().map(|package| format!("deb:{}", package.name)).collect();
        self.link(KERNEL, packages.clone());
        for (Package { name, version, sha256 }, id) in input.packages.iter().zip(packages) {
            let mut package = component(Classification::File, name, version, &id);
            package.hashes = Some(hashes(*sha256));
            package.purl = Some(purl("deb", name, version)?);
            self.components.push(package);
        }
        Ok(())
    }

    fn modules(&mut self, image: &Image) {
        for module in &image.lock.modules {
            let id = format!("module:{}", module.file);
            let mut component =
                component(Classification::File, &module.file, &image.lock.kernel.release, &id);
            component.hashes = Some(hashes(module.sha256));
            self.components.push(component);
        }
    }

    /// The agent's program, and the crates in it, of which its own package is the first.
    fn agent(&mut self, image: &Image, crates: &[Crate]) -> Result<(), SbomError> {
        let mut agent =
            component(Classification::Application, AGENT_PACKAGE, &image.manifest.agent_version, AGENT);
        agent.hashes = Some(hashes(image.lock.agent.sha256));
        agent.licenses = Some(licenses("Apache-2.0"));
        self.components.push(agent);
        let own = crates.iter().filter(|krate| krate.name == AGENT_PACKAGE).map(Crate::id);
        let libraries = C_LIBRARIES.iter().map(|(name, _)| format!("c:{name}"));
        self.link(AGENT, own.chain(libraries).collect());
        for (name, license) in C_LIBRARIES {
            let mut library = component(Classification::Library, name, "", &format!("c:{name}"));
            library.version = None;
            library.licenses = Some(licenses(license));
            self.components.push(library);
        }
        for krate in crates {
            let mut library = component(Classification::Library, &krate.name, &krate.version, &krate.id());
            library.licenses = krate.license.as_deref().map(licenses);
            library.hashes = krate.checksum.map(hashes);
            library.scope = Some(if krate.linked { Scope::Required } else { Scope::Excluded });
            if krate.origin == Origin::Registry {
                library.purl = Some(purl("cargo", &krate.name, &krate.version)?);
            }
            self.components.push(library);
            self.link(&krate.id(), krate.dependencies.clone());
        }
        Ok(())
    }
}

fn component(kind: Classification, name: &str, version: &str, id: &str) -> Component {
    let mut component = Component::new(kind, name, version, Some(id.to_owned()));
    component.version = Some(NormalizedString::new(version));
    component
}

fn purl(kind: &str, name: &str, version: &str) -> Result<Purl, SbomError> {
    Purl::new(kind, name, version).map_err(|_| SbomError::Purl { name: name.to_owned() })
}

fn hashes(digest: Sha256) -> Hashes {
    Hashes(vec![Hash { alg: HashAlgorithm::SHA_256, content: HashValue(digest.to_hex()) }])
}

/// Crates of old write `A/B` for `A OR B`.
fn licenses(expression: &str) -> Licenses {
    Licenses(vec![LicenseChoice::expression(&expression.replace('/', " OR "))])
}

/// Everything is there but the C libraries' versions; without sources the agent's crates are not either.
fn composition(has_crates: bool) -> Composition {
    let whole = if has_crates { vec![] } else { vec![BomReference::new(AGENT)] };
    let libraries = C_LIBRARIES.iter().map(|(name, _)| BomReference::new(format!("c:{name}")));
    Composition {
        bom_ref: None,
        aggregate: AggregateType::Incomplete,
        assemblies: Some(whole.into_iter().chain(libraries).collect()),
        dependencies: None,
        vulnerabilities: None,
        signature: None,
    }
}

/// A name of its own for what has this digest (RFC 9562, version 8).
fn serial_number(digest: Sha256) -> String {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest.as_bytes()[..16]);
    bytes[6] = 0x80 | (bytes[6] & 0x0f);
    bytes[8] = 0x80 | (bytes[8] & 0x3f);
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
    let parts = [part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)];
    format!("urn:uuid:{}", parts.join("-"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{sources::Lines, test_files};

    fn crates() -> Vec<Crate> {
        let krate = |name: &str, origin, checksum, dependencies: &[&str]| Crate {
            name: name.into(),
            version: "1.0.0".into(),
            license: Some("MIT/Apache-2.0".into()),
            checksum,
            origin,
            linked: true,
            lines: Lines::default(),
            dependencies: dependencies.iter().map(|&id| id.to_owned()).collect(),
        };
        vec![
            krate(AGENT_PACKAGE, Origin::Workspace, None, &["ring@1.0.0"]),
            krate("ring", Origin::Registry, Some(Sha256::new([7; 32])), &[]),
        ]
    }

    fn read(bytes: &[u8]) -> serde_json::Value {
        serde_json::from_slice(bytes).unwrap()
    }

    #[test]
    fn names_the_kernel_the_agent_and_every_crate_by_digest() {
        let image = test_files::image();
        let json = read(&sbom(&image, b"{}", Some(&crates())).unwrap());
        assert_eq!((&json["bomFormat"], &json["specVersion"]), (&"CycloneDX".into(), &"1.5".into()));
        let component = |name: &str| {
            let all = json["components"].as_array().unwrap();
            all.iter().find(|component| component["bom-ref"] == name).unwrap().clone()
        };
        assert_eq!(component("kernel")["hashes"][0]["content"], image.lock.kernel.sha256.to_hex());
        assert_eq!(component("agent")["hashes"][0]["content"], image.lock.agent.sha256.to_hex());
        assert_eq!(component("ring@1.0.0")["purl"], "pkg:cargo/ring@1.0.0");
        assert_eq!(component("ring@1.0.0")["hashes"][0]["content"], "07".repeat(32));
        assert_eq!(component("ring@1.0.0")["licenses"][0]["expression"], "MIT OR Apache-2.0");
        let links = json["dependencies"].as_array().unwrap();
        let agent = links.iter().find(|link| link["ref"] == "agent").unwrap();
        assert_eq!(agent["dependsOn"][0], "postern-agent@1.0.0");
    }

    #[test]
    fn the_same_image_gives_the_same_bytes_and_another_does_not() {
        let image = test_files::image();
        let once = sbom(&image, b"{}", Some(&crates())).unwrap();
        assert_eq!(once, sbom(&image, b"{}", Some(&crates())).unwrap());
        assert!(read(&once)["metadata"]["timestamp"].is_null());
        assert_ne!(once, sbom(&image, b"{ }", Some(&crates())).unwrap());
    }

    #[test]
    fn without_sources_the_agent_is_called_incomplete() {
        let json = read(&sbom(&test_files::image(), b"{}", None).unwrap());
        assert_eq!(json["compositions"][0]["aggregate"], "incomplete");
        assert_eq!(json["compositions"][0]["assemblies"][0], "agent");
    }
}
