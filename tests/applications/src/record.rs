//! What was measured, kept in the checkout: the page is written from it.

use std::{collections::BTreeMap, path::PathBuf};

use anyhow::Context as _;
use postern_tests::programs;
use serde::{Deserialize, Serialize};

/// Everything that was measured last.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    /// Kernels to compare with, by their profile.
    pub(crate) kernels: BTreeMap<String, Kernel>,
    pub(crate) applications: BTreeMap<String, Measured>,
}

/// A kernel, and pods that booted it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Kernel {
    pub(crate) sha256: String,
    pub(crate) bytes: u64,
    /// Options that are built in.
    pub(crate) options: usize,
    /// `pod create` to the attested tunnel, the median of several.
    pub(crate) boot_seconds: f64,
}

/// An application in its pods.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Measured {
    pub(crate) kernel: Kernel,
    pub(crate) image_bytes: u64,
    pub(crate) pod_mib: u32,
    /// Of the pod's memory, while the application runs and has been used.
    pub(crate) used_mib: u64,
    pub(crate) push_seconds: f64,
    /// From `run` to a check that succeeds.
    pub(crate) ready_seconds: f64,
    /// What a pod on the base says of the image.
    pub(crate) refusal: String,
    /// What the same image does there when it has no label.
    pub(crate) unlabelled: Unlabelled,
}

/// An application that nothing keeps from a kernel that lacks what it asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Unlabelled {
    /// The check succeeds all the same.
    Works,
    /// It does not; the last that was said.
    Fails(String),
}

fn path() -> PathBuf {
    programs::root().join("tests/applications/measured.json")
}

impl Record {
    pub(crate) fn read() -> anyhow::Result<Self> {
        let path = path();
        match std::fs::read(&path) {
            Ok(bytes) => {
                serde_json::from_slice(&bytes).with_context(|| format!("reading {}", path.display()))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
        }
    }

    pub(crate) fn write(&self) -> anyhow::Result<()> {
        let path = path();
        let text = serde_json::to_string_pretty(self)? + "\n";
        std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
    }
}
