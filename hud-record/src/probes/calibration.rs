//! The search for the current task's id in tokio's thread-local context.

use aya::maps::{Array, MapData};
use bytemuck::Zeroable as _;
use hud_common::wire::{CONTEXT_WORDS, Calibration};

use super::{
    attached::Probes,
    refusal::{missing, refused},
};
use crate::error::Result;

type CalibrationWords = [u64; size_of::<Calibration>() / 8];

impl Probes {
    /// Whether the word of the current task's id is still being searched.
    pub fn is_calibrating(&self) -> bool {
        self.is_calibrating
    }

    /// Checks whether the word of the current task's id is certain by now; if so, or on giving up, the kernel programs
    /// are informed. Returns false if the search was given up.
    ///
    /// Giving up needs evidence too: an idle target has shown none.
    pub fn calibrate(&mut self, give_up: bool) -> Result<bool> {
        const ENOUGH: u64 = 64;
        let mut found = None;
        let (words, mut looked) = (self.context_words, self.looked);
        let mut last = (0, 0, [0; CONTEXT_WORDS]);
        self.set_calibration(|calibration| {
            last = (calibration.first, calibration.looks, calibration.hits);
            found = match calibration.verdict(words) {
                Some(word) => Some(word + 1),
                None => (give_up && looked + calibration.looks >= ENOUGH).then_some(Calibration::GAVE_UP),
            };
            calibration.found = found.unwrap_or(0);
            if found.is_none() && words > CONTEXT_WORDS as u64 && calibration.looks >= ENOUGH / 2 {
                // Not among these words: the next ones are tried, and then the first again.
                looked += calibration.looks;
                let next = calibration.first + CONTEXT_WORDS as u64;
                let first = if next < words { next } else { 0 };
                *calibration = Calibration { first, worker: calibration.worker, ..Calibration::zeroed() };
            }
        })?;
        tracing::trace!("searching the task id: {found:?}, {looked} samples before, {last:?}");
        self.looked = looked;
        self.task_id_word = found.filter(|&word| word != Calibration::GAVE_UP).map(|word| word - 1);
        self.is_calibrating = found.is_none();
        Ok(found != Some(Calibration::GAVE_UP))
    }

    pub(super) fn set_calibration(&mut self, change: impl FnOnce(&mut Calibration)) -> Result<()> {
        let map = self.bpf.map_mut("CALIBRATION").ok_or_else(|| missing("CALIBRATION"))?;
        let mut map: Array<&mut MapData, CalibrationWords> =
            Array::try_from(map).map_err(|e| refused("opening the calibration", &e))?;
        let words = map.get(&0, 0).map_err(|e| refused("reading the calibration", &e))?;
        let mut calibration: Calibration = bytemuck::cast(words);
        let before = (calibration.found, calibration.first, calibration.worker);
        change(&mut calibration);
        if (calibration.found, calibration.first, calibration.worker) != before {
            map.set(0, bytemuck::cast::<_, CalibrationWords>(calibration), 0)
                .map_err(|e| refused("writing the calibration", &e))?;
        }
        Ok(())
    }
}
