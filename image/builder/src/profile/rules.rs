//! The table `image/kernel/rules.toml`: which kernel option a system call, a file or an import needs, and why.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// The table that is built in; its first lines explain the syntax.
const TABLE: &str = include_str!("../../../kernel/rules.toml");

/// A table that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    #[error("the table of rules is not valid")]
    Syntax(#[from] toml::de::Error),
    #[error("{option}: {pattern:?} is no pattern: write call, or call(WORD|\"string\")")]
    Pattern { option: String, pattern: String },
    #[error("{option}: the option is listed twice")]
    Twice { option: String },
    #[error("{option}: {what} is empty")]
    Empty { option: String, what: &'static str },
}

/// How much a program depends on an option.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Need {
    /// Every known caller, or the C library, does without.
    Optional,
    #[default]
    Required,
}

/// What the filter of containers makes of the calls of a rule.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Pods {
    #[default]
    Allow,
    Refuse,
}

/// One option and what needs it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Without `CONFIG_`.
    #[serde(rename = "name")]
    pub option: String,
    pub reason: String,
    /// What happens on a kernel that lacks it.
    pub without: String,
    #[serde(default)]
    pub need: Need,
    #[serde(default)]
    pods: Pods,
    #[serde(default)]
    calls: Vec<String>,
    #[serde(default)]
    imports: Vec<String>,
    #[serde(default)]
    paths: Vec<String>,
    #[serde(default)]
    files: Vec<FileKind>,
    /// Options without which this one serves nobody.
    #[serde(default)]
    pub(super) with: Vec<String>,
}

impl Rule {
    /// Whether the filter of containers refuses the calls, so that the option would help nobody.
    pub fn refused_in_pods(&self) -> bool {
        self.pods == Pods::Refuse
    }
}

/// A property of a program that is executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FileKind {
    /// Begins with `#!`.
    Script,
    /// A program for 32 bits.
    Elf32,
}

impl FileKind {
    /// What kind of program begins with these bytes, if it is one that needs an option.
    pub fn of(head: &[u8]) -> Option<Self> {
        match head {
            [b'#', b'!', ..] => Some(Self::Script),
            [0x7f, b'E', b'L', b'F', 1, ..] => Some(Self::Elf32),
            _ => None,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    plain: String,
    option: Vec<Rule>,
}

/// The rules, ready for look-ups.
#[derive(Debug)]
pub struct Rules {
    rules: Vec<Rule>,
    plain: BTreeSet<String>,
    /// By name of the call.
    calls: BTreeMap<String, Vec<CallPattern>>,
    imports: BTreeMap<String, Vec<usize>>,
}

#[derive(Debug)]
struct CallPattern {
    rule: usize,
    /// None: any call of this name.
    words: Option<BTreeSet<Word>>,
}

/// A word among the arguments of a call.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Word {
    Constant(String),
    Text(String),
}

impl Rules {
    /// The rules that are built in.
    pub fn built_in() -> Result<Self, RulesError> {
        Self::parse(TABLE)
    }

    pub fn parse(table: &str) -> Result<Self, RulesError> {
        let table: Table = toml::from_str(table)?;
        let mut rules = Self {
            plain: table.plain.split_whitespace().map(str::to_owned).collect(),
            rules: table.option,
            calls: BTreeMap::new(),
            imports: BTreeMap::new(),
        };
        let mut seen = BTreeSet::new();
        for (index, rule) in rules.rules.iter().enumerate() {
            let option = || rule.option.clone();
            if !seen.insert(&rule.option) {
                return Err(RulesError::Twice { option: option() });
            }
            for (what, text) in [("name", &rule.option), ("reason", &rule.reason), ("without", &rule.without)]
            {
                if text.trim().is_empty() {
                    return Err(RulesError::Empty { option: option(), what });
                }
            }
            if rule.calls.is_empty()
                && rule.imports.is_empty()
                && rule.paths.is_empty()
                && rule.files.is_empty()
            {
                return Err(RulesError::Empty { option: option(), what: "what needs it" });
            }
            for pattern in &rule.calls {
                let (call, words) = parse_pattern(pattern)
                    .ok_or_else(|| RulesError::Pattern { option: option(), pattern: pattern.clone() })?;
                if words.is_none() {
                    rules.imports.entry(call.clone()).or_default().push(index);
                }
                rules.calls.entry(call).or_default().push(CallPattern { rule: index, words });
            }
            for import in &rule.imports {
                rules.imports.entry(import.clone()).or_default().push(index);
            }
        }
        Ok(rules)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Rule> {
        self.rules.iter()
    }

    pub fn rule(&self, option: &str) -> Option<&Rule> {
        self.rules.iter().find(|rule| rule.option == option)
    }

    /// Whether there is anything to say of this call at all.
    pub fn knows(&self, call: &str) -> bool {
        self.plain.contains(call) || self.calls.contains_key(call)
    }

    /// Whether no rule looks at this call, neither at its name nor at its arguments.
    pub fn is_plain(&self, call: &str) -> bool {
        self.plain.contains(call) && !self.calls.contains_key(call)
    }

    /// The rules that a call meets, each with the word that it was met by.
    pub fn of_call<'a>(
        &'a self,
        call: &str,
        words: &'a [Word],
    ) -> impl Iterator<Item = (&'a Rule, Option<&'a Word>)> {
        let patterns = self.calls.get(call).map(Vec::as_slice).unwrap_or_default();
        patterns.iter().filter_map(move |pattern| {
            let rule = &self.rules[pattern.rule];
            match &pattern.words {
                None => Some((rule, None)),
                Some(wanted) => {
                    words.iter().find(|word| wanted.contains(word)).map(|word| (rule, Some(word)))
                }
            }
        })
    }

    /// The calls that the filter of containers refuses whatever their arguments.
    pub fn refused_calls(&self) -> impl Iterator<Item = &str> {
        let refused =
            |pattern: &CallPattern| pattern.words.is_none() && self.rules[pattern.rule].refused_in_pods();
        self.calls
            .iter()
            .filter(move |(_, patterns)| patterns.iter().any(refused))
            .map(|(call, _)| call.as_str())
    }

    /// The rules that opening `path` meets.
    pub fn of_path<'a>(&'a self, path: &'a str) -> impl Iterator<Item = &'a Rule> {
        self.rules.iter().filter(move |rule| rule.paths.iter().any(|pattern| matches_path(pattern, path)))
    }

    pub fn of_file(&self, kind: FileKind) -> impl Iterator<Item = &Rule> {
        self.rules.iter().filter(move |rule| rule.files.contains(&kind))
    }

    /// The rules that importing a function of the C library meets.
    pub fn of_import(&self, name: &str) -> impl Iterator<Item = &Rule> {
        self.imports.get(name).into_iter().flatten().map(|index| &self.rules[*index])
    }
}

/// `call` or `call(WORD|"text")`.
fn parse_pattern(pattern: &str) -> Option<(String, Option<BTreeSet<Word>>)> {
    let is_name = |name: &str| {
        !name.is_empty() && name.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_')
    };
    let Some((call, rest)) = pattern.split_once('(') else {
        return is_name(pattern).then(|| (pattern.to_owned(), None));
    };
    let word = |text: &str| match text.strip_prefix('"').and_then(|text| text.strip_suffix('"')) {
        Some("") => None,
        Some(text) => Some(Word::Text(text.to_owned())),
        None => is_constant(text).then(|| Word::Constant(text.to_owned())),
    };
    let words: Option<BTreeSet<_>> = rest.strip_suffix(')')?.split('|').map(word).collect();
    is_name(call).then_some((call.to_owned(), Some(words?)))
}

/// A constant of C's headers: `AF_INET6`.
pub(crate) fn is_constant(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_uppercase())
        && text.len() > 2
        && text.bytes().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == b'_')
}

/// `*` in a pattern is one part; a `/` at its end is everything below.
fn matches_path(pattern: &str, path: &str) -> bool {
    let mut parts = path.split('/');
    let mut wanted = pattern.split('/').peekable();
    while let Some(want) = wanted.next() {
        let Some(part) = parts.next() else { return false };
        if want.is_empty() && wanted.peek().is_none() && pattern.len() > 1 {
            return !part.is_empty();
        }
        if part != want && (want != "*" || part.is_empty()) {
            return false;
        }
    }
    parts.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options<'a>(rules: impl Iterator<Item = &'a Rule>) -> Vec<&'a str> {
        rules.map(|rule| rule.option.as_str()).collect()
    }

    #[test]
    fn calls_lead_to_options() {
        let rules = Rules::built_in().unwrap();
        let of = |call: &str, words: &[Word]| {
            rules.of_call(call, words).map(|(rule, _)| rule.option.clone()).collect::<Vec<_>>()
        };
        let constant = |word: &str| Word::Constant(word.to_owned());
        assert_eq!(of("epoll_create1", &[]), ["EPOLL"]);
        assert_eq!(of("fcntl", &[constant("F_SETLK"), constant("F_WRLCK")]), ["FILE_LOCKING"]);
        assert_eq!(of("fcntl", &[constant("F_GETFL")]), [""; 0]);
        assert_eq!(of("socket", &[constant("AF_INET6")]), ["IPV6"]);
        assert_eq!(of("mount", &[Word::Text("mqueue".into())]), ["POSIX_MQUEUE"]);
        assert_eq!(of("mount", &[constant("mqueue")]), [""; 0], "a constant is no string");
        assert!(rules.is_plain("read") && !rules.is_plain("fcntl") && rules.knows("fcntl"));
        assert!(!rules.knows("frobnicate"), "an unknown call is told as such");
    }

    #[test]
    fn paths_imports_and_files_lead_to_options() {
        let rules = Rules::built_in().unwrap();
        assert_eq!(options(rules.of_path("/proc/sys/vm/overcommit_memory")), ["PROC_FS", "PROC_SYSCTL"]);
        assert_eq!(options(rules.of_path("/proc/self/smaps")), ["PROC_FS", "PROC_PAGE_MONITOR"]);
        assert_eq!(options(rules.of_path("/procession")), [""; 0]);
        assert_eq!(options(rules.of_path("/proc/")), [""; 0], "the mount point itself is in the image");
        assert_eq!(options(rules.of_import("shmget")), ["SYSVIPC"]);
        assert_eq!(options(rules.of_import("lockf")), ["FILE_LOCKING"]);
        assert_eq!(options(rules.of_import("socket")), [""; 0], "which family is not known");
        assert_eq!(options(rules.of_file(FileKind::of(b"#!/bin/sh").unwrap())), ["BINFMT_SCRIPT"]);
        assert_eq!(FileKind::of(b"\x7fELF\x02"), None);
        assert_eq!(FileKind::of(b""), None);
    }

    #[test]
    fn every_rule_is_written_out() {
        let rules = Rules::built_in().unwrap();
        for rule in rules.iter() {
            assert!(!rule.option.starts_with("CONFIG_"), "{}", rule.option);
            assert!(rule.reason.len() > 5 && rule.without.len() > 5, "{} has no reason", rule.option);
            for path in &rule.paths {
                assert!(path.starts_with('/'), "{}: {path}", rule.option);
            }
        }
        for call in &rules.plain {
            let unconditional =
                rules.calls.get(call).is_some_and(|patterns| patterns.iter().any(|p| p.words.is_none()));
            assert!(!unconditional, "{call} is in both lists");
        }
        for call in rules.calls.keys().filter(|call| rules.calls[*call].iter().all(|p| p.words.is_some())) {
            assert!(rules.plain.contains(call), "{call} without the words of a rule is in neither list");
        }
    }

    #[test]
    fn a_wrong_table_is_refused_by_name() {
        let table = |rule: &str| format!("plain = \"read\"\n[[option]]\n{rule}");
        let parse = |rule: &str| Rules::parse(&table(rule)).unwrap_err().to_string();
        let known = "name = \"X\"\nreason = \"r\"\nwithout = \"w\"\n";
        assert!(parse(&format!("{known}calls = [\"a(b)\"]")).contains("\"a(b)\" is no pattern"));
        assert!(parse(&format!("{known}calls = [\"A\"]")).contains("is no pattern"));
        assert!(parse(known).contains("what needs it is empty"));
        assert!(
            parse("name = \"X\"\nreason = \"\"\nwithout = \"w\"\ncalls = [\"a\"]")
                .contains("reason is empty")
        );
        assert!(parse(&format!("{known}because = \"\"")).contains("not valid"));
    }
}
