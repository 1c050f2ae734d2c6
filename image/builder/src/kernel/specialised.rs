//! Builds the kernel of a profile: unpack the source, patch, configure, check that everything that was asked for is
//! there and that nothing has moved since it was committed, compile, and keep the result under the digest of
//! everything it was made from.
//!
//! A build happens in a directory of its own and enters the cache in one rename. Whoever wants the same kernel at the
//! same time waits at a lock. Ctrl-C ends the compilers first and removes the directory then.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use postern_launch::image::digest_file;
use postern_model::Sha256;
use serde::{Deserialize, Serialize};

use super::{
    Kernel, KernelError, Specialised,
    cache::{self, CacheError, Entry},
    config::Configuration,
    interruptible::{RunError, Runner},
    kconfig::Kconfig,
    profile::{Composition, ProfileError, Profiles},
    source::{Source, SourceError},
    tree::{Tree, TreeError},
};
use crate::{lock::Package, sha256};

/// The kernel in an entry of the cache.
const KERNEL: &str = "bzImage";
/// Its resolved configuration.
const CONFIG: &str = "kernel.config";
/// Where its symbols are: what a panic is read with.
const SYMBOLS: &str = "System.map";
/// Which drivers are in it.
pub const DRIVERS: &str = "modules.builtin";
/// What it was made from. Written last: an entry without it is none.
const RECORD: &str = "build.json";
const FORMAT: u32 = 1;
/// Committed configurations, below the profiles.
pub const RESOLVED: &str = "resolved";

/// This program's part in the bytes: which programs run, how, and in which environment.
const RECIPE: &str = include_str!("tree.rs");

/// Why there is no kernel.
#[derive(Debug, thiserror::Error)]
pub enum SpecialiseError {
    #[error("composing profile {0}")]
    Profile(String, #[source] Box<ProfileError>),
    #[error("getting the kernel's source")]
    Source(#[from] SourceError),
    #[error("using the kernel cache")]
    Cache(#[from] CacheError),
    #[error("building the kernel")]
    Tree(#[source] TreeError),
    #[error(
        "kconfig did not give what profile {profile} asks for:\n  {}\nAdd what is missing to the profile, or take the option out",
        reasons.join("\n  ")
    )]
    Unmet { profile: String, reasons: Vec<String> },
    #[error(
        "{} does not exist: resolve the profile with `postern-image kernel bless --profile {profile}` and commit it",
        path.display()
    )]
    NotCommitted { profile: String, path: PathBuf },
    #[error(
        "the configuration of profile {profile} is not the committed one:\n  {}\nIf that is wanted, accept it with `postern-image kernel bless --profile {profile}`",
        changes.join("\n  ")
    )]
    Drift { profile: String, changes: Vec<String> },
    #[error(
        "the kernel of profile {profile} is not built; build it with `postern-image kernel build --profile {profile}`"
    )]
    NotBuilt { profile: String },
    #[error("{action} {}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("reading back what was built")]
    Kernel(#[from] KernelError),
    #[error("interrupted; nothing is left behind")]
    Interrupted,
}

impl From<TreeError> for SpecialiseError {
    fn from(error: TreeError) -> Self {
        match error {
            TreeError::Run(RunError::Interrupted) => Self::Interrupted,
            error => Self::Tree(error),
        }
    }
}

/// What an entry of the cache was made from, and its size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildRecord {
    pub format: u32,
    pub profile: String,
    pub source: Package,
    /// Name and digest of each patch, in order.
    pub patches: Vec<(String, Sha256)>,
    pub toolchain: String,
    /// Digest of everything above, of the options and of the recipe: the entry's name.
    pub inputs: Sha256,
    pub kernel: Sha256,
    pub kernel_size: u64,
    /// Sections of the kernel itself, unpacked.
    pub text: u64,
    pub data: u64,
    pub bss: u64,
    /// Options that are built in.
    pub options: usize,
}

/// A configuration that was written to be committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blessed {
    pub path: PathBuf,
    /// How many options are built in.
    pub options: usize,
    /// Against what was there before, an option a line.
    pub changes: Vec<String>,
}

/// The kernel of one profile: what it is to be made from.
#[derive(Debug)]
pub struct Plan {
    directory: PathBuf,
    composition: Composition,
    source: Source,
    toolchain: String,
    cache: PathBuf,
}

impl Plan {
    /// Reads the profiles in `directory` and what goes with them.
    pub fn new(directory: &Path, profile: &str, cache: &Path) -> Result<Self, SpecialiseError> {
        let failed = |error| SpecialiseError::Profile(profile.to_owned(), Box::new(error));
        let composition = Profiles::read(directory).and_then(|all| all.compose(profile)).map_err(failed)?;
        let source = Source::read(directory)?;
        let (directory, cache) = (directory.into(), cache.into());
        Ok(Self { directory, composition, source, toolchain: Tree::toolchain()?, cache })
    }

    /// Digest of everything that decides the bytes.
    fn inputs(&self) -> Sha256 {
        let mut parts = vec![format!("postern-kernel-{FORMAT}"), self.source.package.sha256.to_hex()];
        parts.extend(self.source.patches.iter().map(|patch| format!("{} {}", patch.name, patch.sha256)));
        parts.push(self.composition.fragment());
        parts.push(self.toolchain.clone());
        parts.push(RECIPE.to_owned());
        // A zero byte is in none of them: it keeps the parts apart.
        sha256(parts.join("\0").as_bytes())
    }

    fn entry(&self) -> Entry {
        Entry::new(&self.cache, self.inputs())
    }

    /// The kernel, if it is in the cache.
    pub fn path(&self) -> Result<PathBuf, SpecialiseError> {
        let entry = self.entry().path();
        match entry.join(RECORD).is_file() {
            true => Ok(entry.join(KERNEL)),
            false => Err(SpecialiseError::NotBuilt { profile: self.composition.profile.clone() }),
        }
    }

    /// The kernel in the cache, for an image. Its bytes are checked against what was recorded.
    pub fn load(&self) -> Result<Kernel, SpecialiseError> {
        let path = self.path()?;
        let entry = self.entry().path();
        let read = |file: &str| {
            let path = entry.join(file);
            fs::read(&path).map_err(|source| SpecialiseError::Io { action: "reading", path, source })
        };
        let mut kernel = Kernel::from_files(&path, None)?;
        let record: Option<BuildRecord> = serde_json::from_slice(&read(RECORD)?).ok();
        if record.is_none_or(|record| record.kernel != sha256(&kernel.image)) {
            // What a full disk or a hand has left; building replaces it.
            return Err(SpecialiseError::NotBuilt { profile: self.composition.profile.clone() });
        }
        let (config, drivers) = (read(CONFIG)?, read(DRIVERS)?);
        kernel.packages = vec![self.source.package.clone()];
        let profile = self.composition.profile.clone();
        kernel.specialised = Some(Specialised { profile, config, drivers });
        Ok(kernel)
    }

    /// The kernel, built if it is not in the cache. Gives its path.
    pub fn build(&self, jobs: usize, say: &mut dyn FnMut(&str)) -> Result<PathBuf, SpecialiseError> {
        if self.load().is_ok() {
            return self.path();
        }
        let entry = self.entry();
        let _turn = entry.lock(say)?;
        // Somebody else may have built it while we waited.
        if self.load().is_ok() {
            return self.path();
        }
        let mut runner = Runner::new().map_err(TreeError::Signals)?;
        let tree = self.unpack(&entry, &mut runner, say)?;
        self.build_in(&tree, jobs, &mut runner, say)
    }

    /// The kernels of several plans of one directory, one after another in one tree: what two of them have in common is
    /// compiled once. Each is the same as one that was built alone. Says of whom it speaks.
    pub fn build_all(
        plans: &[Self],
        jobs: usize,
        say: &mut dyn FnMut(&str, &str),
    ) -> Result<Vec<PathBuf>, SpecialiseError> {
        let (mut shared, mut paths) = (None, Vec::new());
        let mut runner = Runner::new().map_err(TreeError::Signals)?;
        for plan in plans {
            let mut say = |text: &str| say(&plan.composition.profile, text);
            if plan.load().is_err() {
                let (_turn, tree) = match &shared {
                    Some(there) => there,
                    // A place of this set's own: whoever builds another set holds another, and nobody holds two kernels.
                    None => {
                        let names: String = plans.iter().map(|plan| plan.inputs().to_hex()).collect();
                        let place = Entry::new(&plan.cache, sha256(names.as_bytes()));
                        let turn = place.lock(&mut say)?;
                        let tree = plan.unpack(&place, &mut runner, &mut say)?;
                        &*shared.insert((turn, tree))
                    }
                };
                let _own_turn = plan.entry().lock(&mut say)?;
                if plan.load().is_err() {
                    plan.build_in(tree, jobs, &mut runner, &mut say)?;
                }
            }
            paths.push(plan.path()?);
        }
        Ok(paths)
    }

    /// Builds in a tree of the source, which may have been built in before. The caller has the turn.
    fn build_in(
        &self,
        tree: &Tree,
        jobs: usize,
        runner: &mut Runner,
        say: &mut dyn FnMut(&str),
    ) -> Result<PathBuf, SpecialiseError> {
        say("configuring");
        let config = tree.configure(&self.composition.fragment(), runner)?;
        self.check(tree, &config)?;
        self.compare(&config)?;
        say(&format!("compiling {} options with {jobs} jobs", config.count()));
        tree.compile(jobs, runner, say)?;
        self.keep(&self.entry(), tree, &config, runner)?;
        self.path()
    }

    /// Resolves profiles and writes what came out beside them, to be committed.
    pub fn bless(
        directory: &Path,
        profiles: &[String],
        cache: &Path,
        say: &mut dyn FnMut(&str),
    ) -> Result<Vec<Blessed>, SpecialiseError> {
        let plans = profiles.iter().map(|profile| Self::new(directory, profile, cache));
        let plans = plans.collect::<Result<Vec<_>, _>>()?;
        let Some(first) = plans.first() else { return Ok(Vec::new()) };
        let entry = Entry::new(cache, sha256(b"bless"));
        let _turn = entry.lock(say)?;
        let mut runner = Runner::new().map_err(TreeError::Signals)?;
        let tree = first.unpack(&entry, &mut runner, say)?;
        let mut blessed = Vec::new();
        for plan in &plans {
            say(&format!("resolving {}", plan.composition.profile));
            let config = tree.configure(&plan.composition.fragment(), &mut runner)?;
            plan.check(&tree, &config)?;
            blessed.push(plan.commit(&config)?);
        }
        Ok(blessed)
    }

    fn commit(&self, config: &Configuration) -> Result<Blessed, SpecialiseError> {
        let path = self.resolved();
        let before = fs::read_to_string(&path).ok();
        let changes = before.map_or_else(Vec::new, |before| config.drift(&Configuration::parse(&before)));
        let Package { name, version, .. } = &self.source.package;
        let profile = &self.composition.profile;
        let comment = format!("{profile}, resolved by `postern-image kernel bless` with {name} {version}");
        let failed = |source| SpecialiseError::Io { action: "writing", path: path.clone(), source };
        fs::create_dir_all(self.directory.join(RESOLVED)).map_err(failed)?;
        fs::write(&path, config.render(&comment)).map_err(failed)?;
        Ok(Blessed { options: config.count(), path, changes })
    }

    fn resolved(&self) -> PathBuf {
        self.directory.join(RESOLVED).join(format!("{}.config", self.composition.profile))
    }

    fn unpack(
        &self,
        entry: &Entry,
        runner: &mut Runner,
        say: &mut dyn FnMut(&str),
    ) -> Result<Tree, SpecialiseError> {
        let Package { name, version, .. } = &self.source.package;
        say(&format!("source {name} {version}"));
        let package = self.source.fetch(&self.cache)?;
        say("unpacking");
        let tree = Tree::unpack(&package, entry.workspace()?, runner)?;
        for patch in &self.source.patches {
            tree.patch(patch, runner)?;
        }
        Ok(tree)
    }

    /// Everything that was asked for is there.
    fn check(&self, tree: &Tree, config: &Configuration) -> Result<(), SpecialiseError> {
        let unmet = config.unmet(&self.composition);
        if unmet.is_empty() {
            return Ok(());
        }
        let kconfig = Kconfig::read(tree.path());
        let reasons = unmet.iter().map(|unmet| kconfig.explain(unmet, config)).collect();
        Err(SpecialiseError::Unmet { profile: self.composition.profile.clone(), reasons })
    }

    /// Nothing has moved since it was committed.
    fn compare(&self, config: &Configuration) -> Result<(), SpecialiseError> {
        let (path, profile) = (self.resolved(), self.composition.profile.clone());
        let committed = match fs::read_to_string(&path) {
            Ok(text) => Configuration::parse(&text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(SpecialiseError::NotCommitted { profile, path });
            }
            Err(source) => return Err(SpecialiseError::Io { action: "reading", path, source }),
        };
        let changes = config.drift(&committed);
        if changes.is_empty() { Ok(()) } else { Err(SpecialiseError::Drift { profile, changes }) }
    }

    fn keep(
        &self,
        entry: &Entry,
        tree: &Tree,
        config: &Configuration,
        runner: &mut Runner,
    ) -> Result<(), SpecialiseError> {
        let staging = entry.staging()?;
        let built = tree.kernel();
        let failed =
            |path: &Path, source| SpecialiseError::Io { action: "keeping", path: path.into(), source };
        fs::copy(&built, staging.path().join(KERNEL)).map_err(|e| failed(&built, e))?;
        for file in [SYMBOLS, DRIVERS] {
            let from = tree.path().join(file);
            fs::copy(&from, staging.path().join(file)).map_err(|e| failed(&from, e))?;
        }
        let comment = format!("the kernel of profile {}", self.composition.profile);
        let write = |file: &str, bytes: &[u8]| {
            let path = staging.path().join(file);
            fs::write(&path, bytes).map_err(|e| failed(&path, e))
        };
        write(CONFIG, config.render(&comment).as_bytes())?;
        let (kernel, kernel_size) = digest_file(&built).map_err(|e| failed(&built, e))?;
        let [text, data, bss] = tree.sections(runner)?;
        let record = BuildRecord {
            format: FORMAT,
            profile: self.composition.profile.clone(),
            source: self.source.package.clone(),
            patches: self.source.patches.iter().map(|p| (p.name.clone(), p.sha256)).collect(),
            toolchain: self.toolchain.clone(),
            inputs: self.inputs(),
            kernel,
            kernel_size,
            text,
            data,
            bss,
            options: config.count(),
        };
        // A record of strings and numbers has nothing that JSON cannot hold.
        let json = serde_json::to_vec_pretty(&record).unwrap_or_default();
        write(RECORD, &json)?;
        Ok(cache::publish(staging, entry)?)
    }
}
