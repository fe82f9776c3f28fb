//! The ledger's table: string keys, paid by request, rows that go by themselves once they have expired.
#![expect(
    clippy::disallowed_methods,
    reason = "waiting for AWS to make a table happens before any port is there"
)]

use std::time::Duration;

use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType, TableStatus,
    TimeToLiveSpecification, TimeToLiveStatus,
};

use super::{ApplyError, Deed, Found, is_code};
use crate::adapters::aws::classify::Fault;
use crate::adapters::aws::config::Clients;
use crate::adapters::aws::expression::{PK, SK};

/// What marks and intakes carry: when they may go, in seconds since 1970.
pub(in crate::adapters::aws) const EXPIRES: &str = "expires";

/// A new table is ready within seconds on AWS; an emulator may have to start its database first.
const READY_WITHIN: Duration = Duration::from_mins(2);

/// Between two looks at a table that is being made.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// How a table stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::adapters::aws) enum TableState {
    /// There is none.
    Missing,
    /// It is being made.
    Pending,
    /// It can be used.
    Ready,
}

pub(super) async fn go(
    clients: &Clients,
    table: &str,
    deed: Deed,
    found: &mut Found,
) -> Result<(), ApplyError> {
    let what = format!("table `{table}`");
    let before = state(clients, table).await?;
    match (before, deed) {
        (TableState::Missing, Deed::Look) => {
            found.created.push(what);
            return Ok(());
        }
        (TableState::Missing, Deed::Make) => {
            if create(clients, table).await? {
                wait(clients, table).await?;
                turn_expiry_on(clients, table).await?;
                found.created.push(what);
                return Ok(());
            }
            // Somebody else made it meanwhile.
            wait(clients, table).await?;
        }
        (TableState::Pending, Deed::Make) => wait(clients, table).await?,
        (TableState::Pending | TableState::Ready, Deed::Look) | (TableState::Ready, Deed::Make) => {
        }
    }
    let mut changes = Vec::new();
    if !expires(clients, table).await? {
        if deed == Deed::Make {
            turn_expiry_on(clients, table).await?;
        }
        changes.push(format!("time to live on `{EXPIRES}`"));
    }
    found.met(what, &changes);
    Ok(())
}

/// How the table stands; one of somebody else's is an error.
pub(in crate::adapters::aws) async fn state(
    clients: &Clients,
    name: &str,
) -> Result<TableState, ApplyError> {
    let what = format!("table `{name}`");
    let answer = clients.dynamodb.describe_table().table_name(name).send();
    let table = match answer.await {
        Ok(answer) => answer.table,
        Err(error) if is_code(&error, &["ResourceNotFoundException"]) => {
            return Ok(TableState::Missing);
        }
        Err(error) => return Err(ApplyError::new(what, Fault::of(&error).table())),
    };
    let Some(table) = table else {
        return Ok(TableState::Missing);
    };
    let keys: Vec<(&str, &KeyType)> = table
        .key_schema()
        .iter()
        .map(|key| (key.attribute_name(), key.key_type()))
        .collect();
    if keys != [(PK, &KeyType::Hash), (SK, &KeyType::Range)] {
        let why = "is there, but its keys are not `pk` and `sk`: it is somebody else's; choose another name";
        return Err(ApplyError::new(what, why));
    }
    if table.table_status() == Some(&TableStatus::Active) {
        Ok(TableState::Ready)
    } else {
        Ok(TableState::Pending)
    }
}

/// Whether expired rows go by themselves.
pub(in crate::adapters::aws) async fn expires(
    clients: &Clients,
    name: &str,
) -> Result<bool, ApplyError> {
    let answer = clients
        .dynamodb
        .describe_time_to_live()
        .table_name(name)
        .send()
        .await
        .map_err(|error| failed(name, &error))?;
    let Some(set) = answer.time_to_live_description else {
        return Ok(false);
    };
    // It is turned on within an hour of being asked for ("UpdateTimeToLive").
    let on = [TimeToLiveStatus::Enabled, TimeToLiveStatus::Enabling];
    let is_on = set.time_to_live_status().is_some_and(|is| on.contains(is));
    Ok(is_on && set.attribute_name() == Some(EXPIRES))
}

async fn turn_expiry_on(clients: &Clients, name: &str) -> Result<(), ApplyError> {
    let specification = TimeToLiveSpecification::builder()
        .attribute_name(EXPIRES)
        .enabled(true)
        .build()
        .expect("name and switch are set");
    let answer = clients
        .dynamodb
        .update_time_to_live()
        .table_name(name)
        .time_to_live_specification(specification)
        .send()
        .await;
    match answer {
        Ok(_) => Ok(()),
        // Turning it on twice is refused: somebody else may have done it in between.
        Err(_) if expires(clients, name).await? => Ok(()),
        Err(error) => Err(failed(name, &error)),
    }
}

async fn wait(clients: &Clients, name: &str) -> Result<(), ApplyError> {
    let ready = async {
        while state(clients, name).await? != TableState::Ready {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    };
    match tokio::time::timeout(READY_WITHIN, ready).await {
        Ok(done) => done,
        Err(_) => Err(ApplyError::new(
            format!("table `{name}`"),
            "was not ready within two minutes: look at it and try again",
        )),
    }
}

/// Whether it was us who made it.
async fn create(clients: &Clients, name: &str) -> Result<bool, ApplyError> {
    let answer = clients
        .dynamodb
        .create_table()
        .table_name(name)
        .billing_mode(BillingMode::PayPerRequest)
        .attribute_definitions(text_attribute(PK))
        .attribute_definitions(text_attribute(SK))
        .key_schema(key(PK, KeyType::Hash))
        .key_schema(key(SK, KeyType::Range))
        .send()
        .await;
    match answer {
        Ok(_) => Ok(true),
        Err(error) if is_code(&error, &["ResourceInUseException"]) => Ok(false),
        Err(error) => Err(failed(name, &error)),
    }
}

fn failed<E>(
    name: &str,
    error: &aws_sdk_dynamodb::error::SdkError<E, aws_sdk_dynamodb::config::http::HttpResponse>,
) -> ApplyError
where
    E: aws_sdk_dynamodb::error::ProvideErrorMetadata + std::error::Error + 'static,
{
    ApplyError::new(format!("table `{name}`"), Fault::of(error).table())
}

fn text_attribute(name: &str) -> AttributeDefinition {
    AttributeDefinition::builder()
        .attribute_name(name)
        .attribute_type(ScalarAttributeType::S)
        .build()
        .expect("name and type are set")
}

fn key(name: &str, key_type: KeyType) -> KeySchemaElement {
    KeySchemaElement::builder()
        .attribute_name(name)
        .key_type(key_type)
        .build()
        .expect("name and type are set")
}
