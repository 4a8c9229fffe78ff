//! Arguments of scalar functions: the types that they accept, and evaluation over arrays.

use arrow::{array::ArrayRef, datatypes::DataType};
use datafusion::{
    common::{ScalarValue, plan_err},
    error::Result,
    logical_expr::{ColumnarValue, ScalarFunctionArgs},
};

/// Applies `of` to arrays; once, if all arguments are constant.
pub(crate) fn over_arrays(
    args: ScalarFunctionArgs,
    of: impl FnOnce(&[ArrayRef]) -> Result<ArrayRef>,
) -> Result<ColumnarValue> {
    let is_constant = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
    let rows = if is_constant { 1 } else { args.number_rows };
    let arrays = args.args.into_iter().map(|arg| arg.into_array(rows)).collect::<Result<Vec<_>>>()?;
    let result = of(&arrays)?;
    Ok(match is_constant {
        true => ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?),
        false => ColumnarValue::Array(result),
    })
}

/// The type that an argument is cast to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Taken {
    /// Any kind of text, as `Utf8`.
    Text,
    /// Any integer, as `Int64`.
    Integer,
    /// Either of them.
    TextOrInteger,
}

/// The types that the arguments are cast to.
pub(crate) fn coerced(function: &str, usage: &str, takes: &[Taken], given: &[DataType]) -> Result<Vec<DataType>> {
    if takes.len() != given.len() {
        return plan_err!("{function} takes {}, not {} arguments: write it like {usage}", takes.len(), given.len());
    }
    takes
        .iter()
        .zip(given)
        .map(|(takes, given)| match (takes, given) {
            (Taken::Text, given) if is_text(given) || given.is_null() => Ok(DataType::Utf8),
            (Taken::TextOrInteger, given) if is_text(given) => Ok(DataType::Utf8),
            (Taken::Integer | Taken::TextOrInteger, given) if given.is_integer() || given.is_null() => {
                Ok(DataType::Int64)
            }
            (_, given) => plan_err!("{function} cannot take a {given}: write it like {usage}"),
        })
        .collect()
}

fn is_text(given: &DataType) -> bool {
    match given {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Dictionary(_, values) => is_text(values),
        _ => false,
    }
}
