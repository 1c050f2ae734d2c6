//! The shape of a pod's VM: what a verifier must know to expect the right measurement, and nothing about wiring.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A value that is no part of a pod's shape.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    #[error("{0} is not a number of CPUs; a pod has {min} to {max}", min = Cpus::MIN, max = Cpus::MAX)]
    Cpus(String),
    #[error("{0} is not a pod's memory in MiB; it has {min} to {max}", min = MemoryMib::MIN, max = MemoryMib::MAX)]
    Memory(String),
    #[error("{0:?} is no machine; machines are microvm, q35")]
    Machine(String),
    #[error("{0:?} is no accelerator; accelerators are tcg, kvm")]
    Accelerator(String),
    #[error("{0:?} is no TEE platform; platforms are simulated")]
    Tee(String),
    #[error("{0:?} is not how mitigations can be; they are on or off")]
    Mitigations(String),
}

/// Everything about a VM that its measurement depends on, besides the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PodShape {
    pub machine: Machine,
    pub accelerator: Accelerator,
    pub cpus: Cpus,
    pub memory_mib: MemoryMib,
    /// Frequency of the host's time stamp counter, which an emulated guest sees as its own and cannot calibrate
    /// under load. Needed with TCG; unused with KVM.
    pub tsc_khz: Option<u32>,
    pub tee: TeePlatform,
    /// Whether the guest's kernel works around the CPU's leaks. Shapes written before there was a choice have it.
    #[serde(default, skip_serializing_if = "Mitigations::are_on")]
    pub mitigations: Mitigations,
}

macro_rules! named_enum {
    ($(#[$doc:meta])* $name:ident, $error:ident, { $($(#[$variant_doc:meta])* $variant:ident = $text:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "lowercase")]
        pub enum $name {
            $($(#[$variant_doc])* $variant),*
        }

        impl $name {
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text),*
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = ShapeError;

            fn from_str(text: &str) -> Result<Self, ShapeError> {
                let known = Self::ALL.iter().copied().find(|known| known.as_str() == text);
                known.ok_or_else(|| ShapeError::$error(text.to_owned()))
            }
        }
    };
}

named_enum!(
    /// QEMU's machine type.
    Machine, Machine, {
        /// Few devices, virtio over MMIO, boots fastest.
        Microvm = "microvm",
        /// A PC with PCI; what confidential guests need.
        Q35 = "q35",
    }
);

named_enum!(
    /// QEMU's accelerator.
    Accelerator, Accelerator, {
        /// Emulation in software: works everywhere.
        Tcg = "tcg",
        Kvm = "kvm",
    }
);

named_enum!(
    /// Who signs the guest's evidence.
    TeePlatform, Tee, {
        /// A platform played in software on this machine. Protects nothing.
        Simulated = "simulated",
    }
);

named_enum!(
    /// Whether the guest's kernel works around what one process can learn of another through the CPU.
    #[derive(Default)]
    Mitigations, Mitigations, {
        /// Whatever the kernel has for the CPU it finds.
        #[default]
        On = "on",
        /// None: the pod is one trust domain, in which a process that tries can read the memory of every other, the
        /// agent's keys included. An owner's explicit choice.
        Off = "off",
    }
);

impl Mitigations {
    /// For serde: the shape of a pod that has them is written without.
    fn are_on(&self) -> bool {
        *self == Self::On
    }
}

macro_rules! bounded {
    ($(#[$doc:meta])* $name:ident, $error:ident, $min:literal..=$max:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "u32", into = "u32")]
        pub struct $name(u32);

        impl $name {
            pub const MIN: u32 = $min;
            pub const MAX: u32 = $max;

            pub fn new(value: u32) -> Result<Self, ShapeError> {
                match (Self::MIN..=Self::MAX).contains(&value) {
                    true => Ok(Self(value)),
                    false => Err(ShapeError::$error(value.to_string())),
                }
            }

            pub fn value(self) -> u32 {
                self.0
            }
        }

        impl TryFrom<u32> for $name {
            type Error = ShapeError;

            fn try_from(value: u32) -> Result<Self, ShapeError> {
                Self::new(value)
            }
        }

        impl From<$name> for u32 {
            fn from(value: $name) -> u32 {
                value.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = ShapeError;

            fn from_str(text: &str) -> Result<Self, ShapeError> {
                text.parse().map_err(|_| ShapeError::$error(format!("{text:?}"))).and_then(Self::new)
            }
        }
    };
}

bounded!(
    /// Virtual CPUs of a pod.
    Cpus, Cpus, 1..=255
);
bounded!(
    /// Memory of a pod in MiB. The smallest is what the smallest kernel needs to reach its first process.
    MemoryMib, Memory, 48..=16_777_216
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        for machine in Machine::ALL {
            assert_eq!(machine.as_str().parse(), Ok(*machine));
        }
        for accelerator in Accelerator::ALL {
            assert_eq!(accelerator.as_str().parse(), Ok(*accelerator));
        }
        assert_eq!("pc".parse::<Machine>(), Err(ShapeError::Machine("pc".into())));
    }

    #[test]
    fn bounds_hold_however_a_number_comes_in() {
        assert!(Cpus::new(0).is_err());
        assert!("0".parse::<Cpus>().is_err());
        assert!("-1".parse::<Cpus>().is_err());
        assert!("1.5".parse::<MemoryMib>().is_err());
        assert!(serde_json::from_str::<MemoryMib>("16").is_err());
        assert_eq!(serde_json::from_str::<MemoryMib>("256").unwrap().value(), 256);
    }
}
