//! What the cases send, and how an answer proves that the request was read. Used by both sides of every case. It must not
//! know how anything is sent.

use anyhow::ensure;
use rkyv::{Archive, Deserialize, Serialize};

/// Serves [`Words`], typed.
pub(crate) const TYPED: &str = "bench::typed";
/// Serves [`Text`], as JSON.
pub(crate) const JSON: &str = "bench::json";
/// Serves raw bytes of any length, in the slot or in a block.
pub(crate) const BYTES: &str = "bench::bytes";
/// Streams so many items of so many bytes.
pub(crate) const STREAM: &str = "bench::stream";
/// Tells how many payload bytes the callee's process has copied.
pub(crate) const COPIED: &str = "bench::copied";

/// Bytes of every answer, and of the smallest request.
pub(crate) const SMALL: usize = 64;

/// 64 bytes that are the same in memory, in an archive and for serde.
#[derive(
    Debug,
    Clone,
    Copy,
    Archive,
    Serialize,
    Deserialize,
    serde::Serialize,
    serde::Deserialize,
    schemars::JsonSchema,
)]
pub(crate) struct Words {
    /// The first is the number of the call, the last its complement.
    pub(crate) words: [u64; 8],
}

impl Words {
    /// The request of a call.
    #[inline]
    pub(crate) fn request(sequence: u64) -> Self {
        Self { words: [sequence, 1, 2, 3, 4, 5, 6, !sequence] }
    }

    /// The answer to a request: its ends exchanged.
    #[inline]
    pub(crate) fn answer(first: u64, last: u64) -> Self {
        Self { words: [last, 1, 2, 3, 4, 5, 6, first] }
    }
}

/// Checks an answer made by [`Words::answer`].
#[inline]
pub(crate) fn check_words(first: u64, last: u64, sequence: u64) -> anyhow::Result<()> {
    ensure!(first == !sequence && last == sequence, "the answer is not the one to call {sequence}");
    Ok(())
}

/// A JSON object whose text has a chosen length.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
pub(crate) struct Text {
    /// The number of the call.
    pub(crate) sequence: u64,
    /// Fills the text up.
    pub(crate) fill: String,
}

/// Where numbers of JSON calls start, so that all have as many digits.
pub(crate) const JSON_SEQUENCE_FIRST: u64 = 1_000_000_000_000;

impl Text {
    /// A request whose JSON text is `bytes` long, or as short as it can be.
    pub(crate) fn with_bytes(bytes: usize) -> anyhow::Result<Self> {
        let mut text = Self { sequence: JSON_SEQUENCE_FIRST, fill: String::new() };
        let shortest = serde_json::to_vec(&text)?.len();
        text.fill = "x".repeat(bytes.saturating_sub(shortest));
        Ok(text)
    }
}

/// Writes the number of the call at both ends of a request. Nothing between them is touched.
#[inline]
pub(crate) fn stamp(request: &mut [u8], sequence: u64) {
    let word = sequence.to_le_bytes();
    if let Some(front) = request.first_chunk_mut() {
        *front = word;
    }
    if let Some(back) = request.last_chunk_mut() {
        *back = word;
    }
}

/// Answers a request of bytes: its two ends in front, so that both must have been read where they lie.
#[inline]
pub(crate) fn answer(request: &[u8]) -> [u8; SMALL] {
    let mut response = [0; SMALL];
    let ends = [request.first_chunk(), request.last_chunk()];
    for (place, end) in response.as_chunks_mut::<8>().0.iter_mut().zip(ends) {
        *place = end.copied().unwrap_or_default();
    }
    response
}

/// Checks an answer made by [`answer`].
#[inline]
pub(crate) fn check(response: &[u8], sequence: u64) -> anyhow::Result<()> {
    let word = sequence.to_le_bytes();
    let right = response.len() == SMALL && response[..8] == word && response[8..16] == word;
    ensure!(right, "the answer is not the one to call {sequence}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{JSON_SEQUENCE_FIRST, SMALL, Text, Words, answer, check, check_words, stamp};

    #[test]
    fn an_answer_proves_that_both_ends_were_read() {
        for bytes in [SMALL, 4096] {
            let mut request = vec![0; bytes];
            stamp(&mut request, 7);
            check(&answer(&request), 7).unwrap();
            assert!(check(&answer(&request), 8).is_err());
            request[bytes - 8] ^= 1;
            assert!(check(&answer(&request), 7).is_err());
        }
        assert!(check(&[0; 8], 0).is_err());
    }

    #[test]
    fn an_answer_of_words_is_not_an_echo() {
        let [first, .., last] = Words::request(7).words;
        assert!(check_words(first, last, 7).is_err(), "a request must not pass for its answer");
        let [first, .., last] = Words::answer(first, last).words;
        check_words(first, last, 7).unwrap();
        assert!(check_words(first, last, 8).is_err());
    }

    #[test]
    fn json_texts_have_the_length_asked_for() {
        for bytes in [64, 128, 4096] {
            let mut text = Text::with_bytes(bytes).unwrap();
            assert_eq!(serde_json::to_vec(&text).unwrap().len(), bytes);
            text.sequence = JSON_SEQUENCE_FIRST * 10 - 1;
            assert_eq!(serde_json::to_vec(&text).unwrap().len(), bytes);
        }
    }
}
