//! What AWS bills for the pipeline's own calls, and at which price. Compute, storage and transfer are apart.

use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

/// One write unit is up to so many bytes of a row ("Read/write capacity mode": write request units).
pub const WRITE_UNIT_BYTES: usize = 1024;

/// One read unit is up to so many bytes, read strongly ("Read/write capacity mode": read request units).
pub const READ_UNIT_BYTES: usize = 4096;

/// Each write of a transaction costs so many times what it would cost alone ("TransactWriteItems").
pub const TRANSACTION_FACTOR: u64 = 2;

/// Requests and units, as they are billed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    /// Requests to DynamoDB; they cost nothing by themselves.
    pub dynamodb_requests: u64,
    /// DynamoDB's write units.
    pub write_units: u64,
    /// DynamoDB's read units, in halves: an eventual read takes half a unit.
    pub read_half_units: u64,
    /// Requests to SQS, each of up to 64 KB.
    pub sqs_requests: u64,
    /// Requests to S3 that put, list or copy.
    pub s3_puts: u64,
    /// Requests to S3 that get or look.
    pub s3_gets: u64,
}

impl AddAssign for Usage {
    fn add_assign(&mut self, more: Self) {
        self.dynamodb_requests += more.dynamodb_requests;
        self.write_units += more.write_units;
        self.read_half_units += more.read_half_units;
        self.sqs_requests += more.sqs_requests;
        self.s3_puts += more.s3_puts;
        self.s3_gets += more.s3_gets;
    }
}

impl Usage {
    /// All requests.
    pub fn requests(&self) -> u64 {
        self.dynamodb_requests + self.sqs_requests + self.s3_puts + self.s3_gets
    }

    /// What it costs, in US dollars.
    pub fn usd(&self, prices: &Prices) -> f64 {
        let million = |count: u64, price: f64| count as f64 * price / 1e6;
        million(self.write_units, prices.write_unit_million_usd)
            + million(self.read_half_units, prices.read_unit_million_usd / 2.0)
            + million(self.sqs_requests, prices.sqs_request_million_usd)
            + million(self.s3_puts, prices.s3_put_million_usd)
            + million(self.s3_gets, prices.s3_get_million_usd)
    }
}

/// What functions on AWS Lambda are billed for: compute, which stands apart from the pipeline's own calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Functions {
    /// Invocations that were, or may have been, carried out.
    pub invocations: u64,
    /// Their billed milliseconds, times the MB of memory that their function has.
    pub mb_millis: u64,
}

impl Functions {
    /// A million invocations ("AWS Lambda Pricing": us-east-1 on 2026-09-28, without the free tier).
    const INVOCATION_MILLION_USD: f64 = 0.20;

    /// One GB for a second, the first tier on x86; the same page. On Arm it is a fifth less.
    const GB_SECOND_USD: f64 = 0.000_016_666_7;

    /// Memory times time, as the price list has it.
    pub fn gb_seconds(&self) -> f64 {
        self.mb_millis as f64 / 1024.0 / 1000.0
    }

    /// What they cost at list price, in US dollars.
    pub fn usd(&self) -> f64 {
        self.invocations as f64 * Self::INVOCATION_MILLION_USD / 1e6
            + self.gb_seconds() * Self::GB_SECOND_USD
    }
}

impl AddAssign for Functions {
    fn add_assign(&mut self, more: Self) {
        self.invocations += more.invocations;
        self.mb_millis += more.mb_millis;
    }
}

/// Units that writing a row of so many bytes takes, alone.
pub fn write_units(bytes: usize) -> u64 {
    bytes.div_ceil(WRITE_UNIT_BYTES).max(1) as u64
}

/// Half units that reading so many bytes strongly takes; what is not there is read, too.
pub fn strong_read_half_units(bytes: usize) -> u64 {
    2 * bytes.div_ceil(READ_UNIT_BYTES).max(1) as u64
}

/// List prices of one region, in US dollars a million.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Prices {
    /// A million of DynamoDB's write units, on demand.
    pub write_unit_million_usd: f64,
    /// A million of DynamoDB's read units, on demand.
    pub read_unit_million_usd: f64,
    /// A million requests to a standard queue.
    pub sqs_request_million_usd: f64,
    /// A million PUT, COPY, POST and LIST requests.
    pub s3_put_million_usd: f64,
    /// A million GET and HEAD requests.
    pub s3_get_million_usd: f64,
}

impl Prices {
    /// us-east-1 on 2026-09-28, without free tiers ("Amazon DynamoDB pricing", "Amazon SQS pricing", "Amazon S3
    /// pricing").
    pub const LIST: Self = Self {
        write_unit_million_usd: 0.625,
        read_unit_million_usd: 0.125,
        sqs_request_million_usd: 0.40,
        s3_put_million_usd: 5.00,
        s3_get_million_usd: 0.40,
    };

    /// When and where [`Prices::LIST`] was true.
    pub const LIST_OF: &'static str = "us-east-1, 2026-09-28";
}

impl Default for Prices {
    fn default() -> Self {
        Self::LIST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_begun_not_finished() {
        assert_eq!(write_units(0), 1);
        assert_eq!(write_units(1024), 1);
        assert_eq!(write_units(1025), 2);
        assert_eq!(strong_read_half_units(4096), 2);
        assert_eq!(strong_read_half_units(4097), 4);
    }

    #[test]
    fn a_million_invocations_of_a_second_in_a_gb_cost_their_price() {
        let functions = Functions {
            invocations: 1_000_000,
            mb_millis: 1_000_000 * 1024 * 1000,
        };
        let usd = functions.usd();
        assert!((usd - (0.20 + 16.6667)).abs() < 1e-9, "{usd}");
    }

    #[test]
    fn a_million_of_each_costs_its_price() {
        let usage = Usage {
            dynamodb_requests: 7,
            write_units: 1_000_000,
            read_half_units: 2_000_000,
            sqs_requests: 1_000_000,
            s3_puts: 1_000_000,
            s3_gets: 1_000_000,
        };
        let usd = usage.usd(&Prices::LIST);
        assert!(
            (usd - (0.625 + 0.125 + 0.40 + 5.00 + 0.40)).abs() < 1e-9,
            "{usd}"
        );
    }
}
