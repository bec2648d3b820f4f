//! A server that writes down what it is asked and answers as a test says, over plain sockets or TLS.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Seen {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// An answer: status line, headers, body.
pub(crate) struct Answer(pub(crate) String);

impl Answer {
    pub(crate) fn new(status: &str, body: &str) -> Self {
        Self::with(status, "", body)
    }

    /// With headers, each with its line break.
    pub(crate) fn with(status: &str, headers: &str, body: &str) -> Self {
        let length = body.len();
        Self(format!(
            "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n{body}"
        ))
    }
}

/// What a server does with a request, of which it is told the number.
type Serve = dyn Fn(usize, &Seen) -> Answer + Send + Sync;

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<Mutex<usize>>,
}

impl Server {
    pub(crate) fn start(serve: impl Fn(usize, &Seen) -> Answer + Send + Sync + 'static) -> Self {
        Self::start_at("127.0.0.1:0", None, serve)
    }

    pub(crate) fn start_at(
        address: &str,
        tls: Option<Arc<ServerConfig>>,
        serve: impl Fn(usize, &Seen) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let (seen, connections) = (Arc::<Mutex<Vec<Seen>>>::default(), Arc::<Mutex<usize>>::default());
        let (writing, counting, serve) = (Arc::clone(&seen), Arc::clone(&connections), Arc::new(serve));
        // It ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                *counting.lock().unwrap() += 1;
                let (writing, serve, tls) = (Arc::clone(&writing), Arc::clone(&serve), tls.clone());
                std::thread::spawn(move || {
                    // A client that goes away early is none of the server's business.
                    let _ended = match tls {
                        None => answer(stream, &writing, &*serve),
                        Some(config) => {
                            let connection = ServerConnection::new(config).unwrap();
                            answer(StreamOwned::new(connection, stream), &writing, &*serve)
                        }
                    };
                });
            }
        });
        Self { address, seen, connections }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub(crate) fn connections(&self) -> usize {
        *self.connections.lock().unwrap()
    }
}

fn answer(mut stream: impl Read + Write, seen: &Mutex<Vec<Seen>>, serve: &Serve) -> std::io::Result<()> {
    let mut bytes = Vec::new();
    let head = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end;
        }
        let mut chunk = [0; 4096];
        let read = stream.read(&mut chunk)?;
        if read == 0 {
            return Ok(());
        }
        bytes.extend_from_slice(&chunk[..read]);
    };
    let text = String::from_utf8(bytes[..head].to_vec()).unwrap();
    let mut lines = text.split("\r\n");
    let mut first = lines.next().unwrap().split(' ');
    let (method, path) = (first.next().unwrap().to_owned(), first.next().unwrap().to_owned());
    let headers: BTreeMap<String, String> = lines
        .map(|line| line.split_once(':').unwrap())
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let length: usize = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = bytes[head + 4..].to_vec();
    while body.len() < length {
        let mut chunk = [0; 4096];
        let read = stream.read(&mut chunk)?;
        body.extend_from_slice(&chunk[..read]);
    }
    let request = Seen { method, path, headers, body };
    let number = {
        let mut seen = seen.lock().unwrap();
        seen.push(request.clone());
        seen.len()
    };
    let answer = serve(number, &request);
    stream.write_all(answer.0.as_bytes())?;
    stream.flush()
}

/// Whoever connects is told nothing, ever.
pub(crate) fn silent() -> (SocketAddr, Arc<Mutex<Vec<TcpStream>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let held = Arc::<Mutex<Vec<TcpStream>>>::default();
    let holding = Arc::clone(&held);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            holding.lock().unwrap().push(stream.unwrap());
        }
    });
    (address, held)
}
