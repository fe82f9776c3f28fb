//! The page's machine: its table of every status and event, and its promises under random events.

mod history;

use std::fmt::Write as _;

use super::*;

const ME: &str = "me";
const OTHER: &str = "other";
const NOW: Timestamp = Timestamp(1_000);
const EPOCH: Epoch = Epoch(3);
const GENERATION: Generation = Generation(1);

fn session(name: &str) -> SessionId {
    SessionId::new(name)
}

/// A page with one item a letter, at epoch 3 of generation 1.
fn page(letters: &str, status: PageStatus) -> Page {
    let stretch = Stretch {
        first: 0,
        items: letters.len() as u32,
    };
    let mut page = Page::new(PageId::new(0, 0), Lane::Function, vec![stretch], GENERATION);
    page.status = status;
    page.epoch = EPOCH;
    for (item, letter) in page.items.iter_mut().zip(letters.chars()) {
        item.mark = Mark::from_letter(letter).expect("a letter of a mark");
    }
    page
}

fn leased(name: &str) -> PageStatus {
    PageStatus::Leased {
        session: session(name),
    }
}

fn waiting(due: i64) -> PageStatus {
    PageStatus::Waiting {
        due: Timestamp(due),
    }
}

/// Every status. Items 0 and 1 have an outcome; 2 and 3 are pending, unless the page is settled.
fn statuses() -> Vec<(&'static str, Page)> {
    let newer = Page {
        epoch: EPOCH.next(),
        ..page("SF..", leased(ME))
    };
    vec![
        ("ready", page("SF..", PageStatus::Ready)),
        ("waiting, not due", page("SF..", waiting(5_000))),
        ("waiting, due", page("SF..", waiting(500))),
        ("leased by me", page("SF..", leased(ME))),
        ("leased by another", page("SF..", leased(OTHER))),
        ("leased by me again since", newer),
        ("settled, some failed", page("SFTM", PageStatus::Settled)),
        ("settled, all well", page("SSSM", PageStatus::Settled)),
    ]
}

/// What I, who held the page at epoch 3, would record of it: the pending items get these letters.
fn record(page: &Page, letters: [char; 2], epoch: Epoch) -> PageEvent {
    let mut items = page.items.clone();
    let pending = items.iter_mut().filter(|item| item.mark == Mark::Pending);
    for (item, letter) in pending.zip(letters) {
        item.mark = Mark::from_letter(letter).expect("a letter of a mark");
    }
    PageEvent::Record {
        session: session(ME),
        epoch,
        items,
        outputs: None,
    }
}

/// The page with the retries of its pending items due then.
fn with_dues(page: &Page, due: i64) -> Page {
    let mut page = page.clone();
    for item in &mut page.items {
        if item.mark == Mark::Pending {
            item.due = Some(Timestamp(due));
        }
    }
    page
}

/// The page with its third item noted as running alone, after so many deaths while it was.
fn with_note(page: &Page, deaths_alone: u32) -> Page {
    let mut page = page.clone();
    page.alone = Some(2);
    page.deaths = DEATHS_TO_SUSPECT;
    page.items[2].deaths_alone = deaths_alone;
    page
}

/// Every event, with the page as it must be for the event to mean something.
fn events(page: &Page) -> Vec<(&'static str, Page, PageEvent)> {
    let plain = |name, event| (name, page.clone(), event);
    let me = || session(ME);
    let lease = PageEvent::Lease {
        session: me(),
        now: NOW,
    };
    let note = |index| PageEvent::Note {
        session: me(),
        epoch: EPOCH,
        index,
    };
    let release = || PageEvent::Release {
        session: me(),
        epoch: EPOCH,
        now: NOW,
    };
    let died = |name| PageEvent::HolderDied {
        session: session(name),
    };
    let revoke = |name| PageEvent::Revoke {
        session: session(name),
        now: NOW,
    };
    let reopen = |generation, items: &[u8]| PageEvent::Reopen {
        generation,
        items: items.to_vec(),
    };
    let failed: Vec<u8> = (0u8..)
        .zip(&page.items)
        .filter(|(_, item)| matches!(item.mark, Mark::Done(o) if o != Outcome::Succeeded))
        .map(|(index, _)| index)
        .collect();
    vec![
        plain("lease", lease),
        plain("record one", record(page, ['S', '.'], EPOCH)),
        plain("record all", record(page, ['S', 'M'], EPOCH)),
        plain(
            "record, held two epochs ago",
            record(page, ['S', 'F'], Epoch(1)),
        ),
        plain("note", note(2)),
        plain("note of no item", note(4)),
        plain("release, nothing due later", release()),
        ("release, all due later", with_dues(page, 9_000), release()),
        ("release, due since", with_dues(page, 900), release()),
        plain("I died", died(ME)),
        plain("a third died", died("third")),
        plain("it is taken from me", revoke(ME)),
        plain("it is taken from a third", revoke("third")),
        (
            "I died, item 2 alone, 1st time",
            with_note(page, 0),
            died(ME),
        ),
        (
            "I died, item 2 alone, 2nd time",
            with_note(page, 1),
            died(ME),
        ),
        plain("reopen failed", reopen(GENERATION.next(), &failed)),
        plain("reopen none", reopen(GENERATION.next(), &[])),
        plain("reopen a success", reopen(GENERATION.next(), &[0])),
        plain("reopen in this generation", reopen(GENERATION, &failed)),
    ]
}

fn told(page: &Page) -> String {
    let marks: String = page.items.iter().map(|item| item.mark.letter()).collect();
    let mut text = format!("{marks} epoch {} gen {} ", page.epoch, page.generation);
    let status = match &page.status {
        PageStatus::Leased { session } => format!("leased by {session}"),
        PageStatus::Waiting { due } => format!("waiting until {due}"),
        PageStatus::Ready | PageStatus::Settled => page.status.as_str().to_owned(),
    };
    text.push_str(&status);
    if page.deaths > 0 {
        write!(text, ", deaths {}", page.deaths).expect("a text takes it");
    }
    if let Some(index) = page.alone {
        write!(text, ", alone {index}").expect("a text takes it");
    }
    for (index, item) in page.items.iter().enumerate() {
        if item.deaths_alone > 0 {
            write!(text, ", item {index} died {}", item.deaths_alone).expect("a text takes it");
        }
    }
    text
}

fn told_settled(sign: char, settled: Settled) -> String {
    let mut text = String::new();
    for outcome in Outcome::ALL {
        let number = settled.of(outcome);
        if number > 0 {
            write!(text, " {sign}{number} {}", outcome.as_str()).expect("a text takes it");
        }
    }
    text
}

fn told_effects(effects: &Effects) -> String {
    let tally = &effects.tally;
    let mut text = told_settled('+', tally.settled);
    text.push_str(&told_settled('-', tally.reopened));
    for (name, number) in [("opened", tally.opened), ("page", tally.pages)] {
        if number > 0 {
            write!(text, " +{number} {name}").expect("a text takes it");
        }
    }
    for (class, number) in &tally.classes {
        write!(text, " +{number} of {class}").expect("a text takes it");
    }
    if !effects.worker_died.is_empty() {
        write!(text, " died {:?}", effects.worker_died).expect("a text takes it");
    }
    text
}

#[test]
fn every_status_meets_every_event() {
    let mut table = String::new();
    for (name, page) in statuses() {
        writeln!(table, "{name}: {}", told(&page)).expect("a text takes it");
        for (event, page, what) in events(&page) {
            let end = match page.apply(&what) {
                Ok((after, effects)) => {
                    let effects = told_effects(&effects);
                    let bar = if effects.is_empty() { "" } else { " |" };
                    format!("{}{bar}{effects}", told(&after))
                }
                Err(refusal) => format!("refused: {refusal}"),
            };
            writeln!(table, "  + {event:<31} => {end}").expect("a text takes it");
        }
        table.push('\n');
    }
    insta::with_settings!({ snapshot_path => "../snapshots" }, {
        insta::assert_snapshot!("page_events", table);
    });
}

#[test]
fn a_page_of_more_items_than_it_has_is_not_recorded() {
    let held = page("..", leased(ME));
    let event = PageEvent::Record {
        session: session(ME),
        epoch: EPOCH,
        items: vec![ItemState::default(); 3],
        outputs: None,
    };
    assert!(matches!(held.apply(&event), Err(Refusal::Broken(_))));
}

#[test]
fn an_outcome_is_never_replaced_by_another_nor_taken_back() {
    let held = page("S.", leased(ME));
    for letter in ['F', '.', 'M'] {
        let mut items = held.items.clone();
        items[0].mark = Mark::from_letter(letter).expect("a letter of a mark");
        let event = PageEvent::Record {
            session: session(ME),
            epoch: EPOCH,
            items,
            outputs: None,
        };
        let refusal = held.apply(&event).expect_err("an outcome stands");
        let Refusal::Broken(Broken(violation)) = refusal else {
            panic!("{letter}: refused otherwise: {refusal}");
        };
        assert_eq!(violation.id, InvariantId::S1);
    }
}

#[test]
fn a_page_is_suspect_once_its_holder_died_twice_and_a_redrive_clears_it() {
    let mut now = page("..", PageStatus::Ready);
    for deaths in 0..DEATHS_TO_SUSPECT {
        assert!(!now.is_suspect(), "after {deaths} deaths");
        let lease = PageEvent::Lease {
            session: session(ME),
            now: NOW,
        };
        now = now.apply(&lease).expect("it is ready").0;
        let died = PageEvent::HolderDied {
            session: session(ME),
        };
        now = now.apply(&died).expect("it is leased").0;
    }
    assert!(now.is_suspect());
    let reopen = PageEvent::Reopen {
        generation: GENERATION.next(),
        items: Vec::new(),
    };
    assert!(!now.apply(&reopen).expect("it is pending").0.is_suspect());
}

#[test]
fn what_is_taken_from_one_who_lives_is_no_death() {
    let noted = with_note(&page("SF..", leased(ME)), 2);
    let revoke = PageEvent::Revoke {
        session: session(ME),
        now: NOW,
    };
    let (after, effects) = noted.apply(&revoke).expect("it is leased");
    assert_eq!(effects, Effects::default());
    assert_eq!((after.deaths, after.alone), (noted.deaths, None));
    assert_eq!(after.items, noted.items);
    let late = after.apply(&record(&noted, ['S', 'S'], EPOCH));
    assert!(matches!(late, Err(Refusal::Fenced { .. })), "{late:?}");
}

#[test]
fn a_note_of_what_is_not_there_or_done_is_refused_as_nobody_could_take_such_a_page_over() {
    let held = page("S.", leased(ME));
    for index in [0, 2] {
        let note = PageEvent::Note {
            session: session(ME),
            epoch: EPOCH,
            index,
        };
        let refusal = held.apply(&note).expect_err("only what is pending runs");
        assert!(matches!(refusal, Refusal::Illegal { .. }), "{refusal}");
    }
}

#[test]
fn an_item_that_ran_alone_and_ended_is_not_charged_with_a_later_death() {
    let noted = with_note(&page("SF..", leased(ME)), 1);
    let event = record(&noted, ['S', '.'], EPOCH);
    let recorded = noted.apply(&event).expect("it is mine").0;
    assert_eq!(recorded.alone, None);
    let died = PageEvent::HolderDied {
        session: session(ME),
    };
    let (after, effects) = recorded.apply(&died).expect("it is leased");
    assert_eq!(effects, Effects::default());
    assert_eq!(after.items[2].deaths_alone, 1);
}

#[test]
fn a_page_waits_for_the_first_of_its_retries() {
    let mut held = page("...", leased(ME));
    held.items[0].due = Some(Timestamp(9_000));
    held.items[1].due = Some(Timestamp(7_000));
    held.items[2].mark = Mark::Done(Outcome::Succeeded);
    let release = PageEvent::Release {
        session: session(ME),
        epoch: EPOCH,
        now: NOW,
    };
    let (after, _) = held.apply(&release).expect("it is mine");
    assert_eq!(after.status, waiting(7_000));
}

#[test]
fn an_index_of_the_page_is_found_in_its_part() {
    let stretches = vec![
        Stretch { first: 5, items: 2 },
        Stretch { first: 9, items: 1 },
    ];
    let page = Page::new(PageId::new(0, 0), Lane::Function, stretches, GENERATION);
    let found: Vec<Option<u32>> = (0..4).map(|index| page.index_in_part(index)).collect();
    assert_eq!(found, [Some(5), Some(6), Some(9), None]);
}

#[test]
fn every_mark_reads_back_from_its_letter() {
    for letter in ".SFTAKM".chars() {
        let mark = Mark::from_letter(letter).expect("a letter of a mark");
        assert_eq!(mark.letter(), letter);
    }
    assert_eq!(Mark::from_letter('x'), None);
}
