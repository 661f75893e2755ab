//! LoRA training against PEFT and torch: loss, learning rate and gradient norm of every step, the first
//! gradients, the adapter at the end and what merging it changes; separate, packed and recomputed.

use std::collections::{BTreeMap, BTreeSet};

use burn::tensor::Tensor;
use datasets::{Batch, Example, MicroBatch};
use tune::model::{Decoder, names};
use tune::train::{OptimizerSettings, Schedule, StepReport, TrainSettings, Trainer, default_objective, schedules};

use super::Bench;
use super::check::{Check, settle};
use super::fixture::{self, Tensors};
use super::gradients::loss_and_gradients;
use super::lora::{Variant, variants};

/// How the rows of a micro-batch are laid out.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Layout {
    /// A row each.
    Rows,
    /// As documents of one row.
    Packed,
}

/// The training data of a variant.
pub(super) struct Trace {
    examples: Vec<Example>,
    /// Rows of a micro-batch.
    micro_batch: usize,
    /// Micro-batches of a step.
    accumulation: usize,
    width: usize,
}

impl Trace {
    pub(super) fn read(variant: &Variant, tensors: &Tensors, bench: &Bench) -> Self {
        let size = |key: &str| variant.summary["hyper"][key].as_u64().unwrap() as usize;
        Self {
            examples: tensors.examples("trace"),
            micro_batch: size("micro_batch"),
            accumulation: size("gradient_accumulation"),
            width: tensors.width("trace.input_ids").max(bench.width()),
        }
    }

    /// The accumulation window of `step`, from 0.
    fn window(&self, step: usize, layout: Layout) -> Vec<MicroBatch> {
        let rows = self.micro_batch * self.accumulation;
        let examples = &self.examples[step * rows..(step + 1) * rows];
        let lay = |examples: &[Example]| match layout {
            Layout::Rows => fixture::in_rows(examples, self.width),
            Layout::Packed => fixture::packed(examples),
        };
        examples.chunks(self.micro_batch).map(lay).collect()
    }

    fn batch(&self, step: usize, layout: Layout) -> Batch {
        let micro_batches = self.window(step, layout);
        Batch {
            trained_tokens: micro_batches.iter().map(MicroBatch::trained_tokens).sum(),
            tokens: micro_batches.iter().map(|batch| batch.real_tokens).sum(),
            epoch: 0.0,
            micro_batches,
        }
    }
}

fn settings(variant: &Variant, recompute: bool) -> TrainSettings {
    let hyper = &variant.summary["hyper"];
    let number = |key: &str| hyper[key].as_f64().unwrap_or_else(|| panic!("no number `{key}`"));
    assert!(hyper["schedule"].as_str().unwrap().starts_with("cosine"));
    TrainSettings {
        objective: default_objective(),
        schedule: Schedule {
            kind: schedules::named("cosine").unwrap(),
            peak: number("lr"),
            warmup_steps: number("warmup_steps") as usize,
            total_steps: number("total_steps") as usize,
            floor: 0.0,
        },
        optimizer: OptimizerSettings {
            beta1: Some(number("beta1")),
            beta2: Some(number("beta2")),
            epsilon: Some(number("eps")),
            weight_decay: number("weight_decay"),
            ..OptimizerSettings::default()
        },
        max_gradient_norm: Some(number("max_grad_norm")),
        recompute,
        embedding_noise: None,
        seed: 42,
    }
}

/// Trains `steps` steps from the reference's initial adapter.
fn train(
    variant: &Variant,
    bench: &Bench,
    trace: &Trace,
    layout: Layout,
    recompute: bool,
) -> (Trainer, Vec<StepReport>) {
    let steps = bench.steps(variant.summary["steps"].as_array().unwrap().len());
    let mut trainer = Trainer::start(variant.adapted(bench, "init"), settings(variant, recompute));
    let reports = (0..steps)
        .map(|step| trainer.step(&trace.batch(step, layout)).unwrap_or_else(|error| panic!("{error}")))
        .collect();
    (trainer, reports)
}

#[test]
fn every_step_of_training_equals_the_reference() {
    let bench = Bench::open();
    let (variants, mut wrong) = (variants(&bench), Vec::new());
    for variant in &variants {
        follow(variant, &bench, &mut wrong, &merged_weights);
    }
    settle(&wrong, variants.len());
}

#[test]
fn training_in_16_bits_follows_the_reference() {
    Bench::each_of_16_bits(|bench| {
        let (variants, mut wrong) = (variants(bench), Vec::new());
        for variant in &variants {
            follow(variant, bench, &mut wrong, &merged_weights);
        }
        settle(&wrong, variants.len());
    });
}

/// Trains as the reference did, and compares every step and the adapter at the end; `further` compares what else there is.
pub(super) fn follow(
    variant: &Variant,
    bench: &Bench,
    wrong: &mut Vec<String>,
    further: &dyn Fn(&mut Check, &Variant, &mut Decoder, &Bench),
) {
    let tensors = variant.tensors("trace");
    let trace = Trace::read(variant, &tensors, bench);
    for &recompute in bench.recompute() {
        let mut check = Check::new(format!("{}, {:?}, recompute {recompute}", variant.folder, bench.compute));
        first_gradients(&mut check, variant, bench, &tensors, &trace, recompute);
        let (trainer, reports) = train(variant, bench, &trace, Layout::Rows, recompute);
        steps(&mut check, variant, &reports, bench);
        if reports.len() == variant.summary["steps"].as_array().unwrap().len() {
            let mut decoder = trainer.into_decoder();
            final_adapter(&mut check, variant, &mut decoder, bench);
            further(&mut check, variant, &mut decoder, bench);
        }
        check.done(wrong);
    }
}

#[test]
fn packed_training_equals_training_on_separate_rows() {
    let Some(bench) = Bench::open_for_full_set("packed_training_equals_training_on_separate_rows") else {
        return;
    };
    let (variants, mut wrong) = (variants(&bench), Vec::new());
    for variant in &variants {
        let trace = Trace::read(variant, &variant.tensors("trace"), &bench);
        let (_, separate) = train(variant, &bench, &trace, Layout::Rows, false);
        for &recompute in bench.recompute() {
            let mut check = Check::new(format!("{} packed, recompute {recompute}", variant.folder));
            let (trainer, reports) = train(variant, &bench, &trace, Layout::Packed, recompute);
            steps(&mut check, variant, &reports, &bench);
            let mut decoder = trainer.into_decoder();
            final_adapter(&mut check, variant, &mut decoder, &bench);
            merged_weights(&mut check, variant, &mut decoder, &bench);
            for (packed, separate) in reports.iter().zip(&separate) {
                let what = format!("loss of step {}, packed to separate,", packed.step);
                check.within("packed to separate", what, (packed.loss - separate.loss).abs(), bench.tolerance.loss);
            }
            check.done(&mut wrong);
        }
    }
    settle(&wrong, variants.len());
}

fn first_gradients(
    check: &mut Check,
    variant: &Variant,
    bench: &Bench,
    tensors: &Tensors,
    trace: &Trace,
    recompute: bool,
) {
    let window = trace.window(0, Layout::Rows);
    let mut decoder = variant.adapted(bench, "init");
    let (_, gradients) = loss_and_gradients(decoder.clone(), settings(variant, recompute), &window);
    // The gradients in the place of what they are of, so that PEFT's layout is made of them.
    decoder.visit(&mut |name, parameter| {
        if parameter.is_trainable() {
            let none = vec![0.0; parameter.count()];
            let values = gradients.get(name).unwrap_or(&none).as_slice();
            parameter.replace(Tensor::from_floats(values, &bench.device.device));
        }
    });
    let ours = variant.as_peft(&mut decoder, "gradients");
    let expected: Vec<&str> = tensors.names().filter_map(|name| name.strip_prefix("grad1.")).collect();
    let expected: Vec<String> = expected.into_iter().map(as_saved).collect();
    same_names(check, "gradients", ours.names(), expected.iter().map(String::as_str));
    for name in tensors.names().filter(|name| name.starts_with("grad1.")) {
        let saved = as_saved(&name["grad1.".len()..]);
        if ours.has(&saved) {
            check.close_to_scale(
                "grad1",
                name,
                ours.floats(&saved),
                tensors.floats(name),
                1e-12,
                bench.tolerance.gradient,
            );
        }
    }
}

/// The name under which PEFT saves a parameter that its module calls `name`.
fn as_saved(name: &str) -> String {
    name.replace("modules_to_save.", "")
}

/// Notes names that only one side has.
fn same_names<'a>(
    check: &mut Check,
    what: &str,
    ours: impl Iterator<Item = &'a str>,
    reference: impl Iterator<Item = &'a str>,
) {
    let (ours, reference): (BTreeSet<&str>, BTreeSet<&str>) = (ours.collect(), reference.collect());
    if ours != reference {
        check.fail(format!("{what} of different tensors: {:?}", ours.symmetric_difference(&reference)));
    }
}

fn steps(check: &mut Check, variant: &Variant, reports: &[StepReport], bench: &Bench) {
    for (report, reference) in reports.iter().zip(variant.summary["steps"].as_array().unwrap()) {
        let number = |key: &str| reference[key].as_f64().unwrap();
        let step = report.step;
        assert_eq!(step as f64, number("step"));
        assert_eq!(report.trained_tokens as f64, number("label_tokens"), "step {step}");
        let loss = (report.loss - number("loss")).abs();
        check.within("loss", format!("loss of step {step}"), loss, bench.tolerance.trace_loss);
        let rate = (report.learning_rate - number("lr")).abs();
        check.within("lr", format!("learning rate of step {step}"), rate, 1e-12);
        let (ours, reference) = (report.gradient_norm, number("grad_norm"));
        let bound = bench.tolerance.gradient_norm;
        check.relative("norm", format!("gradient norm of step {step}"), ours, reference, 1e-12, bound);
    }
}

/// The adapter at the end.
fn final_adapter(check: &mut Check, variant: &Variant, decoder: &mut Decoder, bench: &Bench) {
    let reference = variant.tensors("final/adapter_model");
    let ours = variant.as_peft(decoder, "trained");
    same_names(check, "the final adapter is", ours.names(), reference.names());
    for name in ours.names().filter(|name| reference.has(name)) {
        let bound = bench.tolerance.adapter;
        check.close("adapter", format!("final {name}"), ours.floats(name), reference.floats(name), bound);
    }
}

/// The weights that merging the adapter at the end changes.
fn merged_weights(check: &mut Check, variant: &Variant, decoder: &mut Decoder, bench: &Bench) {
    let merged = variant.tensors("merged_changed");
    let adaptable = decoder.adaptable();
    let adapted = adaptable.projections.iter().filter(|projection| projection.update.is_some());
    let adapted = adapted.map(|one| (names::weight(one.name()), fixture::values(one.merged_weight())));
    let stacks = adaptable.stacks.iter().filter(|stack| stack.update.is_some());
    let stacks = stacks.map(|one| (one.name().to_owned(), fixture::values(one.merged_weight())));
    let whole = adaptable.modules.iter().filter(|(_, parameter)| parameter.is_trainable());
    let whole = whole.map(|(path, parameter)| (names::weight(path), fixture::values(parameter.plain())));
    let changed: BTreeMap<String, Vec<f32>> = adapted.chain(stacks).chain(whole).collect();
    same_names(check, "merging changes", changed.keys().map(String::as_str), merged.names());
    for (name, ours) in changed.iter().filter(|(name, _)| merged.has(name)) {
        check.close("merged", format!("merged {name}"), ours, merged.floats(name), bench.tolerance.adapter);
    }
}
