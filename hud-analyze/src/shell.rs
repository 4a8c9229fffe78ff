//! `sql`: statements from the command line, a file or standard input.

use std::{
    fs,
    io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _},
    path::PathBuf,
};

use datafusion::{
    prelude::{DataFrame, SQLOptions},
    sql::parser::{DFParserBuilder, Statement},
};

use crate::{
    catalog::Catalog,
    error::{Error, Result},
    output::{self, Format, Stdout},
};

/// Answers `command`, else what `file` says, else what standard input says.
pub(crate) async fn run(
    catalog: &Catalog,
    command: Option<String>,
    file: Option<PathBuf>,
    format: Format,
    out: &mut Stdout,
) -> Result<()> {
    let sql = match (command, file) {
        (Some(sql), _) => sql,
        (None, Some(path)) => fs::read_to_string(&path).map_err(Error::io(format!("read {}", path.display())))?,
        (None, None) if io::stdin().is_terminal() => return ask(catalog, format, out).await,
        (None, None) => {
            let mut sql = String::new();
            io::stdin().read_to_string(&mut sql).map_err(Error::io("read standard input"))?;
            sql
        }
    };
    let statements = parse(&sql)?;
    if statements.is_empty() {
        return Err(Error::Usage {
            message: "there is no statement in it".into(),
            hint: "give SQL by -c, -f or standard input".into(),
        });
    }
    for statement in statements {
        execute(catalog, statement, format, out).await?;
    }
    Ok(())
}

/// Reads statements from a terminal; a wrong one is told and forgotten.
async fn ask(catalog: &Catalog, format: Format, out: &mut Stdout) -> Result<()> {
    let mut sql = String::new();
    let _ = writeln!(io::stderr(), "SQL, ended by `;`. SHOW TABLES; lists the tables, Ctrl-D or \\q ends.");
    loop {
        let prompt = if sql.trim().is_empty() { "hud> " } else { "...> " };
        let _ = write!(io::stderr(), "{prompt}").and_then(|()| io::stderr().flush());
        let mut line = String::new();
        let read = io::stdin().lock().read_line(&mut line).map_err(Error::io("read standard input"))?;
        if read == 0 || matches!(line.trim(), "\\q" | "quit" | "exit") {
            return Ok(());
        }
        sql.push_str(&line);
        if !line.trim_end().ends_with(';') {
            continue;
        }
        let answered = match parse(&std::mem::take(&mut sql)) {
            Ok(statements) => {
                let mut answered = Ok(());
                for statement in statements {
                    answered = execute(catalog, statement, format, out).await;
                    if answered.is_err() {
                        break;
                    }
                }
                answered
            }
            Err(error) => Err(error),
        };
        match answered {
            Err(error) if out.broken => return Err(error),
            Err(error) => {
                let _ = writeln!(io::stderr(), "{}", hud_common::clean(&error.to_string()));
            }
            Ok(()) => {}
        }
    }
}

fn parse(sql: &str) -> Result<Vec<Statement>> {
    Ok(DFParserBuilder::new(sql).build()?.parse_statements()?.into())
}

async fn execute(catalog: &Catalog, statement: Statement, format: Format, out: &mut Stdout) -> Result<()> {
    let context = catalog.context();
    let plan = context.state().statement_to_plan(statement).await?;
    // A session is only read: no INSERT, no COPY … TO.
    SQLOptions::new().with_allow_dml(false).verify_plan(&plan).map_err(|_| Error::Sql {
        message: "this statement would write, and hud-analyze only reads".into(),
        hint: "use --format and redirect the output".into(),
    })?;
    let frame: DataFrame = context.execute_logical_plan(plan).await.map_err(|e| catalog.explain(e.into()))?;
    // A statement such as CREATE VIEW has no answer.
    if frame.schema().fields().is_empty() {
        return Ok(());
    }
    output::write(catalog, vec![frame], &[], format, None, true, out).await
}
