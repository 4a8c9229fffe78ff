//! Plans with a single partition, for queries over few events.
//!
//! Planning such a query takes longer than running it, and half of the physical optimizer's time in DataFusion 55 is spent on
//! distributing work to partitions and preserving orders across them. For a single partition a simple rule is sufficient:
//! partitions are merged where an operator requires one, and rows are sorted where it requires an order that its input does
//! not have. DataFusion's `SanityCheckPlan` then checks the result against the operators' requirements.

use std::sync::Arc;

use datafusion::{
    common::tree_node::{Transformed, TransformedResult as _, TreeNode as _, TreeNodeRecursion},
    config::ConfigOptions,
    datasource::source_as_provider,
    error::Result,
    execution::{SessionState, SessionStateBuilder},
    logical_expr::LogicalPlan,
    physical_expr::Distribution,
    physical_optimizer::{PhysicalOptimizerRule, optimizer::PhysicalOptimizer},
    physical_plan::{
        ExecutionPlan, ExecutionPlanProperties as _, coalesce_partitions::CoalescePartitionsExec,
        replace_children_if_necessary, sorts::sort::SortExec,
    },
};

use crate::query::segment_table::SegmentTable;

/// Number of events below which a single partition is faster than several: distribution takes a third of the planning time.
pub(crate) const FEW_EVENTS: u64 = 400_000;
/// The rule that [`SinglePartition`] replaces.
const REPLACED: &str = "EnsureRequirements";

/// Rules that concern several partitions only.
const MULTI_PARTITION: [&str; 3] = ["TopKRepartition", "HashJoinBuffering", "PushdownSort"];

/// The same state, but its plans have a single partition.
pub(crate) fn state(state: &SessionState) -> SessionState {
    let rules = PhysicalOptimizer::new().rules.into_iter();
    let rules = rules.filter(|rule| !MULTI_PARTITION.contains(&rule.name()));
    let rules = rules.map(|rule| match rule.name() {
        REPLACED => Arc::new(SinglePartition),
        _ => rule,
    });
    let mut single = SessionStateBuilder::new_from_existing(state.clone());
    let options = single.config().get_or_insert_default().options_mut();
    options.execution.target_partitions = 1;
    // A second pass takes nearly as long as the first, and rarely changes a plan.
    options.optimizer.max_passes = 1;
    single.with_physical_optimizer_rules(rules.collect()).build()
}

/// The physical plan of an optimized logical one: with a single partition if it reads few events.
pub(crate) async fn plan(state: &SessionState, plan: &LogicalPlan) -> Result<Arc<dyn ExecutionPlan>> {
    let planner = state.query_planner();
    match events(state, plan)? < FEW_EVENTS {
        true => planner.create_physical_plan(plan, &self::state(state)).await,
        false => planner.create_physical_plan(plan, state).await,
    }
}

/// Estimated number of events that an optimized plan reads.
fn events(state: &SessionState, plan: &LogicalPlan) -> Result<u64> {
    let mut events = 0_u64;
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && let Some(table) = source_as_provider(&scan.source)?.downcast_ref::<SegmentTable>()
        {
            events = events.saturating_add(table.events(state, &scan.filters)?);
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(events)
}

/// Adds merges and sorts so that each operator's requirements are satisfied.
///
/// ```text
/// AggregateExec: Final                AggregateExec: Final
///   DataSourceExec: 2 partitions  ──▶   CoalescePartitionsExec
///                                         DataSourceExec: 2 partitions
/// ```
#[derive(Debug)]
struct SinglePartition;

impl PhysicalOptimizerRule for SinglePartition {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|plan| {
            provide(&plan).map(|with| with.map_or_else(|| Transformed::no(plan), Transformed::yes))
        })
        .data()
    }

    fn name(&self) -> &'static str {
        "SinglePartition"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// The operator with inputs that satisfy its requirements; `None` if they do already.
fn provide(plan: &Arc<dyn ExecutionPlan>) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let mut has_changed = false;
    let distributions = plan.input_distribution_requirements();
    let wanted = distributions.per_child_distributions().zip(plan.required_input_ordering());
    let mut children = Vec::new();
    for (child, (distribution, order)) in plan.children().into_iter().zip(wanted) {
        let mut child = Arc::clone(child);
        let is_any = matches!(distribution, Distribution::UnspecifiedDistribution);
        if !is_any && child.output_partitioning().partition_count() > 1 {
            child = Arc::new(CoalescePartitionsExec::new(child));
            has_changed = true;
        }
        if let Some(order) = order.map(|order| order.into_single())
            && !child.equivalence_properties().ordering_satisfy_requirement(order.clone())?
        {
            child = Arc::new(SortExec::new(order.into(), child).with_preserve_partitioning(is_any));
            has_changed = true;
        }
        children.push(child);
    }
    has_changed.then(|| replace_children_if_necessary(Arc::clone(plan), children)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A rule that DataFusion renames would be applied again, beside its replacement, without notice.
    #[test]
    fn every_replaced_physical_rule_exists_upstream() {
        let upstream: Vec<String> = PhysicalOptimizer::new().rules.iter().map(|rule| rule.name().to_owned()).collect();
        for name in MULTI_PARTITION.into_iter().chain([REPLACED]) {
            assert!(upstream.iter().any(|rule| rule == name), "DataFusion has no rule {name}: {upstream:?}");
        }
    }
}
