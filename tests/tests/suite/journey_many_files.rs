//! Many files, many calls at one time: what `status` says is what the children did.

use std::time::{Duration, Instant};

use crate::support::{Place, figure, now, scaled, wait_until};

const CONCURRENCY: usize = 64;

/// What `status` may lag behind the children.
const LAG: Duration = Duration::from_secs(2);

/// `status` against the children's own log, which is read before and after it.
struct Sampler {
    /// When the log was read, and how many had noted their end by then.
    ends: Vec<(Instant, u64)>,
    samples: usize,
    final_total: Option<u64>,
}

impl Sampler {
    fn read_log(&mut self, place: &Place) -> u64 {
        let ends = place.log().count("end") as u64;
        self.ends.push((now(), ends));
        ends
    }

    /// How many had surely ended at this moment.
    fn ended_by(&self, moment: Option<Instant>) -> u64 {
        let before = self.ends.iter().rev();
        let mut before = before.filter(|(at, _)| moment.is_some_and(|moment| *at <= moment));
        before.next().map_or(0, |(_, ends)| *ends)
    }

    fn sample(&mut self, place: &Place) {
        self.read_log(place);
        let asked = now();
        let Some(status) = place.maybe_status() else {
            return;
        };
        let after = self.read_log(place);
        let counts = status.item_counts;
        assert!(counts.add_up(), "{counts:?}");
        assert!(counts.running <= CONCURRENCY as u64, "{counts:?}");
        let least = self.ended_by(asked.checked_sub(LAG));
        assert!(
            (least..=after).contains(&counts.succeeded),
            "{} succeeded, and the children ended {least} two seconds before and {after} now",
            counts.succeeded
        );
        if status.total_is_final {
            self.final_total.get_or_insert(counts.total);
            assert_eq!(self.final_total, Some(counts.total), "final is final");
        }
        self.samples += 1;
    }
}

#[test]
fn status_says_of_many_files_what_their_children_did() {
    let files: u64 = scaled(2_000, 20_000);
    let sample_every = scaled(Duration::from_millis(250), Duration::from_secs(1));
    let place = Place::with_job(
        r#"
        name = "many-files"
        input = { objects = "in" }
        max_concurrency = 64
        results = "out"
        [function]
        command = ["./work", "{path}"]
        "#,
    );
    place.script(
        "work",
        r#"note start "$TROMMEL_ITEM"; sleep 0.1; note end "$TROMMEL_ITEM""#,
    );
    for number in 0..files {
        place.write(format!("in/{}/{number}", number % 100), format!("{number}"));
    }
    let begun = now();
    let mut run = place.start(&["run", "job.toml"]);
    let mut sampler = Sampler {
        ends: Vec::new(),
        samples: 0,
        final_total: None,
    };
    let mut next = begun;
    while run.is_running() {
        sampler.sample(&place);
        next += sample_every;
        wait_until("the next sample", sample_every * 2, || {
            now() >= next || !run.is_running()
        });
    }
    run.wait().exits(0);
    let took = begun.elapsed();

    assert!(sampler.samples >= 3, "{} samples", sampler.samples);
    let status = place.status();
    assert_eq!(status.item_counts.list(), [0, 0, files, 0, 0, 0, 0]);
    assert!(status.total_is_final);
    assert_eq!(sampler.final_total.unwrap_or(files), files);
    let log = place.log();
    assert_eq!(log.count("start") as u64, files, "each file once");
    assert_eq!(log.tally("end").len() as u64, files);
    assert!(log.at_once() <= CONCURRENCY, "{} at once", log.at_once());
    assert_eq!(place.results("SUCCEEDED").len() as u64, files);
    place.audit();
    figure(&format!(
        "many files: {files} in {took:.1?}, {} samples of status add up, at most {} at once",
        sampler.samples,
        log.at_once()
    ));
}
