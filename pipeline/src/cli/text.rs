//! Numbers, durations and strange texts as people can read them.

use std::fmt::Write as _;
use std::time::Duration;

/// Whether colours may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Color {
    /// ANSI sequences go out.
    On,
    /// Plain text only.
    Off,
}

impl Color {
    /// For standard error: a terminal that is not dumb, and no `NO_COLOR`.
    pub fn of_stderr() -> Self {
        Self::of(std::io::IsTerminal::is_terminal(&std::io::stderr()))
    }

    /// For standard output, alike.
    pub fn of_stdout() -> Self {
        Self::of(std::io::IsTerminal::is_terminal(&std::io::stdout()))
    }

    fn of(is_terminal: bool) -> Self {
        let is_refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        if is_terminal && !is_refused && !is_dumb {
            Self::On
        } else {
            Self::Off
        }
    }

    /// The text in a tone.
    #[must_use]
    pub fn paint(self, tone: Tone, text: &str) -> String {
        match self {
            Self::On if !text.is_empty() => format!("\x1b[{}m{text}\x1b[0m", tone.sequence()),
            Self::On | Self::Off => text.to_owned(),
        }
    }
}

/// What a text means, for its colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// It went well.
    Good,
    /// It went wrong.
    Bad,
    /// It wants attention.
    Warn,
    /// It is going on.
    Busy,
    /// It is there for those who look.
    Dim,
    /// It stands out.
    Strong,
}

impl Tone {
    fn sequence(self) -> &'static str {
        match self {
            Self::Good => "32",
            Self::Bad => "1;31",
            Self::Warn => "33",
            Self::Busy => "36",
            Self::Dim => "2",
            Self::Strong => "1",
        }
    }
}

/// The text with everything that could drive a terminal made visible: a key or a cause may hold
/// newlines, escape sequences, or marks that turn the direction of writing.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        let turns = matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        match c {
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            _ if c.is_control() || turns => {
                write!(out, "\\u{{{:x}}}", u32::from(c)).expect("a String takes everything");
            }
            _ => out.push(c),
        }
    }
    out
}

/// The text cut to so many characters, the last an ellipsis if something was cut.
#[must_use]
pub fn fit(text: &str, chars_max: usize) -> String {
    if text.chars().count() <= chars_max {
        return text.to_owned();
    }
    let kept: String = text.chars().take(chars_max.saturating_sub(1)).collect();
    if chars_max == 0 {
        kept
    } else {
        format!("{kept}…")
    }
}

/// `12 345 678`.
#[must_use]
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(digit);
    }
    out
}

/// `1 attempt`, `2 attempts`.
#[must_use]
pub fn counted(number: u64, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {what}{plural}", grouped(number))
}

/// `00:04:12`, or `3d 00:04:12`.
#[must_use]
pub fn clock(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (days, hours) = (seconds / 86_400, seconds / 3600 % 24);
    let time = format!("{hours:02}:{:02}:{:02}", seconds / 60 % 60, seconds % 60);
    if days == 0 {
        time
    } else {
        format!("{days}d {time}")
    }
}

/// `1.2 s`, `15 ms`, or [`clock`] from a minute on: how long one call took.
#[must_use]
pub fn short(duration: Duration) -> String {
    match duration.as_millis() {
        ms @ 0..1000 => format!("{ms} ms"),
        ms @ 1000..60_000 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        _ => clock(duration),
    }
}

/// The share in percent with one decimal, rounded so that neither nothing nor everything is claimed
/// when it is not so: 1 of a million is `<0.1 %`, 999,999 of a million is `99.9 %`.
#[must_use]
pub fn share(part: u64, whole: u64) -> String {
    if whole == 0 {
        return String::new();
    }
    let tenths = u128::from(part) * 1000 / u128::from(whole);
    match tenths {
        0 if part > 0 => "<0.1 %".to_owned(),
        tenths => format!("{}.{} %", tenths / 10, tenths % 10),
    }
}

/// `48.1/s`, `12 345/s`.
#[must_use]
pub fn rate(per_second: f64) -> String {
    if !per_second.is_finite() || per_second < 0.0 {
        return "–/s".to_owned();
    }
    if per_second < 1000.0 {
        format!("{per_second:.1}/s")
    } else {
        format!("{}/s", grouped(per_second as u64))
    }
}

/// A moment as `2026-11-22T22:27:05Z`.
#[must_use]
pub fn moment(at: crate::core::time::Timestamp) -> String {
    match jiff::Timestamp::from_millisecond(at.0) {
        Ok(moment) => moment.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        Err(_) => at.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_are_grouped_by_three() {
        let numbers = [0, 7, 999, 1000, 12_345, 1_234_567].map(grouped);
        assert_eq!(numbers, ["0", "7", "999", "1 000", "12 345", "1 234 567"]);
    }

    #[test]
    fn durations_read_as_clocks() {
        assert_eq!(clock(Duration::from_secs(252)), "00:04:12");
        assert_eq!(clock(Duration::from_secs(3 * 86_400 + 61)), "3d 00:01:01");
        assert_eq!(short(Duration::from_millis(15)), "15 ms");
        assert_eq!(short(Duration::from_millis(1250)), "1.2 s");
        assert_eq!(short(Duration::from_secs(75)), "00:01:15");
    }

    #[test]
    fn a_share_never_claims_all_or_nothing_wrongly() {
        assert_eq!(share(0, 0), "");
        assert_eq!(share(0, 5), "0.0 %");
        assert_eq!(share(1, 1_000_000), "<0.1 %");
        assert_eq!(share(999_999, 1_000_000), "99.9 %");
        assert_eq!(share(5, 5), "100.0 %");
    }

    #[test]
    fn moments_are_in_utc() {
        assert_eq!(
            moment(crate::core::time::Timestamp(0)),
            "1970-01-01T00:00:00Z"
        );
        assert_eq!(
            moment(crate::core::time::Timestamp(i64::MAX)),
            i64::MAX.to_string()
        );
    }

    proptest! {
        #[test]
        fn an_escaped_text_cannot_drive_a_terminal(text in "(?s).{0,60}") {
            let escaped = escape(&text);
            prop_assert!(!escaped.contains(char::is_control));
            let turns = escaped.contains('\u{202e}');
            prop_assert!(!turns);
            prop_assert!(fit(&escaped, 7).chars().count() <= 7);
        }
    }
}
