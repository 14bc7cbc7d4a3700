//! Durations such as `500ms` or `7d`, and sizes such as `64MB`.

pub(crate) use unisono_core::time::{duration, duration_text as show_duration};

/// A number with `B`, `KB`, `MB` or `GB` (powers of 1024), in bytes.
pub(crate) fn size(text: &str) -> Option<i64> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let bytes: u64 = match unit.trim_start() {
        "B" => 1,
        "KB" => 1 << 10,
        "MB" => 1 << 20,
        "GB" => 1 << 30,
        _ => return None,
    };
    i64::try_from(number.parse::<u64>().ok()?.checked_mul(bytes)?).ok()
}

/// A size as it is written.
pub(crate) fn show_size(bytes: i64) -> String {
    let units = [(1 << 30, "GB"), (1 << 20, "MB"), (1 << 10, "KB")];
    let exact = units.into_iter().find(|(n, _)| bytes > 0 && bytes % n == 0);
    exact.map_or_else(|| format!("{bytes}B"), |(n, unit)| format!("{}{unit}", bytes / n))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_survive_their_text() {
        for text in ["500ms", "1m", "7d", "36h", "90s", "0ms"] {
            assert_eq!(show_duration(duration(text).unwrap()), text);
        }
        for text in ["64MB", "1GB", "3B", "16KB", "1536MB"] {
            assert_eq!(show_size(size(text).unwrap()), text);
        }
        assert_eq!(size("8 MB"), Some(8 << 20));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in
            ["", "60", "s", "-1s", "1.5s", "60 sec", "99999999999999999999s", "36601d", "１s"]
        {
            assert_eq!(duration(text), None, "{text}");
        }
        for text in ["", "64", "MB", "64mb", "64MiB", "9999999999GB"] {
            assert_eq!(size(text), None, "{text}");
        }
    }
}
