//! The join as a node of a physical plan: both inputs complete and sorted by time, output in the order of the left one.

use std::{fmt, sync::Arc};

use arrow::{
    array::RecordBatch,
    compute::SortOptions,
    datatypes::{Schema, SchemaRef},
};
use datafusion::{
    common::{ColumnStatistics, Statistics, internal_err, tree_node::TreeNodeRecursion},
    error::Result,
    execution::{SendableRecordBatchStream, TaskContext, memory_pool::MemoryConsumer},
    physical_expr::{
        Distribution, EquivalenceProperties, LexOrdering, OrderingRequirements, Partitioning, PhysicalSortExpr,
        expressions::Column,
    },
    physical_plan::{
        ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, InputDistributionRequirements,
        PhysicalExpr, PlanProperties, ReplaceChildrenOptions,
        execution_plan::{Boundedness, CardinalityEffect, EmissionType},
        metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet, RecordOutput as _},
        statistics::{ChildStats, StatisticsArgs},
        stream::RecordBatchStreamAdapter,
    },
};
use futures::{StreamExt as _, stream};

use super::merge::{Merge, Shape, Source, Step};

/// An as-of or interval join.
#[derive(Debug)]
pub(super) struct TimeJoinExec {
    children: [Arc<dyn ExecutionPlan>; 2],
    shape: Arc<Shape>,
    schema: SchemaRef,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl TimeJoinExec {
    pub(super) fn new(children: [Arc<dyn ExecutionPlan>; 2], shape: Arc<Shape>, schema: SchemaRef) -> Self {
        let ts = shape.output.iter().position(|source| *source == Source::Left(shape.left_ts));
        let ordering = ts.and_then(|ts| by_ts(&schema, ts));
        let equivalences = EquivalenceProperties::new_with_orderings(Arc::clone(&schema), ordering);
        let properties = PlanProperties::new(
            equivalences,
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        TimeJoinExec {
            children,
            shape,
            schema,
            properties: Arc::new(properties),
            metrics: ExecutionPlanMetricsSet::new(),
        }
    }
}

fn by_ts(schema: &Schema, ts: usize) -> Option<LexOrdering> {
    let column = Column::new(schema.fields().get(ts)?.name(), ts);
    let options = SortOptions { descending: false, nulls_first: false };
    LexOrdering::new([PhysicalSortExpr::new(Arc::new(column), options)])
}

impl DisplayAs for TimeJoinExec {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [left, right] = &self.children;
        let (left_schema, right_schema) = (left.schema(), right.schema());
        let name = |schema: &Schema, at: &usize| schema.fields().get(*at).map_or(String::new(), |f| f.name().clone());
        let keys = self.shape.left_keys.iter().zip(&self.shape.right_keys);
        let on: Vec<_> = keys.map(|(l, r)| format!("{} = {}", name(&left_schema, l), name(&right_schema, r))).collect();
        let [left, right] = &self.shape.names;
        match format {
            DisplayFormatType::Default | DisplayFormatType::Verbose => {
                write!(f, "{}: {} {left}, {right} on=[{}]", Self::static_name(), self.shape.kind.name(), on.join(", "))
            }
            DisplayFormatType::TreeRender => write!(f, "kind={}\non={}", self.shape.kind.name(), on.join(", ")),
        }
    }
}

impl ExecutionPlan for TimeJoinExec {
    fn name(&self) -> &str {
        Self::static_name()
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn input_distribution_requirements(&self) -> InputDistributionRequirements {
        InputDistributionRequirements::new(vec![Distribution::SinglePartition; 2])
    }

    fn required_input_ordering(&self) -> Vec<Option<OrderingRequirements>> {
        let [left, right] = &self.children;
        [(left, self.shape.left_ts), (right, self.shape.right_ts)]
            .into_iter()
            .map(|(child, ts)| by_ts(&child.schema(), ts).map(OrderingRequirements::from))
            .collect()
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true, false]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        self.children.iter().collect()
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match <[Arc<dyn ExecutionPlan>; 2]>::try_from(children) {
            Ok(children) => {
                Ok(Arc::new(TimeJoinExec::new(children, Arc::clone(&self.shape), Arc::clone(&self.schema))))
            }
            Err(children) => internal_err!("a join has two children, not {}", children.len()),
        }
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        if partition != 0 {
            return internal_err!("a join has one partition, not {}", partition + 1);
        }
        let [left, right] = &self.children;
        let right_schema = right.schema();
        let field = |at: &usize| right_schema.fields().get(*at).map(|field| field.data_type().clone());
        let merge = Merge::try_new(
            Arc::clone(&self.shape),
            Arc::clone(&self.schema),
            self.shape.right_columns.iter().filter_map(field).collect(),
            MemoryConsumer::new(self.shape.kind.name()).register(context.memory_pool()),
            context.session_config().batch_size(),
        )?;
        let joining = Joining {
            merge,
            left: left.execute(0, Arc::clone(&context))?,
            right: right.execute(0, context)?,
            metrics: BaselineMetrics::new(&self.metrics, partition),
        };
        let batches = stream::try_unfold(joining, |mut joining| async move {
            let batch = joining.next().await;
            batch.map(|batch| batch.map(|batch| (batch, joining)))
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), batches)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn child_stats_requests(&self, _: Option<usize>) -> Vec<ChildStats> {
        vec![ChildStats::At(None), ChildStats::Skip]
    }

    /// As many rows as the left side, with its column statistics.
    fn statistics_from_inputs(&self, inputs: &[Arc<Statistics>], _: &StatisticsArgs) -> Result<Arc<Statistics>> {
        let mut statistics = Statistics::new_unknown(&self.schema);
        let Some(left) = inputs.first() else { return Ok(Arc::new(statistics)) };
        statistics.num_rows = left.num_rows;
        let column = |source: &Source| match source {
            Source::Left(at) => left.column_statistics.get(*at).cloned().unwrap_or_default(),
            Source::Right(_) => ColumnStatistics::new_unknown(),
        };
        statistics.column_statistics = self.shape.output.iter().map(column).collect();
        Ok(Arc::new(statistics))
    }

    fn cardinality_effect(&self) -> CardinalityEffect {
        CardinalityEffect::Equal
    }
}

/// A join with its inputs, which it owns.
struct Joining {
    merge: Merge,
    left: SendableRecordBatchStream,
    right: SendableRecordBatchStream,
    metrics: BaselineMetrics,
}

impl Joining {
    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            let step = {
                let _timer = self.metrics.elapsed_compute().timer();
                self.merge.step()?
            };
            match step {
                Step::NeedLeft => match self.left.next().await.transpose()? {
                    Some(batch) => self.merge.push_left(batch)?,
                    None => return Ok(None),
                },
                Step::NeedRight => {
                    let batch = self.right.next().await.transpose()?;
                    self.merge.push_right(batch);
                }
                Step::Output(batch) => return Ok(Some(batch.record_output(&self.metrics))),
            }
        }
    }
}
