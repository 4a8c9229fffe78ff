//! Attaches the programs at context switches and in the target's code, and detaches them, during the recording.

use super::{
    attached::{Probed, Probes, SwitchPrograms},
    switch::Switch,
};

impl Probes {
    /// Whether the programs at context switches are attached.
    pub fn switches_are_on(&self) -> bool {
        self.detachable().is_none_or(Switch::is_on)
    }

    /// Whether they are being attached.
    pub fn switches_are_attaching(&self) -> bool {
        self.detachable().is_some_and(Switch::is_attaching)
    }

    /// Whether they are detached and can be attached again.
    pub fn switches_can_attach(&self) -> bool {
        self.detachable().is_some_and(Switch::is_off)
    }

    /// Whether they can be detached and attached again.
    pub fn switches_can_detach(&self) -> bool {
        self.detachable().is_some()
    }

    /// Attaches or detaches them, soon.
    pub fn turn_switches(&self, on: bool) {
        if let Some(switch) = self.detachable() {
            switch.turn(on);
        }
    }

    fn detachable(&self) -> Option<&Switch> {
        match &self.switches {
            Some(SwitchPrograms::Detachable(switch)) => Some(switch),
            _ => None,
        }
    }

    /// Whether the probes in the target's code can be attached again after detaching.
    pub fn probes_can_turn(&self) -> bool {
        matches!(&self.probed, Probed::Switched(_))
    }

    /// Whether all probes in the target's code are attached.
    pub fn probes_are_on(&self) -> bool {
        match &self.probed {
            Probed::Not => false,
            Probed::Switched(switch) => switch.is_on(),
            Probed::OneByOne(_) => true,
        }
    }

    /// Whether they are being attached.
    pub fn probes_are_attaching(&self) -> bool {
        matches!(&self.probed, Probed::Switched(switch) if switch.is_attaching())
    }

    /// Whether they are detached and can be attached again.
    pub fn probes_can_attach(&self) -> bool {
        matches!(&self.probed, Probed::Switched(switch) if switch.is_off())
    }

    /// Attaches or detaches the probes, soon. Probes attached one by one are detached for good.
    pub fn turn_probes(&mut self, on: bool) {
        match &self.probed {
            Probed::Switched(switch) => switch.turn(on),
            Probed::OneByOne(_) if !on => {
                tracing::warn!(
                    "polls, wakes, spawns and ends are no longer recorded: attaching probes again needs Linux 6.6"
                );
                if let Probed::OneByOne(links) = std::mem::replace(&mut self.probed, Probed::Not) {
                    // If no thread can be started, dropping the closure detaches here. Entries first, which were
                    // attached last: an entry without its return would remain.
                    let detach = move || links.into_iter().rev().for_each(drop);
                    let _ = std::thread::Builder::new().name("hud-probes".into()).spawn(detach);
                }
            }
            _ => {}
        }
    }

    /// CPU time that attaching and detaching them has taken so far (ns), except at the start.
    pub fn turning_cost(&self) -> u64 {
        match &self.probed {
            Probed::Switched(switch) => switch.spent(),
            Probed::Not | Probed::OneByOne(_) => 0,
        }
    }

    /// Number of probed places in the target's code.
    pub fn probed_places(&self) -> usize {
        match &self.probed {
            Probed::Not => 0,
            Probed::Switched(_) | Probed::OneByOne(_) => self.places,
        }
    }
}
