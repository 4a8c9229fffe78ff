//! `stack_frames()`: every frame of every stack as a row, in order of stack and depth, made batch by batch.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, Int32Builder, Int64Builder, RecordBatch, StringBuilder},
    datatypes::{DataType, Field, Schema, SchemaRef},
};
use datafusion::{
    catalog::{TableFunctionArgs, TableFunctionImpl, TableProvider, streaming::StreamingTable},
    common::{DataFusionError, exec_datafusion_err, plan_err, runtime::SpawnedTask},
    error::Result,
    execution::{SendableRecordBatchStream, TaskContext},
    physical_plan::{stream::RecordBatchStreamAdapter, streaming::PartitionStream},
    prelude::col,
};
use futures::{TryStreamExt as _, stream};

use super::{
    lookup::{UNKNOWN, weight},
    shared::{Loaded, SharedNames},
};

/// Bytes after which a batch ends, even with few rows: names may be long.
const MOST_BYTES: usize = 16 << 20;

/// The table function.
#[derive(Debug)]
pub(super) struct StackFrames {
    table: Arc<StreamingTable>,
}

impl StackFrames {
    pub(super) fn try_new(names: SharedNames) -> Result<Self> {
        let schema = schema();
        let rows = Arc::new(Rows { schema: Arc::clone(&schema), names });
        let order = vec![col("stack_id").sort(true, false), col("depth").sort(true, false)];
        Ok(StackFrames { table: Arc::new(StreamingTable::try_new(schema, vec![rows])?.with_sort_order(order)) })
    }
}

impl TableFunctionImpl for StackFrames {
    fn call_with_args(&self, args: TableFunctionArgs<'_, '_>) -> Result<Arc<dyn TableProvider>> {
        if !args.exprs().is_empty() {
            return plan_err!("stack_frames takes no arguments: write it like stack_frames()");
        }
        Ok(Arc::<StreamingTable>::clone(&self.table))
    }
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("stack_id", DataType::Int64, false),
        Field::new("depth", DataType::Int32, false),
        Field::new("frame_id", DataType::Int64, false),
        Field::new("function", DataType::Utf8, false),
        Field::new("file", DataType::Utf8, true),
        Field::new("line", DataType::Int32, true),
        Field::new("origin", DataType::Utf8, true),
        Field::new("module", DataType::Utf8, true),
    ]))
}

#[derive(Debug)]
struct Rows {
    schema: SchemaRef,
    names: SharedNames,
}

impl PartitionStream for Rows {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (names, rows) = (self.names.clone(), context.session_config().batch_size().max(1));
        let schema = Arc::clone(&self.schema);
        let batches = stream::once(async move {
            // Loading reads files: not on a thread that others wait for.
            let names = SpawnedTask::spawn_blocking(move || names.get())
                .await
                .map_err(|e| exec_datafusion_err!("the names of stacks could not be loaded: {e}"))??;
            Ok::<_, DataFusionError>(stream::try_unfold(Place { names, stack: 0, depth: 0 }, move |mut place| {
                let schema = Arc::clone(&schema);
                async move {
                    let batch = place.next(schema, rows);
                    batch.map(|batch| batch.map(|batch| (batch, place)))
                }
            }))
        })
        .try_flatten();
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), batches))
    }
}

/// Position of the next row.
struct Place {
    names: Arc<Loaded>,
    stack: usize,
    depth: usize,
}

impl Place {
    fn next(&mut self, schema: SchemaRef, most: usize) -> Result<Option<RecordBatch>> {
        let (mut stacks, mut depths, mut ids) = (Int64Builder::new(), Int32Builder::new(), Int64Builder::new());
        let (mut functions, mut files, mut lines) = (StringBuilder::new(), StringBuilder::new(), Int32Builder::new());
        let (mut origins, mut modules) = (StringBuilder::new(), StringBuilder::new());
        let (mut rows, mut bytes) = (0, 0);
        while let Some(&stack) = self.names.stack_ids().get(self.stack) {
            let Some(&id) = self.names.frame_ids(stack).and_then(|ids| ids.get(self.depth)) else {
                (self.stack, self.depth) = (self.stack + 1, 0);
                continue;
            };
            if rows >= most || bytes >= MOST_BYTES {
                break;
            }
            self.depth += 1;
            let frame = self.names.frame(id).unwrap_or(&UNKNOWN);
            stacks.append_value(stack);
            // As SQL counts: frame_ids[depth] is the frame.
            depths.append_value(i32::try_from(self.depth).unwrap_or(i32::MAX));
            ids.append_value(id);
            functions.append_value(&frame.function);
            files.append_option(frame.file.as_deref());
            lines.append_option(frame.line);
            origins.append_option(frame.origin.as_deref());
            modules.append_option(frame.module.as_deref());
            rows += 1;
            bytes += weight(Some(frame)) + frame.module.as_ref().map_or(0, |m| m.len());
        }
        if rows == 0 {
            return Ok(None);
        }
        let columns: Vec<ArrayRef> = vec![
            Arc::new(stacks.finish()),
            Arc::new(depths.finish()),
            Arc::new(ids.finish()),
            Arc::new(functions.finish()),
            Arc::new(files.finish()),
            Arc::new(lines.finish()),
            Arc::new(origins.finish()),
            Arc::new(modules.finish()),
        ];
        Ok(Some(RecordBatch::try_new(schema, columns)?))
    }
}
