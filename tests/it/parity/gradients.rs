//! Full fine-tuning against the reference: the gradient of every weight, with and without recompute,
//! and from packed documents.

use std::collections::{BTreeMap, BTreeSet};

use burn::tensor::FloatDType;
use datasets::MicroBatch;
use tune::model::Decoder;
use tune::model::names::{self, ParameterKind};
use tune::train::{OptimizerSettings, Schedule, TrainSettings, Trainer, default_objective, schedules};

use super::Bench;
use super::check::{Check, largest, norm, settle};
use super::fixture;
use super::forward::{Case, cases};

/// What a gradient is at least compared to, as a share of the largest one's norm or value: some are zero in exact
/// arithmetic (of a router that weighs one expert, of the keys' bias in a layer without positions) and noise on both sides.
const LEAST: f64 = 1e-2;

/// Gradients by parameter.
pub(super) type Gradients = BTreeMap<String, Vec<f32>>;

/// Settings for looking at gradients: nothing is trained by them.
pub(super) fn settings(recompute: bool) -> TrainSettings {
    TrainSettings {
        objective: default_objective(),
        schedule: Schedule {
            kind: schedules::named("constant").unwrap(),
            peak: 0.0,
            warmup_steps: 0,
            total_steps: 1,
            floor: 0.0,
        },
        optimizer: OptimizerSettings::default(),
        max_gradient_norm: None,
        recompute,
        embedding_noise: None,
        seed: 42,
    }
}

/// Mean loss of one accumulation window and the gradients of all that is trained.
pub(super) fn loss_and_gradients(decoder: Decoder, settings: TrainSettings, window: &[MicroBatch]) -> (f64, Gradients) {
    let mut trainer = Trainer::start(decoder, settings);
    let trained: usize = window.iter().map(MicroBatch::trained_tokens).sum();
    let factor = 1.0 / trained as f64;
    let mut loss = 0.0;
    for (index, batch) in window.iter().enumerate() {
        let sum = trainer.forward_backward(batch, index, factor).unwrap().unwrap().sum;
        loss += f64::from(fixture::values(sum)[0]) * factor;
    }
    let mut gradients = Gradients::new();
    trainer.decoder_mut().visit(&mut |name, parameter| {
        if let Some(gradient) = parameter.gradient() {
            gradients.insert(name.to_owned(), fixture::values(gradient));
        }
    });
    (loss, gradients)
}

/// The decoder of `case` in `dtype` with those parameters trained whose kind is `trainable`.
fn with_trained(case: &Case, bench: &Bench, dtype: FloatDType, trainable: impl Fn(ParameterKind) -> bool) -> Decoder {
    let mut decoder = case.model.decoder(bench, dtype);
    let all = names::parameters(&case.model.resolved.spec).into_iter();
    let chosen: BTreeSet<String> = all.filter(|parameter| trainable(parameter.kind)).map(|one| one.name).collect();
    decoder.visit(&mut |name, parameter| {
        if chosen.contains(name) {
            parameter.train();
        }
    });
    decoder
}

/// Every parameter that has a gradient.
fn everything(kind: ParameterKind) -> bool {
    kind != ParameterKind::RouterCorrection
}

#[test]
fn full_fine_tuning_gradients_equal_the_reference_with_and_without_recompute() {
    let Some(bench) =
        Bench::open_for_full_set("full_fine_tuning_gradients_equal_the_reference_with_and_without_recompute")
    else {
        return;
    };
    let (cases, mut wrong, mut run) = (cases(&bench), Vec::new(), 0);
    for case in cases.iter().filter(|case| !case.is_by_dtype()) {
        for &recompute in bench.recompute() {
            let mut check = Check::new(format!("gradients {}, recompute {recompute}", case.name));
            let decoder = with_trained(case, &bench, FloatDType::F32, everything);
            let (loss, gradients) = loss_and_gradients(decoder, settings(recompute), &[case.batch()]);
            let reference = f64::from(case.tensors.floats("batch.loss")[0]);
            check.within("loss", "loss", (loss - reference).abs(), bench.tolerance.loss);
            compare(&mut check, case, gradients, &bench);
            check.done(&mut wrong);
        }
        run += 1;
    }
    settle(&wrong, run);
}

#[test]
fn every_model_trains_in_16_bits_as_in_32() {
    Bench::each_of_16_bits(|bench| {
        // Of a whole tensor's norm. Most of it comes from routers that choose other experts for a token.
        let bound = if bench.compute == FloatDType::BF16 { 0.3 } else { 0.03 };
        let (cases, mut wrong, mut run) = (cases(bench), Vec::new(), 0);
        for case in cases.iter().filter(|case| !case.is_by_dtype()) {
            // The embedding alone is trained through nothing but frozen weights.
            for trainable in [everything, |kind| kind == ParameterKind::Embedding] {
                let of = |dtype| {
                    let decoder = with_trained(case, bench, dtype, trainable);
                    loss_and_gradients(decoder, settings(true), &[case.batch()])
                };
                let ((loss, ours), (reference_loss, reference)) = (of(bench.compute), of(FloatDType::F32));
                let what = if reference.len() == 1 { "embedding" } else { "everything" };
                let mut check = Check::new(format!("{}, {what} in {:?}", case.name, bench.compute));
                check.within("loss", "loss", (loss - reference_loss).abs(), bench.tolerance.loss);
                let least = LEAST * reference.values().map(|values| norm(values)).fold(0.0, f64::max);
                for (name, reference) in &reference {
                    // An expert that no token is sent to has no gradient.
                    let none = vec![0.0; reference.len()];
                    let ours = ours.get(name).unwrap_or(&none).iter();
                    let apart: Vec<f32> = ours.zip(reference).map(|(ours, reference)| ours - reference).collect();
                    let error = norm(&apart) / norm(reference).max(least);
                    check.within("gradient", format!("gradient of {name}"), error, bound);
                }
                check.done(&mut wrong);
            }
            run += 1;
        }
        settle(&wrong, run);
    });
}

fn compare(check: &mut Check, case: &Case, mut gradients: Gradients, bench: &Bench) {
    let summary = fixture::json(&format!("{}/forward.json", case.folder));
    let norms = summary["grad_norms"].as_object().unwrap();
    let spec = &case.model.resolved.spec;
    let embedding = names::embedding(spec);
    // The reference of a decoder in a larger model is that of the decoder alone.
    let alone = |name: &str| name.strip_prefix(spec.prefix).unwrap_or(name).to_owned();
    let ours: BTreeSet<String> = gradients.keys().map(|name| alone(name)).collect();
    // An expert without tokens has no gradient here, and zeros there.
    let used = |(name, norm): &(&String, &serde_json::Value)| ours.contains(*name) || norm.as_f64() != Some(0.0);
    let theirs: BTreeSet<String> = norms.iter().filter(used).map(|(name, _)| name.clone()).collect();
    if ours != theirs {
        check.fail(format!("gradients of different weights: {:?}", ours.symmetric_difference(&theirs)));
    }
    // torch leaves the padding token's row of the embedding out of the input side (`padding_idx`); ours does not,
    // which shows only where that token stands among real ones.
    let padding = case.model.base.token_ids("pad_token_id").unwrap().first().map(|&id| id as usize);
    let seen = |id: usize| case.tensors.examples("batch").iter().any(|row| row.tokens.contains(&(id as u32)));
    let padding = padding.filter(|&id| seen(id));
    let without_padding = |values: &mut Vec<f32>| {
        let width = case.model.resolved.spec.hidden;
        padding.map(|id| values.drain(id * width..(id + 1) * width).count());
    };
    if let Some(values) = gradients.get_mut(&embedding) {
        without_padding(values);
    }
    let least_norm = LEAST * norms.values().filter_map(serde_json::Value::as_f64).fold(0.0, f64::max);
    let least = LEAST * gradients.values().map(|values| largest(values)).fold(0.0, f64::max);
    for (name, ours) in &gradients {
        let in_question = *name == embedding && padding.is_some();
        let name = &alone(name);
        if let Some(reference) = norms.get(name).filter(|_| !in_question) {
            let reference = reference.as_f64().unwrap();
            check.relative(
                "norm",
                format!("norm of grad.{name}"),
                norm(ours),
                reference,
                least_norm,
                bench.tolerance.gradient_norm,
            );
        }
        let stored = format!("grad.{name}");
        if case.tensors.has(&stored) {
            let mut reference = case.tensors.floats(&stored).to_vec();
            if in_question {
                without_padding(&mut reference);
            }
            check.close_to_scale("gradient", &stored, ours, &reference, least, bench.tolerance.gradient);
        }
    }
}

#[test]
fn packed_documents_give_the_gradients_of_separate_rows() {
    let Some(bench) = Bench::open_for_full_set("packed_documents_give_the_gradients_of_separate_rows") else {
        return;
    };
    let (cases, mut wrong, mut run) = (cases(&bench), Vec::new(), 0);
    for case in cases.iter().filter(|case| case.tensors.has("packed.loss")) {
        let documents = case.tensors.documents();
        let decoder = with_trained(case, &bench, FloatDType::F32, everything);
        let (_, separate) = loss_and_gradients(decoder.clone(), settings(false), &[fixture::in_rows(&documents, 0)]);
        for &recompute in bench.recompute() {
            let mut check = Check::new(format!("packed gradients {}, recompute {recompute}", case.name));
            let (loss, packed) =
                loss_and_gradients(decoder.clone(), settings(recompute), &[fixture::packed(&documents)]);
            let reference = f64::from(case.tensors.floats("packed.loss")[0]);
            check.within("loss", "packed.loss", (loss - reference).abs(), bench.tolerance.loss);
            same_gradients(&mut check, &packed, &separate, bench.tolerance.gradient);
            check.done(&mut wrong);
        }
        run += 1;
    }
    settle(&wrong, run);
}

/// Compares all gradients, each to the scale of its own largest value. An expert that only padding is sent to has zeros
/// where padding is and no gradient where there is none.
pub(super) fn same_gradients(check: &mut Check, ours: &Gradients, reference: &Gradients, bound: f64) {
    let least = LEAST * reference.values().map(|values| largest(values)).fold(0.0, f64::max);
    let names: BTreeSet<&String> = ours.keys().chain(reference.keys()).collect();
    for name in names {
        let (ours, reference) = (ours.get(name), reference.get(name));
        let none = vec![0.0; ours.or(reference).map_or(0, Vec::len)];
        let (ours, reference) = (ours.unwrap_or(&none), reference.unwrap_or(&none));
        check.close_to_scale("gradient", format!("gradient of {name}"), ours, reference, least, bound);
    }
}
