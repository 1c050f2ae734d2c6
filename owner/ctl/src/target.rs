//! `POD/CONTAINER` as the user types it.

use std::{fmt, str::FromStr};

use postern_model::{ContainerName, IdError, PodName};

/// A container of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) pod: PodName,
    pub(crate) container: ContainerName,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TargetError {
    #[error("{0:?} names a pod; a container is written POD/CONTAINER (see `postern ps {0}`)")]
    NoContainer(String),
    #[error(transparent)]
    Name(#[from] IdError),
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let (pod, container) =
            text.split_once('/').ok_or_else(|| TargetError::NoContainer(text.to_owned()))?;
        Ok(Self { pod: pod.parse()?, container: container.parse()? })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.pod, self.container)
    }
}

/// A pod, or one of its containers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PodOrTarget {
    pub(crate) pod: PodName,
    pub(crate) container: Option<ContainerName>,
}

impl FromStr for PodOrTarget {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        match text.contains('/') {
            true => text.parse().map(|Target { pod, container }| Self { pod, container: Some(container) }),
            false => Ok(Self { pod: text.parse()?, container: None }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_pod_and_container() {
        assert_eq!("demo/web".parse::<Target>().unwrap().to_string(), "demo/web");
        assert_eq!("demo".parse::<PodOrTarget>().unwrap().container, None);
        for text in ["demo", "demo/", "/web", "demo/web/x", "Demo/web", "demo/../x", ""] {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
    }
}
