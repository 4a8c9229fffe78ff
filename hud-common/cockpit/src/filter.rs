//! The filter of lists: text that names contain, or `!text` that they do not.

/// A filter of rows by their names, ignoring case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Filter {
    text: String,
    is_negated: bool,
}

impl Filter {
    /// As typed: `text`, or `!text`. A text without a character besides `!` lets everything pass.
    pub(crate) fn of(typed: &str) -> Self {
        let (text, is_negated) = typed.strip_prefix('!').map_or((typed, false), |text| (text, true));
        Filter { text: text.to_lowercase(), is_negated }
    }

    /// Whether every row passes.
    pub(crate) fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Whether a row with these names passes: one of them contains the text; none of them, if it is negated.
    pub(crate) fn passes<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> bool {
        self.is_empty() || names.into_iter().any(|name| name.to_lowercase().contains(&self.text)) != self.is_negated
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_names_that_contain_the_text() {
        let filter = Filter::of("Pool");
        assert!(filter.passes(["app::db::pool::get", "src/x.rs"]) && !filter.passes(["app::serve"]));
        assert!(filter.passes(["app::serve", "src/pool.rs"]));
        assert!(!filter.passes([]));
    }

    #[test]
    fn drops_names_that_contain_a_negated_text() {
        let filter = Filter::of("!pool");
        assert!(!filter.passes(["app::db::Pool::get", "src/x.rs"]) && filter.passes(["app::serve"]));
        assert!(!filter.passes(["app::serve", "src/pool.rs"]));
        assert!(filter.passes([]));
    }

    #[test]
    fn without_a_text_keeps_all() {
        for typed in ["", "!"] {
            assert!(Filter::of(typed).passes(["a"]) && Filter::of(typed).passes([]), "{typed}");
        }
    }
}
