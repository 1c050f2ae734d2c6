//! What a kernel lacks for an image, said before a pod boots.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::{
    compose::reasons,
    findings::Findings,
    kernel_config::KernelOptions,
    rules::{Need, Rules},
};
use crate::kernel::specialised::RESOLVED;

/// The label by which an image names the options that it needs: a list with blanks, without `CONFIG_`.
pub const LABEL: &str = "org.postern.kernel-options";
/// The largest file of requirements that is read.
const MAX_REQUIREMENTS: u64 = 8 << 20;

#[derive(Debug, thiserror::Error)]
pub enum RequirementsError {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} is neither a profile nor what `profile derive --output json` printed", .0.display())]
    Format(PathBuf),
    #[error("the image's label {LABEL} names {0:?}, which is no option")]
    Label(String),
}

/// The profiles in `directory` whose resolved kernels have everything that is required, the narrowest first; none
/// where there is no checkout.
pub fn suited(directory: &Path, requirements: &Requirements) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory.join(RESOLVED)).into_iter().flatten().flatten() {
        let path = entry.path();
        let (Some(name), Ok(kernel)) = (path.file_stem(), KernelOptions::read(&path)) else { continue };
        let mut required = requirements.options.iter().filter(|(_, one)| one.need == Need::Required);
        if required.all(|(option, _)| kernel.has(option)) {
            found.push((kernel.len(), name.to_string_lossy().into_owned()));
        }
    }
    found.sort();
    found.into_iter().map(|(_, name)| name).collect()
}

/// One option that an image needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    pub need: Need,
    /// What needs it.
    pub by: String,
}

/// What an image needs, and who says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirements {
    pub source: String,
    pub options: BTreeMap<String, Requirement>,
}

/// One option that a kernel lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lacks {
    pub option: String,
    pub requirement: Requirement,
    /// What will happen.
    pub without: String,
}

#[derive(Deserialize)]
struct Profile {
    #[serde(default)]
    options: BTreeMap<String, BTreeMap<String, Setting>>,
}

#[derive(Deserialize)]
struct Setting {
    set: toml::Value,
    why: String,
}

#[derive(Deserialize)]
struct Derived {
    findings: Findings,
}

impl Requirements {
    pub fn of_findings(findings: &Findings, source: &str) -> Self {
        let one = |(option, needed): (&String, &super::findings::Needed)| {
            (option.clone(), Requirement { need: needed.need, by: reasons(needed) })
        };
        Self { source: source.to_owned(), options: findings.options.iter().map(one).collect() }
    }

    /// A profile's own options (what it includes is the kernel's), or a derivation that was kept as JSON.
    pub fn read(path: &Path) -> Result<Self, RequirementsError> {
        let failed = |source| RequirementsError::Read { path: path.into(), source };
        if fs::metadata(path).map_err(failed)?.len() > MAX_REQUIREMENTS {
            return Err(RequirementsError::Format(path.into()));
        }
        let text = fs::read_to_string(path).map_err(failed)?;
        let source = path.display().to_string();
        if let Ok(derived) = serde_json::from_str::<Derived>(&text) {
            return Ok(Self::of_findings(&derived.findings, &source));
        }
        let profile: Profile = toml::from_str(&text).map_err(|_| RequirementsError::Format(path.into()))?;
        let settings = profile.options.into_values().flatten();
        let wanted = settings.filter(|(_, setting)| setting.set.as_bool() == Some(true));
        let one = |(option, setting): (String, Setting)| {
            (option, Requirement { need: Need::Required, by: setting.why })
        };
        Ok(Self { source, options: wanted.map(one).collect() })
    }

    pub fn of_label(label: &str) -> Result<Self, RequirementsError> {
        let one = |option: &str| {
            let plain = option.bytes().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == b'_');
            match plain && !option.starts_with("CONFIG_") && option.len() <= 64 {
                true => Ok((
                    option.to_owned(),
                    Requirement { need: Need::Required, by: "the image's label".into() },
                )),
                false => Err(RequirementsError::Label(super::findings::printable(option))),
            }
        };
        let options = label.split_whitespace().map(one).collect::<Result<_, _>>()?;
        Ok(Self { source: format!("the image's label {LABEL}"), options })
    }

    /// What `kernel` lacks, what is required first.
    pub fn missing(&self, rules: &Rules, kernel: &KernelOptions) -> Vec<Lacks> {
        let absent = self.options.iter().filter(|(option, _)| !kernel.has(option));
        let mut lacks: Vec<Lacks> = absent
            .map(|(option, requirement)| Lacks {
                option: option.clone(),
                requirement: requirement.clone(),
                without: rules.rule(option).map(|rule| rule.without.clone()).unwrap_or_default(),
            })
            .collect();
        lacks.sort_by_key(|lack| std::cmp::Reverse(lack.requirement.need));
        lacks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lacking_is_named_with_what_needs_it() {
        let rules = Rules::built_in().unwrap();
        let mut findings = Findings::default();
        findings.call(&rules, "io_setup", &[], "nginx");
        findings.call(&rules, "rseq", &[], "nginx");
        findings.call(&rules, "epoll_wait", &[], "nginx");
        let requirements = Requirements::of_findings(&findings, "a trace");
        let lacks = requirements.missing(&rules, &KernelOptions::parse("CONFIG_EPOLL=y\n"));
        let names: Vec<_> = lacks.iter().map(|lack| (lack.option.as_str(), lack.requirement.need)).collect();
        assert_eq!(names, [("AIO", Need::Required), ("RSEQ", Need::Optional)]);
        assert_eq!(lacks[0].requirement.by, "io_setup of nginx");
        assert!(lacks[0].without.contains("ENOSYS"));
        let all = KernelOptions::parse("CONFIG_EPOLL=y\nCONFIG_AIO=y\nCONFIG_RSEQ=y\n");
        assert_eq!(requirements.missing(&rules, &all), []);
    }

    #[test]
    fn the_narrowest_suited_kernel_is_first() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join(RESOLVED)).unwrap();
        for (name, config) in [
            ("general", "CONFIG_AIO=y\nCONFIG_SYSVIPC=y\nCONFIG_EPOLL=y\n"),
            ("app", "CONFIG_AIO=y\nCONFIG_EPOLL=y\n"),
            ("base", "CONFIG_EPOLL=y\n"),
        ] {
            fs::write(directory.path().join(RESOLVED).join(format!("{name}.config")), config).unwrap();
        }
        let needed = Requirements::of_label("AIO").unwrap();
        assert_eq!(suited(directory.path(), &needed), ["app", "general"]);
        assert!(suited(directory.path(), &Requirements::of_label("AIO FUSE_FS").unwrap()).is_empty());
        assert!(suited(Path::new("/nonexistent"), &needed).is_empty());
    }

    #[test]
    fn requirements_come_from_profiles_derivations_and_labels() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = directory.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let profile = write(
            "app.toml",
            "summary = \"s\"\ninclude = [\"base\"]\n[options.application]\nAIO = { set = true, why = \"io_setup\" }\nX = { set = false, why = \"no\" }\n",
        );
        assert_eq!(Requirements::read(&profile).unwrap().options.keys().collect::<Vec<_>>(), ["AIO"]);
        let mut findings = Findings::default();
        findings.call(&Rules::built_in().unwrap(), "flock", &[], "app");
        let derived = write("app.json", &serde_json::json!({ "findings": findings, "more": 1 }).to_string());
        assert_eq!(
            Requirements::read(&derived).unwrap().options.keys().collect::<Vec<_>>(),
            ["FILE_LOCKING"]
        );
        assert!(matches!(Requirements::read(&write("x", "{")), Err(RequirementsError::Format(_))));
        assert_eq!(Requirements::of_label(" AIO  SYSVIPC ").unwrap().options.len(), 2);
        for wrong in ["CONFIG_AIO", "AIO,SYSVIPC", "aio", "\x1b[31m"] {
            assert!(matches!(Requirements::of_label(wrong), Err(RequirementsError::Label(_))), "{wrong:?}");
        }
    }
}
