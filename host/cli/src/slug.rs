//! A project's name out of a folder's.

use model::Slug;

/// The nearest valid slug, where anything of the name can stand in one. Never used for what a user
/// typed as a name: only for what was never meant as one.
#[must_use]
pub fn from_folder_name(name: &str) -> Option<Slug> {
    let mut slug = String::new();
    for c in name.chars() {
        let c = c.to_ascii_lowercase();
        if c.is_ascii_alphanumeric() {
            slug.push(c);
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
    }
    let slug = slug.trim_start_matches(|c: char| !c.is_ascii_lowercase());
    let cut: String = slug.chars().take(50).collect();
    let cut = cut.trim_end_matches('-');
    match cut.parse() {
        Ok(slug) => Some(slug),
        // Reserved, or with the prefix of a deployment's host.
        Err(_) if !cut.is_empty() => format!("app-{cut}").parse().ok(),
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(folder: &str, expected: Option<&str>) {
        assert_eq!(from_folder_name(folder).as_ref().map(Slug::as_str), expected, "{folder}");
    }

    #[test]
    fn a_folders_name_becomes_a_slug() {
        check("shop", Some("shop"));
        check("My Shop", Some("my-shop"));
        check("my__shop--2.0_", Some("my-shop-2-0"));
        check("2024-blog", Some("blog"));
        check("dep-tool", Some("app-dep-tool"));
        check("machines", Some("app-machines"));
        check("Übung", Some("bung"));
        check("日本", None);
        check("42", None);
        check(&"a".repeat(60), Some(&"a".repeat(50)));
    }
}
