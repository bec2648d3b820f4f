//! What the holder of a token signs. Both ends make the same bytes of what they saw; each part has a fixed length, so
//! that no two conversations give the same ones. It must not know who signs.

use crate::text::sha256;
use crate::tls::Binding;

/// What no other protocol has a holder sign.
const DOMAIN: &[u8] = b"ringway-link proof, version 1\n";

/// The conversation so far, as it went over the wire.
#[derive(Clone, Copy)]
pub(super) struct Transcript<'a> {
    /// The client's hello, with its nonce.
    pub(super) hello: &'a [u8],
    /// The server's challenge, with its nonce.
    pub(super) challenge: &'a [u8],
    /// What only the two ends of the TLS session know; none without TLS.
    pub(super) binding: Option<&'a Binding>,
}

impl Transcript<'_> {
    /// Returns what is signed to show a token in this conversation.
    pub(super) fn statement(&self, token: &str) -> Vec<u8> {
        let (bound, binding) = self.binding.map_or((0, &[0; 32]), |binding| (1, binding));
        [
            DOMAIN,
            &sha256(self.hello),
            &sha256(self.challenge),
            &sha256(token.as_bytes()),
            &[bound],
            &binding[..],
        ]
        .concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_of_a_conversation_changes_what_is_signed() {
        let statement = |hello: &[u8], challenge: &[u8], binding: Option<[u8; 32]>, token: &str| {
            Transcript { hello, challenge, binding: binding.as_ref() }.statement(token)
        };
        let all = [
            statement(b"h", b"c", None, "t"),
            statement(b"x", b"c", None, "t"),
            statement(b"h", b"x", None, "t"),
            statement(b"hc", b"", None, "t"),
            statement(b"h", b"c", None, "x"),
            statement(b"h", b"c", Some([0; 32]), "t"),
            statement(b"h", b"c", Some([1; 32]), "t"),
        ];
        for (index, one) in all.iter().enumerate() {
            assert_eq!(one.len(), all[0].len());
            assert!(all[..index].iter().all(|other| other != one), "{index}");
        }
    }
}
