//! What a segment promises: its maker writes, whoever receives it reads, and the kernel refuses everything else.

use super::*;

fn write_byte(segment: &Segment, offset: usize, value: u8) {
    assert!(offset < segment.len());
    // SAFETY: inside the segment by the check above; tests write from one thread.
    unsafe { segment.base().wrapping_add(offset).write_volatile(value) }
}

fn read_byte(view: &SegmentView, offset: usize) -> u8 {
    assert!(offset < view.len());
    // SAFETY: inside the view by the check above.
    unsafe { view.base().wrapping_add(offset).read_volatile() }
}

fn backends() -> Vec<Arc<Segment>> {
    let mut all = vec![Segment::heap(5000)];
    #[cfg(not(miri))]
    all.push(Segment::portable(5000).unwrap());
    #[cfg(all(target_os = "linux", not(miri)))]
    all.push(Segment::create("test", 5000, SegmentOptions::default()).unwrap());
    #[cfg(all(target_os = "linux", not(miri)))]
    all.push(Segment::create("test", 5000, SegmentOptions { huge_pages: true, prefault: true }).unwrap());
    all
}

#[test]
fn a_view_shows_what_the_maker_writes_on_every_backend() {
    for segment in backends() {
        assert_eq!(segment.len(), 8192, "{segment:?}");
        assert!(segment.base().addr().is_multiple_of(limits::PAGE_BYTES));
        let view = segment.view();
        assert_eq!(read_byte(&view, 8191), 0, "a new segment is zeroed");
        write_byte(&segment, 8191, 42);
        assert_eq!(read_byte(&view, 8191), 42, "{segment:?}");
        drop(segment);
        assert_eq!(read_byte(&view, 8191), 42, "the view keeps the memory");
    }
}

#[test]
fn sizes_outside_the_limits_are_refused() {
    for bytes in [0, usize::MAX, usize::try_from(limits::SEGMENT_BYTES_MAX).unwrap() + 1] {
        let result = Segment::create("test", bytes, SegmentOptions::default());
        assert!(matches!(result, Err(SegmentError::Size { .. })), "{bytes}");
    }
}

#[test]
#[cfg(not(miri))]
fn a_portable_segment_is_opened_by_name_and_its_name_goes_with_its_maker() {
    let segment = Segment::portable(4096).unwrap();
    let name = segment.portable_name().unwrap().to_owned();
    let view = SegmentView::open_portable(&name, 1 << 20).unwrap();
    write_byte(&segment, 7, 9);
    assert_eq!(read_byte(&view, 7), 9);
    assert!(matches!(SegmentView::open_portable(&name, 4095), Err(SegmentError::Size { .. })));
    drop(view);
    drop(segment);
    assert!(matches!(SegmentView::open_portable(&name, 1 << 20), Err(SegmentError::Portable { .. })));
}

#[cfg(all(target_os = "linux", not(miri)))]
mod received {
    //! A peer holds the descriptor and tries everything.

    use std::ptr;

    use rustix::fs::{FallocateFlags, MemfdFlags, Mode, OFlags, SealFlags};
    use rustix::io::Errno;
    use rustix::mm::{MapFlags, MprotectFlags, ProtFlags};

    use super::*;

    fn pass(segment: &Segment) -> OwnedFd {
        segment.fd().unwrap().try_clone_to_owned().unwrap()
    }

    fn map_shared_writable(fd: impl AsFd) -> Errno {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh mapping without MAP_FIXED replaces nothing.
        unsafe { rustix::mm::mmap(ptr::null_mut(), 4096, protection, MapFlags::SHARED, fd, 0) }.unwrap_err()
    }

    #[test]
    fn it_can_be_read_and_nothing_else() {
        let segment = Segment::create("test", 8192, SegmentOptions::default()).unwrap();
        write_byte(&segment, 0, 1);
        let fd = pass(&segment);

        assert_eq!(map_shared_writable(&fd), Errno::PERM);
        assert_eq!(rustix::io::pwrite(&fd, b"x", 0), Err(Errno::PERM));
        assert_eq!(rustix::fs::ftruncate(&fd, 4096), Err(Errno::PERM), "shrink");
        assert_eq!(rustix::fs::ftruncate(&fd, 16384), Err(Errno::PERM), "grow");
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        assert_eq!(rustix::fs::fallocate(&fd, hole, 0, 4096), Err(Errno::PERM));
        assert_eq!(rustix::fs::fcntl_add_seals(&fd, SealFlags::WRITE), Err(Errno::PERM), "no more seals");

        let view = SegmentView::map(pass(&segment), 8192).unwrap();
        let base = view.base().cast_mut().cast();
        // SAFETY: asks for more rights on a mapping of our own; it is refused, and would harm nothing if it were not.
        let result = unsafe { rustix::mm::mprotect(base, 4096, MprotectFlags::READ | MprotectFlags::WRITE) };
        assert_eq!(result, Err(Errno::ACCESS), "the mapping was made for reading");

        // A second open file of the same memory, with its own access mode.
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&fd));
        match rustix::fs::open(&path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()) {
            Ok(reopened) => {
                assert_eq!(map_shared_writable(&reopened), Errno::PERM);
                assert_eq!(rustix::io::pwrite(&reopened, b"x", 0), Err(Errno::PERM));
            }
            Err(error) => assert!(matches!(error, Errno::PERM | Errno::ACCESS), "{error}"),
        }
        assert_eq!(read_byte(&view, 0), 1);
        write_byte(&segment, 0, 2);
        assert_eq!(read_byte(&view, 0), 2, "the maker still writes");
    }

    #[test]
    fn it_is_checked_before_it_is_mapped() {
        let segment = Segment::create("test", 8192, SegmentOptions::default()).unwrap();
        let error = SegmentView::map(pass(&segment), 8191).unwrap_err();
        assert!(matches!(error, SegmentError::Size { bytes: 8192, bytes_max: 8191 }), "{error}");

        let memfd = |seals: SealFlags, bytes: u64| {
            let fd =
                rustix::fs::memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
            rustix::fs::ftruncate(&fd, bytes).unwrap();
            rustix::fs::fcntl_add_seals(&fd, seals).unwrap();
            SegmentView::map(fd, 1 << 20)
        };
        let all = sys::memory::SEALS;
        assert!(memfd(all, 4096).is_ok());
        for missing in [SealFlags::SHRINK, SealFlags::GROW, SealFlags::FUTURE_WRITE, SealFlags::SEAL] {
            let error = memfd(all.difference(missing), 4096).unwrap_err();
            assert!(matches!(error, SegmentError::Unsealed { .. }), "without {missing:?}: {error}");
        }
        assert!(matches!(memfd(all, 0), Err(SegmentError::Size { bytes: 0, .. })));
        assert!(matches!(memfd(all, 5000), Err(SegmentError::PartialPage { bytes: 5000 })));

        let file = std::fs::File::open("/proc/self/exe").unwrap();
        assert!(matches!(SegmentView::map(file.into(), 1 << 20), Err(SegmentError::Unsealed { found: 0 })));
        let counter = sys::event::eventfd().unwrap();
        assert!(matches!(SegmentView::map(counter, 1 << 20), Err(SegmentError::Unsealed { found: 0 })));
    }

    #[test]
    fn it_outlives_its_maker_and_can_be_forwarded() {
        let segment = Segment::create("test", 4096, SegmentOptions::default()).unwrap();
        write_byte(&segment, 9, 3);
        let first = SegmentView::map(pass(&segment), 4096).unwrap();
        drop(segment);
        let second = SegmentView::map(first.fd().unwrap().try_clone_to_owned().unwrap(), 4096).unwrap();
        drop(first);
        second.populate();
        assert_eq!(read_byte(&second, 9), 3);
    }

    /// `dc` in the kernel's flags: a forked child does not get the mapping, so it cannot become a second writer.
    #[test]
    fn a_forked_child_does_not_inherit_the_writable_mapping() {
        let label = "ringway-fork-probe";
        let segment = Segment::create(label, 4096, SegmentOptions::default()).unwrap();
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let (_, entry) = maps.split_once(label).unwrap();
        let flags = entry.lines().find_map(|line| line.strip_prefix("VmFlags:")).unwrap();
        assert!(flags.split_whitespace().any(|flag| flag == "dc"), "{flags}");
        drop(segment);
    }

    #[test]
    fn nothing_is_left_mapped_or_open() {
        let label = "ringway-leak-probe";
        let count = || std::fs::read_to_string("/proc/self/maps").unwrap().matches(label).count();
        let segment = Segment::create(label, 4096, SegmentOptions::default()).unwrap();
        let view = SegmentView::map(pass(&segment), 4096).unwrap();
        assert_eq!(count(), 2);
        drop(segment);
        drop(view);
        assert_eq!(count(), 0);
        let open = std::fs::read_dir("/proc/self/fd").unwrap().flatten().filter(|entry| {
            std::fs::read_link(entry.path()).is_ok_and(|target| target.to_string_lossy().contains(label))
        });
        assert_eq!(open.count(), 0);
    }
}
