//! Lines as CSV.

use serde::Serialize;

use crate::Failure;

/// Lines below the names of their fields. Without lines it is empty.
pub(crate) fn csv<T: Serialize>(lines: impl IntoIterator<Item = T>) -> Result<Vec<u8>, Failure> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    lines.into_iter().try_for_each(|line| writer.serialize(line))?;
    Ok(writer.into_inner().map_err(csv::IntoInnerError::into_error)?)
}
