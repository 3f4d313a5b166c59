//! The result as one page that needs nothing else.

use std::path::Path;

use crate::case::Case;
use crate::summary::Row;

/// Writes the page.
pub(crate) fn write(
    path: &Path,
    _cases: &[&Case],
    _rows: &[Row],
    _machine: &[(&str, String)],
) -> Result<(), String> {
    std::fs::write(path, "").map_err(|error| format!("{}: {error}", path.display()))
}
