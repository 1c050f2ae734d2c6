//! A platform's files: made once, as a whole, readable by their owner only.
//!
//! They are written to a directory of their own, which then takes its final name in one step: there is a whole
//! platform or none, however many start one at a time.

use std::{
    fs, io,
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rcgen::KeyPair;
use ring::rand::{SecureRandom, SystemRandom};

use crate::{
    platform::{Chain, Platform, PlatformError, Vcek, VcekFacts},
    report::Tcb,
};

const DIRECTORY: &str = "platform-1";
const ROOT_PEM: &str = "root.pem";
const ARK: &str = "ark.der";
const ASK: &str = "ask.der";
const ASK_KEY: &str = "ask.key";
const VCEK: &str = "vcek.der";
const VCEK_KEY: &str = "vcek.key";
/// No file here is near this large.
const MAX_FILE: u64 = 64 * 1024;

/// The platform in `dir`, if there is one.
pub(crate) fn open(dir: &Path) -> Result<Option<Platform>, PlatformError> {
    let dir = dir.join(DIRECTORY);
    let ark = match read(&dir, ARK) {
        Err(PlatformError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let damaged = || PlatformError::Damaged(dir.clone());
    let chain = Chain {
        root_pem: String::from_utf8(read(&dir, ROOT_PEM)?).map_err(|_| damaged())?,
        ark,
        ask: read(&dir, ASK)?,
        ask_key: KeyPair::try_from(read(&dir, ASK_KEY)?.as_slice()).map_err(|_| damaged())?,
    };
    let facts = VcekFacts { tcb: Tcb::CURRENT, chip_id: chain.chip_id(), years: (2020, 2050) };
    let vcek = Vcek::from_parts(read(&dir, VCEK)?, read(&dir, VCEK_KEY)?, facts).map_err(|_| damaged())?;
    Ok(Some(Platform::from_parts(chain, vcek, dir.join(ROOT_PEM))))
}

/// Saves a platform, unless another was saved in the meantime.
pub(crate) fn save(dir: &Path, platform: &Platform) -> Result<(), PlatformError> {
    let private = |path: &Path, recursive| {
        fs::DirBuilder::new()
            .recursive(recursive)
            .mode(0o700)
            .create(path)
            .map_err(|source| error("create", path, source))
    };
    let mut unique = [0; 8];
    SystemRandom::new().fill(&mut unique).map_err(|_| PlatformError::Crypto)?;
    let draft = Draft(dir.join(format!(".{DIRECTORY}-{}", hex::encode(unique))));
    private(dir, true)?;
    private(&draft.0, false)?;

    let Chain { root_pem, ark, ask, ask_key } = &*platform.chain;
    for (name, content) in [
        (ROOT_PEM, root_pem.as_bytes()),
        (ARK, ark),
        (ASK, ask),
        (ASK_KEY, ask_key.serialized_der()),
        (VCEK, &platform.vcek.certificate),
        (VCEK_KEY, &platform.vcek.pkcs8),
    ] {
        write(&draft.0.join(name), content)?;
    }
    let place = dir.join(DIRECTORY);
    match fs::rename(&draft.0, &place) {
        Ok(()) => Ok(()),
        // Somebody else was first; theirs is as good.
        Err(_) if place.join(ARK).exists() => Ok(()),
        Err(source) => Err(error("create", &place, source)),
    }
}

/// A directory that goes away unless it was renamed.
struct Draft(PathBuf);

impl Drop for Draft {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn write(path: &Path, content: &[u8]) -> Result<(), PlatformError> {
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(content).and_then(|()| file.sync_all()))
        .map_err(|source| error("write", path, source))
}

fn read(dir: &Path, name: &str) -> Result<Vec<u8>, PlatformError> {
    let path = dir.join(name);
    let mut content = Vec::new();
    fs::File::open(&path)
        .and_then(|file| io::Read::read_to_end(&mut io::Read::take(file, MAX_FILE), &mut content))
        .map_err(|source| error("read", &path, source))?;
    Ok(content)
}

fn error(action: &'static str, path: &Path, source: io::Error) -> PlatformError {
    PlatformError::Io { action, path: path.to_path_buf(), source }
}
