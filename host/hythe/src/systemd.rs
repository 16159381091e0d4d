//! Word to the service manager, where one asks for it (`NOTIFY_SOCKET`, sd_notify(3)).

pub use sd_notify::NotifyState;

/// Tells it. Without one nothing happens; that it could not be told is logged.
pub fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager could not be told (NOTIFY_SOCKET)");
    }
}
