//! Makes sure that each id has exactly one row: missing ones get a placeholder, as in recovery; of duplicates, the first is kept.

use std::{collections::BTreeSet, path::Path};

use arrow::{array::BooleanArray, compute::filter_record_batch};
use hud_common::session::{REFERENCES, Table, encode_for, integers, scan_verified, unnamed};

use super::{
    mend::Mender,
    segments::{TARGET, name},
};
use crate::{
    error::Result,
    ids::Ids,
    progress::Step,
    roll::Roller,
    rows::{self, keys},
};

impl Mender<'_, '_> {
    /// Repairs a table of names.
    pub(super) fn names(&mut self, to: Table) -> Result<()> {
        let known = self.unique_ids(to)?;
        let mut missing = BTreeSet::new();
        for reference in REFERENCES.iter().filter(|r| r.to == to) {
            let segments = self.dir.sealed(reference.from)?;
            let all = segments.len() as u64;
            for (done, (number, _)) in segments.into_iter().enumerate() {
                self.watch.report(Step::Repairing, reference.from, done as u64, all)?;
                let file = self.dir.open_sealed(reference.from, number)?;
                scan_verified(reference.from, file, &[reference.column], |batch| {
                    missing.extend(integers(batch, reference.column).into_iter().filter(|id| !known.contains(*id)));
                    Ok(())
                })?;
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        let batch = unnamed(to, missing.iter().copied());
        let at = self.dir.table(to);
        let number = self.next_number(to)?;
        if let Some(encoded) = encode_for(&self.dir, to, number, &[batch]).map_err(rows::arrow(&at))? {
            self.bench.put(to, number, &encoded.data, &mut *self.watch.step)?;
        }
        self.did(format!("added {} missing rows of {}", missing.len(), to.name()))?;
        self.notes.insert(format!("{} {} have only an id", missing.len(), to.name()));
        Ok(())
    }

    /// The ids of a table, of whose duplicates the later rows are dropped.
    fn unique_ids(&mut self, table: Table) -> Result<Ids> {
        let mut known = Ids::default();
        for (number, path) in self.dir.sealed(table)? {
            let mut first = Vec::new();
            let file = self.dir.open_sealed(table, number)?;
            rows::scan(table, file.clone(), |batch| {
                first.extend(keys(table, &path, batch)?.iter().map(|id| known.insert(*id)));
                Ok(())
            })?;
            let doubles = first.iter().filter(|is_first| !**is_first).count();
            if doubles == 0 {
                continue;
            }
            let number_of_new = self.next_number(table)?;
            let mut out = Roller::to_segments(self.bench, table, TARGET, number_of_new);
            let mut at = 0;
            rows::scan(table, file, |batch| {
                let kept = first.get(at..at + batch.num_rows()).unwrap_or_default().to_vec();
                at += batch.num_rows();
                let kept = filter_record_batch(batch, &BooleanArray::from(kept)).map_err(rows::arrow(&path))?;
                out.push(&kept, self.watch)
            })?;
            out.finish(self.watch)?;
            self.bench.set_aside(Path::new(&name(table, number)), &mut *self.watch.step)?;
            self.did(format!("set {} aside: it repeats {doubles} ids", name(table, number)))?;
            self.is_gone(table, number);
        }
        Ok(known)
    }
}
