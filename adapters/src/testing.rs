//! The tests' common parts.

use burn::tensor::Device;

/// The device that `TUNE_TEST_DEVICE` names, as the root package names devices.
pub(crate) fn device() -> Device {
    #[cfg(feature = "cube")]
    kernels::leave_products_alone();
    match std::env::var("TUNE_TEST_DEVICE").as_deref().unwrap_or("cpu") {
        // Backends are chosen in the root package's device file; a test of kernels names those that have them.
        "cpu" => Device::flex(),
        #[cfg(feature = "wgpu")]
        "wgpu:cpu" => Device::wgpu(burn::tensor::DeviceKind::Cpu),
        #[cfg(feature = "cuda")]
        "cuda" => Device::cuda(0),
        #[cfg(feature = "cpu")]
        "cube-cpu" => Device::cpu(),
        name => panic!(
            "TUNE_TEST_DEVICE is `{name}`; this build has cpu and, with their features, wgpu:cpu, cuda, cube-cpu"
        ),
    }
}
