//! A tree of paths that never changes: adding one gives a new tree, which shares everything but the nodes on the way. So
//! that ten thousand routes are added one by one in a fraction of a second, and whoever matches holds no lock. It must not
//! know what is kept at a path.
//!
//! A path is compared segment by segment, decoded. A fixed segment goes before a parameter, that before the rest; where a
//! way leads nowhere, the next is tried. Every node is visited at most once for a path.

use std::borrow::Cow;
use std::sync::Arc;

use rpds::HashTrieMapSync;

use super::pattern::{Pattern, SEGMENTS_MAX, Segment};

/// Values by paths.
#[derive(Debug)]
pub struct Tree<T> {
    root: Arc<Node<T>>,
}

#[derive(Debug)]
struct Node<T> {
    fixed: HashTrieMapSync<Box<str>, Arc<Self>>,
    one: Option<Arc<Self>>,
    rest: Option<T>,
    here: Option<T>,
}

impl<T> Clone for Tree<T> {
    fn clone(&self) -> Self {
        Self { root: Arc::clone(&self.root) }
    }
}

impl<T> Default for Tree<T> {
    fn default() -> Self {
        Self { root: Arc::default() }
    }
}

impl<T> Default for Node<T> {
    fn default() -> Self {
        Self { fixed: HashTrieMapSync::new_sync(), one: None, rest: None, here: None }
    }
}

impl<T: Clone> Clone for Node<T> {
    fn clone(&self) -> Self {
        Self {
            fixed: self.fixed.clone(),
            one: self.one.clone(),
            rest: self.rest.clone(),
            here: self.here.clone(),
        }
    }
}

/// What a path matched: a value, and what its parameters stand for, in their order, as they came.
#[derive(Debug, PartialEq, Eq)]
pub struct Matched<'t, 'p, T> {
    /// What was put there.
    pub value: &'t T,
    /// The text of each parameter, not decoded.
    pub params: Vec<&'p str>,
}

impl<T: Clone> Tree<T> {
    /// The same with a value at a path, or with none there.
    #[must_use]
    pub fn with(&self, pattern: &Pattern, value: Option<T>) -> Self {
        let root = self.root.with(pattern.segments(), value);
        Self { root: Arc::new(root.unwrap_or_default()) }
    }
}

impl<T> Tree<T> {
    /// What a path of a request leads to. The path begins with a slash and is still encoded.
    #[must_use]
    pub fn find<'t, 'p>(&'t self, path: &'p str) -> Option<Matched<'t, 'p, T>> {
        let path = path.strip_prefix('/').unwrap_or(path);
        let mut params = Vec::new();
        let value = self.root.find(Some(path), 0, &mut params)?;
        Some(Matched { value, params })
    }

    /// Whether nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.root.is_empty()
    }
}

impl<T: Clone> Node<T> {
    /// The node with a value below it; none if nothing is left in it.
    fn with(&self, path: &[Segment], value: Option<T>) -> Option<Self> {
        let mut node = self.clone();
        let Some((first, behind)) = path.split_first() else {
            node.here = value;
            return (!node.is_empty()).then_some(node);
        };
        match first {
            Segment::Rest(_) => node.rest = value,
            Segment::One(_) => {
                node.one = match &self.one {
                    Some(below) => below.with(behind, value),
                    None => Self::default().with(behind, value),
                }
                .map(Arc::new);
            }
            Segment::Fixed(text) => {
                let below = match self.fixed.get(text.as_str()) {
                    Some(below) => below.with(behind, value),
                    None => Self::default().with(behind, value),
                };
                match below {
                    Some(below) => node.fixed.insert_mut(text.as_str().into(), Arc::new(below)),
                    None => {
                        node.fixed.remove_mut(text.as_str());
                    }
                }
            }
        }
        (!node.is_empty()).then_some(node)
    }
}

impl<T> Node<T> {
    fn is_empty(&self) -> bool {
        self.fixed.is_empty() && self.one.is_none() && self.rest.is_none() && self.here.is_none()
    }

    /// `path` is what is left behind the last slash; none where the path has ended.
    fn find<'t, 'p>(
        &'t self,
        path: Option<&'p str>,
        depth: usize,
        params: &mut Vec<&'p str>,
    ) -> Option<&'t T> {
        let Some(path) = path else { return self.here.as_ref() };
        if depth <= SEGMENTS_MAX {
            let (segment, behind) = match path.split_once('/') {
                Some((segment, behind)) => (segment, Some(behind)),
                None => (path, None),
            };
            if !self.fixed.is_empty() {
                let text = decoded(segment);
                if let Some(below) = self.fixed.get(&*text)
                    && let Some(found) = below.find(behind, depth + 1, params)
                {
                    return Some(found);
                }
            }
            if let Some(below) = &self.one
                && !segment.is_empty()
            {
                params.push(segment);
                if let Some(found) = below.find(behind, depth + 1, params) {
                    return Some(found);
                }
                params.pop();
            }
        }
        let rest = self.rest.as_ref().filter(|_| !path.is_empty())?;
        params.push(path);
        Some(rest)
    }
}

/// A segment without its percent signs; bytes that are no UTF-8 are replaced.
pub(crate) fn decoded(segment: &str) -> Cow<'_, str> {
    if segment.contains('%') {
        percent_encoding::percent_decode_str(segment).decode_utf8_lossy()
    } else {
        Cow::Borrowed(segment)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn tree(paths: &[&'static str]) -> Tree<&'static str> {
        paths
            .iter()
            .fold(Tree::default(), |tree, path| tree.with(&Pattern::parse(path).unwrap(), Some(*path)))
    }

    #[test]
    fn the_most_fixed_way_wins_and_others_are_tried() {
        let tree =
            tree(&["/", "/users/:id", "/users/me", "/users/:id/posts", "/users/*rest", "/a/:x/c", "/a/b/d"]);
        for (path, expected, params) in [
            ("/", "/", &[][..]),
            ("/users/me", "/users/me", &[]),
            ("/users/%6De", "/users/me", &[]),
            ("/users/7", "/users/:id", &["7"]),
            ("/users/a%2Fb", "/users/:id", &["a%2Fb"]),
            ("/users/me/posts", "/users/:id/posts", &["me"]),
            ("/users/7/likes/3", "/users/*rest", &["7/likes/3"]),
            ("/users/7/", "/users/*rest", &["7/"]),
            ("/a/b/c", "/a/:x/c", &["b"]),
        ] {
            let found = tree.find(path).unwrap_or_else(|| panic!("{path}"));
            assert_eq!((*found.value, found.params.as_slice()), (expected, params), "{path}");
        }
        for path in ["/users/", "/users", "/a/b", "/b", "//"] {
            assert_eq!(tree.find(path), None, "{path}");
        }
    }

    #[test]
    fn a_tree_is_not_changed_by_what_is_added_to_another() {
        let before = tree(&["/a/b"]);
        let after = before.with(&Pattern::parse("/a/c").unwrap(), Some("new"));
        assert!(
            before.find("/a/c").is_none() && after.find("/a/c").is_some() && after.find("/a/b").is_some()
        );
        let without = after.with(&Pattern::parse("/a/c").unwrap(), None);
        assert!(without.find("/a/c").is_none() && without.find("/a/b").is_some());
        assert!(without.with(&Pattern::parse("/a/b").unwrap(), None).is_empty());
    }

    #[test]
    fn a_path_of_any_depth_ends() {
        let tree = tree(&["/:a", "/a/*rest"]);
        assert!(tree.find(&"/x".repeat(100_000)).is_none());
        assert_eq!(
            tree.find(&format!("/a{}", "/x".repeat(100_000))).map(|found| *found.value),
            Some("/a/*rest")
        );
    }

    /// Whether a pattern matches a path, looked at alone.
    fn matches(pattern: &Pattern, path: &str) -> bool {
        let mut left = path.strip_prefix('/');
        for segment in pattern.segments() {
            let Some(path) = left else { return false };
            let (text, behind) =
                path.split_once('/').map_or((path, None), |(text, behind)| (text, Some(behind)));
            match segment {
                Segment::Fixed(wanted) if *wanted != text => return false,
                Segment::One(_) if text.is_empty() => return false,
                Segment::Rest(_) => return !path.is_empty(),
                _ => left = behind,
            }
        }
        left.is_none()
    }

    proptest! {
        #[test]
        fn a_tree_finds_as_a_list_of_patterns_does(
            patterns in prop::collection::vec("(/(a|b|:x|)){1,4}(/\\*r)?", 0..12),
            removed in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
            paths in prop::collection::vec("(/(a|b|c|)){1,5}", 1..12),
        ) {
            let mut kept: BTreeMap<String, Pattern> = BTreeMap::new();
            let mut tree = Tree::default();
            for text in &patterns {
                // Two parameters of one name are refused; the shape is what counts here.
                let mut number = 0;
                let named: String = text.split(":x").map(|part| { number += 1; format!("{part}:x{number}") }).collect();
                let named = named.rsplit_once(":x").map(|(named, _)| named.to_owned()).unwrap_or_default();
                let pattern = Pattern::parse(&named).unwrap();
                tree = tree.with(&pattern, Some(pattern.shape()));
                kept.insert(pattern.shape(), pattern);
            }
            for index in removed {
                let Some(shape) = kept.keys().nth(index.index(kept.len().max(1))).cloned() else { continue };
                let pattern = kept.remove(&shape).unwrap();
                tree = tree.with(&pattern, None);
            }
            for path in &paths {
                let expected = kept.values().any(|pattern| matches(pattern, path));
                let found = tree.find(path);
                prop_assert_eq!(found.is_some(), expected, "{} in {:?}", path, kept.keys());
                if let Some(found) = found {
                    prop_assert!(matches(&kept[found.value], path));
                    prop_assert_eq!(found.params.len(), kept[found.value].names().count());
                }
            }
            prop_assert_eq!(kept.is_empty(), tree.is_empty());
        }
    }
}
