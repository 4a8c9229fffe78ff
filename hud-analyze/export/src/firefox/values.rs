//! Values of the format: categories, times and texts.

use crate::names::Origin;

/// Origin of the code; the number is the category's index in the file.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub(super) enum Category {
    Other,
    Own,
    Dependency,
    Tokio,
    Std,
    Libc,
    Kernel,
    System,
}

impl Category {
    pub(super) const ALL: [(&'static str, &'static str); 8] = [
        ("Other", "grey"),
        ("Own code", "yellow"),
        ("Dependency", "lightblue"),
        ("Tokio", "purple"),
        ("Rust std", "green"),
        ("libc", "brown"),
        ("Kernel", "orange"),
        ("System library", "darkgray"),
    ];

    pub(super) fn of(origin: Origin) -> Self {
        match origin {
            Origin::Own => Category::Own,
            Origin::Dependency => Category::Dependency,
            Origin::Tokio => Category::Tokio,
            Origin::Std => Category::Std,
            Origin::Libc => Category::Libc,
            Origin::Kernel => Category::Kernel,
            Origin::System => Category::System,
            Origin::Unknown => Category::Other,
        }
    }
}

/// Milliseconds.
#[expect(clippy::cast_precision_loss, reason = "the format's own unit and type; below 104 days nothing is lost")]
pub(super) fn millis(ns: i64) -> f64 {
    ns as f64 / 1e6
}

/// A string of JSON.
pub(super) fn text(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
