//! The adapters that serve now, by the runtime type that deployments name.

use std::collections::BTreeMap;
use std::sync::Arc;

use adapter_runtime::Adapter;
use arc_swap::ArcSwap;
use grants::Grants;
use model::RuntimeType;

/// One adapter and what it may reach.
pub struct LoadedAdapter {
    pub adapter: Arc<Adapter>,
    pub grants: Grants,
    /// What a deployment gets where nothing is said.
    pub is_default: bool,
}

/// All of them; replaced as a whole.
#[derive(Default)]
pub struct Adapters {
    by_runtime_type: ArcSwap<BTreeMap<RuntimeType, Arc<LoadedAdapter>>>,
}

impl Adapters {
    /// Puts other adapters in place of the present ones. Calls under way end on the old ones.
    pub fn replace(&self, adapters: BTreeMap<RuntimeType, Arc<LoadedAdapter>>) {
        self.by_runtime_type.store(Arc::new(adapters));
    }

    /// The adapter of a runtime type.
    #[must_use]
    pub fn get(&self, runtime_type: &RuntimeType) -> Option<Arc<LoadedAdapter>> {
        self.by_runtime_type.load().get(runtime_type).cloned()
    }

    /// All, in order of name.
    #[must_use]
    pub fn all(&self) -> Arc<BTreeMap<RuntimeType, Arc<LoadedAdapter>>> {
        self.by_runtime_type.load_full()
    }
}
