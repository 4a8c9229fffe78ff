//! `--sort COLUMN[:desc]`: the rows of a view in another order.

use std::str::FromStr;

use datafusion::{
    logical_expr::{SortExpr, ident},
    prelude::DataFrame,
};

use crate::error::{Error, Result};

/// A column to sort by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sort {
    column: String,
    is_descending: bool,
}

impl FromStr for Sort {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let (column, order) = text.split_once(':').unwrap_or((text, "asc"));
        let is_descending = match order {
            "asc" => false,
            "desc" => true,
            other => return Err(format!("the order {other:?} is neither asc nor desc")),
        };
        if column.is_empty() {
            return Err("there is no column before the order".into());
        }
        Ok(Sort { column: column.into(), is_descending })
    }
}

/// The rows of all frames in the order of these columns, unknown values last; without any, as they are.
pub(crate) fn sorted(frames: Vec<DataFrame>, by: &[Sort]) -> Result<Vec<DataFrame>> {
    if by.is_empty() {
        return Ok(frames);
    }
    let mut frames = frames.into_iter();
    let Some(mut all) = frames.next() else { return Ok(Vec::new()) };
    for frame in frames {
        all = all.union(frame)?;
    }
    let columns: Vec<&str> = all.schema().fields().iter().map(|field| field.name().as_str()).collect();
    if let Some(unknown) = by.iter().find(|sort| !columns.contains(&sort.column.as_str())) {
        return Err(Error::Usage {
            message: format!("--sort: there is no column {:?}", hud_common::clean(&unknown.column)),
            hint: format!("the columns are {}", columns.join(", ")),
        });
    }
    let order: Vec<SortExpr> = by.iter().map(|sort| ident(&sort.column).sort(!sort.is_descending, false)).collect();
    Ok(vec![all.sort(order)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_a_column_and_its_order() {
        let sort = |column: &str, is_descending| Ok(Sort { column: column.into(), is_descending });
        assert_eq!("busy".parse::<Sort>(), sort("busy", false));
        assert_eq!("busy:asc".parse::<Sort>(), sort("busy", false));
        assert_eq!("busy:desc".parse::<Sort>(), sort("busy", true));
        assert_eq!("busy:down".parse::<Sort>(), Err("the order \"down\" is neither asc nor desc".into()));
        assert!(":desc".parse::<Sort>().is_err() && "".parse::<Sort>().is_err());
    }
}
