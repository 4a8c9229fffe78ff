//! The whole of a repair, step by step, on the session's successor.
//!
//! The order matters: segments are mended before recovery, which reads them; the manifest is made anew from mended
//! segments; ids and accounts come last, as all before may remove rows. Files set aside are in `SESSION/damaged/`.
//! A session that is proven is not touched.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use hud_common::{
    clean,
    session::{Error as SessionError, Manifest, Recovery, SessionDir, Table, recover, seal},
};

use super::manifest::{claimed_id, rebuild};
use crate::{
    bench::{self, Bench, Killer, Place},
    compact::next_number,
    error::Result,
    progress::Progress,
    watch::Watch,
};

/// Prefix of notes in the manifest.
const NOTE: &str = "repaired by hud ";
/// End reason of a session whose manifest was lost.
const NOT_KNOWN: &str = "unknown: its manifest was lost";
/// Maximum number of notes of a repair in the manifest.
const MOST_NOTES: usize = 20;

/// Options of a repair.
#[derive(Clone, Debug, Default)]
pub struct RepairOptions {
    /// Only report what would be done. The repaired copy is made beside the session, and removed.
    pub dry_run: bool,
    /// A new folder for the result; without it, the session itself is repaired.
    pub output: Option<PathBuf>,
}

/// The result of a repair.
#[derive(Clone, Debug)]
pub struct Repair {
    /// Where the result is.
    pub place: Place,
    /// The actions, as lines of text.
    pub actions: Vec<String>,
    /// Rows that are newly recorded as lost, by stream.
    pub lost: BTreeMap<String, u64>,
    /// Intact rows of damaged segments that were kept.
    pub salvaged: u64,
    /// Whether it was a dry run.
    pub dry_run: bool,
}

impl Repair {
    /// Whether there was nothing to repair.
    pub fn is_proven(&self) -> bool {
        self.actions.is_empty()
    }

    /// The result, as lines of text.
    pub fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.actions.iter().map(|action| clean(action).into_owned()).collect();
        lines.push(match &self.place {
            _ if self.is_proven() && self.place == Place::Nowhere => "there is nothing to repair".into(),
            Place::Nowhere => "this is a dry run; the session is unchanged".into(),
            Place::Exchanged => "files that were set aside are in the session's folder `damaged`".into(),
            Place::Output(path) => format!("the repaired session is {}", clean(&path.to_string_lossy())),
            Place::Beside(path) => format!(
                "the repaired session is {}: this file system cannot exchange two folders, so the session is unchanged",
                clean(&path.to_string_lossy())
            ),
        });
        lines
    }
}

/// Repairs a session: afterwards it passes verification, and its losses are recorded.
///
/// Fails with [`SessionError::InUse`] if it is being recorded, and with [`SessionError::Newer`] if a newer hud wrote it.
pub fn repair(session: &Path, options: &RepairOptions, progress: &mut dyn Progress) -> Result<Repair> {
    run(session, options, progress, &mut || Ok(()), true)
}

/// `step` is called after each change on disk; if it fails, this ends there. With `is_tidy`, leftovers are then removed.
pub(crate) fn run<'a>(
    session: &Path,
    options: &RepairOptions,
    progress: &'a mut dyn Progress,
    step: &'a mut Killer<'a>,
    is_tidy: bool,
) -> Result<Repair> {
    if let Err(e @ SessionError::Newer { .. }) = Manifest::read(session) {
        return Err(e.into());
    }
    let dir = SessionDir::at(session);
    let has_rows = || Table::ALL.iter().any(|t| dir.next_number(*t).is_ok_and(|next| next > 1));
    if !session.join("manifest.json").exists() && !has_rows() {
        let why =
            if session.is_dir() { "it has neither a manifest.json nor a segment" } else { "there is no such folder" };
        return Err(SessionError::NotASession { path: session.into(), why: why.into() }.into());
    }
    let bench = Bench::take(session, options.output.as_deref())?;
    let mut watch = Watch::new(progress, step);
    let cleared = bench.clear()?;
    let mut done = build(&bench, options, &mut watch);
    if done.is_err() && is_tidy {
        // The first error is reported.
        let _ = bench.clear();
    }
    if let Ok(report) = &mut done
        && cleared
    {
        report.actions.insert(0, "removed the leftovers of a killed process".into());
    }
    done
}

fn build<'a>(bench: &Bench, options: &RepairOptions, watch: &mut Watch<'a>) -> Result<Repair> {
    bench.has_room(1 << 20)?;
    bench.set_up(&mut *watch.step)?;
    let half_made = RefCell::new(Vec::new());
    let leave_out = |name: &Path| {
        let is_ours = name.parent().and_then(Path::to_str).is_some_and(|p| p.is_empty() || Table::by_name(p).is_some());
        let is_half = is_ours && name.as_os_str().as_encoded_bytes().ends_with(b".tmp");
        if is_half {
            half_made.borrow_mut().push(format!("removed {}, which is incomplete", name.to_string_lossy()));
        }
        is_half
    };
    bench.adopt(&leave_out, &mut *watch.step)?;
    let mut mender = Mender {
        bench,
        dir: bench.successor(),
        manifest: Manifest::default(),
        watch,
        actions: half_made.take(),
        notes: BTreeSet::new(),
        holes: BTreeMap::new(),
        gone: BTreeMap::new(),
        lost: BTreeMap::new(),
        salvaged: 0,
    };
    mender.run()?;
    let Mender { actions, lost, salvaged, .. } = mender;
    let mut report = Repair { place: Place::Nowhere, actions, lost, salvaged, dry_run: options.dry_run };
    if options.dry_run || (report.is_proven() && options.output.is_none()) {
        bench.clear()?;
        (watch.step)()?;
    } else {
        report.place = bench.finish(options.output.as_deref(), "repaired", &mut *watch.step)?;
    }
    Ok(report)
}

/// A time range in which a table has lost rows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hole {
    pub(super) from: i64,
    pub(super) to: i64,
    /// Number of rows, if known.
    pub(super) rows: Option<u64>,
}

/// A repair in progress.
pub(super) struct Mender<'a, 'w> {
    pub(super) bench: &'a Bench,
    /// The successor.
    pub(super) dir: SessionDir,
    pub(super) manifest: Manifest,
    pub(super) watch: &'a mut Watch<'w>,
    actions: Vec<String>,
    /// Notes for the manifest.
    pub(super) notes: BTreeSet<String>,
    pub(super) holes: BTreeMap<Table, Vec<Hole>>,
    /// Numbers of segments that were removed.
    pub(super) gone: BTreeMap<Table, BTreeSet<u32>>,
    pub(super) lost: BTreeMap<String, u64>,
    pub(super) salvaged: u64,
}

impl Mender<'_, '_> {
    /// A number that the table never used, not even for a segment that was set aside.
    pub(super) fn next_number(&self, table: Table) -> Result<u32> {
        let next = next_number(&self.dir, &self.manifest, table)?;
        let gone = self.gone.get(&table).and_then(|gone| gone.last().copied()).unwrap_or(0);
        Ok(next.max(gone.saturating_add(1)))
    }

    /// Adds an action to the result.
    pub(super) fn did(&mut self, action: String) -> Result<()> {
        self.actions.push(action);
        (self.watch.step)()
    }

    fn run(&mut self) -> Result<()> {
        for &table in Table::ALL {
            let folder = self.dir.table(table);
            if fs::symlink_metadata(&folder).is_ok_and(|m| !m.is_dir()) {
                self.bench.set_aside(Path::new(table.name()), &mut *self.watch.step)?;
                self.did(format!("set {} aside: it is not a folder", table.name()))?;
            }
        }
        let read = self.dir.manifest();
        let lost_manifest = read.as_ref().err().map(ToString::to_string);
        self.manifest = read.unwrap_or_default();
        let id = match &lost_manifest {
            None => self.manifest.id.clone(),
            Some(_) => claimed_id(&self.dir)?.unwrap_or_default(),
        };
        self.bench.is_of(&id);
        self.dir = self.bench.successor();
        for &table in Table::ALL {
            self.segments(table)?;
        }
        let expired = match &lost_manifest {
            None => BTreeMap::new(),
            Some(why) => self.rebuild(why)?,
        };
        let is_fresh = self.logs()?;
        if lost_manifest.is_some() {
            self.after_rebuilding(&expired);
        }
        for &table in Table::ALL {
            self.missing(table)?;
        }
        self.note_gone();
        for table in [Table::TaskTypes, Table::Stacks, Table::Frames, Table::Modules] {
            self.names(table)?;
        }
        self.accounts(is_fresh)?;
        self.other_losses();
        self.note_gone();
        if self.actions.is_empty() {
            return Ok(());
        }
        let notes = std::mem::take(&mut self.notes);
        let more = notes.len().saturating_sub(MOST_NOTES);
        let version = env!("CARGO_PKG_VERSION");
        let shown = notes.into_iter().take(MOST_NOTES).map(|note| format!("{NOTE}{version}: {note}"));
        let more = (more > 0).then(|| format!("{NOTE}{version}: and {more} more"));
        for note in shown.chain(more) {
            if !self.manifest.notes.contains(&note) {
                self.manifest.notes.push(note);
            }
        }
        self.dir.write_manifest(&self.manifest)?;
        (self.watch.step)()
    }

    /// Reconstructs the manifest. Returns the expired rows that the old one recorded.
    fn rebuild(&mut self, why: &str) -> Result<BTreeMap<String, u64>> {
        let session = self.bench.session();
        let manifest = rebuild(&self.dir, session.path())?;
        let path = self.dir.path().join("manifest.json");
        if fs::symlink_metadata(&path).is_ok() {
            self.bench.set_aside(Path::new("manifest.json"), &mut *self.watch.step)?;
        }
        let expired = manifest.streams.iter().map(|(name, account)| (name.clone(), account.expired)).collect();
        self.manifest = Manifest { streams: BTreeMap::new(), ..manifest };
        self.dir.write_manifest(&self.manifest)?;
        self.did(format!("reconstructed manifest.json from the segments: {why}"))?;
        self.notes.insert("its manifest was reconstructed from its segments and the remains of the old one".into());
        Ok(expired)
    }

    fn after_rebuilding(&mut self, expired: &BTreeMap<String, u64>) {
        self.manifest.end_reason = Some(NOT_KNOWN.into());
        for (name, expired) in expired {
            let lost = self.recovery().lost.get(name).copied().unwrap_or(0);
            let expired = lost.min(*expired);
            if let Some(account) = self.manifest.streams.get_mut(name).filter(|_| expired > 0) {
                account.expired = expired;
                self.recovery().lost.insert(name.clone(), lost - expired);
            }
        }
        self.recovery().lost.retain(|_, lost| *lost > 0);
    }

    /// Seals in-flight logs. Returns whether the session was recovered.
    fn logs(&mut self) -> Result<bool> {
        for log in self.dir.unsealed()? {
            let name = format!("{}/{:06}.arrows.inflight", log.table.name(), log.number);
            if !fs::symlink_metadata(&log.log).is_ok_and(|m| m.is_file()) {
                self.bench.set_aside(Path::new(&name), &mut *self.watch.step)?;
                self.did(format!("set {name} aside: it is not a file"))?;
                continue;
            }
            let is_sealed = self.dir.open_sealed(log.table, log.number).and_then(|file| file.check_all()).is_ok();
            let has_expired = log.number < self.manifest.first_segment(log.table);
            let damage = match is_sealed || has_expired {
                true => None,
                false => {
                    let mut reader = self.dir.open_log(log.table, log.number)?;
                    match reader.by_ref().try_for_each(|batch| batch.map(drop)) {
                        Err(SessionError::Foreign { why, .. }) => {
                            self.bench.set_aside(Path::new(&name), &mut *self.watch.step)?;
                            self.is_gone(log.table, log.number);
                            self.did(format!("set {name} aside: {why}"))?;
                            continue;
                        }
                        read => read?,
                    }
                    let (rows, is_complete) = (reader.rows(), self.manifest.complete);
                    // An incomplete end is normal after a kill.
                    reader.cut().filter(|cut| !cut.is_torn || is_complete).map(|cut| (cut.clone(), rows))
                }
            };
            if let Some((cut, _)) = &damage {
                let kept = self.dir.path().join(format!("{name}.kept"));
                bench::link(&log.log, &kept)?;
                self.bench.set_aside(Path::new(&format!("{name}.kept")), &mut *self.watch.step)?;
                self.did(format!("kept {name} in damaged: {} bytes of it are lost: {}", cut.bytes, cut.why))?;
                self.holes.entry(log.table).or_default().push(Hole { from: i64::MIN, to: i64::MAX, rows: None });
            }
            if !self.manifest.complete {
                // Recovery seals it below.
                continue;
            }
            if is_sealed || has_expired {
                bench::remove_file(&log.log)?;
                self.did(format!("removed {name}, which is sealed"))?;
            } else if damage.is_some_and(|(_, rows)| rows == 0) {
                bench::remove_file(&log.log)?;
                self.is_gone(log.table, log.number);
                self.did(format!("removed {name}, which has no intact row"))?;
            } else {
                match seal(&self.dir, log.table, log.number)? {
                    Some(sealed) => self.did(format!("sealed {name}: {} rows", sealed.rows))?,
                    None => {
                        self.is_gone(log.table, log.number);
                        self.did(format!("removed {name}, which has no row"))?;
                    }
                }
            }
        }
        let Some(recovery) = recover(&self.dir)? else { return Ok(false) };
        self.manifest = self.dir.manifest()?;
        if self.manifest.complete {
            self.did(format!("sealed {} rows that were in logs", recovery.rows_salvaged))?;
            return Ok(false);
        }
        let unnamed = recovery.unnamed_stacks.saturating_add(recovery.unnamed_others);
        self.did(format!(
            "recovered it: {} rows salvaged from its logs, {} bytes cut, {unnamed} ids without a name",
            recovery.rows_salvaged, recovery.bytes_cut
        ))?;
        Ok(true)
    }

    /// The losses in the manifest.
    pub(super) fn recovery(&mut self) -> &mut Recovery {
        let end = self.manifest.end.unwrap_or(self.manifest.start);
        self.manifest.recovery.get_or_insert_with(|| Recovery { lost_after: end, ..Recovery::default() })
    }

    /// Records removed segments in the manifest.
    fn note_gone(&mut self) {
        for (table, numbers) in std::mem::take(&mut self.gone) {
            // A log may have been sealed to the number of a segment that was set aside.
            let numbers: Vec<u32> = numbers.into_iter().filter(|n| !self.dir.has_segment(table, *n)).collect();
            if numbers.is_empty() {
                continue;
            }
            let recovery = self.recovery();
            for map in [&mut recovery.empty_segments, &mut recovery.damaged_segments] {
                let recorded = map.entry(table.name().into()).or_default();
                recorded.extend(&numbers);
                recorded.sort_unstable();
                recorded.dedup();
            }
        }
    }
}
