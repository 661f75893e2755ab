//! The model of a run's folder: what a command means that is given the folder of a run.

use std::path::{Path, PathBuf};

use super::FORMATS;
use crate::hint::{Hinted, hinted};
use crate::run_dir::{RECIPE, SUMMARY};

/// The file by which an adapter's folder is known.
const ADAPTER: &str = "adapter_config.json";

/// True for the folder of an adapter.
pub fn is_adapter(folder: &Path) -> bool {
    folder.join(ADAPTER).is_file()
}

/// The exported model of the run in `folder`: its adapter, else its merged model, else what else it has. Any other folder
/// is returned as it is.
///
/// # Errors
/// When the run has not exported a model yet.
pub fn model_in(folder: &Path) -> Result<PathBuf, Hinted> {
    let is_model = is_adapter(folder) || folder.join("config.json").is_file();
    if is_model || !folder.join(RECIPE).is_file() {
        return Ok(folder.to_owned());
    }
    // Without a summary, folders of exports are those of an earlier run.
    let exported = FORMATS.iter().map(|format| folder.join(format.name)).find(|folder| folder.is_dir());
    exported.filter(|_| folder.join(SUMMARY).is_file()).ok_or_else(|| {
        let folder = folder.display();
        hinted(
            format!("{folder} is the folder of a run that has not exported a model"),
            format!("finish the run with `tune resume {folder}`, or name one of its checkpoints"),
        )
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_finished_run_stands_for_its_adapter_or_its_merged_model() {
        let root = std::env::temp_dir().join(format!("tune-product-{}", std::process::id()));
        let write = |name: &str| {
            let path = root.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        };
        write("merged/config.json");
        assert_eq!(model_in(&root).unwrap(), root, "not the folder of a run");
        write(RECIPE);
        assert!(model_in(&root).unwrap_err().hint().contains("tune resume"));
        write(SUMMARY);
        assert_eq!(model_in(&root).unwrap(), root.join("merged"));
        write("adapter/adapter_config.json");
        assert_eq!(model_in(&root).unwrap(), root.join("adapter"));
        assert_eq!(model_in(&root.join("adapter")).unwrap(), root.join("adapter"));
        assert_eq!(model_in(Path::new("org/name")).unwrap(), Path::new("org/name"));
        fs::remove_dir_all(&root).unwrap();
    }
}
