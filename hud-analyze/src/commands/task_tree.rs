//! `task-tree` for people: tasks indented below the task that spawned them, equal leaves folded into one line.

use std::{collections::HashMap, io::Write as _};

use arrow::{
    array::{Array as _, AsArray as _, RecordBatch},
    compute::cast,
    datatypes::{DataType, Int64Type},
};
use futures::StreamExt as _;

use crate::{
    commands::{args::ViewArgs, views},
    error::{Error, Result},
    human,
    output::{
        stdout::{Stdout, terminal_width},
        table::{Look, Table},
        write,
    },
    query::{
        catalog::Catalog,
        view::{self, Arguments},
        window::Window,
    },
};

/// Levels that are indented.
const DEEPEST: usize = 24;

/// A task, or the tasks of a type that one task spawned and that spawned none.
#[derive(Debug, Default, PartialEq)]
struct Line {
    depth: usize,
    name: Option<String>,
    tasks: i64,
    /// `None` for several tasks.
    task_id: Option<i64>,
    lifetime: Option<i64>,
    /// `None` if it is unknown, or differs between tasks.
    outcome: Option<String>,
    polls: Option<i64>,
    busy: Option<i64>,
    tree_busy: Option<i64>,
}

/// The lines of a tree, from the view's rows in order.
#[derive(Default)]
struct Tree {
    lines: Vec<Line>,
    /// Leaves by parent and type.
    leaves: HashMap<(Option<i64>, Option<String>), usize>,
}

impl Tree {
    fn add(&mut self, batch: &RecordBatch) -> Result<()> {
        let ints = |name: &str| batch.column_by_name(name).and_then(|c| c.as_primitive_opt::<Int64Type>()).cloned();
        let text = |name: &str| batch.column_by_name(name).map(|c| cast(c, &DataType::Utf8)).transpose();
        let (depth, task_id, children, parent) =
            (ints("depth"), ints("task_id"), ints("children"), ints("parent_task_id"));
        let (lifetime, polls, busy, tree_busy) = (ints("lifetime"), ints("polls"), ints("busy"), ints("tree_busy"));
        let (name, outcome) = (text("task_type")?, text("outcome")?);
        for row in 0..batch.num_rows() {
            let int = |column: &Option<arrow::array::Int64Array>| {
                column.as_ref().filter(|c| c.is_valid(row)).map(|c| c.value(row))
            };
            let text = |column: &Option<arrow::array::ArrayRef>| {
                let column = column.as_ref().filter(|c| c.is_valid(row));
                column.map(|c| hud_common::clean(c.as_string::<i32>().value(row)).into_owned())
            };
            let line = Line {
                depth: usize::try_from(int(&depth).unwrap_or(0)).unwrap_or(0),
                name: text(&name),
                tasks: 1,
                task_id: int(&task_id),
                lifetime: int(&lifetime),
                outcome: text(&outcome),
                polls: int(&polls),
                busy: int(&busy),
                tree_busy: int(&tree_busy),
            };
            self.push(line, int(&parent), int(&children) == Some(0));
        }
        Ok(())
    }

    fn push(&mut self, line: Line, parent: Option<i64>, is_leaf: bool) {
        if is_leaf {
            let key = (parent, line.name.clone());
            if let Some(known) = self.leaves.get(&key).and_then(|at| self.lines.get_mut(*at)) {
                known.fold(&line);
                return;
            }
            self.leaves.insert(key, self.lines.len());
        }
        self.lines.push(line);
    }
}

impl Line {
    fn fold(&mut self, other: &Line) {
        let sum = |a: Option<i64>, b: Option<i64>| Some(a?.saturating_add(b?));
        self.tasks += other.tasks;
        (self.task_id, self.lifetime) = (None, None);
        if self.outcome != other.outcome {
            self.outcome = None;
        }
        self.polls = sum(self.polls, other.polls);
        self.busy = sum(self.busy, other.busy);
        self.tree_busy = sum(self.tree_busy, other.tree_busy);
    }

    fn cells(&self) -> Vec<String> {
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".into());
        let indent = "  ".repeat(self.depth.min(DEEPEST));
        let name = self.name.as_deref().unwrap_or("<unknown type>");
        vec![
            format!("{indent}{name}"),
            human::count(self.tasks),
            or_dash(self.task_id.map(|id| id.to_string())),
            or_dash(self.lifetime.map(human::nanos)),
            or_dash(self.outcome.clone()),
            or_dash(self.polls.map(human::count)),
            or_dash(self.busy.map(human::nanos)),
            or_dash(self.tree_busy.map(human::nanos)),
        ]
    }
}

/// Runs the view and draws its tree.
pub(crate) async fn show(
    catalog: &Catalog,
    arguments: &Arguments,
    args: &ViewArgs,
    window: Window,
    out: &mut Stdout,
) -> Result<()> {
    let mut tree = Tree::default();
    for frame in view::TASK_TREE.plan_each(catalog.opened(), arguments).await? {
        let mut batches = frame.execute_stream().await?;
        while let Some(batch) = batches.next().await.transpose().map_err(|e| catalog.explain(e.into()))? {
            tree.add(&batch)?;
        }
    }
    catalog.confirm()?;
    let failed = || Error::io("write the result");
    if tree.lines.is_empty() {
        let text = views::no_rows(&view::TASK_TREE, window);
        writeln!(out, "{text}").and_then(|()| out.flush()).map_err(failed())?;
        return views::note_coverage(catalog, &view::TASK_TREE, window).await;
    }
    let mut table = Table::new(&[
        ("task_type", Look::Text),
        ("tasks", Look::Number),
        ("task_id", Look::Number),
        ("lifetime", Look::Number),
        ("outcome", Look::Text),
        ("polls", Look::Number),
        ("busy", Look::Number),
        ("tree_busy", Look::Number),
    ]);
    let limit = args.limit().unwrap_or(usize::MAX);
    tree.lines.iter().take(limit).for_each(|line| table.push(line.cells()));
    write::print_fitting(table, terminal_width(), out).and_then(|()| out.flush()).map_err(failed())?;
    views::note_coverage(catalog, &view::TASK_TREE, window).await?;
    if tree.lines.len() > limit {
        let _ = writeln!(
            std::io::stderr(),
            "only the first {limit} of {} lines; --limit N shows more, --limit 0 all",
            tree.lines.len()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(depth: usize, name: &str, id: i64, busy: i64) -> Line {
        let (name, busy) = (Some(name.into()), Some(busy));
        Line { depth, name, tasks: 1, task_id: Some(id), polls: Some(1), busy, tree_busy: busy, ..Line::default() }
    }

    #[test]
    fn equal_leaves_of_a_task_are_one_line() {
        let mut tree = Tree::default();
        tree.push(line(0, "app::accept", 1, 10), None, false);
        tree.push(line(1, "app::conn", 2, 100), Some(1), true);
        tree.push(line(1, "app::stats", 3, 7), Some(1), true);
        tree.push(line(1, "app::conn", 4, 50), Some(1), true);
        tree.push(line(0, "app::conn", 5, 1), None, true);
        let names: Vec<_> = tree.lines.iter().map(|line| (line.cells()[0].clone(), line.tasks, line.busy)).collect();
        assert_eq!(
            names,
            [
                ("app::accept".into(), 1, Some(10)),
                ("  app::conn".into(), 2, Some(150)),
                ("  app::stats".into(), 1, Some(7)),
                ("app::conn".into(), 1, Some(1)),
            ]
        );
        assert_eq!((tree.lines[1].task_id, tree.lines[1].polls), (None, Some(2)));
    }
}
