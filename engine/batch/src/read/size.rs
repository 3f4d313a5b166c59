//! Sizes of memory, as people write them.

/// The units, by the text that stands for each.
const UNITS: [(&str, u64); 8] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];
/// So many digits behind the point tell bytes apart in the largest unit.
const MOST_DIGITS: usize = 18;

/// Bytes of a text like `24GiB`, `1.5 GB` or `1024`: a number, and a unit behind it with a blank
/// between at most. Fractions of a byte are cut off. `None` for anything else, and for what 64 bits
/// cannot hold.
pub fn parse_size(text: &str) -> Option<u64> {
    let unit = UNITS
        .iter()
        .find_map(|&(unit, bytes)| Some((text.strip_suffix(unit)?, bytes)));
    let (number, bytes) = match unit {
        Some((number, bytes)) => (number.strip_suffix(' ').unwrap_or(number), bytes),
        None => (text, 1),
    };
    let (whole, part) = match number.split_once('.') {
        None => (number, ""),
        Some((_, "")) => return None,
        Some(_) if unit.is_none() => return None,
        Some(parts) => parts,
    };
    let are_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !are_digits(whole) || !are_digits(part) {
        return None;
    }
    let part = &part[..part.len().min(MOST_DIGITS)];
    let scale = 10_u128.pow(u32::try_from(part.len()).ok()?);
    let part: u128 = if part.is_empty() {
        0
    } else {
        part.parse().ok()?
    };
    let whole = u128::from(whole.parse::<u64>().ok()?) * u128::from(bytes);
    u64::try_from(whole + part * u128::from(bytes) / scale).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_rounded_down() {
        for (text, bytes) in [
            ("0", 0),
            ("1024", 1024),
            ("1KiB", 1024),
            ("1 KB", 1000),
            ("1.5GiB", 3 << 29),
            ("0.3 KB", 300),
            ("1.0009KB", 1000),
            ("24GiB", 24 << 30),
            ("16777215TiB", ((1 << 24) - 1) << 40),
        ] {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in [
            "",
            "KiB",
            "1G",
            "1 gib",
            "-1KB",
            "+1KB",
            "1.KB",
            ".5KB",
            "1.5",
            "1  KB",
            "1KB ",
            "0x1",
            "1e3KB",
            "16777216TiB",
            "99999999999999999999",
            "1.2.3KB",
            "\u{664}KB",
        ] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }
}
