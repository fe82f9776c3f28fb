//! The log: for operators, on standard error, warnings and errors unless asked for more.

use std::io;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use super::args::LogFormat;
use super::screen;
use super::text::Color;

/// What is logged where nothing else is said.
const FILTER_DEFAULT: &str = "warn";

/// Standard error, above the block that may be drawn there.
#[derive(Clone, Copy, Debug)]
struct AboveTheBlock;

impl io::Write for AboveTheBlock {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        screen::above(|| io::stderr().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

impl MakeWriter<'_> for AboveTheBlock {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        *self
    }
}

/// The filter: `TROMMEL_LOG`, else `RUST_LOG`, else warnings. One that cannot be read is told and
/// replaced by the default.
fn filter(env: impl Fn(&str) -> Option<String>) -> (EnvFilter, Option<String>) {
    let asked = ["TROMMEL_LOG", "RUST_LOG"].into_iter().find_map(|name| {
        env(name)
            .filter(|text| !text.is_empty())
            .map(|text| (name, text))
    });
    let Some((name, text)) = asked else {
        return (EnvFilter::new(FILTER_DEFAULT), None);
    };
    match EnvFilter::try_new(&text) {
        Ok(filter) => (filter, None),
        Err(error) => {
            let complaint = format!("{name}={text:?} cannot be read: {error}");
            (EnvFilter::new(FILTER_DEFAULT), Some(complaint))
        }
    }
}

/// Sets the log up for this process; a second call changes nothing.
pub fn init(format: LogFormat) {
    let (filter, complaint) = filter(|name| std::env::var(name).ok());
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(AboveTheBlock);
    let set = match format {
        LogFormat::Text => builder
            .with_ansi(Color::of_stderr() == Color::On)
            .with_target(false)
            .compact()
            .try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    if let (Ok(()), Some(complaint)) = (set, complaint) {
        tracing::warn!(complaint, "log filter ignored");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_variable_wins_and_nonsense_is_told() {
        let none = filter(|_| None);
        assert_eq!((none.0.to_string().as_str(), none.1), ("warn", None));
        let both = filter(|name| {
            Some(
                if name == "TROMMEL_LOG" {
                    "debug"
                } else {
                    "error"
                }
                .to_owned(),
            )
        });
        assert_eq!(both.0.to_string(), "debug");
        let (filter, complaint) =
            filter(|name| (name == "RUST_LOG").then(|| "trommel=loud".to_owned()));
        assert_eq!(filter.to_string(), "warn");
        assert!(complaint.expect("it is told").contains("RUST_LOG"));
    }
}
