//! How often to look, and how long to pause.

/// Intervals, in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Between two looks at a running deployment.
    pub inspect_every_ms: u64,
    /// Between two health checks of a healthy one.
    pub health_every_ms: u64,
    /// Between two health checks of one that is not (yet) healthy.
    pub health_retry_ms: u64,
    /// Before the first new incarnation of what failed; each following pause is twice as long.
    pub first_backoff_ms: u64,
    /// The longest such pause.
    pub max_backoff_ms: u64,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            inspect_every_ms: 5_000,
            health_every_ms: 10_000,
            health_retry_ms: 500,
            first_backoff_ms: 1_000,
            max_backoff_ms: 300_000,
        }
    }
}

impl Policy {
    /// The pause after so many failures in a row.
    #[must_use]
    pub fn backoff_ms(&self, failures: u32) -> u64 {
        match failures {
            0 => 0,
            n => self.first_backoff_ms.saturating_mul(1_u64 << (n - 1).min(30)).min(self.max_backoff_ms),
        }
    }
}
