//! The list of functions, for completion in the shell and for docs/SQL.md.

/// The kind of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FunctionKind {
    /// A value for each row.
    Scalar,
    /// A value for each group of rows.
    Aggregate,
    /// A table.
    Table,
}

/// The documentation of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FunctionDoc {
    /// What kind it is.
    pub kind: FunctionKind,
    /// Its name.
    pub name: &'static str,
    /// Its signature and result.
    pub signature: &'static str,
    /// Its purpose.
    pub about: &'static str,
    /// A call that works on any session.
    pub example: &'static str,
}

/// Every function of this crate, by kind.
pub fn catalog() -> &'static [FunctionDoc] {
    CATALOG
}

const CATALOG: &[FunctionDoc] = &[
    FunctionDoc {
        kind: FunctionKind::Scalar,
        name: "at",
        signature: "at(text) -> BIGINT",
        about: "A moment in ns since the epoch: '+12.5s' after the session's start, '-30s' before its end, '14:03:20' (UTC), \
                or RFC 3339.",
        example: "SELECT count(*) FROM polls WHERE ts >= at('+1s')",
    },
    FunctionDoc {
        kind: FunctionKind::Scalar,
        name: "ns",
        signature: "ns(text) -> BIGINT",
        about: "A duration in ns: '10ms', '1.5s', '2m 30s'.",
        example: "SELECT count(*) FROM polls WHERE dur > ns('10ms')",
    },
    FunctionDoc {
        kind: FunctionKind::Scalar,
        name: "human",
        signature: "human(ns) -> VARCHAR",
        about: "A duration for people, with three digits: '12.4 ms'.",
        example: "SELECT human(max(dur)) FROM polls",
    },
    FunctionDoc {
        kind: FunctionKind::Scalar,
        name: "clock",
        signature: "clock(ts) -> VARCHAR",
        about: "The time of day (UTC) to the millisecond: '14:03:20.123'.",
        example: "SELECT clock(min(ts)) FROM polls",
    },
    FunctionDoc {
        kind: FunctionKind::Scalar,
        name: "time_bucket",
        signature: "time_bucket(step, ts) -> BIGINT",
        about: "The start of the bucket that ts is in; step is ns or text like '10ms'. Keeps the order of ts, and prunes.",
        example: "SELECT time_bucket('100ms', ts) AS t, count(*) FROM polls GROUP BY t",
    },
    FunctionDoc {
        kind: FunctionKind::Scalar,
        name: "short_type",
        signature: "short_type(name) -> VARCHAR",
        about: "A type or function as people write it, without generics and what the compiler adds: 'app::handler'.",
        example: "SELECT short_type(raw_name) FROM task_types",
    },
    FunctionDoc {
        kind: FunctionKind::Scalar,
        name: "fold",
        signature: "fold(stack_id) -> VARCHAR",
        about: "A stack on one line, root first, inlined functions included: 'thread_start;app::main;app::handler'.",
        example: "SELECT fold(stack_id), total(weight) FROM samples GROUP BY stack_id",
    },
    FunctionDoc {
        kind: FunctionKind::Scalar,
        name: "frames_of",
        signature: "frames_of(stack_id) -> STRUCT(function, file, line, origin)[]",
        about: "The frames of a stack, leaf first.",
        example: "SELECT frames_of(stack_id)[1]['function'] AS leaf FROM stacks",
    },
    FunctionDoc {
        kind: FunctionKind::Scalar,
        name: "blame",
        signature: "blame(stack_id) -> STRUCT(function, file, line, origin)",
        about: "The frame that a stack is blamed on: the first own one from the leaf, else of a dependency or tokio, else the \
                leaf.",
        example: "SELECT blame(stack_id)['function'] AS f, count(*) FROM samples GROUP BY stack_id",
    },
    FunctionDoc {
        kind: FunctionKind::Aggregate,
        name: "quantile",
        signature: "quantile(x, q) -> BIGINT",
        about: "The q-quantile (0 to 1, constant) of integers, within 3.1 %; negative values count as 0.",
        example: "SELECT quantile(dur, 0.99) FROM polls",
    },
    FunctionDoc {
        kind: FunctionKind::Aggregate,
        name: "quantiles",
        signature: "quantiles(x, q, …) -> BIGINT[]",
        about: "Several quantiles in one pass, in the order asked for.",
        example: "SELECT quantiles(dur, 0.5, 0.9, 0.99) FROM polls",
    },
    FunctionDoc {
        kind: FunctionKind::Aggregate,
        name: "histogram",
        signature: "histogram(x) -> STRUCT(lower, upper, count)[]",
        about: "How many values are in each of the cockpit's buckets, 16 an octave, both ends included; without empty ones.",
        example: "SELECT unnest(histogram(dur)) FROM polls",
    },
    FunctionDoc {
        kind: FunctionKind::Aggregate,
        name: "total",
        signature: "total(x) -> BIGINT",
        about: "The sum of integers, exact; past what a BIGINT holds it is the most that it holds, where sum wraps.",
        example: "SELECT total(dur) FROM polls",
    },
    FunctionDoc {
        kind: FunctionKind::Table,
        name: "asof",
        signature: "asof('left', 'right', 'key', …) -> TABLE",
        about: "Every row of left, with the last row of right that is not later and has the same key: its columns are null \
                where there is none, those whose names left has as well end in _right, its keys are left out. A key may be \
                'a = b'.",
        example: "SELECT ts, task_id, ts - ts_right AS since_wake FROM asof('polls', 'wakes', 'task_id')",
    },
    FunctionDoc {
        kind: FunctionKind::Table,
        name: "within",
        signature: "within('left', 'right', 'key', …) -> TABLE",
        about: "Every row of left, with the innermost row of right of the same key in whose interval, from ts to before \
                ts + dur, it lies; columns as those of asof.",
        example: "SELECT ts, stack_id, ts_right AS poll FROM within('samples', 'polls', 'tid')",
    },
    FunctionDoc {
        kind: FunctionKind::Table,
        name: "stack_frames",
        signature: "stack_frames() -> TABLE(stack_id, depth, frame_id, function, file, line, origin, module)",
        about: "Every frame of every stack; depth 1 is the leaf, so that frame_ids[depth] is the frame.",
        example: "SELECT function, count(DISTINCT stack_id) FROM stack_frames() GROUP BY function",
    },
];
