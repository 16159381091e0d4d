//! Maps that are read without a lock by every worker and changed a piece at a time.
//!
//! A map is cut into shards by hash; each shard is an immutable snapshot behind an [`ArcSwap`]. A reader
//! loads one shard and looks up; a writer copies one shard, changes the copy and puts it in place. So with
//! a million entries a change copies about a thousand of them, and a look-up never waits.
//!
//! A shard has no free places: items stand in the order of their buckets, beside where each bucket starts
//! and a byte of each item's hash. That is about two bytes an item beside the item, however full, and a
//! look-up touches one item, nearly always.

use std::borrow::Borrow;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::Arc;

use arc_swap::ArcSwap;

/// Enough that one shard of a million entries is copied in some microseconds.
const SHARDS: usize = 1 << SHARD_BITS;
const SHARD_BITS: u32 = 10;
/// Items of one bucket, about: their hash's byte is compared before they are.
const BUCKET: usize = 8;

/// A set of things that bear their own key ([`Borrow`], with the same hash as [`Borrow`] asks), such as
/// `Arc`s of entries: the key is stored once.
pub(crate) struct Sharded<T> {
    shards: Box<[ArcSwap<Shard<T>>]>,
    hasher: RandomState,
}

struct Shard<T> {
    /// Where each bucket begins in `items`, and the end.
    starts: Box<[u32]>,
    tags: Box<[u8]>,
    items: Box<[T]>,
}

/// The upper bits choose the shard.
fn shard_of(hash: u64) -> usize {
    (hash >> (64 - SHARD_BITS)) as usize
}

/// The lower half chooses the bucket inside the shard.
fn bucket_of(hash: u64, buckets: usize) -> usize {
    (((hash & 0xffff_ffff) * buckets as u64) >> 32) as usize
}

fn tag_of(hash: u64) -> u8 {
    (hash >> 32) as u8
}

/// Changes with the number of items seldom: then a change of one moves no other into another bucket.
fn buckets_for(items: usize) -> usize {
    (items.next_power_of_two() / BUCKET).max(1)
}

impl<T: Clone + Eq> Shard<T> {
    fn empty() -> Self {
        Self { starts: Box::new([0, 0]), tags: Box::default(), items: Box::default() }
    }

    /// Of equal items the last one stays.
    fn build(mut hashed: Vec<(u64, T)>) -> Self {
        let buckets = buckets_for(hashed.len());
        hashed.sort_by_key(|(hash, _)| bucket_of(*hash, buckets));
        let mut starts = Vec::with_capacity(buckets + 1);
        let mut tags: Vec<u8> = Vec::with_capacity(hashed.len());
        let mut items: Vec<T> = Vec::with_capacity(hashed.len());
        starts.push(0);
        for (hash, item) in hashed {
            let bucket = bucket_of(hash, buckets);
            while starts.len() <= bucket {
                starts.push(place(items.len()));
            }
            let begin = starts[bucket] as usize;
            match items[begin..].iter().position(|there| *there == item) {
                Some(at) => items[begin + at] = item,
                None => {
                    tags.push(tag_of(hash));
                    items.push(item);
                }
            }
        }
        while starts.len() <= buckets {
            starts.push(place(items.len()));
        }
        Self { starts: starts.into(), tags: tags.into(), items: items.into() }
    }

    fn buckets(&self) -> usize {
        self.starts.len() - 1
    }

    fn find<Q>(&self, hash: u64, key: &Q) -> Option<usize>
    where
        T: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        let bucket = bucket_of(hash, self.buckets());
        let tag = tag_of(hash);
        (self.starts[bucket] as usize..self.starts[bucket + 1] as usize)
            .find(|at| self.tags[*at] == tag && self.items[*at].borrow() == key)
    }

    /// A copy with this item in the place of the one found at `at`, or as one more of its bucket.
    fn with(&self, at: Option<usize>, hash: u64, item: T, hash_of: impl Fn(&T) -> u64) -> Self {
        if let Some(at) = at {
            let mut items = self.items.clone();
            items[at] = item;
            return Self { starts: self.starts.clone(), tags: self.tags.clone(), items };
        }
        if buckets_for(self.items.len() + 1) != self.buckets() {
            let all = self.items.iter().cloned().chain([item]);
            return Self::build(all.map(|item| (hash_of(&item), item)).collect());
        }
        let bucket = bucket_of(hash, self.buckets());
        let at = self.starts[bucket + 1] as usize;
        let mut starts = self.starts.clone();
        starts[bucket + 1..].iter_mut().for_each(|start| *start += 1);
        Self {
            starts,
            tags: [&self.tags[..at], &[tag_of(hash)], &self.tags[at..]].concat().into(),
            items: self.items[..at]
                .iter()
                .cloned()
                .chain([item])
                .chain(self.items[at..].iter().cloned())
                .collect(),
        }
    }

    /// A copy without the item at this place.
    fn without(&self, at: usize, hash_of: impl Fn(&T) -> u64) -> Self {
        let rest = self.items[..at].iter().chain(&self.items[at + 1..]).cloned();
        if buckets_for(self.items.len() - 1) != self.buckets() {
            return Self::build(rest.map(|item| (hash_of(&item), item)).collect());
        }
        let mut starts = self.starts.clone();
        starts.iter_mut().filter(|start| **start as usize > at).for_each(|start| *start -= 1);
        Self { starts, tags: [&self.tags[..at], &self.tags[at + 1..]].concat().into(), items: rest.collect() }
    }
}

/// A place in a shard: four thousand million items are more than a shard has.
fn place(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

impl<T: Clone + Eq + Hash> Sharded<T> {
    pub(crate) fn new() -> Self {
        let empty = Arc::new(Shard::empty());
        Self {
            shards: (0..SHARDS).map(|_| ArcSwap::new(Arc::clone(&empty))).collect(),
            hasher: RandomState::new(),
        }
    }

    pub(crate) fn get<Q>(&self, key: &Q) -> Option<T>
    where
        T: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let hash = self.hasher.hash_one(key);
        let shard = self.shards[shard_of(hash)].load();
        shard.find(hash, key).map(|at| shard.items[at].clone())
    }

    /// Puts it in, in the place of one with the same key. Writers take turns (the caller holds a lock).
    pub(crate) fn put(&self, item: T) {
        let hash = self.hasher.hash_one(&item);
        let shard = &self.shards[shard_of(hash)];
        let now = shard.load();
        let at = now.find::<T>(hash, &item);
        let next = now.with(at, hash, item, |item| self.hasher.hash_one(item));
        shard.store(Arc::new(next));
    }

    /// Takes it out. Writers take turns.
    pub(crate) fn take<Q>(&self, key: &Q) -> Option<T>
    where
        T: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let hash = self.hasher.hash_one(key);
        let shard = &self.shards[shard_of(hash)];
        let now = shard.load();
        let at = now.find(hash, key)?;
        let taken = now.items[at].clone();
        shard.store(Arc::new(now.without(at, |item| self.hasher.hash_one(item))));
        Some(taken)
    }

    /// Makes these the whole content, a shard at a time; of equal ones the last. Writers take turns.
    pub(crate) fn replace_all(&self, items: impl IntoIterator<Item = T>) {
        let mut next: Vec<Vec<(u64, T)>> = (0..SHARDS).map(|_| Vec::new()).collect();
        for item in items {
            let hash = self.hasher.hash_one(&item);
            next[shard_of(hash)].push((hash, item));
        }
        let empty = Arc::new(Shard::empty());
        for (shard, next) in self.shards.iter().zip(next) {
            shard.store(if next.is_empty() { Arc::clone(&empty) } else { Arc::new(Shard::build(next)) });
        }
    }

    /// Everything in it, shard by shard: not one moment's picture.
    pub(crate) fn for_each(&self, mut f: impl FnMut(&T)) {
        for shard in &self.shards {
            shard.load().items.iter().for_each(&mut f);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.load().items.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    /// A key and what stands for it.
    #[derive(Clone, Debug)]
    struct Entry(u16, u32);

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
    impl Borrow<u16> for Entry {
        fn borrow(&self) -> &u16 {
            &self.0
        }
    }

    proptest! {
        /// One shard gets what a thousand would, so that buckets split and join.
        #[test]
        fn a_shard_is_a_map(changes in proptest::collection::vec((any::<bool>(), 0_u16..200, any::<u32>()), 0..400)) {
            let hasher = RandomState::new();
            let hash_of = |entry: &Entry| hasher.hash_one(entry.0);
            let mut shard = Shard::<Entry>::empty();
            let mut model = HashMap::new();
            for (puts, key, value) in changes {
                let hash = hasher.hash_one(key);
                let found = shard.find(hash, &key);
                prop_assert_eq!(found.map(|at| shard.items[at].1), model.get(&key).copied());
                if puts {
                    shard = shard.with(found, hash, Entry(key, value), hash_of);
                    model.insert(key, value);
                } else if let Some(at) = found {
                    shard = shard.without(at, hash_of);
                    model.remove(&key);
                }
                prop_assert_eq!(shard.items.len(), model.len());
                prop_assert_eq!(shard.buckets(), buckets_for(model.len()));
            }
            for (key, value) in &model {
                let at = shard.find(hasher.hash_one(key), key).unwrap();
                prop_assert_eq!(shard.items[at].1, *value);
            }
        }

        #[test]
        fn the_last_of_equals_stays(items in proptest::collection::vec((0_u16..40, any::<u32>()), 0..200)) {
            let table = Sharded::new();
            table.put(Entry(1000, 0));
            table.replace_all(items.iter().map(|(key, value)| Entry(*key, *value)));
            let model: HashMap<u16, u32> = items.into_iter().collect();
            prop_assert_eq!(table.len(), model.len());
            for (key, value) in model {
                prop_assert_eq!(table.get(&key).unwrap().1, value);
                table.put(Entry(key, 1));
                prop_assert_eq!(table.take(&key).unwrap().1, 1);
                prop_assert!(table.take(&key).is_none());
            }
            prop_assert_eq!(table.len(), 0);
        }
    }
}
