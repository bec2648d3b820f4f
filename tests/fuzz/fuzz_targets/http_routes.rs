//! Paths of routes and of requests, as they come from anywhere: lines that begin with `+` add a route, with `-` take one away,
//! others are asked for. The tree must agree with a list of patterns.
#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use ringway_worker_http::routes::{Pattern, Segment, Tree};

/// Whether a pattern matches a path, looked at alone.
fn matches(pattern: &Pattern, path: &str) -> bool {
    let decode = |text: &str| {
        let Ok(Segment::Fixed(text)) = Pattern::parse(text).map(|it| it.segments()[0].clone()) else { return None };
        Some(text)
    };
    let mut left = Some(path.strip_prefix('/').unwrap_or(path));
    for segment in pattern.segments() {
        let Some(path) = left else { return false };
        let (text, behind) = path.split_once('/').map_or((path, None), |(text, behind)| (text, Some(behind)));
        match segment {
            Segment::Fixed(wanted) if wanted != text && decode(text).as_ref() != Some(wanted) => return false,
            Segment::One(_) if text.is_empty() => return false,
            Segment::Rest(_) => return !path.is_empty(),
            _ => left = behind,
        }
    }
    left.is_none()
}

fuzz_target!(|text: &str| {
    let mut tree = Tree::default();
    let mut kept: BTreeMap<String, Pattern> = BTreeMap::new();
    for line in text.lines() {
        let pattern = line.get(1..).and_then(|path| Pattern::parse(path).ok());
        match (line.as_bytes().first(), pattern) {
            (Some(b'+'), Some(pattern)) => {
                let again = Pattern::parse(&pattern.to_string()).map(|again| again.shape());
                // What was decoded may hold signs that no path is written with.
                assert!(again.is_err() || again == Ok(pattern.shape()) || line.contains('%'), "{pattern}");
                tree = tree.with(&pattern, Some(pattern.shape()));
                kept.insert(pattern.shape(), pattern);
            }
            (Some(b'-'), Some(pattern)) => {
                tree = tree.with(&pattern, None);
                kept.remove(&pattern.shape());
            }
            _ => {
                if let Some(found) = tree.find(line) {
                    let pattern = &kept[found.value];
                    assert_eq!(found.params.len(), pattern.names().count());
                    assert!(line.contains('%') || matches(pattern, line), "{line:?} is none of {pattern}");
                } else {
                    assert!(!kept.values().any(|pattern| matches(pattern, line)), "{line:?} was not found");
                }
            }
        }
    }
    assert_eq!(tree.is_empty(), kept.is_empty());
});
