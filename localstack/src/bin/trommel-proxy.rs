//! The chaos proxy by itself, for people: point `AWS_ENDPOINT_URL` at it and watch your own program.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program talks to people"
)]

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use trommel_localstack::Proxy;
use trommel_localstack::proxy::{Chaos, Fault, Forcing, LATE_MAX, MILLION, Rates};

/// A proxy before an emulator of AWS that loses, delays, refuses and throttles requests to DynamoDB, SQS and S3,
/// by chance that a seed repeats. Ctrl-C ends it and prints what struck what.
#[derive(Debug, Parser)]
#[command(name = "trommel-proxy")]
struct Args {
    /// The emulator
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:4566")]
    to: String,
    /// Where to listen, on the loopback interface
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:4570")]
    listen: SocketAddr,
    /// Chance: the same seed strikes the same calls of each operation
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How often each fault strikes, such as 5% or 0.1%
    #[arg(long, value_name = "PERCENT", default_value = "5%", value_parser = percent)]
    rate: u32,
    /// How often one fault strikes instead, such as reply-lost=20%; may be repeated
    #[arg(long, value_name = "FAULT=PERCENT", value_parser = one_fault)]
    fault: Vec<(Fault, u32)>,
    /// Every fault strikes every operation at least once, at one of its first calls
    #[arg(long)]
    force_each_pair: bool,
    /// A late answer is this late at most, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = LATE_MAX.as_millis() as u64)]
    late_max: u64,
}

/// A percentage in parts of a million.
fn percent(text: &str) -> Result<u32, String> {
    let number = text.trim().trim_end_matches('%').trim_end();
    let percent: f64 = number
        .parse()
        .map_err(|_| format!("{text}: use a percentage such as 5%"))?;
    if !(0.0..=100.0).contains(&percent) {
        return Err(format!("{text}: use a percentage from 0% to 100%"));
    }
    Ok((percent / 100.0 * f64::from(MILLION)).round() as u32)
}

fn one_fault(text: &str) -> Result<(Fault, u32), String> {
    let (name, rate) = text
        .split_once('=')
        .ok_or_else(|| format!("{text}: use a fault and its rate, such as reply-lost=20%"))?;
    Ok((name.parse()?, percent(rate)?))
}

impl Args {
    fn chaos(&self) -> Result<Chaos, String> {
        let named = self.fault.iter();
        let rates = named.fold(Rates::each(self.rate), |rates, (fault, rate)| {
            rates?.with(*fault, *rate)
        })?;
        Ok(Chaos {
            seed: self.seed,
            rates,
            forcing: if self.force_each_pair {
                Forcing::EachPair
            } else {
                Forcing::None
            },
            late_max: Duration::from_millis(self.late_max),
        })
    }
}

fn run(args: &Args) -> Result<(), String> {
    let proxy = Proxy::start_at(args.listen, &args.to, args.chaos()?).map_err(|e| e.to_string())?;
    eprintln!(
        "{} leads to {}, with faults of seed {}; Ctrl-C ends it",
        proxy.url(),
        args.to,
        args.seed
    );
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| e.to_string())?;
    runtime
        .block_on(tokio::signal::ctrl_c())
        .map_err(|e| e.to_string())?;
    println!("{}", proxy.counts().report());
    Ok(())
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::from(2)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_are_parts_of_a_million() {
        assert_eq!(percent("5%"), Ok(50_000));
        assert_eq!(percent("0.1 %"), Ok(1_000));
        assert_eq!(percent("100"), Ok(1_000_000));
        assert!(percent("101%").is_err());
        assert!(percent("-1%").is_err());
        assert!(percent("some").is_err());
    }

    #[test]
    fn one_fault_may_have_a_rate_of_its_own() {
        let args = Args::parse_from(["trommel-proxy", "--rate", "0%", "--fault", "reply-lost=20%"]);
        let expected = Rates::each(0).and_then(|rates| rates.with(Fault::ReplyLost, 200_000));
        assert_eq!(args.chaos().map(|chaos| chaos.rates), expected);
        assert_eq!(
            one_fault("lost=1%").map_err(|why| why.contains("reply-lost")),
            Err(true)
        );
    }
}
