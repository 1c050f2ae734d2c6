//! How an image is named on the command line: in the pod's store or a registry, or on this machine.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use postern_model::{ImageReference, ReferenceError};

/// An image on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ImageSource {
    /// An OCI layout directory, and which of its images.
    OciDirectory { path: PathBuf, tag: Option<String> },
    /// A tar archive: an OCI layout or what `docker save` writes, plain or gzip. Its content says which.
    Archive { path: PathBuf },
    /// Such an archive on standard input.
    Stdin,
    /// An image disk that `image pack` made, which the host has attached to the pod.
    Disk { path: PathBuf },
}

/// An image as `run` takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ImageArgument {
    Local(ImageSource),
    Reference(String),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SourceError {
    #[error(
        "{0:?} names no file; use oci:DIR[:TAG], oci-archive:FILE, docker-archive:FILE, disk:FILE, a path, or -"
    )]
    Empty(String),
    #[error("{} does not exist", .0.display())]
    Missing(PathBuf),
    #[error("{} is a directory but not an OCI layout: it has no oci-layout file", .0.display())]
    NotALayout(PathBuf),
    #[error("{} is not a directory", .0.display())]
    NotADirectory(PathBuf),
    #[error(transparent)]
    Reference(#[from] ReferenceError),
}

impl FromStr for ImageSource {
    type Err = SourceError;

    fn from_str(text: &str) -> Result<Self, SourceError> {
        let path = |rest: &str| match rest.is_empty() {
            true => Err(SourceError::Empty(text.to_owned())),
            false => Ok(PathBuf::from(rest)),
        };
        if text == "-" {
            return Ok(Self::Stdin);
        }
        if let Some(rest) = text.strip_prefix("oci:") {
            path(rest)?;
            return Ok(directory(rest));
        }
        if let Some(rest) = text.strip_prefix("disk:") {
            return Ok(Self::Disk { path: path(rest)? });
        }
        for prefix in ["oci-archive:", "docker-archive:"] {
            if let Some(rest) = text.strip_prefix(prefix) {
                return Ok(Self::Archive { path: path(rest)? });
            }
        }
        let path = path(text)?;
        match path.is_dir() {
            true => Ok(Self::OciDirectory { path, tag: None }),
            false => Ok(Self::Archive { path }),
        }
    }
}

/// `DIR[:TAG]`, where DIR itself may hold colons.
fn directory(text: &str) -> ImageSource {
    match text.rsplit_once(':') {
        Some((path, tag)) if !Path::new(text).is_dir() && !tag.contains('/') => {
            ImageSource::OciDirectory { path: path.into(), tag: Some(tag.to_owned()) }
        }
        _ => ImageSource::OciDirectory { path: text.into(), tag: None },
    }
}

impl ImageSource {
    /// Fails early, and by name, when there is nothing to read.
    pub(crate) fn check(&self) -> Result<(), SourceError> {
        match self {
            Self::Stdin => Ok(()),
            Self::Archive { path } | Self::Disk { path } if path.exists() => Ok(()),
            Self::OciDirectory { path, .. } if path.join("oci-layout").is_file() => Ok(()),
            Self::Archive { path } | Self::Disk { path } | Self::OciDirectory { path, .. }
                if !path.exists() =>
            {
                Err(SourceError::Missing(path.clone()))
            }
            Self::OciDirectory { path, .. } if path.is_dir() => Err(SourceError::NotALayout(path.clone())),
            Self::Archive { path } | Self::Disk { path } | Self::OciDirectory { path, .. } => {
                Err(SourceError::NotADirectory(path.clone()))
            }
        }
    }
}

impl FromStr for ImageArgument {
    type Err = SourceError;

    /// Local with a prefix, with a path that looks like one, or when a file of that name exists. A directory's bare name is
    /// a reference, since names like `busybox` are common for both.
    fn from_str(text: &str) -> Result<Self, SourceError> {
        let prefixed = ["oci:", "oci-archive:", "docker-archive:", "disk:"]
            .iter()
            .any(|prefix| text.starts_with(prefix));
        let pathlike = ["/", "./", "../"].iter().any(|start| text.starts_with(start));
        if prefixed || pathlike || text == "-" || Path::new(text).is_file() {
            return Ok(Self::Local(text.parse()?));
        }
        // Digests of the pod's store are no references but name an image all the same.
        if !text.starts_with("sha256:") && !is_short_id(text) {
            text.parse::<ImageReference>()?;
        }
        Ok(Self::Reference(text.to_owned()))
    }
}

fn is_short_id(text: &str) -> bool {
    text.len() >= 12 && text.bytes().all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c))
}

impl fmt::Display for ImageSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OciDirectory { path, tag: None } => write!(f, "oci:{}", path.display()),
            Self::OciDirectory { path, tag: Some(tag) } => write!(f, "oci:{}:{tag}", path.display()),
            Self::Archive { path } => write!(f, "{}", path.display()),
            Self::Stdin => f.write_str("standard input"),
            Self::Disk { path } => write!(f, "disk:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_images_and_references_are_told_apart() {
        let local = |text: &str| matches!(text.parse(), Ok(ImageArgument::Local(_)));
        for text in
            ["oci:dir", "oci-archive:x.tar", "docker-archive:x", "disk:x", "./x.tar", "/x", "../x", "-"]
        {
            assert!(local(text), "{text}");
        }
        for text in ["busybox", "busybox:1.36", "10.0.2.2:5000/busybox", "0123456789ab"] {
            assert_eq!(text.parse(), Ok(ImageArgument::Reference(text.into())));
        }
        for text in ["", "UPPER", "oci:", "docker-archive:", "a b"] {
            assert!(text.parse::<ImageArgument>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_layout_may_name_one_of_its_images() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("with:colon");
        std::fs::create_dir(&path).unwrap();
        let parse = |text: String| text.parse::<ImageSource>().unwrap();
        assert_eq!(
            parse(format!("oci:{}", path.display())),
            ImageSource::OciDirectory { path: path.clone(), tag: None }
        );
        assert_eq!(
            parse("oci:/no/such:v1".into()),
            ImageSource::OciDirectory { path: "/no/such".into(), tag: Some("v1".into()) }
        );
        assert_eq!(parse(format!("oci:{}", path.display())).check(), Err(SourceError::NotALayout(path)));
        assert!(matches!(parse("/no/such.tar".into()).check(), Err(SourceError::Missing(_))));
    }
}
