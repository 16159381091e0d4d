//! Accepting, for ever.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

/// Waits that grow while the process is out of file descriptors or memory.
const FIRST_BACK_OFF: Duration = Duration::from_millis(5);
const LONGEST_BACK_OFF: Duration = Duration::from_secs(1);

/// The next connection. Never fails: a connection that was gone before it was accepted is skipped; running
/// out of file descriptors is logged once and waited out, since connections that end give some back.
///
/// Cancel safe.
pub async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    let mut back_off = FIRST_BACK_OFF;
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // Linux hands the listener's TCP_NODELAY down.
                if !cfg!(target_os = "linux") {
                    let _ = stream.set_nodelay(true);
                }
                return (stream, peer);
            }
            Err(error) if concerns_one_connection(&error) => {}
            Err(error) => {
                if back_off == FIRST_BACK_OFF {
                    tracing::warn!(error = %error, "accepting connections fails: waiting (is the limit of open files too low?)");
                }
                tokio::time::sleep(back_off).await;
                back_off = (back_off * 2).min(LONGEST_BACK_OFF);
            }
        }
    }
}

fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}
