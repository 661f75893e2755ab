//! Quantisation against bitsandbytes: codes, scales, scales of scales and decoded values, of odd sizes, tails, blocks
//! of zeros and values exactly between two codes.

use adapters::Nf4Weight;
use adapters::nf4::serialised::{BOOK, NESTED_BOOK, NESTED_SCALES, SCALES, STATE};
use adapters::nf4::{CODES, Nf4, Nf4Part, Nf4Parts, dynamic_map};
use adapters::normal;
use burn::tensor::{DType, FloatDType, Tensor, TensorData};
use half::bf16;
use serde_json::Value;

use super::Bench;
use super::check::{Check, settle};
use super::fixture::{self, Tensors};

/// Of scales in 8 bits, how many may be one off: their mean may differ in its last bit.
const OFF_BY_ONE: usize = 50;

/// Compares one tensor of a weight as bitsandbytes names it.
pub(super) fn compare(reference: &Tensors, name: &str, part: &Nf4Part) {
    if part.ending != STATE {
        assert_eq!(part.shape, reference.shape(name), "{name}");
    }
    let floats = || part.bytes.as_chunks::<4>().0.iter().map(|value| f32::from_le_bytes(*value)).collect::<Vec<f32>>();
    match part.ending {
        STATE => {
            let [mut ours, mut theirs] =
                [&part.bytes, reference.bytes(name)].map(|text| serde_json::from_slice::<Value>(text).unwrap());
            let offsets = [&mut ours, &mut theirs].map(|state| state["nested_offset"].take().as_f64());
            assert_eq!(ours, theirs, "{name}");
            if let [Some(ours), Some(theirs)] = offsets {
                assert!(ulps(ours as f32, theirs as f32) <= 1, "{name}: {ours} {theirs}");
            }
        }
        SCALES if part.is_f32 => assert_eq!(floats(), reference.floats(name), "{name}"),
        SCALES => {
            let pairs = part.bytes.iter().zip(reference.bytes(name));
            let off: Vec<u8> = pairs.map(|(ours, theirs)| ours.abs_diff(*theirs)).filter(|off| *off > 0).collect();
            assert!(off.iter().all(|off| *off == 1) && off.len() * OFF_BY_ONE <= part.bytes.len(), "{name}: {off:?}");
        }
        NESTED_SCALES => {
            for (ours, theirs) in floats().iter().zip(reference.floats(name)) {
                assert!((ours - theirs).abs() <= 1e-6 * theirs.abs(), "{name}: {ours} {theirs}");
            }
        }
        BOOK | NESTED_BOOK => assert_eq!(floats(), reference.floats(name), "{name}"),
        _ => assert_eq!(part.bytes, reference.bytes(name), "{name}"),
    }
}

/// Representable numbers between two of one sign.
fn ulps(a: f32, b: f32) -> u32 {
    a.to_bits().abs_diff(b.to_bits())
}

fn files() -> Vec<(String, Tensors)> {
    let folder = fixture::root().join("nf4");
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let names = names.filter(|name| name.ends_with(".safetensors") && name != "tables.safetensors");
    names.map(|name| (name.clone(), Tensors::read(&format!("nf4/{name}")))).collect()
}

#[test]
fn both_code_books_equal_bitsandbytes() {
    let tables = Tensors::read("nf4/tables.safetensors");
    assert_eq!(CODES, tables.floats("nf4_code"));
    assert_eq!(dynamic_map(), tables.floats("dynamic_map_signed_8bit"));
}

#[test]
fn packed_bytes_scales_and_decoded_values_equal_bitsandbytes() {
    let files = files();
    assert!(!files.is_empty(), "no case was run: the fixtures are missing");
    for (file, tensors) in &files {
        let input = tensors.floats("input");
        let shape = tensors.shape("input");
        for (tag, dtype) in [("f32", FloatDType::F32), ("bf16", FloatDType::BF16)] {
            let values: Vec<f32> = match dtype {
                FloatDType::BF16 => input.iter().map(|value| bf16::from_f32(*value).to_f32()).collect(),
                _ => input.to_vec(),
            };
            for (double, kind) in [(false, "plain"), (true, "dq")] {
                let key = format!("{tag}.{kind}");
                let packed = Nf4::quantise(&values, double, dtype);
                for part in packed.parts(shape) {
                    compare(tensors, &format!("{key}.weight{}", part.ending), &part);
                }
                let read = read(tensors, &format!("{key}.weight"), double);
                assert_eq!(read.block_scales(), tensors.floats(&format!("{key}.block_scales")), "{file} {key}");
                assert_eq!(read.dequantise(), tensors.floats(&format!("{key}.dequantized")), "{file} {key}");
                assert_eq!(packed.codes, read.codes, "{file} {key}");
            }
        }
    }
}

/// The reference's own tensors as a weight.
fn read(tensors: &Tensors, name: &str, double: bool) -> Nf4 {
    let floats = |ending: &str| -> Vec<u8> {
        tensors.floats(&format!("{name}{ending}")).iter().flat_map(|value| value.to_le_bytes()).collect()
    };
    let bytes = |ending: &str| tensors.bytes(&format!("{name}{ending}"));
    let scales = if double { bytes(SCALES).to_vec() } else { floats(SCALES) };
    let nested = double.then(|| [floats(NESTED_SCALES), floats(NESTED_BOOK)]);
    let parts = Nf4Parts {
        codes: bytes(""),
        scales: &scales,
        book: &floats(BOOK),
        nested: nested.as_ref().map(|[scales, book]| [scales.as_slice(), book.as_slice()]),
        state: bytes(STATE),
    };
    let (packed, shape) = parts.read().unwrap();
    assert_eq!(shape, tensors.shape("input"));
    packed
}

#[test]
fn products_and_gradients_on_the_device_equal_those_of_decoded_numbers() {
    let bench = Bench::open();
    let device = &bench.device.device;
    let mut wrong = Vec::new();
    // A whole number of words and blocks, rows that end within them, and a last word that is not full.
    let cases =
        [([96, 64], true, FloatDType::F32), ([37, 19], false, FloatDType::BF16), ([130, 72], true, FloatDType::BF16)];
    for (sizes, double, dtype) in cases {
        let [outputs, inputs] = sizes;
        let tokens = 24;
        let mut check =
            Check::new(format!("{outputs} x {inputs}, double {double}, {dtype:?} on {}", bench.device.name));
        let packed = Nf4::quantise(&normal(1, outputs * inputs, 0.1), double, dtype);
        let (x, y) = (normal(2, tokens * inputs, 1.0), normal(3, tokens * outputs, 1.0));
        let weight = Nf4Weight::new(&packed, sizes, device);
        let tensor = |values: &[f32], columns: usize| {
            Tensor::<2>::from_data(TensorData::new(values.to_vec(), [tokens, columns]), (device, DType::F32))
        };
        let matrix = packed.dequantise();
        let at = |row: usize, column: usize| f64::from(matrix[row * inputs + column]);
        let sum = |terms: &mut dyn Iterator<Item = f64>| terms.sum::<f64>() as f32;
        let forward: Vec<f32> = x
            .chunks(inputs)
            .flat_map(|x| (0..outputs).map(move |row| (x, row)))
            .map(|(x, row)| sum(&mut x.iter().enumerate().map(|(column, x)| f64::from(*x) * at(row, column))))
            .collect();
        let back: Vec<f32> = y
            .chunks(outputs)
            .flat_map(|y| (0..inputs).map(move |column| (y, column)))
            .map(|(y, column)| sum(&mut y.iter().enumerate().map(|(row, y)| f64::from(*y) * at(row, column))))
            .collect();
        let leaf = tensor(&x, inputs).autodiff().require_grad();
        let result = weight.multiply(leaf.clone());
        let gradients = (result.clone() * tensor(&y, outputs)).backward();
        let bound = bench.tolerance.gradient;
        check.close_to_scale("forward", "x Wᵀ", &fixture::values(result), &forward, 1e-12, bound);
        check.close_to_scale("gradient", "y W", &fixture::values(leaf.grad(&gradients).unwrap()), &back, 1e-12, bound);
        check.close_to_scale(
            "plain",
            "y W",
            &fixture::values(weight.multiply_back(tensor(&y, outputs))),
            &back,
            1e-12,
            bound,
        );
        if weight.to_host() != packed {
            check.fail("what is read back is not what was packed");
        }
        check.done(&mut wrong);
    }
    settle(&wrong, cases.len());
}
