//! How much of the past a server keeps: `--retain`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// How much of its log a server of the design `sequencer` keeps beyond what it cannot do without. Removed are whole files, and
/// only when that is worth it: so up to an eighth and `--segment-bytes` more is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Retain {
    /// All of it.
    #[default]
    Everything,
    /// The newest so many bytes.
    Bytes(u64),
    /// What is not older than this, by the timestamps in the log.
    Age(Duration),
}

/// Sizes, from the largest, in bytes.
const SIZES: [(&str, u64); 5] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];
/// Ages, from the longest, in seconds.
const AGES: [(&str, u64); 4] = [("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)];

impl FromStr for Retain {
    type Err = String;

    /// Reads `everything`, a size such as `1GiB`, or an age such as `30d`. The error says what is wrong, and is to be
    /// read after the text.
    fn from_str(text: &str) -> Result<Self, String> {
        if text == "everything" {
            return Ok(Self::Everything);
        }
        let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
        let digits = text.strip_suffix(unit).unwrap_or_default();
        let size = SIZES.iter().find(|(name, _)| *name == unit);
        let age = AGES.iter().find(|(name, _)| *name == unit);
        let Some((_, factor)) = size.or(age).filter(|_| !digits.is_empty()) else {
            return Err(
                "is neither a size such as 1GiB (B, KiB, MiB, GiB, TiB) nor an age such as 30d \
                        (s, min, h, d), nor everything"
                    .into(),
            );
        };
        let count = digits.parse::<u64>().ok().and_then(|count| count.checked_mul(*factor));
        match count {
            None => Err("is more than can be counted; say everything".into()),
            Some(0) => Err("keeps nothing; give a size such as 1GiB or an age such as 30d".into()),
            Some(bytes) if size.is_some() => Ok(Self::Bytes(bytes)),
            Some(seconds) => Ok(Self::Age(Duration::from_secs(seconds))),
        }
    }
}

impl fmt::Display for Retain {
    /// In the largest unit that fits exactly, so that it reads back the same.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (count, units) = match self {
            Self::Everything => return f.write_str("everything"),
            Self::Bytes(bytes) => (*bytes, &SIZES[..]),
            Self::Age(age) => (age.as_secs(), &AGES[..]),
        };
        let (name, factor) =
            units.iter().find(|(_, factor)| count % factor == 0).unwrap_or(&("", 1));
        write!(f, "{}{name}", count / factor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_ages_and_everything_are_read_and_written() {
        let days = |days: u64| Retain::Age(Duration::from_secs(days * 86_400));
        for (text, wanted, written) in [
            ("everything", Retain::Everything, "everything"),
            ("1GiB", Retain::Bytes(1 << 30), "1GiB"),
            ("1024MiB", Retain::Bytes(1 << 30), "1GiB"),
            ("1025B", Retain::Bytes(1025), "1025B"),
            ("3KiB", Retain::Bytes(3072), "3KiB"),
            ("2TiB", Retain::Bytes(2 << 40), "2TiB"),
            ("30d", days(30), "30d"),
            ("24h", days(1), "1d"),
            ("90min", Retain::Age(Duration::from_secs(5400)), "90min"),
            ("7s", Retain::Age(Duration::from_secs(7)), "7s"),
        ] {
            assert_eq!(text.parse(), Ok(wanted), "{text}");
            assert_eq!(wanted.to_string(), written);
        }
    }

    #[test]
    fn what_is_neither_is_refused_with_an_example() {
        for (text, wanted) in [
            ("", "neither a size such as 1GiB"),
            ("7", "neither a size"),
            ("GiB", "neither a size"),
            ("1 GiB", "neither a size"),
            ("1gb", "neither a size"),
            ("-1d", "nor an age such as 30d"),
            ("5m", "(s, min, h, d)"),
            ("0d", "keeps nothing"),
            ("0KiB", "keeps nothing"),
            ("99999999999TiB", "more than can be counted"),
            ("99999999999999999999999d", "more than can be counted"),
        ] {
            let refusal = text.parse::<Retain>().unwrap_err();
            assert!(refusal.contains(wanted), "{text}: {refusal}");
        }
    }
}
