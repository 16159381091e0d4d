//! One worker thread's instances.

use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::Arc;

use super::decision::{self, Decision, RequestHead};
use super::instance::RoutingInstance;
use super::table::{RoutingTable, Version};
use crate::error::{CallCause, RouteError};

/// Asks adapters, on the thread that made it: a warm instance for each adapter.
pub struct Router {
    table: Arc<RoutingTable>,
    /// Of the table, when `warm` was last compared with it.
    generation: u64,
    /// A list: adapters are few, and comparing a name costs less than hashing it.
    warm: Vec<Warm>,
    /// Instances are this thread's.
    _not_send: PhantomData<Rc<()>>,
}

struct Warm {
    adapter: Box<str>,
    version: Arc<Version>,
    /// None: the last one fell.
    instance: Option<RoutingInstance>,
}

impl std::fmt::Debug for Router {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Router").field("warm", &self.warm()).finish_non_exhaustive()
    }
}

impl Router {
    #[must_use]
    pub fn new(table: Arc<RoutingTable>) -> Self {
        Self { table, generation: 0, warm: Vec::new(), _not_send: PhantomData }
    }

    /// What becomes of a request. Blocks the thread for as long as the adapter computes: some microseconds
    /// as a rule, twice [`RoutingLimits::computing`](crate::RoutingLimits::computing) at worst.
    ///
    /// # Errors
    /// See [`RouteError`]. Nothing of it stays: the next request finds another instance.
    pub fn route(&mut self, adapter: &str, head: &RequestHead<'_>) -> Result<Decision, RouteError> {
        if self.generation != self.table.generation() {
            self.follow();
        }
        let Self { table, warm, .. } = self;
        let Some(Warm { version, instance, .. }) = find(table, warm, adapter) else {
            return Err(RouteError::Unknown { adapter: adapter.to_owned() });
        };
        if !version.is_asked() {
            return Err(RouteError::Off { adapter: adapter.to_owned() });
        }
        let component = &version.component;
        let limits = component.limits();
        let bytes = head.bytes();
        if bytes > limits.head_bytes {
            return Err(RouteError::Head { bytes, limit: limits.head_bytes });
        }
        let mut ask = || {
            let present = match instance {
                Some(present) => present,
                None => instance.insert(component.instantiate()?),
            };
            // Where it fails, the instance goes.
            component.call(present, head).inspect_err(|_| *instance = None)
        };
        let answer = ask().or_else(|first| {
            tracing::debug!(adapter, cause = ?first, "asked once more, on a fresh instance");
            ask()
        });
        let wrong = |cause: CallCause| RouteError::Answer(component.error(cause));
        match answer {
            Ok(raw) => {
                table.decided(adapter, version);
                decision::decision(raw, limits).map_err(|problem| wrong(CallCause::Answer(problem)))
            }
            // Too large an answer: as wrong as any other one.
            Err(cause @ CallCause::Answer(_)) => Err(wrong(cause)),
            Err(cause) => {
                let error = component.error(cause);
                table.failed(adapter, version, &error);
                Err(RouteError::Failed(error))
            }
        }
    }

    /// How many instances are kept warm.
    #[must_use]
    pub fn warm(&self) -> usize {
        self.warm.iter().filter(|warm| warm.instance.is_some()).count()
    }

    /// Lets go of what is no longer the present version.
    fn follow(&mut self) {
        // Before the look, so that a change in between is seen the next time.
        self.generation = self.table.generation();
        let table = &self.table;
        self.warm.retain(|warm| {
            table.version(&warm.adapter).is_some_and(|present| Arc::ptr_eq(&present, &warm.version))
        });
    }
}

fn find<'w>(table: &RoutingTable, warm: &'w mut Vec<Warm>, adapter: &str) -> Option<&'w mut Warm> {
    let known = warm.iter().position(|warm| *warm.adapter == *adapter);
    let at = match known {
        Some(at) => at,
        None => {
            let version = table.version(adapter)?;
            warm.push(Warm { adapter: adapter.into(), version, instance: None });
            warm.len() - 1
        }
    };
    warm.get_mut(at)
}
