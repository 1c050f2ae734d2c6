//! An image in the store: its names, its digests and its configuration.

use std::{fmt, sync::Arc};

use oci_spec::image::ImageConfiguration;
use postern_model::{ImageReference, Sha256};

/// The platform this guest runs.
pub(crate) const GUEST_PLATFORM: &str = "linux/amd64";

/// One image under one of its names. Cheap to clone.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    /// The name it was pushed or pulled under; an archive may carry none.
    pub reference: Option<ImageReference>,
    pub manifest_digest: Sha256,
    /// Digest of the image configuration: the image id.
    pub config_digest: Sha256,
    /// Bytes of the unpacked layers.
    pub size: u64,
    /// When the image was built, as its configuration says.
    pub created_unix_millis: Option<u64>,
    /// Diff ids, from the lowest layer up.
    pub layers: Arc<[Sha256]>,
    pub config: Arc<ImageConfiguration>,
}

impl Image {
    /// `os/architecture[/variant]`.
    pub fn platform(&self) -> String {
        let config = &self.config;
        platform_text(
            &config.os().to_string(),
            &config.architecture().to_string(),
            config.variant().as_deref(),
        )
    }
}

impl fmt::Display for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.reference {
            Some(reference) => reference.fmt(f),
            None => self.config_digest.fmt(f),
        }
    }
}

pub(crate) fn platform_text(os: &str, architecture: &str, variant: Option<&str>) -> String {
    match variant {
        Some(variant) if !variant.is_empty() => format!("{os}/{architecture}/{variant}"),
        _ => format!("{os}/{architecture}"),
    }
}

/// Milliseconds since the epoch of an RFC 3339 time; `None` for anything else or before 1970.
pub(crate) fn unix_millis(text: &str) -> Option<u64> {
    let number = |range: std::ops::Range<usize>| -> Option<i64> {
        let digits = text.get(range)?;
        digits.bytes().all(|c| c.is_ascii_digit()).then(|| digits.parse().ok())?
    };
    let separators = text.as_bytes();
    let expected = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    if !expected.iter().all(|&(at, c)| separators.get(at).is_some_and(|found| found.eq_ignore_ascii_case(&c)))
    {
        return None;
    }
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let rest = text.get(19..)?;
    let zone_at = rest.find(['Z', 'z', '+', '-'])?;
    let (fraction, zone) = rest.split_at(zone_at);
    let millis = match fraction.strip_prefix('.') {
        Some(digits) if !digits.is_empty() && digits.bytes().all(|c| c.is_ascii_digit()) => {
            format!("{digits:0<3}").get(..3)?.parse::<i64>().ok()?
        }
        None if fraction.is_empty() => 0,
        _ => return None,
    };
    let offset_minutes = match zone.as_bytes() {
        [b'Z' | b'z'] => 0,
        [sign, h1, h2, b':', m1, m2] if [h1, h2, m1, m2].iter().all(|c| c.is_ascii_digit()) => {
            let two = |a: &u8, b: &u8| i64::from(a - b'0') * 10 + i64::from(b - b'0');
            let minutes = two(h1, h2) * 60 + two(m1, m2);
            if *sign == b'-' { -minutes } else { minutes }
        }
        _ => return None,
    };
    let seconds = days_from_civil(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    u64::try_from((seconds - offset_minutes * 60) * 1000 + millis).ok()
}

/// Days from 1970-01-01 in the Gregorian calendar, counting years from March so that leap days come last.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_times_that_images_carry() {
        for (text, millis) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T12:00:00Z", 951_825_600_000),
            ("2024-05-01T10:20:30.123456789Z", 1_714_558_830_123),
            ("2024-05-01T12:20:30.5+02:00", 1_714_558_830_500),
            ("2024-05-01T08:20:30-02:00", 1_714_558_830_000),
        ] {
            assert_eq!(unix_millis(text), Some(millis), "{text}");
        }
    }

    #[test]
    fn refuses_other_times() {
        for text in [
            "",
            "2024",
            "0001-01-01T00:00:00Z",
            "2024-13-01T00:00:00Z",
            "2024-05-01T10:20:30",
            "2024-05-01T10:20:30.Z",
            "2024-05-01T1é:20:30Z",
        ] {
            assert_eq!(unix_millis(text), None, "{text}");
        }
    }
}
