//! A kernel profile from findings: what the base lacks, each option with its reason.

use std::fmt::Write as _;

use super::{
    findings::{Findings, Needed},
    kernel_config::KernelOptions,
    rules::{Need, Rules},
};

/// Reasons that a profile's line names; the rest are counted.
const NAMED: usize = 3;

/// Which of the options that were found are worth having.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// What a program does not do without.
    Required,
    /// What it could use as well.
    Everything,
}

/// One option that goes into a profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Added {
    pub option: String,
    pub why: String,
}

/// What of the findings a kernel with `base` lacks, and what those options need beside them.
pub fn added(rules: &Rules, findings: &Findings, base: &KernelOptions, extent: Extent) -> Vec<Added> {
    let mut all = Vec::new();
    for (option, needed) in &findings.options {
        if base.has(option) || (needed.need == Need::Optional && extent == Extent::Required) {
            continue;
        }
        let Some(rule) = rules.rule(option) else { continue };
        all.push(Added { option: option.clone(), why: format!("{}: {}", rule.reason, reasons(needed)) });
        for with in &rule.with {
            all.push(Added { option: with.clone(), why: format!("goes with {option}") });
        }
    }
    all.sort_by(|a, b| a.option.cmp(&b.option));
    all.dedup_by(|a, b| a.option == b.option);
    all
}

/// `fcntl(F_SETLK) of sqlite3, and 2 more`.
pub fn reasons(needed: &Needed) -> String {
    let mut text = String::new();
    for (at, reason) in needed.by.iter().take(NAMED).enumerate() {
        let comma = if at == 0 { "" } else { ", " };
        let _ = write!(text, "{comma}{} of {}", reason.what, reason.who);
    }
    if needed.by.len() > NAMED {
        let _ = write!(text, ", and {} more", needed.by.len() - NAMED);
    }
    text
}

/// The profile as a file.
pub fn profile(summary: &str, include: &str, added: &[Added]) -> String {
    let mut text = format!("summary = {}\ninclude = [{}]\n", quoted(summary), quoted(include));
    if !added.is_empty() {
        text.push_str("\n[options.application]\n");
    }
    for one in added {
        let _ = writeln!(text, "{} = {{ set = true, why = {} }}", one.option, quoted(&one.why));
    }
    text
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{kernel::profile::Profiles, profile::rules::Word};

    #[test]
    fn a_profile_holds_what_the_base_lacks_and_can_be_composed() {
        let rules = Rules::built_in().unwrap();
        let mut findings = Findings::default();
        findings.call(&rules, "epoll_create1", &[], "app");
        findings.call(&rules, "shmget", &[], "app");
        findings.call(&rules, "rseq", &[], "app");
        findings.call(&rules, "fcntl", &[Word::Constant("F_SETLK".into())], "a \"quoted\" app\n");
        let base = KernelOptions::parse("CONFIG_EPOLL=y\n");
        let added = added(&rules, &findings, &base, Extent::Required);
        let names: Vec<&str> = added.iter().map(|one| one.option.as_str()).collect();
        assert_eq!(names, ["FILE_LOCKING", "IPC_NS", "SYSVIPC"]);
        let text = profile("an \"app\"", "base", &added);
        let texts = [("base", "summary = \"b\"\n"), ("app", text.as_str())];
        let composition = Profiles::from_texts(texts).unwrap().compose("app").unwrap();
        assert_eq!(composition.options.len(), 3);
        assert_eq!(composition.options["SYSVIPC"].profile, "app");
        assert_eq!(super::added(&rules, &findings, &base, Extent::Everything).len(), 4);
    }
}
