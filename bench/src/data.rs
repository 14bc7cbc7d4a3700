//! Made and real records.

use std::io::{BufRead, BufReader};
use std::path::Path;

use flate2::read::GzDecoder;

use crate::Result;

/// A product of about 150 bytes, as the server answers it.
pub(crate) fn product_json(n: u64) -> String {
    format!(
        r#"{{"id":"p{n}","name":"chocolate ice cream, one litre, number {n}","price":"4.99","stock":{}}}"#,
        n % 1000
    )
}

/// The lines of a compressed file.
pub(crate) fn lines(path: &Path) -> Result<impl Iterator<Item = std::io::Result<String>>> {
    let file = std::fs::File::open(path).map_err(|e| {
        format!(
            "{}: {e}; the full data is needed for this part: name its folder with --data",
            path.display()
        )
    })?;
    Ok(BufReader::new(GzDecoder::new(file)).lines())
}
