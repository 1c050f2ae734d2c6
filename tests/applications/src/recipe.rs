//! The list of applications, and an OCI image of each from Debian's packages.

use std::{
    collections::BTreeSet,
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail, ensure};
use postern_tests::programs;
use ring::digest::{SHA256, digest};
use serde::Deserialize;
use serde_json::json;

const LIST: &str = include_str!("../applications.toml");
/// Documentation, translations, the package manager's own and the Perl of its scripts: nothing that runs.
const LEFT_OUT: &[&str] = &[
    "usr/share/doc/",
    "usr/share/man/",
    "usr/share/locale/",
    "usr/share/info/",
    "usr/share/lintian/",
    "usr/share/bug/",
    "usr/share/bash-completion/",
    "usr/share/i18n/",
    "usr/lib/x86_64-linux-gnu/gconv/",
    "var/lib/dpkg/",
    "var/lib/apt/",
    "var/cache/",
    "dev/",
    "etc/systemd/",
    "usr/lib/systemd/",
    "etc/init.d/",
    "usr/bin/perl",
    "usr/share/perl",
    "usr/lib/x86_64-linux-gnu/perl",
    "usr/lib/x86_64-linux-gnu/libperl",
];
const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33:www-data:/var/www:/bin/false\n\
                      nobody:x:65534:65534:nobody:/nonexistent:/bin/false\napp:x:999:999:app:/data:/bin/sh\n";
const GROUP: &str = "root:x:0:\nadm:x:4:\ntty:x:5:\nwww-data:x:33:\nnogroup:x:65534:\napp:x:999:\n";
/// The user that applications run as.
const APP: u64 = 999;

/// The whole list.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct List {
    pub(crate) suite: String,
    #[serde(rename = "application")]
    pub(crate) applications: Vec<Application>,
}

/// One application.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Application {
    pub(crate) name: String,
    pub(crate) packages: Vec<String>,
    #[serde(default)]
    leave: Vec<String>,
    #[serde(default = "app")]
    user: String,
    command: Vec<String>,
    pub(crate) check: String,
    pub(crate) memory: u32,
    /// Searched before the usual directories.
    path: Option<String>,
    #[serde(default)]
    files: Vec<Extra>,
}

fn app() -> String {
    "app".into()
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Extra {
    path: String,
    mode: u32,
    content: String,
}

impl List {
    pub(crate) fn read() -> anyhow::Result<Self> {
        Ok(toml::from_str(LIST)?)
    }
}

impl Application {
    pub(crate) fn reference(&self) -> String {
        format!("applications.example/{}:latest", self.name)
    }

    /// The image's one layer, in `folder`: made when it is not there, its recipe is another, or `anew`.
    pub(crate) fn layer(&self, suite: &str, folder: &Path, anew: bool) -> anyhow::Result<PathBuf> {
        let recipe = format!("{suite} {self:?} {LEFT_OUT:?} {PASSWD} {GROUP}");
        let digest = hex::encode(&digest(&SHA256, recipe.as_bytes()).as_ref()[..8]);
        let path = folder.join(format!("{}-{digest}.layer", self.name));
        if anew || !path.is_file() {
            let work = tempfile::tempdir_in(folder)?;
            let (unpacked, layer) = (work.path().join("packages.tar"), work.path().join("layer.tar"));
            self.unpack_packages(suite, &unpacked)?;
            self.write_layer(&unpacked, &layer)?;
            std::fs::rename(&layer, &path)?;
        }
        Ok(path)
    }

    fn unpack_packages(&self, suite: &str, to: &Path) -> anyhow::Result<()> {
        let mmdebstrap = programs::system("mmdebstrap", "mmdebstrap")?;
        let mut include = self.packages.clone();
        include.push("busybox-static".into());
        // Unpacked and not configured: no script of a package runs here.
        let output = Command::new(mmdebstrap)
            .args(["--quiet", "--variant=extract", "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr"])
            .arg(format!("--include={}", include.join(",")))
            .arg(suite)
            .arg(to)
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "mmdebstrap for {}: {}", self.name, said.trim());
        Ok(())
    }

    fn write_layer(&self, packages: &Path, to: &Path) -> anyhow::Result<()> {
        let mut tar = tar::Builder::new(File::create(to)?);
        let mut archive = tar::Archive::new(File::open(packages)?);
        let mut there = BTreeSet::new();
        for entry in archive.entries()? {
            let mut entry = entry?;
            let path =
                entry.path()?.to_string_lossy().trim_start_matches("./").trim_end_matches('/').to_owned();
            let kind = entry.header().entry_type();
            let mut left_out = LEFT_OUT.iter().copied().chain(self.leave.iter().map(String::as_str));
            if path.is_empty() || left_out.any(|start| format!("{path}/").starts_with(start)) {
                continue;
            }
            let mut header = entry.header().clone();
            header.set_mtime(0);
            there.insert(path.clone());
            match kind {
                tar::EntryType::Symlink | tar::EntryType::Link => {
                    let target = entry.link_name()?.context("a link without a target")?.into_owned();
                    // Of a hard link the name is one in the archive, too.
                    let target = target.strip_prefix("./").map(Path::to_owned).unwrap_or(target);
                    tar.append_link(&mut header, path, target)?;
                }
                tar::EntryType::Regular | tar::EntryType::Directory => {
                    let mut content = Vec::new();
                    entry.read_to_end(&mut content)?;
                    tar.append_data(&mut header, path, content.as_slice())?;
                }
                _ => {}
            }
        }
        self.own_files(&mut tar, &there)?;
        tar.into_inner()?;
        Ok(())
    }

    fn own_files(&self, tar: &mut tar::Builder<File>, there: &BTreeSet<String>) -> anyhow::Result<()> {
        let mut put = |path: &str, kind, mode, owner, content: &[u8]| -> anyhow::Result<()> {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_mode(mode);
            header.set_uid(owner);
            header.set_gid(owner);
            header.set_size(content.len() as u64);
            Ok(tar.append_data(&mut header, path, content)?)
        };
        for (path, mode, owner) in [
            ("tmp", 0o1777, 0),
            ("root", 0o700, 0),
            ("proc", 0o755, 0),
            ("sys", 0o755, 0),
            ("dev", 0o755, 0),
            ("run", 0o777, 0),
            ("srv", 0o755, 0),
            ("data", 0o700, if self.user == "app" { APP } else { 0 }),
        ] {
            put(path, tar::EntryType::Directory, mode, owner, &[])?;
        }
        put("etc/passwd", tar::EntryType::Regular, 0o644, 0, PASSWD.as_bytes())?;
        put("etc/group", tar::EntryType::Regular, 0o644, 0, GROUP.as_bytes())?;
        for file in &self.files {
            put(&file.path, tar::EntryType::Regular, file.mode, 0, file.content.trim_start().as_bytes())?;
        }
        for (path, target) in [("usr/bin/sh", "busybox"), ("etc/localtime", "/usr/share/zoneinfo/UTC")] {
            if !there.contains(path) {
                let mut header = tar::Header::new_gnu();
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_mode(0o777);
                header.set_uid(0);
                header.set_gid(0);
                header.set_size(0);
                tar.append_link(&mut header, path, target)?;
            }
        }
        Ok(())
    }

    /// Writes the image as an OCI archive. `label` names the kernel options that it needs.
    pub(crate) fn archive(
        &self,
        layer: &Path,
        reference: &str,
        label: Option<&str>,
        to: &Path,
    ) -> anyhow::Result<()> {
        let layer = std::fs::read(layer)?;
        let path = self.path.iter().map(|path| format!("{path}:")).collect::<String>();
        let path = format!("PATH={path}/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        let mut config = json!({
            "architecture": "amd64", "os": "linux",
            "config": {
                "Entrypoint": self.entrypoint(), "Env": [path, "LANG=C.UTF-8"], "WorkingDir": "/data",
                "User": if self.user == "root" { "" } else { self.user.as_str() },
            },
            "rootfs": { "type": "layers", "diff_ids": [sha256(&layer)] },
        });
        if let Some(label) = label {
            config["config"]["Labels"] = json!({ "org.postern.kernel-options": label });
        }
        let config = serde_json::to_vec(&config)?;
        let describe = |media: &str, bytes: &[u8]| json!({ "mediaType": format!("application/vnd.oci.image.{media}"), "digest": sha256(bytes), "size": bytes.len() });
        let manifest = serde_json::to_vec(&json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": describe("config.v1+json", &config),
            "layers": [describe("layer.v1.tar", &layer)],
        }))?;
        let mut entry = describe("manifest.v1+json", &manifest);
        entry["annotations"] = json!({ "org.opencontainers.image.ref.name": reference });
        let index = serde_json::to_vec(&json!({ "schemaVersion": 2, "manifests": [entry] }))?;
        let mut tar = tar::Builder::new(File::create(to)?);
        let mut put = |name: &str, content: &[u8]| -> anyhow::Result<()> {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o644);
            header.set_size(content.len() as u64);
            Ok(tar.append_data(&mut header, name, content)?)
        };
        put("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        put("index.json", &index)?;
        for blob in [&manifest, &config, &layer] {
            put(&format!("blobs/sha256/{}", sha256(blob).trim_start_matches("sha256:")), blob)?;
        }
        tar.into_inner()?;
        Ok(())
    }

    /// busybox's own words start it.
    fn entrypoint(&self) -> Vec<String> {
        match self.command.first().map(String::as_str) {
            Some("httpd" | "sleep") => {
                ["busybox"].into_iter().map(str::to_owned).chain(self.command.clone()).collect()
            }
            _ => self.command.clone(),
        }
    }
}

fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(digest(&SHA256, bytes)))
}

/// The applications that were named, or all.
pub(crate) fn chosen<'a>(list: &'a List, names: &[String]) -> anyhow::Result<Vec<&'a Application>> {
    if let Some(unknown) = names.iter().find(|name| !list.applications.iter().any(|one| one.name == **name)) {
        let known: Vec<_> = list.applications.iter().map(|one| one.name.as_str()).collect();
        bail!("there is no application {unknown}; there are {}", known.join(", "));
    }
    let wanted = |one: &&Application| names.is_empty() || names.contains(&one.name);
    Ok(list.applications.iter().filter(wanted).collect())
}
