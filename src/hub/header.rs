//! The header of a safetensors file, believed only where it fits the file.
//!
//! In: a file that is open. Out: for every tensor its type, shape and place. Lengths, offsets and sizes
//! come from a download and may lie: each is checked before anything is mapped, allocated or sliced by
//! it, so that no later code meets an offset outside the file.

use std::fmt;
use std::io::Read;
use std::ops::Range;
use std::path::Path;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Number;
use serde_json::error::Category;

use super::error::HubError;

/// Longest header that is read, as in the reference implementation.
const HEADER_LIMIT_BYTES: u64 = 100_000_000;

/// Most sizes of a shape: more than any framework's tensors have.
const MOST_SIZES: usize = 64;

/// The entry that is not a tensor.
const METADATA: &str = "__metadata__";

/// The hint for a file that is damaged.
const DOWNLOAD: &str = "download the file again";

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

    /// True if the elements decode to f32: F32, BF16 and F16 do.
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

/// Reads the header of `file`, which `path` names in errors and which is `len` bytes long.
///
/// Nothing but the header is read, and nothing is allocated that its own length does not bound.
pub(super) fn read(path: &Path, file: &mut impl Read, len: u64) -> Result<Vec<Entry>, HubError> {
    let text = split(path, file, len)?;
    let data_start = 8 + text.len();
    // A file that is mapped fits into addresses.
    let data_len = usize::try_from(len).unwrap_or(usize::MAX) - data_start;
    let damaged = |reason: String| HubError::Header { path: path.to_owned(), reason, hint: DOWNLOAD };
    let raw: RawHeader = serde_json::from_slice(&text).map_err(|error| match error.classify() {
        Category::Data => damaged(format!("its header is not an object of tensors: {error}")),
        _ => damaged(format!("its header is not JSON: {error}")),
    })?;
    drop(text);
    let mut entries = Vec::with_capacity(raw.0.len());
    for (name, raw) in raw.0 {
        entries.push(entry(path, name, raw)?);
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    if let Some(twice) = entries.windows(2).find(|pair| pair[0].name == pair[1].name) {
        return Err(HubError::Tensor {
            path: path.to_owned(),
            tensor: twice[0].name.clone(),
            reason: "is written twice".to_owned(),
        });
    }
    entries.sort_by_key(|entry| (entry.bytes.start, entry.bytes.end));
    let promised = entries.iter().map(|entry| entry.bytes.end).max().unwrap_or(0);
    if promised > data_len {
        return Err(HubError::Truncated {
            path: path.to_owned(),
            promised: (data_start as u64).saturating_add(promised as u64),
            actual: len,
        });
    }
    check_contiguous(path, &entries, data_len)?;
    for entry in &mut entries {
        entry.bytes = entry.bytes.start + data_start..entry.bytes.end + data_start;
    }
    Ok(entries)
}

/// The header's JSON text, which ends where the data begin.
fn split(path: &Path, file: &mut impl Read, len: u64) -> Result<Vec<u8>, HubError> {
    let failed = |source| HubError::Read { path: path.to_owned(), source };
    let damaged = |reason: String| HubError::Header { path: path.to_owned(), reason, hint: DOWNLOAD };
    if len < 8 {
        return Err(damaged(format!("it has {len} bytes, and the length of the header alone takes 8")));
    }
    let mut length = [0; 8];
    file.read_exact(&mut length).map_err(failed)?;
    if &length == b"version " {
        return Err(HubError::Header {
            path: path.to_owned(),
            reason: "it is a Git LFS pointer, not the file itself".to_owned(),
            hint: "run `git lfs pull` in the folder, or give the model's name on the hub as base_model",
        });
    }
    let length = u64::from_le_bytes(length);
    if length > HEADER_LIMIT_BYTES {
        return Err(damaged(format!(
            "its header claims to be `{length}` bytes long; at most {HEADER_LIMIT_BYTES} are accepted"
        )));
    }
    if length > len - 8 {
        return Err(HubError::Truncated { path: path.to_owned(), promised: length + 8, actual: len });
    }
    let mut text = vec![0; length as usize];
    file.read_exact(&mut text).map_err(failed)?;
    Ok(text)
}

/// A header as it is written: tensors by name, in their order, a name as often as it is there.
struct RawHeader(Vec<(String, RawEntry)>);

/// The entry of a tensor as it is written; a field that is missing or of another kind is `None`.
#[derive(Default)]
struct RawEntry {
    dtype: Option<String>,
    shape: Option<Vec<usize>>,
    offsets: Option<Vec<usize>>,
}

impl<'de> Deserialize<'de> for RawHeader {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Tensors;
        impl<'de> Visitor<'de> for Tensors {
            type Value = RawHeader;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a JSON object")
            }
            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<RawHeader, M::Error> {
                let mut entries = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    match name.as_str() {
                        METADATA => drop(map.next_value::<IgnoredAny>()?),
                        _ => entries.push((name, map.next_value()?)),
                    }
                }
                Ok(RawHeader(entries))
            }
        }
        deserializer.deserialize_map(Tensors)
    }
}

impl<'de> Deserialize<'de> for RawEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = RawEntry;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object with `dtype`, `shape` and `data_offsets`")
            }
            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<RawEntry, M::Error> {
                let mut entry = RawEntry::default();
                while let Some(key) = map.next_key::<String>()? {
                    match key.as_str() {
                        "dtype" => entry.dtype = Some(map.next_value()?),
                        "shape" => entry.shape = map.next_value::<Sizes>()?.0,
                        "data_offsets" => entry.offsets = map.next_value::<Sizes>()?.0,
                        _ => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(entry)
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

/// A few whole numbers; `None` for a list with anything else in it, or one that is too long for any tensor.
struct Sizes(Option<Vec<usize>>);

impl<'de> Deserialize<'de> for Sizes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Numbers;
        impl<'de> Visitor<'de> for Numbers {
            type Value = Sizes;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a list of whole numbers")
            }
            fn visit_seq<S: SeqAccess<'de>>(self, mut list: S) -> Result<Sizes, S::Error> {
                let mut sizes = Some(Vec::new());
                while let Some(number) = list.next_element::<Number>()? {
                    let size = number.as_u64().and_then(|size| usize::try_from(size).ok());
                    sizes = sizes.zip(size).filter(|(sizes, _)| sizes.len() < MOST_SIZES).map(|(mut sizes, size)| {
                        sizes.push(size);
                        sizes
                    });
                }
                Ok(Sizes(sizes))
            }
        }
        deserializer.deserialize_seq(Numbers)
    }
}

/// One entry, its bytes still counted from the beginning of the data.
fn entry(path: &Path, name: String, raw: RawEntry) -> Result<Entry, HubError> {
    let wrong = |reason: String| HubError::Tensor { path: path.to_owned(), tensor: name.clone(), reason };
    let Some(dtype_name) = raw.dtype else {
        return Err(wrong("its header entry has no `dtype`".to_owned()));
    };
    let dtype = Dtype::named(&dtype_name)
        .ok_or_else(|| wrong(format!("unknown dtype `{dtype_name}`; F32, BF16 and F16 are accepted")))?;
    let shape = raw.shape.ok_or_else(|| wrong("its header entry has no `shape` of whole numbers".to_owned()))?;
    let offsets = raw.offsets.ok_or_else(|| wrong("its header entry has no `data_offsets`".to_owned()))?;
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
    Ok(Entry { name, dtype, shape, bytes: start..end })
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
            hint: DOWNLOAD,
        });
    }
    Ok(())
}
