//! The command line as it is typed, and its help.

use std::fmt::Write as _;

use clap::CommandFactory as _;

use super::*;
use crate::core::outcome::Outcome;

fn command(line: &str) -> Result<Command, String> {
    let words = line.split_whitespace();
    Cli::try_parse_from(words)
        .map(|cli| cli.command)
        .map_err(|error| error.to_string())
}

#[test]
fn the_definition_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn help_is_reviewed_like_code() {
    let mut whole = Cli::command().term_width(100);
    whole.build();
    let mut help = whole.render_help().to_string();
    for command in whole
        .get_subcommands_mut()
        .filter(|command| !command.is_hide_set())
    {
        let text = command.clone().term_width(100).render_help();
        write!(help, "\n\n=== {}\n{text}", command.get_name()).expect("a String takes everything");
    }
    let trimmed: Vec<&str> = help.lines().map(str::trim_end).collect();
    insta::assert_snapshot!("help", trimmed.join("\n"));
}

#[test]
fn a_run_that_is_not_named_is_the_latest() {
    let Ok(Command::Pause(one)) = command("trommel pause") else {
        panic!("pause takes no more");
    };
    assert_eq!(one.run, RunRef::Latest);
    let Ok(Command::Items(items)) =
        command("trommel items brave-heron-4f2a --state timed-out --state failed")
    else {
        panic!("items takes states");
    };
    assert_eq!(items.run.run, RunRef::Id(RunId::new("brave-heron-4f2a")));
    let states = [Outcome::TimedOut, Outcome::Failed].map(ItemState::Settled);
    assert_eq!(items.state, states);
    assert!(
        command("trommel stop a#b").is_err(),
        "no key of the ledger is made of that"
    );
}

#[test]
fn show_takes_an_item_with_or_without_its_run() {
    let target = |line: &str| match command(line) {
        Ok(Command::Show(show)) => show.target(),
        other => panic!("{other:?}"),
    };
    let item: ItemId = "3-17-42".parse().expect("an item");
    assert_eq!(target("trommel show 3-17-42"), Ok((RunRef::Latest, item)));
    let run = RunRef::Id(RunId::new("brave-heron-4f2a"));
    assert_eq!(
        target("trommel show brave-heron-4f2a 3-17-42"),
        Ok((run, item))
    );
    assert!(target("trommel show brave-heron-4f2a").is_err());
    assert!(command("trommel show").is_err());
}

#[test]
fn a_selection_is_read_and_what_succeeded_cannot_be_selected() {
    let line = "trommel redrive --class Timeout --key in/* --larger 64MiB --smaller 1GB --items 0-0-1,0-0-2 --dry-run";
    let Ok(Command::Redrive(redrive)) = command(line) else {
        panic!("a redrive");
    };
    let selection = redrive.selection;
    assert_eq!(selection.class, [Class::Timeout]);
    assert_eq!(
        (selection.larger, selection.smaller),
        (Some(64 << 20), Some(1_000_000_000))
    );
    let items = ["0-0-1", "0-0-2"]
        .map(|item| item.parse().expect("an item"))
        .to_vec();
    assert_eq!(selection.items, Some(ItemList::Given(items)));
    for bad in [
        "--state succeeded",
        "--state running",
        "--key [",
        "--larger big",
        "--items 0-0-1,x",
    ] {
        assert!(command(&format!("trommel redrive {bad}")).is_err(), "{bad}");
    }
    assert_eq!("-".parse(), Ok(ItemList::Stdin));
    assert_eq!(
        "failed.txt".parse(),
        Ok(ItemList::File("failed.txt".into()))
    );
    let lines = ItemList::read_lines("# two\n 0-0-1 \n\n0-0-2\n").expect("two items");
    assert_eq!(lines.len(), 2);
    assert!(
        ItemList::read_lines("0-0-1\nx")
            .expect_err("no item")
            .contains("line 2")
    );
}

#[test]
fn a_budget_and_no_budget_exclude_each_other() {
    assert!(command("trommel resume --to-the-end --tolerated-failure-count 5").is_err());
    assert!(command("trommel resume --tolerated-failure-percentage 100.5").is_err());
    let Ok(Command::Resume(resume)) =
        command("trommel resume latest --tolerated-failure-percentage 0.5")
    else {
        panic!("a resume");
    };
    assert_eq!(resume.tolerated_failure_percentage, "0.5".parse().ok());
}

#[test]
fn an_empty_ledger_is_none() {
    let ledger = |uri: &str| {
        let cli = Cli::try_parse_from(["trommel", "runs", "--ledger", uri]).expect("it parses");
        cli.global.ledger().map(str::to_owned)
    };
    assert_eq!(ledger(""), None);
    assert_eq!(ledger("sqlite:a.db").as_deref(), Some("sqlite:a.db"));
}
