//! A row's attributes as a JSON object, and back.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeMap as _, Serializer};

use crate::ports::table::{Row, Value};

/// Writes the row into `buffer`, in place of what was there.
pub(super) fn encode(row: &Row, buffer: &mut Vec<u8>) {
    buffer.clear();
    serde_json::to_writer(buffer, &Written(row))
        .expect("texts and whole numbers always serialise, and memory takes them");
}

/// Reads [`encode`]'s text.
///
/// # Errors
/// Says what is wrong with it: only after somebody else has written it.
pub(super) fn decode(text: &str) -> Result<Row, String> {
    serde_json::from_str::<Read>(text)
        .map(|read| read.0)
        .map_err(|error| error.to_string())
}

struct Written<'a>(&'a Row);

impl Serialize for Written<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in self.0.iter() {
            match value {
                Value::Num(number) => map.serialize_entry(name, number)?,
                Value::Text(text) => map.serialize_entry(name, text.as_ref())?,
            }
        }
        map.end()
    }
}

struct Read(Row);

impl<'de> Deserialize<'de> for Read {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(RowVisitor).map(Self)
    }
}

struct RowVisitor;

impl<'de> Visitor<'de> for RowVisitor {
    type Value = Row;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of whole numbers and texts")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Row, A::Error> {
        let mut row = Row::new();
        while let Some(name) = map.next_key::<String>()? {
            let ReadValue(value) = map.next_value()?;
            row.set(name.into(), value);
        }
        Ok(row)
    }
}

struct ReadValue(Value);

impl<'de> Deserialize<'de> for ReadValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor).map(Self)
    }
}

struct ValueVisitor;

impl Visitor<'_> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number or a text")
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Num(number))
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Value, E> {
        i64::try_from(number)
            .map(Value::Num)
            .map_err(|_| E::custom("a number beyond 64 bits with sign"))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_string<E: serde::de::Error>(self, text: String) -> Result<Value, E> {
        Ok(text.into())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn value() -> impl Strategy<Value = Value> {
        prop_oneof![
            any::<i64>().prop_map(Value::Num),
            any::<String>().prop_map(Value::from),
        ]
    }

    proptest! {
        #[test]
        fn a_row_reads_back(attributes in proptest::collection::btree_map(any::<String>(), value(), 0..6)) {
            let row: Row = attributes.into_iter().map(|(name, value)| (name.into(), value)).collect();
            let mut buffer = b"left over".to_vec();
            encode(&row, &mut buffer);
            let text = std::str::from_utf8(&buffer).expect("JSON is UTF-8");
            prop_assert_eq!(decode(text), Ok(row));
        }
    }

    #[test]
    fn what_is_no_row_is_named() {
        for text in [
            "",
            "[]",
            "{\"a\":1.5}",
            "{\"a\":null}",
            "{\"a\":18446744073709551615}",
        ] {
            assert!(decode(text).is_err(), "{text}");
        }
    }
}
