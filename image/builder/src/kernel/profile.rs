//! Profiles of the guest's kernel, and how several become one list of options.
//!
//! A profile is a file: a summary, the profiles it includes, and options, each with its value, its group and its
//! reason (image/kernel/README.md has the syntax). Composition is a union: it has no order and no overriding, so the
//! same files always give the same list, and two profiles that want different things are an error, not a race.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fmt, fs, io,
    path::{Path, PathBuf},
};

use serde::Deserialize;

/// Where a checkout has its profiles.
pub const DIRECTORY: &str = "image/kernel";
/// The folder of profiles of single applications, below the others.
const APPLICATIONS: &str = "applications";
/// The table that derives profiles of applications.
const RULES: &str = "rules.toml";
/// The largest profile that is read.
const MAX_PROFILE: u64 = 256 << 10;

/// Why profiles cannot be composed.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    #[error("no profiles in {}; run this in a checkout of Postern, or give --profiles", .0.display())]
    NoDirectory(PathBuf, #[source] io::Error),
    #[error("reading {}", .0.display())]
    Read(PathBuf, #[source] io::Error),
    #[error("{} is larger than {MAX_PROFILE} bytes: no profile", .0.display())]
    TooLarge(PathBuf),
    #[error("there are two profiles {name}: {} and {}", one.display(), other.display())]
    Twice { name: String, one: PathBuf, other: PathBuf },
    #[error("there is no profile {name}{}; there are {known}", by.as_ref().map(|by| format!(", which {by} includes")).unwrap_or_default())]
    Unknown { name: String, by: Option<String>, known: String },
    #[error("profiles include each other: {}", .0.join(" -> "))]
    Cycle(Vec<String>),
    #[error("{} is not a profile", path.display())]
    Malformed { path: PathBuf, source: Box<toml::de::Error> },
    #[error("profile {profile} includes {included} twice")]
    IncludedTwice { profile: String, included: String },
    #[error("profile {profile}: {option} {fault}")]
    Option { profile: String, option: String, fault: &'static str },
    #[error("profile {profile} has {option} twice, in groups {first} and {second}")]
    Duplicate { profile: String, option: String, first: String, second: String },
    #[error("profile {first} wants {option} to be {}, profile {second} wants {}", values.0, values.1)]
    Conflict { option: String, first: String, second: String, values: Box<(Value, Value)> },
}

/// What an option is to be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    /// Built in.
    On,
    /// Absent, whatever else would want it.
    Off,
    Number(i64),
    Text(String),
    /// As kconfig writes it, `0x` first.
    Hexadecimal(String),
}

impl fmt::Display for Value {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::On => formatter.write_str("y"),
            Self::Off => formatter.write_str("n"),
            Self::Number(number) => number.fmt(formatter),
            Self::Text(text) => write!(formatter, "\"{text}\""),
            Self::Hexadecimal(digits) => formatter.write_str(digits),
        }
    }
}

/// An option of a composition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    pub value: Value,
    pub group: String,
    pub why: String,
    /// The profile it comes from; of several that agree the first by name.
    pub profile: String,
}

/// A profile with everything it includes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Composition {
    pub profile: String,
    pub summary: String,
    /// By name, without `CONFIG_`.
    pub options: BTreeMap<String, Wanted>,
}

impl Composition {
    /// The options as kconfig reads them, sorted by name.
    pub fn fragment(&self) -> String {
        let mut fragment = String::new();
        for (name, wanted) in &self.options {
            match &wanted.value {
                Value::Off => fragment.push_str(&format!("# CONFIG_{name} is not set\n")),
                value => fragment.push_str(&format!("CONFIG_{name}={value}\n")),
            }
        }
        fragment
    }
}

/// The profiles of a folder.
#[derive(Debug, Clone)]
pub struct Profiles {
    /// By name: path and text.
    files: BTreeMap<String, (PathBuf, String)>,
}

impl Profiles {
    /// Reads every profile in `directory` and in its `applications/`.
    pub fn read(directory: &Path) -> Result<Self, ProfileError> {
        let mut profiles = Self { files: BTreeMap::new() };
        let no_directory = |source| ProfileError::NoDirectory(directory.into(), source);
        profiles.read_folder(fs::read_dir(directory).map_err(no_directory)?)?;
        let applications = directory.join(APPLICATIONS);
        match fs::read_dir(&applications) {
            Ok(entries) => profiles.read_folder(entries)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(ProfileError::Read(applications, source)),
        }
        if profiles.files.is_empty() {
            return Err(no_directory(io::ErrorKind::NotFound.into()));
        }
        Ok(profiles)
    }

    fn read_folder(&mut self, entries: fs::ReadDir) -> Result<(), ProfileError> {
        for entry in entries {
            let path = entry.map_err(|source| ProfileError::Read(APPLICATIONS.into(), source))?.path();
            let name = path.file_stem().and_then(|stem| stem.to_str()).map(str::to_owned);
            // What maps system calls to options is beside the profiles, and none of them.
            let is_profile = path.extension().is_some_and(|extension| extension == "toml")
                && path.file_name() != Some(RULES.as_ref());
            let Some(name) = name.filter(|_| is_profile) else { continue };
            let length = fs::metadata(&path).map_err(|e| ProfileError::Read(path.clone(), e))?.len();
            if length > MAX_PROFILE {
                return Err(ProfileError::TooLarge(path));
            }
            let text = fs::read_to_string(&path).map_err(|e| ProfileError::Read(path.clone(), e))?;
            self.add(name, path, text)?;
        }
        Ok(())
    }

    fn add(&mut self, name: String, path: PathBuf, text: String) -> Result<(), ProfileError> {
        match self.files.entry(name) {
            Entry::Vacant(entry) => {
                entry.insert((path, text));
                Ok(())
            }
            Entry::Occupied(entry) => Err(ProfileError::Twice {
                name: entry.key().clone(),
                one: entry.get().0.clone(),
                other: path,
            }),
        }
    }

    /// Profiles that are not files.
    pub fn from_texts<'a>(texts: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, ProfileError> {
        let mut profiles = Self { files: BTreeMap::new() };
        for (name, text) in texts {
            profiles.add(name.to_owned(), format!("{name}.toml").into(), text.to_owned())?;
        }
        Ok(profiles)
    }

    /// The names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    /// `name` with everything it includes.
    pub fn compose(&self, name: &str) -> Result<Composition, ProfileError> {
        let mut composer = Composer { profiles: self, above: Vec::new(), done: BTreeMap::new() };
        composer.visit(name)?;
        let mut options = BTreeMap::new();
        let mut summary = String::new();
        for (profile, file) in composer.done {
            if profile == name {
                summary.clone_from(&file.summary);
            }
            for (option, wanted) in file.wanted(&profile)? {
                insert(&mut options, option, wanted)?;
            }
        }
        Ok(Composition { profile: name.to_owned(), summary, options })
    }

    fn parse(&self, name: &str, by: Option<&String>) -> Result<File, ProfileError> {
        let unknown = || ProfileError::Unknown {
            name: name.to_owned(),
            by: by.cloned(),
            known: self.names().collect::<Vec<_>>().join(", "),
        };
        let (path, text) = self.files.get(name).ok_or_else(unknown)?;
        toml::from_str(text)
            .map_err(|source| ProfileError::Malformed { path: path.clone(), source: Box::new(source) })
    }
}

fn insert(
    options: &mut BTreeMap<String, Wanted>,
    option: String,
    wanted: Wanted,
) -> Result<(), ProfileError> {
    match options.entry(option) {
        Entry::Vacant(entry) => {
            entry.insert(wanted);
            Ok(())
        }
        Entry::Occupied(entry) if entry.get().value == wanted.value => Ok(()),
        Entry::Occupied(entry) => Err(ProfileError::Conflict {
            option: entry.key().clone(),
            first: entry.get().profile.clone(),
            second: wanted.profile,
            values: Box::new((entry.get().value.clone(), wanted.value)),
        }),
    }
}

struct Composer<'a> {
    profiles: &'a Profiles,
    /// The profiles that led to the one being visited, outermost first.
    above: Vec<String>,
    done: BTreeMap<String, File>,
}

impl Composer<'_> {
    fn visit(&mut self, name: &str) -> Result<(), ProfileError> {
        if let Some(from) = self.above.iter().position(|above| above == name) {
            let mut cycle = self.above.split_off(from);
            cycle.push(name.to_owned());
            return Err(ProfileError::Cycle(cycle));
        }
        if self.done.contains_key(name) {
            return Ok(());
        }
        let file = self.profiles.parse(name, self.above.last())?;
        self.above.push(name.to_owned());
        for (at, included) in file.include.iter().enumerate() {
            if file.include[..at].contains(included) {
                let included = included.clone();
                return Err(ProfileError::IncludedTwice { profile: name.to_owned(), included });
            }
            self.visit(included)?;
        }
        self.above.pop();
        self.done.insert(name.to_owned(), file);
        Ok(())
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    summary: String,
    #[serde(default)]
    include: Vec<String>,
    /// By group, then by option.
    #[serde(default)]
    options: BTreeMap<String, BTreeMap<String, Setting>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Setting {
    set: RawValue,
    why: String,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum RawValue {
    Bool(bool),
    Number(i64),
    Text(String),
}

impl File {
    fn wanted(self, profile: &str) -> Result<BTreeMap<String, Wanted>, ProfileError> {
        let mut all: BTreeMap<String, Wanted> = BTreeMap::new();
        for (group, options) in self.options {
            for (option, setting) in options {
                let value = check(&option, &setting).map_err(|fault| ProfileError::Option {
                    profile: profile.to_owned(),
                    option: option.clone(),
                    fault,
                })?;
                let wanted =
                    Wanted { value, group: group.clone(), why: setting.why, profile: profile.to_owned() };
                if let Some(first) = all.insert(option.clone(), wanted) {
                    return Err(ProfileError::Duplicate {
                        profile: profile.to_owned(),
                        option,
                        first: first.group,
                        second: group,
                    });
                }
            }
        }
        Ok(all)
    }
}

fn check(option: &str, setting: &Setting) -> Result<Value, &'static str> {
    let is_plain = |c: u8| c.is_ascii_uppercase() || c.is_ascii_digit() || c == b'_';
    if option.is_empty() || option.starts_with("CONFIG_") || !option.bytes().all(is_plain) {
        return Err("is no name of an option: capital letters, digits and _, without CONFIG_");
    }
    if setting.why.trim().is_empty() {
        return Err("has no reason");
    }
    match &setting.set {
        RawValue::Bool(true) => Ok(Value::On),
        RawValue::Bool(false) => Ok(Value::Off),
        RawValue::Number(number) => Ok(Value::Number(*number)),
        RawValue::Text(text) if text.starts_with("0x") => {
            let digits = &text[2..];
            let is_number = !digits.is_empty() && digits.bytes().all(|c| c.is_ascii_hexdigit());
            is_number.then(|| Value::Hexadecimal(text.clone())).ok_or("is no hexadecimal number")
        }
        // What kconfig would have to escape, no option of ours needs.
        RawValue::Text(text) if text.contains(['"', '\\']) || text.chars().any(char::is_control) => {
            Err("has a text with quotes, backslashes or control characters")
        }
        RawValue::Text(text) => Ok(Value::Text(text.clone())),
    }
}

#[cfg(test)]
mod tests;
