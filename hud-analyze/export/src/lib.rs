//! Exports sessions to the formats of other tools.
//!
//! [`export`] reads the rows of a session through [`Rows`], from any source, and writes one [`Format`]. It depends on
//! no query engine. Names come from an untrusted process: they are sanitized and cut as they are read. Data that a
//! format cannot hold, or that was not observed, is stated in the [`Summary`] and, if the format has a place for it, in
//! the file.

mod awaits;
mod chrome;
mod column;
mod error;
mod events;
mod firefox;
mod folded;
mod names;
mod notes;
mod options;
mod out;
mod perfetto;
mod portable;
mod pprof;
mod rows;
mod session;
mod weigh;

use std::io::Write;

pub use error::{Error, Result};
pub use options::{Format, Kind, Options, Summary};
pub use rows::{EachSegment, Rows};
pub use session::SessionRows;

/// Writes the session that `rows` provides to `out`. `progress` receives the number of rows read and their total.
pub fn export(
    rows: &dyn Rows,
    format: Format,
    options: &Options,
    out: &mut dyn Write,
    progress: &dyn Fn(u64, u64),
) -> Result<Summary> {
    match format {
        Format::Perfetto => perfetto::write(rows, options, out, progress),
        Format::Firefox => firefox::write(rows, options, out, progress),
        Format::Pprof => pprof::write(rows, options, out, progress),
        Format::Folded => folded::write(rows, options, out, progress),
        Format::Svg => folded::draw(rows, options, out, progress),
        Format::Chrome => chrome::write(rows, options, out, progress),
        Format::Zip => portable::write(rows, options, out, progress),
    }
}
