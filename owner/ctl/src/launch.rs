//! The shape of a pod's VM and its expected measurement, from flags: what `pod create`, `pod add` and `trust add` share.
//! Nobody types a digest.

use std::path::{Path, PathBuf};

use postern_launch::{
    Accelerator, Cpus, ImageManifest, Machine, MemoryMib, Mitigations, PodShape, TeePlatform,
    expected_measurement, trust_domain,
};
use postern_model::Measurement;

use crate::{
    cli::Risk,
    config::Config,
    exit::Exit,
    failure::{Failure, OrFail},
    home, human,
};

/// Owners of a pod: init data names no more.
pub(crate) const OWNERS: usize = 1;
const DEFAULT_MEMORY: u64 = 256 << 20;

/// How a pod is launched that somebody else launches: with its image it gives the measurement.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ShapeArgs {
    /// Read the shape from a file: the shape.json of a pod that was created
    #[arg(long, value_name = "FILE", conflicts_with_all = ["machine", "accel", "cpus", "memory", "mitigations", "tsc_khz"])]
    shape: Option<PathBuf>,
    /// Machine type
    #[arg(long, value_name = "MACHINE", value_parser = parse::<Machine>, default_value = "microvm")]
    machine: Machine,
    /// Accelerator: tcg or kvm
    #[arg(long, value_name = "ACCELERATOR", value_parser = parse::<Accelerator>, default_value = "tcg")]
    accel: Accelerator,
    /// Virtual CPUs
    #[arg(long, value_name = "N", value_parser = parse::<Cpus>, default_value = "1")]
    cpus: Cpus,
    /// Memory, for example 256M or 1G
    #[arg(long, value_name = "SIZE", value_parser = human::parse_memory, default_value = "256M")]
    memory: u64,
    /// Whether its kernel works around the CPU's leaks: on or off
    #[arg(long, value_name = "ON|OFF", value_parser = parse::<Mitigations>, default_value_t)]
    mitigations: Mitigations,
    /// Frequency of the machine's time stamp counter in kHz, which an emulated guest is told
    #[arg(long, value_name = "KHZ")]
    tsc_khz: Option<u32>,
}

/// For clap: any of the shape's types.
pub(crate) fn parse<T: std::str::FromStr>(text: &str) -> Result<T, String>
where
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|error: T::Err| error.to_string())
}

impl ShapeArgs {
    pub(crate) fn shape(&self) -> Result<PodShape, Failure> {
        if let Some(path) = &self.shape {
            let text = home::read(path)?.ok_or_else(|| {
                Failure::new(Exit::NotFound, format!("cannot read {}", path.display()))
                    .caused_by("it does not exist")
            })?;
            return serde_json::from_slice(&text)
                .or_fail(|| format!("{} is not the shape of a pod", path.display()));
        }
        Ok(PodShape {
            machine: self.machine,
            accelerator: self.accel,
            cpus: self.cpus,
            memory_mib: memory_mib(Some(self.memory))?,
            tsc_khz: self.tsc_khz,
            tee: TeePlatform::Simulated,
            mitigations: self.mitigations,
        })
    }
}

/// A pod without mitigations is the owner's word, given by name, and only where the pod has no other owner.
pub(crate) fn accept_mitigations(
    mitigations: Mitigations,
    owners: usize,
    accepted: &[Risk],
) -> Result<(), Failure> {
    trust_domain::admit(owners, mitigations)
        .map_err(|error| Failure::usage("refusing to leave out the CPU's mitigations").caused_by(error))?;
    if mitigations == Mitigations::On || accepted.contains(&Risk::MitigationsOff) {
        return Ok(());
    }
    Err(Failure::usage("refusing to leave out the CPU's mitigations without your word")
        .caused_by(
            "without them the pod is one trust domain: a container that tries can read the memory of the others \
             and the keys of the pod's agent",
        )
        .hint("where all containers of the pod are equally trusted, add --accept-risk=mitigations-off"))
}

pub(crate) fn memory_mib(bytes: Option<u64>) -> Result<MemoryMib, Failure> {
    let mib = bytes.unwrap_or(DEFAULT_MEMORY) >> 20;
    let memory = u32::try_from(mib).ok().and_then(|mib| MemoryMib::new(mib).ok());
    memory.ok_or_else(|| {
        Failure::usage(format!("a pod cannot have {} of memory", human::memory(bytes.unwrap_or_default())))
            .hint(format!("it has {} MiB to {} TiB", MemoryMib::MIN, MemoryMib::MAX >> 20))
    })
}

/// What a launch of this image in this shape measures.
pub(crate) fn measurement(image_dir: &Path, shape: &PodShape) -> Result<Measurement, Failure> {
    let manifest = load_image(image_dir)?;
    Ok(expected_measurement(&manifest, shape))
}

/// Reads `image.json` and checks the files it names.
pub(crate) fn load_image(image_dir: &Path) -> Result<ImageManifest, Failure> {
    ImageManifest::load(image_dir)
        .or_fail(|| format!("the guest image in {} cannot be used", image_dir.display()))
        .map_err(|failure| failure.hint("`postern-image build` makes one"))
}

/// Where the guest image is: flag, config.toml, environment, or installed beside this program.
pub(crate) fn image_dir(flag: Option<PathBuf>, config: &Config) -> Result<PathBuf, Failure> {
    let environment = || std::env::var_os("POSTERN_IMAGE_DIR").map(PathBuf::from);
    if let Some(dir) = flag.or_else(|| config.image_dir.clone()).or_else(environment) {
        return Ok(dir);
    }
    let exe = std::env::current_exe().ok();
    let beside = exe.as_deref().and_then(Path::parent);
    let installed =
        beside.into_iter().flat_map(|dir| [dir.join("../share/postern/image"), dir.join("../image")]);
    installed.into_iter().find(|dir| dir.join("image.json").is_file()).ok_or_else(|| {
        Failure::new(Exit::NotFound, "there is no guest image")
            .caused_by("neither --image-dir, image_dir in config.toml nor POSTERN_IMAGE_DIR names one, and none is installed")
            .hint("`postern-image build` makes one")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaving_out_mitigations_takes_the_owners_word_and_one_owner() {
        let accept = |mitigations, owners, risks: &[Risk]| {
            accept_mitigations(mitigations, owners, risks).map_err(|failure| failure.to_string())
        };
        let word = &[Risk::MitigationsOff];
        assert_eq!(accept(Mitigations::On, OWNERS, &[]), Ok(()));
        assert_eq!(accept(Mitigations::Off, OWNERS, word), Ok(()));
        let refused = accept(Mitigations::Off, OWNERS, &[Risk::SimulatedTee]).unwrap_err();
        assert!(refused.contains("without your word"), "{refused}");
        // No word is enough where somebody else's memory is given up.
        let refused = accept(Mitigations::Off, 2, word).unwrap_err();
        assert!(refused.contains("2 owners"), "{refused}");
        assert_eq!(accept(Mitigations::On, 2, &[]), Ok(()));
    }
}
