//! Errors of commands as people see them: a code, what happened, why, and what to do.

use std::fmt::Write as _;

use serde::Serialize;

use crate::job_file::JobErrors;

use super::exit::Exit;
use super::text::{Color, Tone, escape};

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal => $exit:ident,)*) => {
        /// The kinds of errors of commands. A code that was released is never given to another kind.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        pub enum ErrorCode {
            $($(#[$doc])* #[serde(rename = $code)] $name,)*
        }

        impl ErrorCode {
            /// All, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The code as it is printed.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $code,)*
                }
            }

            /// How the process ends.
            pub fn exit(self) -> Exit {
                match self {
                    $(Self::$name => Exit::$exit,)*
                }
            }
        }
    };
}

codes! {
    /// The job file is not right; its own errors say where.
    BadJobFile = "E0201" => Usage,
    /// A file that was named cannot be read or written.
    File = "E0202" => Usage,
    /// There is no such run.
    NoRun = "E0203" => Usage,
    /// There is no such item in the run.
    NoItem = "E0204" => Usage,
    /// A value on the command line is not right.
    BadArgument = "E0205" => Usage,
    /// The program of a lane is not there, or cannot be executed.
    NoProgram = "E0206" => Usage,
    /// Another process runs this embedded ledger.
    LedgerBusy = "E0207" => Usage,
    /// The ledger was written by a newer release.
    LedgerTooNew = "E0208" => Usage,
    /// The run's status does not allow it.
    WrongStatus = "E0209" => Usage,
    /// A run that breached its tolerance cannot go on with the old one.
    NoBudget = "E0210" => Usage,
    /// Nothing matches the selection.
    NothingSelected = "E0211" => Usage,
    /// An endpoint cannot be reached, or refuses the credentials.
    Unreachable = "E0212" => Unreachable,
    /// The audit counted something else than the ledger says.
    AuditDisagrees = "E0213" => AuditDisagrees,
    /// The ledger's contents contradict themselves.
    LedgerBroken = "E0214" => Failed,
    /// A write or read failed for a reason that is none of the user's making.
    Internal = "E0215" => Failed,
    /// This release cannot do it.
    NotYet = "E0216" => Usage,
}

/// What went wrong with a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CliError {
    /// What kind.
    pub code: ErrorCode,
    /// What happened, as a sentence without its full stop.
    pub message: String,
    /// Why, as the layer below said it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// What to do, each a sentence or a command.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hints: Vec<String>,
    /// The errors of the job file, if that is what is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub errors: Option<JobErrors>,
}

impl CliError {
    /// An error that says what happened.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            cause: None,
            hints: Vec::new(),
            errors: None,
        }
    }

    /// With why it happened.
    #[must_use]
    pub fn because(mut self, cause: impl std::fmt::Display) -> Self {
        self.cause = Some(cause.to_string());
        self
    }

    /// With one more thing to do.
    #[must_use]
    pub fn hinted(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// How the process ends.
    pub fn exit(&self) -> Exit {
        self.code.exit()
    }

    /// For standard error, with a newline at its end.
    #[must_use]
    pub fn render(&self, color: Color) -> String {
        let mut out = String::new();
        for error in self.errors.iter().flat_map(|errors| &errors.0) {
            // Its first line is its title, the others are aligned text.
            let text = error.to_string();
            let (title, rest) = text.split_once('\n').unwrap_or((&text, ""));
            write!(out, "{}\n{rest}\n\n", heading(color, title))
                .expect("a String takes everything");
        }
        let title = format!("error[{}]: {}", self.code.as_str(), escape(&self.message));
        writeln!(out, "{}", heading(color, &title)).expect("a String takes everything");
        for line in self
            .cause
            .iter()
            .flat_map(|cause| cause.lines())
            .take(CAUSE_LINES_MAX)
        {
            let line = escape(line);
            writeln!(out, "  cause: {line}").expect("a String takes everything");
        }
        for hint in &self.hints {
            let help = color.paint(Tone::Busy, "help:");
            writeln!(out, "  {help} {}", escape(hint)).expect("a String takes everything");
        }
        out
    }

    /// For standard error under `--json`: one object on one line.
    #[must_use]
    pub fn render_json(&self) -> String {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Line<'a> {
            error: &'a CliError,
            exit_code: u8,
        }
        super::view::json_line(&Line {
            error: self,
            exit_code: self.exit().code(),
        })
    }
}

/// So many lines of a cause are shown; the log has the rest.
const CAUSE_LINES_MAX: usize = 5;

/// `error[E0101]` in the colour of errors, the message standing out.
fn heading(color: Color, title: &str) -> String {
    match title.split_once(": ") {
        Some((kind, message)) => {
            format!(
                "{}: {}",
                color.paint(Tone::Bad, kind),
                color.paint(Tone::Strong, message)
            )
        }
        None => title.to_owned(),
    }
}

impl From<JobErrors> for CliError {
    fn from(errors: JobErrors) -> Self {
        let file = errors
            .0
            .first()
            .map_or("the job file", |error| error.file.as_str());
        let message = match errors.0.len() {
            1 => format!("{file} has an error; nothing was started"),
            many => format!("{file} has {many} errors; nothing was started"),
        };
        let error = Self::new(ErrorCode::BadJobFile, message);
        Self {
            errors: Some(errors),
            ..error
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::job_file::{Executors, Overrides, ParseOptions, parse};

    #[test]
    fn codes_are_numbered_without_gap_or_double() {
        for (index, code) in ErrorCode::ALL.iter().enumerate() {
            assert_eq!(code.as_str(), format!("E{:04}", 201 + index));
        }
    }

    fn busy() -> CliError {
        CliError::new(ErrorCode::LedgerBusy, "another process runs this ledger")
            .because(".trommel/ledger.db is locked by process 4711\nsecond line\u{1b}[2J")
            .hinted("wait for it, or stop its run: trommel stop latest")
            .hinted("or give this run a ledger of its own: --ledger sqlite:other.db")
    }

    #[test]
    fn an_error_says_what_why_and_what_to_do() {
        insta::assert_snapshot!(busy().render(Color::Off), @r"
        error[E0207]: another process runs this ledger
          cause: .trommel/ledger.db is locked by process 4711
          cause: second line\u{1b}[2J
          help: wait for it, or stop its run: trommel stop latest
          help: or give this run a ledger of its own: --ledger sqlite:other.db
        ");
        insta::assert_snapshot!(busy().render(Color::On).lines().next().expect("a line").escape_debug(), @r"\u{1b}[1;31merror[E0207]\u{1b}[0m: \u{1b}[1manother process runs this ledger\u{1b}[0m");
    }

    #[test]
    fn an_error_is_one_json_object_a_line() {
        let line = busy().render_json();
        assert_eq!(line.lines().count(), 1);
        let json: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(json["exitCode"], 2);
        assert_eq!(json["error"]["code"], "E0207");
    }

    #[test]
    fn the_errors_of_a_job_file_come_first_and_are_counted() {
        let options = ParseOptions {
            executors: Executors::Commands,
            cores: 1,
            overrides: Overrides::default(),
        };
        let errors = parse(
            "nam = 1\n[function]\ncommand = [\"true\"]",
            "a.toml",
            Path::new("/"),
            &|_: &str| None,
            &options,
        )
        .expect_err("two errors");
        let error = CliError::from(errors);
        assert_eq!(error.exit(), Exit::Usage);
        insta::assert_snapshot!(error.render(Color::Off));
    }
}
