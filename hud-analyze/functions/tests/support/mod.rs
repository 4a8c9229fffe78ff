//! Contexts, tables and answers, for all tests of this crate.
#![allow(clippy::expect_used, reason = "a helper of a test fails as the test does")]
#![allow(dead_code, unreachable_pub, reason = "each test file uses some of it")]

use std::sync::{Arc, LazyLock};

use arrow::{
    array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch},
    datatypes::{DataType, Field, Int64Type, Schema, SchemaRef},
};
use datafusion::{
    catalog::MemTable,
    error::Result,
    execution::{
        disk_manager::{DiskManagerBuilder, DiskManagerMode},
        runtime_env::RuntimeEnvBuilder,
    },
    prelude::{SessionConfig, SessionContext, col},
};
use hud_functions::{SessionFacts, StackBatches, register};

pub const SECOND: i64 = 1_000_000_000;
/// 2023-11-14 22:13:20 UTC.
pub const START: i64 = 1_700_000_000 * SECOND;
pub const END: i64 = START + 60 * SECOND;

/// Runs a future to its end.
pub fn block<T>(future: impl Future<Output = T>) -> T {
    static RUNTIME: LazyLock<tokio::runtime::Runtime> = LazyLock::new(|| {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
    });
    RUNTIME.block_on(future)
}

/// A context with the functions, with this number of partitions and rows per batch.
pub fn context(partitions: usize, batch: usize) -> SessionContext {
    with_stacks(partitions, batch, None, StackBatches::default())
}

/// The same, with stacks, this number of bytes of memory, and no disk.
pub fn with_stacks(partitions: usize, batch: usize, memory: Option<usize>, stacks: StackBatches) -> SessionContext {
    let config = SessionConfig::new().with_target_partitions(partitions).with_batch_size(batch);
    let mut runtime = RuntimeEnvBuilder::new()
        .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled));
    if let Some(memory) = memory {
        runtime = runtime.with_memory_limit(memory, 1.0);
    }
    let context = SessionContext::new_with_config_rt(config, runtime.build_arc().expect("a runtime"));
    register(&context, &SessionFacts { start: START, end: END, stacks: Arc::new(stacks) }).expect("registered");
    context
}

/// A column that may be null.
pub fn integers(values: impl IntoIterator<Item = Option<i64>>) -> ArrayRef {
    Arc::new(Int64Array::from_iter(values))
}

pub fn int64(name: &str) -> Field {
    Field::new(name, DataType::Int64, true)
}

pub fn batch(schema: &SchemaRef, columns: Vec<ArrayRef>) -> RecordBatch {
    RecordBatch::try_new(Arc::clone(schema), columns).expect("columns fit")
}

/// Rows of nullable integers as batches of this number of rows.
pub fn batches(names: &[&str], rows: &[Vec<Option<i64>>], size: usize) -> (SchemaRef, Vec<RecordBatch>) {
    let schema: SchemaRef = Arc::new(Schema::new(names.iter().map(|name| int64(name)).collect::<Vec<_>>()));
    let made = rows.chunks(size.max(1)).map(|rows| {
        let columns = (0..names.len()).map(|at| integers(rows.iter().map(|row| row[at]))).collect();
        batch(&schema, columns)
    });
    let made = made.collect();
    (schema, made)
}

/// Registers rows as a table whose partitions are each sorted by ts, and say so.
pub fn sorted(
    context: &SessionContext,
    table: &str,
    names: &[&str],
    rows: &[Vec<Option<i64>>],
    size: usize,
    partitions: usize,
) {
    let mut parts = vec![Vec::new(); partitions.max(1)];
    // Alternating, so that the order over all partitions has to be merged.
    for (at, row) in rows.iter().enumerate() {
        let count = parts.len();
        parts[at % count].push(row.clone());
    }
    let (schema, _) = batches(names, &[], 1);
    let parts = parts.iter().map(|rows| batches(names, rows, size).1).collect();
    let table_of = MemTable::try_new(schema, parts).expect("a table");
    let table_of = table_of.with_sort_order(vec![vec![col("ts").sort(true, false)]]);
    context.register_table(table, Arc::new(table_of)).expect("registered");
}

/// Registers rows as a table without statistics or order.
pub fn unsorted(context: &SessionContext, table: &str, names: &[&str], rows: &[Vec<Option<i64>>], size: usize) {
    let (schema, batches) = batches(names, rows, size);
    let table_of = MemTable::try_new(schema, vec![batches]).expect("a table");
    context.register_table(table, Arc::new(table_of)).expect("registered");
}

/// The answer to a query.
pub fn ask(context: &SessionContext, sql: &str) -> Result<Vec<RecordBatch>> {
    block(async { context.sql(sql).await?.collect().await })
}

/// The integers of an answer, row by row.
pub fn rows(context: &SessionContext, sql: &str) -> Vec<Vec<Option<i64>>> {
    let answer = ask(context, sql).unwrap_or_else(|e| panic!("{sql}: {e}"));
    let mut rows = Vec::new();
    for batch in &answer {
        for row in 0..batch.num_rows() {
            let cell = |column: &ArrayRef| {
                let column = arrow::compute::cast(column, &DataType::Int64).expect("integers");
                let column = column.as_primitive::<Int64Type>();
                column.is_valid(row).then(|| column.value(row))
            };
            rows.push(batch.columns().iter().map(cell).collect());
        }
    }
    rows
}

/// The texts of the only column of an answer.
pub fn texts(context: &SessionContext, sql: &str) -> Vec<Option<String>> {
    let answer = ask(context, sql).unwrap_or_else(|e| panic!("{sql}: {e}"));
    answer
        .iter()
        .flat_map(|batch| {
            let column = arrow::compute::cast(batch.column(0), &DataType::Utf8).expect("text");
            column.as_string::<i32>().iter().map(|text| text.map(String::from)).collect::<Vec<_>>()
        })
        .collect()
}

/// Why a query failed.
pub fn failure(context: &SessionContext, sql: &str) -> String {
    match ask(context, sql) {
        Ok(answer) => panic!("{sql} gave {} batches", answer.len()),
        Err(error) => error.to_string(),
    }
}

/// The physical plan of a query.
pub fn plan(context: &SessionContext, sql: &str) -> String {
    let explained = ask(context, &format!("EXPLAIN {sql}")).unwrap_or_else(|e| panic!("{sql}: {e}"));
    let mut out = String::new();
    for batch in &explained {
        for row in 0..batch.num_rows() {
            if batch.column(0).as_string::<i32>().value(row) == "physical_plan" {
                out.push_str(batch.column(1).as_string::<i32>().value(row));
            }
        }
    }
    out
}
