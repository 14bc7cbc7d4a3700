//! Suggestions for misspelt names.

/// The candidate nearest to a name, if it is near enough to be meant: at most a third of its characters differ, and
/// at most three. A tie goes to the first.
pub fn closest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name: Vec<char> = name.to_lowercase().chars().take(NAME_CHARS_MAX + 1).collect();
    if name.len() > NAME_CHARS_MAX {
        return None;
    }
    let near = |candidate: &&str| {
        let other: Vec<char> = candidate.chars().take(NAME_CHARS_MAX + 1).collect();
        let bound = name.len().max(other.len()).div_ceil(3).min(3);
        let distance = distance(&name, &other);
        (distance <= bound && distance < other.len()).then_some(distance)
    };
    let scored = candidates.into_iter().filter_map(|c| near(&c).map(|distance| (distance, c)));
    scored.min_by_key(|(distance, _)| *distance).map(|(_, c)| c)
}

/// Names above this length are not looked at: comparing takes the product of both lengths.
const NAME_CHARS_MAX: usize = 64;

/// How many characters must be added, removed, replaced or exchanged with their neighbour to turn one into the other
/// (the optimal string alignment distance).
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = Vec::with_capacity(above.len());
        row.push(i + 1);
        for (j, y) in b.iter().enumerate() {
            // Every row has one entry more than `b`, so that `j` and `j + 1` are inside.
            let mut least = (above[j] + usize::from(x != y)).min(above[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                least = least.min(before[j - 1] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut above, row);
    }
    above.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_recognised_and_another_word_is_not() {
        let names = ["status", "created_at", "amount", "id"];
        for (given, meant) in [
            ("statsu", Some("status")),
            ("Status", Some("status")),
            ("createdat", Some("created_at")),
            ("ammount", Some("amount")),
            ("di", Some("id")),
            ("price", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(closest(given, names), meant, "{given}");
        }
        assert_eq!(closest(&"s".repeat(10_000), names), None);
    }
}
