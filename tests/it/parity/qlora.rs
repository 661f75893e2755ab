//! QLoRA against transformers, PEFT and bitsandbytes: the base in 4 bits byte by byte, logits on it, and every step
//! of training on it; and a checkpoint that is stored in 4 bits.

use adapters::Weight;
use adapters::nf4::{Nf4, Nf4Spec};
use burn::tensor::FloatDType;
use tune::model::{Decoder, Quantised};

use super::Bench;
use super::check::{Check, settle};
use super::fixture;
use super::lora::{Variant, variants_in};
use super::lora_traces::follow;

/// Cases that must not be skipped.
const SUPPORTED: [&str; 2] = ["llama31_nf4", "qwen3_nf4_dq"];

fn variants(bench: &Bench) -> Vec<Variant> {
    let mut variants = variants_in("qlora", &SUPPORTED, bench);
    for variant in &mut variants {
        let double = variant.summary["spec"]["double_quant"].as_bool().unwrap();
        variant.model.quantised = Some(Quantised { spec: Nf4Spec { double }, skipped: Vec::new() });
    }
    variants
}

/// The packed weights of a decoder with their names.
fn packed(decoder: &mut Decoder) -> Vec<(String, Nf4)> {
    let projections = decoder.projections().into_iter();
    let packed = projections.filter_map(|projection| match &projection.weight {
        Weight::Nf4(weight) => Some((projection.name().to_owned(), weight.to_host())),
        Weight::Dense(_) => None,
    });
    packed.collect()
}

#[test]
fn every_linear_weight_but_the_head_is_packed_as_bitsandbytes_packs_it() {
    let Some(bench) = Bench::open_for_full_set("every_linear_weight_but_the_head_is_packed_as_bitsandbytes_packs_it")
    else {
        return;
    };
    let variants = variants(&bench);
    for variant in &variants {
        let reference = variant.tensors("quantized");
        let mut decoder = variant.model.decoder(&bench, FloatDType::F32);
        let mut written = 0;
        for (path, packed) in packed(&mut decoder) {
            let shape = reference.bytes(&format!("{path}.weight.quant_state.bitsandbytes__nf4"));
            let state: serde_json::Value = serde_json::from_slice(shape).unwrap();
            let shape: Vec<usize> = serde_json::from_value(state["shape"].clone()).unwrap();
            for part in packed.parts(&shape) {
                written += 1;
                super::nf4::compare(&reference, &format!("{path}.weight{}", part.ending), &part);
            }
        }
        assert_eq!(written, reference.names().count(), "{}", variant.folder);
    }
    settle(&[], variants.len());
}

#[test]
fn logits_on_a_4_bit_base_equal_the_reference() {
    let Some(bench) = Bench::open_for_full_set("logits_on_a_4_bit_base_equal_the_reference") else {
        return;
    };
    let (variants, mut wrong) = (variants(&bench), Vec::new());
    for variant in &variants {
        let mut check = Check::new(&variant.folder);
        let tensors = variant.tensors("trace");
        let batch = fixture::in_rows(&tensors.examples("batch"), tensors.width("batch.input_ids"));
        let mut compare = |state: &'static str, decoder: &Decoder, bound: f64| {
            let ours = fixture::real(&fixture::logits(decoder, &batch), &batch);
            let name = format!("logits.{state}");
            let reference = fixture::real(tensors.floats(&name), &batch);
            check.close(state, name, &ours, &reference, bound);
        };
        compare("quantized_base", &variant.model.decoder(&bench, FloatDType::F32), bench.tolerance.logits);
        compare("init", &variant.adapted(&bench, "init"), bench.tolerance.logits);
        compare("final", &variant.adapted(&bench, "final"), bench.tolerance.trained_logits);
        check.done(&mut wrong);
    }
    settle(&wrong, variants.len());
}

#[test]
fn every_step_of_training_on_a_4_bit_base_equals_the_reference() {
    let bench = Bench::open();
    let (variants, mut wrong) = (variants(&bench), Vec::new());
    for variant in &variants {
        follow(variant, &bench, &mut wrong, &|_, _, _, _| {});
    }
    settle(&wrong, variants.len());
}

#[test]
fn training_in_16_bits_on_a_4_bit_base_follows_the_reference() {
    Bench::each_of_16_bits(|bench| {
        let (variants, mut wrong) = (variants(bench), Vec::new());
        for variant in &variants {
            follow(variant, bench, &mut wrong, &|_, _, _, _| {});
        }
        settle(&wrong, variants.len());
    });
}
