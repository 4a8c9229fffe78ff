//! The lines at which the bodies of coroutines await.
//!
//! A suspension inside `select!` or `join!` is declared at the line of the macro's own `.await`. The coroutine's body
//! has a variable `__awaitee` for each `.await`, at the line where the program calls the macro.

use std::collections::{HashMap, HashSet};

use super::{
    dies::{Die, Dies},
    ways::bare,
};
use crate::tasks::layout::Line;

#[derive(Default)]
pub(super) struct Bodies {
    /// Awaited type and line, by the path of the body.
    lines: HashMap<String, Vec<(Die, Line)>>,
    /// Units and crates that were read.
    units: HashSet<u32>,
    crates: HashSet<String>,
}

impl Bodies {
    /// The line at which a coroutine's body awaits a type.
    pub(super) fn line(&mut self, dies: &mut Dies, coroutine: Die, path: &str, awaited: Die) -> Option<Line> {
        let body = bare(path).replace("_env#", "#");
        self.read(dies, Dies::unit(coroutine));
        if let Some(line) = self.find(dies, &body, awaited) {
            return Some(line);
        }
        // It was compiled in another unit of its crate.
        let krate = path.split("::").next().unwrap_or_default();
        if self.crates.insert(krate.to_string()) {
            for unit in dies.units_of_crate(krate) {
                self.read(dies, unit);
            }
        }
        self.find(dies, &body, awaited)
    }

    fn find(&self, dies: &mut Dies, body: &str, awaited: Die) -> Option<Line> {
        let lines = self.lines.get(body)?;
        if let Some((_, line)) = lines.iter().find(|(of, _)| *of == awaited) {
            return Some(line.clone());
        }
        // Each unit may describe the type.
        let path = dies.path(awaited);
        lines.iter().find(|(of, _)| dies.path(*of) == path).map(|(_, line)| line.clone())
    }

    fn read(&mut self, dies: &mut Dies, unit: u32) {
        if !self.units.insert(unit) {
            return;
        }
        for function in dies.bodies(unit) {
            let is_body = |name: String| name.starts_with("{async_") || name.starts_with("{closure");
            if !dies.name(function).is_some_and(is_body) {
                continue;
            }
            let mut lines = Vec::new();
            for variable in dies.inside(function) {
                if dies.tag(variable) == Some(gimli::DW_TAG_variable)
                    && let Some(of) = dies.reference(variable, gimli::DW_AT_type)
                    && let Some(line) = dies.line(variable)
                {
                    lines.push((of, line));
                }
            }
            if !lines.is_empty() {
                let path = dies.path(function);
                self.lines.entry(bare(&path).to_string()).or_default().extend(lines);
            }
        }
    }
}
