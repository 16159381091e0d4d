//! Path patterns of grants: `*` stands for any text, `/` included.

/// A pattern over whole paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(Vec<String>);

impl Pattern {
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.split('*').map(str::to_owned).collect())
    }

    /// Whether the whole path fits.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        let Some((first, rest)) = self.0.split_first() else { return false };
        let Some(mut path) = path.strip_prefix(first.as_str()) else { return false };
        let Some((last, middle)) = rest.split_last() else { return path.is_empty() };
        for part in middle {
            let Some(at) = path.find(part.as_str()) else { return false };
            path = &path[at + part.len()..];
        }
        path.ends_with(last.as_str())
    }
}

impl std::fmt::Display for Pattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.join("*"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_any_text_and_all_else_is_itself() {
        let check = |pattern: &str, path: &str, fits: bool| {
            assert_eq!(Pattern::new(pattern).matches(path), fits, "{pattern} {path}");
        };
        check("/a", "/a", true);
        check("/a", "/ab", false);
        check("/a/*", "/a/b/c", true);
        check("/a/*", "/b", false);
        check("/a/*/c", "/a/b/c", true);
        check("/a/*/c", "/a/b/d", false);
        check("*", "/anything", true);
        check("/a*a", "/a", false);
    }
}
