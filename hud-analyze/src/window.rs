//! The part of a session that a question is about: `--from` and `--to`.

use arrow::{array::AsArray as _, datatypes::Int64Type};
use datafusion::prelude::SessionContext;
use hud_common::session::Table;
pub use hud_functions::Moment;
use jiff::Timestamp;

use crate::{
    catalog::{Catalog, Opened, Session},
    error::{Error, Result},
    human,
};

/// A stretch of time, in nanoseconds since the epoch: from `from` on, and before `to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Its first moment.
    pub from: i64,
    /// The first moment past it.
    pub to: i64,
}

impl Window {
    /// All of the sessions: from the first start to the last end, and no row outside.
    pub async fn whole(catalog: &Catalog) -> Result<Self> {
        Self::of_all(catalog.opened()).await
    }

    pub(crate) async fn of_all(opened: &Opened) -> Result<Self> {
        let mut whole: Option<Window> = None;
        for each in opened.each() {
            let (session, context) = each?;
            let window = Self::of(session, context).await.map_err(|error| opened.explain(error))?;
            whole = Some(whole.map_or(window, |w| Window { from: w.from.min(window.from), to: w.to.max(window.to) }));
        }
        Ok(whole.unwrap_or(Window { from: 0, to: 1 }))
    }

    /// The whole session: from its start to its end, and no row outside.
    pub(crate) async fn of(session: &Session, context: &SessionContext) -> Result<Self> {
        let manifest = session.manifest();
        let keys = |table| -> Result<_> {
            let keys = session.source(table).map(|source| source.keys()).transpose();
            Ok(keys.map_err(|error| Error::from(&*error))?.flatten())
        };
        let (mut first, mut last): (Option<i64>, Option<i64>) = (None, None);
        for table in [Table::Polls, Table::OffCpu, Table::Samples, Table::Tasks] {
            if let Some((least, greatest)) = keys(table)? {
                first = Some(first.map_or(least, |first| first.min(least)));
                last = last.max(Some(greatest));
            }
        }
        // The recorder did not live to say when it ended, or goes on.
        if manifest.end.is_none() {
            for table in [Table::Polls, Table::OffCpu] {
                last = last.max(last_end(context, table).await?);
            }
        }
        // Of a session whose oldest rows have expired, what is left.
        let start = manifest.range.map_or(manifest.start, |range| range.from.max(manifest.start));
        let from = first.map_or(start, |first| first.min(start));
        let past_last = last.map_or(from, |last| last.saturating_add(1));
        let to = manifest.end.map_or(past_last, |end| end.max(past_last));
        Ok(Window { from, to: to.max(from.saturating_add(1)) })
    }

    /// The part of `whole` between two moments.
    pub fn part(whole: Window, start: i64, from: Option<Moment>, to: Option<Moment>) -> Result<Self> {
        let at = |moment: Moment| whole.at(start, moment);
        let part = Window { from: from.map_or(whole.from, at), to: to.map_or(whole.to, at) };
        if part.from >= part.to {
            return Err(Error::Usage {
                message: format!("--from ({}) is not before --to ({})", spell(part.from), spell(part.to)),
                hint: format!("the session goes from {} to {}", spell(whole.from), spell(whole.to)),
            });
        }
        if part.from >= whole.to || part.to <= whole.from {
            return Err(Error::Usage {
                message: format!("{} to {} is outside the session", spell(part.from), spell(part.to)),
                hint: format!("it goes from {} to {}", spell(whole.from), spell(whole.to)),
            });
        }
        Ok(part)
    }

    /// Its length (ns).
    pub fn dur(self) -> i64 {
        self.to.saturating_sub(self.from)
    }

    /// A moment in it, of a session that began at `start`.
    pub fn at(self, start: i64, moment: Moment) -> i64 {
        match moment {
            // Of a session whose first days have expired, a time of day is one of what is left.
            Moment::TimeOfDay(_) => moment.within(self.from, self.to),
            other => other.within(start, self.to),
        }
    }
}

async fn last_end(context: &SessionContext, table: Table) -> Result<Option<i64>> {
    let rows = context.sql(&format!("SELECT max(ts + dur) FROM {}", table.name())).await?.collect().await?;
    let ends = rows.iter().filter_map(|batch| batch.column(0).as_primitive_opt::<Int64Type>());
    Ok(ends.flat_map(|column| column.iter().flatten()).max())
}

fn spell(epoch_ns: i64) -> String {
    match Timestamp::from_nanosecond(i128::from(epoch_ns)) {
        Ok(at) => at.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string(),
        Err(_) => human::nanos(epoch_ns),
    }
}
