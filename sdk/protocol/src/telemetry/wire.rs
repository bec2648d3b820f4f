//! Little-endian fields one after the other, for records only. Writing cannot fail: record sizes are fixed
//! by constants checked in the limits, and what would not fit is left out. Reading trusts nothing.

use super::{RecordBytes, RecordError};

pub(super) struct Writer<'a> {
    out: &'a mut RecordBytes,
    len: usize,
}

impl<'a> Writer<'a> {
    pub(super) const fn new(out: &'a mut RecordBytes) -> Self {
        Self { out, len: 0 }
    }

    #[inline]
    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        if let Some(place) = self.out.get_mut(self.len..self.len + bytes.len()) {
            place.copy_from_slice(bytes);
            self.len += bytes.len();
        }
    }

    #[inline]
    pub(super) fn u32(&mut self, value: u32) {
        self.bytes(&value.to_le_bytes());
    }

    #[inline]
    pub(super) fn u64(&mut self, value: u64) {
        self.bytes(&value.to_le_bytes());
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }
}

pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) const fn new(rest: &'a [u8]) -> Self {
        Self { rest }
    }

    #[inline]
    pub(super) fn bytes(&mut self, len: usize) -> Result<&'a [u8], RecordError> {
        let short = RecordError::Short { wanted: len, found: self.rest.len() };
        let (bytes, rest) = self.rest.split_at_checked(len).ok_or(short)?;
        self.rest = rest;
        Ok(bytes)
    }

    #[inline]
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], RecordError> {
        let short = RecordError::Short { wanted: N, found: self.rest.len() };
        let (bytes, rest) = self.rest.split_first_chunk().ok_or(short)?;
        self.rest = rest;
        Ok(*bytes)
    }

    #[inline]
    pub(super) fn u8(&mut self) -> Result<u8, RecordError> {
        self.array().map(|[byte]| byte)
    }

    #[inline]
    pub(super) fn u16(&mut self) -> Result<u16, RecordError> {
        self.array().map(u16::from_le_bytes)
    }

    #[inline]
    pub(super) fn u32(&mut self) -> Result<u32, RecordError> {
        self.array().map(u32::from_le_bytes)
    }

    #[inline]
    pub(super) fn u64(&mut self) -> Result<u64, RecordError> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn text(&mut self, len: usize) -> Result<&'a str, RecordError> {
        std::str::from_utf8(self.bytes(len)?).map_err(|_| RecordError::Text)
    }

    pub(super) const fn rest(&self) -> &'a [u8] {
        self.rest
    }
}
