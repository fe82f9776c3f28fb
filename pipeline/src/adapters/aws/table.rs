//! `Table` on DynamoDB: each of its calls is one request.
//!
//! Requests go once, without the SDK's own tries: after several writes the last answer would say nothing
//! of the earlier ones, `Throttled` could not promise that nothing was written, and an `Add` might be
//! done twice. The ledger tries again itself, reads as well as writes: two that try would multiply.

use async_trait::async_trait;
use aws_config::retry::RetryConfig;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::types::{
    AttributeValue, ConditionCheck, Delete, Put, ReturnConsumedCapacity, ReturnValue,
    TransactWriteItem, Update as Updating,
};
use base64::Engine as _;
use sha2::{Digest as _, Sha256};

use super::classify::{Fault, cancelled};
use super::config::Clients;
use super::expression::{
    PK, SK, Words, item, key_attributes, read, refuse_key_attributes, refused,
};
use crate::adapters::bounds::table as bounds;
use crate::ports::table::{Change, QueryPage};
use crate::ports::{
    Condition, Consistency, Key, Query, Row, Table, TableError, TableProfile, Update, Write,
};

/// The longest ClientRequestToken ("TransactWriteItems").
const TOKEN_CHARS: usize = 36;

/// Units of the whole request, for the meter.
const METERED: ReturnConsumedCapacity = ReturnConsumedCapacity::Total;

/// The least text that can be a key: DynamoDB takes no empty ones.
const LEAST_KEY: &str = "\0";

/// A DynamoDB table with string keys `pk` and `sk`.
#[derive(Clone, Debug)]
pub struct DynamoTable {
    client: Client,
    name: String,
    profile: TableProfile,
}

impl DynamoTable {
    /// The table of that name. Talks to nobody yet: a missing table shows with the first request.
    pub fn new(clients: &Clients, name: impl Into<String>) -> Self {
        let once = clients
            .dynamodb
            .config()
            .to_builder()
            .retry_config(RetryConfig::disabled())
            .build();
        Self {
            client: Client::from_conf(once),
            name: name.into(),
            profile: clients.endpoint.table,
        }
    }

    async fn put(&self, key: Key, when: &[Condition], row: Row) -> Result<Row, TableError> {
        let mut words = Words::default();
        let condition = words.conditions(when);
        self.client
            .put_item()
            .table_name(&self.name)
            .return_consumed_capacity(METERED)
            .set_item(Some(item(key, &row)?))
            .set_condition_expression(condition)
            .set_expression_attribute_names(words.names())
            .set_expression_attribute_values(words.values())
            .send()
            .await
            .map_err(|error| Fault::of(&error).table())?;
        Ok(row)
    }

    async fn update(
        &self,
        key: Key,
        when: &[Condition],
        updates: &[Update],
    ) -> Result<Row, TableError> {
        let mut words = Words::default();
        let condition = words.conditions(when);
        let updating = words.updates(updates);
        let answer = self
            .client
            .update_item()
            .table_name(&self.name)
            .return_consumed_capacity(METERED)
            .set_key(Some(key_attributes(key)))
            .set_update_expression(updating)
            .set_condition_expression(condition)
            .set_expression_attribute_names(words.names())
            .set_expression_attribute_values(words.values())
            .return_values(ReturnValue::AllNew)
            .send()
            .await
            .map_err(|error| Fault::of(&error).table())?;
        let (_, row) = read(answer.attributes.unwrap_or_default())?;
        Ok(row)
    }

    async fn delete(&self, key: Key, when: &[Condition]) -> Result<(), TableError> {
        let mut words = Words::default();
        let condition = words.conditions(when);
        self.client
            .delete_item()
            .table_name(&self.name)
            .return_consumed_capacity(METERED)
            .set_key(Some(key_attributes(key)))
            .set_condition_expression(condition)
            .set_expression_attribute_names(words.names())
            .set_expression_attribute_values(words.values())
            .send()
            .await
            .map_err(|error| Fault::of(&error).table())?;
        Ok(())
    }

    fn action(&self, write: Write) -> Result<TransactWriteItem, TableError> {
        let mut words = Words::default();
        let condition = words.conditions(&write.when);
        let action = TransactWriteItem::builder();
        let action = match write.change {
            Change::Put(row) => {
                let put = Put::builder()
                    .table_name(&self.name)
                    .set_item(Some(item(write.key, &row)?))
                    .set_condition_expression(condition)
                    .set_expression_attribute_names(words.names())
                    .set_expression_attribute_values(words.values());
                action.put(put.build().map_err(|error| unbuilt(&error))?)
            }
            Change::Update(updates) => {
                let updating = words.updates(&updates);
                let update = Updating::builder()
                    .table_name(&self.name)
                    .set_key(Some(key_attributes(write.key)))
                    .set_update_expression(updating)
                    .set_condition_expression(condition)
                    .set_expression_attribute_names(words.names())
                    .set_expression_attribute_values(words.values());
                action.update(update.build().map_err(|error| unbuilt(&error))?)
            }
            Change::Delete => {
                let delete = Delete::builder()
                    .table_name(&self.name)
                    .set_key(Some(key_attributes(write.key)))
                    .set_condition_expression(condition)
                    .set_expression_attribute_names(words.names())
                    .set_expression_attribute_values(words.values());
                action.delete(delete.build().map_err(|error| unbuilt(&error))?)
            }
            Change::Check => {
                let check = ConditionCheck::builder()
                    .table_name(&self.name)
                    .set_key(Some(key_attributes(write.key)))
                    .set_condition_expression(condition)
                    .set_expression_attribute_names(words.names())
                    .set_expression_attribute_values(words.values());
                action.condition_check(check.build().map_err(|error| unbuilt(&error))?)
            }
        };
        Ok(action.build())
    }
}

#[async_trait]
impl Table for DynamoTable {
    fn profile(&self) -> TableProfile {
        self.profile
    }

    async fn get(&self, key: &Key, consistency: Consistency) -> Result<Option<Row>, TableError> {
        bounds::check_key(key)?;
        let answer = self
            .client
            .get_item()
            .table_name(&self.name)
            .return_consumed_capacity(METERED)
            .set_key(Some(key_attributes(key.clone())))
            .consistent_read(is_strong(consistency))
            .send()
            .await
            .map_err(|error| Fault::of(&error).table())?;
        match answer.item {
            Some(attributes) => Ok(Some(read(attributes)?.1)),
            None => Ok(None),
        }
    }

    async fn write(&self, write: Write) -> Result<Option<Row>, TableError> {
        bounds::check_write(&write)?;
        refuse_key_attributes(&write)?;
        match write.change {
            Change::Put(row) => self.put(write.key, &write.when, row).await.map(Some),
            Change::Update(updates) => self
                .update(write.key, &write.when, &updates)
                .await
                .map(Some),
            Change::Delete => self.delete(write.key, &write.when).await.map(|()| None),
            Change::Check => Err(refused("a check by itself writes nothing: use a read")),
        }
    }

    async fn transact(&self, token: &str, writes: Vec<Write>) -> Result<(), TableError> {
        bounds::check_transaction(self.profile, &writes)?;
        let mut actions = Vec::with_capacity(writes.len());
        for write in writes {
            refuse_key_attributes(&write)?;
            actions.push(self.action(write)?);
        }
        let answer = self
            .client
            .transact_write_items()
            .set_transact_items(Some(actions))
            .return_consumed_capacity(METERED)
            .client_request_token(request_token(&self.name, token))
            .send()
            .await;
        let Err(error) = answer else { return Ok(()) };
        if let Some(TransactWriteItemsError::TransactionCanceledException(cancel)) =
            error.as_service_error()
        {
            let codes: Vec<&str> = cancel
                .cancellation_reasons()
                .iter()
                .map(|reason| reason.code().unwrap_or_default())
                .collect();
            return Err(cancelled(&codes, cancel.message().unwrap_or_default()));
        }
        Err(Fault::of(&error).table())
    }

    async fn query(&self, query: Query) -> Result<QueryPage, TableError> {
        bounds::check_query(&query)?;
        let Some(range) = Range::of(&query) else {
            return Ok(QueryPage::default());
        };
        let start = range.after.map(|after| {
            let key = Key::new(query.pk.as_str(), after);
            key_attributes(key)
        });
        let answer = self
            .client
            .query()
            .table_name(&self.name)
            .return_consumed_capacity(METERED)
            .key_condition_expression("#pk = :pk AND #sk BETWEEN :from AND :to")
            .expression_attribute_names("#pk", PK)
            .expression_attribute_names("#sk", SK)
            .expression_attribute_values(":pk", AttributeValue::S(query.pk.clone()))
            .expression_attribute_values(":from", AttributeValue::S(range.from.to_owned()))
            .expression_attribute_values(":to", AttributeValue::S(range.to.to_owned()))
            .set_exclusive_start_key(start)
            .limit(i32::try_from(query.limit).unwrap_or(i32::MAX))
            .consistent_read(is_strong(query.consistency))
            .send()
            .await
            .map_err(|error| Fault::of(&error).table())?;
        let mut page = QueryPage::default();
        for attributes in answer.items.unwrap_or_default() {
            let (key, row) = read(attributes)?;
            page.rows.push((key.sk, row));
        }
        page.next = match answer.last_evaluated_key {
            Some(attributes) if !attributes.is_empty() => Some(read(attributes)?.0.sk),
            Some(_) | None => None,
        };
        Ok(page)
    }
}

/// The sort keys a query covers, in a form DynamoDB takes: no empty key, no bounds the wrong way
/// round, no start outside the bounds.
struct Range<'a> {
    from: &'a str,
    to: &'a str,
    after: Option<&'a str>,
}

impl<'a> Range<'a> {
    /// None: it covers nothing.
    fn of(query: &'a Query) -> Option<Self> {
        let from = if query.from.is_empty() {
            LEAST_KEY
        } else {
            &query.from
        };
        let to = query.to.as_str();
        let after = query.after.as_deref().filter(|after| *after >= from);
        let nothing = from > to || after.is_some_and(|after| after >= to);
        (!nothing).then_some(Self { from, to, after })
    }
}

/// A field that must be there was not: an update without changes, a check without conditions.
fn unbuilt(error: &aws_sdk_dynamodb::error::BuildError) -> TableError {
    TableError::Refused(format!("a transaction cannot carry this write: {error}"))
}

fn is_strong(consistency: Consistency) -> bool {
    match consistency {
        Consistency::Strong => true,
        Consistency::Eventual => false,
    }
}

/// Any token as a ClientRequestToken: the start of a hash. The table is hashed with it, because tokens are
/// the account's, and two ledgers may well do the same.
fn request_token(table: &str, token: &str) -> String {
    /// In base64, 27 bytes are exactly the 36 characters there is room for.
    const BYTES: usize = TOKEN_CHARS / 4 * 3;
    // A table's name holds no slash.
    let hash = Sha256::digest(format!("{table}/{token}"));
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(&hash[..BYTES])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(from: &str, to: &str, after: Option<&str>) -> Query {
        Query {
            after: after.map(str::to_owned),
            ..Query::all("p", 10).between(from, to)
        }
    }

    fn bounds(query: &Query) -> Option<(&str, &str, Option<&str>)> {
        Range::of(query).map(|range| (range.from, range.to, range.after))
    }

    #[test]
    fn a_range_is_one_that_dynamodb_takes() {
        assert_eq!(bounds(&query("b", "d", None)), Some(("b", "d", None)));
        assert_eq!(bounds(&query("", "d", None)), Some((LEAST_KEY, "d", None)));
        assert_eq!(bounds(&query("d", "b", None)), None);
        assert_eq!(bounds(&query("b", "", None)), None);
    }

    #[test]
    fn a_start_outside_the_bounds_is_never_sent() {
        assert_eq!(bounds(&query("b", "d", Some("a"))), Some(("b", "d", None)));
        assert_eq!(
            bounds(&query("b", "d", Some("c"))),
            Some(("b", "d", Some("c")))
        );
        assert_eq!(bounds(&query("b", "d", Some("d"))), None);
        assert_eq!(bounds(&query("b", "d", Some("e"))), None);
    }

    #[test]
    fn a_token_of_any_length_fits_and_stays_itself() {
        let long = request_token("table", &"x".repeat(1000));
        assert_eq!(long.len(), TOKEN_CHARS);
        assert_eq!(long, request_token("table", &"x".repeat(1000)));
        assert_ne!(long, request_token("table", "x"));
        assert_ne!(long, request_token("other", &"x".repeat(1000)));
    }
}
