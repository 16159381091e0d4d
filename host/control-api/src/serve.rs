//! Serving the API on a listener.

use std::io;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::api::ControlApi;

impl ControlApi {
    /// Serves until `stop`, then lets open requests come to their end.
    ///
    /// # Errors
    /// Where the listener fails.
    pub async fn serve(self, listener: TcpListener, stop: CancellationToken) -> io::Result<()> {
        axum::serve(listener, self.router()).with_graceful_shutdown(stop.cancelled_owned()).await
    }
}
