//! The header of a safetensors file, believed only where it fits the file.
//!
//! In: the bytes of a whole file. Out: for every tensor its type, shape and place. Lengths, offsets
//! and sizes come from a download and may lie: each is checked before anything is sliced by it, so
//! that no later code meets an offset outside the file.

use std::fmt;
use std::ops::Range;
use std::path::Path;

use serde_json::Value;

use super::error::HubError;

/// Longest header that is read, as in the reference implementation.
const HEADER_LIMIT_BYTES: u64 = 100_000_000;

/// Type of a tensor's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Dtype {
    name: &'static str,
    bits: u32,
}

impl Dtype {
    /// 32-bit floating point.
    pub const F32: Dtype = Dtype::of("F32", 32);
    /// 16-bit brain floating point.
    pub const BF16: Dtype = Dtype::of("BF16", 16);
    /// 16-bit half precision floating point.
    pub const F16: Dtype = Dtype::of("F16", 16);
    /// 8-bit floating point with 4 bits of exponent.
    pub const F8_E4M3: Dtype = Dtype::of("F8_E4M3", 8);
    /// Bytes.
    pub const U8: Dtype = Dtype::of("U8", 8);

    /// Every type a safetensors header may name.
    const ALL: &[Dtype] = &[
        Dtype::F32,
        Dtype::BF16,
        Dtype::F16,
        Dtype::of("F64", 64),
        Dtype::F8_E4M3,
        Dtype::of("F8_E5M2", 8),
        Dtype::of("F8_E8M0", 8),
        Dtype::of("F8_E4M3FNUZ", 8),
        Dtype::of("F8_E5M2FNUZ", 8),
        Dtype::of("F6_E2M3", 6),
        Dtype::of("F6_E3M2", 6),
        Dtype::of("F4", 4),
        Dtype::of("C64", 64),
        Dtype::of("I64", 64),
        Dtype::of("I32", 32),
        Dtype::of("I16", 16),
        Dtype::of("I8", 8),
        Dtype::of("U64", 64),
        Dtype::of("U32", 32),
        Dtype::of("U16", 16),
        Dtype::U8,
        Dtype::of("BOOL", 8),
    ];

    const fn of(name: &'static str, bits: u32) -> Dtype {
        Dtype { name, bits }
    }

    fn named(name: &str) -> Option<Dtype> {
        Dtype::ALL.iter().copied().find(|dtype| dtype.name == name)
    }

    /// The name in the header, such as `BF16`.
    pub const fn name(self) -> &'static str {
        self.name
    }

    /// Whether the elements decode to f32: F32, BF16 and F16 do.
    pub fn is_decodable(self) -> bool {
        matches!(self, Dtype::F32 | Dtype::BF16 | Dtype::F16)
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name)
    }
}

/// One entry of a header, its bytes counted from the beginning of the file.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
    pub(super) bytes: Range<usize>,
}

/// Reads the header of the file whose bytes are `file`; `path` is for errors.
pub(super) fn read(path: &Path, file: &[u8]) -> Result<Vec<Entry>, HubError> {
    let (header, data_start) = split(path, file)?;
    let data_len = file.len() - data_start;
    let mut entries = Vec::with_capacity(header.len());
    for (name, value) in &header {
        if name != "__metadata__" {
            entries.push(entry(path, name, value)?);
        }
    }
    entries.sort_by_key(|entry| (entry.bytes.start, entry.bytes.end));
    let promised = entries.iter().map(|entry| entry.bytes.end).max().unwrap_or(0);
    if promised > data_len {
        return Err(HubError::Truncated {
            path: path.to_owned(),
            promised: (data_start as u64).saturating_add(promised as u64),
            actual: file.len() as u64,
        });
    }
    check_contiguous(path, &entries, data_len)?;
    for entry in &mut entries {
        entry.bytes = entry.bytes.start + data_start..entry.bytes.end + data_start;
    }
    Ok(entries)
}

/// The header's JSON object, and where the data begins.
fn split(path: &Path, file: &[u8]) -> Result<(serde_json::Map<String, Value>, usize), HubError> {
    let damaged = |reason: String| HubError::Header { path: path.to_owned(), reason, hint: "download the file again" };
    if file.starts_with(b"version https://git-lfs") {
        return Err(HubError::Header {
            path: path.to_owned(),
            reason: "it is a Git LFS pointer, not the file itself".to_owned(),
            hint: "run `git lfs pull` in the folder, or give the model's name on the hub as base_model",
        });
    }
    let Some((length, rest)) = file.split_first_chunk::<8>() else {
        return Err(damaged(format!("it has {} bytes, and the length of the header alone takes 8", file.len())));
    };
    let length = u64::from_le_bytes(*length);
    if length > HEADER_LIMIT_BYTES {
        return Err(damaged(format!(
            "its header claims to be `{length}` bytes long; at most {HEADER_LIMIT_BYTES} are accepted"
        )));
    }
    let header = usize::try_from(length).ok().and_then(|length| rest.get(..length));
    let Some(header) = header else {
        return Err(HubError::Truncated { path: path.to_owned(), promised: length + 8, actual: file.len() as u64 });
    };
    match serde_json::from_slice(header) {
        Ok(Value::Object(object)) => Ok((object, 8 + header.len())),
        Ok(_) => Err(damaged("its header is not a JSON object".to_owned())),
        Err(error) => Err(damaged(format!("its header is not JSON: {error}"))),
    }
}

/// One entry, its bytes still counted from the beginning of the data.
fn entry(path: &Path, name: &str, value: &Value) -> Result<Entry, HubError> {
    let wrong = |reason: String| HubError::Tensor { path: path.to_owned(), tensor: name.to_owned(), reason };
    let Some(dtype_name) = value.get("dtype").and_then(Value::as_str) else {
        return Err(wrong("its header entry has no `dtype`".to_owned()));
    };
    let dtype = Dtype::named(dtype_name)
        .ok_or_else(|| wrong(format!("unknown dtype `{dtype_name}`; F32, BF16 and F16 are accepted")))?;
    let shape =
        sizes(value, "shape").ok_or_else(|| wrong("its header entry has no `shape` of whole numbers".to_owned()))?;
    let offsets =
        sizes(value, "data_offsets").ok_or_else(|| wrong("its header entry has no `data_offsets`".to_owned()))?;
    let &[start, end] = offsets.as_slice() else {
        return Err(wrong(format!("`data_offsets` has {} numbers; a begin and an end are accepted", offsets.len())));
    };
    if start > end {
        return Err(wrong(format!("`data_offsets` [{start}, {end}] end before they begin")));
    }
    let bits = shape
        .iter()
        .try_fold(dtype.bits as usize, |bits, size| bits.checked_mul(*size))
        .ok_or_else(|| wrong(format!("shape {shape:?} is larger than any memory")))?;
    if bits % 8 != 0 || bits / 8 != end - start {
        return Err(wrong(format!(
            "shape {shape:?} of {dtype} takes {} bytes, but its offsets [{start}, {end}] span {}",
            bits.div_ceil(8),
            end - start
        )));
    }
    Ok(Entry { name: name.to_owned(), dtype, shape, bytes: start..end })
}

fn sizes(value: &Value, key: &str) -> Option<Vec<usize>> {
    value.get(key)?.as_array()?.iter().map(|size| usize::try_from(size.as_u64()?).ok()).collect()
}

/// Every byte of the data belongs to exactly one tensor; `entries` are in the order of their offsets.
fn check_contiguous(path: &Path, entries: &[Entry], data_len: usize) -> Result<(), HubError> {
    let mut end = 0;
    for entry in entries {
        let start = entry.bytes.start;
        if start != end {
            let problem = if start < end { "overlaps the tensor before it" } else { "leaves a gap before it" };
            return Err(HubError::Tensor {
                path: path.to_owned(),
                tensor: entry.name.clone(),
                reason: format!("begins at byte {start} of the data and {problem}, which ends at {end}"),
            });
        }
        end = entry.bytes.end;
    }
    if end != data_len {
        return Err(HubError::Header {
            path: path.to_owned(),
            reason: format!("the file has {} bytes after its last tensor", data_len - end),
            hint: "download the file again",
        });
    }
    Ok(())
}
