//! The same calls over Unix sockets: what the rings are compared with. A frame is a length of four bytes, little-endian, and
//! JSON. Each call in flight has a connection of its own, kept for the next one; a thread serves each connection. It
//! must not know what is called.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use ringway::{CallError, ErrorCode, Failure};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::calls::{Calls, TakeReply, WriteJson};

/// The longest frame.
const FRAME_BYTES_MAX: usize = 64 << 20;

#[derive(Deserialize)]
struct Call<'a> {
    function: &'a str,
    #[serde(borrow)]
    request: &'a RawValue,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Reply<'a> {
    #[serde(borrow)]
    Ok(&'a RawValue),
    Error(CallError),
}

/// Answers a call: the request's JSON, and where to write the reply's.
pub type Handler = Box<dyn Fn(&[u8], &mut Vec<u8>) -> Result<(), Failure> + Send + Sync>;

/// Serves functions at an abstract socket, on threads of its own, until the process ends. Only this user's processes are
/// answered.
///
/// # Errors
/// When the name is taken.
pub fn serve(name: &str, handlers: HashMap<String, Handler>) -> io::Result<()> {
    let listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(name)?)?;
    let handlers = Arc::new(handlers);
    std::thread::Builder::new().name("demo-socket".to_owned()).spawn(move || {
        for stream in listener.incoming().flatten() {
            let handlers = Arc::clone(&handlers);
            let conversation = move || {
                // A peer that leaves ends the conversation; there is nobody to tell.
                let _left = converse(stream, &handlers);
            };
            // Without a thread the connection is dropped, and the peer hears that.
            let _thread =
                std::thread::Builder::new().name("demo-conversation".to_owned()).spawn(conversation);
        }
    })?;
    Ok(())
}

fn converse(mut stream: UnixStream, handlers: &HashMap<String, Handler>) -> io::Result<()> {
    let peer = rustix::net::sockopt::socket_peercred(&stream)?;
    if peer.uid != rustix::process::geteuid() {
        return Ok(());
    }
    let (mut request, mut reply) = (Vec::new(), Vec::new());
    loop {
        receive(&mut stream, &mut request)?;
        begin_frame(&mut reply);
        let body = reply.len();
        if let Err(error) = answer(&request, &mut reply, handlers) {
            reply.truncate(body);
            serde_json::to_writer(&mut reply, &Reply::Error(error.into_error()))?;
        }
        send(&mut stream, &mut reply)?;
    }
}

fn answer(request: &[u8], reply: &mut Vec<u8>, handlers: &HashMap<String, Handler>) -> Result<(), Failure> {
    let call: Call<'_> = serde_json::from_slice(request)?;
    let handler = handlers
        .get(call.function)
        .ok_or_else(|| CallError::new(ErrorCode::NotFound, format!("no function {}", call.function)))?;
    reply.extend_from_slice(br#"{"ok":"#);
    handler(call.request.get().as_bytes(), reply)?;
    reply.push(b'}');
    Ok(())
}

fn begin_frame(frame: &mut Vec<u8>) {
    frame.clear();
    frame.extend_from_slice(&[0; 4]);
}

fn send(stream: &mut UnixStream, frame: &mut [u8]) -> io::Result<()> {
    let length = frame.len().saturating_sub(4);
    let length = u32::try_from(length).ok().filter(|_| length <= FRAME_BYTES_MAX);
    let length = length.ok_or_else(|| io::Error::other("a frame is too long"))?;
    frame[..4].copy_from_slice(&length.to_le_bytes());
    stream.write_all(frame)
}

fn receive(stream: &mut UnixStream, frame: &mut Vec<u8>) -> io::Result<()> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
    if length > FRAME_BYTES_MAX {
        return Err(io::Error::other("a frame is too long"));
    }
    frame.resize(length, 0);
    stream.read_exact(frame)
}

/// Calls over Unix sockets.
#[derive(Debug, Default)]
pub struct SocketCalls {
    /// Names of the sockets where each function is served.
    servers: HashMap<String, Vec<String>>,
    idle: Mutex<HashMap<String, Vec<UnixStream>>>,
    turn: AtomicUsize,
}

impl SocketCalls {
    /// Makes calls to the sockets named for each function.
    #[must_use]
    pub fn new(servers: HashMap<String, Vec<String>>) -> Self {
        Self { servers, ..Self::default() }
    }

    fn connection(&self, name: &str) -> io::Result<UnixStream> {
        let kept = self.idle.lock().get_mut(name).and_then(Vec::pop);
        match kept {
            Some(stream) => Ok(stream),
            None => UnixStream::connect_addr(&SocketAddr::from_abstract_name(name)?),
        }
    }

    /// Sends a request to the replica whose turn it is.
    fn begin(&self, function: &str, frame: &mut [u8]) -> io::Result<(String, UnixStream)> {
        let servers = self.servers.get(function).filter(|servers| !servers.is_empty());
        let servers =
            servers.ok_or_else(|| io::Error::other(format!("{function} is not served over a socket")))?;
        let first = self.turn.fetch_add(1, Ordering::Relaxed);
        let mut last = io::Error::other("no server");
        for step in 0..servers.len() {
            let name = &servers[first.wrapping_add(step) % servers.len()];
            let sent = self.connection(name).and_then(|mut stream| send(&mut stream, frame).map(|()| stream));
            match sent {
                Ok(stream) => return Ok((name.clone(), stream)),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn end(&self, name: String, mut stream: UnixStream, reply: &mut Vec<u8>) -> io::Result<()> {
        receive(&mut stream, reply)?;
        self.idle.lock().entry(name).or_default().push(stream);
        Ok(())
    }

    /// Waits for a reply; where the server died, asks the others.
    fn finish(
        &self,
        function: &str,
        frame: &mut [u8],
        begun: io::Result<(String, UnixStream)>,
        reply: &mut Vec<u8>,
    ) -> io::Result<()> {
        let mut ended = begun.and_then(|(name, stream)| self.end(name, stream, reply));
        for _ in 0..self.servers.get(function).map_or(0, Vec::len) {
            if ended.is_ok() {
                break;
            }
            ended = self.begin(function, frame).and_then(|(name, stream)| self.end(name, stream, reply));
        }
        ended
    }
}

impl Calls for SocketCalls {
    fn all(&self, function: &str, requests: &[&dyn WriteJson], take: TakeReply<'_>) {
        let mut begun = Vec::with_capacity(requests.len());
        for request in requests {
            let frame = request_frame(function, *request);
            begun.push(frame.map(|mut frame| {
                let begun = self.begin(function, &mut frame);
                (frame, begun)
            }));
        }
        let mut reply = Vec::new();
        for (place, begun) in begun.into_iter().enumerate() {
            let ended = begun
                .and_then(|(mut frame, begun)| self.finish(function, &mut frame, begun, &mut reply))
                .map_err(|error| CallError::new(ErrorCode::WorkerGone, format!("over the socket: {error}")))
                .and_then(|()| read_reply(&reply));
            take(place, ended.map_err(|error| error.with_function(function)));
        }
    }
}

fn request_frame(function: &str, request: &dyn WriteJson) -> io::Result<Vec<u8>> {
    let mut frame = Vec::new();
    begin_frame(&mut frame);
    write!(frame, "{{\"function\":{},\"request\":", serde_json::to_string(function)?)?;
    request.write_json(&mut frame)?;
    frame.push(b'}');
    Ok(frame)
}

fn read_reply(reply: &[u8]) -> Result<&[u8], CallError> {
    match serde_json::from_slice::<Reply<'_>>(reply) {
        Ok(Reply::Ok(text)) => Ok(text.get().as_bytes()),
        Ok(Reply::Error(error)) => Err(error),
        Err(error) => {
            Err(CallError::new(ErrorCode::InvalidRequest, format!("the reply is no JSON: {error}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calls::{ask, ask_all, parse};

    fn served(name: &str) -> String {
        let name = format!("ringway-demo-socket-test-{}-{name}", std::process::id());
        let double: Handler = Box::new(|request, reply| {
            let number: u64 = parse(request)?;
            if number == 13 {
                return Err(Failure::new("no luck"));
            }
            Ok(serde_json::to_writer(reply, &(number * 2))?)
        });
        serve(&name, HashMap::from([("double".to_owned(), double)])).unwrap();
        name
    }

    #[test]
    fn calls_are_answered_in_order() {
        let servers = vec![served("a"), served("b")];
        let calls = SocketCalls::new(HashMap::from([("double".to_owned(), servers)]));
        for _ in 0..3 {
            let replies: Vec<u64> =
                ask_all(&calls, "double", &[1, 2, 3, 4, 5]).into_iter().map(Result::unwrap).collect();
            assert_eq!(replies, [2, 4, 6, 8, 10]);
        }
        let kept: usize = calls.idle.lock().values().map(Vec::len).sum();
        assert_eq!(kept, 6, "connections are used again: three of each server are enough");
    }

    #[test]
    fn a_server_that_is_gone_is_passed_over() {
        let gone = format!("ringway-demo-socket-test-{}-gone", std::process::id());
        let calls = SocketCalls::new(HashMap::from([("double".to_owned(), vec![gone, served("c")])]));
        for number in 0..4_u64 {
            assert_eq!(ask::<u64>(&calls, "double", &number).unwrap(), number * 2);
        }
    }

    #[test]
    fn failures_keep_their_words() {
        let calls = SocketCalls::new(HashMap::from([("double".to_owned(), vec![served("d")])]));
        let error = ask::<u64>(&calls, "double", &13).unwrap_err().into_error();
        assert!(error.message.contains("no luck"), "{error}");
        let error = ask::<u64>(&calls, "double", &"x").unwrap_err().into_error();
        assert_eq!(error.code, ErrorCode::InvalidRequest);
        assert!(ask::<u64>(&calls, "triple", &1).is_err());
    }
}
