//! `verify`: checks that a session is complete.
//!
//! Each segment is read once, a batch at a time, and tables of names before tables that refer to them: only the ids of names are
//! held in memory. The checks: all checksums match; rows are sorted; segments are numbered without a gap; every id has its row;
//! and each event that was produced is stored, counted as dropped, or has expired.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    path::{Path, PathBuf},
};

use arrow::array::RecordBatch;
use clap::Args;
use hud_common::session::{
    self, Manifest, REFERENCES, Reference, SessionDir, StreamAccount, Table, integers, scan_verified, texts,
};
use hud_upkeep::Ids;
use serde_json::{Value, json};

use crate::{
    commands::args::{ReportFormat, Sessions},
    error::{Error, Result},
    human::{self, many},
    output::stdout::Stdout,
    progress::Progress,
    source::{
        location::{self, Found},
        recovery::{State, open_state, recovery_in_words},
        snapshot::{self, Segment},
    },
};

/// Number of attempts at a session that is being recorded before a failed check is reported: its recorder may seal a log between
/// two reads.
const TRIES: usize = 3;
/// Maximum number of faults that are listed for each check.
const MOST_FAULTS: usize = 5;

/// Check that sessions are complete: checksums, sort order, references, and that every event is accounted for
#[derive(Args, Debug)]
#[command(after_help = "\
A session whose recorder was killed is recovered first, and its losses are listed. Of a session that is being recorded, what
has been written so far is checked.

Examples:
  hud-analyze verify SESSION
  hud-analyze verify ROOT/host=*/session=*
  hud-analyze verify SESSION --format json | jq '.[0].checks'

Exit codes: 0 all checks passed, 1 a check failed, 2 invalid arguments.")]
pub(crate) struct VerifyArgs {
    #[command(flatten)]
    sessions: Sessions,
    /// Output format
    #[arg(long, value_enum, default_value = "table")]
    format: ReportFormat,
}

pub(crate) fn run(args: &VerifyArgs, out: &mut Stdout) -> Result<()> {
    let mut reports = Vec::new();
    for path in &args.sessions.sessions {
        match location::find(path) {
            Ok(found) => reports.extend(found.into_iter().map(|found| {
                let path = found.dir.path().to_path_buf();
                verify_found(found).unwrap_or_else(|error| Report::unopened(&path, &error))
            })),
            Err(error) => reports.push(Report::unopened(path, &error)),
        }
    }
    let print = |out: &mut Stdout| match args.format {
        ReportFormat::Json => writeln!(out, "{:#}", Value::from_iter(reports.iter().map(Report::json))),
        ReportFormat::Table => reports.iter().try_for_each(|report| report.print(out)),
    };
    print(out).and_then(|()| out.flush()).map_err(Error::io("write the result"))?;
    match reports.iter().find_map(|report| Some((report, report.first_fault()?))) {
        Some((report, why)) => Err(Error::Unproven { session: report.session.clone(), why }),
        None => Ok(()),
    }
}

/// Verifies one session; recovers it first if its recorder was killed.
pub fn verify(path: &Path) -> Result<Report> {
    let (dir, manifest) = SessionDir::open(path)?;
    verify_found(Found { dir, manifest })
}

fn verify_found(found: Found) -> Result<Report> {
    let Found { dir, mut manifest } = found;
    let mut notices = Vec::new();
    let state = open_state(&dir, &mut manifest, &mut notices)?;
    let mut tries = 0;
    loop {
        let report = Verifier::new(&dir, &manifest, state).run()?;
        tries += 1;
        if state != State::Recording || report.first_fault().is_none() || tries == TRIES {
            return Ok(report);
        }
        manifest = Manifest::read(dir.path())?;
    }
}

/// The result of the checks.
#[derive(Clone, Debug)]
pub struct Report {
    session: PathBuf,
    id: String,
    /// `None` if it cannot be opened.
    state: Option<State>,
    /// Losses, certain and possible, as text.
    loss: Vec<String>,
    checks: Vec<Check>,
}

/// A group of checks.
#[derive(Clone, Debug)]
struct Check {
    name: &'static str,
    /// The result, if the check passed.
    proven: String,
    /// The first faults.
    faults: Vec<String>,
    /// Number of faults.
    count: usize,
}

impl Check {
    fn new(name: &'static str) -> Self {
        Check { name, proven: String::new(), faults: Vec::new(), count: 0 }
    }

    fn fault(&mut self, why: impl FnOnce() -> String) {
        self.count += 1;
        if self.faults.len() < MOST_FAULTS {
            self.faults.push(why());
        }
    }

    fn holds(&mut self, is_so: bool, why: impl FnOnce() -> String) {
        if !is_so {
            self.fault(why);
        }
    }
}

impl Report {
    fn unopened(path: &Path, error: &Error) -> Self {
        let mut opened = Check::new("manifest");
        opened.fault(|| error.to_string());
        Report { session: path.into(), id: "unknown".into(), state: None, loss: Vec::new(), checks: vec![opened] }
    }

    /// The first fault; `None` if all checks passed.
    pub fn first_fault(&self) -> Option<String> {
        self.checks.iter().find_map(|check| Some(format!("{}: {}", check.name, check.faults.first()?)))
    }

    fn json(&self) -> Value {
        let checks: Vec<_> = self
            .checks
            .iter()
            .map(|c| json!({ "check": c.name, "ok": c.count == 0, "proven": c.proven, "faults": c.faults, "count": c.count }))
            .collect();
        json!({
            "session": self.session.to_string_lossy(),
            "id": self.id,
            "state": self.state.map(State::name),
            "proven": self.first_fault().is_none(),
            "loss": self.loss,
            "checks": checks,
        })
    }

    fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        let state = match self.state {
            Some(State::Complete) => "complete",
            Some(State::Recording) => "being recorded: checked as far as written",
            Some(State::Recovered) => "its recorder was killed; recovered",
            Some(State::Killed) => "its recorder was killed; not recovered",
            None => "cannot be opened",
        };
        writeln!(
            out,
            "{}, id {}: {state}",
            hud_common::clean(&self.session.to_string_lossy()),
            hud_common::clean(&self.id)
        )?;
        for check in &self.checks {
            if check.count == 0 {
                writeln!(out, "  ok      {:<11} {}", check.name, check.proven)?;
            }
            for fault in &check.faults {
                writeln!(out, "  WRONG   {:<11} {}", check.name, hud_common::clean(fault))?;
            }
            if check.count > check.faults.len() {
                writeln!(out, "          {:<11} and {} more", "", check.count - check.faults.len())?;
            }
        }
        for loss in &self.loss {
            writeln!(out, "  loss    {}", hud_common::clean(loss))?;
        }
        Ok(())
    }
}

struct Verifier<'a> {
    dir: &'a SessionDir,
    manifest: &'a Manifest,
    state: State,
    rows: BTreeMap<Table, u64>,
    ids: BTreeMap<Table, Ids>,
    /// Ids whose name is not stored yet.
    unnamed: u64,
    /// The last row of each stream in `accounts`.
    last: BTreeMap<String, StreamAccount>,
    drops: BTreeMap<String, u64>,
    /// Of these, rows that a repair set aside.
    damaged: BTreeMap<String, u64>,
    segments: Check,
    numbering: Check,
    references: Check,
    accounts: Check,
    account: Check,
    progress: Progress,
}

impl<'a> Verifier<'a> {
    fn new(dir: &'a SessionDir, manifest: &'a Manifest, state: State) -> Self {
        Verifier {
            dir,
            manifest,
            state,
            rows: BTreeMap::new(),
            ids: BTreeMap::new(),
            unnamed: 0,
            last: BTreeMap::new(),
            drops: BTreeMap::new(),
            damaged: BTreeMap::new(),
            segments: Check::new("segments"),
            numbering: Check::new("numbering"),
            references: Check::new("references"),
            accounts: Check::new("accounts"),
            account: Check::new("account"),
            progress: Progress::new("segments verified"),
        }
    }

    fn run(mut self) -> Result<Report> {
        let (mut segments, cuts) = snapshot::take(self.dir, self.manifest)?;
        let mut loss: Vec<_> = self.manifest.recovery.iter().map(recovery_in_words).collect();
        for (path, cut) in cuts {
            if self.state != State::Recording || !cut.is_torn {
                self.segments.fault(|| snapshot::loss(&path, &cut));
            }
        }
        self.number(&segments);
        // Tables of names before tables that refer to them.
        let names = [Table::Modules, Table::Frames, Table::Stacks, Table::TaskTypes];
        segments
            .sort_by_key(|s| (!names.contains(&s.table), names.iter().position(|t| *t == s.table), s.table, s.number));
        let (mut bytes, all) = (0, segments.len());
        // `accounts` first: if the session grows meanwhile, all rows that they count are found.
        let (accounts, rest): (Vec<_>, Vec<_>) = segments.iter().partition(|s| s.table == Table::Accounts);
        self.progress.expect(all);
        for segment in accounts.into_iter().chain(rest) {
            self.progress.step();
            bytes += segment.size;
            match self.segment(segment) {
                Ok(()) => {}
                Err(session::Error::Io { source, .. })
                    if source.kind() == io::ErrorKind::NotFound && self.state == State::Recording => {}
                // The message names the file.
                Err(error) => self.segments.fault(|| error.to_string()),
            }
        }
        self.progress.clear();
        self.streams(&mut loss);

        let rows: u64 = self.rows.values().sum();
        self.segments.proven = format!(
            "{} of {} and {} match their checksums, and are sorted",
            many(all as u64, "segment"),
            many(rows, "row"),
            human::bytes(i64::try_from(bytes).unwrap_or(i64::MAX)),
        );
        self.numbering.proven = match self.manifest.first_segment.is_empty() {
            true => "no segment is missing".into(),
            false => "no segment is missing since the oldest that has not expired".into(),
        };
        self.references.proven = match self.unnamed {
            0 => "every id has its row".into(),
            n => format!("{} not named yet", many(n, "id")),
        };
        let mut checks = vec![self.segments, self.numbering, self.references, self.accounts, self.account];
        if self.state == State::Killed {
            let mut recovery = Check::new("recovery");
            recovery.fault(|| "its recorder was killed, and its losses are known only after recovery, which needs permission to write".into());
            checks.push(recovery);
        }
        let (session, id) = (self.dir.path().into(), self.manifest.id.clone());
        Ok(Report { session, id, state: Some(self.state), loss, checks })
    }

    /// Checks that segments are numbered without a gap, from the oldest that has not expired.
    fn number(&mut self, segments: &[Segment]) {
        let none = Vec::new();
        for &table in Table::ALL {
            let empty = self.manifest.recovery.as_ref().and_then(|r| r.empty_segments.get(table.name()));
            let mut next = self.manifest.first_segment(table);
            for segment in segments.iter().filter(|s| s.table == table) {
                while next < segment.number && empty.unwrap_or(&none).contains(&next) {
                    next += 1;
                }
                self.numbering.holds(segment.number == next, || match segment.number - next {
                    0 | 1 => format!("{} has no segment {next:06}", table.name()),
                    _ => format!("{} has no segments {next:06} to {:06}", table.name(), segment.number - 1),
                });
                next = segment.number.saturating_add(1);
                self.numbering.holds(self.state != State::Complete || !segment.is_log(), || {
                    format!("{} was not sealed", segment.path.display())
                });
            }
        }
    }

    /// Checks a segment: all its checksums, and the columns for other checks.
    fn segment(&mut self, segment: &Segment) -> session::Result<()> {
        let table = segment.table;
        if !segment.is_log() {
            segment.open()?.check_all()?;
        }
        let mut columns = vec![table.key()];
        columns.extend(REFERENCES.iter().filter(|r| r.from == table).map(|r| r.column));
        if matches!(table, Table::Accounts | Table::Drops) {
            columns.extend(["stream", "produced", "stored", "dropped", "lost", "stage"]);
        }
        let (mut last, mut rows) = (i64::MIN, 0);
        scan_verified(table, segment.open()?, &columns, |batch| {
            rows += batch.num_rows() as u64;
            let keys = integers(batch, table.key());
            for key in &keys {
                if *key < last {
                    self.segments.fault(|| format!("{} is not sorted by {}", segment.path.display(), table.key()));
                    // One fault per segment is enough.
                    last = i64::MIN;
                }
                last = last.max(*key);
            }
            self.batch(table, batch, &keys);
            Ok(())
        })?;
        self.segments.holds(rows > 0, || format!("{} has no row", segment.path.display()));
        *self.rows.entry(table).or_default() += rows;
        Ok(())
    }

    fn batch(&mut self, table: Table, batch: &RecordBatch, keys: &[i64]) {
        if REFERENCES.iter().any(|r| r.to == table) {
            let ids = self.ids.entry(table).or_default();
            for key in keys {
                self.references.holds(ids.insert(*key), || format!("{} {key} is not unique", table.key()));
            }
        }
        for reference in REFERENCES.iter().filter(|r| r.from == table) {
            self.refers(*reference, batch);
        }
        match table {
            Table::Accounts => self.accounts_rows(batch),
            Table::Drops => {
                let rows = texts(batch, "stream").into_iter().zip(texts(batch, "stage")).zip(integers(batch, "lost"));
                for ((stream, stage), lost) in rows {
                    let lost = u64::try_from(lost).unwrap_or(0);
                    let add = |sums: &mut BTreeMap<String, u64>| {
                        let sum = sums.entry(stream.into()).or_default();
                        *sum = sum.saturating_add(lost);
                    };
                    add(&mut self.drops);
                    if stage == "damaged" {
                        add(&mut self.damaged);
                    }
                }
            }
            _ => {}
        }
    }

    fn refers(&mut self, Reference { from, column, to }: Reference, batch: &RecordBatch) {
        let known = self.ids.entry(to).or_default();
        for id in integers(batch, column) {
            if known.contains(id) {
                continue;
            }
            // Names are written after the events that refer to them.
            if self.state == State::Recording {
                self.unnamed += 1;
            } else {
                self.references.fault(|| {
                    format!("{} {id} of {} has no row in {}", column.trim_end_matches('s'), from.name(), to.name())
                });
            }
        }
    }

    /// Checks that accounts never decrease, and that no more events are counted than were produced.
    fn accounts_rows(&mut self, batch: &RecordBatch) {
        let count = |n: &i64| u64::try_from(*n).unwrap_or(0);
        let [at, produced, stored, dropped] = ["ts", "produced", "stored", "dropped"].map(|c| integers(batch, c));
        let rows = texts(batch, "stream").into_iter().zip(&at).zip(&produced).zip(&stored).zip(&dropped);
        for ((((stream, at), produced), stored), dropped) in rows {
            let row = StreamAccount {
                produced: count(produced),
                stored: count(stored),
                dropped: count(dropped),
                ..StreamAccount::default()
            };
            let last = self.last.entry(stream.into()).or_default();
            let grows = row.produced >= last.produced && row.stored >= last.stored && row.dropped >= last.dropped;
            self.accounts.holds(grows, || format!("the account of {stream} decreases at {at}"));
            self.accounts.holds(row.stored.saturating_add(row.dropped) <= row.produced, || {
                format!("the account of {stream} at {at} counts more events than were produced")
            });
            *last = row;
        }
    }

    /// Checks that each event is stored, dropped, lost or expired.
    fn streams(&mut self, loss: &mut Vec<String>) {
        let empty = BTreeMap::new();
        let lost = self.manifest.recovery.as_ref().map_or(&empty, |r| &r.lost);
        let has_expired = |table: Table| self.manifest.first_segment(table) > 1;
        let rows_of = |name: &str| Table::by_name(name).and_then(|t| self.rows.get(&t)).copied().unwrap_or(0);
        let mut produced = 0_u64;
        for (name, account) in &self.manifest.streams {
            let rows = rows_of(name);
            self.account.holds(account.stored == rows, || {
                format!("{name} should have {} and has {rows}", many(account.stored, "row"))
            });
            let known = account.stored.saturating_add(account.dropped).saturating_add(account.expired);
            let nowhere = lost.get(name).copied().unwrap_or(0);
            self.account.holds(account.produced == known.saturating_add(nowhere), || {
                format!(
                    "{name}: {} produced; {} stored, {} dropped, {} expired",
                    many(account.produced, "event"),
                    account.stored,
                    account.dropped,
                    account.expired
                )
            });
            let recorded = self.drops.get(name).copied().unwrap_or(0);
            let is_recorded = match self.state {
                State::Complete if !has_expired(Table::Drops) => recorded == account.dropped,
                _ => recorded <= account.dropped,
            };
            self.account.holds(is_recorded, || {
                format!("{name}: {} were dropped, but the table drops has {recorded}", many(account.dropped, "event"))
            });
            if account.dropped > 0 {
                loss.push(format!("{} of {name}: dropped, see the table drops", many(account.dropped, "event")));
            }
            produced = produced.saturating_add(account.produced);
        }
        // Losses other than events of a stream: stacks and frames beyond a limit, records that could not be decoded.
        for (name, lost) in self.drops.iter().filter(|(name, _)| !self.manifest.streams.contains_key(*name)) {
            loss.push(format!("{lost} of {name}: see the table drops"));
        }
        for (name, last) in &self.last {
            let rows = rows_of(name).saturating_add(self.manifest.streams.get(name).map_or(0, |s| s.expired));
            // Recovery and repair state the losses.
            let of = |sums: &BTreeMap<String, u64>| sums.get(name).copied().unwrap_or(0);
            let stated = of(lost).saturating_add(of(&self.damaged));
            let missing = last.stored.saturating_sub(rows.saturating_add(stated));
            self.accounts.holds(missing == 0, || format!("{} of {name} are missing", many(missing, "row")));
            if let (State::Complete, Some(end)) = (self.state, self.manifest.streams.get(name)) {
                let ends = end.produced >= last.produced && end.dropped >= last.dropped;
                self.accounts.holds(ends, || format!("the final account of {name} is below its last row"));
            }
        }
        self.accounts.proven = match self.last.is_empty() {
            true => "there are none".into(),
            false => "accounts never decrease, and every row that they count is stored".into(),
        };
        self.account.proven = match self.state {
            State::Complete | State::Recovered => {
                format!("{}: each is stored, counted as dropped, or expired", many(produced, "event"))
            }
            State::Recording | State::Killed => "not checked: it is written at the end".into(),
        };
    }
}
