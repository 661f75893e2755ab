//! The place where CubeCL keeps, between runs, the fastest variant of each operation on a device and its compiled kernels.

use std::path::Path;

use cubecl::config::cache::CacheConfig;
use cubecl::config::{CubeClRuntimeConfig, RuntimeConfig};

/// Keeps both in `folder`, unless a `cubecl.toml` names another place; to be called before the first use of a device.
/// A build without the feature `kernel-cache` keeps nothing.
pub fn keep_caches_in(folder: &Path) {
    let mut config = CubeClRuntimeConfig::from_current_dir().override_from_env();
    if matches!(config.environment.path, CacheConfig::Target) {
        config.environment.path = CacheConfig::Directory(folder.to_owned());
    }
    #[cfg(feature = "kernel-cache")]
    {
        config.compilation.cache = true;
    }
    // What was set before stays.
    CubeClRuntimeConfig::try_set(config);
}
