//! "Did you mean": the known name that a misspelt one is closest to.

/// Names longer than this are not compared.
const CHARACTERS_MAX: usize = 64;

/// The known name closest to `name`, if it is close enough to have been meant: about one slip per three letters.
pub fn closest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wanted: Vec<char> = name.to_lowercase().chars().collect();
    if wanted.is_empty() || wanted.len() > CHARACTERS_MAX {
        return None;
    }
    known
        .into_iter()
        .filter(|k| k.chars().count() <= CHARACTERS_MAX)
        .map(|k| (distance(&wanted, &k.to_lowercase().chars().collect::<Vec<_>>()), k))
        .filter(|(slips, k)| *slips <= 1.max(wanted.len().max(k.chars().count()) / 3))
        .min_by_key(|(slips, _)| *slips)
        .map(|(_, k)| k)
}

/// How many letters must be put in, left out, replaced or swapped with their neighbour to get from `a` to `b`.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut previous: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let mut slips =
                (previous[j] + usize::from(x != y)).min(previous[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                slips = slips.min(before[j - 1] + 1);
            }
            row.push(slips);
        }
        before = std::mem::replace(&mut previous, row);
    }
    previous[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_recognised_and_another_word_is_not() {
        let known = ["truth", "followers", "cache", "key", "table"];
        assert_eq!(closest("trut", known), Some("truth"));
        assert_eq!(closest("thruth", known), Some("truth"));
        assert_eq!(closest("follwoers", known), Some("followers"));
        assert_eq!(closest("CACHE", known), Some("cache"));
        assert_eq!(closest("yek", known), None);
        assert_eq!(closest("colour", known), None);
        assert_eq!(closest("", known), None);
    }

    #[test]
    fn the_nearest_of_several_wins() {
        assert_eq!(closest("tabel", ["cable", "table"]), Some("table"));
    }
}
