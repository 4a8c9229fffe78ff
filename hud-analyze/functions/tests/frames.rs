//! Stacks: compared with a slow reading of the same rows and with the SQL of `hotspots`, and hostile names.
#![allow(clippy::expect_used, reason = "a helper of a test fails as the test does")]

mod support;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use arrow::{
    array::{Array, ArrayRef, AsArray, Int32Array, Int64Array, Int64Builder, ListBuilder, RecordBatch, StringArray},
    compute::cast,
    datatypes::{DataType, Int32Type, Int64Type},
};
use datafusion::{catalog::MemTable, error::Result, prelude::SessionContext};
use hud_common::session::Table;
use hud_functions::{NamesBuilder, SessionFacts, StackBatches, StackSource, register};
use proptest::prelude::*;
use support::{ask, context, failure, plan, rows, texts, with_stacks};

/// A frame: id, module, function, file, line, origin.
type Frame = (i64, Option<i64>, Option<String>, Option<String>, Option<i32>, Option<&'static str>);

/// A session's stacks.
#[derive(Clone, Debug, Default)]
struct Made {
    stacks: Vec<(i64, Vec<i64>)>,
    frames: Vec<Frame>,
    modules: Vec<(i64, String)>,
}

impl Made {
    fn batches(&self) -> StackBatches {
        let of = |table: Table, known: Vec<(&str, ArrayRef)>| {
            let rows = known[0].1.len();
            let schema = table.schema();
            let known: BTreeMap<_, _> = known.into_iter().collect();
            let columns = schema.fields().iter().map(|field| match known.get(field.name().as_str()) {
                Some(column) => Arc::clone(column),
                None if field.is_nullable() => arrow::array::new_null_array(field.data_type(), rows),
                None if *field.data_type() == DataType::Utf8 => {
                    Arc::new(StringArray::from(vec!["x"; rows])) as ArrayRef
                }
                None => cast(&Int64Array::from(vec![0; rows]), field.data_type()).expect("a number"),
            });
            let columns = columns.collect();
            vec![RecordBatch::try_new(schema, columns).expect("a batch")]
        };
        let mut lists = ListBuilder::new(Int64Builder::new());
        for (_, ids) in &self.stacks {
            lists.values().append_slice(ids);
            lists.append(true);
        }
        let text = |each: Vec<Option<String>>| Arc::new(StringArray::from(each)) as ArrayRef;
        let f = &self.frames;
        StackBatches {
            stacks: of(
                Table::Stacks,
                vec![
                    ("stack_id", Arc::new(self.stacks.iter().map(|s| s.0).collect::<Int64Array>())),
                    ("frame_ids", Arc::new(lists.finish())),
                ],
            ),
            frames: of(
                Table::Frames,
                vec![
                    ("frame_id", Arc::new(f.iter().map(|f| f.0).collect::<Int64Array>())),
                    ("module_id", Arc::new(f.iter().map(|f| f.1).collect::<Int64Array>())),
                    ("function", text(f.iter().map(|f| f.2.clone()).collect())),
                    ("file", text(f.iter().map(|f| f.3.clone()).collect())),
                    ("line", Arc::new(f.iter().map(|f| f.4).collect::<Int32Array>())),
                    ("origin", text(f.iter().map(|f| f.5.map(String::from)).collect())),
                ],
            ),
            modules: of(
                Table::Modules,
                vec![
                    ("module_id", Arc::new(self.modules.iter().map(|m| m.0).collect::<Int64Array>())),
                    ("path", text(self.modules.iter().map(|m| Some(m.1.clone())).collect())),
                ],
            ),
        }
    }

    fn context(&self) -> SessionContext {
        let batches = self.batches();
        let context = with_stacks(2, 4, None, batches.clone());
        for (table, batches) in
            [(Table::Stacks, batches.stacks), (Table::Frames, batches.frames), (Table::Modules, batches.modules)]
        {
            let table_of = MemTable::try_new(table.schema(), vec![batches]).expect("a table");
            context.register_table(table.name(), Arc::new(table_of)).expect("registered");
        }
        context
    }

    fn frame(&self, id: i64) -> Option<&Frame> {
        self.frames.iter().find(|frame| frame.0 == id)
    }

    fn shown(&self, id: i64) -> String {
        let Some((_, module, function, ..)) = self.frame(id) else { return "<unknown>".into() };
        if let Some(function) = function {
            return function.clone();
        }
        let path = self.modules.iter().filter(|(id, _)| Some(*id) == *module).map(|(_, path)| path).min();
        path.map_or("<unknown>".into(), |path| format!("<{}>", path.rsplit('/').next().unwrap_or(path)))
    }

    fn blamed(&self, ids: &[i64]) -> Option<&Frame> {
        let named = |wanted: &'static [&'static str]| {
            ids.iter()
                .filter_map(|id| self.frame(*id))
                .find(move |f| f.2.is_some() && f.5.is_some_and(|o| wanted.contains(&o)))
        };
        named(&["own"]).or_else(|| named(&["dependency", "tokio"])).or_else(|| self.frame(*ids.first()?))
    }
}

fn example() -> Made {
    let frame = |id, function: &str, origin| {
        (id, Some(1), Some(function.into()), Some("src/main.rs".into()), Some(7), Some(origin))
    };
    Made {
        stacks: vec![(10, vec![1, 2, 3]), (11, vec![4, 5]), (12, vec![6]), (13, vec![]), (14, vec![99, 3])],
        frames: vec![
            frame(1, "core::ptr::read", "std"),
            frame(2, "app::handler", "own"),
            frame(3, "app;main\u{1b}[2J", "own"),
            (4, Some(2), None, None, None, Some("libc")),
            frame(5, "serde::parse", "dependency"),
            (6, None, None, None, None, None),
        ],
        modules: vec![(1, "/usr/bin/app".into()), (2, "/lib/z.so".into()), (2, "/lib/a.so".into())],
    }
}

#[test]
fn stacks_fold_root_first_and_clean() {
    let context = example().context();
    assert_eq!(
        texts(&context, "SELECT fold(stack_id) FROM stacks ORDER BY stack_id"),
        [
            Some("app:main\\x1b[2J;app::handler;core::ptr::read".into()),
            Some("serde::parse;<a.so>".into()),
            Some("<unknown>".into()),
            Some(String::new()),
            Some("app:main\\x1b[2J;<unknown>".into()),
        ]
    );
    assert_eq!(
        texts(&context, "SELECT fold(x) FROM (VALUES (12), (NULL), (77)) v(x)"),
        [Some("<unknown>".into()), None, None]
    );
    assert_eq!(texts(&context, "SELECT fold(11)"), [Some("serde::parse;<a.so>".into())]);
}

#[test]
fn blame_prefers_own_code_then_near_code_then_the_leaf() {
    let context = example().context();
    assert_eq!(
        texts(&context, "SELECT blame(stack_id)['function'] FROM stacks ORDER BY stack_id"),
        [
            Some("app::handler".into()),
            Some("serde::parse".into()),
            Some("<unknown>".into()),
            None,
            Some("app;main\u{1b}[2J".into()),
        ]
    );
    let place =
        "SELECT blame(10)['line'], blame(10)['file'] = 'src/main.rs', blame(10)['origin'] = 'own', blame(13) IS NULL";
    assert_eq!(rows(&context, place), [[Some(7), Some(1), Some(1), Some(1)]]);
}

#[test]
fn frames_come_leaf_first_and_as_rows() {
    let context = example().context();
    assert_eq!(texts(&context, "SELECT frames_of(11)[1]['function']"), [Some("<a.so>".into())]);
    assert_eq!(
        rows(&context, "SELECT cardinality(frames_of(stack_id)) FROM stacks WHERE stack_id < 13 ORDER BY stack_id"),
        [[Some(3)], [Some(2)], [Some(1)]]
    );
    assert_eq!(rows(&context, "SELECT frames_of(77) IS NULL, frames_of(NULL) IS NULL"), [[Some(1), Some(1)]]);
    let all = "SELECT stack_id, depth, frame_id FROM stack_frames()";
    assert_eq!(
        rows(&context, all),
        [[10, 1, 1], [10, 2, 2], [10, 3, 3], [11, 1, 4], [11, 2, 5], [12, 1, 6], [14, 1, 99], [14, 2, 3]]
            .map(|row| row.map(Some))
    );
    let explained = plan(&context, &format!("{all} ORDER BY stack_id, depth"));
    assert!(!explained.contains("SortExec"), "{explained}");
    assert_eq!(
        texts(&context, "SELECT module FROM stack_frames() WHERE stack_id = 11 ORDER BY depth"),
        [Some("/lib/a.so".into()), Some("/usr/bin/app".into())]
    );
    assert!(failure(&context, "SELECT * FROM stack_frames(1)").contains("takes no arguments"));
}

#[derive(Debug, Default)]
struct Counting {
    loads: Arc<AtomicUsize>,
    failures: usize,
}

impl StackSource for Counting {
    fn load(&self, names: &mut NamesBuilder) -> Result<()> {
        if self.loads.fetch_add(1, Ordering::Relaxed) < self.failures {
            return Err(datafusion::common::exec_datafusion_err!("the disk is gone"));
        }
        example().batches().load(names)
    }
}

#[test]
fn names_are_loaded_once_and_only_when_asked_for() {
    let context = context(2, 4);
    let loads = Arc::new(AtomicUsize::new(0));
    let stacks = Arc::new(Counting { loads: Arc::clone(&loads), failures: 1 });
    register(&context, &SessionFacts { start: 0, end: 1, stacks }).expect("registered");
    ask(&context, "SELECT fold(NULL), fold(x) FROM (VALUES (CAST(NULL AS BIGINT))) v(x)").expect("nulls need no names");
    assert_eq!(loads.load(Ordering::Relaxed), 0);
    assert!(
        failure(&context, "SELECT count(*) FROM (SELECT DISTINCT function FROM stack_frames())")
            .contains("the disk is gone")
    );
    for _ in 0..3 {
        assert_eq!(rows(&context, "SELECT count(*) FROM stack_frames() WHERE function IS NOT NULL"), [[Some(8)]]);
        assert_eq!(
            texts(&context, "SELECT blame(x)['function'] FROM (VALUES (10)) v(x)"),
            [Some("app::handler".into())]
        );
    }
    assert_eq!(loads.load(Ordering::Relaxed), 2);
}

#[test]
fn names_are_held_within_the_memory_pool() {
    let made = Made {
        stacks: (0..2_000).map(|id| (id, (0..50).collect())).collect(),
        frames: (0..50).map(|id| (id, None, Some(format!("app::f{id}")), None, None, Some("own"))).collect(),
        modules: Vec::new(),
    };
    let tight = with_stacks(1, 8192, Some(300_000), made.batches());
    let why = failure(&tight, "SELECT fold(x) FROM (VALUES (1), (2)) v(x)");
    assert!(why.contains("names of stacks") && why.contains("Resources exhausted"), "{why}");
    let enough = with_stacks(1, 8192, Some(4_000_000), made.batches());
    ask(&enough, "SELECT fold(x) FROM (VALUES (1), (2)) v(x)").expect("there is room");
    assert!(enough.runtime_env().memory_pool.reserved() > 800_000, "loaded names stay reserved");
    // One batch that would take more memory than there is.
    let why =
        failure(&enough, "SELECT max(length(fold(CAST(value AS BIGINT) % 2000))) FROM generate_series(1, 100000)");
    assert!(why.contains("Resources exhausted") && why.contains("fold"), "{why}");
}

/// The part of `queries/hotspots.sql` that attributes a stack to a frame, word for word.
const HOTSPOTS: &str = "
WITH frame AS (
    SELECT f.frame_id, coalesce(f.function, '<' || split_part(m.path, '/', -1) || '>', '<unknown>') AS function,
           f.file, f.line, f.origin, f.function IS NOT NULL AS is_named
    FROM frames f
    LEFT JOIN (SELECT module_id, min(path) AS path FROM modules GROUP BY module_id) m ON m.module_id = f.module_id
),
placed AS (
    SELECT stack_id, unnest(frame_ids) AS frame_id,
           unnest(generate_series(1, CAST(array_length(frame_ids) AS BIGINT))) AS depth
    FROM stacks
),
blame AS (
    SELECT s.stack_id, s.frame_ids[coalesce(d.own, d.near, 1)] AS frame_id, d.own IS NOT NULL AS is_own,
           s.frame_ids[1] AS leaf_id
    FROM stacks s
    LEFT JOIN (
        SELECT p.stack_id, min(CASE WHEN f.origin = 'own' THEN p.depth END) AS own,
               min(CASE WHEN f.origin IN ('dependency', 'tokio') THEN p.depth END) AS near
        FROM placed p
        JOIN frame f ON f.frame_id = p.frame_id
        WHERE f.is_named
        GROUP BY p.stack_id
    ) d ON d.stack_id = s.stack_id
)
SELECT f.function FROM blame b LEFT JOIN frame f ON f.frame_id = b.frame_id ORDER BY b.stack_id";

fn made() -> impl Strategy<Value = Made> {
    let name = || prop::option::of("[a-z:;<>]{0,8}|\\PC{0,5}");
    let origin =
        prop::sample::select(vec![None, Some("own"), Some("dependency"), Some("tokio"), Some("std"), Some("libc")]);
    let frame = (prop::option::of(0..4_i64), name(), name(), prop::option::of(any::<i32>()), origin);
    let frames = prop::collection::btree_map(0..12_i64, frame, 0..10);
    let stacks = prop::collection::btree_map(-5..20_i64, prop::collection::vec(0..14_i64, 0..8), 1..12);
    let modules = prop::collection::vec((0..4_i64, "[a-z/]{0,10}"), 0..5);
    (stacks, frames, modules).prop_map(|(stacks, frames, modules)| Made {
        stacks: stacks.into_iter().collect(),
        frames: frames.into_iter().map(|(id, (m, function, file, line, o))| (id, m, function, file, line, o)).collect(),
        modules,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn functions_of_stacks_agree_with_their_rows(made in made()) {
        let context = made.context();
        let folded: Vec<_> = made.stacks.iter().map(|(_, ids)| {
            let parts: Vec<_> = ids.iter().rev().map(|id| {
                let cleaned = hud_common::clean(&made.shown(*id)).replace(';', ":");
                if cleaned.is_empty() { "<unknown>".to_owned() } else { cleaned }
            }).collect();
            Some(parts.join(";"))
        }).collect();
        prop_assert_eq!(texts(&context, "SELECT fold(stack_id) FROM stacks ORDER BY stack_id"), folded);

        let blamed: Vec<_> = made.stacks.iter().map(|(_, ids)| made.blamed(ids).map(|f| made.shown(f.0))).collect();
        let found = texts(&context, "SELECT blame(stack_id)['function'] FROM stacks ORDER BY stack_id");
        prop_assert_eq!(&found, &blamed);
        prop_assert_eq!(found, texts(&context, HOTSPOTS));

        let answer = ask(&context, "SELECT stack_id, depth, frame_id, function, line FROM stack_frames()").expect("rows");
        let mut seen = Vec::new();
        for batch in &answer {
            prop_assert!(batch.num_rows() <= 4);
            let int = |at: usize| batch.column(at).as_primitive::<Int64Type>();
            for row in 0..batch.num_rows() {
                let line = batch.column(4).as_primitive::<Int32Type>();
                seen.push((
                    int(0).value(row),
                    batch.column(1).as_primitive::<Int32Type>().value(row),
                    int(2).value(row),
                    batch.column(3).as_string::<i32>().value(row).to_owned(),
                    line.is_valid(row).then(|| line.value(row)),
                ));
            }
        }
        let slow: Vec<_> = made.stacks.iter().flat_map(|(stack, ids)| {
            (1..).zip(ids).map(|(depth, id)| (*stack, depth, *id, made.shown(*id), made.frame(*id).and_then(|f| f.4)))
        }).collect();
        prop_assert_eq!(seen, slow);
    }
}
