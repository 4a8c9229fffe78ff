//! `asof('left', 'right', 'key', …)` and `within('left', 'right', 'key', …)`: from names to tables.

use std::sync::Arc;

use datafusion::{
    catalog::{Session, TableFunctionArgs, TableFunctionImpl, TableProvider},
    common::{ScalarValue, TableReference, plan_datafusion_err, plan_err},
    error::Result,
    logical_expr::Expr,
};
use futures::FutureExt as _;

use super::{
    kind::Kind,
    table::{JoinTable, Side},
};

/// Most keys of a join.
const MOST_KEYS: usize = 16;

/// The table function.
#[derive(Debug)]
pub(super) struct Join {
    kind: Kind,
}

impl Join {
    pub(super) fn new(kind: Kind) -> Self {
        Join { kind }
    }
}

impl TableFunctionImpl for Join {
    fn call_with_args(&self, args: TableFunctionArgs<'_, '_>) -> Result<Arc<dyn TableProvider>> {
        let name = self.kind.name();
        let usage =
            || plan_datafusion_err!("{name} takes names as text: write it like {name}('wakes', 'polls', 'task_id')");
        let texts = args.exprs().iter().map(text).collect::<Option<Vec<_>>>().ok_or_else(usage)?;
        let [left, right, keys @ ..] = texts.as_slice() else { return Err(usage()) };
        if keys.len() > MOST_KEYS {
            return plan_err!("{name} takes {MOST_KEYS} keys at most");
        }
        let side = |name: &str| resolve(args.session(), name).map(|table| Side { name: name.into(), table });
        let keys: Vec<_> = keys.iter().map(|key| pair(key)).collect();
        Ok(Arc::new(JoinTable::try_new(self.kind, side(left)?, side(right)?, &keys)?))
    }
}

fn text(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Literal(
            ScalarValue::Utf8(Some(text)) | ScalarValue::Utf8View(Some(text)) | ScalarValue::LargeUtf8(Some(text)),
            _,
        ) => Some(text),
        _ => None,
    }
}

/// `task_id`, or `waker_tid = tid` if the sides name it differently.
fn pair(key: &str) -> (String, String) {
    let (left, right) = key.split_once('=').unwrap_or((key, key));
    (left.trim().into(), right.trim().into())
}

/// The table or view of that name.
fn resolve(session: &dyn Session, name: &str) -> Result<Arc<dyn TableProvider>> {
    let options = &session.config_options().catalog;
    let resolved = TableReference::parse_str(name).resolve(&options.default_catalog, &options.default_schema);
    let schema = session.catalog_list().catalog(&resolved.catalog).and_then(|catalog| catalog.schema(&resolved.schema));
    let missing = || plan_datafusion_err!("there is no table or view {name}");
    let schema = schema.ok_or_else(missing)?;
    // Planning a call cannot wait: a catalog in memory, as ours, answers at once.
    match schema.table(&resolved.table).now_or_never() {
        Some(table) => table?.ok_or_else(missing),
        None => plan_err!("{name} cannot be looked up at once: make a view of it first"),
    }
}
