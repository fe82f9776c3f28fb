//! What a run will ask of AWS, before it starts: the calls that the loops are known to make, multiplied out.
//!
//! Pure arithmetic over [`super::price`]. It is for work that is there when it starts: where events trickle in, pages
//! and batches are less full and each item costs up to its own page. Left out, as they go by time and not by items:
//! heartbeats, looks and sweeps (a few calls a second and process), compute, storage, transfer.

use serde::Serialize;

use super::job::Dedupe;
use super::packing::PAGE_OBJECT_BYTES_MAX;
use super::page::PAGE_ITEMS_MAX;
use super::part::PART_ITEMS_MAX;
use super::price::{Prices, TRANSACTION_FACTOR, Usage};

/// Messages of one receive, send or delete, and hints likewise ("Amazon SQS message quotas").
const BATCH: u64 = 10;

/// Keys of one answer to a listing ("ListObjectsV2", MaxKeys).
const LISTED: u64 = 1000;

/// Pages that are settled together: what comes within the second in which outcomes are gathered, at a thousand
/// items a second.
const GROUP_PAGES: u64 = 10;

/// Lumps of one intake: its pages but for one of fines (`ledger::INTAKE_PAGES_MAX`).
const INTAKE_LUMPS: u64 = 6;

/// Rows of pages in one read unit: each takes less than 1 KB.
const PAGES_READ_AT_ONCE: u64 = 4;

/// Where items come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Numbers: nothing is kept, nothing read again.
    Numbers,
    /// Values of the job file, frozen.
    Inline,
    /// A file's rows, read again by their stretch.
    File,
    /// A listing, frozen.
    Listing,
    /// Messages of a queue.
    Events(Dedupe),
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Where items come from.
    pub source: Source,
    /// Items that are packed together.
    pub fines: u64,
    /// How many bytes their objects have together.
    pub fine_bytes: u64,
    /// Items that have a page each.
    pub lumps: u64,
    /// Whether result files are written.
    pub results: bool,
}

impl Workload {
    /// All items.
    pub fn items(&self) -> u64 {
        self.fines + self.lumps
    }

    /// Pages that they make.
    pub fn pages(&self) -> u64 {
        let by_items = self.fines.div_ceil(PAGE_ITEMS_MAX as u64);
        let by_bytes = self.fine_bytes.div_ceil(PAGE_OBJECT_BYTES_MAX);
        by_items.max(by_bytes.min(self.fines)) + self.lumps
    }
}

/// What each thing is asked. Zero where it is not on AWS is the caller's to say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Estimate {
    /// The ingest queue: receives and deletes.
    pub ingest: Usage,
    /// The ledger: marks, parts, pages, outcomes.
    pub ledger: Usage,
    /// The lanes' queues: hints.
    pub lanes: Usage,
    /// Listing the input, or reading its file.
    pub input: Usage,
    /// The scratch place: frozen parts and outputs.
    pub scratch: Usage,
    /// Compiling the results.
    pub results: Usage,
    /// What calls read: an object each. It is part of their work, and therefore apart.
    pub objects_read: Usage,
}

impl Estimate {
    /// The calls for this work.
    pub fn of(work: &Workload) -> Self {
        let pages = work.pages();
        let hints = 3 * pages.div_ceil(BATCH);
        let mut estimate = Self {
            lanes: sqs(hints),
            ..Self::default()
        };
        match work.source {
            Source::Events(dedupe) => estimate.take_in(work, dedupe),
            Source::Numbers | Source::Inline | Source::File | Source::Listing => {
                estimate.read(work);
            }
        }
        estimate.settle(pages);
        if work.results {
            // A look at each page, and its outputs.
            estimate.ledger += reads(pages.div_ceil(PAGES_READ_AT_ONCE), pages.div_ceil(LISTED));
            estimate.results += s3(1, pages);
        }
        match work.source {
            Source::Listing | Source::Events(_) => estimate.objects_read = s3(0, work.items()),
            Source::Numbers | Source::Inline | Source::File => {}
        }
        estimate
    }

    /// Messages become marks, then a part and its pages in one transaction.
    fn take_in(&mut self, work: &Workload, dedupe: Dedupe) {
        /// Progress, part, and the intake's own row.
        const OTHER_WRITES: u64 = 3;
        let (items, pages) = (work.items(), work.pages());
        self.ingest = sqs(2 * items.div_ceil(BATCH));
        if dedupe == Dedupe::On {
            self.ledger += writes(items, items);
        }
        let intakes = (pages - work.lumps).max(work.lumps.div_ceil(INTAKE_LUMPS));
        let together = TRANSACTION_FACTOR * (OTHER_WRITES * intakes + pages);
        self.ledger += writes(together, intakes);
        // Each looks first how far its shard is.
        self.ledger += reads(intakes, intakes);
        // The part is written, and read by whoever works on it.
        self.scratch += s3(intakes, intakes);
    }

    /// Parts are frozen with their cursor, then their pages made, each alone.
    fn read(&mut self, work: &Workload) {
        let (items, pages) = (work.items(), work.pages());
        let parts = items.div_ceil(u64::from(PART_ITEMS_MAX));
        self.ledger += writes(2 * TRANSACTION_FACTOR * parts, parts);
        // The router reads each part, and notes that it is dispatched.
        self.ledger += reads(parts, parts);
        self.ledger += writes(parts, parts);
        self.ledger += writes(pages, pages);
        match work.source {
            Source::Listing => {
                self.input = s3(items.div_ceil(LISTED), 0);
                self.scratch += s3(parts, parts);
            }
            Source::Inline => self.scratch += s3(parts, parts),
            // Once through, and each part once more by its workers.
            Source::File => self.input = s3(0, 1 + parts),
            Source::Numbers | Source::Events(_) => {}
        }
    }

    /// A page is looked at and leased, then settled together with others, their tally and their outputs.
    fn settle(&mut self, pages: u64) {
        let groups = pages.div_ceil(GROUP_PAGES);
        self.ledger += reads(pages, pages);
        self.ledger += writes(pages, pages);
        self.ledger += writes(TRANSACTION_FACTOR * (pages + groups), groups);
        self.scratch += s3(groups, 0);
    }

    /// All but what calls read.
    pub fn pipeline(&self) -> Usage {
        let mut all = Usage::default();
        for part in [
            self.ingest,
            self.ledger,
            self.lanes,
            self.input,
            self.scratch,
            self.results,
        ] {
            all += part;
        }
        all
    }

    /// What that costs by service, in US dollars: DynamoDB, SQS, S3.
    pub fn usd_by_service(&self, prices: &Prices) -> [f64; 3] {
        let all = self.pipeline();
        let dynamodb = Usage {
            write_units: all.write_units,
            read_half_units: all.read_half_units,
            ..Usage::default()
        };
        let s3 = s3(all.s3_puts, all.s3_gets);
        [dynamodb, sqs(all.sqs_requests), s3].map(|usage| usage.usd(prices))
    }
}

fn sqs(requests: u64) -> Usage {
    Usage {
        sqs_requests: requests,
        ..Usage::default()
    }
}

fn s3(puts: u64, gets: u64) -> Usage {
    Usage {
        s3_puts: puts,
        s3_gets: gets,
        ..Usage::default()
    }
}

fn writes(units: u64, requests: u64) -> Usage {
    Usage {
        dynamodb_requests: requests,
        write_units: units,
        ..Usage::default()
    }
}

/// Strong reads: a whole unit each.
fn reads(units: u64, requests: u64) -> Usage {
    Usage {
        dynamodb_requests: requests,
        read_half_units: 2 * units,
        ..Usage::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLION: u64 = 1_000_000;

    fn fines(source: Source, items: u64) -> Workload {
        Workload {
            source,
            fines: items,
            fine_bytes: 0,
            lumps: 0,
            results: true,
        }
    }

    fn calls_an_item(source: Source) -> f64 {
        let estimate = Estimate::of(&fines(source, MILLION));
        estimate.pipeline().requests() as f64 / MILLION as f64
    }

    fn usd_a_million(source: Source) -> f64 {
        let estimate = Estimate::of(&fines(source, MILLION));
        estimate.pipeline().usd(&Prices::LIST)
    }

    #[test]
    fn each_source_stays_within_its_budget() {
        for (source, calls, usd) in [
            (Source::Numbers, 0.06, 0.05),
            (Source::Listing, 0.06, 0.05),
            (Source::File, 0.06, 0.05),
            (Source::Events(Dedupe::Off), 0.35, 0.65),
            (Source::Events(Dedupe::On), 1.4, 1.30),
        ] {
            assert!(
                calls_an_item(source) <= calls,
                "{source:?}: {}",
                calls_an_item(source)
            );
            assert!(
                usd_a_million(source) <= usd,
                "{source:?}: {}",
                usd_a_million(source)
            );
        }
    }

    #[test]
    fn a_hundred_events_cost_what_they_are_known_to_cost() {
        let estimate = Estimate::of(&Workload {
            results: false,
            ..fines(Source::Events(Dedupe::On), 100)
        });
        // Ten receives, ten deletes.
        assert_eq!(estimate.ingest, sqs(20));
        // A hint sent, received, deleted.
        assert_eq!(estimate.lanes, sqs(3));
        // 100 marks; four writes of a transaction; a lease; a page and its tally in a transaction.
        assert_eq!(estimate.ledger.write_units, 100 + 2 * 4 + 1 + 2 * 2);
        assert_eq!(estimate.ledger.read_half_units, 2 * 2);
        assert_eq!(estimate.ledger.dynamodb_requests, 100 + 1 + 1 + (1 + 1) + 1);
        assert_eq!(estimate.scratch, s3(1 + 1, 1));
        assert_eq!(estimate.objects_read, s3(0, 100));
    }

    #[test]
    fn a_mark_an_event_is_all_that_deduping_adds() {
        let on = Estimate::of(&fines(Source::Events(Dedupe::On), MILLION)).pipeline();
        let mut off = Estimate::of(&fines(Source::Events(Dedupe::Off), MILLION)).pipeline();
        off += writes(MILLION, MILLION);
        assert_eq!(on, off);
    }

    #[test]
    fn large_objects_have_pages_of_their_own_and_bytes_fill_pages_too() {
        let work = Workload {
            lumps: 7,
            ..fines(Source::Listing, 250)
        };
        assert_eq!(work.pages(), 3 + 7);
        let heavy = Workload {
            fine_bytes: 10 * PAGE_OBJECT_BYTES_MAX,
            ..fines(Source::Listing, 250)
        };
        assert_eq!(heavy.pages(), 10);
        assert_eq!(fines(Source::Numbers, 0).pages(), 0);
        let nothing = Estimate::of(&Workload {
            results: false,
            ..fines(Source::Numbers, 0)
        });
        assert_eq!(nothing.pipeline().requests(), 0);
    }

    #[test]
    fn the_services_prices_add_up_to_the_whole() {
        let estimate = Estimate::of(&fines(Source::Events(Dedupe::On), MILLION));
        let sum: f64 = estimate.usd_by_service(&Prices::LIST).iter().sum();
        assert!((sum - estimate.pipeline().usd(&Prices::LIST)).abs() < 1e-9);
    }
}
