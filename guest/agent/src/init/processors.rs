//! The other processors. The kernel starts with one (`maxcpus=1` on the image's command line), because patching its own
//! code while several run is what takes longest under emulation; the rest come up when the pod is somebody's.

use std::{fs, path::Path};

const PROCESSORS: &str = "/sys/devices/system/cpu";

/// Brings up every processor that is not; blocks meanwhile. One that does not come up is a slower pod and no reason to
/// end it.
pub(super) fn wake() {
    for number in offline(Path::new(PROCESSORS)) {
        let _ = fs::write(Path::new(PROCESSORS).join(format!("cpu{number}/online")), "1");
    }
}

fn offline(directory: &Path) -> Vec<u32> {
    fs::read_to_string(directory.join("offline")).map(|list| parse(list.trim())).unwrap_or_default()
}

/// A list such as `1-3,7` (Documentation/admin-guide/cputopology.rst).
fn parse(list: &str) -> Vec<u32> {
    /// More than a pod can have; the list names possible processors too.
    const MAX: u32 = 512;
    let mut numbers = Vec::new();
    for range in list.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        if let (Ok(first), Ok(last)) = (first.parse::<u32>(), last.parse::<u32>()) {
            numbers.extend(first..=last.min(MAX));
        }
    }
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_kernels_lists() {
        assert_eq!(parse("1-3,7"), [1, 2, 3, 7]);
        assert_eq!(parse("1"), [1]);
        assert!(parse("").is_empty());
        assert!(parse("3-1,x,2-").is_empty());
        assert_eq!(parse("0-4294967295").len(), 513);
    }

    #[test]
    fn leaves_alone_what_does_not_exist() {
        let directory = tempfile::tempdir().unwrap();
        assert!(offline(directory.path()).is_empty());
        fs::write(directory.path().join("offline"), "1\n").unwrap();
        assert_eq!(offline(directory.path()), [1]);
    }
}
