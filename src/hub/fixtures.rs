//! For tests: the reference models, and folders that vanish with the test.

use std::path::{Path, PathBuf};

/// A path below `tests/fixtures`: unit tests name files there, whatever `TUNE_FIXTURES` gives the parity tests to run.
pub(crate) fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(path)
}

/// A new folder, removed when dropped.
pub(crate) struct Scratch {
    folder: PathBuf,
}

impl Scratch {
    /// `name` tells the tests of one process apart.
    pub(crate) fn new(name: &str) -> Scratch {
        let folder = std::env::temp_dir().join(format!("tune-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a temporary folder can be made");
        Scratch { folder }
    }

    /// The path of the folder.
    pub(crate) fn path(&self) -> &Path {
        &self.folder
    }

    /// Writes a file, folders included.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.folder.join(name);
        std::fs::create_dir_all(path.parent().expect("a file has a folder")).expect("folders can be made");
        std::fs::write(&path, content).expect("a file can be written");
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A folder that stays behind in the temporary folder need not fail a test.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A safetensors file with this header and this many zero bytes of data.
pub(crate) fn safetensors(header: &str, data_len: usize) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.resize(file.len() + data_len, 0);
    file
}
