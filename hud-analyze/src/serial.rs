//! Plans for one thread.
//!
//! Of few rows, planning takes longer than reading, and half of what the physical optimizer of DataFusion 55 does is to deal
//! work out to threads and to keep orders across them. For one thread a plain rule is enough: where an operator wants one
//! stream, streams are joined, and where it wants an order that is not there, rows are sorted. Its own `SanityCheckPlan`
//! holds that to what each operator asks for.

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

use crate::{once::FEW, segments::SegmentTable};

/// What [`Serial`] stands for.
const REPLACED: &str = "EnsureRequirements";

/// Rules that only change what is dealt out, or orders that several streams have.
const OF_MANY_THREADS: [&str; 3] = ["TopKRepartition", "HashJoinBuffering", "PushdownSort"];

/// The same state, whose plans are for one thread.
pub(crate) fn alone(state: &SessionState) -> SessionState {
    let rules = PhysicalOptimizer::new().rules.into_iter();
    let rules = rules.filter(|rule| !OF_MANY_THREADS.contains(&rule.name()));
    let rules = rules.map(|rule| match rule.name() {
        REPLACED => Arc::new(Serial),
        _ => rule,
    });
    let mut alone = SessionStateBuilder::new_from_existing(state.clone());
    let options = alone.config().get_or_insert_default().options_mut();
    options.execution.target_partitions = 1;
    // A second pass finds hardly anything more, and takes nearly as long as the first.
    options.optimizer.max_passes = 1;
    alone.with_physical_optimizer_rules(rules.collect()).build()
}

/// The physical plan of an optimized one: for one thread, where what is asked reads few events.
pub(crate) async fn plan(state: &SessionState, plan: &LogicalPlan) -> Result<Arc<dyn ExecutionPlan>> {
    let planner = state.query_planner();
    match events(state, plan)? < FEW {
        true => planner.create_physical_plan(plan, &alone(state)).await,
        false => planner.create_physical_plan(plan, state).await,
    }
}

/// About how many events an optimized plan reads.
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

/// Gives each operator the single stream and the order that it asks for.
#[derive(Debug)]
struct Serial;

impl PhysicalOptimizerRule for Serial {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|plan| {
            provide(&plan).map(|with| with.map_or_else(|| Transformed::no(plan), Transformed::yes))
        })
        .data()
    }

    fn name(&self) -> &'static str {
        "Serial"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// An operator over children that are as it wants them, unless they are already.
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
