//! A fault: what it is called, how hud should report it, and how its program starts.

use std::io;

use serde_json::{Value, json};

use crate::account;

/// Workers of the runtime: few, so that a fault shows on any machine.
pub(crate) const WORKERS: usize = 2;
/// Maximum number of threads of its blocking pool.
pub(crate) const POOL_THREADS: usize = 4;

/// How the program runs its tasks.
#[derive(Clone, Copy)]
pub(crate) enum Scheduler {
    /// On a runtime with [`WORKERS`].
    MultiThread,
    /// As it starts, on the main thread.
    OwnThread,
}

/// What a finding should name.
#[derive(Clone, Copy)]
pub(crate) enum Names {
    /// The function of the account.
    Function,
    /// It as a function or as a type of task.
    Task,
    /// No code: the fault has none.
    Nothing,
}

/// A program with one fault, or with none.
pub(crate) struct Fault {
    pub(crate) name: &'static str,
    /// Its row in the summary.
    pub(crate) kind: &'static str,
    /// What is wrong, for the report.
    pub(crate) about: &'static str,
    /// Rules, any of which reports it.
    pub(crate) rules: &'static [&'static str],
    /// Rules that may report a true consequence.
    pub(crate) also: &'static [&'static str],
    pub(crate) names: Names,
    pub(crate) scheduler: Scheduler,
    /// Starts its tasks, inside the runtime.
    pub(crate) start: fn() -> io::Result<()>,
}

impl Fault {
    /// A fault on a runtime of its own.
    pub(crate) const fn new(
        name: &'static str,
        kind: &'static str,
        about: &'static str,
        rules: &'static [&'static str],
        start: fn() -> io::Result<()>,
    ) -> Self {
        Fault { name, kind, about, rules, also: &[], names: Names::Function, scheduler: Scheduler::MultiThread, start }
    }

    pub(crate) const fn also(mut self, rules: &'static [&'static str]) -> Self {
        self.also = rules;
        self
    }

    pub(crate) const fn names(mut self, names: Names) -> Self {
        self.names = names;
        self
    }

    pub(crate) const fn on_its_own_thread(mut self) -> Self {
        self.scheduler = Scheduler::OwnThread;
        self
    }

    /// Whether nothing is wrong.
    pub(crate) fn is_healthy(&self) -> bool {
        self.rules.is_empty()
    }

    pub(crate) fn account(&self) -> Value {
        let (sites, tenths) = account::to_json();
        let names = match self.names {
            Names::Function => "function",
            Names::Task => "task",
            Names::Nothing => "nothing",
        };
        json!({
            "fault": self.name, "kind": self.kind, "about": self.about, "rules": self.rules, "also": self.also,
            "names": names, "sites": sites, "tenths": tenths,
        })
    }
}
