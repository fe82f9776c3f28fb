//! What this process asked of AWS: its requests by service and operation, and what they are billed as.
//!
//! Plain data. The adapter counts, the command line shows.

use std::collections::BTreeMap;
use std::fmt;

use super::price::{Functions, Prices, Usage};

/// The services that are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Service {
    /// The ledger's table.
    DynamoDb,
    /// The lanes' queues.
    Sqs,
    /// Objects.
    S3,
}

impl Service {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::DynamoDb, Self::Sqs, Self::S3];

    /// Its name, as in endpoints.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DynamoDb => "dynamodb",
            Self::Sqs => "sqs",
            Self::S3 => "s3",
        }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Requests by service and operation: `GetItem`, `SendMessageBatch`, …
pub type Calls = BTreeMap<Service, BTreeMap<String, u64>>;

/// Requests of one process so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bill {
    /// Every request that was sent; a repetition counts again.
    pub calls: Calls,
    /// As they are billed.
    pub usage: Usage,
    /// Bytes of their bodies.
    pub sent_bytes: u64,
    /// Bytes of the answers' bodies, as far as their length was told.
    pub received_bytes: u64,
    /// Functions that were called. They are the items' own work, and in none of the numbers above.
    pub functions: Functions,
}

impl Bill {
    /// Requests to this service.
    pub fn calls_of(&self, service: Service) -> u64 {
        let operations = self.calls.get(&service);
        operations.map_or(0, |operations| operations.values().sum())
    }

    /// All requests.
    pub fn requests(&self) -> u64 {
        Service::ALL
            .into_iter()
            .map(|service| self.calls_of(service))
            .sum()
    }

    /// What they cost, in US dollars; compute stands apart.
    pub fn usd(&self, prices: &Prices) -> f64 {
        self.usage.usd(prices)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_those_of_all_services() {
        let mut bill = Bill::default();
        assert_eq!(bill.requests(), 0);
        for (service, operation, times) in [
            (Service::DynamoDb, "GetItem", 3),
            (Service::DynamoDb, "Query", 4),
            (Service::S3, "GetObject", 5),
        ] {
            let operations = bill.calls.entry(service).or_default();
            operations.insert(operation.to_owned(), times);
        }
        assert_eq!(bill.calls_of(Service::DynamoDb), 7);
        assert_eq!(bill.calls_of(Service::Sqs), 0);
        assert_eq!(bill.requests(), 12);
    }
}
