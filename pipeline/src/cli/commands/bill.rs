//! What the command itself asked of AWS, and what that costs. Not what other processes of the run asked:
//! each tells its own.

use serde_json::{Map, Value, json};

use super::open::Open;
use crate::cli::args::Global;
use crate::cli::screen::tell as say;
use crate::cli::text::grouped;
use crate::core::bill::{Bill, Service};
use crate::core::price::Prices;

/// Says it on standard error, unless nothing was asked or nothing shall be said.
pub(super) fn tell(at: &Open, global: &Global) {
    let Some(bill) = at.backend.bill() else {
        return;
    };
    let line = line(&bill);
    if !global.quiet && !global.json && !line.is_empty() {
        say(&format!("{line}\n"));
    }
}

/// Adds it to a command's JSON as `aws`, unless nothing was asked.
pub(super) fn add(value: &mut Value, at: &Open) {
    if let (Some(object), Some(bill)) = (value.as_object_mut(), at.backend.bill()) {
        object.insert("aws".into(), to_json(&bill));
    }
}

fn line(bill: &Bill) -> String {
    let of = |service| (service, bill.calls_of(service));
    let services = Service::ALL.map(of).into_iter();
    let services: Vec<String> = services
        .filter(|(_, calls)| *calls > 0)
        .map(|(service, calls)| format!("{service} {}", grouped(calls)))
        .collect();
    let mut parts = Vec::new();
    if !services.is_empty() {
        let (all, services) = (grouped(bill.requests()), services.join(", "));
        let usd = bill.usd(&Prices::LIST);
        parts.push(format!("AWS calls: {all} ({services}), about ${usd:.4}"));
    }
    let functions = bill.functions;
    if functions.invocations > 0 {
        let (calls, seconds) = (grouped(functions.invocations), functions.gb_seconds());
        let usd = functions.usd();
        parts.push(format!(
            "functions: {calls} calls, {seconds:.3} GB-s told, about ${usd:.4}"
        ));
    }
    parts.join("; ")
}

fn to_json(bill: &Bill) -> Value {
    let operations = |service| match bill.calls.get(&service) {
        Some(operations) => json!(operations),
        None => json!({}),
    };
    let calls = Service::ALL.map(|service| (service.as_str().to_owned(), operations(service)));
    json!({
        "requests": bill.requests(),
        "calls": Map::from_iter(calls),
        "writeUnits": bill.usage.write_units,
        "readUnits": bill.usage.read_half_units as f64 / 2.0,
        "sentBytes": bill.sent_bytes,
        "receivedBytes": bill.received_bytes,
        "usd": bill.usd(&Prices::LIST),
        "pricesOf": Prices::LIST_OF,
        "functions": {
            "invocations": bill.functions.invocations,
            "gbSeconds": bill.functions.gb_seconds(),
            "usd": bill.functions.usd(),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::price::{Functions, Usage};

    fn bill() -> Bill {
        let mut bill = Bill {
            usage: Usage {
                write_units: 1600,
                read_half_units: 401,
                ..Usage::default()
            },
            ..Bill::default()
        };
        for (service, operation, times) in [
            (Service::DynamoDb, "GetItem", 1000),
            (Service::DynamoDb, "Query", 100),
            (Service::S3, "GetObject", 54),
        ] {
            let operations = bill.calls.entry(service).or_default();
            operations.insert(operation.to_owned(), times);
        }
        bill
    }

    #[test]
    fn people_get_a_line() {
        let (all, dynamodb) = (grouped(1154), grouped(1100));
        let expected = format!("AWS calls: {all} (dynamodb {dynamodb}, s3 54), about $0.0010");
        assert_eq!(line(&bill()), expected);
    }

    #[test]
    fn functions_are_told_apart() {
        let mut bill = bill();
        bill.functions = Functions {
            invocations: 100,
            mb_millis: 100 * 128 * 80,
        };
        let line = line(&bill);
        let expected = "about $0.0010; functions: 100 calls, 1.000 GB-s told, about $0.0000";
        assert!(line.ends_with(expected), "{line}");
        assert_eq!(to_json(&bill)["functions"]["invocations"], 100);
    }

    #[test]
    fn programs_get_every_operation() {
        let json = to_json(&bill());
        assert_eq!(json["requests"], 1154);
        assert_eq!(json["calls"]["dynamodb"]["Query"], 100);
        assert_eq!(json["calls"]["sqs"], json!({}));
        assert_eq!(json["readUnits"], 200.5);
    }
}
