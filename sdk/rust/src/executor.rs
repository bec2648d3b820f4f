//! Threads for handlers that do not run where they arrive: pooled ones, and async ones that were pending.
//!
//! The pool grows while work waits and shrinks when idle. A thread that blocks inside a nested call does not count
//! against the pool's size, so calls that wait for each other through the pool cannot starve one another: the
//! managed-blocker rule of Java's fork/join pool. Past [`THREADS_MAX`] work is refused, not queued.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};

/// Threads of one pool, those that wait in nested calls included. At the limit new work is refused with `busy`.
pub(crate) const THREADS_MAX: usize = 2048;

/// Jobs that may wait for a thread. At the limit new work is refused with `busy`.
pub(crate) const JOBS_MAX: usize = 65_536;

/// How long an idle thread stays.
const IDLE: Duration = Duration::from_secs(10);

type Job = Box<dyn FnOnce() + Send>;

/// A future without a home.
pub type BoxFuture = Pin<Box<dyn Future<Output = ()> + Send + 'static>>;

/// Hands futures to a runtime of the user's.
pub(crate) type Spawner = dyn Fn(BoxFuture) + Send + Sync;

/// The pool cannot take more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Saturated;

/// A growing pool of threads.
#[derive(Debug, Clone)]
pub(crate) struct Pool {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    name: String,
    size: usize,
    queue: Mutex<Queue>,
    available: Condvar,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    idle: usize,
    threads: usize,
    blocked: usize,
    /// A thread was woken or started and has not come yet. It looks after whatever came meanwhile: of many jobs that come
    /// together, as after a commit, the first wakes a thread and the others cost no system call.
    coming: bool,
    closed: bool,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue")
            .field("jobs", &self.jobs.len())
            .field("threads", &self.threads)
            .field("blocked", &self.blocked)
            .finish_non_exhaustive()
    }
}

thread_local! {
    static MY_POOL: RefCell<Option<Arc<Shared>>> = const { RefCell::new(None) };
}

impl Pool {
    /// A pool that runs up to `size` jobs at once, not counting those that wait in nested calls.
    pub(crate) fn new(name: &str, size: usize) -> Self {
        let (queue, available) = Default::default();
        Self { shared: Arc::new(Shared { name: name.to_owned(), size: size.max(1), queue, available }) }
    }

    /// Runs a job soon.
    pub(crate) fn run(&self, job: impl FnOnce() + Send + 'static) -> Result<(), Saturated> {
        self.shared.push(Box::new(job), JOBS_MAX)
    }

    /// Runs a job soon, however many wait: for what was accepted already, by a measure of its own. Refused only by a pool
    /// that is closed.
    pub(crate) fn run_surely(&self, job: impl FnOnce() + Send + 'static) -> Result<(), Saturated> {
        self.shared.push(Box::new(job), usize::MAX)
    }

    /// Jobs that wait for a thread.
    pub(crate) fn queued(&self) -> usize {
        self.shared.queue.lock().jobs.len()
    }

    /// Polls a future here and now; if it is pending, the pool's threads run it to its end. Not whoever wakes it: wakers are
    /// called with locks held that the future may ask for.
    pub(crate) fn start(&self, future: impl Future<Output = ()> + Send + 'static) {
        let shared = Arc::downgrade(&self.shared);
        let schedule = move |runnable: async_task::Runnable| {
            // A future that has begun is never refused: its wake-ups are bounded by the calls in flight. After the
            // pool is gone the runnable is dropped, and the future with it.
            if let Some(shared) = shared.upgrade() {
                let _only_when_closed = shared.push(Box::new(move || poll(runnable)), usize::MAX);
            }
        };
        let (runnable, task) = async_task::spawn(future, schedule);
        task.detach();
        poll(runnable);
    }

    /// Refuses new work and lets the threads go when the queue is empty.
    pub(crate) fn close(&self) {
        self.shared.queue.lock().closed = true;
        self.shared.available.notify_all();
    }

    /// Threads at present, and how many of them wait in nested calls.
    pub(crate) fn threads(&self) -> (usize, usize) {
        let queue = self.shared.queue.lock();
        (queue.threads, queue.blocked)
    }
}

fn poll(runnable: async_task::Runnable) {
    // Where this is the last waker, its drop has the future dropped; without it, a future that is pending and left no
    // waker anywhere would stay in memory for ever.
    let _last = runnable.waker();
    runnable.run();
}

impl Shared {
    fn push(self: &Arc<Self>, job: Job, jobs_max: usize) -> Result<(), Saturated> {
        let mut queue = self.queue.lock();
        if queue.closed || queue.jobs.len() >= jobs_max {
            return Err(Saturated);
        }
        // With every thread blocked and none to be had, a queued job might wait for ever.
        if queue.idle == 0
            && queue.threads >= THREADS_MAX
            && queue.blocked >= queue.threads
            && jobs_max != usize::MAX
        {
            return Err(Saturated);
        }
        queue.jobs.push_back(job);
        self.provide(queue);
        Ok(())
    }

    /// Wakes a thread for a waiting job, or starts one if none is idle. Nothing to do while one is on its way.
    fn provide(self: &Arc<Self>, mut queue: MutexGuard<'_, Queue>) {
        if queue.jobs.is_empty() || queue.coming {
            return;
        }
        if queue.idle > 0 {
            queue.coming = true;
            drop(queue);
            self.available.notify_one();
            return;
        }
        if queue.threads - queue.blocked < self.size && queue.threads < THREADS_MAX {
            queue.threads += 1;
            queue.coming = true;
            drop(queue);
            let shared = Arc::clone(self);
            let name = format!("{}-{}", self.name, "pool");
            if std::thread::Builder::new().name(name).spawn(move || shared.work()).is_err() {
                let mut queue = self.queue.lock();
                queue.threads -= 1;
                queue.coming = false;
            }
        }
    }

    fn work(self: Arc<Self>) {
        MY_POOL.set(Some(Arc::clone(&self)));
        let mut queue = self.queue.lock();
        let mut has_come = true;
        loop {
            if has_come {
                queue.coming = false;
            }
            if let Some(job) = queue.jobs.pop_front() {
                // Whoever comes fetches the next if there is more to do than one can.
                if std::mem::take(&mut has_come) {
                    self.provide(queue);
                } else {
                    drop(queue);
                }
                // Handlers catch their own panics; this is the last net, so that a thread is never lost.
                drop(std::panic::catch_unwind(std::panic::AssertUnwindSafe(job)));
                queue = self.queue.lock();
                continue;
            }
            if queue.closed {
                break;
            }
            queue.idle += 1;
            let timed_out = self.available.wait_for(&mut queue, IDLE).timed_out();
            queue.idle -= 1;
            // Also one that was not told: the one that was may have been about to leave.
            has_come = true;
            if timed_out && queue.jobs.is_empty() {
                break;
            }
        }
        queue.threads -= 1;
    }
}

/// Runs `wait`, during which this thread does not count against the size of the pool it belongs to.
pub(crate) fn blocking<R>(wait: impl FnOnce() -> R) -> R {
    let Some(pool) = MY_POOL.with_borrow(Clone::clone) else { return wait() };
    let mut queue = pool.queue.lock();
    queue.blocked += 1;
    pool.provide(queue);
    let result = wait();
    pool.queue.lock().blocked -= 1;
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn blocked_threads_make_room() {
        let pool = Pool::new("test", 1);
        let (done, finished) = mpsc::channel();
        let inner = pool.clone();
        pool.run(move || {
            let (answer, answered) = mpsc::channel();
            inner.run(move || answer.send(7).unwrap()).unwrap();
            // With one thread and no managed blocking this would wait for ever.
            let got = blocking(|| answered.recv_timeout(Duration::from_secs(20)).unwrap());
            done.send(got).unwrap();
        })
        .unwrap();
        assert_eq!(finished.recv_timeout(Duration::from_secs(30)), Ok(7));
        assert_eq!(pool.threads().1, 0);
    }

    #[test]
    fn futures_run_to_their_end() {
        let pool = Pool::new("test", 2);
        let (done, finished) = mpsc::channel();
        pool.start(async move {
            futures_lite::future::yield_now().await;
            done.send(()).unwrap();
        });
        assert_eq!(finished.recv_timeout(Duration::from_secs(30)), Ok(()));
    }

    #[test]
    fn a_future_that_nothing_can_wake_is_dropped() {
        let pool = Pool::new("test", 1);
        let (inside, dropped) = mpsc::channel::<()>();
        pool.start(async move {
            std::future::pending::<()>().await;
            drop(inside);
        });
        assert_eq!(dropped.recv_timeout(Duration::from_secs(5)), Err(mpsc::RecvTimeoutError::Disconnected));
    }

    #[test]
    fn jobs_that_come_together_run_together() {
        for _ in 0..20 {
            let pool = Pool::new("test", 2);
            pool.run(|| ()).unwrap();
            while pool.shared.queue.lock().idle != 1 {
                std::thread::yield_now();
            }
            // Both see the one idle thread, and each needs a thread of its own.
            let meeting = Arc::new(std::sync::Barrier::new(2));
            let (done, finished) = mpsc::channel();
            for _ in 0..2 {
                let (meeting, done) = (Arc::clone(&meeting), done.clone());
                pool.run(move || {
                    meeting.wait();
                    done.send(()).unwrap();
                })
                .unwrap();
            }
            for _ in 0..2 {
                assert_eq!(
                    finished.recv_timeout(Duration::from_secs(5)),
                    Ok(()),
                    "one waits for the other's thread"
                );
            }
        }
    }

    #[test]
    fn a_panic_loses_no_thread() {
        let pool = Pool::new("test", 1);
        pool.run(|| panic!("as the test wants")).unwrap();
        let (done, finished) = mpsc::channel();
        pool.run(move || done.send(()).unwrap()).unwrap();
        assert_eq!(finished.recv_timeout(Duration::from_secs(30)), Ok(()));
    }
}
