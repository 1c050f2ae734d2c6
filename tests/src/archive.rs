//! Container images made on the spot from Debian's static busybox: no registry, no network.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

/// Applets that get a link in the image.
const APPLETS: [&str; 44] = [
    "sh",
    "cat",
    "echo",
    "ls",
    "sleep",
    "true",
    "false",
    "env",
    "id",
    "pwd",
    "wc",
    "head",
    "tail",
    "dd",
    "seq",
    "yes",
    "touch",
    "mkdir",
    "rm",
    "cp",
    "mv",
    "ln",
    "stat",
    "stty",
    "hostname",
    "ps",
    "kill",
    "grep",
    "sed",
    "awk",
    "sha256sum",
    "md5sum",
    "test",
    "tr",
    "sort",
    "mount",
    "umount",
    "mknod",
    "find",
    "nc",
    "wget",
    "httpd",
    "date",
    "printf",
];

/// What to put into an image.
#[derive(Debug, Clone)]
pub struct ImageRecipe {
    pub reference: String,
    pub command: Vec<String>,
    pub entrypoint: Vec<String>,
    pub env: Vec<String>,
    pub user: String,
    pub working_dir: String,
    pub labels: Vec<(String, String)>,
    /// Extra files: path in the image, content, mode.
    pub files: Vec<(String, Vec<u8>, u32)>,
}

impl ImageRecipe {
    pub fn busybox(reference: &str) -> Self {
        Self {
            reference: reference.to_owned(),
            command: vec!["sh".into()],
            entrypoint: Vec::new(),
            env: vec!["PATH=/bin:/usr/bin".into()],
            user: String::new(),
            working_dir: String::new(),
            labels: Vec::new(),
            files: vec![
                (
                    "etc/passwd".into(),
                    b"root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000:app:/home:/bin/sh\n".to_vec(),
                    0o644,
                ),
                ("etc/group".into(), b"root:x:0:\napp:x:1000:\nextra:x:2000:app\n".to_vec(), 0o644),
            ],
        }
    }

    /// One uncompressed layer.
    fn layer(&self) -> anyhow::Result<Vec<u8>> {
        let busybox = std::fs::read(busybox()?).context("cannot read busybox")?;
        let mut tar = tar::Builder::new(Vec::new());
        for folder in ["bin", "etc", "tmp", "root", "home", "usr", "usr/bin", "var", "dev", "proc", "sys"] {
            let mode = if folder == "tmp" { 0o1777 } else { 0o755 };
            append(&mut tar, &format!("{folder}/"), tar::EntryType::Directory, mode, &[])?;
        }
        append(&mut tar, "bin/busybox", tar::EntryType::Regular, 0o755, &busybox)?;
        for applet in APPLETS {
            let mut header = tar::Header::new_ustar();
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            header.set_mode(0o777);
            tar.append_link(&mut header, format!("bin/{applet}"), "busybox")?;
        }
        for (path, content, mode) in &self.files {
            append(&mut tar, path, tar::EntryType::Regular, *mode, content)?;
        }
        Ok(tar.into_inner()?)
    }

    fn config(&self, diff_id: &str) -> Value {
        let labels: serde_json::Map<String, Value> =
            self.labels.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        json!({
            "architecture": "amd64",
            "os": "linux",
            "config": {
                "Env": self.env,
                "Cmd": self.command,
                "Entrypoint": if self.entrypoint.is_empty() { Value::Null } else { json!(self.entrypoint) },
                "User": self.user,
                "WorkingDir": self.working_dir,
                "Labels": labels,
            },
            "rootfs": { "type": "layers", "diff_ids": [diff_id] },
        })
    }

    /// Writes an OCI image layout, as a tar archive, to `path`.
    pub fn write_oci_archive(&self, path: &Path) -> anyhow::Result<()> {
        let layer = self.layer()?;
        let diff_id = sha256(&layer);
        let config = serde_json::to_vec(&self.config(&diff_id))?;
        let descriptor = |media: &str, bytes: &[u8]| json!({"mediaType": media, "digest": sha256(bytes), "size": bytes.len()});
        let manifest = serde_json::to_vec(&json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
            "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer)],
        }))?;
        let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest);
        entry["annotations"] = json!({"org.opencontainers.image.ref.name": self.reference});
        let index = serde_json::to_vec(&json!({"schemaVersion": 2, "manifests": [entry]}))?;
        let mut tar = tar::Builder::new(std::fs::File::create(path)?);
        append(&mut tar, "oci-layout", tar::EntryType::Regular, 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        append(&mut tar, "index.json", tar::EntryType::Regular, 0o644, &index)?;
        for blob in [&manifest, &config, &layer] {
            let name = format!("blobs/sha256/{}", sha256(blob).trim_start_matches("sha256:"));
            append(&mut tar, &name, tar::EntryType::Regular, 0o644, blob)?;
        }
        tar.into_inner()?.flush()?;
        Ok(())
    }

    /// Writes what `docker save` writes, to `path`.
    pub fn write_docker_archive(&self, path: &Path) -> anyhow::Result<()> {
        let layer = self.layer()?;
        let config = serde_json::to_vec(&self.config(&sha256(&layer)))?;
        let config_name = format!("{}.json", sha256(&config).trim_start_matches("sha256:"));
        let manifest = serde_json::to_vec(&json!([{
            "Config": config_name,
            "RepoTags": [self.reference],
            "Layers": ["layer/layer.tar"],
        }]))?;
        let mut tar = tar::Builder::new(std::fs::File::create(path)?);
        append(&mut tar, &config_name, tar::EntryType::Regular, 0o644, &config)?;
        append(&mut tar, "layer/layer.tar", tar::EntryType::Regular, 0o644, &layer)?;
        append(&mut tar, "manifest.json", tar::EntryType::Regular, 0o644, &manifest)?;
        tar.into_inner()?.flush()?;
        Ok(())
    }
}

/// Debian's and Ubuntu's static busybox.
pub fn busybox() -> anyhow::Result<PathBuf> {
    crate::programs::system("busybox", "busybox-static")
}

/// `sha256:<hex>` of `bytes`.
pub fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(digest(&SHA256, bytes)))
}

fn append<W: std::io::Write>(
    tar: &mut tar::Builder<W>,
    path: &str,
    kind: tar::EntryType,
    mode: u32,
    content: &[u8],
) -> anyhow::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_mtime(0);
    header.set_size(content.len() as u64);
    Ok(tar.append_data(&mut header, path, content)?)
}
