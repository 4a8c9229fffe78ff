//! Programs that share no code with ours, in the tests' Python: DuckDB, and moto, a server that speaks S3.

use std::{
    env,
    io::Write as _,
    net::{Ipv4Addr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use arrow::datatypes::DataType;
use serde_json::{Map, Value, json};

/// A Python with `package`; without, the test is to be skipped, unless HUD_REQUIRE_BPF requires all.
pub fn python(package: &str) -> Option<String> {
    let python = env::var("HUD_DUCKDB_PYTHON").ok().filter(|p| !p.is_empty());
    if python.is_none() {
        let why = format!("HUD_DUCKDB_PYTHON names no Python with {package}");
        assert!(env::var_os("HUD_REQUIRE_BPF").is_none_or(|v| v != "1"), "{why}");
        eprintln!("skipped: {why}");
    }
    python
}

/// DuckDB's name of a column's type.
pub fn duckdb_type(of: &DataType) -> &'static str {
    match of {
        DataType::Int64 => "BIGINT",
        DataType::Int32 => "INTEGER",
        DataType::Boolean => "BOOLEAN",
        DataType::Utf8 => "VARCHAR",
        DataType::List(_) => "BIGINT[]",
        other => panic!("{other}"),
    }
}

/// The rows that DuckDB gives for each of `queries` (`sql` and `parameters`) over `tables` (`files` and `columns`, by name).
pub fn duckdb_rows(python: &str, tables: &Map<String, Value>, queries: &[Value]) -> Vec<Vec<Value>> {
    let mut child = Command::new(python)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/duckdb_rows.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let job = json!({ "tables": tables, "queries": queries }).to_string();
    child.stdin.take().unwrap().write_all(job.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "DuckDB failed");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A port of the loopback interface that nobody listens on.
pub fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// Starts moto; it listens on `port` when this returns.
pub fn start_moto(python: &str, port: u16) -> Child {
    let mut command = Command::new(python);
    command.args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &port.to_string()]);
    let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let began = Instant::now();
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
        assert!(began.elapsed() < Duration::from_secs(60), "moto does not listen");
        thread::sleep(Duration::from_millis(20));
    }
    process
}
