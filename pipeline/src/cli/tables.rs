//! Tables of runs, items and groups, and the page of one item. No borders: they paste well.
//!
//! `width` is the terminal's; none in a pipe, where nothing is cut.

use std::fmt::Write as _;

use comfy_table::{Cell, CellAlignment, ColumnConstraint, ContentArrangement, Row, Table, presets};

use super::text::{clock, counted, escape, grouped, moment, share, short};
use super::view::{GroupRow, ItemPage, ItemRow, RunRow};

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Column {
    /// A word that is never cut.
    Word,
    /// A number that is never cut.
    Number,
    /// A text that is cut where there is no room.
    Text,
}

/// The terminal's width, if standard output is one.
pub fn stdout_width() -> Option<u16> {
    Table::new().width()
}

/// On a narrower terminal the columns of `runs` that matter least are left out.
const NARROW: u16 = 100;

/// The page of `runs`.
#[must_use]
pub fn runs(rows: &[RunRow], width: Option<u16>) -> String {
    if rows.is_empty() {
        return "no runs yet: trommel run JOB\n".to_owned();
    }
    let is_narrow = width.is_some_and(|width| width < NARROW);
    let columns = [
        ("RUN", Column::Word),
        ("JOB", Column::Text),
        ("STATUS", Column::Word),
        ("STARTED", Column::Word),
        ("TIME", Column::Number),
        ("ITEMS", Column::Number),
        ("DONE", Column::Number),
        ("FAILED", Column::Number),
        ("GEN", Column::Number),
    ];
    let cells = rows.iter().map(|row| {
        let counts = &row.item_counts;
        [
            row.run.to_string(),
            row.job.to_string(),
            row.status.as_str().to_owned(),
            moment(row.started_at),
            clock(row.elapsed),
            grouped(counts.total),
            share(counts.succeeded, counts.total),
            grouped(counts.settled().failures()),
            row.generation.to_string(),
        ]
    });
    let is_kept = |title: &str| !is_narrow || !matches!(title, "STARTED" | "GEN");
    let kept: Vec<(&str, Column)> = columns
        .into_iter()
        .filter(|(title, _)| is_kept(title))
        .collect();
    let cells = cells.map(|cells| {
        let titled = columns.iter().zip(cells);
        titled
            .filter(|((title, _), _)| is_kept(title))
            .map(|(_, cell)| cell)
            .collect()
    });
    table(&kept, cells, width)
}

/// The page of `items`.
#[must_use]
pub fn items(rows: &[ItemRow], width: Option<u16>) -> String {
    if rows.is_empty() {
        return "no items match\n".to_owned();
    }
    let columns = [
        ("ITEM", Column::Word),
        ("STATE", Column::Word),
        ("LANE", Column::Word),
        ("TRIES", Column::Number),
        ("SIZE", Column::Number),
        ("INPUT", Column::Text),
        ("WHY", Column::Text),
    ];
    let cells = rows.iter().map(|row| {
        vec![
            row.item.to_string(),
            row.state.as_str().to_owned(),
            row.lane.to_string(),
            row.attempts.to_string(),
            row.size.map(bytes).unwrap_or_default(),
            escape(&row.label),
            why(row),
        ]
    });
    table(&columns, cells, width)
}

/// The page of `items --group`, the largest group first as given.
#[must_use]
pub fn groups(rows: &[GroupRow], width: Option<u16>) -> String {
    if rows.is_empty() {
        return "no failures\n".to_owned();
    }
    let mut out = String::new();
    for (index, row) in rows.iter().enumerate() {
        if index > 0 {
            out.push('\n');
        }
        let kind = escape(&row.fingerprint);
        let example = format!("{}  {}", row.example, escape(&row.label));
        let cause = escape(&row.cause);
        let mut lines = vec![
            format!("{:>8}  {}", grouped(row.count), kind),
            format!("{:>8}  for example {example}", ""),
        ];
        // A cause without numbers or names is its own fingerprint.
        if !kind.ends_with(&cause) {
            lines.push(format!("{:>8}  {cause}", ""));
        }
        for line in lines {
            let line = width.map_or(line.clone(), |width| {
                super::text::fit(&line, usize::from(width))
            });
            writeln!(out, "{line}").expect("a String takes everything");
        }
    }
    out
}

/// The page of `show`.
#[must_use]
pub fn item(page: &ItemPage, width: Option<u16>) -> String {
    let row = &page.row;
    let mut out = String::new();
    let mut field = |name: &str, value: &str| {
        writeln!(out, "{name:<9} {value}").expect("a String takes everything");
    };
    field("item", &format!("{} of {}", row.item, page.run));
    let lane = format!("{}, {} lane", row.state.as_str(), row.lane);
    field(
        "state",
        &format!("{lane}, {}", counted(u64::from(row.attempts), "attempt")),
    );
    // A value has no name: its input below says all.
    if let Some(size) = row.size {
        field("key", &format!("{}  ({})", escape(&row.label), bytes(size)));
    }
    if row.class.is_some() {
        field("why", &why(row));
    }
    field("input", &escape(&page.input));
    if let Some(output) = &page.output {
        field("output", &escape(output));
    }
    if !page.history.is_empty() {
        let columns = [
            ("WHEN", Column::Word),
            ("GEN", Column::Number),
            ("WHAT", Column::Text),
            ("TOOK", Column::Number),
            ("DETAIL", Column::Text),
        ];
        let cells = page.history.iter().map(|row| {
            vec![
                moment(row.at),
                row.generation.to_string(),
                escape(&row.event),
                row.took.map(short).unwrap_or_default(),
                escape(&row.detail),
            ]
        });
        out.push('\n');
        out.push_str(&table(&columns, cells, width));
    }
    out
}

fn why(row: &ItemRow) -> String {
    let cause = row.cause.as_deref().unwrap_or_default();
    match &row.class {
        Some(class) if cause.is_empty() => escape(class.as_str()),
        Some(class) => escape(&format!("{class}: {cause}")),
        None => escape(cause),
    }
}

/// `64.0 MiB`.
fn bytes(size: u64) -> String {
    bytesize::ByteSize::b(size).to_string()
}

/// One line a row; what is too wide for the terminal is cut in the widest columns.
fn table(
    columns: &[(&str, Column)],
    rows: impl Iterator<Item = Vec<String>>,
    width: Option<u16>,
) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).force_no_tty();
    if let Some(width) = width {
        table
            .set_content_arrangement(ContentArrangement::Dynamic)
            .set_width(width);
    }
    let mut titles = Row::from(columns.iter().map(|(title, _)| Cell::new(title)));
    titles.max_height(1);
    table.set_header(titles);
    for cells in rows {
        let mut row = Row::from(cells.into_iter().map(Cell::new));
        row.max_height(1);
        table.add_row(row);
    }
    for (index, (_, kind)) in columns.iter().enumerate() {
        let column = table.column_mut(index).expect("every column has a title");
        // Two spaces between columns, none before the first.
        column.set_padding((0, 2));
        match kind {
            Column::Word => {
                column.set_constraint(ColumnConstraint::ContentWidth);
            }
            Column::Number => {
                column.set_constraint(ColumnConstraint::ContentWidth);
                column.set_cell_alignment(CellAlignment::Right);
            }
            Column::Text => {}
        }
    }
    let lines = table.lines().map(|line| format!("{}\n", line.trim_end()));
    lines.collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cli::view::{HistoryRow, ItemState, RunStatus, json_line};
    use crate::core::class::Class;
    use crate::core::id::{JobName, RunId};
    use crate::core::lane::Lane;
    use crate::core::outcome::{ItemCounts, Outcome, Settled};
    use crate::core::time::Timestamp;

    fn run_rows() -> Vec<RunRow> {
        let row = |run: &str, status, generation, failed| RunRow {
            run: RunId::new(run),
            job: JobName::new("thumbnails"),
            status,
            generation,
            started_at: Timestamp(1_795_386_425_000),
            elapsed: Duration::from_secs(252),
            item_counts: ItemCounts::new(
                12_000,
                Settled {
                    succeeded: 9_120,
                    failed,
                    ..Settled::default()
                },
                240,
            ),
        };
        vec![
            row("brave-heron-4f2a", RunStatus::Running, 0, 96),
            row("quiet-otter-00b1", RunStatus::Succeeded, 2, 0),
        ]
    }

    fn item_rows() -> Vec<ItemRow> {
        let failed = ItemRow {
            item: "3-17-42".parse().expect("an item"),
            state: ItemState::Settled(Outcome::Failed),
            lane: Lane::Function,
            attempts: 4,
            size: Some(1_234_567),
            label: "in/2026/evil\u{1b}[2J\nname.png".to_owned(),
            class: Some(Class::Named("NotAnImage".to_owned())),
            cause: Some("row 17: \"a.png\" has no header that any of the 14 known formats begins with\nat decode.rs:12".to_owned()),
        };
        let pending = ItemRow {
            item: "0-0-1".parse().expect("an item"),
            state: ItemState::Pending,
            lane: Lane::Container,
            attempts: 0,
            size: None,
            label: "{\"id\":1}".to_owned(),
            class: None,
            cause: None,
        };
        vec![failed, pending]
    }

    #[test]
    fn runs_fit_on_a_wide_and_a_narrow_terminal() {
        let pages = [None, Some(120), Some(80)].map(|width| runs(&run_rows(), width));
        insta::assert_snapshot!("runs", pages.join("\n"));
        assert!(runs(&[], None).contains("trommel run"));
    }

    #[test]
    fn items_take_one_line_each_and_cannot_drive_the_terminal() {
        let pages = [None, Some(120), Some(80)].map(|width| items(&item_rows(), width));
        for page in &pages {
            assert_eq!(page.lines().count(), 3);
            assert!(!page.contains('\u{1b}'));
        }
        for line in pages[2].lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
        insta::assert_snapshot!("items", pages.join("\n"));
    }

    #[test]
    fn groups_show_one_example_each() {
        let row = |count, class: &str, print: &str| GroupRow {
            count,
            class: Class::from_name(class),
            fingerprint: print.to_owned(),
            example: "3-17-42".parse().expect("an item"),
            label: "in/2026/a.png".to_owned(),
            cause: "row 17: \"a.png\" has no header\nat decode.rs:12".to_owned(),
        };
        let rows = [
            row(
                1_071,
                "NotAnImage",
                "NotAnImage: row #: \"…\" has no header",
            ),
            row(19, "Timeout", "Timeout: the call ran longer than # s"),
        ];
        insta::assert_snapshot!(
            "groups",
            [groups(&rows, None), groups(&rows, Some(40))].join("\n")
        );
    }

    #[test]
    fn the_page_of_an_item_tells_its_history() {
        let [row, _] = &item_rows()[..] else {
            panic!("two rows")
        };
        let event = |seconds: i64, event: &str, took: Option<u64>, detail: &str| HistoryRow {
            at: Timestamp(1_795_386_425_000 + seconds * 1000),
            generation: 0,
            event: event.to_owned(),
            took: took.map(Duration::from_millis),
            detail: detail.to_owned(),
        };
        let page = ItemPage {
            run: RunId::new("brave-heron-4f2a"),
            row: row.clone(),
            input: r#"{"key":"in/2026/a.png","size":1234567}"#.to_owned(),
            output: None,
            history: vec![
                event(0, "failed", Some(1250), "NotAnImage: no header"),
                event(2, "retried", Some(75_000), "rule 1 of 2"),
            ],
        };
        insta::assert_snapshot!("item", item(&page, Some(100)));
        insta::assert_snapshot!("item_json", json_line(&page));
    }

    #[test]
    fn json_has_the_names_of_describe_map_run() {
        insta::assert_snapshot!("runs_json", json_line(&run_rows()));
        insta::assert_snapshot!("items_json", json_line(&item_rows()));
    }
}
