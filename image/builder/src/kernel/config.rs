//! A resolved configuration: what kconfig made of the options that were asked for, and whether it is what was asked
//! for and what was committed.

use std::collections::BTreeMap;

use super::profile::{Composition, Value};

/// First words of facts about the compiler and its tools, which are recorded but not compared: another release of
/// the distribution has another compiler and the same kernel options.
const TOOLCHAIN: &[&str] = &["CC_", "GCC", "CLANG_", "AS_", "LD_", "LLD_", "RUSTC_", "PAHOLE_", "TOOLS_"];

/// A resolved configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Configuration {
    /// Name without `CONFIG_`, and value as kconfig writes it. What is not set is not here.
    options: BTreeMap<String, String>,
}

/// An option that is not what was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unmet {
    pub option: String,
    pub wanted: Value,
    /// As kconfig writes it.
    pub found: String,
    /// The profile that asks.
    pub profile: String,
}

impl Configuration {
    /// Reads a `.config`, or what [`Self::render`] wrote.
    pub fn parse(text: &str) -> Self {
        let option = |line: &str| {
            let (name, value) = line.strip_prefix("CONFIG_")?.split_once('=')?;
            Some((name.to_owned(), value.trim_end().to_owned()))
        };
        Self { options: text.lines().filter_map(option).collect() }
    }

    /// One option a line, sorted, under a comment of one line.
    pub fn render(&self, comment: &str) -> String {
        let mut text = format!("# {comment}\n");
        for (name, value) in &self.options {
            text.push_str(&format!("CONFIG_{name}={value}\n"));
        }
        text
    }

    /// The value of an option; `n` when it is not set.
    pub fn value(&self, option: &str) -> &str {
        self.options.get(option).map_or("n", String::as_str)
    }

    /// Whether an option is built in.
    pub fn has(&self, option: &str) -> bool {
        self.value(option) == "y"
    }

    /// How many options are built in.
    pub fn count(&self) -> usize {
        self.options.values().filter(|value| *value == "y").count()
    }

    /// How many options are built in that `floor` has not.
    pub fn count_above(&self, floor: &Self) -> usize {
        self.options.iter().filter(|(name, value)| *value == "y" && !floor.has(name)).count()
    }

    /// What was asked for and is not there, or is there and was to be absent.
    pub fn unmet(&self, composition: &Composition) -> Vec<Unmet> {
        let unmet = composition.options.iter().filter(|(name, wanted)| {
            let found = self.value(name);
            found != wanted.value.to_string()
        });
        unmet
            .map(|(name, wanted)| Unmet {
                option: name.clone(),
                wanted: wanted.value.clone(),
                found: self.value(name).to_owned(),
                profile: wanted.profile.clone(),
            })
            .collect()
    }

    /// What `self` has otherwise than `committed`, an option a line; facts about the compiler aside.
    pub fn drift(&self, committed: &Self) -> Vec<String> {
        let names: std::collections::BTreeSet<_> =
            self.options.keys().chain(committed.options.keys()).collect();
        names
            .into_iter()
            .filter(|name| !TOOLCHAIN.iter().any(|first| name.starts_with(first)))
            .filter(|name| self.value(name) != committed.value(name))
            .map(|name| format!("{name}: {} was committed, now {}", committed.value(name), self.value(name)))
            .collect()
    }
}

#[cfg(test)]
mod tests;
