//! When a kernel is entered, by the guest's own counter: what the firmware takes is not the kernel's, whichever it is.
//!
//! A kernel has no clock before it has made one. So the same image is booted once more with a kernel that ends where the
//! real one begins: its first instructions are replaced by some that say on the console what the processor's counter, which
//! the machine begins at zero, has come to, and reset the machine. All else, its length too, is as it was.

use std::{fs, path::Path};

use anyhow::{Context as _, ensure};
use postern_tests::home::Home;
use serde_json::{Value, json};

use super::{Boot, POD};

// Linux's boot protocol (Documentation/arch/x86/boot.rst): where a bzImage says what it is, and its parts begin.
const SETUP_SECTORS: usize = 0x1f1;
const MAGIC: usize = 0x202;
const JUMP: usize = 0x201;
const SECTOR: usize = 512;
/// What is said: this, and the counter's sixteen digits, as letters from `a` on.
const MARK: char = '@';
const DIGITS: usize = 16;

/// `rdtsc`; for the mark and each digit: wait for the serial port (status at 0x3fd), write it (0x3f8); two line feeds; then
/// an interrupt without a table of interrupts, by which a processor gives up. In real mode, where firmware enters.
const REAL_MODE: [u8; 75] = [
    0xfa, 0x0f, 0x31, 0x66, 0x89, 0xd5, 0x66, 0x89, 0xc3, 0x66, 0xb9, 0x13, 0x00, 0x00, 0x00, 0xb0, 0x40,
    0x88, 0xc4, 0xba, 0xfd, 0x03, 0xec, 0xa8, 0x20, 0x74, 0xf8, 0x88, 0xe0, 0xba, 0xf8, 0x03, 0xee, 0xb0,
    0x0a, 0x80, 0xf9, 0x03, 0x76, 0x12, 0x66, 0x89, 0xe8, 0x66, 0xc1, 0xe8, 0x1c, 0x04, 0x61, 0x66, 0x0f,
    0xa4, 0xdd, 0x04, 0x66, 0xc1, 0xe3, 0x04, 0xfe, 0xc9, 0x75, 0xd3, 0x6a, 0x00, 0x6a, 0x00, 0x6a, 0x00,
    0x89, 0xe5, 0x0f, 0x01, 0x5e, 0x00, 0xcc,
];
/// The same for protected mode, where a loader may enter that has done the first part itself.
const PROTECTED_MODE: [u8; 66] = [
    0xfa, 0x0f, 0x31, 0x89, 0xd5, 0x89, 0xc3, 0xb9, 0x13, 0x00, 0x00, 0x00, 0xb0, 0x40, 0x88, 0xc4, 0x66,
    0xba, 0xfd, 0x03, 0xec, 0xa8, 0x20, 0x74, 0xf7, 0x88, 0xe0, 0x66, 0xba, 0xf8, 0x03, 0xee, 0xb0, 0x0a,
    0x80, 0xf9, 0x03, 0x76, 0x0e, 0x89, 0xe8, 0xc1, 0xe8, 0x1c, 0x04, 0x61, 0x0f, 0xa4, 0xdd, 0x04, 0xc1,
    0xe3, 0x04, 0xfe, 0xc9, 0x75, 0xd5, 0x6a, 0x00, 0x6a, 0x00, 0x0f, 0x01, 0x1c, 0x24, 0xcc,
];

/// The image at `of`, at `out`, with a kernel that says when it is entered.
pub(super) fn image(of: &Path, out: &Path) -> anyhow::Result<()> {
    fs::create_dir(out)?;
    for file in fs::read_dir(of)? {
        let file = file?;
        fs::copy(file.path(), out.join(file.file_name()))?;
    }
    let manifest = out.join("image.json");
    let mut image: Value = serde_json::from_slice(&fs::read(&manifest)?)?;
    let kernel = out.join(image["kernel"]["file"].as_str().context("image.json names no kernel")?);
    let mut bytes = fs::read(&kernel)?;
    replace_entries(&mut bytes)?;
    let digest = hex::encode(ring::digest::digest(&ring::digest::SHA256, &bytes));
    image["kernel"]["sha256"] = json!(format!("sha256:{digest}"));
    fs::write(&kernel, bytes)?;
    Ok(fs::write(&manifest, serde_json::to_vec(&image)?)?)
}

fn replace_entries(kernel: &mut [u8]) -> anyhow::Result<()> {
    ensure!(kernel.get(MAGIC..MAGIC + 4) == Some(b"HdrS"), "the kernel is no bzImage");
    let sectors = match kernel[SETUP_SECTORS] {
        0 => 4,
        sectors => usize::from(sectors),
    };
    let real = MAGIC + usize::from(kernel[JUMP]);
    for (at, code) in [(real, &REAL_MODE[..]), ((sectors + 1) * SECTOR, &PROTECTED_MODE[..])] {
        kernel.get_mut(at..at + code.len()).context("the kernel is too short")?.copy_from_slice(code);
    }
    Ok(())
}

/// Milliseconds from the start of the machine to the entry of its kernel; `image` is one of ours.
pub(super) fn millis(home: &Home, boot: &Boot, image: &Path, tsc_khz: f64) -> anyhow::Result<f64> {
    let image = image.to_string_lossy();
    let create = ["pod", "create", POD, "--accept-risk=simulated-tee", "--machine", boot.machine];
    // It fails, because the machine ends, and says what was on the console last.
    let said = home.postern(&[&create[..], &["--image-dir", &*image]].concat())?;
    let ticks = ticks(&said.stderr).with_context(|| format!("no kernel was entered: {}", said.stderr))?;
    Ok(ticks as f64 / tsc_khz)
}

fn ticks(said: &str) -> Option<u64> {
    let digits = said.split_once(MARK)?.1.get(..DIGITS)?;
    let digit = |c: u8| c.checked_sub(b'a').filter(|digit| *digit < 16);
    digits.bytes().try_fold(0, |ticks, c| Some(ticks << 4 | u64::from(digit(c)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kernel_says() {
        assert_eq!(ticks("its standard output said last: @aaaaaaaaabeolmgk\nhint"), Some(0x14e_bc6a));
        for said in ["", "@", "@aaaaaaaaabeolmg", "@aaaaaaaaabeolmgz", "aaaaaaaaabeolmgk"] {
            assert_eq!(ticks(said), None, "{said}");
        }
    }

    #[test]
    fn only_a_kernels_entries_are_replaced() {
        let mut kernel = vec![0x11; 64 * SECTOR];
        assert!(replace_entries(&mut kernel).is_err());
        kernel[MAGIC..MAGIC + 4].copy_from_slice(b"HdrS");
        (kernel[JUMP], kernel[SETUP_SECTORS]) = (0x6a, 27);
        let before = kernel.clone();
        replace_entries(&mut kernel).unwrap();
        assert_eq!(kernel[MAGIC + 0x6a..][..75], REAL_MODE);
        assert_eq!(kernel[28 * SECTOR..][..66], PROTECTED_MODE);
        assert_eq!(kernel.len(), before.len());
        let changed = kernel.iter().zip(&before).filter(|(now, then)| now != then).count();
        assert!(changed <= 75 + 66);
        assert!(replace_entries(&mut kernel[..20 * SECTOR]).is_err());
    }
}
