//! The folder of results of measurements and checks: docs/benchmarks.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::sh::{command, output, root};

/// Writes docs/benchmarks/<date>-<name>.md, with a title above the text.
pub(crate) fn write(name: &str, text: &str) -> Result<PathBuf> {
    let date = output(command("date").args(["-u", "+%F"]))?.trim().to_owned();
    let folder = root().join("docs/benchmarks");
    fs::create_dir_all(&folder)?;
    let path = folder.join(format!("{date}-{name}.md"));
    let text = format!("# {name}, {date}\n\n{text}");
    fs::write(&path, text).with_context(|| format!("failed to write {}", path.display()))?;
    Ok(path)
}

/// The machine and commit of the measurement.
pub(crate) fn machine() -> Result<String> {
    let field = |text: &str, name: &str| {
        let value = text.lines().find(|line| line.starts_with(name)).and_then(|line| line.split_once(':'));
        value.map(|(_, value)| value.trim().to_owned()).unwrap_or_else(|| "unknown".to_owned())
    };
    let cpuinfo = fs::read_to_string("/proc/cpuinfo")?;
    let memory = field(&fs::read_to_string("/proc/meminfo")?, "MemTotal");
    let is_dirty = !output(command("git").args(["status", "--porcelain", "--untracked-files=no"]))?.trim().is_empty();
    Ok(format!(
        "- CPU: {}, {} of them\n- memory: {memory}\n- kernel: Linux {}\n- {}\n- commit: {}{}\n",
        field(&cpuinfo, "model name"),
        cpuinfo.lines().filter(|line| line.starts_with("processor")).count(),
        output(command("uname").arg("-r"))?.trim(),
        output(command("rustc").arg("--version"))?.trim(),
        output(command("git").args(["rev-parse", "--short", "HEAD"]))?.trim(),
        if is_dirty { ", with changes" } else { "" },
    ))
}

/// With a comma before each group of three digits.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_digits() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }
}
