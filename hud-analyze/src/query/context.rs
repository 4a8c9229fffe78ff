//! DataFusion contexts: settings, optimizer rules, and the tables of one session.

use std::sync::Arc;

use datafusion::{
    error::DataFusionError,
    execution::{SessionStateBuilder, runtime_env::RuntimeEnv},
    optimizer::{
        Optimizer, OptimizerRule, eliminate_filter::EliminateFilter, propagate_empty_relation::PropagateEmptyRelation,
    },
    prelude::{SessionConfig, SessionContext},
};
use hud_common::session::Table;
use hud_functions::{NamesBuilder, SessionFacts, StackBatches, StackSource};

use crate::{
    error::{Error, Result},
    query::{
        segment_table::{SegmentTable, TableSegments},
        session::Session,
    },
};

/// Logical optimizer rules that improve no view and hardly any query. Each traverses the whole plan, which takes a
/// millisecond for the larger views.
const LITTLE_USE: [&str; 7] = [
    "unions_to_filter",
    "eliminate_join",
    "eliminate_duplicated_expr",
    "filter_null_join_keys",
    "eliminate_group_by_constant",
    "extract_leaf_expressions",
    "push_down_leaf_projections",
];

/// Rules for kinds of subqueries that no view contains.
const FOREIGN_TO_VIEWS: [&str; 3] = ["rewrite_set_comparison", "scalar_subquery_to_join", "decorrelate_lateral_join"];

/// Which statements a context plans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Statements {
    /// The views and hud's own queries.
    Views,
    /// Any SQL.
    Any,
}

/// A context without tables.
pub(crate) fn empty(runtime: &Arc<RuntimeEnv>, statements: Statements) -> SessionContext {
    let state = SessionStateBuilder::new()
        .with_config(config())
        .with_runtime_env(Arc::clone(runtime))
        .with_default_features()
        .with_optimizer_rules(optimizer_rules(statements))
        .build();
    SessionContext::new_with_state(state)
}

fn optimizer_rules(statements: Statements) -> Vec<Arc<dyn OptimizerRule + Send + Sync>> {
    // Joins with empty relations are removed before other rules work on them.
    let first: [Arc<dyn OptimizerRule + Send + Sync>; 2] =
        [Arc::new(EliminateFilter::new()), Arc::new(PropagateEmptyRelation::new())];
    let is_dropped = |name: &str| {
        LITTLE_USE.contains(&name) || (statements == Statements::Views && FOREIGN_TO_VIEWS.contains(&name))
    };
    first.into_iter().chain(Optimizer::new().rules).filter(|rule| !is_dropped(rule.name())).collect()
}

fn config() -> SessionConfig {
    let mut config = SessionConfig::new().with_information_schema(true);
    let options = config.options_mut();
    // The tables' columns are Utf8.
    options.sql_parser.map_string_types_to_utf8view = false;
    // Views sort their rows, and `SELECT … FROM hotspots LIMIT 3` must return the first three.
    options.sql_parser.enable_subquery_sort_elimination = false;
    // Columns are decoded for rows that fulfil the predicate only.
    options.execution.parquet.pushdown_filters = true;
    options.execution.parquet.reorder_filters = true;
    // Views join events with names, which nearly every event has: a filter from the join's other side removes hardly a row,
    // and costs more than it saves.
    options.optimizer.enable_join_dynamic_filter_pushdown = false;
    options.optimizer.enable_aggregate_dynamic_filter_pushdown = false;
    config
}

/// A context with the tables of one session.
pub(crate) fn of_session(runtime: &Arc<RuntimeEnv>, session: &Session) -> Result<SessionContext> {
    let context = empty(runtime, Statements::Views);
    for &table in Table::ALL {
        let segments = session.table(table).cloned().into_iter().collect();
        context.register_table(table.name(), Arc::new(SegmentTable::new(table, segments, false)))?;
    }
    hud_functions::register(&context, &facts(std::slice::from_ref(session))?)?;
    Ok(context)
}

/// Times and stacks that hud's functions need.
pub(crate) fn facts(sessions: &[Session]) -> Result<SessionFacts> {
    let mut facts = SessionFacts { start: i64::MAX, end: i64::MIN, stacks: Arc::new(StackBatches::default()) };
    for session in sessions {
        let manifest = session.manifest();
        facts.start = facts.start.min(manifest.start);
        let mut end = manifest.end;
        // The recorder was killed, or still records.
        for table in [Table::Polls, Table::OffCpu, Table::Samples, Table::InProgress, Table::TaskStates] {
            if manifest.end.is_none() {
                let keys = session.table(table).map(|segments| segments.keys()).transpose();
                let keys = keys.map_err(|error| Error::from(&*error))?.flatten();
                end = end.max(keys.map(|(_, last)| last.saturating_add(1)));
            }
        }
        facts.end = facts.end.max(end.unwrap_or(manifest.start));
    }
    if let [session] = sessions {
        facts.stacks = Arc::new(StackNames::of(session));
    }
    Ok(facts)
}

/// A session's stacks, frames and modules, for functions that resolve stack ids. There are none over several sessions, as
/// ids are unique within one session only.
#[derive(Debug)]
struct StackNames(Vec<Arc<TableSegments>>);

impl StackNames {
    fn of(session: &Session) -> Self {
        let tables = [Table::Stacks, Table::Frames, Table::Modules];
        StackNames(tables.into_iter().filter_map(|table| session.table(table).cloned()).collect())
    }
}

impl StackSource for StackNames {
    fn load(&self, names: &mut NamesBuilder) -> datafusion::error::Result<()> {
        for segments in &self.0 {
            let table = segments.table();
            let columns: Vec<_> = table.columns().iter().map(|column| column.name).collect();
            let mut failed = None;
            let read = segments.scan(&columns, |batch| {
                let added = match table {
                    Table::Stacks => names.add_stacks(batch),
                    Table::Frames => names.add_frames(batch),
                    _ => names.add_modules(batch),
                };
                failed = failed.take().or(added.err());
                Ok(())
            });
            read.map_err(|error| DataFusionError::External(Box::new(error)))?;
            failed.map_or(Ok(()), Err)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A rule that DataFusion renames would be applied again without notice.
    #[test]
    fn every_dropped_optimizer_rule_exists_upstream() {
        let upstream: Vec<String> = Optimizer::new().rules.iter().map(|rule| rule.name().to_owned()).collect();
        for name in LITTLE_USE.into_iter().chain(FOREIGN_TO_VIEWS) {
            assert!(upstream.iter().any(|rule| rule == name), "DataFusion has no rule {name}: {upstream:?}");
        }
        let dropped = |statements| upstream.len() + 2 - optimizer_rules(statements).len();
        assert_eq!(dropped(Statements::Any), LITTLE_USE.len());
        assert_eq!(dropped(Statements::Views), LITTLE_USE.len() + FOREIGN_TO_VIEWS.len());
    }
}
