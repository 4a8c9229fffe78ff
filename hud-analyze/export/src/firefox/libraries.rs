//! Modules as the format's libraries.

use std::io::{self, Write};

use super::values::text;
use crate::names::Names;

/// The modules of frames, in order of first use.
#[derive(Default)]
pub(super) struct Libraries(Vec<u32>);

impl Libraries {
    pub(super) fn number(&mut self, module: u32) -> u32 {
        let place = self.0.iter().position(|known| *known == module).unwrap_or_else(|| {
            self.0.push(module);
            self.0.len() - 1
        });
        u32::try_from(place).unwrap_or(u32::MAX)
    }

    pub(super) fn write(&self, names: &Names, out: &mut impl Write) -> io::Result<()> {
        for (number, module) in self.0.iter().enumerate() {
            let Some(module) = names.module(Some(*module)) else { continue };
            let (path, name) = (text(&module.path), text(module.path.rsplit('/').next().unwrap_or_default()));
            let code_id = module.build_id.as_deref().map_or("null".into(), text);
            let id = text(&breakpad_id(module.build_id.as_deref().unwrap_or_default()));
            let comma = if number == 0 { "" } else { "," };
            write!(
                out,
                "{comma}{{\"name\":{name},\"path\":{path},\"debugName\":{name},\"debugPath\":{path},\"breakpadId\":{id},\
                 \"codeId\":{code_id},\"arch\":null}}"
            )?;
        }
        Ok(())
    }
}

/// A build id in the form of symbol servers: its first 16 bytes as a GUID, whose first three parts are little-endian.
fn breakpad_id(build_id: &str) -> String {
    let mut digits: Vec<char> = build_id.to_ascii_uppercase().chars().take(32).collect();
    digits.resize(32, '0');
    let pair = |at: usize| digits.get(at * 2..at * 2 + 2).unwrap_or_default().iter().collect::<String>();
    let order = [3, 2, 1, 0, 5, 4, 7, 6].into_iter().chain(8..16);
    order.map(pair).collect::<String>() + "0"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_a_build_id_as_symbol_servers_do() {
        let id = "0123456789abcdef0123456789abcdef01234567";
        assert_eq!(breakpad_id(id), "67452301AB89EFCD0123456789ABCDEF0");
        assert_eq!(breakpad_id(""), "0".repeat(33));
    }
}
