//! What a channel promises, through a link over a real NATS server: the tests of links themselves, with pipes for sockets.

#[path = "../../../../ipc/link/tests/it/bed.rs"]
mod bed;
#[path = "../../../../ipc/link/tests/it/conformance.rs"]
mod conformance;
#[expect(dead_code, reason = "tests of what is no link's have more to say")]
#[path = "../../../../ipc/link/tests/it/raw.rs"]
mod raw;

/// Pairs of sockets, with a NATS server of its own between the two of each.
mod sockets {
    use std::os::unix::net::UnixStream;

    use async_nats::{Client, Message};
    use bytes::Bytes;
    use futures_lite::StreamExt as _;
    use ringway_store_nats::testing::Server;
    use tokio::runtime::{Builder, Runtime};

    use crate::limits::CHUNK_BYTES;
    use crate::pipe::carry;

    /// What is between the two ends; they hang up when it is dropped.
    pub(super) struct Between {
        // In this order: whoever carries is gone before the server is. What was published goes while there is a client.
        _clients: [Client; 2],
        _carriers: Runtime,
        _server: Server,
    }

    pub(super) fn pair() -> (UnixStream, UnixStream, Between) {
        let server = Server::with("", "off");
        let carriers = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (near, near_client) = end(&carriers, &server, "near", "far");
        let (far, far_client) = end(&carriers, &server, "far", "near");
        (near, far, Between { _clients: [near_client, far_client], _carriers: carriers, _server: server })
    }

    fn end(
        carriers: &Runtime,
        server: &Server,
        own: &'static str,
        other: &'static str,
    ) -> (UnixStream, Client) {
        let (theirs, ours) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let client = carriers.block_on(async_nats::connect(server.url())).unwrap();
        let mut from = carriers.block_on(client.subscribe(own)).unwrap();
        // What comes back says that the server has the subscription, before the other end publishes there.
        carriers.block_on(client.publish(own, Bytes::new())).unwrap();
        let _back: Option<Message> = carriers.block_on(from.next());
        let carrier = client.clone();
        carriers.spawn(async move {
            let ours = tokio::net::UnixStream::from_std(ours).unwrap();
            carry(ours, &carrier, other, from, CHUNK_BYTES).await
        });
        (theirs, client)
    }
}
