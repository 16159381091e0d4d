//! Cursors: opaque outside, and good for the list that gave them only.

use api_types::{DEFAULT_LIMIT, MAX_LIMIT, Page, code};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::failure::Failure;

/// Which page of which list.
pub(crate) struct Paging<'a> {
    list: &'a str,
    cursor: Option<&'a str>,
    /// Items of a page.
    pub(crate) limit: u32,
}

impl<'a> Paging<'a> {
    /// # Errors
    /// Where the limit is not one.
    pub(crate) fn new(list: &'a str, cursor: Option<&'a str>, limit: Option<u32>) -> Result<Self, Failure> {
        Ok(Self { list, cursor, limit: self::limit(limit)? })
    }

    /// What the cursor says, as the list wrote it.
    ///
    /// # Errors
    /// Where it is no cursor, or another list's.
    pub(crate) fn after<T: std::str::FromStr>(&self) -> Result<Option<T>, Failure> {
        let Some(cursor) = self.cursor else { return Ok(None) };
        let read = || {
            let text = String::from_utf8(URL_SAFE_NO_PAD.decode(cursor).ok()?).ok()?;
            let (list, after) = text.split_once('\n')?;
            if list == self.list { after.parse().ok() } else { None }
        };
        read().map(Some).ok_or_else(|| {
            let detail = format!(
                "{cursor:?} is no cursor of this list: give the `nextCursor` of the page before, unchanged"
            );
            Failure::new(code::INVALID_CURSOR, detail)
        })
    }

    /// The cursor behind this item.
    pub(crate) fn cursor(&self, after: impl std::fmt::Display) -> String {
        URL_SAFE_NO_PAD.encode(format!("{}\n{after}", self.list))
    }

    /// A page of the store's.
    ///
    /// # Errors
    /// See [`after`](Self::after).
    pub(crate) fn request(&self) -> Result<store::PageRequest, Failure> {
        Ok(store::PageRequest { after: self.after()?, limit: self.limit })
    }

    /// A page of a short list that is in memory, in the order of its names.
    ///
    /// # Errors
    /// See [`after`](Self::after).
    pub(crate) fn page<T>(&self, mut items: Vec<T>, name: impl Fn(&T) -> &str) -> Result<Page<T>, Failure> {
        items.sort_by(|a, b| name(a).cmp(name(b)));
        if let Some(after) = self.after::<String>()? {
            items.retain(|item| name(item) > after.as_str());
        }
        let limit = self.limit as usize;
        let more = items.len() > limit;
        items.truncate(limit);
        let next_cursor = items.last().filter(|_| more).map(|last| self.cursor(name(last)));
        Ok(Page { items, next_cursor })
    }
}

/// Items of a page.
///
/// # Errors
/// Where it is not from 1 to [`MAX_LIMIT`].
pub(crate) fn limit(limit: Option<u32>) -> Result<u32, Failure> {
    match limit.unwrap_or(DEFAULT_LIMIT) {
        limit @ 1..=MAX_LIMIT => Ok(limit),
        other => Err(Failure::query("limit", format!("{other} is not from 1 to {MAX_LIMIT}"))),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn pages_of_any_size_give_each_item_once(names in prop::collection::btree_set("[a-z]{1,6}", 0..60), limit in 1_u32..20) {
            let mut read = Vec::new();
            let mut cursor: Option<String> = None;
            loop {
                let paging = Paging::new("names", cursor.as_deref(), Some(limit)).unwrap();
                let page = paging.page(names.iter().cloned().collect(), String::as_str).unwrap();
                prop_assert!(page.items.len() <= limit as usize);
                read.extend(page.items);
                cursor = page.next_cursor;
                if cursor.is_none() { break }
            }
            prop_assert_eq!(read, names.into_iter().collect::<Vec<_>>());
        }

        #[test]
        fn what_is_no_cursor_is_refused(text in "\\PC{0,40}") {
            let paging = Paging::new("names", Some(&text), None).unwrap();
            prop_assert!(paging.after::<String>().is_err());
        }
    }

    #[test]
    fn a_cursor_is_good_for_its_own_list_only() {
        let cursor = Paging::new("adapters", None, None).unwrap().cursor("machine");
        let check = |list| Paging::new(list, Some(&cursor), None).unwrap().after::<String>();
        assert_eq!(check("adapters").unwrap().as_deref(), Some("machine"));
        assert_eq!(check("projects").unwrap_err().code(), code::INVALID_CURSOR);
    }

    #[test]
    fn limits_are_checked() {
        assert_eq!(limit(None).unwrap(), DEFAULT_LIMIT);
        assert!(limit(Some(0)).is_err() && limit(Some(MAX_LIMIT + 1)).is_err());
    }
}
