//! Maps that are read without a lock by every worker and changed a piece at a time.
//!
//! A map is cut into shards by hash; each shard is an immutable snapshot behind an [`ArcSwap`]. A reader
//! loads one shard and looks up; a writer copies one shard, changes the copy and puts it in place. So with
//! a million entries a change copies about a thousand of them, and a look-up never waits.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::Arc;

use arc_swap::ArcSwap;

/// Enough that one shard of a million entries is copied in some microseconds.
const SHARDS: usize = 1024;

/// A set of things that bear their own key ([`Borrow`], with the same hash as [`Borrow`] asks), such as
/// `Arc`s of entries: the key is stored once.
pub(crate) struct Sharded<T> {
    shards: Box<[ArcSwap<HashSet<T, RandomState>>]>,
    /// One state for all shards, so that a bulk load can hash once.
    hasher: RandomState,
}

impl<T: Clone + Eq + Hash> Sharded<T> {
    pub(crate) fn new() -> Self {
        let hasher = RandomState::new();
        let empty = Arc::new(HashSet::with_hasher(hasher.clone()));
        Self { shards: (0..SHARDS).map(|_| ArcSwap::new(Arc::clone(&empty))).collect(), hasher }
    }

    fn shard<Q: Hash + ?Sized>(&self, key: &Q) -> usize {
        // The upper half: the lower bits choose the bucket inside the shard.
        (self.hasher.hash_one(key) >> 32) as usize % SHARDS
    }

    pub(crate) fn get<Q>(&self, key: &Q) -> Option<T>
    where
        T: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.shards[self.shard(key)].load().get(key).cloned()
    }

    /// Puts it in, in the place of one with the same key. Writers take turns (the caller holds a lock).
    pub(crate) fn put(&self, item: T) {
        let shard = &self.shards[self.shard(&item)];
        let mut next = HashSet::clone(&shard.load());
        next.replace(item);
        shard.store(Arc::new(next));
    }

    /// Takes it out. Writers take turns.
    pub(crate) fn take<Q>(&self, key: &Q) -> Option<T>
    where
        T: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let shard = &self.shards[self.shard(key)];
        let mut next = HashSet::clone(&shard.load());
        let taken = next.take(key)?;
        next.shrink_to_fit();
        shard.store(Arc::new(next));
        Some(taken)
    }

    /// Makes these the whole content, a shard at a time. Writers take turns.
    pub(crate) fn replace_all(&self, items: impl IntoIterator<Item = T>) {
        let mut next: Vec<Option<HashSet<T, RandomState>>> = (0..SHARDS).map(|_| None).collect();
        for item in items {
            next[self.shard(&item)]
                .get_or_insert_with(|| HashSet::with_hasher(self.hasher.clone()))
                .replace(item);
        }
        for (shard, next) in self.shards.iter().zip(next) {
            match next {
                Some(mut next) => {
                    next.shrink_to_fit();
                    shard.store(Arc::new(next));
                }
                None if shard.load().is_empty() => {}
                None => shard.store(Arc::new(HashSet::with_hasher(self.hasher.clone()))),
            }
        }
    }

    /// Everything in it, shard by shard: not one moment's picture.
    pub(crate) fn for_each(&self, mut f: impl FnMut(&T)) {
        for shard in &self.shards {
            shard.load().iter().for_each(&mut f);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.load().len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_is_found_replaced_and_taken() {
        #[derive(Clone, Debug)]
        struct Entry(&'static str, u32);
        impl PartialEq for Entry {
            fn eq(&self, other: &Self) -> bool {
                self.0 == other.0
            }
        }
        impl Eq for Entry {}
        impl Hash for Entry {
            fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
                self.0.hash(state);
            }
        }
        impl Borrow<str> for Entry {
            fn borrow(&self) -> &str {
                self.0
            }
        }
        let table = Sharded::new();
        table.put(Entry("a", 1));
        table.put(Entry("b", 2));
        table.put(Entry("a", 3));
        assert_eq!(table.get("a").unwrap().1, 3);
        assert_eq!(table.len(), 2);
        assert_eq!(table.take("a").unwrap().1, 3);
        assert!(table.get("a").is_none() && table.take("a").is_none());
        table.replace_all([Entry("c", 4), Entry("d", 5)]);
        assert!(table.get("b").is_none());
        assert_eq!(table.get("d").unwrap().1, 5);
    }
}
