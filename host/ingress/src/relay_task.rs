//! A connection that is HTTP's no longer.

use std::cell::RefCell;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::activity::Open;
use crate::relay::relay;
use crate::upstream::UpstreamIo;
use crate::watch::Clock;

/// The app's side of a tunnel.
pub(crate) struct Tunnel {
    pub(crate) io: UpstreamIo,
    /// What the app said right behind its 101.
    pub(crate) early: Bytes,
    pub(crate) open: Option<Open>,
}

impl Tunnel {
    /// Runs to the end of both directions. Whoever waits for it may drop it: then both are cut.
    pub(crate) async fn run<C>(mut self, client: &mut C, scratch: &RefCell<Vec<u8>>, clock: &Clock)
    where
        C: AsyncRead + AsyncWrite + Unpin,
    {
        let relayed = relay(client, &mut self.io, &self.early, scratch).await;
        if let Some(open) = &self.open {
            open.touch(clock.unix_ms());
        }
        match relayed {
            Ok((to_client, to_upstream)) => tracing::debug!(to_client, to_upstream, "a tunnel has ended"),
            Err(error) => tracing::debug!(%error, "a tunnel broke off"),
        }
    }
}
