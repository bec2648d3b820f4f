//! `blob::put_stream` and `blob::get_stream`: blobs that are too long for one message, piece by piece. A stream that ends early
//! leaves nothing. It must not know where files lie.

use ringway::{Encoding, Failure, Function, HandlerResult, Message, StreamReader, StreamWriter};
use ringway_store::{BlobError, Store};

use crate::functions::{Lent, Put, blobs, check_length, failure, hold, holder_of, id_in};

pub(crate) fn all(lent: &Lent, bytes_max: u64) -> Vec<Function> {
    let (of_put, of_get) = (lent.clone(), lent.clone());
    let put = Function::stream("blob::put_stream", move |context, _, input, _| {
        let holder = holder_of(context)?;
        Message::json(&put(&*of_put.take()?, &input, &holder, bytes_max)?)
    });
    let get = Function::stream("blob::get_stream", move |_, request, _, output| {
        get(&*of_get.take()?, &request, &output)?;
        Ok(Message::empty())
    });
    vec![
        put.description("keeps the items of a stream as one blob, until its holder deletes it"),
        get.description("the bytes of a blob in pieces; they are checked at the end"),
    ]
}

fn put(store: &dyn Store, input: &StreamReader, holder: &[u8], bytes_max: u64) -> HandlerResult<Put> {
    let mut writer = blobs(store)?.writer().map_err(|error| failure(&error))?;
    let mut length = 0;
    while let Some(item) = input.recv()? {
        length += item.body().len() as u64;
        check_length(length, bytes_max)?;
        writer.write(item.body()).map_err(|error| failure(&error))?;
    }
    let pin = writer.finish().map_err(|error| failure(&error))?;
    hold(store, pin, holder)
}

/// Why a stream of pieces ended early.
enum Stopped {
    Blob(BlobError),
    Peer(Failure),
}

impl From<BlobError> for Stopped {
    fn from(error: BlobError) -> Self {
        Self::Blob(error)
    }
}

fn get(store: &dyn Store, request: &Message, output: &StreamWriter) -> HandlerResult<()> {
    let id = id_in(request.body())?;
    let sent = blobs(store)?.read_pieces(&id, |piece| {
        let message = Message::new(Encoding::Bytes, piece);
        output.send(message).map_err(|error| Stopped::Peer(error.into()))
    });
    sent.map_err(|stopped| match stopped {
        Stopped::Blob(error) => failure(&error),
        Stopped::Peer(failure) => failure,
    })
}
