//! Sizes, durations and whole-number ranges as people write them.

use std::time::Duration;

/// No duration of a job is longer than this; Amazon States Language allows 99,999,999 seconds at
/// most ("Task", TimeoutSeconds), which is a little over three years.
pub(super) const DURATION_MAX: Duration = Duration::from_secs(99_999_999);

/// Reads `"30s"`, `"1min"`, `"2h 30min"`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let duration =
        humantime::parse_duration(text.trim()).map_err(|_| format!("{text:?} is no duration"))?;
    if duration > DURATION_MAX {
        return Err(format!("{text:?} is longer than 99,999,999 seconds"));
    }
    Ok(duration)
}

/// Reads `"64 MiB"`, `"1.5 GB"`, `"4096"`, in bytes.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let bad = || format!("{text:?} is no size");
    let compact = text.trim().replace('_', "");
    let unit = compact.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let number = compact[..compact.len() - unit.len()].trim();
    let whole: Result<u64, _> = number.parse();
    if let (Ok(number), "") = (whole, unit.trim()) {
        return Ok(number);
    }
    // Above 2^63 a multiplication inside the crate would saturate without a word.
    let size: bytesize::ByteSize = compact.parse().map_err(|_| bad())?;
    if size.as_u64() > i64::MAX as u64 {
        return Err(format!("{text:?} is more than 8 EiB"));
    }
    Ok(size.as_u64())
}

/// Reads `"0..1_000_000"`: the first number and one past the last.
pub(super) fn range(text: &str) -> Result<(i64, i64), String> {
    let bad = || format!("{text:?} is no range");
    let (start, end) = text.split_once("..").ok_or_else(bad)?;
    let number = |text: &str| text.trim().replace('_', "").parse::<i64>();
    let start = number(start).map_err(|_| bad())?;
    let end = number(end).map_err(|_| bad())?;
    if end < start {
        return Err(format!("{text:?} ends before it begins"));
    }
    Ok((start, end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_in_both_kinds_of_units() {
        assert_eq!(size("64 MiB"), Ok(64 << 20));
        assert_eq!(size("64MB"), Ok(64_000_000));
        assert_eq!(size("1_000"), Ok(1000));
        assert_eq!(size("1.5 KiB"), Ok(1536));
        assert_eq!(size("0"), Ok(0));
        for bad in [
            "",
            "64 Mi B",
            "-1",
            "lots",
            "MiB",
            "1 parsec",
            "99999999 EiB",
        ] {
            assert!(size(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn durations_have_a_unit_and_a_bound() {
        assert_eq!(duration("1min"), Ok(Duration::from_mins(1)));
        assert_eq!(duration("2h 30min"), Ok(Duration::from_mins(150)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        for bad in ["", "5", "1 fortnight", "-1s", "4 years"] {
            assert!(duration(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn ranges_are_half_open() {
        assert_eq!(range("0..1_000_000"), Ok((0, 1_000_000)));
        assert_eq!(range("-5 .. 5"), Ok((-5, 5)));
        assert_eq!(range("3..3"), Ok((3, 3)), "an empty range is a range");
        for bad in ["", "5", "0..=5", "5..0", "a..b", "0..99999999999999999999"] {
            assert!(range(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let _ = (duration(&text), size(&text), range(&text));
        }
    }
}
