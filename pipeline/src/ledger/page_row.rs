//! A page as a row: short enough for one write unit (1 KB) at 100 items and two retry rules, and
//! readable with `sqlite3` or in a console.
//!
//! `items` has one letter an item (`.` pending, `S`, `F`, `T`, `A`, `K`, `M` moved); `at` names stretches
//! of the part as `first+count`; `retries` has one base-36 digit an item and rule, and one for throttles;
//! `dues` and `alones` are sparse.

use std::num::{NonZeroU32, NonZeroUsize};

use crate::core::id::{Epoch, Generation, PageId, SessionId, WriteId};
use crate::core::lane::Lane;
use crate::core::page::{ItemState, Mark, Page, PageStatus};
use crate::core::part::Stretch;
use crate::core::time::Timestamp;
use crate::ports::{Key, Row};

use super::error::{LedgerError, damaged};
use super::{Held, SCHEMA_VERSION};

/// The row of a page.
pub(super) fn encode(page: &Page, write: &WriteId) -> Row {
    let letters: String = page.items.iter().map(|item| item.mark.letter()).collect();
    let at: Vec<String> = page
        .stretches
        .iter()
        .map(|s| format!("{}+{}", s.first, s.items))
        .collect();
    let mut row = Row::new()
        .with("v", SCHEMA_VERSION)
        .with("lane", page.lane.as_str())
        .with("status", page.status.as_str())
        .with("epoch", i64::from(page.epoch.0))
        .with("gen", i64::from(page.generation.0))
        .with("at", at.join(","))
        .with("items", letters)
        .with("write", write.as_str());
    match &page.status {
        PageStatus::Leased { session } => row = row.with("session", session.as_str()),
        PageStatus::Waiting { due } => row = row.with("due", due.0),
        PageStatus::Ready | PageStatus::Settled => {}
    }
    if let Some(deaths) = NonZeroU32::new(page.deaths) {
        row = row.with("deaths", i64::from(deaths.get()));
    }
    if let Some(index) = page.alone {
        row = row.with("alone", i64::from(index));
    }
    if !page.outputs.is_empty() {
        row = row.with("outputs", page.outputs.join(" "));
    }
    let retries = encode_retries(&page.items);
    if retries.contains(|digit| digit != '0') {
        row = row.with("retries", retries);
    }
    let dues = sparse(&page.items, |item| item.due.map(|due| due.0));
    if !dues.is_empty() {
        row = row.with("dues", dues);
    }
    let alones = sparse(&page.items, |item| {
        NonZeroU32::new(item.deaths_alone).map(|deaths| i64::from(deaths.get()))
    });
    if !alones.is_empty() {
        row = row.with("alones", alones);
    }
    row
}

/// The page in a row.
pub(super) fn decode(key: &Key, id: PageId, row: &Row) -> Result<Held, LedgerError> {
    let bad = |what: &str| damaged(key, format!("{what} cannot be read"));
    let text = |name: &'static str| row.text(name).ok_or_else(|| bad(name));
    let small = |name: &'static str| -> Result<u32, LedgerError> {
        row.num(name)
            .and_then(|n| u32::try_from(n).ok())
            .ok_or_else(|| bad(name))
    };
    let mut items = Vec::new();
    for letter in text("items")?.chars() {
        let mark = Mark::from_letter(letter).ok_or_else(|| bad("items"))?;
        items.push(ItemState {
            mark,
            ..ItemState::default()
        });
    }
    if let Some(digits) = row.text("retries") {
        decode_retries(digits, &mut items).ok_or_else(|| bad("retries"))?;
    }
    for (index, due) in read_sparse(row.text("dues")).ok_or_else(|| bad("dues"))? {
        items.get_mut(index).ok_or_else(|| bad("dues"))?.due = Some(Timestamp(due));
    }
    for (index, deaths) in read_sparse(row.text("alones")).ok_or_else(|| bad("alones"))? {
        let deaths = u32::try_from(deaths).map_err(|_| bad("alones"))?;
        items
            .get_mut(index)
            .ok_or_else(|| bad("alones"))?
            .deaths_alone = deaths;
    }
    let mut stretches = Vec::new();
    for stretch in text("at")?.split(',') {
        let (first, count) = stretch.split_once('+').ok_or_else(|| bad("at"))?;
        let first = first.parse().map_err(|_| bad("at"))?;
        let count = count.parse().map_err(|_| bad("at"))?;
        stretches.push(Stretch {
            first,
            items: count,
        });
    }
    if stretches.iter().map(|s| s.items as usize).sum::<usize>() != items.len() {
        return Err(damaged(key, "at and items name different numbers of items"));
    }
    let status = match text("status")? {
        "ready" => PageStatus::Ready,
        "waiting" => PageStatus::Waiting {
            due: Timestamp(row.num("due").ok_or_else(|| bad("due"))?),
        },
        "leased" => PageStatus::Leased {
            session: SessionId::new(text("session")?),
        },
        "settled" => PageStatus::Settled,
        _ => return Err(bad("status")),
    };
    let alone = match row.num("alone") {
        Some(index) => Some(u8::try_from(index).map_err(|_| bad("alone"))?),
        None => None,
    };
    let page = Page {
        id,
        lane: Lane::from_name(text("lane")?).ok_or_else(|| bad("lane"))?,
        stretches,
        status,
        epoch: Epoch(small("epoch")?),
        generation: Generation(small("gen")?),
        deaths: row
            .num("deaths")
            .and_then(|n| u32::try_from(n).ok())
            .unwrap_or(0),
        alone,
        items,
        outputs: row
            .text("outputs")
            .unwrap_or("")
            .split_whitespace()
            .map(str::to_owned)
            .collect(),
    };
    Ok(Held {
        page,
        write: WriteId::new(text("write")?),
    })
}

fn encode_retries(items: &[ItemState]) -> String {
    let rules = items
        .iter()
        .map(|item| item.retries.len())
        .max()
        .unwrap_or(0);
    let mut digits = String::with_capacity(items.len() * (rules + 1));
    for item in items {
        for rule in 0..rules {
            digits.push(digit(item.retries.get(rule).copied().unwrap_or(0)));
        }
        digits.push(digit(item.throttles));
    }
    digits
}

fn digit(number: u32) -> char {
    char::from_digit(number.min(35), 36).expect("below 36")
}

fn decode_retries(digits: &str, items: &mut [ItemState]) -> Option<()> {
    let digits: Vec<u32> = digits
        .chars()
        .map(|c| c.to_digit(36))
        .collect::<Option<_>>()?;
    let width = NonZeroUsize::new(digits.len().checked_div(items.len())?)?;
    let numbers = digits.chunks(width.get());
    if numbers.len() != items.len() {
        return None;
    }
    for (item, numbers) in items.iter_mut().zip(numbers) {
        let (throttles, retries) = numbers.split_last()?;
        item.throttles = *throttles;
        item.retries = retries.to_vec();
    }
    Some(())
}

fn sparse(items: &[ItemState], number: impl Fn(&ItemState) -> Option<i64>) -> String {
    let mut entries = Vec::new();
    for (index, item) in items.iter().enumerate() {
        if let Some(number) = number(item) {
            entries.push(format!("{index}:{number}"));
        }
    }
    entries.join(",")
}

fn read_sparse(text: Option<&str>) -> Option<Vec<(usize, i64)>> {
    let mut entries = Vec::new();
    for entry in text
        .unwrap_or("")
        .split(',')
        .filter(|entry| !entry.is_empty())
    {
        let (index, number) = entry.split_once(':')?;
        entries.push((index.parse().ok()?, number.parse().ok()?));
    }
    Some(entries)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::core::outcome::Outcome;

    fn any_mark() -> impl Strategy<Value = Mark> {
        prop_oneof![
            Just(Mark::Pending),
            Just(Mark::Moved),
            proptest::sample::select(Outcome::ALL.to_vec()).prop_map(Mark::Done),
        ]
    }

    fn any_page() -> impl Strategy<Value = Page> {
        let item = (
            any_mark(),
            0u32..36,
            0u32..36,
            0u32..21,
            any::<Option<u32>>(),
            0u32..3,
        );
        let items = proptest::collection::vec(item, 1..=100);
        let status = prop_oneof![
            Just(PageStatus::Ready),
            Just(PageStatus::Settled),
            any::<i64>().prop_map(|due| PageStatus::Waiting {
                due: Timestamp(due)
            }),
            Just(PageStatus::Leased {
                session: SessionId::new("s1")
            }),
        ];
        (items, status, any::<u32>(), 0u32..9, any::<Option<u8>>()).prop_map(
            |(items, status, epoch, deaths, alone)| {
                let first = Stretch {
                    first: 5,
                    items: items.len() as u32,
                };
                let mut page = Page::new(
                    PageId::new(3, 4),
                    Lane::Function,
                    vec![first],
                    Generation(2),
                );
                let due = |secs: u32| Timestamp(i64::from(secs) * 1000);
                for (state, (mark, one, two, throttles, secs, alones)) in
                    page.items.iter_mut().zip(items)
                {
                    *state = ItemState {
                        mark,
                        retries: vec![one, two],
                        throttles,
                        due: secs.map(due),
                        deaths_alone: alones,
                    };
                }
                Page {
                    status,
                    epoch: Epoch(epoch),
                    deaths,
                    alone,
                    ..page
                }
            },
        )
    }

    proptest! {
        #[test]
        fn every_page_reads_back(page in any_page()) {
            let write = WriteId::new("s1.7");
            let row = encode(&page, &write);
            let key = Key::new("p", "s");
            let held = decode(&key, page.id, &row).expect("reads back");
            let mut read = held.page;
            if row.text("retries").is_none() {
                for item in &mut read.items {
                    item.retries = vec![0, 0];
                }
            }
            prop_assert_eq!(read, page);
            prop_assert_eq!(held.write, write);
        }
    }

    #[test]
    fn a_full_page_with_two_rules_fits_one_write_unit() {
        let stretch = Stretch {
            first: 9_900,
            items: 100,
        };
        let mut page = Page::new(
            PageId::new(9, 99),
            Lane::Function,
            vec![stretch],
            Generation(9),
        );
        for item in &mut page.items {
            item.mark = Mark::Done(Outcome::Succeeded);
            item.retries = vec![3, 3];
            item.throttles = 1;
        }
        page.status = PageStatus::Leased {
            session: SessionId::new("0123456789abcdef"),
        };
        page.outputs = vec!["0123456789abcdef-00012@8388000+388608".to_owned(); 3];
        let row = encode(&page, &WriteId::new("0123456789abcdef-fedcba9876543210"));
        let value = |v: &crate::ports::Value| match v {
            crate::ports::Value::Num(_) => 8,
            crate::ports::Value::Text(text) => text.len(),
        };
        let bytes: usize = row.iter().map(|(name, v)| name.len() + value(v)).sum();
        let keys = "page#brave-heron-4f2a#15".len() + "00000009-00099".len() + 4;
        assert!(bytes + keys <= 1024, "{} bytes", bytes + keys);
    }
}
