//! The dialling end of a handshake. Nothing that the server says is believed before it was checked. It must not know
//! how the connection was made.

use std::io::{Read, Write};
use std::time::Instant;

use ringway_protocol::{CallError, limits};
use serde_json::Value;

use super::frame::{FRAME_BYTES_MAX, Incoming, write};
use super::message::{FromClient, FromServer, Hello, Nonce, Proof, Welcome, from_json, out_of_turn, to_json};
use super::proof::Transcript;
use super::{ClockReading, HandshakeError, Introduction};
use crate::credentials::Credentials;
use crate::grant::Grant;
use crate::text::base64url;
use crate::tls::Binding;

/// How much of a refusal is kept, in letters.
const REFUSAL_LETTERS_MAX: usize = 1000;

/// What a server said when it let this end in.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Accepted {
    /// Who the server says it is. Over TLS its certificate says whether to believe it.
    pub server: Introduction,
    /// The server's number for this link.
    pub link: u64,
    /// The server's limits; whoever drives the link reads them.
    pub limits: Value,
    /// What this end may do there.
    pub grant: Grant,
    /// The server's clocks, between the next two.
    pub server_clock: ClockReading,
    /// This end's clocks before it sent its proof.
    pub asked: ClockReading,
    /// This end's clocks when the answer was there.
    pub answered: ClockReading,
}

/// Introduces this end to a server and shows its credentials. `binding` is that of the TLS session below, if there is
/// one. Blocks as long as the stream does, at most until the deadline if its reads and writes come back by then, as
/// those of a [`Limited`](crate::limited::Limited) stream do.
///
/// # Errors
/// The server refused ([`HandshakeError::Refused`]), said what it may not, or was too slow; the connection broke.
pub fn connect<S: Read + Write>(
    stream: &mut S,
    me: &Introduction,
    credentials: &Credentials,
    binding: Option<&Binding>,
    clock: &dyn Fn() -> ClockReading,
    deadline: Instant,
) -> Result<Accepted, HandshakeError> {
    let hello =
        Hello { protocol: limits::PROTOCOL_VERSION, me: me.clone(), nonce: Nonce::draw()?, clock: clock() };
    let hello = to_json(&FromClient::Hello(hello), "a hello")?;
    write(stream, &hello, deadline, "a hello to be taken")?;

    let challenge = hear(stream, deadline, "a challenge")?;
    let FromServer::Challenge(_) = said(&challenge, "a challenge")? else {
        return Err(out_of_turn("a challenge"));
    };

    let transcript = Transcript { hello: &hello, challenge: &challenge, binding };
    let proof = to_json(&FromClient::Proof(proof(credentials, &transcript)?), "a proof")?;
    let asked = clock();
    write(stream, &proof, deadline, "a proof to be taken")?;

    let answer = hear(stream, deadline, "an answer")?;
    let answered = clock();
    let FromServer::Accepted(welcome) = said(&answer, "an answer")? else {
        return Err(out_of_turn("an answer"));
    };
    let Welcome { me: server, link, limits, clock: server_clock, grant } = *welcome;
    server.check()?;
    Ok(Accepted { server, link, limits, grant, server_clock, asked, answered })
}

fn hear<S: Read>(stream: &mut S, deadline: Instant, wanted: &'static str) -> Result<Vec<u8>, HandshakeError> {
    Incoming { stream, deadline, wanted }.read(FRAME_BYTES_MAX)
}

fn said(json: &[u8], wanted: &'static str) -> Result<FromServer, HandshakeError> {
    match from_json(json, wanted)? {
        FromServer::Refused(refusal) => Err(HandshakeError::Refused(shown(refusal.error))),
        message => Ok(message),
    }
}

/// A server's error as it may be shown on a terminal: a stranger wrote it.
fn shown(error: CallError) -> CallError {
    let message: String =
        error.message.chars().filter(|letter| !letter.is_control()).take(REFUSAL_LETTERS_MAX).collect();
    let kept = CallError::new(error.code, message);
    match error.details {
        Some(details) => kept.with_details(*details),
        None => kept,
    }
}

fn proof(credentials: &Credentials, transcript: &Transcript<'_>) -> Result<Proof, HandshakeError> {
    let Some(token) = &credentials.token else { return Ok(Proof::default()) };
    let key = credentials.key.as_ref().ok_or(HandshakeError::KeyMissing)?;
    let signature = base64url(&key.sign(&transcript.statement(token)));
    Ok(Proof { token: Some(token.clone()), signature: Some(signature) })
}
