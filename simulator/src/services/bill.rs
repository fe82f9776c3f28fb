//! The bill, counted twice: once as Trommel prices requests (`trommel::core::price`), once by arithmetic of
//! its own. Both must say the same, or what `L7` judges by, and what users are told, is wrong.

use trommel::core::price::{
    Prices, TRANSACTION_FACTOR, Usage, strong_read_half_units, write_units,
};

/// Something that a service bills.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Billed {
    /// A strong read from the table, of so many bytes.
    Read(usize),
    /// Rows that one write, or one transaction, left so large, in bytes.
    Written { rows: Vec<usize>, together: bool },
    /// A request to the queue.
    Queued,
    /// A request that puts, lists or copies objects.
    Put,
    /// A request that gets an object or looks at it.
    Got,
}

impl Billed {
    /// As Trommel prices it.
    pub(super) fn usage(&self) -> Usage {
        let nothing = Usage::default();
        match self {
            Self::Read(bytes) => Usage {
                dynamodb_requests: 1,
                read_half_units: strong_read_half_units(*bytes),
                ..nothing
            },
            Self::Written { rows, together } => {
                let factor = if *together { TRANSACTION_FACTOR } else { 1 };
                let units: u64 = rows.iter().map(|bytes| write_units(*bytes)).sum();
                Usage {
                    dynamodb_requests: 1,
                    write_units: factor * units,
                    ..nothing
                }
            }
            Self::Queued => Usage {
                sqs_requests: 1,
                ..nothing
            },
            Self::Put => Usage {
                s3_puts: 1,
                ..nothing
            },
            Self::Got => Usage {
                s3_gets: 1,
                ..nothing
            },
        }
    }
}

/// What the services count, in kilobytes and picodollars.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bill {
    reads: u64,
    writes: u64,
    read_4kb: u64,
    written_kb: u64,
    queued: u64,
    puts: u64,
    gets: u64,
}

/// Millionths of a millionth of a dollar for each: list prices of a million, as AWS prints them.
const READ_4KB: u64 = 125_000;
const WRITTEN_KB: u64 = 625_000;
const QUEUED: u64 = 400_000;
const PUT: u64 = 5_000_000;
const GOT: u64 = 400_000;

impl Bill {
    pub(super) fn add(&mut self, billed: &Billed) {
        // What is empty or not there is begun, too.
        let begun = |bytes: usize, unit: usize| {
            let mut units = 1;
            while bytes > units * unit {
                units += 1;
            }
            units as u64
        };
        match billed {
            Billed::Read(bytes) => {
                self.reads += 1;
                self.read_4kb += begun(*bytes, 4 << 10);
            }
            Billed::Written { rows, together } => {
                self.writes += 1;
                for bytes in rows {
                    self.written_kb += begun(*bytes, 1 << 10) << u32::from(*together);
                }
            }
            Billed::Queued => self.queued += 1,
            Billed::Put => self.puts += 1,
            Billed::Got => self.gets += 1,
        }
    }

    fn usage(&self) -> Usage {
        Usage {
            dynamodb_requests: self.reads + self.writes,
            write_units: self.written_kb,
            read_half_units: self.read_4kb << 1,
            sqs_requests: self.queued,
            s3_puts: self.puts,
            s3_gets: self.gets,
        }
    }

    fn usd(&self) -> f64 {
        let picodollars = self.read_4kb * READ_4KB
            + self.written_kb * WRITTEN_KB
            + self.queued * QUEUED
            + self.puts * PUT
            + self.gets * GOT;
        picodollars as f64 / 1e12
    }

    /// What is wrong with Trommel's account of the same, in a sentence.
    pub fn disagrees(&self, told: &Usage) -> Option<String> {
        let own = self.usage();
        if own != *told {
            return Some(format!("{own:?} was billed, and {told:?} counted"));
        }
        let requests = self.reads + self.writes + self.queued + self.puts + self.gets;
        if requests != told.requests() {
            let counted = told.requests();
            return Some(format!("{requests} requests were made, {counted} counted"));
        }
        let (own, told) = (self.usd(), told.usd(&Prices::LIST));
        // Less than the rounding of some ten thousand additions.
        let differs = (own - told).abs() > 1e-12;
        differs.then(|| format!("it cost {own:.12} USD, and {told:.12} were told"))
    }
}
