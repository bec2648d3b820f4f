//! Channels that belong to a call: one end is used here for as long as the call goes on, the other is lent to the client that
//! is called. They are forgotten with the call, whether or not the client took its end, so that calls which need none leave
//! nothing behind. It must not know what is written.

use ringway::ChannelRef;
use uuid::Uuid;

use super::pipe::{Reader, Writer};
use super::{Channels, CreateError, TakeError};

/// How the ids of such channels begin. Whoever comes too late for one can be told so, though nothing is remembered of it.
const PREFIX: &str = "call-";

/// Whether an id is that of a channel which belongs to a call, or did.
pub(super) fn is_lent(id: &str) -> bool {
    id.starts_with(PREFIX)
}

/// A channel of a call. Dropping it forgets the channel.
#[derive(Debug)]
pub(crate) struct Lent {
    channels: Channels,
    /// The end that is lent.
    end: ChannelRef,
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.channels.forget(&self.end.channel_id);
    }
}

impl Lent {
    /// What a payload says of the end that is lent.
    pub(crate) fn end(&self) -> &ChannelRef {
        &self.end
    }
}

impl Channels {
    /// Makes a channel that a client reads and that is written here.
    ///
    /// # Errors
    /// There are too many already.
    pub(crate) fn lend_reader(&self) -> Result<(Lent, Writer), CreateError> {
        let pair = self.make_lent()?;
        let writer = self.own_end(self.take_writer(&pair.writer.channel_id, &pair.writer.access_key))?;
        Ok((Lent { channels: self.clone(), end: pair.reader }, writer))
    }

    /// Makes a channel that a client writes and that is read here.
    ///
    /// # Errors
    /// As [`Channels::lend_reader`].
    pub(crate) fn lend_writer(&self) -> Result<(Lent, Reader), CreateError> {
        let pair = self.make_lent()?;
        let reader = self.own_end(self.take_reader(&pair.reader.channel_id, &pair.reader.access_key))?;
        Ok((Lent { channels: self.clone(), end: pair.writer }, reader))
    }

    fn make_lent(&self) -> Result<ringway::ChannelPair, CreateError> {
        let id = format!("{PREFIX}{}", Uuid::new_v4());
        self.make(id, None, self.shared.limits.messages, false)
    }

    /// Nobody else knows the key yet, so the end is there to be taken.
    fn own_end<E>(&self, taken: Result<E, TakeError>) -> Result<E, CreateError> {
        taken.map_err(|_| CreateError::Full { found: self.counters().open })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::super::{Item, Lost};
    use super::*;

    #[test]
    fn a_lent_channel_goes_with_its_call() {
        let channels = Channels::default();
        let (lent, reader) = channels.lend_writer().unwrap();
        let ChannelRef { channel_id, access_key, .. } = lent.end().clone();
        assert!(is_lent(&channel_id) && channels.contains(&channel_id, &access_key));
        drop((reader, lent));
        assert_eq!((channels.counters().open, channels.counters().denied), (0, 0));
        assert_eq!(channels.take_writer(&channel_id, &access_key).unwrap_err(), TakeError::NotFound);
    }

    #[test]
    fn who_has_a_lent_end_reads_what_is_there() {
        let channels = Channels::default();
        let (lent, writer) = channels.lend_reader().unwrap();
        let ChannelRef { channel_id, access_key, .. } = lent.end().clone();
        let reader = channels.take_reader(&channel_id, &access_key).unwrap();
        assert_eq!(writer.send(Item::Text("a".into())).now_or_never(), Some(Ok(())));
        writer.finish();
        drop(lent);
        assert_eq!(reader.recv().now_or_never(), Some(Ok(Some(Item::Text("a".into())))));
        assert_eq!(reader.recv().now_or_never(), Some(Ok(None)));
        assert_eq!(channels.counters().bytes_waiting, 0);
    }

    #[test]
    fn who_waits_at_a_lent_end_hears_that_the_call_is_over() {
        let channels = Channels::default();
        let (lent, writer) = channels.lend_reader().unwrap();
        let ChannelRef { channel_id, access_key, .. } = lent.end().clone();
        let reader = channels.take_reader(&channel_id, &access_key).unwrap();
        drop((writer, lent));
        assert!(matches!(reader.recv().now_or_never(), Some(Err(Lost::Writer(_)))));
    }

    #[test]
    fn lent_channels_are_not_kept_in_the_order_of_their_age() {
        let channels = Channels::default();
        let (kept, _reader) = channels.lend_writer().unwrap();
        for _ in 0..100 {
            drop(channels.lend_reader().unwrap());
        }
        assert!(channels.shared.state.lock().by_age.is_empty());
        assert!(channels.contains(&kept.end().channel_id, &kept.end().access_key));
    }
}
