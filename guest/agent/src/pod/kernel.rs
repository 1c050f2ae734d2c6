//! Whether the guest's kernel has what an image says that it needs.
//!
//! A specialised kernel leaves out what one application does not use, and a program that misses something fails in
//! ways that do not name it. So an image can name the options that it needs, in a label, and the initramfs, which is
//! measured with the kernel, lists what that kernel has. A kernel of a distribution comes without the list, and then
//! nothing is refused.

use std::{collections::BTreeSet, fs, io, path::Path};

use oci_spec::image::ImageConfiguration;

/// The options that are built into this kernel, one a line, without `CONFIG_`.
const LIST: &str = "/lib/postern/kernel.options";
/// The label by which an image names the options that it needs, with blanks between.
const LABEL: &str = "org.postern.kernel-options";
/// How many missing options a message names.
const NAMED: usize = 16;
/// A longer name is no option, and not worth repeating.
const MAX_NAME: usize = 64;

/// The options of `image`'s label that the kernel lacks.
pub(super) fn missing(image: &ImageConfiguration) -> io::Result<Vec<String>> {
    let Some(label) = label(image) else { return Ok(Vec::new()) };
    Ok(match options(Path::new(LIST))? {
        Some(options) => lacking(&options, label),
        None => Vec::new(),
    })
}

fn label(image: &ImageConfiguration) -> Option<&str> {
    image.config().as_ref()?.labels().as_ref()?.get(LABEL).map(String::as_str)
}

fn options(list: &Path) -> io::Result<Option<BTreeSet<String>>> {
    match fs::read_to_string(list) {
        Ok(text) => Ok(Some(text.lines().map(str::to_owned).collect())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn lacking(options: &BTreeSet<String>, label: &str) -> Vec<String> {
    let is_option = |name: &&str| {
        name.len() <= MAX_NAME
            && name.bytes().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == b'_')
    };
    let named = label.split_whitespace().filter(is_option).filter(|name| !options.contains(*name));
    named.take(NAMED).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use oci_spec::image::{ConfigBuilder, ImageConfigurationBuilder, RootFsBuilder};

    use super::*;

    #[test]
    fn what_the_kernel_lacks_is_named() {
        let options = BTreeSet::from(["EPOLL".to_owned(), "AIO".to_owned()]);
        assert_eq!(lacking(&options, " AIO  EPOLL "), [""; 0]);
        assert_eq!(lacking(&options, "AIO SYSVIPC\nIPV6"), ["SYSVIPC", "IPV6"]);
        assert_eq!(
            lacking(&options, "\x1b[31m aio A,B"),
            [""; 0],
            "no names of options, and nothing to repeat"
        );
        assert_eq!(lacking(&options, &"X1 ".repeat(1000)).len(), NAMED);
        assert!(lacking(&options, &"X".repeat(65)).is_empty());
    }

    #[test]
    fn a_kernel_without_a_list_refuses_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kernel.options");
        assert_eq!(options(&path).unwrap(), None);
        fs::write(&path, "AIO\nEPOLL\n").unwrap();
        assert_eq!(options(&path).unwrap().unwrap().len(), 2);
    }

    #[test]
    fn the_label_is_the_images_own() {
        let labels = HashMap::from([(LABEL.to_owned(), "AIO".to_owned())]);
        let config = ConfigBuilder::default().labels(labels).build().unwrap();
        let rootfs = RootFsBuilder::default().typ("layers").diff_ids(Vec::<String>::new()).build().unwrap();
        let image = ImageConfigurationBuilder::default()
            .architecture("amd64")
            .os("linux")
            .rootfs(rootfs)
            .config(config)
            .build()
            .unwrap();
        assert_eq!(label(&image), Some("AIO"));
        assert_eq!(label(&ImageConfiguration::default()), None);
    }
}
