//! The worker's own copy of the catalog, shaped for calling: name to route, route to targets, target to channel.
//!
//! A [`Route`] is one function id and lives as long as anybody holds it; its list of targets is swapped whole when the
//! catalog changes. So a resolved handle never goes stale, and a call reads one pointer.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use arc_swap::{ArcSwap, ArcSwapOption};
use parking_lot::{Condvar, Mutex, RwLock};
use ringway_ipc::lock::SpinLock;
use ringway_ipc::waiter::Expectation;
use ringway_protocol::WorkerId;
use ringway_protocol::control::{Catalog, CatalogFunction, CatalogWorker, Change, GoneCause, WorkerStatus};

use crate::caller::CallerChannel;
use crate::function::ArchiveKey;

/// Where a function can be called: one replica.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) function: CatalogFunction,
    /// Of the archives that it takes.
    pub(crate) archive_key: Option<ArchiveKey>,
    /// The worker takes no new calls.
    pub(crate) draining: bool,
    /// How far away it is, in classes: 0 on this host, and one more for each doubling of the round trip.
    far: u32,
    pub(crate) link: Arc<Link>,
}

impl Target {
    /// Whether it reads archives of a key.
    #[inline]
    pub(crate) fn takes_archive(&self, key: Option<ArchiveKey>) -> bool {
        key.is_some() && self.archive_key == key
    }

    fn new(function: CatalogFunction, worker: Option<&CatalogWorker>, link: Arc<Link>) -> Self {
        let draining = worker.is_some_and(|worker| worker.status == WorkerStatus::Draining);
        let remote = worker.and_then(|worker| worker.remote.as_ref());
        let far = remote.map_or(0, |remote| u32::BITS - remote.round_trip_us.leading_zeros() + 1);
        Self { archive_key: ArchiveKey::of(&function), function, draining, far, link }
    }
}

/// This worker's way to another worker, shared by all routes that lead there.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) worker: WorkerId,
    pub(crate) caller: ArcSwapOption<CallerChannel>,
    /// Taken while a channel is being set up, so that it is set up once.
    pub(crate) connecting: Mutex<()>,
}

/// One function id and its replicas.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) id: String,
    pub(crate) targets: ArcSwap<Vec<Target>>,
    /// How long a reply usually takes.
    pub(crate) expected: Expectation,
    turn: AtomicU32,
    /// Rises with every change of the targets.
    version: AtomicU64,
    /// Taken by a call and put back: saves the thread that calls most the counting which a shared list costs.
    sole: SpinLock<Option<Box<Sole>>>,
}

/// The only replica of a route, and the channel to it.
#[derive(Debug)]
pub(crate) struct Sole {
    version: u64,
    targets: Arc<Vec<Target>>,
    pub(crate) caller: Arc<CallerChannel>,
}

impl Sole {
    #[inline]
    pub(crate) fn target(&self) -> &Target {
        &self.targets[0]
    }
}

impl Route {
    /// Picks a replica: of two at random the one with fewer calls in flight (Mitzenmacher, "The power of two choices
    /// in randomized load balancing", 2001), of those that are nearest. Farther ones, draining ones, and the one to avoid, only
    /// when there is no other.
    #[inline]
    pub(crate) fn pick(targets: &[Target], turn: &AtomicU32, avoid: Option<WorkerId>) -> Option<usize> {
        match targets {
            [] => None,
            [_] => Some(0),
            many => Some(pick_of_many(many, turn, avoid)),
        }
    }

    fn new(id: String, targets: Vec<Target>) -> Self {
        Self {
            id,
            targets: ArcSwap::from_pointee(targets),
            expected: Expectation::default(),
            turn: AtomicU32::new(0),
            version: AtomicU64::new(0),
            sole: SpinLock::leaning(None),
        }
    }

    fn set_targets(&self, targets: Vec<Target>) {
        self.targets.store(Arc::new(targets));
        // Only now: who reads the new version finds targets that are no older.
        self.version.fetch_add(1, Ordering::Release);
        self.forget_sole();
    }

    /// The only replica, when there is just one and its channel is set up. Whoever has used it puts it back with
    /// [`Route::keep_sole`]; who comes meanwhile looks it up again.
    #[inline]
    pub(crate) fn sole(&self) -> Option<Box<Sole>> {
        let version = self.version.load(Ordering::Acquire);
        let kept = self.sole.lock().take();
        match kept {
            Some(sole) if sole.version == version => Some(sole),
            _ => self.look_sole_up(version),
        }
    }

    /// Keeps it for the next call, while its channel is open and the targets are the same.
    #[inline]
    pub(crate) fn keep_sole(&self, sole: Box<Sole>) {
        let mut place = self.sole.lock();
        // Looked at under the lock: who closes a channel or changes the targets comes here afterwards, to let go of it.
        let same = sole.version == self.version.load(Ordering::Acquire);
        let open = sole.caller.channel.close_reason().is_none();
        let not_needed = if same && open { place.replace(sole) } else { Some(sole) };
        drop(place);
        drop(not_needed);
    }

    fn forget_sole(&self) {
        let forgotten = self.sole.lock().take();
        drop(forgotten);
    }

    #[cold]
    fn look_sole_up(&self, version: u64) -> Option<Box<Sole>> {
        let targets = self.targets.load_full();
        let [target] = &targets[..] else { return None };
        let caller = target.link.caller.load_full()?;
        Some(Box::new(Sole { version, targets, caller }))
    }

    pub(crate) fn turn(&self) -> &AtomicU32 {
        &self.turn
    }
}

fn pick_of_many(targets: &[Target], turn: &AtomicU32, avoid: Option<WorkerId>) -> usize {
    // They are sorted by distance.
    let nearest = targets.first().map_or(0, |target| target.far);
    let near = targets.partition_point(|target| target.far == nearest);
    // A Weyl sequence spreads the pairs evenly without a shared random state.
    let ticket = turn.fetch_add(0x9E37_79B9, Ordering::Relaxed) as usize;
    let (first, second) = (ticket % near, (ticket >> 16) % near);
    let load = |at: usize| {
        let target = &targets[at];
        let unwanted = target.draining || Some(target.function.worker) == avoid;
        (unwanted, target.far, target.link.caller.load().as_ref().map_or(0, |caller| caller.in_flight()))
    };
    let (load_first, load_second) = (load(first), load(second));
    let best = if load_first <= load_second { first } else { second };
    if !load_first.0 || !load_second.0 {
        return best;
    }
    (0..targets.len()).min_by_key(|at| load(*at)).unwrap_or(best)
}

#[derive(Debug, Default)]
struct State {
    revision: u64,
    workers: HashMap<WorkerId, CatalogWorker>,
    links: HashMap<WorkerId, Arc<Link>>,
    /// Every replica, by (namespace, id).
    functions: HashMap<(String, String), Vec<CatalogFunction>>,
    by_worker: HashMap<WorkerId, Vec<(String, String)>>,
    /// Workers of which the last engine spoke and this one has told no function yet. Their functions are kept until it
    /// does, or until their channels close.
    untold: HashSet<WorkerId>,
    /// Workers of which the engine has lost sight while their channels live. Their functions are kept until they attach
    /// again or their channels close.
    lost: HashSet<WorkerId>,
}

/// All routes of a worker.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    state: Mutex<State>,
    changed: Condvar,
    by_name: RwLock<HashMap<String, HashMap<String, Arc<Route>>>>,
    version: AtomicU64,
}

impl Routes {
    /// Rises with every change of the catalog.
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// The route of a function id, made if nobody asked for it before. It may have no targets yet.
    pub(crate) fn route(&self, namespace: &str, id: &str) -> Arc<Route> {
        if let Some(route) = self.by_name.read().get(namespace).and_then(|routes| routes.get(id)) {
            return Arc::clone(route);
        }
        // The order of locks is state, then names, everywhere.
        let state = self.state.lock();
        let mut by_name = self.by_name.write();
        let routes = by_name.entry(namespace.to_owned()).or_default();
        let route = routes.entry(id.to_owned()).or_insert_with(|| {
            let key = (namespace.to_owned(), id.to_owned());
            let targets = state.targets(&key);
            Arc::new(Route::new(key.1, targets))
        });
        Arc::clone(route)
    }

    /// The way to a worker, whether or not it is in the catalog.
    pub(crate) fn link(&self, worker: WorkerId) -> Arc<Link> {
        self.state.lock().link(worker)
    }

    /// A route to replicas that the catalog need not have, such as those of another zone.
    pub(crate) fn fixed(&self, functions: Vec<CatalogFunction>) -> Arc<Route> {
        static TURN: AtomicU32 = AtomicU32::new(0);
        let mut state = self.state.lock();
        let id = functions.first().map(|function| function.id.as_str().to_owned()).unwrap_or_default();
        let targets = functions.into_iter().map(|function| {
            let link = state.link(function.worker);
            Target::new(function, None, link)
        });
        let turn = AtomicU32::new(TURN.fetch_add(0x9E37_79B9, Ordering::Relaxed));
        Arc::new(Route { turn, ..Route::new(id, targets.collect()) })
    }

    /// Forgets the way to a worker whose channel is closed, unless the catalog leads there.
    pub(crate) fn forget_link(&self, worker: WorkerId) {
        let mut state = self.state.lock();
        if state.has_channel(worker) {
            return;
        }
        if state.lost.contains(&worker) {
            // Nothing but the channel spoke for it.
            let mut touched = Vec::new();
            state.remove_worker(worker, &mut touched);
            return self.publish(&state, touched);
        }
        let known = state.workers.contains_key(&worker) || state.by_worker.contains_key(&worker);
        if !known {
            state.links.remove(&worker);
        }
    }

    /// Replaces the catalog. Functions of workers whose channels live are kept while the engine says nothing about them:
    /// after its restart they may not have attached again yet, or not have told it what they serve, and calls to them
    /// go on.
    pub(crate) fn replace(&self, catalog: Catalog) {
        let mut state = self.state.lock();
        let told: HashSet<WorkerId> = catalog.functions.iter().map(|function| function.worker).collect();
        let untold: HashSet<WorkerId> =
            state.workers.keys().copied().filter(|id| !told.contains(id) && state.has_channel(*id)).collect();
        let attached: HashSet<WorkerId> = catalog.workers.iter().map(|worker| worker.id).collect();
        let kept =
            state.workers.values().filter(|old| untold.contains(&old.id) && !attached.contains(&old.id));
        let kept: Vec<CatalogWorker> = kept.cloned().collect();
        let kept_functions =
            state.functions.values().flatten().filter(|function| untold.contains(&function.worker));
        let kept_functions: Vec<CatalogFunction> = kept_functions.cloned().collect();
        state.lost = untold.iter().copied().filter(|id| !attached.contains(id)).collect();
        state.untold = untold;
        state.revision = catalog.revision;
        state.workers = catalog.workers.into_iter().chain(kept).map(|worker| (worker.id, worker)).collect();
        state.functions.clear();
        state.by_worker.clear();
        for function in catalog.functions.into_iter().chain(kept_functions) {
            state.add(function);
        }
        let touched: Vec<(String, String)> = {
            let by_name = self.by_name.read();
            let pairs = by_name
                .iter()
                .flat_map(|(space, routes)| routes.keys().map(move |id| (space.clone(), id.clone())));
            pairs.collect()
        };
        self.publish(&state, touched);
    }

    /// Applies one pushed change set.
    pub(crate) fn apply(&self, revision: u64, changes: &[Change]) {
        let mut state = self.state.lock();
        state.revision = revision;
        let mut touched = Vec::new();
        for change in changes {
            state.apply(change, &mut touched);
        }
        self.publish(&state, touched);
    }

    /// A channel to a worker is closed: nobody keeps it.
    pub(crate) fn let_go_of(&self, worker: WorkerId) {
        let state = self.state.lock();
        let by_name = self.by_name.read();
        for (space, id) in state.by_worker.get(&worker).into_iter().flatten() {
            if let Some(route) = by_name.get(space).and_then(|routes| routes.get(id)) {
                route.forget_sole();
            }
        }
    }

    /// The process at the other end of a worker's channel is gone, and the worker with it: its functions go. Not where it is on
    /// another host: what ended then is the link, and by now the same worker may have come back over another.
    pub(crate) fn forget_worker(&self, worker: WorkerId) {
        let mut state = self.state.lock();
        if state.workers.get(&worker).is_some_and(|known| known.remote.is_some()) {
            return;
        }
        let mut touched = Vec::new();
        state.remove_worker(worker, &mut touched);
        self.publish(&state, touched);
    }

    fn publish(&self, state: &State, mut touched: Vec<(String, String)>) {
        touched.sort_unstable();
        touched.dedup();
        let by_name = self.by_name.read();
        for key in touched {
            if let Some(route) = by_name.get(&key.0).and_then(|routes| routes.get(&key.1)) {
                route.set_targets(state.targets(&key));
            }
        }
        self.version.fetch_add(1, Ordering::AcqRel);
        self.changed.notify_all();
    }

    /// Waits until `ready` holds, looking again after every change; `false` when the time is up.
    pub(crate) fn wait_for(&self, deadline_ns: u64, ready: impl Fn() -> bool) -> bool {
        let mut state = self.state.lock();
        loop {
            if ready() {
                return true;
            }
            let now = ringway_ipc::clock::now_ns();
            if now >= deadline_ns {
                return false;
            }
            let left = std::time::Duration::from_nanos(deadline_ns - now);
            let _timed_out = self.changed.wait_for(&mut state, left);
        }
    }

    /// The live catalog as the engine pushed it.
    pub(crate) fn snapshot(&self) -> Catalog {
        let state = self.state.lock();
        let mut catalog = Catalog {
            revision: state.revision,
            workers: state.workers.values().cloned().collect(),
            functions: state.functions.values().flatten().cloned().collect(),
        };
        drop(state);
        catalog.workers.sort_by_key(|worker| worker.id);
        catalog
            .functions
            .sort_by(|a, b| (&a.namespace, &a.id, a.worker).cmp(&(&b.namespace, &b.id, b.worker)));
        catalog
    }
}

impl State {
    fn link(&mut self, worker: WorkerId) -> Arc<Link> {
        let make = || Arc::new(Link { worker, caller: ArcSwapOption::empty(), connecting: Mutex::new(()) });
        Arc::clone(self.links.entry(worker).or_insert_with(make))
    }

    fn has_channel(&self, worker: WorkerId) -> bool {
        let link = self.links.get(&worker);
        link.is_some_and(|link| {
            link.caller.load().as_ref().is_some_and(|caller| caller.channel.close_reason().is_none())
        })
    }

    fn targets(&self, key: &(String, String)) -> Vec<Target> {
        let functions = self.functions.get(key).map_or(&[][..], Vec::as_slice);
        let target = |function: &CatalogFunction| {
            let link = self.links.get(&function.worker)?;
            Some(Target::new(function.clone(), self.workers.get(&function.worker), Arc::clone(link)))
        };
        let mut targets: Vec<Target> = functions.iter().filter_map(target).collect();
        targets.sort_by_key(|target| target.far);
        targets
    }

    fn add(&mut self, function: CatalogFunction) -> (String, String) {
        let key = (function.namespace.clone(), function.id.as_str().to_owned());
        drop(self.link(function.worker));
        self.by_worker.entry(function.worker).or_default().push(key.clone());
        let replicas = self.functions.entry(key.clone()).or_default();
        match replicas.iter_mut().find(|old| old.worker == function.worker) {
            Some(old) => *old = function,
            None => replicas.push(function),
        }
        key
    }

    fn remove_worker(&mut self, worker: WorkerId, touched: &mut Vec<(String, String)>) {
        self.workers.remove(&worker);
        self.links.remove(&worker);
        self.untold.remove(&worker);
        self.lost.remove(&worker);
        self.remove_functions(worker, touched);
    }

    fn remove_functions(&mut self, worker: WorkerId, touched: &mut Vec<(String, String)>) {
        for key in self.by_worker.remove(&worker).unwrap_or_default() {
            self.remove_replica(&key, worker);
            touched.push(key);
        }
    }

    fn remove_replica(&mut self, key: &(String, String), worker: WorkerId) {
        if let Some(replicas) = self.functions.get_mut(key) {
            replicas.retain(|function| function.worker != worker);
            if replicas.is_empty() {
                self.functions.remove(key);
            }
        }
    }

    fn touch_worker(&self, worker: WorkerId, touched: &mut Vec<(String, String)>) {
        touched.extend(self.by_worker.get(&worker).into_iter().flatten().cloned());
    }

    fn apply(&mut self, change: &Change, touched: &mut Vec<(String, String)>) {
        match change {
            Change::WorkerAdded { worker } | Change::WorkerChanged { worker } => {
                if self.lost.remove(&worker.id) {
                    self.untold.insert(worker.id);
                }
                self.workers.insert(worker.id, worker.clone());
                self.touch_worker(worker.id, touched);
            }
            Change::WorkerDraining { id } => {
                if let Some(worker) = self.workers.get_mut(id) {
                    worker.status = WorkerStatus::Draining;
                }
                self.touch_worker(*id, touched);
            }
            // A process that has died has taken its end of the channel along; where that is open, only the worker's
            // connection to the engine broke, and it is about to attach again.
            Change::WorkerGone { id, cause: GoneCause::Died } if self.has_channel(*id) => {
                self.lost.insert(*id);
            }
            Change::WorkerGone { id, .. } => self.remove_worker(*id, touched),
            Change::FunctionAdded { function } => {
                if self.untold.remove(&function.worker) {
                    // It tells the engine all its functions at once, so what was kept of it has had its time.
                    self.remove_functions(function.worker, touched);
                }
                touched.push(self.add(function.clone()));
            }
            Change::FunctionRemoved { id, namespace, worker, .. } => {
                let key = (namespace.clone(), id.as_str().to_owned());
                self.remove_replica(&key, *worker);
                if let Some(keys) = self.by_worker.get_mut(worker) {
                    keys.retain(|other| *other != key);
                }
                touched.push(key);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use ringway_protocol::FunctionId;
    use ringway_protocol::control::Remote;

    use super::*;

    #[test]
    fn a_channel_that_is_gone_takes_a_worker_of_this_host_along_and_no_other() {
        for (remote, kept) in [(None, 0), (Some(Remote::default()), 1)] {
            let id = WorkerId::new(7);
            let worker = CatalogWorker {
                id,
                name: "w".to_owned(),
                namespace: "default".to_owned(),
                zone: "default".to_owned(),
                pid: 1,
                runtime: String::new(),
                status: WorkerStatus::Ready,
                remote,
            };
            let function = crate::relayed_function(&FunctionId::new("a::b").unwrap(), id, 1, 0);
            let routes = Routes::default();
            routes.replace(Catalog { revision: 1, workers: vec![worker], functions: vec![function] });
            routes.forget_worker(id);
            assert_eq!(routes.route("default", "a::b").targets.load().len(), kept);
        }
    }
}
