//! Limits for functions whose results can be far larger than their arguments.
//!
//! DataFusion's memory pool covers sorts, joins and aggregates, but not what a scalar function allocates for a batch of
//! rows: `repeat('x', 2000000000)` takes 2 GB with `--memory 200M`, and the same for 8,192 rows ends in a panic. Here
//! each of these functions first computes the size of its result, and fails instead of allocating it.
//!
//! The functions are replaced in the analyzed plan, not in the registry: operators such as `||` and array literals are
//! planned as functions that bypass the registry.

use std::{hash::Hash, sync::Arc};

use arrow::{
    array::{Array as _, ArrayRef, AsArray as _, RecordBatch},
    compute::{cast, concat},
    datatypes::{DataType, Field, FieldRef, Int64Type, IntervalMonthDayNanoType, Schema, TimeUnit},
};
use datafusion::{
    common::{DFSchema, ScalarValue, plan_err, tree_node::Transformed},
    config::ConfigOptions,
    error::{DataFusionError, Result},
    execution::FunctionRegistry as _,
    logical_expr::{
        BinaryExpr, ColumnarValue, Expr, ExprSchemable as _, Operator, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF,
        ScalarUDFImpl, Signature, Volatility, binary::BinaryTypeCoercer, expr::ScalarFunction,
        expr_rewriter::FunctionRewrite,
    },
    physical_expr::{PhysicalExpr as _, expressions},
    prelude::SessionContext,
};
use hud_common::units::size;

/// Bytes of one element of a list, in the list and as a row of its own: `unnest` repeats the other columns.
const ELEMENT: u64 = 64;

/// Limits every result of a function that SQL calls through `context`, for one batch of rows, to `limit` bytes.
pub fn hold(context: &SessionContext, limit: usize) -> Result<()> {
    let limit = u64::try_from(limit).unwrap_or(u64::MAX);
    // A clone shares its state.
    context.clone().register_function_rewrite(Arc::new(Hold { limit }))
}

#[derive(Debug)]
struct Hold {
    limit: u64,
}

impl FunctionRewrite for Hold {
    fn name(&self) -> &'static str {
        "hold_results_to_a_bound"
    }

    fn rewrite(&self, expr: Expr, schema: &DFSchema, _: &ConfigOptions) -> Result<Transformed<Expr>> {
        let limit = self.limit;
        match expr {
            Expr::ScalarFunction(ScalarFunction { func, args }) => match Growth::of(func.name()) {
                Some(growth) if !func.inner().is::<Bounded>() => {
                    let bounded = Bounded { inner: func, growth, limit };
                    Ok(Transformed::yes(Expr::ScalarFunction(ScalarFunction::new_udf(
                        Arc::new(ScalarUDF::new_from_impl(bounded)),
                        args,
                    ))))
                }
                _ => Ok(Transformed::no(Expr::ScalarFunction(ScalarFunction { func, args }))),
            },
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::StringConcat, right })
                if is_text(&left.get_type(schema)?) || is_text(&right.get_type(schema)?) =>
            {
                let inner = Arc::new(ScalarUDF::new_from_impl(Concatenation::new()));
                let bounded = Bounded { inner, growth: Growth::Sum, limit };
                Ok(Transformed::yes(Expr::ScalarFunction(ScalarFunction::new_udf(
                    Arc::new(ScalarUDF::new_from_impl(bounded)),
                    vec![*left, *right],
                ))))
            }
            other => Ok(Transformed::no(other)),
        }
    }
}

fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

/// Largest size of a function's result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Growth {
    /// A text repeated a given number of times.
    Repeat,
    /// A text of a given number of characters.
    Pad,
    /// A list of all values from one to another.
    Series,
    /// An element repeated a given number of times.
    RepeatElement,
    /// A list of a given number of elements.
    Resize,
    /// Each occurrence in a text replaced; the upper bound from the arguments is far above the usual result.
    Replace,
    /// The sum of all arguments.
    Sum,
    /// The sum of all arguments, and the first one between each two.
    Separated,
    /// A list as text, with separators.
    ListAsText,
}

impl Growth {
    /// Of a function by its name; none if its result is about as large as its arguments.
    fn of(function: &str) -> Option<Self> {
        Some(match function {
            "repeat" => Growth::Repeat,
            "lpad" | "rpad" => Growth::Pad,
            "range" | "generate_series" => Growth::Series,
            "array_repeat" => Growth::RepeatElement,
            "array_resize" => Growth::Resize,
            "replace" | "regexp_replace" => Growth::Replace,
            "concat" | "overlay" | "make_array" | "array_concat" | "array_append" | "array_prepend" => Growth::Sum,
            "concat_ws" => Growth::Separated,
            "array_to_string" => Growth::ListAsText,
            _ => return None,
        })
    }

    /// The largest result for a row (bytes).
    fn bytes(self, args: &[Argument], row: usize) -> u64 {
        let size = |at: usize| args.get(at).map_or(0, |arg| arg.bytes(row));
        let count = |at: usize| args.get(at).map_or(0, |arg| arg.count(row));
        let sum = || args.iter().map(|arg| arg.bytes(row)).fold(0, u64::saturating_add);
        match self {
            Growth::Repeat => size(0).saturating_mul(count(1)),
            // A character takes up to four bytes.
            Growth::Pad => count(1).saturating_mul(if args.get(2).is_some() { 4 } else { 1 }).saturating_add(size(0)),
            Growth::Series => series(args, row).saturating_mul(ELEMENT),
            Growth::RepeatElement => size(0).max(8).saturating_mul(count(1)),
            Growth::Resize => size(2).max(8).saturating_mul(count(1)).saturating_add(size(0)),
            Growth::Replace => size(0).saturating_add(1).saturating_mul(size(2).max(1)),
            Growth::Sum => sum(),
            Growth::Separated => sum().saturating_add(size(0).saturating_mul(args.len() as u64)),
            Growth::ListAsText => {
                let separators = size(1).saturating_add(size(2)).saturating_add(24);
                size(0).saturating_add(args.first().map_or(0, |list| list.elements(row)).saturating_mul(separators))
            }
        }
    }

    /// Whether the result can be much smaller than [`Growth::bytes`].
    fn is_rough(self) -> bool {
        matches!(self, Growth::Replace | Growth::Pad)
    }
}

/// An argument of a function; a constant is a single row.
struct Argument {
    array: ArrayRef,
    is_constant: bool,
    /// As integers, if possible.
    integers: Option<ArrayRef>,
}

impl Argument {
    fn new(value: &ColumnarValue) -> Result<Self> {
        let (array, is_constant) = match value {
            ColumnarValue::Array(array) => (Arc::clone(array), false),
            ColumnarValue::Scalar(scalar) => (scalar.to_array()?, true),
        };
        let integers = match array.data_type() {
            t if t.is_integer() => Some(cast(&array, &DataType::Int64)?),
            _ => None,
        };
        Ok(Argument { array, is_constant, integers })
    }

    fn at(&self, row: usize) -> usize {
        if self.is_constant { 0 } else { row }
    }

    /// Size of a value.
    fn bytes(&self, row: usize) -> u64 {
        let row = self.at(row);
        if self.array.is_null(row) {
            return 0;
        }
        let size = match self.array.data_type() {
            DataType::Null => 0,
            DataType::Utf8 => self.array.as_string::<i32>().value(row).len(),
            DataType::LargeUtf8 => self.array.as_string::<i64>().value(row).len(),
            DataType::Utf8View => self.array.as_string_view().value(row).len(),
            other => match other.primitive_width() {
                Some(width) => width,
                None => self.array.slice(row, 1).to_data().get_slice_memory_size().unwrap_or(usize::MAX),
            },
        };
        size as u64
    }

    /// An integer; 0 if it is none, or negative.
    fn count(&self, row: usize) -> u64 {
        u64::try_from(self.integer(row).unwrap_or(0)).unwrap_or(0)
    }

    fn integer(&self, row: usize) -> Option<i64> {
        let row = self.at(row);
        let integers = self.integers.as_ref()?.as_primitive::<Int64Type>();
        (!integers.is_null(row)).then(|| integers.value(row))
    }

    /// Elements of a list and of the lists in it.
    fn elements(&self, row: usize) -> u64 {
        fn all(array: &ArrayRef) -> u64 {
            let inner = match array.data_type() {
                DataType::List(_) => Some(array.as_list::<i32>().iter().flatten().map(|l| all(&l)).sum()),
                DataType::LargeList(_) => Some(array.as_list::<i64>().iter().flatten().map(|l| all(&l)).sum()),
                DataType::FixedSizeList(..) => Some(array.as_fixed_size_list().iter().flatten().map(|l| all(&l)).sum()),
                _ => None,
            };
            inner.unwrap_or(array.len() as u64)
        }
        all(&self.array.slice(self.at(row), 1))
    }

    /// A date or a time (ns since the Unix epoch).
    fn moment(&self, row: usize) -> Option<i128> {
        let row = self.at(row);
        let scale: i128 = match self.array.data_type() {
            DataType::Date32 => DAY,
            DataType::Date64 | DataType::Timestamp(TimeUnit::Millisecond, _) => 1_000_000,
            DataType::Timestamp(TimeUnit::Second, _) => 1_000_000_000,
            DataType::Timestamp(TimeUnit::Microsecond, _) => 1_000,
            DataType::Timestamp(TimeUnit::Nanosecond, _) => 1,
            _ => return None,
        };
        let integers = cast(&self.array.slice(row, 1), &DataType::Int64).ok()?;
        (!integers.is_null(0)).then(|| i128::from(integers.as_primitive::<Int64Type>().value(0)) * scale)
    }
}

/// A day (ns).
const DAY: i128 = 86_400_000_000_000;

/// Most elements of a series.
fn series(args: &[Argument], row: usize) -> u64 {
    let (way, step) = match args {
        [end] => (end.integer(row).map(i128::from), Some(1)),
        [start, end] => (distance(start.integer(row), end.integer(row)), Some(1)),
        [start, end, step] if step.integers.is_some() => {
            (distance(start.integer(row), end.integer(row)), step.integer(row).map(i128::from))
        }
        [start, end, step] => {
            let way = start.moment(row).zip(end.moment(row)).map(|(start, end)| end - start);
            let step = step.array.as_primitive_opt::<IntervalMonthDayNanoType>().zip(Some(step.at(row)));
            let step = step.filter(|(steps, row)| !steps.is_null(*row)).map(|(steps, row)| steps.value(row));
            // The smallest step: months of 28 days, days of 23 hours.
            let parts = step.map(|s| {
                [i128::from(s.months) * 28 * DAY, i128::from(s.days) * (DAY / 24 * 23), i128::from(s.nanoseconds)]
            });
            let is_mixed = parts.is_some_and(|p| p.iter().any(|p| *p < 0) && p.iter().any(|p| *p > 0));
            let sum = parts.map(|p| p.iter().sum::<i128>());
            (way, if is_mixed { way.map(i128::signum) } else { sum })
        }
        _ => (None, None),
    };
    match (way, step) {
        (Some(way), Some(step)) if step != 0 && way.signum() * step.signum() >= 0 => {
            u64::try_from((way / step).saturating_add(1)).unwrap_or(u64::MAX)
        }
        _ => 0,
    }
}

fn distance(start: Option<i64>, end: Option<i64>) -> Option<i128> {
    start.zip(end).map(|(start, end)| i128::from(end) - i128::from(start))
}

/// A function that fails if its result would be too large.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Bounded {
    inner: Arc<ScalarUDF>,
    growth: Growth,
    limit: u64,
}

impl Bounded {
    fn too_large(&self, bytes: u64) -> DataFusionError {
        DataFusionError::ResourcesExhausted(format!(
            "{} would give up to {} for one batch of rows, and a function may give {}; ask for less, or give more by \
             --memory",
            self.inner.name(),
            size(bytes),
            size(self.limit)
        ))
    }

    /// In parts within the limit: for functions whose results are far smaller than the bound.
    fn invoke_in_parts(&self, args: &ScalarFunctionArgs, sizes: &[u64]) -> Result<ColumnarValue> {
        let mut parts: Vec<ArrayRef> = Vec::new();
        let (mut from, mut given) = (0, 0_u64);
        while from < sizes.len() {
            let mut most = 0_u64;
            let fitting = sizes.iter().skip(from).take_while(|size| {
                most = most.saturating_add(**size);
                most <= self.limit
            });
            let rows = fitting.count();
            if rows == 0 {
                return Err(self.too_large(sizes.get(from).copied().unwrap_or(0)));
            }
            let slice = |value: &ColumnarValue| match value {
                ColumnarValue::Array(array) => ColumnarValue::Array(array.slice(from, rows)),
                ColumnarValue::Scalar(scalar) => ColumnarValue::Scalar(scalar.clone()),
            };
            let part =
                ScalarFunctionArgs { args: args.args.iter().map(slice).collect(), number_rows: rows, ..args.clone() };
            let part = self.inner.invoke_with_args(part)?.into_array(rows)?;
            given = given.saturating_add(part.to_data().get_slice_memory_size()? as u64);
            if given > self.limit {
                return Err(self.too_large(given));
            }
            parts.push(part);
            from += rows;
        }
        let parts: Vec<_> = parts.iter().map(AsRef::as_ref).collect();
        Ok(ColumnarValue::Array(concat(&parts)?))
    }
}

impl ScalarUDFImpl for Bounded {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        self.inner.return_type(arguments)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        self.inner.return_field_from_args(args)
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(arguments)
    }

    fn is_strict(&self) -> bool {
        self.inner.inner().is_strict()
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arguments = args.args.iter().map(Argument::new).collect::<Result<Vec<_>>>()?;
        if arguments.iter().all(|argument| argument.is_constant) {
            // The operator that takes it may expand it for each row.
            let bytes = self.growth.bytes(&arguments, 0).saturating_mul(args.number_rows.max(1) as u64);
            if bytes > self.limit {
                return Err(self.too_large(bytes));
            }
            return self.inner.invoke_with_args(args);
        }
        let sizes: Vec<u64> = (0..args.number_rows).map(|row| self.growth.bytes(&arguments, row)).collect();
        let all = sizes.iter().copied().fold(0, u64::saturating_add);
        match all <= self.limit {
            true => self.inner.invoke_with_args(args),
            false if self.growth.is_rough() => self.invoke_in_parts(&args, &sizes),
            false => Err(self.too_large(all)),
        }
    }
}

/// The operator `||` of texts, as a function.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Concatenation {
    signature: Signature,
}

impl Concatenation {
    fn new() -> Self {
        Concatenation { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Concatenation {
    fn name(&self) -> &'static str {
        "||"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        let [left, right] = arguments else { return plan_err!("|| takes two arguments") };
        BinaryTypeCoercer::new(left, &Operator::StringConcat, right).get_result_type()
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        let [left, right] = arguments else { return plan_err!("|| takes two arguments") };
        let (left, right) = BinaryTypeCoercer::new(left, &Operator::StringConcat, right).get_input_types()?;
        Ok(vec![left, right])
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let is_constant = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if is_constant { 1 } else { args.number_rows };
        let arrays = args.args.into_iter().map(|arg| arg.into_array(rows)).collect::<Result<Vec<_>>>()?;
        let field = |(at, array): (usize, &ArrayRef)| Field::new(at.to_string(), array.data_type().clone(), true);
        let schema = Schema::new(arrays.iter().enumerate().map(field).collect::<Vec<_>>());
        let batch = RecordBatch::try_new(Arc::new(schema), arrays)?;
        let column = |at: usize| Arc::new(expressions::Column::new(&at.to_string(), at));
        let joined = expressions::BinaryExpr::new(column(0), Operator::StringConcat, column(1)).evaluate(&batch)?;
        match is_constant {
            true => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&joined.into_array(1)?, 0)?)),
            false => Ok(joined),
        }
    }
}
