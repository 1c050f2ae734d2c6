//! Quantities as people write and read them: sizes, CPU shares, durations, moments, signals, variables.

use std::time::{SystemTime, UNIX_EPOCH};

/// `12.3 MB`; decimal, as docker prints sizes.
pub(crate) fn size(bytes: u64) -> String {
    scaled(bytes, 1000, &["B", "kB", "MB", "GB", "TB"])
}

/// `12.3 MiB`; binary, for memory.
pub(crate) fn memory(bytes: u64) -> String {
    scaled(bytes, 1024, &["B", "KiB", "MiB", "GiB", "TiB"])
}

fn scaled(bytes: u64, base: u64, units: &[&str]) -> String {
    let mut unit = 0;
    let mut value = bytes as f64;
    while value >= base as f64 && unit + 1 < units.len() {
        value /= base as f64;
        unit += 1;
    }
    match unit {
        0 => format!("{bytes} {}", units[0]),
        _ => format!("{value:.1} {}", units[unit]),
    }
}

/// Bytes as docker and Kubernetes write them: `64M`, `1g`, `128Mi`, `1.5GiB`, `4096`. Letters are powers of 1024, but
/// Kubernetes' `M` is not told apart: both readings are a limit, and the larger one is taken.
pub(crate) fn parse_memory(text: &str) -> Result<u64, String> {
    let lower = text.to_ascii_lowercase();
    let digits = lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len());
    let (number, unit) = lower.split_at(digits);
    let shift = match unit {
        "" | "b" => 0,
        "k" | "ki" | "kb" | "kib" => 10,
        "m" | "mi" | "mb" | "mib" => 20,
        "g" | "gi" | "gb" | "gib" => 30,
        "t" | "ti" | "tb" | "tib" => 40,
        _ => return Err(format!("unknown unit {unit:?}; use for example 64M or 1G")),
    };
    let scale = (1u64 << shift) as f64;
    match number.parse::<f64>() {
        Ok(value) if value > 0.0 && value * scale < 2f64.powi(53) => Ok((value * scale) as u64),
        _ => Err(format!("{text:?} is not a size; use for example 64M or 1G")),
    }
}

/// Thousandths of a CPU: `0.5`, `2`, `250m`.
pub(crate) fn parse_cpus(text: &str) -> Result<u64, String> {
    let millis = match text.strip_suffix('m') {
        Some(millis) => millis.parse::<u64>().ok(),
        None => text.parse::<f64>().ok().map(|cpus| (cpus * 1000.0).round()).and_then(|millis| {
            // Not a number and anything out of range fall out here.
            (0.0..=1e9).contains(&millis).then_some(millis as u64)
        }),
    };
    match millis {
        Some(millis @ 1..=1_000_000) => Ok(millis),
        _ => Err(format!("{text:?} is not a number of CPUs; use for example 0.5, 2 or 250m")),
    }
}

/// Milliseconds: `10s`, `5m`, `1h30m`, `500ms`, `2d`; a bare number is seconds.
pub(crate) fn parse_duration(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is not a duration; use for example 10s, 5m or 1h30m");
    if let Ok(seconds) = text.parse::<u64>() {
        return seconds.checked_mul(1000).ok_or_else(wrong);
    }
    let mut rest = text;
    let mut total = 0u64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let (number, tail) = rest.split_at(digits);
        let letters = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let scale = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(wrong()),
        };
        let part =
            number.parse::<u64>().ok().and_then(|number| number.checked_mul(scale)).ok_or_else(wrong)?;
        total = total.checked_add(part).ok_or_else(wrong)?;
        rest = tail;
    }
    match text.is_empty() {
        true => Err(wrong()),
        false => Ok(total),
    }
}

/// `--since`: a duration back from `now`, seconds since 1970, or RFC 3339 in UTC.
pub(crate) fn parse_since(text: &str, now_millis: u64) -> Result<u64, String> {
    if let Ok(seconds) = text.parse::<u64>() {
        return Ok(seconds.saturating_mul(1000));
    }
    if let Ok(ago) = parse_duration(text) {
        return Ok(now_millis.saturating_sub(ago));
    }
    parse_rfc3339(text)
        .ok_or_else(|| format!("{text:?} is no moment; use for example 10m or 2026-01-31T12:00:00Z"))
}

fn parse_rfc3339(text: &str) -> Option<u64> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let (whole, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let numbers = |text: &str, mark: char| -> Option<[u64; 3]> {
        let parts: Vec<u64> = text.split(mark).map(|part| part.parse().ok()).collect::<Option<_>>()?;
        parts.try_into().ok()
    };
    let [year, month, day] = numbers(date, '-')?;
    let [hour, minute, second] = numbers(whole, ':')?;
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    if hour > 23 || minute > 59 || second > 60 || !fraction.bytes().all(|c| c.is_ascii_digit()) {
        return None;
    }
    let millis: u64 = format!("{fraction:0<3}")[..3].parse().ok()?;
    let seconds = days_from_civil(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    Some(seconds * 1000 + millis)
}

/// `2026-01-31T12:00:00.123Z`.
pub(crate) fn rfc3339(unix_millis: u64) -> String {
    let (seconds, millis) = (unix_millis / 1000, unix_millis % 1000);
    let (year, month, day) = civil_from_days(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// Days since 1970 of a date of the Gregorian calendar, counting from March so that leap days come last.
fn days_from_civil(year: u64, month: u64, day: u64) -> u64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year / 400, year % 400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// `3 minutes ago`.
pub(crate) fn ago(unix_millis: u64, now_millis: u64) -> String {
    format!("{} ago", span(now_millis.saturating_sub(unix_millis)))
}

/// `3 minutes`, to the largest unit.
pub(crate) fn span(millis: u64) -> String {
    let seconds = millis / 1000;
    let (count, unit) = match seconds {
        0..60 => (seconds, "second"),
        60..3600 => (seconds / 60, "minute"),
        3600..86_400 => (seconds / 3600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

pub(crate) fn now_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The first twelve digits, as docker shows ids.
pub(crate) fn short_digest(digest: &str) -> String {
    digest.strip_prefix("sha256:").unwrap_or(digest).chars().take(12).collect()
}

const SIGNALS: [(&str, u32); 31] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("PWR", 30),
    ("SYS", 31),
];

/// `KILL`, `SIGKILL`, `kill` or `9`.
pub(crate) fn parse_signal(text: &str) -> Result<u32, String> {
    if let Ok(number) = text.parse::<u32>() {
        return match number {
            1..=64 => Ok(number),
            _ => Err(format!("{number} is no signal; signals are 1 to 64")),
        };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let known = SIGNALS.iter().find(|(known, _)| *known == name).map(|&(_, number)| number);
    known.ok_or_else(|| format!("{text:?} is no signal; use for example TERM, SIGKILL or 9"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_are_read_as_written() {
        for (text, bytes) in
            [("4096", 4096), ("64M", 64 << 20), ("1g", 1 << 30), ("128Mi", 128 << 20), ("1.5KiB", 1536)]
        {
            assert_eq!(parse_memory(text), Ok(bytes), "{text}");
        }
        for text in ["", "M", "-1", "0", "1X", "1e9", "99999999T", "1.2.3"] {
            assert!(parse_memory(text).is_err(), "{text}");
        }
    }

    #[test]
    fn cpus_are_read_as_written() {
        assert_eq!(parse_cpus("0.5"), Ok(500));
        assert_eq!(parse_cpus("2"), Ok(2000));
        assert_eq!(parse_cpus("250m"), Ok(250));
        for text in ["", "0", "-1", "NaN", "inf", "x", "1e30", "0m"] {
            assert!(parse_cpus(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_and_moments_are_read_as_written() {
        assert_eq!(parse_duration("90"), Ok(90_000));
        assert_eq!(parse_duration("1h30m"), Ok(5_400_000));
        assert_eq!(parse_duration("500ms"), Ok(500));
        for text in ["", "x", "5", "5y", "-5s", "s5"].iter().filter(|text| **text != "5") {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        assert_eq!(parse_since("10s", 60_000), Ok(50_000));
        assert_eq!(parse_since("2000-02-29T00:00:01.5Z", 0), Ok(951_782_401_500));
        assert!(parse_since("yesterday", 0).is_err());
        assert!(parse_since("2000-13-01T00:00:00Z", 0).is_err());
    }

    #[test]
    fn signals_are_read_as_written() {
        for text in ["KILL", "SIGKILL", "kill", "9"] {
            assert_eq!(parse_signal(text), Ok(9));
        }
        for text in ["", "0", "65", "NOPE", "SIG"] {
            assert!(parse_signal(text).is_err(), "{text}");
        }
    }

    #[test]
    fn quantities_read_well() {
        assert_eq!(size(999), "999 B");
        assert_eq!(size(1_900_000), "1.9 MB");
        assert_eq!(memory(256 << 20), "256.0 MiB");
        assert_eq!(span(61_000), "1 minute");
        assert_eq!(rfc3339(951_782_401_500), "2000-02-29T00:00:01.500Z");
    }

    proptest! {
        #[test]
        fn a_moment_survives_being_written(millis in 0u64..253_402_300_800_000) {
            prop_assert_eq!(parse_since(&rfc3339(millis), 0), Ok(millis));
        }
    }
}
