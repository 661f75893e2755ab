//! Devices by their names: the only file that knows which backends were built in.
//!
//! `auto` takes CUDA, then a real GPU through wgpu, then the CPU, of what this build has. Software rasterizers answer only to
//! `wgpu:cpu` and `vulkan:cpu`.

use std::borrow::Cow;

pub use burn::tensor::FloatDType;
use burn::tensor::{DType, Device, Tensor};
use thiserror::Error;

/// A device as a recipe names it; numbers count the devices of a kind from 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The best there is.
    #[default]
    Auto,
    /// The CPU, by burn's flex backend.
    Cpu,
    /// The CPU through CubeCL and LLVM, to check kernels.
    CubeCpu,
    /// An NVIDIA GPU.
    Cuda(usize),
    /// A GPU through Vulkan.
    Vulkan(usize),
    /// A Vulkan software rasterizer.
    VulkanCpu,
    /// A GPU through Metal.
    Metal(usize),
    /// A GPU through whichever API wgpu finds.
    Wgpu(usize),
    /// A software rasterizer through wgpu.
    WgpuCpu,
}

/// Names that [`DeviceChoice::parse`] takes.
pub const ACCEPTED: &str =
    "auto, cpu, cuda, cuda:N, vulkan, vulkan:N, vulkan:cpu, metal, wgpu, wgpu:N, wgpu:cpu, cube-cpu";

impl DeviceChoice {
    /// Reads a name such as `cuda:1`.
    pub fn parse(name: &str) -> Option<Self> {
        let (kind, number) = name.split_once(':').map_or((name, None), |(kind, number)| (kind, Some(number)));
        let index = || number.map_or(Some(0), |number| number.parse().ok());
        match (kind, number) {
            ("auto", None) => Some(Self::Auto),
            ("cpu", None) => Some(Self::Cpu),
            ("cube-cpu", None) => Some(Self::CubeCpu),
            ("vulkan", Some("cpu")) => Some(Self::VulkanCpu),
            ("wgpu", Some("cpu")) => Some(Self::WgpuCpu),
            ("cuda", _) => index().map(Self::Cuda),
            ("vulkan", _) => index().map(Self::Vulkan),
            ("metal", _) => index().map(Self::Metal),
            ("wgpu", _) => index().map(Self::Wgpu),
            _ => None,
        }
    }
}

/// A device that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DeviceError {
    /// This binary lacks the backend.
    #[error("device `{name}` is not in this build")]
    NotBuilt {
        /// The device's kind.
        name: &'static str,
        /// The cargo feature that adds it.
        feature: &'static str,
    },
    /// The machine lacks the device.
    #[error("device `{name}` was not found: this machine shows {found}")]
    NotFound {
        /// As the recipe names it.
        name: String,
        /// The devices that are there, in words.
        found: String,
        /// The hint.
        hint: &'static str,
    },
    /// The device is there, but not the toolkit that its kernels are compiled with.
    #[error("device `{name}` is there, but not the toolkit that its kernels are compiled with: {folder} has no {file}")]
    Incomplete {
        /// As the recipe names it.
        name: String,
        /// The folders that were searched.
        folder: String,
        /// The missing file.
        file: &'static str,
        /// The hint.
        hint: &'static str,
    },
}

impl DeviceError {
    /// The hint, if there is one: what to try.
    pub fn hint(&self) -> Option<Cow<'_, str>> {
        Some(match self {
            DeviceError::NotBuilt { feature, .. } => {
                format!("build with `cargo build --release --features {feature}`, or set device: auto").into()
            }
            DeviceError::NotFound { hint, .. } | DeviceError::Incomplete { hint, .. } => (*hint).into(),
        })
    }
}

/// The kind of a device, as far as the types of numbers that suit it depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hardware {
    /// The CPU itself.
    Cpu,
    /// The CPU in the place of a GPU: a software rasterizer, or kernels through LLVM.
    Software,
    /// An NVIDIA GPU through CUDA.
    Cuda,
    /// A GPU through another interface.
    Gpu,
}

/// A device that is there, and its name for people.
#[derive(Debug, Clone)]
pub struct OpenDevice {
    /// The device, outside autodiff.
    pub device: Device,
    /// Such as `cpu` or `cuda:0`.
    pub name: String,
    /// True for the CPU itself (flex), where distinct shapes cost nothing.
    pub is_host: bool,
    /// Its kind.
    pub hardware: Hardware,
}

impl OpenDevice {
    fn new(device: Device, name: impl Into<String>, hardware: Hardware) -> Self {
        Self { device, name: name.into(), is_host: hardware == Hardware::Cpu, hardware }
    }

    fn host() -> Self {
        Self::new(Device::flex(), "cpu", Hardware::Cpu)
    }

    /// True if it stores, converts and calculates in `dtype`.
    pub fn supports(&self, dtype: FloatDType) -> bool {
        self.device.supports_dtype(dtype)
    }

    /// True if products in f16 may be wrong here. SPIR-V shaders make them on matrix units, and some of CubeCL's let a part
    /// of a workgroup wait for its own subgroup alone. On Mesa's software Vulkan (26.1 and 26.2) such a barrier is one of the
    /// whole workgroup and does not hold where the rest never comes: numbers are read before they are written.
    pub fn breaks_matrix_units(&self) -> bool {
        cfg!(feature = "vulkan") && self.hardware == Hardware::Software
    }

    /// Lets the memory pools of an NVIDIA GPU begin with pages of `bytes`, before anything is on it. Pages are as large as
    /// the largest tensor so far: smaller ones of before stay, as long as something lies on them, and on larger ones less
    /// room is left between tensors.
    pub fn begin_pages(&self, bytes: u64) {
        if self.hardware == Hardware::Cuda {
            let values = (bytes / 4) as usize;
            drop(Tensor::<1>::empty([values], (&self.device, DType::F32)));
            // A failure is one of memory, which the first tensor that does not fit tells better.
            self.device.sync().ok();
        }
    }

    /// Bytes that the device's memory pools have reserved; `None` where the backend has none.
    pub fn reserved_bytes(&self) -> Option<u64> {
        self.device.memory_pool_usage().map(|usage| usage.bytes_reserved)
    }
}

/// True if this build can train on GPUs: the default one cannot.
pub const BUILT_FOR_GPUS: bool = cfg!(any(feature = "wgpu", feature = "cuda"));

/// Finds the device that `choice` means.
///
/// # Errors
/// When this build or this machine does not have it.
pub fn open(choice: DeviceChoice) -> Result<OpenDevice, DeviceError> {
    #[cfg(feature = "cube")]
    kernels::leave_products_alone();
    match choice {
        DeviceChoice::Auto => match cuda(0) {
            Ok(device) => toolkit::complete(device),
            Err(_) => Ok(wgpu(0).unwrap_or_else(|_| OpenDevice::host())),
        },
        DeviceChoice::Cpu => Ok(OpenDevice::host()),
        DeviceChoice::CubeCpu => cube_cpu(),
        DeviceChoice::Cuda(index) => cuda(index).and_then(toolkit::complete),
        DeviceChoice::Vulkan(index) => vulkan(Some(index)),
        DeviceChoice::VulkanCpu => vulkan(None),
        DeviceChoice::Metal(index) => metal(index),
        DeviceChoice::Wgpu(index) => wgpu(index),
        DeviceChoice::WgpuCpu => wgpu_software(),
    }
}

/// Stores in `folder`, for later runs, the fastest kernels of a device and what was compiled for it, if this build has
/// the feature `kernel-cache`; to be called before any device is opened.
pub fn keep_kernels_in(folder: &std::path::Path) {
    #[cfg(feature = "cube")]
    kernels::keep_caches_in(folder);
    #[cfg(not(feature = "cube"))]
    let _ = folder;
}

/// The CPU itself (flex).
pub fn host() -> Device {
    Device::flex()
}

/// True if `device` is the CPU itself (flex), whose tensors lie in the memory of the host.
pub fn is_host(device: &Device) -> bool {
    *device == Device::flex()
}

/// Parts of a micro-batch that `device` should work on at a time: the threads of the CPU, otherwise one.
pub fn workers(device: &Device) -> usize {
    if is_host(device) { rayon::current_num_threads() } else { 1 }
}

/// Every device that this build finds on this machine, software rasterizers last.
pub fn list() -> Vec<OpenDevice> {
    let mut found = vec![OpenDevice::host()];
    for index in 0.. {
        match cuda(index) {
            Ok(device) => found.push(device),
            Err(_) => break,
        }
    }
    for index in 0.. {
        match wgpu(index) {
            Ok(device) => found.push(device),
            Err(_) => break,
        }
    }
    found.extend(wgpu_software());
    found
}

#[cfg(feature = "cuda")]
fn cuda(index: usize) -> Result<OpenDevice, DeviceError> {
    let devices = Device::enumerate(burn::tensor::DeviceType::Cuda).into_vec();
    if index < devices.len() {
        return Ok(OpenDevice::new(Device::cuda(index), format!("cuda:{index}"), Hardware::Cuda));
    }
    Err(DeviceError::NotFound {
        name: format!("cuda:{index}"),
        found: format!("{} CUDA devices", devices.len()),
        hint: "check that `nvidia-smi` lists the GPU and that the driver's libcuda can be loaded; device: auto falls back to what is there",
    })
}

/// The files of the CUDA toolkit that kernels are compiled with, beside the driver.
#[cfg(feature = "cuda")]
mod toolkit {
    use std::path::PathBuf;

    use super::{DeviceError, OpenDevice};

    /// The folders that CubeCL searches unless `CUDA_PATH` names one.
    const FOLDERS: [&str; 4] = ["/usr/local/cuda", "/opt/cuda", "/usr/lib/cuda", "/usr"];
    #[cfg(not(feature = "cuda-cpp"))]
    const NEEDED: &str = "nvvm/libdevice/libdevice.10.bc";
    #[cfg(feature = "cuda-cpp")]
    const NEEDED: &str = "include/cuda_fp16.h";

    /// `device`, if it can be used.
    pub(super) fn complete(device: OpenDevice) -> Result<OpenDevice, DeviceError> {
        match missing(std::env::var_os("CUDA_PATH").map(PathBuf::from)) {
            None => Ok(device),
            Some(folder) => Err(DeviceError::Incomplete {
                name: device.name,
                folder,
                file: NEEDED,
                hint: "install the CUDA toolkit, or set CUDA_PATH to a folder that has it (PyTorch's package `triton` brings libdevice.10.bc, too); a device through Vulkan needs no toolkit",
            }),
        }
    }

    /// The folders that were searched, if none of them has the file.
    pub(super) fn missing(named: Option<PathBuf>) -> Option<String> {
        let folders = named.map_or_else(|| FOLDERS.map(PathBuf::from).to_vec(), |named| vec![named]);
        if folders.iter().any(|folder| folder.join(NEEDED).is_file()) {
            return None;
        }
        let names: Vec<String> = folders.iter().map(|folder| format!("`{}`", folder.display())).collect();
        Some(names.join(" or "))
    }
}

#[cfg(not(feature = "cuda"))]
mod toolkit {
    pub(super) fn complete(device: super::OpenDevice) -> Result<super::OpenDevice, super::DeviceError> {
        Ok(device)
    }
}

#[cfg(not(feature = "cuda"))]
fn cuda(_index: usize) -> Result<OpenDevice, DeviceError> {
    Err(DeviceError::NotBuilt { name: "cuda", feature: "cuda" })
}

#[cfg(feature = "cpu")]
fn cube_cpu() -> Result<OpenDevice, DeviceError> {
    Ok(OpenDevice::new(Device::cpu(), "cube-cpu", Hardware::Software))
}

#[cfg(not(feature = "cpu"))]
fn cube_cpu() -> Result<OpenDevice, DeviceError> {
    Err(DeviceError::NotBuilt { name: "cube-cpu", feature: "cpu" })
}

#[cfg(feature = "wgpu")]
mod through_wgpu {
    use super::{DeviceError, Hardware, OpenDevice};
    use burn::tensor::{Device, DeviceKind, DeviceType};

    const HINT: &str = "check that `vulkaninfo --summary` (Vulkan) lists the GPU and its driver is installed; device: auto falls back to what is there";

    /// The real GPUs among `devices`, discrete ones first; `make` turns a kind into a device of the same API.
    fn real(devices: &[Device], make: impl Fn(DeviceKind) -> Device) -> Vec<Device> {
        let kinds: [fn(usize) -> DeviceKind; 3] =
            [DeviceKind::DiscreteGpu, DeviceKind::IntegratedGpu, DeviceKind::VirtualGpu];
        let candidates = kinds.iter().flat_map(|kind| (0..devices.len()).map(|index| make(kind(index))));
        candidates.filter(|candidate| devices.contains(candidate)).collect()
    }

    fn choose(
        kind: DeviceType,
        prefix: &str,
        index: Option<usize>,
        make: impl Fn(DeviceKind) -> Device,
    ) -> Result<OpenDevice, DeviceError> {
        let devices = Device::enumerate(kind).into_vec();
        let real = real(&devices, &make);
        let software = make(DeviceKind::Cpu);
        let has_software = devices.contains(&software);
        let name = index.map_or_else(|| format!("{prefix}:cpu"), |index| format!("{prefix}:{index}"));
        match index {
            Some(index) if index < real.len() => Ok(OpenDevice::new(real[index].clone(), name, Hardware::Gpu)),
            None if has_software => Ok(OpenDevice::new(software, name, Hardware::Software)),
            _ => {
                let rasterizer = if has_software { " and a software rasterizer" } else { "" };
                Err(DeviceError::NotFound { name, found: format!("{} GPUs{rasterizer}", real.len()), hint: HINT })
            }
        }
    }

    pub(super) fn wgpu(index: usize) -> Result<OpenDevice, DeviceError> {
        choose(DeviceType::Wgpu, "wgpu", Some(index), Device::wgpu)
    }

    pub(super) fn wgpu_software() -> Result<OpenDevice, DeviceError> {
        choose(DeviceType::Wgpu, "wgpu", None, Device::wgpu)
    }

    #[cfg(feature = "vulkan")]
    pub(super) fn vulkan(index: Option<usize>) -> Result<OpenDevice, DeviceError> {
        choose(DeviceType::Vulkan, "vulkan", index, Device::vulkan)
    }

    #[cfg(feature = "metal")]
    pub(super) fn metal(index: usize) -> Result<OpenDevice, DeviceError> {
        choose(DeviceType::Metal, "metal", Some(index), Device::metal)
    }
}

#[cfg(feature = "wgpu")]
use through_wgpu::{wgpu, wgpu_software};

#[cfg(not(feature = "wgpu"))]
fn wgpu(_index: usize) -> Result<OpenDevice, DeviceError> {
    Err(DeviceError::NotBuilt { name: "wgpu", feature: "wgpu" })
}

#[cfg(not(feature = "wgpu"))]
fn wgpu_software() -> Result<OpenDevice, DeviceError> {
    wgpu(0)
}

#[cfg(feature = "vulkan")]
use through_wgpu::vulkan;

#[cfg(not(feature = "vulkan"))]
fn vulkan(_index: Option<usize>) -> Result<OpenDevice, DeviceError> {
    Err(DeviceError::NotBuilt { name: "vulkan", feature: "vulkan" })
}

#[cfg(feature = "metal")]
use through_wgpu::metal;

#[cfg(not(feature = "metal"))]
fn metal(_index: usize) -> Result<OpenDevice, DeviceError> {
    Err(DeviceError::NotBuilt { name: "metal", feature: "metal" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_to_devices_and_nothing_else_does() {
        assert_eq!(DeviceChoice::parse("auto"), Some(DeviceChoice::Auto));
        assert_eq!(DeviceChoice::parse("cuda"), Some(DeviceChoice::Cuda(0)));
        assert_eq!(DeviceChoice::parse("cuda:1"), Some(DeviceChoice::Cuda(1)));
        assert_eq!(DeviceChoice::parse("vulkan:cpu"), Some(DeviceChoice::VulkanCpu));
        for wrong in ["gpu", "cpu:0", "cuda:one", "", "auto:1"] {
            assert_eq!(DeviceChoice::parse(wrong), None, "{wrong}");
        }
    }

    #[cfg(feature = "cuda")]
    #[test]
    fn a_folder_without_a_toolkit_is_named() {
        let folder = std::env::temp_dir().join("no-toolkit");
        assert_eq!(toolkit::missing(Some(folder.clone())), Some(format!("`{}`", folder.display())));
    }

    #[test]
    fn the_cpu_is_always_there_and_calculates_in_f32() {
        let device = open(DeviceChoice::Cpu).expect("the CPU is there");
        assert!(device.is_host && device.supports(FloatDType::F32));
    }
}
