//! A write in DynamoDB's words: expressions with placeholders, and rows as attribute maps.
//!
//! Pure. Every name and every value is a placeholder, so reserved words are names like any other.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;

use crate::ports::table::Change;
use crate::ports::{Condition, Key, Row, TableError, Update, Value, Write};

/// The partition key's attribute.
pub(super) const PK: &str = "pk";
/// The sort key's attribute.
pub(super) const SK: &str = "sk";

/// A row as the SDK carries it.
pub(super) type Attributes = HashMap<String, AttributeValue>;

/// The placeholders of one request's expressions.
#[derive(Default)]
pub(super) struct Words {
    names: HashMap<String, String>,
    values: Attributes,
}

impl Words {
    fn name(&mut self, name: &str) -> String {
        let word = format!("#n{}", self.names.len());
        self.names.insert(word.clone(), name.to_owned());
        word
    }

    fn value(&mut self, value: AttributeValue) -> String {
        let word = format!(":v{}", self.values.len());
        self.values.insert(word.clone(), value);
        word
    }

    fn number(&mut self, number: i64) -> String {
        self.value(AttributeValue::N(number.to_string()))
    }

    /// All of them as one expression; none if there are none.
    pub(super) fn conditions(&mut self, when: &[Condition]) -> Option<String> {
        let terms: Vec<String> = when.iter().map(|one| self.condition(one)).collect();
        (!terms.is_empty()).then(|| terms.join(" AND "))
    }

    fn condition(&mut self, condition: &Condition) -> String {
        match condition {
            Condition::Absent => format!("attribute_not_exists({})", self.name(PK)),
            Condition::Present => format!("attribute_exists({})", self.name(PK)),
            Condition::Missing(name) => format!("attribute_not_exists({})", self.name(name)),
            Condition::Equals(name, value) => {
                format!("{} = {}", self.name(name), self.value(attribute(value)))
            }
            Condition::AtMost(name, most) => {
                format!("{} <= {}", self.name(name), self.number(*most))
            }
            Condition::AtLeast(name, least) => {
                format!("{} >= {}", self.name(name), self.number(*least))
            }
        }
    }

    /// All of them as one expression; none if there are none.
    pub(super) fn updates(&mut self, updates: &[Update]) -> Option<String> {
        let (mut set, mut add, mut remove) = (Vec::new(), Vec::new(), Vec::new());
        for update in updates {
            match update {
                Update::Set(name, value) => {
                    set.push(format!(
                        "{} = {}",
                        self.name(name),
                        self.value(attribute(value))
                    ));
                }
                Update::Add(name, number) => {
                    add.push(format!("{} {}", self.name(name), self.number(*number)));
                }
                Update::Remove(name) => remove.push(self.name(name)),
            }
        }
        let clauses = [("SET", set), ("ADD", add), ("REMOVE", remove)];
        let clauses: Vec<String> = clauses
            .into_iter()
            .filter(|(_, terms)| !terms.is_empty())
            .map(|(verb, terms)| format!("{verb} {}", terms.join(", ")))
            .collect();
        (!clauses.is_empty()).then(|| clauses.join(" "))
    }

    /// The names' placeholders; DynamoDB refuses an empty map.
    pub(super) fn names(&mut self) -> Option<HashMap<String, String>> {
        (!self.names.is_empty()).then(|| std::mem::take(&mut self.names))
    }

    /// The values' placeholders.
    pub(super) fn values(&mut self) -> Option<Attributes> {
        (!self.values.is_empty()).then(|| std::mem::take(&mut self.values))
    }
}

/// An empty text is `NULL`: DynamoDB took no empty texts before 2020, the DynamoDB Local of that year
/// does not to this day, and one form for all keeps a ledger the same wherever it lies.
fn attribute(value: &Value) -> AttributeValue {
    match value {
        Value::Text(text) if text.is_empty() => AttributeValue::Null(true),
        Value::Num(number) => AttributeValue::N(number.to_string()),
        Value::Text(text) => AttributeValue::S(text.to_string()),
    }
}

/// A key as attributes.
pub(super) fn key_attributes(key: Key) -> Attributes {
    HashMap::from([
        (PK.to_owned(), AttributeValue::S(key.pk)),
        (SK.to_owned(), AttributeValue::S(key.sk)),
    ])
}

/// A whole row as attributes.
pub(super) fn item(key: Key, row: &Row) -> Result<Attributes, TableError> {
    let mut attributes = key_attributes(key);
    for (name, value) in row.iter() {
        if is_key(name) {
            return Err(key_named());
        }
        attributes.insert(name.to_string(), attribute(value));
    }
    Ok(attributes)
}

/// Takes a row apart into its key and its attributes.
pub(super) fn read(attributes: Attributes) -> Result<(Key, Row), TableError> {
    let mut key = Key::new("", "");
    let mut row = Row::new();
    for (name, value) in attributes {
        let value = match value {
            AttributeValue::S(text) => text.into(),
            AttributeValue::Null(_) => "".into(),
            AttributeValue::N(number) => match number.parse() {
                Ok(number) => Value::Num(number),
                Err(_) => return Err(foreign(&name)),
            },
            // The service has seven more types, none of which we write.
            _ => return Err(foreign(&name)),
        };
        match (name.as_str(), value) {
            (PK, Value::Text(text)) => key.pk = text.to_string(),
            (SK, Value::Text(text)) => key.sk = text.to_string(),
            (_, value) => {
                row.set(name.into(), value);
            }
        }
    }
    Ok((key, row))
}

fn is_key(name: &str) -> bool {
    name == PK || name == SK
}

/// Key attributes are the key's alone; DynamoDB would say so in its own, less clear words.
pub(super) fn refuse_key_attributes(write: &Write) -> Result<(), TableError> {
    let Change::Update(updates) = &write.change else {
        return Ok(());
    };
    let names_key = updates.iter().any(|update| match update {
        Update::Set(name, _) | Update::Add(name, _) | Update::Remove(name) => is_key(name),
    });
    if names_key { Err(key_named()) } else { Ok(()) }
}

fn key_named() -> TableError {
    refused("`pk` and `sk` are the key's own attributes and cannot be written")
}

fn foreign(name: &str) -> TableError {
    refused(&format!(
        "attribute `{name}` holds what Trommel never writes: is the table shared with something else?"
    ))
}

/// A refusal in our words.
pub(super) fn refused(text: &str) -> TableError {
    TableError::Refused(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_values_stand_behind_placeholders_whatever_they_are() {
        let mut words = Words::default();
        let condition = words.conditions(&[
            Condition::Absent,
            Condition::Equals("status".into(), "running".into()),
            Condition::AtMost("size".into(), 7),
        ]);
        let updating = words.updates(&[
            Update::Add("count".into(), -2),
            Update::Remove("owner".into()),
            Update::Set("date".into(), "".into()),
            Update::Set("order".into(), 3.into()),
        ]);
        assert_eq!(
            condition.as_deref(),
            Some("attribute_not_exists(#n0) AND #n1 = :v0 AND #n2 <= :v1")
        );
        assert_eq!(
            updating.as_deref(),
            Some("SET #n5 = :v3, #n6 = :v4 ADD #n3 :v2 REMOVE #n4")
        );
        let names = words.names().expect("names were used");
        assert_eq!(names["#n0"], "pk");
        assert_eq!(names["#n1"], "status");
        let values = words.values().expect("values were used");
        assert_eq!(values[":v0"], AttributeValue::S("running".to_owned()));
        assert_eq!(values[":v2"], AttributeValue::N("-2".to_owned()));
        assert_eq!(values[":v3"], AttributeValue::Null(true));
    }

    #[test]
    fn nothing_to_say_is_no_expression() {
        let mut words = Words::default();
        assert_eq!(words.conditions(&[]), None);
        assert_eq!(words.updates(&[]), None);
        assert_eq!(words.names(), None);
        assert_eq!(words.values(), None);
    }

    #[test]
    fn a_row_reads_back_as_it_was_written() {
        let row = Row::new()
            .with("least", i64::MIN)
            .with("most", i64::MAX)
            .with("empty", "")
            .with("text", "ä\u{0}~");
        let attributes = item(Key::new("a", "b"), &row).expect("no key attribute in it");
        assert_eq!(read(attributes), Ok((Key::new("a", "b"), row)));
    }

    #[test]
    fn what_trommel_never_writes_is_refused() {
        let strange = [
            AttributeValue::Bool(true),
            AttributeValue::N("1.5".to_owned()),
            AttributeValue::N("9223372036854775808".to_owned()),
        ];
        for value in strange {
            let attributes = HashMap::from([("x".to_owned(), value)]);
            assert!(matches!(read(attributes), Err(TableError::Refused(_))));
        }
        let row = Row::new().with("pk", "other");
        assert!(item(Key::new("a", "b"), &row).is_err());
    }
}
