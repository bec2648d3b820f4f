//! Calls by name: a small cache per thread, so that a name costs a hash and a comparison.
//!
//! What is cached is a typed handle, which follows the catalog by itself, so an entry never goes stale.

use std::any::{Any, TypeId};
use std::cell::RefCell;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::rc::Rc;
use std::sync::{Arc, Weak};

use crate::function::Typed;
use crate::handle::TypedHandle;
use crate::worker::{Inner, Worker};

/// Names that a thread remembers, a power of two. Two names that fall together replace each other.
const ENTRIES: usize = 64;

struct Entry {
    id: Box<str>,
    worker: Weak<Inner>,
    types: (TypeId, TypeId),
    handle: Rc<dyn Any>,
}

thread_local! {
    static NAMES: RefCell<[Option<Entry>; ENTRIES]> = const { RefCell::new([const { None }; ENTRIES]) };
}

/// Runs `f` with the handle of a typed function.
#[inline]
pub(crate) fn typed<Req: Typed, Resp: Typed, R>(
    worker: &Worker,
    id: &str,
    f: impl FnOnce(&TypedHandle<Req, Resp>) -> R,
) -> R {
    let types = (TypeId::of::<Req>(), TypeId::of::<Resp>());
    let place = place_of(id);
    let cached = NAMES.with_borrow(|names| {
        let entry = names[place].as_ref()?;
        let same = &*entry.id == id
            && entry.types == types
            && std::ptr::eq(entry.worker.as_ptr(), Arc::as_ptr(worker.inner()));
        same.then(|| Rc::clone(&entry.handle))
    });
    if let Some(handle) = cached.as_ref().and_then(|handle| handle.downcast_ref::<TypedHandle<Req, Resp>>()) {
        return f(handle);
    }
    // The cached handle does not keep the worker attached.
    let handle: TypedHandle<Req, Resp> = Worker::internal(Arc::clone(worker.inner())).function(id);
    let entry = Entry {
        id: id.into(),
        worker: Arc::downgrade(worker.inner()),
        types,
        handle: Rc::new(handle.clone()),
    };
    NAMES.with_borrow_mut(|names| names[place] = Some(entry));
    f(&handle)
}

#[inline]
fn place_of(id: &str) -> usize {
    let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(id);
    #[expect(clippy::cast_possible_truncation, reason = "only the low bits are used")]
    let place = hash as usize & (ENTRIES - 1);
    place
}
