//! Reads a trace's lines: what each is about, what it is drawn as, what lasts from one to another.
//!
//! The text of a trace is for people, so nothing here is a mistake: a line that says something new is a note
//! in the lane of who wrote it.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use trommel::core::id::{ItemId, PageId};

use super::Lane;

/// What a lane stands for, in the order of the lanes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    Scenario,
    Services,
    Node(String),
    Queue(String),
    Store(String),
    /// By part and number: the page, its items, then the pages of items that went to the other lane.
    Page(u32, u32, Leaf),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Leaf {
    Whole,
    Item(u8),
    Escalated(u8),
}

impl Place {
    fn page(id: PageId) -> Self {
        let leaf = id.escalated.map_or(Leaf::Whole, Leaf::Escalated);
        Self::Page(id.part, id.number, leaf)
    }

    fn item(id: ItemId) -> Self {
        Self::Page(id.part, id.number, Leaf::Item(id.index))
    }

    pub(super) fn lane(&self) -> Lane {
        let (kind, name) = match self {
            Self::Scenario => ("scenario", "scenario".to_owned()),
            Self::Services => ("services", "services".to_owned()),
            Self::Node(name) => ("node", name.clone()),
            Self::Queue(name) => ("queue", name.clone()),
            Self::Store(name) => ("store", name.clone()),
            Self::Page(part, number, Leaf::Item(index)) => {
                ("item", format!("{part}-{number}-{index}"))
            }
            Self::Page(part, number, Leaf::Whole) => ("page", format!("{part:08}-{number:05}")),
            Self::Page(part, number, Leaf::Escalated(index)) => {
                ("page", format!("{part:08}-{number:05}e{index:02}"))
            }
        };
        Lane { kind, name }
    }
}

/// What an event is drawn as; what comes first is kept first when there are too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Look {
    Broken,
    Fault,
    Crash,
    Trouble,
    Moment,
    Start,
    Lost,
    Session,
    Closed,
    Leave,
    Late,
    Refused,
    Call,
    End,
    Received,
    Sent,
    State,
    Write,
    Note,
    Beat,
}

pub(super) fn look(who: &str, what: &str) -> Look {
    let (first, rest) = what.split_once(' ').unwrap_or((what, ""));
    match first {
        "BROKEN" | "BROKEN:" => Look::Broken,
        "FAULT" => Look::Fault,
        "crashed" | "panicked:" => Look::Crash,
        "healed" | "redriven" => Look::Moment,
        "frozen" | "asked" => Look::Trouble,
        "started" => Look::Start,
        "session" => Look::Session,
        "its" if rest.ends_with("lost") => Look::Lost,
        "its" => Look::Closed,
        "leaves:" => Look::Leave,
        "calls" => Look::Call,
        "ends" | "drops" => Look::End,
        "received" => Look::Received,
        "sent" => Look::Sent,
        "page" => Look::State,
        "wrote" if rest.starts_with("session#") => Look::Beat,
        "wrote" => Look::Write,
        _ if what == "a late request arrives" => Look::Late,
        _ if who == "sim" => Look::Trouble,
        _ if first.contains('#') => Look::Refused,
        _ => Look::Note,
    }
}

/// Something that lasts; `look` is a class of the style sheet.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Span {
    pub(super) lane: usize,
    from: u64,
    to: u64,
    look: &'static str,
    label: String,
    text: String,
    #[serde(skip)]
    node: String,
    /// Whose bar it is; its number is known once all lanes are.
    #[serde(skip)]
    pub(super) place: Option<Place>,
}

#[cfg(test)]
impl Span {
    pub(super) fn shown(&self) -> String {
        format!("{} {}..{}", self.look, self.from, self.to)
    }
}

/// Reads a trace from its first line to its last.
#[derive(Default)]
pub(super) struct Reader {
    /// The queue that a page's messages are in.
    queues: BTreeMap<Place, String>,
    /// Which node opened a session.
    nodes: BTreeMap<String, String>,
    open: BTreeMap<(Place, String), Span>,
    spans: Vec<Span>,
}

impl Reader {
    fn begin(&mut self, place: Place, key: &str, at: u64, look: &'static str, says: [&str; 3]) {
        self.finish(&place, key, at, None);
        let [node, label, text] = says.map(str::to_owned);
        let (lane, to) = (0, at);
        let (key, kept) = ((place.clone(), key.to_owned()), Some(place));
        let span = Span {
            lane,
            from: at,
            to,
            look,
            label,
            text,
            node,
            place: kept,
        };
        self.open.insert(key, span);
    }

    fn finish(&mut self, place: &Place, key: &str, at: u64, said: Option<(&'static str, &str)>) {
        if let Some(mut span) = self.open.remove(&(place.clone(), key.to_owned())) {
            span.to = at;
            if let Some((look, text)) = said {
                span.look = look;
                span.text = format!("{}: {text}", span.text);
            }
            self.spans.push(span);
        }
    }

    /// Something that lasts as long as its text says.
    fn lasting(&mut self, place: Place, at: u64, look: &'static str, text: &str) {
        let length = text.rsplit(' ').next().and_then(nanos).unwrap_or(0);
        let word = text.split(' ').next().unwrap_or("").to_lowercase();
        self.begin(place.clone(), look, at, look, ["", &word, text]);
        self.finish(&place, look, at + length, None);
    }

    /// Bars that begin or end with this event.
    pub(super) fn span(&mut self, at: u64, who: &str, what: &str) {
        let node = Place::Node(who.to_owned());
        let words: Vec<&str> = what.split(' ').collect();
        match words[..] {
            ["calls", id, ..] => {
                let (key, id) = (format!("call {who}"), id.parse().map(Place::item));
                if let Ok(item) = id {
                    let text = format!("{who} {what}");
                    self.begin(item, &key, at, "call", [who, who, &text]);
                }
            }
            ["ends" | "drops", id, ref said @ ..] => {
                let item = id.trim_end_matches(':').parse().map(Place::item);
                let said = said.join(" ");
                let end = match said.as_str() {
                    "success" => ("succeeded", "success"),
                    "" => ("cut", "dropped before its end"),
                    class => ("failed", class),
                };
                if let Ok(item) = item {
                    self.finish(&item, &format!("call {who}"), at, Some(end));
                }
            }
            ["page", id, "of", queue, "is", ..] => self.page(at, id, queue, what),
            ["session", id] => {
                self.nodes.insert(id.to_owned(), who.to_owned());
                self.begin(node, "session", at, "session", [who, "", what]);
            }
            ["its", "session", .., how] => {
                self.finish(&node, "session", at, Some(("session", how)));
            }
            ["asked", ..] => self.begin(node, "drain", at, "drain", [who, "drains", what]),
            ["leaves:", ..] => self.finish(&node, "drain", at, None),
            ["started", ..] => self.finish(&node, "down", at, None),
            ["crashed"] => {
                let of_node = |(key, span): (&(Place, String), &Span)| {
                    (span.node == who && span.look != "page").then(|| key.clone())
                };
                let cut: Vec<_> = self.open.iter().filter_map(of_node).collect();
                for (place, key) in cut {
                    let look = if key.starts_with("call") {
                        "cut"
                    } else {
                        "session"
                    };
                    self.finish(&place, &key, at, Some((look, "cut off by a crash")));
                }
                // Whoever comes back is not frozen.
                for span in &mut self.spans {
                    if span.look == "frozen" && span.place.as_ref() == Some(&node) {
                        span.to = span.to.min(at);
                    }
                }
                self.begin(node, "down", at, "down", ["", "down", "down after a crash"]);
            }
            ["frozen", ..] => self.lasting(node, at, "frozen", what),
            // Crashes, freezes and drains tell of themselves where they happen.
            ["Crash" | "Freeze" | "Drain", "of", _, "for", _] => {}
            ["Heat", "of", _, "for", _] => self.lasting(Place::Services, at, "heat", what),
            ["Pause", "of", _, "for", _] => self.lasting(Place::Scenario, at, "trouble", what),
            [_, "of", name, "for", _] if who == "sim" => {
                self.lasting(Place::Node(name.to_owned()), at, "cut-link", what);
            }
            _ => {}
        }
    }

    /// A page's row was written; while nothing but its outcomes changes, its bar goes on.
    fn page(&mut self, at: u64, id: &str, queue: &str, what: &str) {
        let Ok(page) = id.parse().map(Place::page) else {
            return;
        };
        self.queues.insert(page.clone(), queue.to_owned());
        let said = what.split(" is ").nth(1).unwrap_or("");
        let state = said.split(", items").next().unwrap_or("");
        let status = state.split([' ', ',']).next().unwrap_or("");
        let session = state
            .split(" by ")
            .nth(1)
            .and_then(|by| by.split(',').next());
        let holder = session.and_then(|id| self.nodes.get(id).cloned());
        let holder = holder.unwrap_or_default();
        let (look, label) = match status {
            "leased" => ("leased", format!("leased by {holder}")),
            "waiting" => ("waiting", status.to_owned()),
            "settled" => ("settled", status.to_owned()),
            _ => ("ready", status.to_owned()),
        };
        let key = (page, "page".to_owned());
        if self.open.get(&key).is_none_or(|open| open.text != state) {
            self.begin(key.0, "page", at, look, ["", &label, state]);
        }
    }

    /// All bars; what is open yet lasts until the end.
    pub(super) fn spans_until(mut self, end: u64) -> Vec<Span> {
        for ((_, key), mut span) in std::mem::take(&mut self.open) {
            span.to = end;
            if key.starts_with("call") {
                span.look = "cut";
                span.text.push_str(": it never ended");
            }
            self.spans.push(span);
        }
        self.spans
    }

    /// Where an event is shown: at who it is of and at all that it is about.
    pub(super) fn places(&self, who: &str, what: &str, look: Look) -> BTreeSet<Place> {
        let mut places = BTreeSet::new();
        let words: Vec<&str> = what.split(' ').collect();
        // A session's heartbeats would cover everything else of its node.
        if !matches!(look, Look::Beat | Look::State) {
            places.insert(match who {
                "sim" => Place::Scenario,
                "services" => Place::Services,
                name => Place::Node(name.split('/').next().unwrap_or(name).to_owned()),
            });
        }
        if let ("sim", [happening, "of", name, "for", _]) = (who, &words[..])
            && !matches!(*happening, "Heat" | "Pause")
        {
            places.insert(Place::Node((*name).to_owned()));
        }
        for token in what.split(|c: char| !c.is_ascii_alphanumeric() && c != '-') {
            if let Ok(page) = token.parse::<PageId>()
                && page.to_string() == token
            {
                places.insert(Place::page(page));
            } else if let Ok(item) = token.parse::<ItemId>()
                && item.to_string() == token
            {
                places.insert(Place::item(item));
            }
        }
        let (operation, about) = match words[..] {
            ["FAULT", _, operation, "no.", _, "of", _, about, ..] => (operation, about),
            ["received" | "sent", about, ..] => ("queue", about),
            ["wrote", about, ..] => ("table", about),
            [about, ..] if look == Look::Refused => ("table", about),
            _ => return places,
        };
        if operation.starts_with("queue") {
            let queue = places.iter().find_map(|place| self.queues.get(place));
            match (about, queue) {
                ("function" | "container", _) => places.insert(Place::Queue(about.to_owned())),
                (_, Some(queue)) => places.insert(Place::Queue(queue.clone())),
                (_, None) => false,
            };
        } else if operation.starts_with("objects") {
            places.insert(Place::Store("objects".to_owned()));
        } else if operation.starts_with("table") {
            let rows = about.split('#').next().unwrap_or(about);
            if !matches!(rows, "page" | "failure") {
                places.insert(Place::Store(rows.to_owned()));
            }
        }
        places
    }
}

/// As a duration is written with `{:?}`.
fn nanos(text: &str) -> Option<u64> {
    let unit = text.find(|c: char| c != '.' && !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(unit);
    let unit = match unit {
        "s" => 1e9,
        "ms" => 1e6,
        "µs" => 1e3,
        "ns" => 1.0,
        _ => return None,
    };
    Some((number.parse::<f64>().ok()? * unit) as u64)
}
