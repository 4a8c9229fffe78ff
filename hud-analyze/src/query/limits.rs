//! Limits of statements: nesting, access to files, memory, and that they can be cancelled.

use std::{
    fmt,
    hash::{Hash, Hasher},
    ops::ControlFlow,
    sync::Arc,
};

use arrow::{
    array::RecordBatch,
    datatypes::{DataType, Schema},
};
use datafusion::{
    common::{
        ScalarValue, exec_err, internal_err,
        tree_node::{Transformed, TransformedResult as _, TreeNode as _, TreeNodeRecursion},
    },
    error::Result as PlanResult,
    execution::context::SQLOptions,
    logical_expr::{self, ColumnarValue, DdlStatement, Expr, LogicalPlan},
    physical_expr::PhysicalExpr,
    physical_plan::{
        ExecutionPlan,
        coop::CooperativeExec,
        joins::{NestedLoopJoinExec, NestedLoopJoinExecBuilder, utils::JoinFilter},
    },
    sql::{
        parser::Statement,
        sqlparser::{
            ast::{self, VisitMut as _, VisitorMut},
            dialect::GenericDialect,
            keywords::Keyword,
            tokenizer::{Token, Tokenizer},
        },
    },
};
use hud_shell::Control;

use crate::error::{Error, Result};

/// Maximum length of a chain of operators, such as `1 + 1 + 1`: the parser nests them, and nested expressions are evaluated
/// recursively. 20,000 overflowed a stack of 8 MiB, and the time for planning grows with the square of their number.
const MOST_OPERATORS: usize = 1_000;
/// Maximum number of queries and joins in a statement, for the same reason.
const MOST_RELATIONS: usize = 500;
/// Rows per batch (`datafusion.execution.batch_size`): a constant may be copied for each of them.
const BATCH: usize = 8_192;
/// Size of constants that are always allowed, in bytes.
const SMALL_CONSTANT: usize = 1 << 10;

/// Refuses a text that is nested too deeply, before it is parsed.
pub(crate) fn check_text(sql: &str) -> Result<()> {
    // The parser reports invalid tokens.
    let Ok(tokens) = Tokenizer::new(&GenericDialect {}, sql).tokenize() else { return Ok(()) };
    let mut chains = Chains::default();
    let mut relations = 0;
    for token in tokens {
        match token {
            Token::LParen | Token::LBracket => chains.open(),
            Token::RParen | Token::RBracket => chains.close(),
            Token::Comma => chains.end(),
            Token::SemiColon => (chains, relations) = (Chains::default(), 0),
            Token::Word(word) => match word.keyword {
                Keyword::SELECT | Keyword::JOIN | Keyword::UNION | Keyword::EXCEPT | Keyword::INTERSECT => {
                    relations += 1;
                }
                Keyword::AND
                | Keyword::OR
                | Keyword::NOT
                | Keyword::IS
                | Keyword::IN
                | Keyword::LIKE
                | Keyword::ILIKE
                | Keyword::BETWEEN
                | Keyword::COLLATE
                | Keyword::DIV
                | Keyword::XOR
                | Keyword::AT => chains.operator(),
                _ => {}
            },
            Token::Whitespace(_)
            | Token::Period
            | Token::Number(..)
            | Token::SingleQuotedString(_)
            | Token::DoubleQuotedString(_)
            | Token::EOF => {}
            _ => chains.operator(),
        }
        if chains.longest() > MOST_OPERATORS || relations > 2 * MOST_RELATIONS {
            return Err(too_deep());
        }
    }
    Ok(())
}

fn too_deep() -> Error {
    Error::Sql {
        message: format!(
            "the statement is nested too deep: the maximum is {MOST_OPERATORS} operators in a row and {MOST_RELATIONS} tables"
        ),
        hint: "use `x IN (…)` for many comparisons of one column, or split the statement".into(),
    }
}

/// Operators since the last comma, for each level of parentheses.
#[derive(Default)]
struct Chains {
    outer: Vec<Chain>,
    current: Chain,
}

#[derive(Clone, Copy, Default)]
struct Chain {
    length: usize,
    longest: usize,
}

impl Chains {
    fn operator(&mut self) {
        self.current.length += 1;
        self.current.longest = self.current.longest.max(self.current.length);
    }

    fn end(&mut self) {
        self.current.length = 0;
    }

    fn open(&mut self) {
        self.outer.push(std::mem::take(&mut self.current));
    }

    fn close(&mut self) {
        if let Some(outer) = self.outer.pop() {
            let inner = std::mem::replace(&mut self.current, outer).longest;
            self.current.length += inner;
            self.current.longest = self.current.longest.max(self.current.length);
        }
    }

    fn longest(&self) -> usize {
        self.current.longest
    }
}

/// Refuses a statement with too many tables, which may be listed with commas.
pub(crate) fn check_statement(statement: &mut Statement) -> Result<()> {
    match statement {
        Statement::Statement(statement) => match statement.visit(&mut Relations(0)) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(too_deep()),
        },
        Statement::Explain(explain) => check_statement(&mut explain.statement),
        _ => Ok(()),
    }
}

struct Relations(usize);

impl VisitorMut for Relations {
    type Break = ();

    fn pre_visit_table_factor(&mut self, _: &mut ast::TableFactor) -> ControlFlow<()> {
        self.0 += 1;
        if self.0 > MOST_RELATIONS { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

/// Refuses a plan that writes, or that accesses files outside the sessions, unless that is allowed; and one that changes the
/// memory limit or the folder of temporary files.
pub(crate) fn check_plan(plan: &LogicalPlan, allow_files: bool) -> Result<()> {
    // INSERT and COPY … TO.
    SQLOptions::new().with_allow_dml(allow_files).verify_plan(plan).map_err(|_| Error::Sql {
        message: "this statement writes, which is not allowed".into(),
        hint: "use --format and redirect the output, or --allow-files".into(),
    })?;
    let mut refused = None;
    plan.apply_with_subqueries(|node| {
        let error = match node {
            LogicalPlan::Ddl(DdlStatement::CreateExternalTable(_)) if !allow_files => Some(Error::Sql {
                message: "this statement reads a file outside the session, which is not allowed".into(),
                hint: "use --allow-files to allow statements to read and write files".into(),
            }),
            LogicalPlan::Statement(statement) => runtime_setting(statement).map(|variable| Error::Sql {
                message: format!("{variable} cannot be changed here"),
                hint: "use the option --memory and the environment variable TMPDIR".into(),
            }),
            _ => None,
        };
        refused = refused.take().or(error);
        Ok(if refused.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    refused.map_or(Ok(()), Err)
}

/// The runtime setting that a statement changes.
fn runtime_setting(statement: &logical_expr::Statement) -> Option<&str> {
    let variable = match statement {
        logical_expr::Statement::SetVariable(set) => &set.variable,
        logical_expr::Statement::ResetVariable(reset) => &reset.variable,
        _ => return None,
    };
    let is_of_runtime = |name: &str| {
        let name = name.to_ascii_lowercase();
        name.starts_with("datafusion.runtime") || name == "datafusion.execution.batch_size"
    };
    is_of_runtime(variable).then_some(variable.as_str())
}

/// Refuses constants that are too large to be copied for each row of a batch.
pub(crate) fn check_constants(plan: &LogicalPlan, memory: usize) -> Result<()> {
    let has_unnest = plan.exists(|node| Ok(matches!(node, LogicalPlan::Unnest(_))))?;
    // A plan of these without tables has one row, unless it unnests a list beside other columns.
    let is_single = |node: &LogicalPlan| {
        matches!(node, LogicalPlan::Projection(_) | LogicalPlan::EmptyRelation(_) | LogicalPlan::Unnest(_))
    };
    let has_rows = plan.exists(|node| Ok(!is_single(node)))?;
    let whole = memory / 4;
    let of_each_row = (whole / BATCH).max(SMALL_CONSTANT);
    let mut refused = None;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                if let Expr::Literal(value, _) = expr {
                    let is_repeated = has_rows || (has_unnest && !value.data_type().is_nested());
                    let most = if is_repeated { of_each_row } else { whole };
                    let size = size(value);
                    refused = refused.or((size > most).then_some((size, most)));
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    match refused {
        Some((size, most)) => Err(Error::Query(format!(
            "a constant of {size} bytes would be copied for each row; the maximum is {most} bytes with this --memory"
        ))),
        None => Ok(()),
    }
}

fn size(value: &ScalarValue) -> usize {
    match value {
        ScalarValue::Utf8(Some(text)) | ScalarValue::LargeUtf8(Some(text)) | ScalarValue::Utf8View(Some(text)) => {
            text.len()
        }
        other => other.size(),
    }
}

/// Makes a plan end soon after `control` is cancelled.
///
/// `CrossJoinExec` returns a batch for each row of its left side before it polls its right side. An operator that consumes
/// all of these at once, such as a sort, never yields to the runtime and cannot be cancelled. So operators that multiply rows
/// are wrapped in `CooperativeExec`. `NestedLoopJoinExec` does not return until a pair of rows satisfies its filter; there the
/// filter fails after cancellation. DataFusion 55's `EnsureCooperative` covers leaves and exchanges only; this code can be
/// removed when it covers joins.
///
/// ```text
/// SortExec                  SortExec
///   CrossJoinExec     ──▶     CooperativeExec
///     …                         CrossJoinExec
/// ```
pub(crate) fn cancellable(plan: Arc<dyn ExecutionPlan>, control: &Control) -> PlanResult<Arc<dyn ExecutionPlan>> {
    plan.transform_up(|plan| {
        let widens = plan.children().len() > 1 || plan.name() == "UnnestExec";
        Ok(match widens {
            true => {
                Transformed::yes(Arc::new(CooperativeExec::new(stoppable(plan, control)?)) as Arc<dyn ExecutionPlan>)
            }
            false => Transformed::no(plan),
        })
    })
    .data()
}

fn stoppable(plan: Arc<dyn ExecutionPlan>, control: &Control) -> PlanResult<Arc<dyn ExecutionPlan>> {
    let Some(join) = plan.downcast_ref::<NestedLoopJoinExec>() else { return Ok(plan) };
    let Some(filter) = join.filter() else { return Ok(plan) };
    let condition = Stoppable { inner: Arc::clone(filter.expression()), control: control.clone() };
    let filter = JoinFilter::new(Arc::new(condition), filter.column_indices().to_vec(), Arc::clone(filter.schema()));
    let join = NestedLoopJoinExecBuilder::new(Arc::clone(join.left()), Arc::clone(join.right()), *join.join_type())
        .with_projection_ref(join.projection().clone())
        .with_filter(Some(filter));
    Ok(Arc::new(join.build()?))
}

/// A filter that fails after its statement was cancelled.
#[derive(Debug)]
struct Stoppable {
    inner: Arc<dyn PhysicalExpr>,
    control: Control,
}

impl PartialEq for Stoppable {
    fn eq(&self, other: &Self) -> bool {
        self.inner.eq(&other.inner)
    }
}

impl Eq for Stoppable {}

impl Hash for Stoppable {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.inner.hash(state);
    }
}

impl fmt::Display for Stoppable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl PhysicalExpr for Stoppable {
    fn data_type(&self, input: &Schema) -> PlanResult<DataType> {
        self.inner.data_type(input)
    }

    fn nullable(&self, input: &Schema) -> PlanResult<bool> {
        self.inner.nullable(input)
    }

    fn evaluate(&self, batch: &RecordBatch) -> PlanResult<ColumnarValue> {
        match self.control.is_cancelled() {
            true => exec_err!("cancelled"),
            false => self.inner.evaluate(batch),
        }
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.inner]
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn PhysicalExpr>>) -> PlanResult<Arc<dyn PhysicalExpr>> {
        let [inner] = children.as_slice() else { return internal_err!("a filter is one expression") };
        Ok(Arc::new(Stoppable { inner: Arc::clone(inner), control: self.control.clone() }))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt_sql(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_chains_of_operators_between_commas_and_parentheses() {
        let many = |text: &str, times: usize| format!("SELECT {}1", text.repeat(times));
        assert!(check_text(&many("1 + ", MOST_OPERATORS)).is_ok());
        assert!(check_text(&many("1 + ", MOST_OPERATORS + 1)).is_err());
        assert!(check_text(&many("x = 1 OR ", MOST_OPERATORS)).is_err());
        assert!(check_text(&many("f(1, 2) + ", MOST_OPERATORS + 1)).is_err());
        assert!(check_text(&many("-1, ", 10 * MOST_OPERATORS)).is_ok());
        assert!(check_text(&format!("SELECT 1 IN ({}1)", "-1, ".repeat(10 * MOST_OPERATORS))).is_ok());
        assert!(check_text(&many("1 + 1; SELECT ", 10 * MOST_OPERATORS)).is_ok());
        assert!(check_text(&many("1 UNION SELECT ", MOST_RELATIONS + 1)).is_err());
        assert!(check_text("SELECT 'a").is_ok());
    }
}
