//! A quantised weight as bitsandbytes writes it into safetensors: the codes under the weight's own name, and under
//! that name with endings the scales, both code books, and a JSON text with the rest.

use burn::tensor::FloatDType;
use serde_json::{Map, Value, json};
use thiserror::Error;

use super::{BLOCK, CODES, Nf4, SCALE_BLOCK, Scales, dynamic_map};

/// Ending of the scales, in f32 or, quantised themselves, in 8 bits.
pub const SCALES: &str = ".absmax";
/// Ending of the weights' code book.
pub const BOOK: &str = ".quant_map";
/// Ending of the scales of scales.
pub const NESTED_SCALES: &str = ".nested_absmax";
/// Ending of the scales' code book.
pub const NESTED_BOOK: &str = ".nested_quant_map";
/// Ending of the rest.
pub const STATE: &str = ".quant_state.bitsandbytes__nf4";

/// One tensor to be written.
#[derive(Debug, Clone, PartialEq)]
pub struct Nf4Part {
    /// The ending after the weight's name.
    pub ending: &'static str,
    /// If set, the elements are f32; else bytes.
    pub is_f32: bool,
    /// Sizes.
    pub shape: Vec<usize>,
    /// Little endian.
    pub bytes: Vec<u8>,
}

/// The bytes of the tensors of one weight as read, little endian.
#[derive(Debug, Clone, Copy)]
pub struct Nf4Parts<'a> {
    /// The codes.
    pub codes: &'a [u8],
    /// The scales.
    pub scales: &'a [u8],
    /// The code book.
    pub book: &'a [u8],
    /// The scales of scales and their code book.
    pub nested: Option<[&'a [u8]; 2]>,
    /// The JSON text.
    pub state: &'a [u8],
}

/// Why tensors are no NF4 weight.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct Nf4Error(String);

fn wrong(reason: impl Into<String>) -> Nf4Error {
    Nf4Error(reason.into())
}

impl Nf4Parts<'_> {
    /// The weight, and the shape that it says to have.
    ///
    /// # Errors
    /// When it is of another kind than is written here, or its parts do not fit each other.
    pub fn read(&self) -> Result<(Nf4, Vec<usize>), Nf4Error> {
        let state: Map<String, Value> = serde_json::from_slice(self.state)
            .map_err(|error| wrong(format!("its quant_state is not JSON: {error}")))?;
        let fits = |key: &str, accepted: Value| match state.get(key) {
            Some(value) if *value == accepted => Ok(()),
            other => Err(wrong(format!("`{key}` is `{}`; {accepted} is accepted", other.unwrap_or(&Value::Null)))),
        };
        fits("quant_type", json!("nf4"))?;
        fits("blocksize", json!(BLOCK))?;
        let dtype = match state.get("dtype").and_then(Value::as_str) {
            Some("float32") => FloatDType::F32,
            Some("bfloat16") => FloatDType::BF16,
            Some("float16") => FloatDType::F16,
            other => {
                let found = other.unwrap_or("missing");
                return Err(wrong(format!("`dtype` is `{found}`; float32, bfloat16 and float16 are accepted")));
            }
        };
        let shape = state.get("shape").and_then(Value::as_array);
        let shape = shape.and_then(|sizes| sizes.iter().map(|size| size.as_u64().map(|size| size as usize)).collect());
        let shape: Vec<usize> = shape.ok_or_else(|| wrong("`shape` is no list of sizes"))?;
        let count = shape.iter().try_fold(1usize, |count, size| count.checked_mul(*size));
        let count = count.ok_or_else(|| wrong(format!("shape {shape:?} is larger than any memory")))?;
        let blocks = count.div_ceil(BLOCK);
        has_length("codes", self.codes, count.div_ceil(2))?;
        same_book(BOOK, self.book, &CODES)?;
        let scales = match self.nested {
            None => {
                has_length(SCALES, self.scales, 4 * blocks)?;
                Scales::Plain(numbers(self.scales))
            }
            Some([scales, book]) => {
                fits("nested_blocksize", json!(SCALE_BLOCK))?;
                fits("nested_dtype", json!("float32"))?;
                has_length(SCALES, self.scales, blocks)?;
                has_length(NESTED_SCALES, scales, 4 * blocks.div_ceil(SCALE_BLOCK))?;
                same_book(NESTED_BOOK, book, dynamic_map())?;
                let offset = state.get("nested_offset").and_then(Value::as_f64);
                let offset = offset.ok_or_else(|| wrong("`nested_offset` is no number"))? as f32;
                Scales::Double { codes: self.scales.to_vec(), blocks: numbers(scales), offset }
            }
        };
        let packed = Nf4 { codes: self.codes.to_vec(), scales, count, dtype };
        match packed.block_scales().iter().all(|scale| scale.is_finite()) {
            true => Ok((packed, shape)),
            false => Err(wrong("a scale is not finite")),
        }
    }
}

impl Nf4 {
    /// The tensors of a weight of this shape, the codes first.
    pub fn parts(&self, shape: &[usize]) -> Vec<Nf4Part> {
        let bytes =
            |ending, bytes: &[u8]| Nf4Part { ending, is_f32: false, shape: vec![bytes.len()], bytes: bytes.to_vec() };
        let floats = |ending, values: &[f32]| Nf4Part {
            ending,
            is_f32: true,
            shape: vec![values.len()],
            bytes: values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        };
        let dtype = match self.dtype {
            FloatDType::BF16 => "bfloat16",
            FloatDType::F16 => "float16",
            _ => "float32",
        };
        let mut state = json!({ "quant_type": "nf4", "blocksize": BLOCK, "dtype": dtype, "shape": shape });
        let codes = Nf4Part { shape: vec![self.codes.len(), 1], ..bytes("", &self.codes) };
        let mut parts = vec![codes, floats(BOOK, &CODES)];
        match &self.scales {
            Scales::Plain(scales) => parts.push(floats(SCALES, scales)),
            Scales::Double { codes, blocks, offset } => {
                parts.push(bytes(SCALES, codes));
                parts.push(floats(NESTED_SCALES, blocks));
                parts.push(floats(NESTED_BOOK, dynamic_map()));
                state["nested_blocksize"] = json!(SCALE_BLOCK);
                state["nested_dtype"] = json!("float32");
                state["nested_offset"] = json!(f64::from(*offset));
            }
        }
        parts.push(bytes(STATE, state.to_string().as_bytes()));
        parts
    }
}

fn has_length(part: &str, bytes: &[u8], length: usize) -> Result<(), Nf4Error> {
    match bytes.len() == length {
        true => Ok(()),
        false => Err(wrong(format!("its {part} take {} bytes; {length} fit its shape", bytes.len()))),
    }
}

fn same_book(part: &str, bytes: &[u8], book: &[f32]) -> Result<(), Nf4Error> {
    match numbers(bytes) == book {
        true => Ok(()),
        false => Err(wrong(format!("its {part} is not the code book of NF4 weights"))),
    }
}

fn numbers(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|value| f32::from_le_bytes(*value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(parts: &[Nf4Part]) -> Result<(Nf4, Vec<usize>), Nf4Error> {
        let part = |ending: &str| parts.iter().find(|part| part.ending == ending).map(|part| part.bytes.as_slice());
        let parts = Nf4Parts {
            codes: part("").unwrap(),
            scales: part(SCALES).unwrap(),
            book: part(BOOK).unwrap(),
            nested: part(NESTED_SCALES).map(|scales| [scales, part(NESTED_BOOK).unwrap()]),
            state: part(STATE).unwrap(),
        };
        parts.read()
    }

    #[test]
    fn what_is_written_reads_back_equal() {
        let values: Vec<f32> = (0..37 * 19).map(|index| (index as f32).sin()).collect();
        for (double, dtype) in [(false, FloatDType::BF16), (true, FloatDType::F32), (true, FloatDType::F16)] {
            let packed = Nf4::quantise(&values, double, dtype);
            assert_eq!(read(&packed.parts(&[37, 19])).unwrap(), (packed, vec![37, 19]));
        }
    }

    #[test]
    fn parts_that_do_not_fit_are_refused_with_the_reason() {
        let packed = Nf4::quantise(&[1.0; 130], false, FloatDType::F32);
        let problem = |change: &dyn Fn(&mut Vec<Nf4Part>)| {
            let mut parts = packed.parts(&[13, 10]);
            change(&mut parts);
            read(&parts).unwrap_err().to_string()
        };
        let state = |text: &'static str| {
            move |parts: &mut Vec<Nf4Part>| parts.last_mut().unwrap().bytes = text.as_bytes().to_vec()
        };
        assert!(problem(&state(r#"{"quant_type":"fp4"}"#)).contains("`quant_type` is `\"fp4\"`; \"nf4\" is accepted"));
        assert!(problem(&state("{")).contains("not JSON"));
        let large = r#"{"quant_type":"nf4","blocksize":64,"dtype":"float32","shape":[4294967296,4294967296,2]}"#;
        assert!(problem(&state(large)).contains("larger than any memory"));
        assert!(problem(&|parts| parts[0].bytes.truncate(64)).contains("codes take 64 bytes; 65"));
        assert!(problem(&|parts| parts[1].bytes[0] = 1).contains("not the code book"));
        assert!(problem(&|parts| parts[2].bytes = [f32::NAN; 3].map(f32::to_le_bytes).concat()).contains("not finite"));
    }
}
