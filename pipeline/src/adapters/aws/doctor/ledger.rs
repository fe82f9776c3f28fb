//! The ledger's table and the lanes' queues.

use aws_sdk_sqs::types::QueueAttributeName;

use super::{Check, PROVISION, unlooked};
use crate::adapters::aws::blueprint::table::{self, TableState};
use crate::adapters::aws::blueprint::{Arns, Blueprint, queue};
use crate::adapters::aws::config::Clients;
use crate::core::job::{Job, LedgerUri};
use crate::core::lane::Lane;

/// Hints that are gone are found by sweeps, so a lane's queue may keep them shorter; below this they are lost while
/// people sleep.
const RETENTION_MIN_SECONDS: u64 = 24 * 3600;

pub(super) async fn examine(clients: &Clients, job: &Job) -> Vec<Check> {
    let table = match &job.ledger {
        LedgerUri::DynamoDb(table) => table,
        LedgerUri::Sqlite(path) => {
            let found = format!("embedded, in {}", path.display());
            return vec![Check::ok("ledger", found)];
        }
    };
    let mut checks = vec![keys(clients, table).await];
    if checks[0].health == super::Health::Ok {
        checks.push(expiry(clients, table).await);
    }
    for lane in Lane::ALL {
        if job.lane(lane).is_some() {
            let name = Blueprint::queue_name(table, &job.name, lane);
            checks.push(lane_queue(clients, &name).await);
        }
    }
    checks
}

async fn keys(clients: &Clients, table: &str) -> Check {
    let what = format!("table {table}");
    match table::state(clients, table).await {
        Ok(TableState::Ready) => Check::ok(what, "there, with keys `pk` and `sk`"),
        Ok(TableState::Pending) => Check::warn(what, "is being made", "look again in a minute"),
        Ok(TableState::Missing) => Check::fail(what, "is not there", PROVISION),
        Err(error) => unlooked(what, &error),
    }
}

async fn expiry(clients: &Clients, table: &str) -> Check {
    let what = format!("time to live of {table}");
    match table::expires(clients, table).await {
        Ok(true) => Check::ok(what, format!("on `{}`", table::EXPIRES)),
        // Nothing breaks: the table only grows.
        Ok(false) => Check::warn(what, "off: marks of events stay for ever", PROVISION),
        Err(error) => unlooked(what, &error),
    }
}

async fn lane_queue(clients: &Clients, name: &str) -> Check {
    let what = format!("queue {name}");
    let attributes = match queue::url(clients, name).await {
        Ok(Some(url)) => queue::attributes(clients, name, &url).await,
        Ok(None) => return Check::fail(what, "is not there", PROVISION),
        Err(error) => return unlooked(what, &error),
    };
    let attributes = match attributes {
        Ok(attributes) => attributes,
        Err(error) => return unlooked(what, &error),
    };
    let retention = attributes.get(&QueueAttributeName::MessageRetentionPeriod);
    let retention = retention.and_then(|text| text.parse::<u64>().ok());
    if retention.is_some_and(|seconds| seconds < RETENTION_MIN_SECONDS) {
        return Check::warn(what, "forgets hints within a day", PROVISION);
    }
    let account = Arns::like(queue::arn(&attributes));
    let found = account.map_or_else(
        || "there".to_owned(),
        |arns| format!("there, in account {} of {}", arns.account, arns.region),
    );
    Check::ok(what, found)
}
