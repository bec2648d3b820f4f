//! What somebody who mistyped a name may have meant. Used here for keys, and by the command line for everything else. It
//! knows texts only.

/// Returns the candidate nearest to what was typed, if it is near enough to be meant.
#[must_use]
pub fn closest<'a>(typed: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = (typed.chars().count() / 3).max(1);
    let measured = candidates.into_iter().map(|candidate| (distance(typed, candidate), candidate));
    let nearest = measured.min_by_key(|&(distance, candidate)| (distance, candidate))?;
    (nearest.0 <= allowed && nearest.0 < typed.chars().count()).then_some(nearest.1)
}

/// Counts the insertions, deletions, replacements and swaps of neighbours that turn one text into the other; case and
/// `_` against `-` count for nothing. (The optimal string alignment distance of Damerau and Levenshtein.)
fn distance(a: &str, b: &str) -> usize {
    let plain = |text: &str| -> Vec<char> {
        text.chars().flat_map(char::to_lowercase).map(|c| if c == '-' { '_' } else { c }).collect()
    };
    let (a, b) = (plain(a), plain(b));
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for (row, &x) in a.iter().enumerate() {
        let mut line = vec![row + 1];
        for (column, &y) in b.iter().enumerate() {
            let replaced = above[column] + usize::from(x != y);
            let mut least = replaced.min(above[column + 1] + 1).min(line[column] + 1);
            if row > 0 && column > 0 && x == b[column - 1] && a[row - 1] == y {
                least = least.min(before[column - 1] + 1);
            }
            line.push(least);
        }
        before = std::mem::replace(&mut above, line);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_suggested() {
        let names = ["docs::search", "docs::read", "text::summarize", "a"];
        let check =
            |typed: &str, expected: Option<&str>| assert_eq!(closest(typed, names), expected, "{typed}");
        check("docs::serach", Some("docs::search"));
        check("Docs::Read", Some("docs::read"));
        check("text::sumarise", Some("text::summarize"));
        check("orders::validate", None);
        check("b", None);
        check("A", Some("a"));
        check("", None);
    }

    #[test]
    fn distances_count_edits() {
        let check = |a: &str, b: &str, expected: usize| {
            assert_eq!(distance(a, b), expected, "{a} {b}");
            assert_eq!(distance(b, a), expected, "{b} {a}");
        };
        check("", "", 0);
        check("", "abc", 3);
        check("ab", "ba", 1);
        check("max_count", "max-count", 0);
        check("kitten", "sitting", 3);
    }
}
