use super::*;

const SMALL: &str = "\
0 services started as number 1
0 a started as number 1
5 a session 00000000000000aa
6 b session 00000000000000bb
7 services page 00000000-00000 of function is ready, epoch 0, items ..
8 a sent run-1 00000000-00000
9 a received run-1 00000000-00000
10 a wrote page#run-1#00 / 00000000-00000 0123456789abcdef
10 services page 00000000-00000 of function is leased by 00000000000000aa, epoch 1, items ..
11 a calls 0-0-0 attempt 1
11 a calls 0-0-1 attempt 1
12 a FAULT slow: call no. 1 of a 0-0-1
13 a ends 0-0-0: success
14 b FAULT hangs: table-write no. 2 of b session#job / 00000000000000bb
15 b FAULT lost: queue-send no. 1 of b run-1 00000000-00000
16 b FAULT request-lost: queue-receive no. 3 of b container
17 b FAULT slow: objects-put no. 1 of b scratch/0-aa.jsonl.zst
20 a crashed
25 sim Cut of b for 50ns
30 services BROKEN: S1: page#run-1#00 / 00000000-00000: item 0 went from S to F
31 janitor started as number 1
40 sim healed
50 sim redriven
60 sim BROKEN S1: page#run-1#00 / 00000000-00000: item 0 went from S to F
";

fn violation() -> Violation {
    Violation::new(
        "S1",
        "page#run-1#00 / 00000000-00000: item 0 went from S to F".to_owned(),
    )
}

fn names(picture: &Picture) -> Vec<&str> {
    picture
        .lanes
        .iter()
        .map(|lane| lane.name.as_str())
        .collect()
}

/// The lanes that show an event with this text.
fn lanes_of<'a>(picture: &'a Picture, what: &str) -> Vec<&'a str> {
    let event = picture
        .events
        .iter()
        .find(|event| event.what.contains(what));
    let lanes = &event.expect("the event is there").lanes;
    lanes
        .iter()
        .map(|lane| picture.lanes[*lane].name.as_str())
        .collect()
}

#[test]
fn everything_that_takes_part_has_a_lane() {
    let picture = Picture::of(SMALL, None);
    let lanes = "scenario services a b janitor container function objects session 00000000-00000 0-0-0 0-0-1";
    assert_eq!(names(&picture).join(" "), lanes);
    let kept = picture.events.len();
    assert_eq!(
        (kept, picture.left_out, picture.end),
        (SMALL.lines().count(), 0, 60)
    );
}

#[test]
fn a_fault_shows_at_who_asked_and_at_what_it_is_about() {
    let picture = Picture::of(SMALL, None);
    for (fault, lanes) in [
        ("FAULT slow: call", vec!["a", "0-0-1"]),
        ("FAULT hangs", vec!["b", "session"]),
        ("FAULT lost", vec!["b", "function", "00000000-00000"]),
        ("FAULT request-lost", vec!["b", "container"]),
        ("FAULT slow: objects", vec!["b", "objects"]),
    ] {
        assert_eq!(lanes_of(&picture, fault), lanes, "{fault}");
    }
    let faults = picture
        .events
        .iter()
        .filter(|event| event.look == Look::Fault);
    assert_eq!(faults.count(), 5);
}

#[test]
fn bars_run_from_begin_to_end_or_to_the_crash() {
    let picture = Picture::of(SMALL, None);
    let name = |lane: usize| picture.lanes[lane].name.as_str();
    let shown = |span: &Span| format!("{} {}", name(span.lane), span.shown());
    let mut bars: Vec<String> = picture.spans.iter().map(shown).collect();
    bars.sort();
    let wanted = [
        "0-0-0 succeeded 11..13",
        "0-0-1 cut 11..20",
        "00000000-00000 leased 10..60",
        "00000000-00000 ready 7..10",
        "a down 20..60",
        "a session 5..20",
        "b cut-link 25..75",
        "b session 6..60",
    ];
    assert_eq!(bars, wanted);
}

#[test]
fn a_promise_is_marked_where_it_broke_and_not_again_at_the_end() {
    let moments = |violation: Option<&Violation>| {
        let moments = Picture::of(SMALL, violation).moments;
        moments
            .iter()
            .map(|moment| (moment.at, moment.look))
            .collect::<Vec<_>>()
    };
    let calm = [(40, Look::Moment), (50, Look::Moment)];
    assert_eq!(moments(None), calm);
    assert_eq!(
        moments(Some(&violation())),
        [&[(30, Look::Broken)], &calm[..]].concat()
    );
}

#[test]
fn names_that_others_chose_stay_text() {
    let key = "</script><script>alert(1)</script><!--{{js}}";
    let trace = format!("1 a FAULT slow: objects-put no. 1 of a {key}\n2 {key} crashed\n");
    let lines = [
        format!("S1 is broken: {key}"),
        format!("again: \"{key}\" & more"),
    ];
    let page = page(&lines, &trace, Some(&violation()));
    // The frame's own two scripts, and nothing else.
    assert_eq!(page.matches("<script").count(), 2);
    assert_eq!(page.matches("</script").count(), 2);
    assert_eq!(page.matches("<!--").count(), 0);
    assert!(page.contains("S1 is broken: &lt;/script&gt;"));
    assert!(page.contains("\\u003c/script>"));
}

#[test]
fn a_page_asks_nothing_of_the_network() {
    let page = page(&["held".to_owned()], SMALL, None);
    for outside in ["src=", "href=", "url(h", "@import", "fetch("] {
        assert!(!page.contains(outside), "{outside}");
    }
}

#[test]
fn of_too_many_events_the_faults_stay() {
    let beat = |n: usize| format!("{n} a wrote session#job / 00000000000000aa 0123456789abcdef\n");
    let mut trace: String = (0..EVENTS_MAX).map(beat).collect();
    trace.push_str("99999 a FAULT slow: call no. 1 of a 0-0-0\n");
    let picture = Picture::of(&trace, None);
    assert_eq!((picture.events.len(), picture.left_out), (EVENTS_MAX, 1));
    let last = picture.events.last().expect("there are events");
    assert_eq!(last.look, Look::Fault);
}

#[test]
fn an_empty_trace_is_a_page_too() {
    assert!(page(&[], "", None).ends_with("</html>\n"));
}
