//! SQL's keywords, and a line on each statement.

/// Keywords that are completed and distinguished from names.
pub(crate) const KEYWORDS: &[&str] = &[
    "ALL",
    "ANALYZE",
    "AND",
    "ANTI",
    "AS",
    "ASC",
    "BETWEEN",
    "BIGINT",
    "BOOLEAN",
    "BY",
    "CASE",
    "CAST",
    "CREATE",
    "CROSS",
    "CURRENT",
    "DATE",
    "DESC",
    "DESCRIBE",
    "DISTINCT",
    "DOUBLE",
    "DROP",
    "ELSE",
    "END",
    "ESCAPE",
    "EXCEPT",
    "EXCLUDE",
    "EXISTS",
    "EXPLAIN",
    "EXTERNAL",
    "FALSE",
    "FETCH",
    "FILTER",
    "FIRST",
    "FOLLOWING",
    "FROM",
    "FULL",
    "GROUP",
    "GROUPING",
    "HAVING",
    "IF",
    "ILIKE",
    "IN",
    "INNER",
    "INTERSECT",
    "INTERVAL",
    "IS",
    "JOIN",
    "LAST",
    "LATERAL",
    "LEFT",
    "LIKE",
    "LIMIT",
    "LOCATION",
    "NATURAL",
    "NOT",
    "NULL",
    "NULLS",
    "OFFSET",
    "ON",
    "OR",
    "ORDER",
    "OUTER",
    "OVER",
    "PARTITION",
    "PRECEDING",
    "QUALIFY",
    "RANGE",
    "RECURSIVE",
    "REPLACE",
    "RIGHT",
    "ROLLUP",
    "ROW",
    "ROWS",
    "SELECT",
    "SEMI",
    "SET",
    "SHOW",
    "SIMILAR",
    "STORED",
    "TABLE",
    "TABLES",
    "THEN",
    "TIMESTAMP",
    "TO",
    "TRUE",
    "UNBOUNDED",
    "UNION",
    "UNNEST",
    "USING",
    "VALUES",
    "VARCHAR",
    "VERBOSE",
    "VIEW",
    "WHEN",
    "WHERE",
    "WINDOW",
    "WITH",
    "WITHIN",
];

/// Keywords that begin a statement.
pub(crate) const BEGINNINGS: &[&str] =
    &["CREATE", "DESCRIBE", "DROP", "EXPLAIN", "SELECT", "SET", "SHOW", "VALUES", "WITH"];

/// Statements and clauses: name, syntax, description.
pub(crate) const TOPICS: [(&str, &str, &str); 10] = [
    (
        "select",
        "[WITH name AS (SELECT …)] SELECT [DISTINCT] expression [AS name], … FROM table [JOIN table ON …] [WHERE …] \
         [GROUP BY …] [HAVING …] [ORDER BY … [DESC]] [LIMIT n] [OFFSET n]",
        "rows of tables and views, or sums over them",
    ),
    ("with", "WITH [RECURSIVE] name AS (SELECT …), … SELECT …", "names queries that the rest may use as tables"),
    (
        "join",
        "a [LEFT|RIGHT|FULL|SEMI|ANTI|CROSS] JOIN b ON condition | USING (column)",
        "rows of two tables that belong together",
    ),
    (
        "over",
        "function(…) OVER ([PARTITION BY …] [ORDER BY …] [ROWS BETWEEN … AND …])",
        "a value from the rows around each",
    ),
    (
        "explain",
        "EXPLAIN [ANALYZE] [VERBOSE] SELECT …",
        "how a query is run; with ANALYZE also runs it, and tells times",
    ),
    ("describe", "DESCRIBE table", "the columns of a table, as a query; \\d says more"),
    ("show", "SHOW TABLES | SHOW ALL | SHOW name", "tables, or settings of the engine"),
    ("set", "SET name = value", "changes a setting of the engine, for this shell"),
    ("create view", "CREATE [OR REPLACE] VIEW name AS SELECT …", "names a query, for this shell"),
    ("values", "VALUES (1, 'a'), (2, 'b')", "rows as they are written there"),
];

/// Whether an unquoted word is one of SQL's keywords.
pub(crate) fn is_keyword(word: &str) -> bool {
    word.len() < 16 && KEYWORDS.binary_search(&word.to_ascii_uppercase().as_str()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keywords_are_found() {
        assert!(KEYWORDS.is_sorted());
        assert!(KEYWORDS.iter().all(|word| is_keyword(word)));
        assert!(BEGINNINGS.iter().all(|word| is_keyword(word)));
        assert!(is_keyword("select") && !is_keyword("polls") && !is_keyword("größe"));
    }
}
