//! The weights of a base model: safetensors files, mapped into memory and read tensor by tensor.
//!
//! One `model.safetensors`, or shards that `model.safetensors.index.json` lists. Opening checks every
//! header against its file and the index against the shards; nothing is decoded until asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use memmap2::Mmap;
#[cfg(unix)]
use memmap2::UncheckedAdvice;
use serde_json::Value;

use super::encoding::{self, Encoding};
use super::error::HubError;
use super::header::{self, Dtype};
use super::read_object;
use super::stamp::{self, Stamp};
use super::watch::{Watched, watch};

/// The file that holds the weights when they are not sharded.
pub const SINGLE_FILE: &str = "model.safetensors";
/// The file that lists the shards when they are.
pub const INDEX_FILE: &str = "model.safetensors.index.json";

/// A tensor as the checkpoint describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Type of the elements.
    pub dtype: Dtype,
    /// Sizes, outermost first; `[out, in]` for a linear map.
    pub shape: Vec<usize>,
    /// The file that holds it.
    pub file: PathBuf,
    /// The encoding of its values.
    pub encoding: Encoding,
    shard: usize,
    bytes: Range<usize>,
}

impl TensorInfo {
    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Length in the file, in bytes, scales included.
    pub fn len_bytes(&self) -> usize {
        self.bytes.len() + self.beside().into_iter().map(|info| info.bytes.len()).sum::<usize>()
    }

    /// True if its values decode to f32.
    pub fn is_decodable(&self) -> bool {
        self.encoding != Encoding::Plain || self.dtype.is_decodable()
    }

    /// The tensors that its values are made of beside their codes, if they are stored in fewer bits.
    fn beside(&self) -> Vec<&TensorInfo> {
        match &self.encoding {
            Encoding::Plain => Vec::new(),
            Encoding::Fp8 { scales } | Encoding::Mxfp4 { scales } => vec![scales],
            Encoding::Nf4 { parts } => {
                [&parts.scales, &parts.book, &parts.state].into_iter().chain(parts.nested.iter().flatten()).collect()
            }
        }
    }
}

/// The bytes of an NF4 weight as bitsandbytes writes them.
#[derive(Debug, Clone, Copy)]
pub struct Nf4Bytes<'a> {
    /// Two codes a byte.
    pub codes: &'a [u8],
    /// Scales of blocks, in f32 or, if they are nested, in 8 bits.
    pub scales: &'a [u8],
    /// Code book of the weights.
    pub book: &'a [u8],
    /// Scales of scales, and their code book.
    pub nested: Option<[&'a [u8]; 2]>,
    /// The rest, a JSON text.
    pub state: &'a [u8],
}

/// A file of the weights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WeightFile {
    /// Its path.
    pub path: PathBuf,
    /// Its length in bytes, the header included.
    pub len_bytes: u64,
}

/// Weights that are not there, as an index describes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingWeights {
    /// The names of all tensors; `None` where there is no index that lists them.
    pub names: Option<BTreeSet<String>>,
    /// Number of files.
    pub files: usize,
    /// Bytes of all tensors, if the index has their sum.
    pub bytes: Option<u64>,
}

/// All tensors of a checkpoint by name.
#[derive(Debug)]
pub struct Weights {
    folder: PathBuf,
    shards: Vec<Shard>,
    tensors: BTreeMap<String, TensorInfo>,
}

/// A file of the weights, mapped.
#[derive(Debug)]
struct Shard {
    path: PathBuf,
    /// Before the map, so that it is taken back before the addresses are another's.
    _watched: Watched,
    map: Mmap,
    stamp: Stamp,
}

impl Weights {
    /// Opens the weights in `folder`; `None` if it has neither a `model.safetensors` nor an index.
    pub fn open(folder: &Path) -> Result<Option<Weights>, HubError> {
        let mut weights = Weights { folder: folder.to_owned(), shards: Vec::new(), tensors: BTreeMap::new() };
        let single = folder.join(SINGLE_FILE);
        let index = folder.join(INDEX_FILE);
        if single.exists() {
            weights.add(single)?;
        } else if index.exists() {
            weights.add_shards(&index)?;
        } else {
            return Ok(None);
        }
        encoding::pair(&mut weights.tensors);
        weights.give_nf4_their_shapes()?;
        Ok(Some(weights))
    }

    /// Opens one safetensors file, whose tensors are as their types say.
    pub fn open_file(path: &Path) -> Result<Weights, HubError> {
        let folder = path.parent().unwrap_or(Path::new("")).to_owned();
        let mut weights = Weights { folder, shards: Vec::new(), tensors: BTreeMap::new() };
        weights.add(path.to_owned())?;
        Ok(weights)
    }

    /// The codes of NF4 weights are a column; their shape is in a text beside them.
    fn give_nf4_their_shapes(&mut self) -> Result<(), HubError> {
        let mut shapes = Vec::new();
        for (name, info) in &self.tensors {
            if let Encoding::Nf4 { parts } = &info.encoding {
                let shape = encoding::nf4_shape(self.bytes_of(name, &parts.state)?);
                let wrong = || HubError::Tensor {
                    path: info.file.clone(),
                    tensor: name.clone(),
                    reason: "its quant_state is not JSON with a `shape`".to_owned(),
                };
                shapes.push((name.clone(), shape.ok_or_else(wrong)?));
            }
        }
        for (name, shape) in shapes {
            if let Some(info) = self.tensors.get_mut(&name) {
                info.shape = shape;
            }
        }
        Ok(())
    }

    /// The bytes of an NF4 weight, if `name` is one.
    ///
    /// # Errors
    /// When there is no such tensor.
    pub fn nf4(&self, name: &str) -> Result<Option<Nf4Bytes<'_>>, HubError> {
        let (info, codes) = self.tensor(name)?;
        let Encoding::Nf4 { parts } = &info.encoding else { return Ok(None) };
        let nested = match &parts.nested {
            Some([scales, book]) => Some([self.bytes_of(name, scales)?, self.bytes_of(name, book)?]),
            None => None,
        };
        Ok(Some(Nf4Bytes {
            codes,
            scales: self.bytes_of(name, &parts.scales)?,
            book: self.bytes_of(name, &parts.book)?,
            nested,
            state: self.bytes_of(name, &parts.state)?,
        }))
    }

    /// The weights that the index in `folder` describes, where none of the files that it names are there or, in the
    /// snapshot of a download that may have been cut short, not all of them.
    pub(super) fn missing(folder: &Path, is_snapshot: bool) -> Result<Option<MissingWeights>, HubError> {
        let index = folder.join(INDEX_FILE);
        if folder.join(SINGLE_FILE).exists() || !index.exists() {
            return Ok(None);
        }
        let wrong = |reason: String| HubError::Index { path: index.clone(), reason };
        let object = read_object(&index)?;
        let files = shard_names(&object).map_err(wrong)?;
        let there = files.iter().filter(|file| folder.join(file).exists()).count();
        if there == files.len() || (there > 0 && !is_snapshot) {
            return Ok(None);
        }
        let names = object["weight_map"].as_object().into_iter().flat_map(|map| map.keys().cloned());
        let bytes = object.get("metadata").and_then(|metadata| metadata.get("total_size")).and_then(Value::as_u64);
        Ok(Some(MissingWeights { names: Some(names.collect()), files: files.len(), bytes }))
    }

    /// The folder of the checkpoint.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The tensor `name` as the checkpoint describes it.
    pub fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(name)
    }

    /// All tensors with their names, sorted by name.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &TensorInfo)> {
        self.tensors.iter().map(|(name, info)| (name.as_str(), info))
    }

    /// The bytes of a tensor as the file has them: little endian, rows one after the other.
    pub fn bytes(&self, name: &str) -> Result<&[u8], HubError> {
        let (_, bytes) = self.tensor(name)?;
        Ok(bytes)
    }

    /// The values of a tensor, decoded from F32, BF16, F16, FP8 or MXFP4; other types, NF4 among them (see
    /// [`Weights::nf4`]), are refused by name.
    pub fn to_f32(&self, name: &str) -> Result<Vec<f32>, HubError> {
        let (info, bytes) = self.tensor(name)?;
        match &info.encoding {
            Encoding::Plain => self.decode(name, info, bytes),
            Encoding::Fp8 { scales } => {
                let factors = self.decode(name, scales, self.bytes_of(name, scales)?)?;
                Ok(encoding::decode_fp8(bytes, &info.shape, &factors))
            }
            Encoding::Mxfp4 { scales } => Ok(encoding::decode_mxfp4(bytes, &info.shape, self.bytes_of(name, scales)?)),
            Encoding::Nf4 { .. } => {
                Err(HubError::Dtype { path: info.file.clone(), tensor: name.to_owned(), dtype: "NF4" })
            }
        }
    }

    fn decode(&self, name: &str, info: &TensorInfo, bytes: &[u8]) -> Result<Vec<f32>, HubError> {
        let pairs = || bytes.as_chunks::<2>().0.iter().copied();
        match info.dtype {
            Dtype::F32 => Ok(bytes.as_chunks::<4>().0.iter().copied().map(f32::from_le_bytes).collect()),
            Dtype::BF16 => Ok(pairs().map(|pair| bf16::from_le_bytes(pair).to_f32()).collect()),
            Dtype::F16 => Ok(pairs().map(|pair| f16::from_le_bytes(pair).to_f32()).collect()),
            other => Err(HubError::Dtype { path: info.file.clone(), tensor: name.to_owned(), dtype: other.name() }),
        }
    }

    /// Gives the memory that reading a tensor took back to the system; it is read from the file again when asked for.
    #[cfg_attr(unix, expect(unsafe_code, reason = "telling the system which pages of a map are not needed"))]
    pub fn release(&self, name: &str) {
        #[cfg(unix)]
        for info in self.tensors.get(name).into_iter().flat_map(|info| [vec![info], info.beside()].concat()) {
            let map = &self.shards[info.shard].map;
            // SAFETY: the map is of a file and read-only, so that pages that are dropped come back with the same bytes.
            // A system that does not do it loses nothing.
            let _ =
                unsafe { map.unchecked_advise_range(UncheckedAdvice::DontNeed, info.bytes.start, info.bytes.len()) };
        }
    }

    /// As [`Weights::to_f32`], and an error if a value is not finite.
    pub fn to_finite_f32(&self, name: &str) -> Result<Vec<f32>, HubError> {
        let values = self.to_f32(name)?;
        match (find_non_finite(&values), self.info(name)) {
            (Some(index), Some(info)) => Err(HubError::NonFinite {
                path: info.file.clone(),
                tensor: name.to_owned(),
                index,
                value: values[index],
            }),
            _ => Ok(values),
        }
    }

    /// The bytes of a tensor of 16-bit numbers, and an error if one is not finite; `None` for other types.
    ///
    /// # Errors
    /// When there is no such tensor, or a number is not finite.
    pub fn finite_half(&self, name: &str) -> Result<Option<(Dtype, &[u8])>, HubError> {
        let (info, bytes) = self.tensor(name)?;
        // All bits of the exponent are set in what is not finite.
        let exponent: u16 = match (info.dtype, &info.encoding) {
            (Dtype::BF16, Encoding::Plain) => 0x7f80,
            (Dtype::F16, Encoding::Plain) => 0x7c00,
            _ => return Ok(None),
        };
        let pairs = bytes.as_chunks::<2>().0;
        match pairs.iter().position(|pair| u16::from_le_bytes(*pair) & exponent == exponent) {
            None => Ok(Some((info.dtype, bytes))),
            Some(index) => Err(HubError::NonFinite {
                path: info.file.clone(),
                tensor: name.to_owned(),
                index,
                value: match info.dtype {
                    Dtype::BF16 => bf16::from_le_bytes(pairs[index]).to_f32(),
                    _ => f16::from_le_bytes(pairs[index]).to_f32(),
                },
            }),
        }
    }

    /// Bytes of all tensors together, without headers.
    pub fn total_bytes(&self) -> u64 {
        self.tensors.values().map(|info| info.len_bytes() as u64).sum()
    }

    /// The files, shards in the order of their names.
    pub fn files(&self) -> Vec<WeightFile> {
        let file = |shard: &Shard| WeightFile { path: shard.path.clone(), len_bytes: shard.map.len() as u64 };
        self.shards.iter().map(file).collect()
    }

    /// An error if a file is not the one that was opened; to be asked once what was read of them is to be relied on.
    ///
    /// # Errors
    /// [`HubError::Changed`], which names the file.
    pub fn unchanged(&self) -> Result<(), HubError> {
        match self.shards.iter().find(|shard| !shard.stamp.holds_at(&shard.path)) {
            Some(shard) => Err(HubError::Changed { path: shard.path.clone() }),
            None => Ok(()),
        }
    }

    fn tensor(&self, name: &str) -> Result<(&TensorInfo, &[u8]), HubError> {
        let missing = || HubError::NoTensor { folder: self.folder.clone(), tensor: name.to_owned() };
        let info = self.tensors.get(name).ok_or_else(missing)?;
        Ok((info, self.bytes_of(name, info)?))
    }

    fn bytes_of(&self, name: &str, info: &TensorInfo) -> Result<&[u8], HubError> {
        let missing = || HubError::NoTensor { folder: self.folder.clone(), tensor: name.to_owned() };
        let shard = self.shards.get(info.shard).ok_or_else(missing)?;
        shard.map.get(info.bytes.clone()).ok_or_else(missing)
    }

    fn add(&mut self, path: PathBuf) -> Result<(), HubError> {
        let failed = |source| HubError::Read { path: path.clone(), source };
        let mut file = stamp::open(&path).map_err(failed)?;
        let stamp = Stamp::of(&file).map_err(failed)?;
        let entries = header::read(&path, &mut file, stamp.len_bytes())?;
        let map = map_file(&file).map_err(failed)?;
        if map.len() as u64 != stamp.len_bytes() {
            return Err(HubError::Changed { path });
        }
        for entry in entries {
            let info = TensorInfo {
                dtype: entry.dtype,
                shape: entry.shape,
                file: path.clone(),
                encoding: Encoding::Plain,
                shard: self.shards.len(),
                bytes: entry.bytes,
            };
            if let Some(earlier) = self.tensors.get(&entry.name) {
                return Err(HubError::Tensor {
                    reason: format!("is also in `{}`", earlier.file.display()),
                    path,
                    tensor: entry.name,
                });
            }
            self.tensors.insert(entry.name, info);
        }
        self.shards.push(Shard { _watched: watch(&path, &map), path, map, stamp });
        Ok(())
    }

    fn add_shards(&mut self, index: &Path) -> Result<(), HubError> {
        let wrong = |reason: String| HubError::Index { path: index.to_owned(), reason };
        let object = read_object(index)?;
        let files = shard_names(&object).map_err(wrong)?;
        for file in &files {
            let path = self.folder.join(file);
            if !path.exists() {
                return Err(wrong(format!("it names the shard `{file}`, which is not in the folder")));
            }
            self.add(path)?;
        }
        for (tensor, file) in object["weight_map"].as_object().into_iter().flatten() {
            let held_by = self.tensors.get(tensor).and_then(|info| info.file.file_name());
            if held_by.is_none_or(|held_by| Some(held_by) != file.as_str().map(std::ffi::OsStr::new)) {
                return Err(wrong(format!(
                    "it says that {file} holds the tensor `{tensor}`, which that shard does not"
                )));
            }
        }
        Ok(())
    }
}

/// The files that the index at `path` names.
pub(super) fn shards(path: &Path) -> Result<BTreeSet<String>, HubError> {
    shard_names(&read_object(path)?).map_err(|reason| HubError::Index { path: path.to_owned(), reason })
}

/// The files that an index names; an error in words if it names none rightly.
fn shard_names(index: &serde_json::Map<String, Value>) -> Result<BTreeSet<String>, String> {
    let Some(Value::Object(weight_map)) = index.get("weight_map") else {
        return Err("no `weight_map` from tensor names to file names".to_owned());
    };
    let name = |(tensor, file): (&String, &Value)| match file.as_str().filter(|file| is_plain_file_name(file)) {
        Some(file) => Ok(file.to_owned()),
        None => Err(format!("tensor `{tensor}` is mapped to `{file}`; a file name is accepted")),
    };
    weight_map.iter().map(name).collect()
}

/// The position of the first value that is not a number or infinite.
pub fn find_non_finite(values: &[f32]) -> Option<usize> {
    // A sum over blocks finds the usual case, all finite, without a branch per element.
    let block_len = 4096;
    for (block, values) in values.chunks(block_len).enumerate() {
        if values.iter().map(|value| value * 0.0).sum::<f32>() != 0.0 {
            let within = values.iter().position(|value| !value.is_finite())?;
            return Some(block * block_len + within);
        }
    }
    None
}

/// True if `name` stays in the folder of the index: an index comes from a download.
fn is_plain_file_name(name: &str) -> bool {
    !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\\', '\0'])
}

#[expect(unsafe_code, reason = "checkpoints are larger than memory: they are mapped, not read")]
fn map_file(file: &File) -> std::io::Result<Mmap> {
    // SAFETY: the map is read-only and private to this value, and every access is bounds-checked
    // against its length. The one thing left is another process that changes the file meanwhile: bytes
    // that change are numbers all the same, `Weights::unchanged` finds it before they are used, and a
    // file that is cut short ends the process by the signal that `watch` explains.
    unsafe { Mmap::map(file) }
}
