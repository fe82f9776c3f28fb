//! The smallest archive that a function's code can come in: one file, stored as it is ("APPNOTE.TXT - .ZIP File Format
//! Specification"). Pure.

/// "Version needed to extract": 1.0, nothing special.
const VERSION: u16 = 10;

/// 1 January 1980, the first day that the format has.
const DATE: u16 = 0b0000_0000_0010_0001;

/// An archive with this file in it.
pub(crate) fn of_one_file(name: &str, bytes: &[u8]) -> Vec<u8> {
    let mut zip = Vec::new();
    zip.extend_from_slice(b"PK\x03\x04");
    put_entry(&mut zip, name, bytes);
    zip.extend_from_slice(name.as_bytes());
    zip.extend_from_slice(bytes);
    let directory_at = zip.len();
    zip.extend_from_slice(b"PK\x01\x02");
    put16(&mut zip, &[VERSION]);
    put_entry(&mut zip, name, bytes);
    // No comment, on the first disk, no attributes, its entry at the very begin.
    put16(&mut zip, &[0, 0, 0]);
    put32(&mut zip, &[0, 0]);
    zip.extend_from_slice(name.as_bytes());
    let directory_bytes = zip.len() - directory_at;
    zip.extend_from_slice(b"PK\x05\x06");
    put16(&mut zip, &[0, 0, 1, 1]);
    put32(&mut zip, &[directory_bytes as u32, directory_at as u32]);
    put16(&mut zip, &[0]);
    zip
}

/// What an entry and its line in the directory have in common.
fn put_entry(zip: &mut Vec<u8>, name: &str, bytes: &[u8]) {
    let length = bytes.len() as u32;
    // No flags, stored, at midnight.
    put16(zip, &[VERSION, 0, 0, 0, DATE]);
    put32(zip, &[crc32(bytes), length, length]);
    put16(zip, &[name.len() as u16, 0]);
}

fn put16(zip: &mut Vec<u8>, numbers: &[u16]) {
    zip.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
}

fn put32(zip: &mut Vec<u8>, numbers: &[u32]) {
    zip.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
}

fn crc32(bytes: &[u8]) -> u32 {
    const POLYNOMIAL: u32 = 0xEDB8_8320;
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            let carry = crc & 1;
            crc = (crc >> 1) ^ (POLYNOMIAL * carry);
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_one_that_everybody_checks_with() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    }

    #[test]
    fn an_archive_is_its_file_and_what_the_format_adds() {
        let zip = of_one_file("app.py", b"pass");
        assert_eq!(zip.len(), (30 + 6 + 4) + (46 + 6) + 22);
        assert!(zip.starts_with(b"PK\x03\x04"));
    }
}
