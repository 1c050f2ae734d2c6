//! A host whose QEMU gives the guest other init data than the launch was made for: what stands between its command line
//! and the real QEMU is a script of the host's.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::programs;

/// Where the host's part of a launch names the init data.
const HONEST: &str = "filename=init-data.img";
const QEMU: &str = "qemu-system-x86_64";

/// Block devices as the guest finds them instead of the one with its owner's init data.
#[derive(Debug, Clone, Default)]
pub struct Devices {
    /// In its place; as it is where this is none.
    pub replaced: Option<Vec<u8>>,
    /// One more.
    pub second: Option<Vec<u8>>,
}

impl Devices {
    pub fn replaced(device: Vec<u8>) -> Self {
        Self { replaced: Some(device), ..Self::default() }
    }

    pub fn second(device: Vec<u8>) -> Self {
        Self { second: Some(device), ..Self::default() }
    }

    /// Makes a folder with a QEMU that boots guests so.
    pub fn install(&self, folder: &Path) -> anyhow::Result<PathBuf> {
        std::fs::create_dir_all(folder)?;
        let write = |name: &str, device: &Option<Vec<u8>>| -> anyhow::Result<Option<String>> {
            let Some(device) = device else { return Ok(None) };
            let file = folder.join(name);
            std::fs::write(&file, device)?;
            Ok(Some(file.to_str().context("a path that is not UTF-8")?.to_owned()))
        };
        let mut script = String::from("set -eu\nargs=(\"$@\")\n");
        if let Some(file) = write("replaced.img", &self.replaced)? {
            script.push_str(&format!(
                "args=(\"${{args[@]/{}/{}}}\")\n",
                HONEST.replace('.', "\\."),
                format!("filename={file}").replace('/', "\\/")
            ));
        }
        if let Some(file) = write("second.img", &self.second)? {
            // Not where the caller only asks which QEMU this is.
            script.push_str(&format!(
                "if [[ \"$*\" == *{HONEST}* ]]; then args+=(\
                 -blockdev driver=file,node-name=second-file,read-only=on,locking=off,filename={file} \
                 -blockdev driver=raw,node-name=second,read-only=on,file=second-file \
                 -device virtio-blk-device,drive=second); fi\n"
            ));
        }
        script.push_str(&format!(
            "exec {} \"${{args[@]}}\"\n",
            programs::system(QEMU, "qemu-system-x86")?.display()
        ));
        programs::write_script(&folder.join(QEMU), &script)?;
        Ok(folder.to_owned())
    }
}
