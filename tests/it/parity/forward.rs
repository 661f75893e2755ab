//! The forward pass against the reference: rotary frequencies, hidden states layer by layer, logits,
//! loss, packed documents, token-by-token decoding, and bf16.

use burn::tensor::FloatDType;
use datasets::{Example, MicroBatch};
use tune::model::spec::DecoderSpec;
use tune::model::{Continuation, Decoder, Pass, families};
use tune::train;

use super::check::{Check, settle};
use super::fixture::{self, Model, Tensors};
use super::{Bench, Tolerance, say};

/// A model, and the reference's forward pass of it.
pub(super) struct Case {
    pub(super) name: String,
    pub(super) model: Model,
    /// The folder below the root with the forward pass.
    pub(super) folder: String,
    pub(super) tensors: Tensors,
}

/// Every model that the bench takes and that has a forward pass: its own, or, for `NAME_sharded` and for `NAME_mm`, a
/// language model in a multimodal one, that of `NAME` or `NAME_text`.
pub(super) fn cases(bench: &Bench) -> Vec<Case> {
    let forward = fixture::cases("forward");
    let of = |name: String| {
        let alone = name.strip_suffix("_mm").or(name.strip_suffix("_sharded")).unwrap_or(&name);
        let names = [name.clone(), format!("{alone}_text"), alone.to_owned()];
        let of = names.into_iter().find(|name| forward.contains(name)).filter(|_| bench.takes(&name))?;
        let folder = format!("forward/{of}");
        let model = Model::open(&name)?;
        let tensors = Tensors::read(&format!("{folder}/forward.safetensors"));
        Some(Case { name, model, folder, tensors })
    };
    fixture::cases("models").into_iter().filter_map(of).collect()
}

impl Case {
    /// Whether the reference computed in more than one dtype, without hidden states and gradients.
    pub(super) fn is_by_dtype(&self) -> bool {
        self.tensors.has("batch.logits_f32_compute")
    }

    /// The padded batch, as wide as the reference's.
    pub(super) fn batch(&self) -> MicroBatch {
        fixture::in_rows(&self.tensors.examples("batch"), self.tensors.width("batch.input_ids"))
    }
}

#[test]
fn forward_pass_equals_the_reference() {
    let bench = Bench::open();
    let (cases, mut wrong) = (cases(&bench), Vec::new());
    for case in &cases {
        let mut check = Check::new(format!("forward {}", case.name));
        let decoder = case.model.decoder(&bench, FloatDType::F32);
        let suffix = if case.is_by_dtype() { "_f32_compute" } else { "" };
        rotary(&mut check, case, "rope", "batch");
        hidden(&mut check, case, &decoder, bench.tolerance);
        outputs(&mut check, case, &decoder, suffix, bench.tolerance.logits, bench.tolerance.loss);
        check.done(&mut wrong);
    }
    settle(&wrong, cases.len());
}

/// Every rotary table that the reference stores under `prefix` is that of some layer, for rows as wide as `rows`.
fn rotary(check: &mut Check, case: &Case, prefix: &str, rows: &str) {
    let tensors = &case.tensors;
    let width = if tensors.has(&format!("{rows}.input_ids")) { tensors.width(&format!("{rows}.input_ids")) } else { 0 };
    let stored = |name: &&str| name.starts_with(&format!("{prefix}.")) && name.ends_with("inv_freq");
    for name in tensors.names().filter(stored) {
        let scaling = name.replace("inv_freq", "attention_scaling");
        let scaling = if tensors.has(&scaling) { tensors.floats(&scaling)[0] } else { 1.0 };
        let error = rope_error(&case.model.resolved.spec, width, tensors.floats(name), scaling);
        check.within("rope", name, error, 1e-6);
    }
}

/// How far the nearest layer's frequencies are from the reference's, relatively.
fn rope_error(spec: &DecoderSpec, width: usize, frequencies: &[f32], scaling: f32) -> f64 {
    let errors = spec.layers.iter().filter_map(|layer| layer.attention.rope()).map(|rope| {
        let long = rope.long.as_ref().filter(|long| width > long.beyond);
        let ours = long.map_or(&rope.inv_freq, |long| &long.inv_freq);
        if ours.len() != frequencies.len() {
            return f64::INFINITY;
        }
        let pairs = ours.iter().zip(frequencies);
        let error = pairs.map(|(ours, reference)| f64::from((ours - reference).abs() / reference)).fold(0.0, f64::max);
        error.max(f64::from((rope.attention_scaling - scaling).abs()))
    });
    errors.fold(f64::INFINITY, f64::min)
}

fn hidden(check: &mut Check, case: &Case, decoder: &Decoder, tolerance: Tolerance) {
    if !case.tensors.has("batch.hidden.0") {
        return;
    }
    let batch = case.batch();
    let input = fixture::input(decoder, &batch);
    let mut compare = |index: usize, x: Vec<f32>| {
        let reference = case.tensors.floats(&format!("batch.hidden.{index}"));
        let (ours, reference) = (fixture::real(&x, &batch), fixture::real(reference, &batch));
        check.close("hidden", format!("hidden.{index}"), &ours, &reference, tolerance.logits);
    };
    let mut x = decoder.embed(&input);
    for (index, layer) in decoder.layers.iter().enumerate() {
        compare(index, fixture::values(x.clone()));
        x = layer.forward(x, &input, Pass::default());
    }
    compare(decoder.layers.len(), fixture::values(decoder.normalise(x)));
}

fn outputs(check: &mut Check, case: &Case, decoder: &Decoder, suffix: &str, logits: f64, loss: f64) {
    let batch = case.batch();
    let ours = fixture::real(&fixture::logits(decoder, &batch), &batch);
    let reference = fixture::real(case.tensors.floats(&format!("batch.logits{suffix}")), &batch);
    check.close("logits", "logits", &ours, &reference, logits);
    let evaluation = train::evaluate(decoder, &train::Supervised, &[batch], &mut |_| ()).unwrap();
    let reference = f64::from(case.tensors.floats(&format!("batch.loss{suffix}"))[0]);
    check.within("loss", "loss", (evaluation.loss - reference).abs(), loss);
}

#[test]
fn rows_within_the_original_context_have_the_short_factors() {
    let Some(bench) = Bench::open_for_full_set("rows_within_the_original_context_have_the_short_factors") else {
        return;
    };
    let (cases, mut wrong, mut run) = (cases(&bench), Vec::new(), 0);
    for case in cases.iter().filter(|case| case.tensors.has("short.logits")) {
        let mut check = Check::new(format!("short {}", case.name));
        rotary(&mut check, case, "short.rope", "short");
        let decoder = case.model.decoder(&bench, FloatDType::F32);
        let batch = fixture::in_rows(&case.tensors.examples("short"), case.tensors.width("short.input_ids"));
        let ours = fixture::real(&fixture::logits(&decoder, &batch), &batch);
        let reference = fixture::real(case.tensors.floats("short.logits"), &batch);
        check.close("logits", "short.logits", &ours, &reference, bench.tolerance.logits);
        let evaluation = train::evaluate(&decoder, &train::Supervised, &[batch], &mut |_| ()).unwrap();
        let reference = f64::from(case.tensors.floats("short.loss")[0]);
        check.within("loss", "short.loss", (evaluation.loss - reference).abs(), bench.tolerance.loss);
        check.done(&mut wrong);
        run += 1;
    }
    settle(&wrong, run);
}

#[test]
fn bf16_compute_is_within_bf16_of_the_reference() {
    let Some(bench) = Bench::open_for_full_set("bf16_compute_is_within_bf16_of_the_reference") else {
        return;
    };
    if !bench.device.supports(FloatDType::BF16) {
        return say(&format!("SKIPPED on {}: no bf16", bench.device.name));
    }
    let (cases, mut wrong, mut run) = (cases(&bench), Vec::new(), 0);
    for case in cases.iter().filter(|case| case.is_by_dtype()) {
        let mut check = Check::new(format!("bf16 {}", case.name));
        let decoder = case.model.decoder(&bench, FloatDType::BF16);
        outputs(&mut check, case, &decoder, "_bf16_compute", 0.3, 0.03);
        check.done(&mut wrong);
        run += 1;
    }
    settle(&wrong, run);
}

#[test]
fn packed_documents_do_not_see_each_other() {
    let Some(bench) = Bench::open_for_full_set("packed_documents_do_not_see_each_other") else {
        return;
    };
    let (cases, mut wrong, mut run) = (cases(&bench), Vec::new(), 0);
    for case in cases.iter().filter(|case| case.tensors.has("packed.logits")) {
        let mut check = Check::new(format!("packed {}", case.name));
        let decoder = case.model.decoder(&bench, FloatDType::F32);
        let batch = fixture::packed(&case.tensors.documents());
        let reference = case.tensors.floats("packed.logits");
        check.close("logits", "packed.logits", &fixture::logits(&decoder, &batch), reference, bench.tolerance.logits);
        let evaluation = train::evaluate(&decoder, &train::Supervised, &[batch], &mut |_| ()).unwrap();
        let reference = f64::from(case.tensors.floats("packed.loss")[0]);
        check.within("loss", "packed.loss", (evaluation.loss - reference).abs(), bench.tolerance.loss);
        check.done(&mut wrong);
        run += 1;
    }
    settle(&wrong, run);
}

#[test]
fn decoding_token_by_token_equals_the_whole_row_at_once() {
    let Some(bench) = Bench::open_for_full_set("decoding_token_by_token_equals_the_whole_row_at_once") else {
        return;
    };
    let (cases, mut wrong) = (cases(&bench), Vec::new());
    for case in &cases {
        let mut check = Check::new(format!("decoding {}", case.name));
        let decoder = case.model.decoder(&bench, FloatDType::F32);
        let row = &case.tensors.examples("batch")[..1];
        let whole = fixture::in_rows(row, 0);
        // Where frequencies depend on the row, what is generated after n tokens follows from a row of n tokens.
        let ropes = decoder.spec.layers.iter().filter_map(|layer| layer.attention.rope());
        let by_length = ropes.into_iter().any(|rope| rope.long.is_some());
        let reference = fixture::logits(&decoder, &whole);
        let vocab = decoder.spec.vocab;
        // A prompt of 7 tokens, then a piece of 3, then one at a time.
        let mut continued = Continuation::new(&decoder);
        let mut done = 0;
        let pieces = [7, 3].into_iter().chain(std::iter::repeat(1));
        for piece in pieces {
            let Some(tokens) = whole.tokens.get(done..done + piece) else {
                break;
            };
            done += piece;
            let ours = fixture::values(continued.extend(&decoder, tokens));
            let reference = match by_length {
                true => fixture::logits(&decoder, &fixture::in_rows(&[head(&row[0], done)], 0)),
                false => reference.clone(),
            };
            let reference = &reference[(done - 1) * vocab..done * vocab];
            check.close("logits", format!("logits after {done} tokens"), &ours, reference, bench.tolerance.logits);
        }
        assert_eq!(done, whole.tokens.len());
        check.done(&mut wrong);
    }
    settle(&wrong, cases.len());
}

/// The first tokens of an example.
fn head(example: &Example, tokens: usize) -> Example {
    let mut example = example.clone();
    example.tokens.truncate(tokens);
    example.trained.truncate(tokens);
    example
}

#[test]
fn both_styles_of_config_and_both_layouts_of_weights_are_the_same_model() {
    let bench = Bench::open();
    let cases = cases(&bench);
    for case in &cases {
        let path = case.model.base.folder.join("config_v5.json");
        if path.exists() {
            let config = fixture::json(&format!("models/{}/config_v5.json", case.name));
            let resolved = families::resolve(&config, &path).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(resolved, case.model.resolved, "{}", case.name);
        }
        let Some(single) = case.name.strip_suffix("_sharded").and_then(Model::open) else {
            continue;
        };
        let (mut ours, mut theirs) =
            (case.model.decoder(&bench, FloatDType::F32), single.decoder(&bench, FloatDType::F32));
        assert_eq!(parameters(&mut ours), parameters(&mut theirs), "{}", case.name);
    }
    settle(&[], cases.len());
}

fn parameters(decoder: &mut Decoder) -> Vec<(String, Vec<f32>)> {
    let mut all = Vec::new();
    decoder.visit(&mut |name, parameter| all.push((name.to_owned(), fixture::values(parameter.plain()))));
    all
}
