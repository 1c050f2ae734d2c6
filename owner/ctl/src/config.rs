//! `config.toml`: the owner's defaults. Read once; every key is known, and a mistake is named with its line.

use std::path::{Path, PathBuf};

use postern_evidence::snp::TcbVersion;
use postern_launch::{Cpus, Machine};
use serde::Deserialize;

use crate::{
    failure::Failure,
    home::{self, Home},
    human,
};

/// What the owner may set. Everything has a default.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Directory of `image.json`: what pods boot.
    pub(crate) image_dir: Option<PathBuf>,
    /// The `postern-host` program.
    pub(crate) postern_host: Option<PathBuf>,
    #[serde(default)]
    pub(crate) pod: PodDefaults,
    /// The lowest firmware versions a platform may report.
    #[serde(default, deserialize_with = "tcb")]
    pub(crate) minimum_tcb: TcbVersion,
}

/// Defaults of `pod create`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PodDefaults {
    #[serde(default, deserialize_with = "memory")]
    pub(crate) memory: Option<u64>,
    pub(crate) cpus: Option<Cpus>,
    pub(crate) machine: Option<Machine>,
}

fn memory<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let text = String::deserialize(deserializer)?;
    human::parse_memory(&text).map(Some).map_err(serde::de::Error::custom)
}

fn tcb<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<TcbVersion, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
}

impl Config {
    pub(crate) fn load(home: &Home) -> Result<Self, Failure> {
        let path = home.config_file();
        match home::read_text(&path)? {
            None => Ok(Self::default()),
            Some(text) => parse_toml(&path, &text),
        }
    }
}

/// Reads TOML; an error says file, line, column and what is wrong there.
pub(crate) fn parse_toml<T: serde::de::DeserializeOwned>(path: &Path, text: &str) -> Result<T, Failure> {
    toml::from_str(text).map_err(|error| {
        let place = match error.span() {
            Some(span) => {
                let before = text.get(..span.start).unwrap_or(text);
                let line = before.matches('\n').count() + 1;
                let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
                format!("{}:{line}:{column}", path.display())
            }
            None => path.display().to_string(),
        };
        Failure::general(place).caused_by(error.message().to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        parse_toml(Path::new("config.toml"), text).map_err(|failure| failure.to_string())
    }

    #[test]
    fn reads_what_it_knows() {
        let config =
            parse("image_dir = \"/i\"\n[pod]\nmemory = \"256M\"\ncpus = 2\nmachine = \"microvm\"\n").unwrap();
        assert_eq!(config.pod.memory, Some(256 << 20));
        assert_eq!(config.pod.machine, Some(Machine::Microvm));
        assert_eq!(parse(""), Ok(Config::default()));
    }

    #[test]
    fn a_mistake_is_named_with_its_line() {
        for (text, place, what) in [
            ("\nimage_dri = \"/i\"\n", "config.toml:2:1", "image_dri"),
            ("[pod]\nmemory = \"lots\"\n", "config.toml:2:10", "unknown unit"),
            ("[pod]\ncpus = 0\n", "config.toml:2:8", "CPUs"),
            ("minimum_tcb = \"snp=8\"\n", "config.toml:1:15", "TCB version"),
            ("a = \n", "config.toml:1:", ""),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.starts_with(place) && error.contains(what), "{error}");
        }
    }
}
