//! The memory that a run takes: the device's pools, or the process's peak on the CPU.

use crate::device::OpenDevice;

/// Bytes taken: reserved by a GPU's pools, or the peak resident size of the process so far; `None` where the system does
/// not report it.
pub fn memory_bytes(device: &OpenDevice) -> Option<u64> {
    if !device.is_host {
        return device.reserved_bytes();
    }
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}
