//! Cursor pagination: newest first, stable while rows are added.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

/// The most items that one page gives.
pub const MAX_PAGE: u32 = 200;

/// Where a page ended. Opaque to clients: give back what `next` said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor(pub(crate) Uuid);

/// A text that is no cursor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a cursor: give the `next` of the page before, unchanged")]
pub struct CursorError(String);

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.simple().fmt(f)
    }
}

impl FromStr for Cursor {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        match Uuid::try_parse(text) {
            Ok(uuid) if text.len() == 32 => Ok(Self(uuid)),
            _ => Err(CursorError(text.to_owned())),
        }
    }
}

/// Which page to give.
#[derive(Debug, Clone, Copy)]
pub struct PageRequest {
    /// None: from the newest on.
    pub after: Option<Cursor>,
    /// 1 to [`MAX_PAGE`]; brought into these bounds.
    pub limit: u32,
}

impl Default for PageRequest {
    fn default() -> Self {
        Self { after: None, limit: 50 }
    }
}

impl PageRequest {
    /// As many as one page can hold, from the newest on.
    #[must_use]
    pub fn largest() -> Self {
        Self { after: None, limit: MAX_PAGE }
    }

    fn limit(self) -> usize {
        self.limit.clamp(1, MAX_PAGE) as usize
    }

    /// One more than the page holds, to learn whether there is another.
    pub(crate) fn probe(self) -> i64 {
        self.limit() as i64 + 1
    }

    pub(crate) fn page<T>(self, mut items: Vec<T>, id: impl Fn(&T) -> Uuid) -> Page<T> {
        let more = items.len() > self.limit();
        items.truncate(self.limit());
        let next = if more { items.last().map(|item| Cursor(id(item))) } else { None };
        Page { items, next }
    }
}

/// A page of a list, newest first.
#[derive(Debug, Clone)]
pub struct Page<T> {
    pub items: Vec<T>,
    /// None: this was the last.
    pub next: Option<Cursor>,
}
