//! What the owner knows about a pod: where to reach it, what it must prove, which instance it is. One directory per pod
//! below `$XDG_STATE_HOME/postern/pods`, with `pod.json` and the init data the owner made.

use std::{fs, io, os::unix::fs::DirBuilderExt as _, path::PathBuf};

use postern_launch::PodShape;
use postern_model::{HostData, Measurement, PodName};
use serde::{Deserialize, Serialize};

use crate::{
    exit::Exit,
    failure::{Failure, OrFail},
    home::{self, Existing, Home},
    host::Stage,
};

const FORMAT: u32 = 1;

/// A pod's name, with its record or what is wrong with it.
pub(crate) type Known = (PodName, Result<PodRecord, Failure>);

/// `pod.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PodRecord {
    format: u32,
    pub(crate) name: PodName,
    /// Where the tunnel begins; an address only, never a reason to trust.
    pub(crate) endpoint: String,
    pub(crate) origin: Origin,
    /// Whether the owner has accepted a simulated platform for this pod.
    pub(crate) accepts_simulated: bool,
    /// What the launch must measure; empty: any reference value of the trust store.
    #[serde(with = "hex_list")]
    pub(crate) measurements: Vec<Measurement>,
    pub(crate) shape: Option<PodShape>,
    #[serde(with = "hex_host_data")]
    pub(crate) host_data: HostData,
    /// SHA-256 of the guest's key at the first verified contact, hexadecimal.
    pub(crate) instance: Option<String>,
    /// Handover is done. Sticky, as it is in the guest.
    pub(crate) owned: bool,
    pub(crate) created_unix_millis: u64,
    /// How long each stage of `pod create` took.
    #[serde(default)]
    pub(crate) timeline: Vec<Stage>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Origin {
    /// Started by `pod create` through postern-host on this machine.
    Created,
    /// Started by somebody else.
    Added,
}

impl PodRecord {
    pub(crate) fn new(name: PodName, endpoint: String, origin: Origin, host_data: HostData) -> Self {
        Self {
            format: FORMAT,
            name,
            endpoint,
            origin,
            accepts_simulated: false,
            measurements: Vec::new(),
            shape: None,
            host_data,
            instance: None,
            owned: false,
            created_unix_millis: crate::human::now_millis(),
            timeline: Vec::new(),
        }
    }

    /// The record of `name`; a pod nobody knows is an error that says what to do.
    pub(crate) fn load(home: &Home, name: &PodName) -> Result<Self, Failure> {
        let path = Self::dir(home, name).join("pod.json");
        let Some(text) = home::read_text(&path)? else {
            if Self::dir(home, name).is_dir() {
                return Err(Failure::new(Exit::NotFound, format!("pod {name} is half made"))
                    .caused_by("it is being created, or its creation was killed")
                    .hint(format!("`postern pod rm {name}` takes away what is left of it")));
            }
            return Err(Failure::new(Exit::NotFound, format!("no pod {name}"))
                .hint("`postern pod ls` lists pods; `postern pod create NAME` makes one"));
        };
        let record: Self = serde_json::from_str(&text)
            .or_fail(|| format!("{} is not a pod's record", path.display()))
            .map_err(|failure| failure.hint(format!("`postern pod rm {name}` removes it")))?;
        match record.format == FORMAT && record.name == *name {
            true => Ok(record),
            false => {
                Err(Failure::general(format!("{} is the record of another pod or format", path.display())))
            }
        }
    }

    /// Every pod, by name.
    pub(crate) fn all(home: &Home) -> Result<Vec<Known>, Failure> {
        let entries = match fs::read_dir(home.pods()) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => {
                return Err(
                    Failure::general(format!("cannot read {}", home.pods().display())).caused_by(error)
                );
            }
        };
        let mut names: Vec<PodName> =
            entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()?.parse().ok()).collect();
        names.sort();
        Ok(names.into_iter().map(|name| (name.clone(), Self::load(home, &name))).collect())
    }

    /// Takes the name: fails when it is taken. The directory stays when the record is never saved; undo with [`remove`].
    pub(crate) fn reserve(home: &Home, name: &PodName) -> Result<PathBuf, Failure> {
        home::make_private_dir(&home.pods())?;
        let dir = Self::dir(home, name);
        match fs::DirBuilder::new().mode(0o700).create(&dir) {
            Ok(()) => Ok(dir),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Err(Failure::general(format!("pod {name} exists already"))
                    .hint(format!("choose another name, or remove it with `postern pod rm {name}`")))
            }
            Err(error) => Err(Failure::general(format!("cannot make {}", dir.display())).caused_by(error)),
        }
    }

    pub(crate) fn save(&self, home: &Home) -> Result<(), Failure> {
        let content = serde_json::to_vec_pretty(self).or_fail(|| "cannot write JSON".into())?;
        home::write_private(&Self::dir(home, &self.name).join("pod.json"), &content, Existing::Replace)
    }

    pub(crate) fn dir(home: &Home, name: &PodName) -> PathBuf {
        home.pods().join(name.as_str())
    }
}

/// Forgets a pod. Fine when there is nothing.
pub(crate) fn remove(home: &Home, name: &PodName) -> Result<(), Failure> {
    let dir = PodRecord::dir(home, name);
    match fs::remove_dir_all(&dir) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Failure::general(format!("cannot remove {}", dir.display())).caused_by(error)),
    }
}

mod hex_list {
    use postern_model::Measurement;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(list: &[Measurement], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(list.iter().map(Measurement::to_hex))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<Measurement>, D::Error> {
        let list = Vec::<String>::deserialize(deserializer)?;
        list.iter().map(|hex| Measurement::from_hex(hex).map_err(D::Error::custom)).collect()
    }
}

mod hex_host_data {
    use postern_model::HostData;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(value: &HostData, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&value.to_hex())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<HostData, D::Error> {
        HostData::from_hex(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_survives_and_a_name_is_taken_once() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::below(dir.path());
        let name: PodName = "demo".parse().unwrap();
        PodRecord::reserve(&home, &name).unwrap();
        assert!(PodRecord::reserve(&home, &name).is_err());
        let half = PodRecord::load(&home, &name).unwrap_err();
        assert!(half.to_string().starts_with("pod demo is half made"), "{half}");
        let mut record =
            PodRecord::new(name.clone(), "tcp://127.0.0.1:1".into(), Origin::Added, HostData::new([7; 32]));
        record.measurements.push(Measurement::new([9; 48]));
        record.save(&home).unwrap();
        assert_eq!(PodRecord::load(&home, &name).unwrap(), record);
        assert_eq!(PodRecord::all(&home).unwrap().len(), 1);
        remove(&home, &name).unwrap();
        assert_eq!(PodRecord::load(&home, &name).unwrap_err().exit(), Exit::NotFound);
        remove(&home, &name).unwrap();
    }

    #[test]
    fn a_broken_record_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::below(dir.path());
        let name: PodName = "demo".parse().unwrap();
        let path = PodRecord::reserve(&home, &name).unwrap().join("pod.json");
        fs::write(&path, "{").unwrap();
        let failure = PodRecord::load(&home, &name).unwrap_err().to_string();
        assert!(failure.contains("pod.json"), "{failure}");
    }
}
