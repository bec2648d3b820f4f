//! Which route a request goes to. Whoever serves reads one immutable tree for each method; a trigger that is bound or unbound
//! makes new ones, which share what did not change, and swaps them in at once. A route that cannot be is refused before
//! anything has changed. It must not know what a route does.

mod method;
pub mod pattern;
pub mod tree;

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use ringway::{CallError, ErrorCode};

pub(crate) use method::Method;
pub use pattern::{Pattern, PatternError, Segment};
pub(crate) use tree::decoded;
pub use tree::{Matched, Tree};

use crate::route::Route;

/// All routes.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    current: ArcSwap<Trees>,
    state: Mutex<State>,
}

/// The routes of one moment.
#[derive(Debug, Default, Clone)]
pub(crate) struct Trees {
    by_method: [Tree<Arc<Route>>; Method::COUNT],
}

#[derive(Debug, Default)]
struct State {
    by_id: HashMap<String, Arc<Route>>,
    /// Who wants to be at a place, the newest last: that one is. The others are there again when it goes.
    places: HashMap<(Method, String), Vec<Arc<Route>>>,
}

/// What a path leads to.
#[derive(Debug)]
pub(crate) enum Found<'p> {
    /// A route, with what its parameters stand for, still encoded.
    Route(Arc<Route>, Vec<&'p str>),
    /// Routes for other methods.
    Others(Vec<Method>),
    Nothing,
}

impl Routes {
    /// Adds a route. One that has the same id goes; one that has the same method and path steps back until this one goes.
    ///
    /// # Errors
    /// `invalid_registration`: a route for the same paths names its parameters otherwise. Then nothing has changed.
    pub(crate) fn add(&self, route: Arc<Route>) -> Result<(), CallError> {
        let mut state = self.state.lock();
        let shape = route.pattern.shape();
        for method in &route.methods {
            let others = state.places.get(&(*method, shape.clone())).map_or(&[][..], Vec::as_slice);
            let conflict = others.iter().find(|other| other.id != route.id && other.pattern != route.pattern);
            if let Some(other) = conflict {
                let text = format!(
                    "`{method} {}` conflicts with `{method} {}` of `{}`, which matches the same paths: name its parameters \
                     alike, or choose another path",
                    route.pattern, other.pattern, other.function_id
                );
                return Err(CallError::new(ErrorCode::InvalidRegistration, text));
            }
        }
        let mut trees = Trees::clone(&self.current.load());
        if let Some(before) = state.by_id.insert(route.id.clone(), Arc::clone(&route)) {
            state.leave(&before, &mut trees);
        }
        for method in &route.methods {
            let place = state.places.entry((*method, shape.clone())).or_default();
            if let Some(other) = place.last().filter(|other| other.function_id != route.function_id) {
                let (path, function) = (&route.pattern, &route.function_id);
                tracing::warn!(target: "ringway", %method, %path, function, before = other.function_id, "a route was taken over");
            }
            place.push(Arc::clone(&route));
            trees.put(*method, &route.pattern, Some(Arc::clone(&route)));
        }
        self.current.store(Arc::new(trees));
        Ok(())
    }

    /// Takes a route away, if it is there.
    pub(crate) fn remove(&self, id: &str) {
        let mut state = self.state.lock();
        let Some(route) = state.by_id.remove(id) else { return };
        let mut trees = Trees::clone(&self.current.load());
        state.leave(&route, &mut trees);
        self.current.store(Arc::new(trees));
    }

    /// What a request goes to.
    pub(crate) fn find<'p>(&self, method: Method, path: &'p str, slash_ignored: bool) -> Found<'p> {
        let trees = self.current.load();
        trees.find(method, path, slash_ignored)
    }

    /// The methods that a path has.
    pub(crate) fn methods(&self, path: &str, slash_ignored: bool) -> Vec<Method> {
        self.current.load().methods(path, slash_ignored)
    }

    /// All routes, in the order of their paths.
    pub(crate) fn all(&self) -> Vec<Arc<Route>> {
        let state = self.state.lock();
        let mut all: Vec<_> = state.by_id.values().cloned().collect();
        drop(state);
        all.sort_by_cached_key(|route| (route.pattern.to_string(), route.methods.clone(), route.id.clone()));
        all
    }
}

impl State {
    fn leave(&mut self, route: &Arc<Route>, trees: &mut Trees) {
        let shape = route.pattern.shape();
        for method in &route.methods {
            let key = (*method, shape.clone());
            let Some(place) = self.places.get_mut(&key) else { continue };
            place.retain(|other| !Arc::ptr_eq(other, route));
            trees.put(*method, &route.pattern, place.last().cloned());
            if place.is_empty() {
                self.places.remove(&key);
            }
        }
    }
}

impl Trees {
    fn put(&mut self, method: Method, pattern: &Pattern, route: Option<Arc<Route>>) {
        let tree = &mut self.by_method[method.index()];
        *tree = tree.with(pattern, route);
    }

    fn at<'p>(
        &self,
        method: Method,
        path: &'p str,
        slash_ignored: bool,
    ) -> Option<(Arc<Route>, Vec<&'p str>)> {
        let tree = &self.by_method[method.index()];
        let found = tree.find(path);
        let found = match found {
            None if slash_ignored && path.len() > 1 => {
                path.strip_suffix('/').and_then(|path| tree.find(path))
            }
            found => found,
        };
        if let Some(found) = found {
            return Some((Arc::clone(found.value), found.params));
        }
        if !slash_ignored || path.ends_with('/') || tree.is_empty() {
            return None;
        }
        // A route `/a/` for the path `/a`: it has no parameters behind the slash, so those of the path are enough.
        let with_slash = format!("{path}/");
        let found = tree.find(&with_slash)?;
        let offset = |param: &str| param.as_ptr().addr() - with_slash.as_ptr().addr();
        let params = found
            .params
            .iter()
            .map(|param| path.get(offset(param)..(offset(param) + param.len()).min(path.len())))
            .collect::<Option<Vec<_>>>()?;
        Some((Arc::clone(found.value), params))
    }

    fn find<'p>(&self, method: Method, path: &'p str, slash_ignored: bool) -> Found<'p> {
        let tried = match method {
            // What answers GET answers HEAD, without the body.
            Method::Head => [Some(Method::Head), Some(Method::Get), Some(Method::Any)],
            Method::Any => [Some(Method::Any), None, None],
            other => [Some(other), Some(Method::Any), None],
        };
        for method in tried.into_iter().flatten() {
            if let Some((route, params)) = self.at(method, path, slash_ignored) {
                return Found::Route(route, params);
            }
        }
        let others = self.methods(path, slash_ignored);
        if others.is_empty() { Found::Nothing } else { Found::Others(others) }
    }

    fn methods(&self, path: &str, slash_ignored: bool) -> Vec<Method> {
        let has = |method: &Method| self.at(*method, path, slash_ignored).is_some();
        let mut methods: Vec<Method> = Method::ALL.into_iter().filter(has).collect();
        if methods.contains(&Method::Any) {
            return Method::ALL.into_iter().filter(|method| *method != Method::Any).collect();
        }
        if methods.contains(&Method::Get) && !methods.contains(&Method::Head) {
            methods.push(Method::Head);
        }
        if !methods.is_empty() && !methods.contains(&Method::Options) {
            methods.push(Method::Options);
        }
        methods
    }
}

#[cfg(test)]
mod tests;
