//! Ids and their rows: each has one. Those that none has get the row that recovery gives to what nobody named; those
//! that have two keep the first.

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
    /// Mends a table of names.
    pub(super) fn names(&mut self, to: Table) -> Result<()> {
        let known = self.told_once(to)?;
        let mut missing = BTreeSet::new();
        for reference in REFERENCES.iter().filter(|r| r.to == to) {
            let segments = self.dir.sealed(reference.from)?;
            let all = segments.len() as u64;
            for (done, (number, _)) in segments.into_iter().enumerate() {
                self.watch.tell(Step::Mending, reference.from, done as u64, all)?;
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
        self.did(format!("gave rows to {} ids of {} that had none", missing.len(), to.name()))?;
        self.notes.insert(format!("{} {} have nothing but an id", missing.len(), to.name()));
        Ok(())
    }

    /// Ids of the table; of those that are told twice, the later row goes.
    fn told_once(&mut self, table: Table) -> Result<Ids> {
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
            self.did(format!("set {} aside: {doubles} ids in it were told before", name(table, number)))?;
            self.is_gone(table, number);
        }
        Ok(known)
    }
}
