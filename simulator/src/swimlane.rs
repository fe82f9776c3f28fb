//! A trace as one page to look at: a lane for everything that takes part, time from left to right.
//!
//! Here the text of a trace becomes lanes, events, spans and moments; drawing them is the task of the page
//! itself (`page.js`), which needs nothing from outside. What a person reads as text is the report's.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::oracle::Violation;
use crate::run::Outcome;

mod reader;
#[cfg(test)]
mod tests;

use reader::{Look, Place, Reader, Span, look};

/// Events that a page shows at most: a browser draws so many at ease. Heartbeats are the first to go.
const EVENTS_MAX: usize = 20_000;

/// Bars that it shows at most.
const SPANS_MAX: usize = 10_000;

/// The trace of a scenario as a page; the report's lines stand at its top.
pub fn html(lines: &[String], outcome: &Outcome) -> String {
    page(lines, &outcome.trace, outcome.violation.as_ref())
}

fn page(lines: &[String], trace: &str, violation: Option<&Violation>) -> String {
    let picture = Picture::of(trace, violation);
    let json = serde_json::to_string(&picture).expect("text and numbers can be written");
    // In a script element only `<` can end it.
    let json = json.replace('<', "\\u003c");
    let (verdict, rest) = lines.split_first().map_or(("", lines), |(a, b)| (a, b));
    let class = violation.map_or("held", |_| "broken");
    // Last, and in one pass each: what was put in is not searched for other marks.
    let mut text = String::new();
    let mut left = include_str!("swimlane/page.html");
    for (mark, value) in [
        ("{{css}}", include_str!("swimlane/page.css")),
        ("{{class}}", class),
        ("{{verdict}}", &escaped(verdict)),
        ("{{lines}}", &escaped(&rest.join("\n"))),
        ("{{data}}", &json),
        ("{{js}}", include_str!("swimlane/page.js")),
    ] {
        let (before, after) = left.split_once(mark).expect("the frame has every mark");
        text.push_str(before);
        text.push_str(value);
        left = after;
    }
    text + left
}

fn escaped(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    text.replace('>', "&gt;").replace('"', "&quot;")
}

#[derive(Debug, Serialize)]
struct Lane {
    kind: &'static str,
    name: String,
}

#[derive(Debug, Serialize)]
struct Event {
    at: u64,
    look: Look,
    lanes: Vec<usize>,
    who: String,
    what: String,
}

#[derive(Debug, Serialize)]
struct Moment {
    at: u64,
    look: Look,
    text: String,
}

/// All that the page draws.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Picture {
    end: u64,
    left_out: usize,
    lanes: Vec<Lane>,
    events: Vec<Event>,
    spans: Vec<Span>,
    moments: Vec<Moment>,
}

/// A line that was read.
struct Read<'a> {
    at: u64,
    look: Look,
    who: &'a str,
    what: &'a str,
    places: BTreeSet<Place>,
}

impl Picture {
    fn of(trace: &str, violation: Option<&Violation>) -> Self {
        let mut reader = Reader::default();
        let mut read = Vec::new();
        let mut end = 0;
        for line in trace.lines() {
            let mut parts = line.splitn(3, ' ');
            let at: u64 = parts.next().and_then(|at| at.parse().ok()).unwrap_or(end);
            let (who, what) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
            end = end.max(at);
            reader.span(at, who, what);
            let look = look(who, what);
            let places = reader.places(who, what, look);
            read.push(Read {
                at,
                look,
                who,
                what,
                places,
            });
        }
        let moments = moments(&read, violation);
        let all = read.len();
        keep_most_telling(&mut read);
        let mut spans = reader.spans_until(end);
        spans.truncate(SPANS_MAX);
        let events = read.iter().flat_map(|event| event.places.iter());
        let bars = spans.iter().filter_map(|span| span.place.as_ref());
        let places: BTreeSet<Place> = events.chain(bars).cloned().collect();
        let numbers: BTreeMap<&Place, usize> = places.iter().zip(0..).collect();
        for span in &mut spans {
            span.lane = span.place.as_ref().map_or(0, |place| numbers[place]);
        }
        let event = |event: &Read<'_>| Event {
            at: event.at,
            look: event.look,
            lanes: event.places.iter().map(|place| numbers[place]).collect(),
            who: event.who.to_owned(),
            what: event.what.to_owned(),
        };
        Self {
            end,
            left_out: all - read.len(),
            lanes: places.iter().map(Place::lane).collect(),
            events: read.iter().map(event).collect(),
            spans,
            moments,
        }
    }
}

/// What is drawn across all lanes.
fn moments(read: &[Read<'_>], violation: Option<&Violation>) -> Vec<Moment> {
    let said = violation.map(|Violation { oracle, seen }| format!("{oracle}: {seen}"));
    let told = |event: &Read<'_>| {
        let what = event.what.trim_start_matches("BROKEN");
        what.trim_start_matches([':', ' ']).to_owned()
    };
    let breaks = |event: &&Read<'_>| event.look == Look::Broken && said == Some(told(event));
    // A promise that shows in a write is told there and again at the end: its moment is the first.
    let broken = read.iter().find(breaks);
    let others = read.iter().filter(|event| event.look == Look::Moment);
    let moment = |event: &Read<'_>| Moment {
        at: event.at,
        look: event.look,
        text: told(event),
    };
    broken.into_iter().chain(others).map(moment).collect()
}

/// Leaves out what tells least if there is too much; of what tells the same, the first is kept.
fn keep_most_telling(read: &mut Vec<Read<'_>>) {
    let mut looks: Vec<(Look, usize)> = read.iter().map(|event| event.look).zip(0..).collect();
    looks.sort_unstable();
    let left_out = looks.iter().skip(EVENTS_MAX).map(|look| look.1);
    let left_out: BTreeSet<usize> = left_out.collect();
    let mut numbers = 0..;
    read.retain(|_| {
        numbers
            .next()
            .is_some_and(|number: usize| !left_out.contains(&number))
    });
}
