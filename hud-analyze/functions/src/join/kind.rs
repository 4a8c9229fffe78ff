//! The kinds of joins.

/// The kind of join.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    /// The last row that is not later.
    AsOf,
    /// The innermost enclosing interval.
    Within,
}

impl Kind {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Kind::AsOf => "asof",
            Kind::Within => "within",
        }
    }
}
