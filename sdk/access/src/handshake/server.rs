//! The listening end of a handshake: hears who comes, asks the doorkeeper, and says yes or no. Whoever is not let in
//! costs at most a message's memory and the time until the deadline. It must not know how links are kept.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::time::Instant;

use ringway_protocol::{CallError, ErrorCode, limits};
use serde_json::Value;

use super::frame::{Incoming, write};
use super::message::{
    Challenge, FromClient, FromServer, Hello, Nonce, Proof, Refusal, Welcome, from_json, out_of_turn, to_json,
};
use super::proof::Transcript;
use super::{ClockReading, HandshakeError, Introduction};
use crate::address::is_loopback;
use crate::doorkeeper::{Admission, Doorkeeper, Identity, Shown};
use crate::grant::Grant;
use crate::text::from_base64url;
use crate::tls::{Binding, PeerCertificate, Secured};
use crate::token::TOKEN_BYTES_MAX;

/// The longest hello, in bytes of JSON: two names, a nonce, some numbers.
const HELLO_BYTES_MAX: usize = 4 << 10;
/// The longest proof, in bytes of JSON: a token and a signature.
const PROOF_BYTES_MAX: usize = TOKEN_BYTES_MAX + (1 << 10);

/// How a peer came, as far as the connection says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Arrival {
    /// Whether it connected over the loopback interface. Whatever passes connections on from elsewhere looks like this
    /// too; do not let peers in without credentials where such a thing runs.
    pub loopback: bool,
    /// What binds the handshake to the TLS session; none without TLS.
    pub binding: Option<Binding>,
    /// The certificate that it showed, verified.
    pub certificate: Option<PeerCertificate>,
}

impl Arrival {
    /// Tells of a peer that came without TLS.
    #[must_use]
    pub fn plain(peer: SocketAddr) -> Self {
        Self { loopback: is_loopback(peer.ip()), binding: None, certificate: None }
    }

    /// Tells of a peer that came over TLS.
    #[must_use]
    pub fn secured<C, S>(peer: SocketAddr, session: &Secured<C, S>) -> Self
    where
        C: std::ops::DerefMut,
        C::Target: Sized,
        S: Read + Write,
    {
        Self { binding: Some(session.binding), certificate: session.certificate.clone(), ..Self::plain(peer) }
    }
}

/// Who came, and what they may do.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Peer {
    /// Who it says it is. Only [`Peer::identity`] was proved.
    pub introduction: Introduction,
    /// By what it was let in.
    pub identity: Identity,
    /// What it may do.
    pub grant: Grant,
    /// When it must show new credentials, in seconds since 1970, if they end: a link may outlive the token that made it.
    pub expires_s: Option<u64>,
    /// Its clocks when it said hello.
    pub clock: ClockReading,
    /// This end's clocks when the hello had come.
    pub heard: ClockReading,
}

/// A peer that has proved who it is and waits for an answer.
#[derive(Debug)]
#[must_use = "the peer waits for an answer"]
pub struct Candidate {
    peer: Peer,
    deadline: Instant,
}

/// Hears a peer out and asks the doorkeeper. The peer waits for [`Candidate::accept`] or [`Candidate::refuse`] then, so
/// that one with a good token can still be told that its id is taken. Blocks as long as the stream does, at most until
/// the deadline if its reads and writes come back by then, as those of a [`Limited`](crate::limited::Limited) stream do.
///
/// # Errors
/// The peer was refused ([`HandshakeError::Denied`]) and knows why, said what it may not, or was too slow; the connection
/// broke. Nothing more is to be said to it.
pub fn identify<S: Read + Write>(
    stream: &mut S,
    doorkeeper: &Doorkeeper,
    arrival: &Arrival,
    clock: &dyn Fn() -> ClockReading,
    deadline: Instant,
) -> Result<Candidate, HandshakeError> {
    let found = hear_out(stream, doorkeeper, arrival, clock, deadline);
    if let Err(error) = &found
        && error.can_be_told()
    {
        // It may have gone already, and why it was refused is what this end goes on with.
        let _told = tell_no(stream, error.to_call_error(), deadline);
    }
    found.map(|peer| Candidate { peer, deadline })
}

fn hear_out<S: Read + Write>(
    stream: &mut S,
    doorkeeper: &Doorkeeper,
    arrival: &Arrival,
    clock: &dyn Fn() -> ClockReading,
    deadline: Instant,
) -> Result<Peer, HandshakeError> {
    let hello = Incoming { stream, deadline, wanted: "a hello" }.read(HELLO_BYTES_MAX)?;
    let heard = clock();
    let FromClient::Hello(Hello { protocol, me: introduction, clock: theirs, .. }) =
        from_json(&hello, "a hello")?
    else {
        return Err(out_of_turn("a hello"));
    };
    if protocol != limits::PROTOCOL_VERSION {
        let error = CallError::incompatible_version(limits::PROTOCOL_VERSION, protocol);
        return Err(HandshakeError::Denied(error));
    }
    introduction.check()?;

    let challenge = FromServer::Challenge(Challenge { nonce: Nonce::draw()? });
    let challenge = to_json(&challenge, "a challenge")?;
    write(stream, &challenge, deadline, "a challenge to be taken")?;

    let proof = Incoming { stream, deadline, wanted: "a proof" }.read(PROOF_BYTES_MAX)?;
    let FromClient::Proof(Proof { token, signature }) = from_json(&proof, "a proof")? else {
        return Err(out_of_turn("a proof"));
    };
    let transcript = Transcript { hello: &hello, challenge: &challenge, binding: arrival.binding.as_ref() };
    let shown = Shown {
        token: token.as_deref(),
        statement: token.as_deref().map(|token| transcript.statement(token)).unwrap_or_default(),
        signature: signature.as_deref().and_then(from_base64url).unwrap_or_default(),
        certificate: arrival.certificate.as_ref(),
        loopback: arrival.loopback,
    };
    let judged = doorkeeper.judge(&shown, clock().unix_s());
    let Admission { identity, grant, expires_s } = judged.map_err(|refusal| {
        HandshakeError::Denied(CallError::new(ErrorCode::Forbidden, refusal.to_string()))
    })?;
    Ok(Peer { introduction, identity, grant, expires_s, clock: theirs, heard })
}

fn tell_no<S: Write>(stream: &mut S, error: CallError, deadline: Instant) -> Result<(), HandshakeError> {
    let json = to_json(&FromServer::Refused(Refusal { error }), "a refusal")?;
    write(stream, &json, deadline, "a refusal to be taken")
}

impl Candidate {
    /// Returns who waits.
    #[must_use]
    pub const fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Lets the peer in, as the link of this number, under these limits. After this the stream is the link's.
    ///
    /// # Errors
    /// The deadline passed, or the connection broke: there is no link.
    pub fn accept<S: Write>(
        self,
        stream: &mut S,
        me: &Introduction,
        link: u64,
        limits: Value,
        clock: &dyn Fn() -> ClockReading,
    ) -> Result<Peer, HandshakeError> {
        let grant = self.peer.grant.clone();
        let welcome = Welcome { me: me.clone(), link, limits, clock: clock(), grant };
        let json = to_json(&FromServer::Accepted(Box::new(welcome)), "an answer")?;
        write(stream, &json, self.deadline, "an answer to be taken")?;
        Ok(self.peer)
    }

    /// Sends the peer away, in spite of its credentials.
    ///
    /// # Errors
    /// It could not be told any more.
    pub fn refuse<S: Write>(self, stream: &mut S, error: CallError) -> Result<(), HandshakeError> {
        tell_no(stream, error, self.deadline)
    }
}
