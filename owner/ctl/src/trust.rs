//! The owner's trust store: simulated roots that were accepted by name, and measurements that pods may have. AMD's roots
//! are built in and not listed here. One TOML file per entry below `$XDG_CONFIG_HOME/postern/trust`.

use std::{fs, io, path::PathBuf};

use postern_evidence::roots::{TrustedRoot, TrustedRoots};
use postern_launch::Mitigations;
use postern_model::Measurement;
use serde::{Deserialize, Serialize};

use crate::{
    config::parse_toml,
    exit::Exit,
    failure::{Failure, OrFail},
    home::{self, Existing, Home},
};

/// What an entry makes the owner believe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Entry {
    /// The root of a simulated platform, PEM. Protects nothing.
    SimulatedRoot { pem: String },
    /// A reference value: SHA-384 of a launch, hexadecimal.
    Measurement {
        measurement: String,
        /// Of the launch it was computed for; not known of a value that was given as digits.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mitigations: Option<Mitigations>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) name: String,
    pub(crate) entry: Entry,
}

/// Everything in the store.
#[derive(Debug, Clone, Default)]
pub(crate) struct TrustStore {
    pub(crate) entries: Vec<Named>,
}

impl TrustStore {
    /// Reads the whole store. One broken entry is an error: skipping it would quietly change what is trusted.
    pub(crate) fn load(home: &Home) -> Result<Self, Failure> {
        let dir = home.trust();
        let files = match fs::read_dir(&dir) {
            Ok(files) => files,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => {
                return Err(Failure::general(format!("cannot read {}", dir.display())).caused_by(error));
            }
        };
        let mut names: Vec<String> = files
            .filter_map(|file| {
                file.ok()?.file_name().into_string().ok()?.strip_suffix(".toml").map(str::to_owned)
            })
            .filter(|name| !name.starts_with('.'))
            .collect();
        names.sort();
        let read = |name: String| {
            let path = path(home, &name);
            let text = home::read_text(&path)?.unwrap_or_default();
            let entry: Entry = parse_toml(&path, &text)?;
            entry.check(&name)?;
            Ok(Named { name, entry })
        };
        Ok(Self { entries: names.into_iter().map(read).collect::<Result<_, Failure>>()? })
    }

    /// AMD's roots, and with `simulated` the accepted simulated ones.
    pub(crate) fn roots(&self, simulated: Simulated) -> Result<TrustedRoots, Failure> {
        let mut roots = TrustedRoots::amd();
        if simulated == Simulated::Accepted {
            for Named { name, entry } in &self.entries {
                if let Entry::SimulatedRoot { pem } = entry {
                    roots = roots.with(simulated_root(name, pem)?);
                }
            }
        }
        Ok(roots)
    }

    pub(crate) fn measurements(&self) -> Vec<Measurement> {
        let measurement = |named: &Named| match &named.entry {
            Entry::Measurement { measurement, .. } => Measurement::from_hex(measurement).ok(),
            Entry::SimulatedRoot { .. } => None,
        };
        self.entries.iter().filter_map(measurement).collect()
    }

    /// What is known of the mitigations of a launch with this measurement.
    pub(crate) fn mitigations(&self, of: &Measurement) -> Option<Mitigations> {
        self.entries.iter().find_map(|named| match &named.entry {
            Entry::Measurement { measurement, mitigations } => {
                (Measurement::from_hex(measurement).ok().as_ref() == Some(of)).then_some(*mitigations)?
            }
            Entry::SimulatedRoot { .. } => None,
        })
    }

    /// Whether this very root is in the store, under whatever name.
    pub(crate) fn has_root(&self, root: &TrustedRoot) -> bool {
        self.entries.iter().any(|named| match &named.entry {
            Entry::SimulatedRoot { pem } => {
                simulated_root(&named.name, pem).is_ok_and(|known| known.fingerprint() == root.fingerprint())
            }
            Entry::Measurement { .. } => false,
        })
    }
}

/// Whether the owner has accepted that a pod runs on a simulated platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Simulated {
    Accepted,
    Refused,
}

impl Simulated {
    pub(crate) fn accepted(yes: bool) -> Self {
        if yes { Self::Accepted } else { Self::Refused }
    }
}

impl Entry {
    fn check(&self, name: &str) -> Result<(), Failure> {
        match self {
            Self::SimulatedRoot { pem } => simulated_root(name, pem).map(drop),
            Self::Measurement { measurement, .. } => Measurement::from_hex(measurement)
                .map(drop)
                .or_fail(|| format!("trust entry {name} holds no measurement")),
        }
    }

    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::SimulatedRoot { .. } => "SIMULATED root",
            Self::Measurement { .. } => "measurement",
        }
    }
}

pub(crate) fn simulated_root(name: &str, pem: &str) -> Result<TrustedRoot, Failure> {
    TrustedRoot::simulated_pem(name, pem.as_bytes())
        .or_fail(|| format!("trust entry {name} is not the root of a simulated platform"))
}

/// A name that says what it is and which.
pub(crate) fn made_up_name(root: &TrustedRoot) -> String {
    format!("simulated-{}", &root.fingerprint().to_hex()[..8])
}

/// Puts an entry into the store. An existing name is refused.
pub(crate) fn add(home: &Home, name: &str, entry: &Entry) -> Result<(), Failure> {
    check_name(name)?;
    entry.check(name)?;
    home::make_private_dir(&home.trust())?;
    if path(home, name).exists() {
        return Err(Failure::general(format!("trust entry {name} exists already"))
            .hint(format!("choose another name, or remove it with `postern trust rm {name}`")));
    }
    let text = toml::to_string(entry).or_fail(|| "cannot write TOML".into())?;
    home::write_private(&path(home, name), text.as_bytes(), Existing::Refuse)
}

/// Takes an entry out of the store.
pub(crate) fn remove(home: &Home, name: &str) -> Result<(), Failure> {
    check_name(name)?;
    match fs::remove_file(path(home, name)) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(Failure::new(Exit::NotFound, format!("no trust entry {name}"))
                .hint("`postern trust ls` lists them"))
        }
        Err(error) => Err(Failure::general(format!("cannot remove trust entry {name}")).caused_by(error)),
    }
}

fn path(home: &Home, name: &str) -> PathBuf {
    home.trust().join(format!("{name}.toml"))
}

/// A name is a file name: lower-case letters, digits and '-'.
fn check_name(name: &str) -> Result<(), Failure> {
    let plain = name.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-');
    match plain && !name.is_empty() && name.len() <= 63 && !name.starts_with('-') {
        true => Ok(()),
        false => Err(Failure::usage(format!(
            "{name:?} is no name for a trust entry; use up to 63 of the characters a-z, 0-9 and '-'"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Home) {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::below(dir.path());
        (dir, home)
    }

    #[test]
    fn entries_are_added_listed_and_removed() {
        let (_dir, home) = store();
        let entry = Entry::Measurement { measurement: "ab".repeat(48), mitigations: None };
        add(&home, "web-image", &entry).unwrap();
        assert!(add(&home, "web-image", &entry).is_err(), "an entry is not replaced by accident");
        let store = TrustStore::load(&home).unwrap();
        assert_eq!(store.measurements(), [Measurement::new([0xab; 48])]);
        remove(&home, "web-image").unwrap();
        assert_eq!(remove(&home, "web-image").unwrap_err().exit(), Exit::NotFound);
    }

    #[test]
    fn what_proves_nothing_is_refused() {
        let (_dir, home) = store();
        for entry in [
            Entry::Measurement { measurement: "ab".into(), mitigations: None },
            Entry::SimulatedRoot { pem: "-----BEGIN CERTIFICATE-----".into() },
        ] {
            assert!(add(&home, "x", &entry).is_err());
        }
        for name in ["", "../x", "a/b", "A", "-a"] {
            assert!(
                add(&home, name, &Entry::Measurement { measurement: "ab".repeat(48), mitigations: None })
                    .is_err(),
                "{name}"
            );
        }
        assert!(TrustStore::load(&home).unwrap().entries.is_empty());
    }

    #[test]
    fn a_broken_entry_stops_everything_by_name() {
        let (_dir, home) = store();
        home::make_private_dir(&home.trust()).unwrap();
        fs::write(home.trust().join("x.toml"), "kind = \"measurement\"\nmeasurment = \"ab\"\n").unwrap();
        let failure = TrustStore::load(&home).unwrap_err().to_string();
        assert!(failure.contains("x.toml"), "{failure}");
    }
}
