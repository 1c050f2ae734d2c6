//! Names of pods, containers and exec sessions.
//!
//! All three are RFC 1123 labels (lower-case letters, digits, `-`), so that a name is also a safe file name,
//! cgroup name and host name, and no name needs escaping anywhere.

use std::{fmt, str::FromStr};

/// Longest name: an RFC 1123 label.
pub const MAX_NAME: usize = 63;

/// A name that was refused, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    #[error("{kind} name is empty")]
    Empty { kind: &'static str },
    #[error("{kind} name has {length} characters; at most {MAX_NAME} are allowed")]
    TooLong { kind: &'static str, length: usize },
    #[error(
        "{kind} name {name:?} is not a lower-case RFC 1123 label (letters a-z, digits, '-'; starts and ends with a letter or digit)"
    )]
    NotALabel { kind: &'static str, name: String },
    #[error("{kind} name {name:?} is reserved")]
    Reserved { kind: &'static str, name: String },
}

fn check_label(kind: &'static str, name: &str) -> Result<(), IdError> {
    if name.is_empty() {
        return Err(IdError::Empty { kind });
    }
    if name.len() > MAX_NAME {
        return Err(IdError::TooLong { kind, length: name.len() });
    }
    let edge = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let bytes = name.as_bytes();
    let inner_ok = bytes.iter().all(|&c| edge(c) || c == b'-');
    if !inner_ok || !edge(bytes[0]) || !edge(bytes[bytes.len() - 1]) {
        // What was typed is shown back cut to the longest legal name, so that an error stays one line.
        return Err(IdError::NotALabel { kind, name: name.to_owned() });
    }
    Ok(())
}

macro_rules! label {
    ($(#[$doc:meta])* $name:ident, $kind:literal, reserved: $reserved:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(String);

        impl $name {
            /// Checks `name`. Fails if it is empty, longer than [`MAX_NAME`], not an RFC 1123 label, or reserved.
            pub fn new(name: impl Into<String>) -> Result<Self, IdError> {
                let name = name.into();
                check_label($kind, &name)?;
                if $reserved.contains(&name.as_str()) {
                    return Err(IdError::Reserved { kind: $kind, name });
                }
                Ok(Self(name))
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(name: &str) -> Result<Self, IdError> {
                Self::new(name)
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(name: String) -> Result<Self, IdError> {
                Self::new(name)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::new(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
            }
        }
    };
}

label!(
    /// A pod's name, unique for its owner.
    PodName, "pod", reserved: [""; 1]
);
label!(
    /// A container's name, unique in its pod. `shared`, `sandbox` and `image` are names of the guest's own.
    ContainerName, "container", reserved: ["shared", "sandbox", "image"]
);
label!(
    /// One exec session in a container, named by the guest.
    ExecId, "exec", reserved: [""; 1]
);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn accepts_labels() {
        for name in ["a", "demo", "web-1", "0", &"x".repeat(63)] {
            assert_eq!(PodName::new(name).unwrap().as_str(), name);
        }
    }

    #[test]
    fn refuses_what_is_no_label() {
        for name in ["", "-a", "a-", "A", "a.b", "a/b", "..", "a\0", "ä", "a b", &"x".repeat(64)] {
            assert!(PodName::new(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn refuses_reserved_container_names() {
        for name in ["shared", "sandbox", "image"] {
            assert_eq!(
                ContainerName::new(name),
                Err(IdError::Reserved { kind: "container", name: name.into() })
            );
        }
    }

    proptest! {
        #[test]
        fn a_name_is_always_a_safe_path_component(name in ".*") {
            if let Ok(name) = ContainerName::new(name) {
                let mut components = std::path::Path::new(name.as_str()).components();
                prop_assert!(matches!(components.next(), Some(std::path::Component::Normal(_))));
                prop_assert!(components.next().is_none());
            }
        }
    }
}
