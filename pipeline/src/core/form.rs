//! Keys in the spelling of forms: listings are asked for it, since XML cannot carry every character a key may have
//! ("ListObjectsV2", EncodingType), and events come in it ("Event message structure", key).

/// A key as it is spelled: `+` is a space, `%XX` a byte.
///
/// A `%` without two digits after it stands for itself: nothing is lost, whoever encoded badly.
pub fn decoded(spelled: &str) -> Vec<u8> {
    let mut key = Vec::with_capacity(spelled.len());
    let mut rest = spelled.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        rest = behind;
        match (byte, escaped(behind)) {
            (b'%', Some(byte)) => {
                key.push(byte);
                rest = &behind[2..];
            }
            (b'+', _) => key.push(b' '),
            (byte, _) => key.push(byte),
        }
    }
    key
}

/// The byte that the next two hexadecimal digits say.
fn escaped(text: &[u8]) -> Option<u8> {
    let digit = |index: usize| char::from(*text.get(index)?).to_digit(16);
    let byte = digit(0)? * 16 + digit(1)?;
    u8::try_from(byte).ok()
}

/// A key in that spelling, as S3 spells it in events: a space is `+`, a slash stays.
pub fn encoded(key: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut spelled = String::with_capacity(key.len());
    for byte in key {
        match byte {
            b' ' => spelled.push('+'),
            b'/' | b'-' | b'_' | b'.' | b'*' => spelled.push(char::from(*byte)),
            byte if byte.is_ascii_alphanumeric() => spelled.push(char::from(*byte)),
            byte => write!(spelled, "%{byte:02X}").expect("a String takes everything"),
        }
    }
    spelled
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn both_spellings_of_a_space_and_a_plus_come_out_right() {
        assert_eq!(decoded("a+b%2Bc.txt"), b"a b+c.txt");
        assert_eq!(decoded("a%20b%2Bc.txt"), b"a b+c.txt");
        assert_eq!(decoded("in%2Fä%0A//.."), "in/ä\n//..".as_bytes());
    }

    #[test]
    fn a_key_is_spelled_as_s3_does() {
        assert_eq!(encoded(b"in/a b+c%=.jpg"), "in/a+b%2Bc%25%3D.jpg");
    }

    #[test]
    fn a_lone_percent_stands_for_itself() {
        assert_eq!(decoded("100%"), b"100%");
        assert_eq!(decoded("%zz%4"), b"%zz%4");
    }

    proptest! {
        #[test]
        fn any_key_comes_out_as_it_went_in(key in proptest::collection::vec(any::<u8>(), 0..64)) {
            prop_assert_eq!(decoded(&encoded(&key)), key);
        }
    }
}
