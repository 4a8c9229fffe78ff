//! `info`.
use crate::{catalog::Catalog, cli::InfoFormat, error::Result, output::Stdout};
pub(crate) async fn run(_catalog: &Catalog, _format: InfoFormat, _out: &mut Stdout) -> Result<()> { Ok(()) }
