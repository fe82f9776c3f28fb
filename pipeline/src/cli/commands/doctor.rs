//! `doctor`: a line a check, and what to do about it.

use std::fmt::Write as _;

use super::provision::read;
use crate::adapters::aws::{Check, Clients, Endpoint, Health, examine};
use crate::adapters::tokio_runtime;
use crate::cli::args::{DoctorArgs, Global};
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::text::{Color, Tone, escape};
use crate::cli::view::json_line;

/// `trommel doctor JOB`.
pub(super) async fn doctor(global: &Global, args: DoctorArgs) -> Result<Exit, CliError> {
    let job = read(global, &args.job)?;
    let clients = Clients::open(Endpoint::from_env()).await;
    let runtime = tokio_runtime::runtime();
    let mut checks = examine(&clients, &job, runtime.clock.as_ref()).await;
    let file = args.job.display().to_string();
    for check in &mut checks {
        check.help = check.help.take().map(|help| help.replace("JOB", &file));
    }
    let worst = checks.iter().map(|check| check.health).max();
    let exit = match worst {
        Some(Health::Fail) => Exit::Unreachable,
        Some(Health::Ok | Health::Warn) | None => Exit::Success,
    };
    if global.json {
        let value = serde_json::json!({
            "job": job.name.as_str(), "health": worst.unwrap_or(Health::Ok), "checks": checks,
        });
        crate::cli::print(&json_line(&value))?;
    } else {
        crate::cli::print(&told(&checks, Color::of_stdout()))?;
    }
    Ok(exit)
}

fn told(checks: &[Check], color: Color) -> String {
    let mut out = String::new();
    for check in checks {
        let tone = match check.health {
            Health::Ok => Tone::Good,
            Health::Warn => Tone::Warn,
            Health::Fail => Tone::Bad,
        };
        let health = color.paint(tone, &format!("{:<4}", check.health.as_str()));
        let (what, found) = (escape(&check.what), escape(&check.found));
        let help = check.help.as_deref().map(escape);
        let help = help.map_or_else(String::new, |help| format!("; {help}"));
        writeln!(out, "{health}  {what}: {found}{help}").expect("a String takes everything");
    }
    let failed = checks.iter().filter(|check| check.health == Health::Fail);
    let warned = checks.iter().filter(|check| check.health == Health::Warn);
    let (failed, warned) = (failed.count(), warned.count());
    let all = checks.len();
    writeln!(out, "{all} checks: {failed} fail, {warned} warn").expect("a String takes everything");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_is_one_line_with_what_to_do() {
        let check = |health, help: Option<&str>| Check {
            what: "policy of inbox".to_owned(),
            health,
            found: "does not let S3 send".to_owned(),
            help: help.map(str::to_owned),
        };
        let checks = [
            check(Health::Ok, None),
            check(
                Health::Fail,
                Some("trommel provision a.toml --apply makes it so"),
            ),
        ];
        insta::assert_snapshot!(told(&checks, Color::Off), @r"
        ok    policy of inbox: does not let S3 send
        fail  policy of inbox: does not let S3 send; trommel provision a.toml --apply makes it so
        2 checks: 1 fail, 0 warn
        ");
    }
}
