//! Objectives beside supervised training, as somebody adds them: weights that are known beforehand, and weights that depend
//! on the log-probabilities of pairs with and without the adapter. Loss, gradients and measures are compared with those of
//! one dense autodiff graph.

use adapters::{AdapterSpec, LowRankSpec, Method, Targets, attach};
use burn::tensor::activation::log_softmax;
use burn::tensor::{DType, Int, Tensor, TensorData};
use datasets::{Batch, MicroBatch};
use tune::model::{Decoder, Pass};
use tune::train::{
    Document, Grouping, Mean, Objective, ObjectiveLoss, Supervised, TrainError, TrainSettings, Trainer, check_format,
    evaluate,
};

use super::Bench;
use super::check::{Check, norm, settle};
use super::fixture::{self, Model};
use super::gradients::{Gradients, same_gradients, settings};
use super::lora::{Variant, variants};

/// Every token has the weight of its id, which may be zero or lower its probability.
#[derive(Debug)]
struct TokenWeighted;

fn weight_of(token: i32) -> f32 {
    [0.25, 1.0, 0.0, 2.0, -0.5][token as usize % 5]
}

impl Objective for TokenWeighted {
    fn name(&self) -> &'static str {
        "token_weighted"
    }

    fn grouping(&self) -> Grouping {
        Grouping::Single
    }

    fn mean(&self) -> Mean {
        Mean::Tokens
    }

    fn known_weights(&self, documents: &[Document]) -> Option<Vec<f32>> {
        Some(documents.iter().flat_map(|document| document.tokens).map(|token| weight_of(*token)).collect())
    }
}

/// DPO (Rafailov et al. 2023, arXiv:2305.18290).
#[derive(Debug)]
struct Preference {
    beta: f64,
}

impl Objective for Preference {
    fn name(&self) -> &'static str {
        "preference"
    }

    fn grouping(&self) -> Grouping {
        Grouping::Pairs
    }

    fn mean(&self) -> Mean {
        Mean::Groups
    }

    fn needs_reference(&self) -> bool {
        true
    }

    fn loss(&self, documents: &[Document]) -> ObjectiveLoss {
        let reward = |document: &Document| {
            let sum = |values: &[f32]| values.iter().map(|value| f64::from(*value)).sum::<f64>();
            self.beta * (sum(document.log_probabilities) - sum(document.reference))
        };
        let (mut loss, mut margins, mut accuracies) = (0.0, 0.0, 0.0);
        let mut weights = Vec::new();
        for pair in documents.chunks_exact(2) {
            let margin = reward(&pair[0]) - reward(&pair[1]);
            let slope = (self.beta / (1.0 + margin.exp())) as f32;
            weights.extend(vec![slope; pair[0].tokens.len()]);
            weights.extend(vec![-slope; pair[1].tokens.len()]);
            loss += (-margin).exp().ln_1p();
            margins += margin;
            accuracies += f64::from(u8::from(margin > 0.0));
        }
        ObjectiveLoss { loss, weights, metrics: vec![("rewards/margins", margins), ("rewards/accuracies", accuracies)] }
    }
}

/// The loss of a window, and its gradients.
struct Found {
    loss: f64,
    gradients: Gradients,
}

fn with(objective: impl Objective + 'static, recompute: bool) -> TrainSettings {
    TrainSettings { objective: std::sync::Arc::new(objective), ..settings(recompute) }
}

fn batch(micro_batches: Vec<MicroBatch>) -> Batch {
    Batch {
        trained_tokens: micro_batches.iter().map(MicroBatch::trained_tokens).sum(),
        tokens: micro_batches.iter().map(|batch| batch.real_tokens).sum(),
        epoch: 0.0,
        micro_batches,
    }
}

/// Two pairs whose rows differ in length.
fn window(variant: &Variant) -> Vec<MicroBatch> {
    let mut examples = variant.tensors("trace").examples("trace");
    examples.truncate(6);
    vec![fixture::in_rows(&examples[..4], 0), fixture::packed(&examples[4..])]
}

/// Loss and gradients of a window by the trainer, `units` being what the mean is of.
fn trained(decoder: Decoder, settings: TrainSettings, window: &[MicroBatch], units: usize) -> Found {
    let mut trainer = Trainer::start(decoder, settings);
    let factor = 1.0 / units as f64;
    let mut loss = 0.0;
    for (index, batch) in window.iter().enumerate() {
        let part = trainer.forward_backward(batch, index, factor).unwrap().unwrap();
        loss += f64::from(fixture::values(part.sum)[0]) * factor;
    }
    let mut gradients = Gradients::new();
    trainer.decoder_mut().visit(&mut |name, parameter| {
        if let Some(gradient) = parameter.gradient() {
            gradients.insert(name.to_owned(), fixture::values(gradient));
        }
    });
    Found { loss, gradients }
}

/// The trained tokens of each document of `batch`, and their log-probabilities from all logits at once.
fn log_probabilities(decoder: &Decoder, batch: &MicroBatch, recorded: bool) -> Vec<(Vec<i32>, Tensor<1>)> {
    let input = fixture::input(decoder, batch);
    let x = decoder.embed(&input);
    let x = if recorded { x.autodiff() } else { x };
    let x = decoder.layers.iter().fold(x, |x, layer| layer.forward(x, &input, Pass::default()));
    let logs = log_softmax(decoder.logits(decoder.normalise(x)), 1);
    let vocab = logs.dims()[1];
    let logs = logs.reshape([batch.rows * batch.width * vocab]);
    let mut documents: Vec<(usize, i32, Vec<usize>)> = Vec::new();
    for cell in (0..batch.documents.len()).filter(|cell| batch.documents[*cell] >= 0) {
        let (row, document) = (cell / batch.width, batch.documents[cell]);
        if documents.last().is_none_or(|last| (last.0, last.1) != (row, document)) {
            documents.push((row, document, Vec::new()));
        }
        if batch.trained[cell] {
            documents.last_mut().unwrap().2.push(cell);
        }
    }
    let of_document = |(_, _, cells): (usize, i32, Vec<usize>)| {
        let tokens: Vec<i32> = cells.iter().map(|cell| batch.targets[*cell]).collect();
        let places: Vec<i32> = cells.iter().zip(&tokens).map(|(cell, token)| (cell * vocab) as i32 + token).collect();
        let count = places.len();
        let places = Tensor::<1, Int>::from_data(TensorData::new(places, [count]), (decoder.device(), DType::I32));
        (tokens, logs.clone().select(0, places))
    };
    documents.into_iter().map(of_document).collect()
}

/// The gradients of `loss` for what is trained in `decoder`.
fn back(mut decoder: Decoder, loss: Tensor<1>) -> Found {
    let mut graph = loss.backward();
    let mut gradients = Gradients::new();
    decoder.visit(&mut |name, parameter| {
        parameter.collect(&mut graph);
        if let Some(gradient) = parameter.take_gradient() {
            gradients.insert(name.to_owned(), fixture::values(gradient));
        }
    });
    Found { loss: f64::from(fixture::values(loss)[0]), gradients }
}

fn compare(check: &mut Check, ours: &Found, reference: &Found, bench: &Bench) {
    check.within("loss", "loss", (ours.loss - reference.loss).abs(), bench.tolerance.loss);
    same_gradients(check, &ours.gradients, &reference.gradients, bench.tolerance.gradient);
}

#[test]
fn tokens_of_an_objective_count_by_their_weights() {
    let Some(bench) = Bench::open_for_full_set("tokens_of_an_objective_count_by_their_weights") else { return };
    let (variants, mut wrong) = (variants(&bench), Vec::new());
    for variant in variants.iter().filter(|variant| !trains_modules(variant)) {
        let window = window(variant);
        let tokens = window.iter().map(MicroBatch::trained_tokens).sum();
        let decoder = variant.adapted(&bench, "final");
        let mut sums = Vec::new();
        for batch in &window {
            for (tokens, logs) in log_probabilities(&decoder, batch, true) {
                let weights: Vec<f32> = tokens.iter().map(|token| -weight_of(*token)).collect();
                let weights =
                    Tensor::<1>::from_data(TensorData::new(weights, [tokens.len()]), (decoder.device(), DType::F32));
                sums.push((logs * weights).sum());
            }
        }
        let loss = Tensor::cat(sums, 0).sum().div_scalar(tokens as f32);
        let reference = back(decoder.clone(), loss);
        for &recompute in bench.recompute() {
            let mut check = Check::new(format!("{} by token, recompute {recompute}", variant.folder));
            let ours = trained(decoder.clone(), with(TokenWeighted, recompute), &window, tokens);
            compare(&mut check, &ours, &reference, &bench);
            let plain = trained(decoder.clone(), with(Supervised, recompute), &window, tokens);
            if (plain.loss - ours.loss).abs() < 1e-3 {
                check.fail("the weights change nothing");
            }
            check.done(&mut wrong);
        }
        let mut check = Check::new(format!("{} evaluated by token", variant.folder));
        let evaluated = evaluate(&decoder, &TokenWeighted, &window, &mut |_| ()).unwrap();
        check.within("loss", "loss", (evaluated.loss - reference.loss).abs(), bench.tolerance.loss);
        check.done(&mut wrong);
    }
    settle(&wrong, variants.len());
}

#[test]
fn an_objective_compares_pairs_with_the_model_without_its_adapter() {
    let test = "an_objective_compares_pairs_with_the_model_without_its_adapter";
    let Some(bench) = Bench::open_for_full_set(test) else { return };
    let beta = 0.5;
    let (variants, mut wrong) = (variants(&bench), Vec::new());
    for variant in variants.iter().filter(|variant| !trains_modules(variant)) {
        let window = window(variant);
        let base = variant.model.decoder(&bench, bench.compute);
        let decoder = variant.adapted(&bench, "final");
        let mut losses = Vec::new();
        let mut margins = Vec::new();
        for batch in &window {
            let reference = log_probabilities(&base, batch, false);
            let trained = log_probabilities(&decoder, batch, true);
            let rewards: Vec<Tensor<1>> = trained
                .into_iter()
                .zip(&reference)
                .map(|((_, logs), (_, reference))| (logs - reference.clone()).sum().mul_scalar(beta))
                .collect();
            for pair in rewards.chunks_exact(2) {
                let margin = pair[0].clone() - pair[1].clone();
                margins.push(f64::from(fixture::values(margin.clone())[0]));
                losses.push(margin.neg().exp().add_scalar(1.0).log());
            }
        }
        let pairs = losses.len();
        let reference = back(decoder.clone(), Tensor::cat(losses, 0).sum().div_scalar(pairs as f32));
        let margin = margins.iter().sum::<f64>() / pairs as f64;
        let accuracy = margins.iter().filter(|margin| **margin > 0.0).count() as f64 / pairs as f64;
        let objective = || Preference { beta };
        let measures = |check: &mut Check, metrics: &[(&str, f64)]| {
            let [(first, of_margin), (second, of_accuracy)] = metrics else { panic!("two measures: {metrics:?}") };
            assert_eq!((*first, *second), ("rewards/margins", "rewards/accuracies"));
            check.within("margin", "margin", (of_margin - margin).abs(), 50.0 * bench.tolerance.loss);
            check.within("accuracy", "accuracy", (of_accuracy - accuracy).abs(), 0.0);
        };
        for &recompute in bench.recompute() {
            let mut check = Check::new(format!("{} in pairs, recompute {recompute}", variant.folder));
            let ours = trained(decoder.clone(), with(objective(), recompute), &window, pairs);
            compare(&mut check, &ours, &reference, &bench);
            let mut trainer = Trainer::start(decoder.clone(), with(objective(), recompute));
            let step = trainer.step(&batch(window.clone())).unwrap();
            check.within("loss", "loss of a step", (step.loss - reference.loss).abs(), bench.tolerance.loss);
            let all: Vec<f32> = reference.gradients.values().flatten().copied().collect();
            check.relative("norm", "norm", step.gradient_norm, norm(&all), 0.0, bench.tolerance.gradient_norm);
            measures(&mut check, &step.metrics);
            check.done(&mut wrong);
        }
        let mut check = Check::new(format!("{} evaluated in pairs", variant.folder));
        let evaluated = evaluate(&decoder, &objective(), &window, &mut |_| ()).unwrap();
        check.within("loss", "loss", (evaluated.loss - reference.loss).abs(), bench.tolerance.loss);
        measures(&mut check, &evaluated.metrics);
        check.done(&mut wrong);
    }
    settle(&wrong, variants.len());
}

#[test]
fn a_pass_without_the_adapter_is_that_of_the_base_model() {
    let Some(bench) = Bench::open_for_full_set("a_pass_without_the_adapter_is_that_of_the_base_model") else { return };
    let (variants, mut wrong) = (variants(&bench), Vec::new());
    let mut same = |check: Check, base: &Decoder, adapted: &Decoder, batch: &MicroBatch| {
        let mut check = check;
        let hidden = |decoder: &Decoder, pass| fixture::values(decoder.hidden(&fixture::input(decoder, batch), pass));
        let expected = hidden(base, Pass::default());
        check.close("hidden", "hidden states", &hidden(adapted, Pass::reference()), &expected, 0.0);
        if hidden(adapted, Pass::default()) == expected {
            check.fail("the adapter changes nothing");
        }
        check.done(&mut wrong);
    };
    for variant in &variants {
        let (base, adapted) = (variant.model.decoder(&bench, bench.compute), variant.adapted(&bench, "final"));
        same(Check::new(&variant.folder), &base, &adapted, &window(variant)[0]);
    }
    // Stacks of experts, whose update begins at zero.
    let model = Model::open("gpt_oss").unwrap();
    let base = model.decoder(&bench, bench.compute);
    let mut adapted = base.clone();
    let spec = AdapterSpec {
        method: Method::LowRank(LowRankSpec { rank: 4, alpha: 8.0, dropout: 0.0, rank_stabilised: false }),
        targets: Targets::Names(Vec::new()),
        parameters: vec!["experts.gate_up_proj".to_owned(), "experts.down_proj".to_owned()],
        saved_modules: Vec::new(),
        layers: None,
        seed: 1,
    };
    attach(&spec, adapted.adaptable(), &bench.device.device).unwrap();
    adapted.visit(&mut |name, parameter| {
        if adapters::is_of_update(name) {
            parameter.change(|value| value.add_scalar(0.05));
        }
    });
    same(Check::new("gpt_oss, stacks"), &base, &adapted, &window(&variants[0])[0]);
    settle(&wrong, variants.len());
}

#[test]
fn what_an_objective_cannot_train_on_is_refused() {
    let Some(bench) = Bench::open_for_full_set("what_an_objective_cannot_train_on_is_refused") else { return };
    let objective = || Preference { beta: 0.1 };
    check_format(&Supervised).unwrap();
    let error = check_format(&objective()).unwrap_err().to_string();
    assert!(error.contains("`preference`") && error.contains("no data set format"), "{error}");
    for variant in variants(&bench) {
        let mut trainer = Trainer::start(variant.adapted(&bench, "init"), with(objective(), false));
        let mut window = window(&variant);
        if trains_modules(&variant) {
            let error = trainer.step(&batch(window)).unwrap_err();
            assert!(
                matches!(&error, TrainError::Objective(error) if error.to_string().contains("`lm_head")),
                "{error}"
            );
            continue;
        }
        let examples = variant.tensors("trace").examples("trace");
        window.push(fixture::in_rows(&examples[..3], 0));
        let error = trainer.step(&batch(window)).unwrap_err();
        assert!(matches!(&error, TrainError::Objective(error) if error.to_string().contains("groups of 2")), "{error}");
    }
}

/// Whether modules are trained as a whole beside the adapter.
fn trains_modules(variant: &Variant) -> bool {
    variant.folder.ends_with("qwen3_lm_head")
}
