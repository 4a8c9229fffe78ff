//! Time ranges of sessions: `--from` and `--to`.

use arrow::{array::AsArray as _, datatypes::Int64Type};
use datafusion::prelude::SessionContext;
use hud_common::session::Table;
pub use hud_functions::Moment;
use jiff::Timestamp;

use crate::{
    error::{Error, Result},
    human,
    query::{opened::OpenSessions, session::Session},
};

/// A time range, in nanoseconds since the epoch: `from` inclusive, `to` exclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Start, inclusive.
    pub from: i64,
    /// End, exclusive.
    pub to: i64,
}

impl Window {
    /// The time range of all sessions, which contains every row.
    pub(crate) async fn of_all(opened: &OpenSessions) -> Result<Self> {
        let mut whole: Option<Window> = None;
        for each in opened.each() {
            let (session, context) = each?;
            let window = Self::of(session, context).await.map_err(|error| opened.explain(error))?;
            whole = Some(whole.map_or(window, |w| Window { from: w.from.min(window.from), to: w.to.max(window.to) }));
        }
        Ok(whole.unwrap_or(Window { from: 0, to: 1 }))
    }

    /// The time range of a session, which contains every row.
    pub(crate) async fn of(session: &Session, context: &SessionContext) -> Result<Self> {
        let manifest = session.manifest();
        let keys = |table| -> Result<_> {
            let keys = session.table(table).map(|segments| segments.keys()).transpose();
            Ok(keys.map_err(|error| Error::from(&*error))?.flatten())
        };
        let (mut first, mut last): (Option<i64>, Option<i64>) = (None, None);
        for table in [Table::Polls, Table::OffCpu, Table::Samples, Table::Tasks, Table::InProgress, Table::TaskStates] {
            if let Some((least, greatest)) = keys(table)? {
                first = Some(first.map_or(least, |first| first.min(least)));
                last = last.max(Some(greatest));
            }
        }
        // The recorder was killed, or still records.
        if manifest.end.is_none() {
            for table in [Table::Polls, Table::OffCpu] {
                last = last.max(last_end(context, table).await?);
            }
        }
        // The oldest rows may have expired.
        let start = manifest.range.map_or(manifest.start, |range| range.from.max(manifest.start));
        let from = first.map_or(start, |first| first.min(start));
        let past_last = last.map_or(from, |last| last.saturating_add(1));
        let to = manifest.end.map_or(past_last, |end| end.max(past_last));
        Ok(Window { from, to: to.max(from.saturating_add(1)) })
    }

    /// The part of `whole` between two times, of sessions that started at `start`.
    pub fn part(whole: Window, start: i64, from: Option<Moment>, to: Option<Moment>) -> Result<Self> {
        let at = |moment: Moment| whole.at(start, moment);
        let part = Window { from: from.map_or(whole.from, at), to: to.map_or(whole.to, at) };
        if part.from >= part.to {
            return Err(Error::Usage {
                message: format!("--from ({}) is not before --to ({})", spell(part.from), spell(part.to)),
                hint: format!("the session is from {} to {}", spell(whole.from), spell(whole.to)),
            });
        }
        if part.from >= whole.to || part.to <= whole.from {
            return Err(Error::Usage {
                message: format!("{} to {} is outside the session", spell(part.from), spell(part.to)),
                hint: format!("it is from {} to {}", spell(whole.from), spell(whole.to)),
            });
        }
        Ok(part)
    }

    /// Duration (ns).
    pub fn dur(self) -> i64 {
        self.to.saturating_sub(self.from)
    }

    /// The epoch time of a moment, in a session that started at `start`.
    pub fn at(self, start: i64, moment: Moment) -> i64 {
        match moment {
            // A time of day refers to the rows that have not expired.
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
