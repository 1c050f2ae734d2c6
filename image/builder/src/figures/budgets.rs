//! What each figure may grow to. Budgets are committed, each with its reason, so that growing one is a diff somebody reads.

use std::{
    io,
    ops::Range,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use toml::Spanned;

use super::{Figures, FiguresError, kernel};

/// Budgets that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BudgetsError {
    #[error("reading {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} is not a list of budgets", path.display())]
    Malformed { path: PathBuf, source: Box<toml::de::Error> },
    #[error("{}:{line}: there is no figure called {figure:?}", path.display())]
    Unknown { path: PathBuf, line: usize, figure: String },
    #[error("{}:{line}: {figure} has no reason", path.display())]
    NoReason { path: PathBuf, line: usize, figure: String },
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    budget: Vec<Entry>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    figure: String,
    at_most: Spanned<u64>,
    reason: String,
    /// Only for images with this kernel profile.
    profile: Option<String>,
}

/// The committed budgets.
#[derive(Debug, Clone)]
pub struct Budgets {
    path: PathBuf,
    text: String,
    entries: Vec<Entry>,
}

/// One figure held against its budget.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub figure: String,
    /// `None` where this image does not tell.
    pub value: Option<u64>,
    pub at_most: u64,
    pub reason: String,
    /// `FILE:LINE` of the number.
    pub place: String,
}

impl Verdict {
    pub fn is_exceeded(&self) -> bool {
        self.value.is_some_and(|value| value > self.at_most)
    }

    /// What to do about an exceeded budget.
    pub fn complaint(&self) -> Option<String> {
        let value = self.value.filter(|_| self.is_exceeded())?;
        let Self { figure, at_most, place, .. } = self;
        Some(format!(
            "{figure} is {value}, {} over its budget of {at_most}; make it smaller, or raise at_most in {place} and say \
             why in the line below",
            value - at_most
        ))
    }
}

impl Budgets {
    pub fn read(path: &Path) -> Result<Self, BudgetsError> {
        let text = kernel::read_text(path).map_err(|error| match error {
            FiguresError::Read { path, source } => BudgetsError::Read { path, source },
            other => BudgetsError::Read { path: path.to_owned(), source: io::Error::other(other) },
        })?;
        let malformed = |source| BudgetsError::Malformed { path: path.to_owned(), source: Box::new(source) };
        let File { budget: entries } = toml::from_str(&text).map_err(malformed)?;
        let budgets = Self { path: path.to_owned(), text, entries };
        for entry in &budgets.entries {
            if entry.reason.trim().is_empty() {
                let line = budgets.line(entry.at_most.span());
                return Err(BudgetsError::NoReason { path: path.into(), line, figure: entry.figure.clone() });
            }
        }
        Ok(budgets)
    }

    /// Each budget that is meant for this image, and what became of it.
    pub fn hold(&self, figures: &Figures) -> Result<Vec<Verdict>, BudgetsError> {
        let named = figures.named();
        let unknown = |entry: &&Entry| !named.iter().any(|(name, _)| *name == entry.figure);
        if let Some(entry) = self.entries.iter().find(unknown) {
            let line = self.line(entry.at_most.span());
            return Err(BudgetsError::Unknown {
                path: self.path.clone(),
                line,
                figure: entry.figure.clone(),
            });
        }
        Ok(self.hold_named(&named, figures.kernel_profile.as_deref()))
    }

    /// The same for some of the figures.
    pub(super) fn hold_named(&self, named: &[(&str, Option<u64>)], profile: Option<&str>) -> Vec<Verdict> {
        let verdict = |entry: &Entry| {
            if entry.profile.is_some() && entry.profile.as_deref() != profile {
                return None;
            }
            let (_, value) = named.iter().find(|(name, _)| *name == entry.figure)?;
            Some(Verdict {
                figure: entry.figure.clone(),
                value: *value,
                at_most: *entry.at_most.get_ref(),
                reason: entry.reason.clone(),
                place: format!("{}:{}", self.path.display(), self.line(entry.at_most.span())),
            })
        };
        self.entries.iter().filter_map(verdict).collect()
    }

    fn line(&self, span: Range<usize>) -> usize {
        self.text.get(..span.start).map_or(0, |before| before.matches('\n').count()) + 1
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn figures() -> Figures {
        Figures {
            kernel_profile: Some("general".into()),
            kernel_release: "6.12".into(),
            kernel_image: 4_000_000,
            kernel_text: 5_000_000,
            kernel_options: None,
            kernel_drivers: None,
            kernel_modules: 0,
            agent: 7_000_000,
            initramfs: 3_000_000,
            listeners: Vec::new(),
            crates: None,
            host_syscalls: None,
        }
    }

    fn budgets(text: &str) -> Result<Vec<Verdict>, BudgetsError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("budgets.toml");
        fs::write(&path, text).unwrap();
        Budgets::read(&path)?.hold(&figures())
    }

    #[test]
    fn a_figure_within_its_budget_passes_and_one_above_says_where_to_look() {
        let text = "[[budget]]\nfigure = \"agent.size\"\nat_most = 7_000_000\nreason = \"x\"\n\n\
                    [[budget]]\nfigure = \"guest.size\"\nat_most = 6_999_999\nreason = \"y\"\n";
        let verdicts = budgets(text).unwrap();
        assert_eq!(verdicts[0].complaint(), None);
        let complaint = verdicts[1].complaint().unwrap();
        assert!(complaint.starts_with("guest.size is 7000000, 1 over its budget of 6999999"), "{complaint}");
        assert!(complaint.contains("budgets.toml:8"), "{complaint}");
    }

    #[test]
    fn a_budget_for_another_profile_is_not_held_against_this_one() {
        let text = |profile: &str| {
            format!(
                "[[budget]]\nfigure = \"kernel.image\"\nprofile = \"{profile}\"\nat_most = 1\nreason = \"x\"\n"
            )
        };
        assert!(budgets(&text("base")).unwrap().is_empty());
        assert!(budgets(&text("general")).unwrap()[0].is_exceeded());
    }

    #[test]
    fn what_an_image_does_not_tell_is_not_called_kept() {
        let text = "[[budget]]\nfigure = \"kernel.options\"\nat_most = 600\nreason = \"x\"\n";
        let verdict = budgets(text).unwrap().remove(0);
        assert_eq!((verdict.value, verdict.is_exceeded()), (None, false));
    }

    #[test]
    fn a_budget_that_holds_nothing_is_an_error() {
        let text = "[[budget]]\nfigure = \"agent.sise\"\nat_most = 1\nreason = \"x\"\n";
        assert!(matches!(budgets(text), Err(BudgetsError::Unknown { line: 3, .. })));
        let text = "[[budget]]\nfigure = \"agent.size\"\nat_most = 1\nreason = \" \"\n";
        assert!(matches!(budgets(text), Err(BudgetsError::NoReason { .. })));
        assert!(matches!(budgets("[[budget]]\nfigure = \"x\"\n"), Err(BudgetsError::Malformed { .. })));
    }
}
