//! Evidence through configfs-tsm, as Linux offers it to confidential guests.
//!
//! Linux, Documentation/ABI/testing/configfs-tsm-report: a directory per request; write `inblob`, read `outblob` and
//! `auxblob`; `generation` counts writes, so that a report is known to be over what this process wrote.

use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU64, Ordering},
};

use super::{CollectError, EvidenceSource};
use crate::format::{Evidence, MAX_CERTIFICATES, MAX_REPORT, Tee};

const REPORTS: &str = "/sys/kernel/config/tsm/report";
/// How often a request is made again when another process wrote to it in between.
const ATTEMPTS: u32 = 5;

/// The kernel's report interface.
#[derive(Debug)]
pub struct ConfigfsTsm {
    reports: PathBuf,
    requests: AtomicU64,
}

impl ConfigfsTsm {
    /// Opens the interface. Fails if the kernel does not offer one, or another TEE than SNP answers.
    pub fn open() -> Result<Self, CollectError> {
        Self::open_at(Path::new(REPORTS))
    }

    fn open_at(reports: &Path) -> Result<Self, CollectError> {
        if !reports.is_dir() {
            return Err(CollectError::NoTee(reports.display().to_string()));
        }
        let tsm = Self { reports: reports.to_path_buf(), requests: AtomicU64::new(0) };
        let request = tsm.request()?;
        let provider = request.text("provider")?;
        match provider.as_str() {
            "sev_guest" => Ok(tsm),
            _ => Err(CollectError::Provider(provider)),
        }
    }

    fn request(&self) -> Result<Request, CollectError> {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        let directory = self.reports.join(format!("postern-{}-{number}", process::id()));
        fs::create_dir(&directory).map_err(|source| file_error("create", &directory, source))?;
        Ok(Request { directory })
    }
}

impl EvidenceSource for ConfigfsTsm {
    fn evidence(&self, report_data: &[u8; 64]) -> Result<Evidence, CollectError> {
        let request = self.request()?;
        for _ in 0..ATTEMPTS {
            let before = request.generation()?;
            request.write("inblob", report_data)?;
            let report = request.read("outblob", MAX_REPORT)?;
            let certificates = match request.read("auxblob", MAX_CERTIFICATES) {
                Ok(table) => table,
                // A host that hands out no certificates: the verifier says what is missing.
                Err(CollectError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                    Vec::new()
                }
                Err(error) => return Err(error),
            };
            if request.generation()? == before.wrapping_add(1) {
                return Ok(Evidence { tee: Tee::Snp, report, certificates });
            }
        }
        Err(CollectError::Contended(ATTEMPTS))
    }
}

/// One directory below `report/`, removed when dropped.
struct Request {
    directory: PathBuf,
}

impl Request {
    fn generation(&self) -> Result<u64, CollectError> {
        let text = self.text("generation")?;
        text.parse().map_err(|_| {
            let source = io::Error::new(io::ErrorKind::InvalidData, "not a number");
            file_error("read", &self.directory.join("generation"), source)
        })
    }

    fn text(&self, name: &str) -> Result<String, CollectError> {
        Ok(String::from_utf8_lossy(&self.read(name, 256)?).trim().to_owned())
    }

    fn read(&self, name: &str, limit: usize) -> Result<Vec<u8>, CollectError> {
        let path = self.directory.join(name);
        let mut bytes = Vec::new();
        fs::File::open(&path)
            .and_then(|file| file.take(limit as u64 + 1).read_to_end(&mut bytes))
            .map_err(|source| file_error("read", &path, source))?;
        if bytes.len() > limit {
            return Err(CollectError::TooLarge { limit });
        }
        Ok(bytes)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), CollectError> {
        let path = self.directory.join(name);
        fs::write(&path, bytes).map_err(|source| file_error("write", &path, source))
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        // Nothing to do about a failure: the directory holds no secret and goes with the guest.
        let _ = fs::remove_dir(&self.directory);
    }
}

fn file_error(action: &'static str, path: &Path, source: io::Error) -> CollectError {
    CollectError::File { action, path: path.display().to_string(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_without_a_tee_is_named_so() {
        let error = ConfigfsTsm::open_at(Path::new("/nonexistent/tsm/report")).unwrap_err();
        assert!(matches!(error, CollectError::NoTee(_)), "{error}");
    }
}
