//! `bnb-4bit`: the merged model with its linear maps as NF4 codes, as bitsandbytes writes them and transformers reads them.

use std::collections::BTreeSet;
use std::path::Path;

use adapters::nf4::Nf4;
use adapters::{Nf4Weight, Weight};
use burn::tensor::{Device, FloatDType};
use safetensors::tensor::Dtype;
use serde_json::{Value, json};

use super::{CardWords, Content, Divergence, Expected, Format, NEEDS_DENSE_LAYERS, merged, tune_generate};
use crate::export::weights::{self, torch_name};
use crate::export::{ExportError, Job, MergedForm, PackedTensor, Packing, Probe};
use crate::model::{Decoder, Quantised, names};

pub(super) const FORMAT: Format = Format {
    name: "bnb-4bit",
    description: "a whole checkpoint with its linear maps in 4 bits, for transformers with bitsandbytes",
    needs: &[NEEDS_DENSE_LAYERS],
    write_files: write,
    expected,
    content: Content::Model(merged::read),
    card: CardWords {
        library: "transformers",
        load: "from transformers import AutoModelForCausalLM\nmodel = AutoModelForCausalLM.from_pretrained(\"bnb-4bit\")\n",
    },
    command: tune_generate,
};

/// The merged model, in the 4-bit form that training saw, or the default one where the base is not in 4 bits.
fn form(job: &Job) -> MergedForm {
    let quantised = job.settings.quantised.clone().unwrap_or_default();
    let packing = Packing { quantised, tensors, weight, config };
    MergedForm { packing: Some(packing), ..MergedForm::of(job.settings) }
}

fn write(folder: &Path, decoder: &mut Decoder, job: &Job) -> Result<(), ExportError> {
    weights::write(folder, decoder, job.base, &form(job))?;
    job.companions.write(job.base, folder, &(job.card)(&FORMAT))
}

fn expected(probe: &Probe, decoder: &Decoder, job: &Job) -> Result<Expected, ExportError> {
    let merged = probe.merged(decoder, job.base, &form(job))?;
    let divergence = Divergence { name: FORMAT.name, way: "quantised again", distance: probe.divergence(&merged) };
    Ok(Expected { probe: Some(merged), model: "the merged model", divergences: vec![divergence] })
}

/// The codes, scales and code books of a weight.
fn tensors(quantised: &Quantised, values: &[f32], shape: &[usize], dtype: FloatDType) -> Vec<PackedTensor> {
    let parts = Nf4::quantise(values, quantised.spec.double, dtype).parts(shape);
    let tensor = |part: adapters::nf4::Nf4Part| PackedTensor {
        suffix: part.ending,
        dtype: if part.is_f32 { Dtype::F32 } else { Dtype::U8 },
        shape: part.shape,
        bytes: part.bytes,
    };
    parts.into_iter().map(tensor).collect()
}

/// The weight that a reader of those tensors computes with.
fn weight(quantised: &Quantised, values: &[f32], sizes: [usize; 2], dtype: FloatDType, device: &Device) -> Weight {
    Weight::Nf4(Nf4Weight::new(&Nf4::quantise(values, quantised.spec.double, dtype), sizes, device))
}

/// The `quantization_config` that transformers reads.
fn config(quantised: &Quantised, dtype: FloatDType, head: &str) -> Value {
    // A list of modules replaces transformers' own, on which the head is.
    let skipped = match quantised.skipped.as_slice() {
        [] => Value::Null,
        names => json!(names.iter().map(String::as_str).chain([names::short(head)]).collect::<BTreeSet<&str>>()),
    };
    json!({
        "quant_method": "bitsandbytes",
        "load_in_4bit": true,
        "load_in_8bit": false,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": quantised.spec.double,
        "bnb_4bit_compute_dtype": torch_name(dtype),
        "bnb_4bit_quant_storage": "uint8",
        "llm_int8_skip_modules": skipped,
    })
}
