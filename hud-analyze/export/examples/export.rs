//! Writes a session in one format: `export SESSION FORMAT OUT`, and says what it took. For measuring, and for a look.

#![allow(missing_docs, reason = "an example")]

use std::{error::Error, fs, path::Path, time::Instant};

use hud_export::{Format, Options, SessionRows, export};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [session, format, out] = arguments.as_slice() else { return Err("give SESSION FORMAT OUT".into()) };
    let format: Format = format.parse()?;
    let mut options = Options::default();
    options.limit = Some(u64::MAX);
    let began = Instant::now();
    let rows = SessionRows::open(Path::new(session))?;
    let mut file = fs::File::create(out)?;
    let summary = export(&rows, format, &options, &mut file, &|_, _| {})?;
    let took = began.elapsed().as_secs_f64();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or_default();
    println!("{format}: {took:.2} s, {} bytes, {peak}", summary.bytes);
    println!("{summary:#?}");
    Ok(())
}
