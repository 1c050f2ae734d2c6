//! What was found out about an image: options, each with what needs it and which program asked for it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::rules::{FileKind, Need, Rule, Rules, Word};

/// Reasons that are kept for one option; more say nothing new.
const MAX_REASONS: usize = 12;
/// What an image chose to call something is cut after this many characters.
const MAX_TEXT: usize = 120;

/// One reason why an option is needed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Reason {
    /// A call with its telling argument, a file or an import.
    pub what: String,
    /// The program.
    pub who: String,
}

/// All that was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Findings {
    pub options: BTreeMap<String, Needed>,
    /// Calls that the filter of containers refuses, with the option that would answer them.
    pub refused: BTreeMap<String, Needed>,
    /// Calls that no rule knows.
    pub unknown: BTreeSet<Reason>,
}

/// One option that is needed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Needed {
    pub need: Need,
    pub by: BTreeSet<Reason>,
}

impl Findings {
    /// Notes a call with the words among its arguments.
    pub fn call(&mut self, rules: &Rules, call: &str, words: &[Word], who: &str) {
        if !rules.knows(call) {
            self.unknown.insert(reason(call, who));
            return;
        }
        for (rule, word) in rules.of_call(call, words) {
            let what = match word {
                None => call.to_owned(),
                Some(Word::Constant(word)) => format!("{call}({word})"),
                Some(Word::Text(text)) => format!("{call}({text:?})"),
            };
            self.add(rule, &what, who);
        }
    }

    pub fn path(&mut self, rules: &Rules, path: &str, who: &str) {
        for rule in rules.of_path(path) {
            self.add(rule, &without_numbers(path), who);
        }
    }

    pub fn import(&mut self, rules: &Rules, name: &str, who: &str) {
        for rule in rules.of_import(name) {
            self.add(rule, &format!("imports {name}"), who);
        }
    }

    pub fn file(&mut self, rules: &Rules, kind: FileKind, path: &str, who: &str) {
        for rule in rules.of_file(kind) {
            self.add(rule, &format!("runs {path}"), who);
        }
    }

    pub fn merge(&mut self, other: Self) {
        for (mine, theirs) in [(&mut self.options, other.options), (&mut self.refused, other.refused)] {
            for (option, found) in theirs {
                let known = mine.entry(option).or_insert_with(|| Needed::new(found.need));
                known.need = known.need.max(found.need);
                for reason in found.by {
                    known.note(reason);
                }
            }
        }
        self.unknown.extend(other.unknown);
    }

    fn add(&mut self, rule: &Rule, what: &str, who: &str) {
        let map = if rule.refused_in_pods() { &mut self.refused } else { &mut self.options };
        map.entry(rule.option.clone()).or_insert_with(|| Needed::new(rule.need)).note(reason(what, who));
    }
}

impl Needed {
    fn new(need: Need) -> Self {
        Self { need, by: BTreeSet::new() }
    }

    fn note(&mut self, reason: Reason) {
        if self.by.len() < MAX_REASONS {
            self.by.insert(reason);
        }
    }
}

fn reason(what: &str, who: &str) -> Reason {
    Reason { what: printable(what), who: printable(who) }
}

/// Fit for one line of a terminal, whatever the image chose.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .take(MAX_TEXT)
        .flat_map(|c| if c == '"' { vec![c] } else { c.escape_debug().collect() })
        .collect()
}

/// `/proc/17/stat` of one run is `/proc/18/stat` of the next.
fn without_numbers(path: &str) -> String {
    let part = |part: &str| match !part.is_empty() && part.bytes().all(|c| c.is_ascii_digit()) {
        true => "N".to_owned(),
        false => part.to_owned(),
    };
    path.split('/').map(part).collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_dropped_in_silence() {
        let rules = Rules::built_in().unwrap();
        let mut findings = Findings::default();
        findings.call(&rules, "frobnicate", &[], "app");
        findings.call(&rules, "io_uring_setup", &[], "app");
        findings.call(&rules, "read", &[], "app");
        findings.call(&rules, "fcntl", &[Word::Constant("F_SETLK".into())], "app");
        assert_eq!(findings.unknown, BTreeSet::from([reason("frobnicate", "app")]));
        assert_eq!(findings.refused.keys().collect::<Vec<_>>(), ["IO_URING"]);
        assert_eq!(findings.options["FILE_LOCKING"].by, BTreeSet::from([reason("fcntl(F_SETLK)", "app")]));
        assert_eq!(findings.options.len(), 1);
    }

    #[test]
    fn merging_keeps_the_stronger_need() {
        let one = |need| {
            let options = BTreeMap::from([("AIO".to_owned(), Needed { need, by: BTreeSet::new() })]);
            Findings { options, ..Findings::default() }
        };
        let mut merged = one(Need::Optional);
        merged.merge(one(Need::Required));
        merged.merge(one(Need::Optional));
        assert_eq!(merged.options["AIO"].need, Need::Required);
    }

    #[test]
    fn what_an_image_chose_stays_on_one_line() {
        assert_eq!(printable("a\nb\x1b[31m"), "a\\nb\\u{1b}[31m");
        assert_eq!(printable(&"x".repeat(500)).len(), MAX_TEXT);
        assert_eq!(without_numbers("/proc/17/task/18/stat"), "/proc/N/task/N/stat");
    }
}
