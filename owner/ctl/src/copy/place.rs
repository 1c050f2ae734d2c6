//! Where a copy lands, by docker cp's rules: a source directory is copied into an existing directory and becomes a missing
//! one; `SOURCE/.` means the content; a trailing slash asks for a directory.

use std::path::{Component, Path, PathBuf};

use crate::target::{Target, TargetError};

/// One side of `cp`, as typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// `-`: a tar stream on standard input or output.
    Stream,
    Local(PathBuf),
    Remote {
        target: Target,
        path: String,
    },
}

impl std::str::FromStr for Place {
    type Err = TargetError;

    /// `POD/CONTAINER:PATH` is remote. A local name that looks so is written `./NAME`.
    fn from_str(text: &str) -> Result<Self, TargetError> {
        if text == "-" {
            return Ok(Self::Stream);
        }
        let local = text.starts_with(['/', '.']) || !text.contains(':');
        match text.split_once(':') {
            Some((target, path)) if !local && target.contains('/') => {
                // As in docker, a relative path starts at the container's root.
                let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
                Ok(Self::Remote { target: target.parse()?, path })
            }
            Some((target, _)) if !local => Err(TargetError::NoContainer(target.to_owned())),
            _ => Ok(Self::Local(text.into())),
        }
    }
}

/// A path in the container, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RemotePath {
    /// Without `.`, `..` and trailing slashes.
    pub(crate) path: String,
    /// Ended in `/` or `/.`: must be a directory.
    pub(crate) directory: bool,
    /// Ended in `/.`: the content of the directory.
    pub(crate) content: bool,
}

impl RemotePath {
    pub(crate) fn parse(path: &str) -> Self {
        let mut parts: Vec<&str> = Vec::new();
        for part in path.split('/') {
            match part {
                "" | "." => {}
                ".." => drop(parts.pop()),
                part => parts.push(part),
            }
        }
        let content = path.ends_with("/.");
        Self { path: format!("/{}", parts.join("/")), directory: content || path.ends_with('/'), content }
    }

    /// The directory above, and the name in it. `None` for the root.
    pub(crate) fn split(&self) -> Option<(&str, &str)> {
        let (parent, name) = self.path.rsplit_once('/')?;
        match name.is_empty() {
            true => None,
            false => Some((if parent.is_empty() { "/" } else { parent }, name)),
        }
    }

    pub(crate) fn name(&self) -> Option<&str> {
        self.split().map(|(_, name)| name)
    }
}

/// What the user wrote of a local path beyond what [`Path`] keeps.
pub(crate) fn asks_for_directory(path: &Path) -> bool {
    let bytes = path.as_os_str().as_encoded_bytes();
    bytes.ends_with(b"/") || bytes.ends_with(b"/.")
}

pub(crate) fn asks_for_content(path: &Path) -> bool {
    let bytes = path.as_os_str().as_encoded_bytes();
    bytes.ends_with(b"/.") || bytes == b"."
}

/// Where something from a container lands on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Landing {
    /// An existing directory.
    pub(crate) parent: PathBuf,
    /// What the first name of the stream becomes; `None` merges its content into `parent`.
    pub(crate) name: Option<String>,
    /// The source has to be a directory.
    pub(crate) must_be_directory: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LandingError {
    #[error("directory {} does not exist", .0.display())]
    NoDirectory(PathBuf),
    #[error("{} is not a directory", .0.display())]
    NotADirectory(PathBuf),
    #[error("{} has no name to copy to", .0.display())]
    NoName(PathBuf),
}

/// Decides where `source` lands when the user says `destination`.
pub(crate) fn landing(source: &RemotePath, destination: &Path) -> Result<Landing, LandingError> {
    if destination.is_dir() {
        let name = if source.content { None } else { source.name().map(str::to_owned) };
        return Ok(Landing { parent: destination.to_owned(), name, must_be_directory: source.directory });
    }
    if destination.exists() && (asks_for_directory(destination) || source.content) {
        return Err(LandingError::NotADirectory(destination.to_owned()));
    }
    let name = match destination.components().next_back() {
        Some(Component::Normal(name)) => name.to_str().map(str::to_owned),
        _ => None,
    };
    let name = name.ok_or_else(|| LandingError::NoName(destination.to_owned()))?;
    let parent = match destination.parent() {
        Some(parent) if parent.as_os_str().is_empty() => PathBuf::from("."),
        Some(parent) => parent.to_owned(),
        None => return Err(LandingError::NoName(destination.to_owned())),
    };
    match parent.is_dir() {
        true => Ok(Landing {
            parent,
            name: Some(name),
            must_be_directory: source.directory || asks_for_directory(destination),
        }),
        false => Err(LandingError::NoDirectory(parent)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_are_told_apart() {
        let remote = |text: &str| match text.parse() {
            Ok(Place::Remote { path, .. }) => path,
            other => panic!("{other:?}"),
        };
        assert_eq!(remote("demo/web:/etc/x"), "/etc/x");
        assert_eq!(remote("demo/web:etc"), "/etc");
        assert_eq!(remote("demo/web:"), "/");
        assert_eq!("-".parse(), Ok(Place::Stream));
        for local in ["file", "/a:b", "./demo/web:x", "a/b", "../x:y"] {
            assert_eq!(local.parse(), Ok(Place::Local(local.into())), "{local}");
        }
        assert!("demo:/x".parse::<Place>().is_err(), "a pod alone has no files");
    }

    #[test]
    fn remote_paths_are_taken_apart() {
        let parse = |text| {
            let RemotePath { path, directory, content } = RemotePath::parse(text);
            (path, directory, content)
        };
        assert_eq!(parse("/a/b"), ("/a/b".into(), false, false));
        assert_eq!(parse("/a/b/"), ("/a/b".into(), true, false));
        assert_eq!(parse("/a//./b/."), ("/a/b".into(), true, true));
        assert_eq!(parse("/a/../../b"), ("/b".into(), false, false));
        assert_eq!(parse("/"), ("/".into(), true, false));
        assert_eq!(RemotePath::parse("/").split(), None);
        assert_eq!(RemotePath::parse("/a").split(), Some(("/", "a")));
        assert_eq!(RemotePath::parse("/a/b").split(), Some(("/a", "b")));
    }

    #[test]
    fn a_copy_out_lands_as_docker_would() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir(at("there")).unwrap();
        std::fs::write(at("file"), "").unwrap();
        let land = |source: &str, destination: &Path| {
            landing(&RemotePath::parse(source), destination).map(|landing| (landing.parent, landing.name))
        };
        assert_eq!(land("/etc/hosts", &at("there")), Ok((at("there"), Some("hosts".into()))));
        assert_eq!(land("/etc/hosts", &at("new")), Ok((dir.path().into(), Some("new".into()))));
        assert_eq!(land("/etc/hosts", &at("file")), Ok((dir.path().into(), Some("file".into()))));
        assert_eq!(land("/etc/.", &at("there")), Ok((at("there"), None)));
        assert_eq!(land("/etc/.", &at("new")), Ok((dir.path().into(), Some("new".into()))));
        assert_eq!(land("/etc/.", &at("file")), Err(LandingError::NotADirectory(at("file"))));
        assert_eq!(land("/etc/hosts", &at("no/where")), Err(LandingError::NoDirectory(at("no"))));
        assert_eq!(land("/", &at("there")), Ok((at("there"), None)));
        let into_missing = landing(&RemotePath::parse("/etc/hosts"), &at("new/")).unwrap();
        assert!(into_missing.must_be_directory, "a file cannot become a directory");
    }
}
