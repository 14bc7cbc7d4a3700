//! What is left of a text in files, however they are packed.

use std::path::{Path, PathBuf};

/// How a file that is compressed by zstd begins.
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// The files below a folder in which a text occurs, in capitals or not; a file that goes meanwhile holds nothing.
pub fn files_with(folder: &Path, text: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let of_entry = |path: PathBuf| match path.is_dir() {
        true => files_with(&path, text),
        false if holds(&std::fs::read(&path).unwrap_or_default(), text) => vec![path],
        false => Vec::new(),
    };
    entries.flatten().flat_map(|entry| of_entry(entry.path())).collect()
}

/// Whether a text occurs in some bytes, in capitals or not, as they are or unpacked.
pub fn holds(bytes: &[u8], text: &str) -> bool {
    let unpacked = bytes.starts_with(&ZSTD).then(|| zstd::decode_all(bytes).ok()).flatten();
    let bytes = unpacked.as_deref().unwrap_or(bytes);
    bytes.windows(text.len().max(1)).any(|part| part.eq_ignore_ascii_case(text.as_bytes()))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_found_as_it_is_in_small_letters_and_packed() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir(at("below")).unwrap();
        std::fs::write(at("plain"), b"a QUAGGA here").unwrap();
        std::fs::write(at("below/small"), b"\x00quagga\xff").unwrap();
        std::fs::write(at("packed"), zstd::encode_all(&b"one Quagga"[..], 3).unwrap()).unwrap();
        std::fs::write(at("other"), b"an okapi").unwrap();
        let mut found = files_with(folder.path(), "QUAGGA");
        found.sort();
        assert_eq!(found, [at("below/small"), at("packed"), at("plain")]);
        assert_eq!(files_with(folder.path(), "QUAGGAS"), [] as [PathBuf; 0]);
    }
}
