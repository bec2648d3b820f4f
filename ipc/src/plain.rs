//! Values that are their own archive: what rkyv would write for them is the bytes that they have in memory.
//!
//! Used by the SDK on the way of a call, where rkyv's general way (a scratch arena per thread, a map of shared pointers)
//! costs more than the ring. It lives here because reading a value's bytes takes unsafe code. It must not know what a
//! value means.
#![expect(unsafe_code, reason = "reads a value as bytes")]

use rkyv::Archive;

/// The bytes of a value whose archive is a copy of it; `None` for every other type. Which of the two is decided when the
/// program is compiled.
#[inline]
#[must_use]
pub fn bytes_of<T: Archive>(value: &T) -> Option<&[u8]> {
    if !T::COPY_OPTIMIZATION.is_enabled() || size_of::<T>() != size_of::<T::Archived>() {
        return None;
    }
    let start = core::ptr::from_ref(value).cast::<u8>();
    // SAFETY: the value lies there, borrowed for as long as the slice. Whoever enables the flag attests that the type is
    // trivially copyable: no byte of it is padding, and its bytes are those of its archive (`rkyv::traits::CopyOptimization`,
    // which rkyv itself relies on to write slices in the same way).
    Some(unsafe { core::slice::from_raw_parts(start, size_of::<T>()) })
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use rkyv::rancor::Error;
    use rkyv::{Archive, Serialize};

    use super::bytes_of;

    #[derive(Archive, Serialize)]
    struct Flat {
        words: [u64; 2],
        halves: [u32; 2],
    }

    #[derive(Archive, Serialize)]
    struct Padded {
        byte: u8,
        word: u64,
    }

    #[test]
    fn are_what_rkyv_writes() {
        let flat = Flat { words: [1, u64::MAX], halves: [7, 8] };
        let archived = rkyv::to_bytes::<Error>(&flat).unwrap();
        assert_eq!(bytes_of(&flat), Some(&archived[..]));
        assert_eq!(bytes_of(&[3_u16; 4]), Some(&[3, 0, 3, 0, 3, 0, 3, 0][..]));
    }

    #[test]
    fn are_refused_where_an_archive_is_something_else() {
        assert_eq!(bytes_of(&Padded { byte: 1, word: 2 }), None);
        assert_eq!(bytes_of(&"text".to_owned()), None);
        assert_eq!(bytes_of(&Some(1_u32)), None);
    }
}
