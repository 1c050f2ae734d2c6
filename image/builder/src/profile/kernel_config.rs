//! The options that a kernel was built with, from its configuration.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

/// The largest configuration that is read.
const MAX_CONFIG: u64 = 4 << 20;

#[derive(Debug, thiserror::Error)]
pub enum KernelConfigError {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} is no kernel configuration: it sets no option", .0.display())]
    Empty(PathBuf),
}

/// The options that are built in. A module counts as absent: a specialised guest loads none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KernelOptions(BTreeSet<String>);

impl KernelOptions {
    /// Reads a `.config`, plain or as `/proc/config.gz` has it.
    pub fn read(path: &Path) -> Result<Self, KernelConfigError> {
        let failed = |source| KernelConfigError::Read { path: path.into(), source };
        let mut bytes = Vec::new();
        File::open(path).map_err(failed)?.take(MAX_CONFIG).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.starts_with(&[0x1f, 0x8b]) {
            let mut plain = Vec::new();
            flate2::read::MultiGzDecoder::new(&bytes[..])
                .take(MAX_CONFIG)
                .read_to_end(&mut plain)
                .map_err(failed)?;
            bytes = plain;
        }
        let options = Self::parse(&String::from_utf8_lossy(&bytes));
        match options.0.is_empty() {
            true => Err(KernelConfigError::Empty(path.into())),
            false => Ok(options),
        }
    }

    pub fn parse(config: &str) -> Self {
        Self(
            config
                .lines()
                .filter_map(|line| Some(line.strip_prefix("CONFIG_")?.strip_suffix("=y")?.to_owned()))
                .collect(),
        )
    }

    pub fn has(&self, option: &str) -> bool {
        self.0.contains(option)
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<String> for KernelOptions {
    fn from_iter<I: IntoIterator<Item = String>>(options: I) -> Self {
        Self(options.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn only_what_is_built_in_counts() {
        let text =
            "# CONFIG_AIO is not set\nCONFIG_EPOLL=y\nCONFIG_FUSE_FS=m\nCONFIG_NR_CPUS=8\nCONFIG_X=\"y\"\n";
        let options = KernelOptions::parse(text);
        assert!(options.has("EPOLL") && !options.has("AIO") && !options.has("FUSE_FS") && options.len() == 1);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.gz");
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(text.as_bytes()).unwrap();
        std::fs::write(&path, packed.finish().unwrap()).unwrap();
        assert_eq!(KernelOptions::read(&path).unwrap(), options);
        std::fs::write(&path, "#!/bin/sh\n").unwrap();
        assert!(matches!(KernelOptions::read(&path), Err(KernelConfigError::Empty(_))));
    }
}
