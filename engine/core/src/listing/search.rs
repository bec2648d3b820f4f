//! How a search text ranks what it finds.

/// Returns how well an entry answers a search, the best being 0; none where it does not. A hit at the
/// start of an id or of one of its segments comes first, then one elsewhere in the id, then one in the
/// description. Letters' case does not matter.
pub(super) fn rank(search: Option<&str>, id: &str, description: &str) -> Option<u8> {
    let Some(search) = search.map(str::to_lowercase).filter(|search| !search.is_empty()) else {
        return Some(0);
    };
    let id = id.to_lowercase();
    if id.starts_with(&search) || id.split("::").any(|segment| segment.starts_with(&search)) {
        Some(0)
    } else if id.contains(&search) {
        Some(1)
    } else {
        description.to_lowercase().contains(&search).then_some(2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hits_are_ranked() {
        let check = |search: &str, expected: Option<u8>| {
            assert_eq!(rank(Some(search), "Orders::Validate", "Checks an order"), expected, "{search}");
        };
        check("ord", Some(0));
        check("VALID", Some(0));
        check("date", Some(1));
        check("checks", Some(2));
        check("nothing", None);
        check("", Some(0));
        assert_eq!(rank(None, "x", ""), Some(0));
    }
}
