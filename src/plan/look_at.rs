//! The lines of the plan under "look at": what is honoured otherwise than people expect, and settings that are far from
//! usual ones or have no effect on this run.

use datasets::Counts;

use super::{Adaptation, Plan, Steps};
use crate::errors;
use crate::recipe::{self, Recipe};
use crate::run_dir::RunDir;
use crate::text::{counted, grouped};

/// Peak learning rates of usual runs: of an adapter, and of the weights themselves.
const USUAL_RATES: [std::ops::RangeInclusive<f64>; 2] = [1e-6..=1e-2, 1e-7..=1e-3];

/// Scales of usual updates: `lora_alpha / lora_r`.
const USUAL_SCALES: std::ops::RangeInclusive<f64> = 0.01..=32.0;

/// Passes over the rows beyond which a slip is more likely than a wish.
const USUAL_PASSES: usize = 100;

/// Every line, the most important ones first.
pub(super) fn look_at(recipe: &Recipe, plan: &Plan, steps: &Steps, counts: &Counts) -> Vec<String> {
    let mut lines = Vec::new();
    if *recipe.load_in_4bit && recipe.values.get("adapter").is_some_and(|adapter| adapter == "lora") {
        lines.push("adapter: lora with load_in_4bit: true is qlora: the base is trained on in 4 bits".to_owned());
    }
    if let Adaptation::Adapter { continued: Some(continued), .. } = &plan.adaptation
        && let Some(named) = &continued.uncompared_base
    {
        lines.push(format!(
            "the adapter to continue from was trained on `{named}`, which is not here to be compared with `{}`",
            *recipe.base_model
        ));
    }
    values(&mut lines, recipe, plan);
    length(&mut lines, recipe, plan, steps, counts);
    warmup(&mut lines, recipe, steps);
    cadences(&mut lines, recipe, steps, counts);
    // Nothing is written here, but a run would be refused.
    lines.extend(RunDir::check(&plan.run_dir).err().map(|error| errors::message(&error.into())));
    lines
}

/// Values that are far outside the usual ones.
fn values(lines: &mut Vec<String>, recipe: &Recipe, plan: &Plan) {
    let rate = *recipe.learning_rate;
    let (usual, what, example) = match &plan.adaptation {
        Adaptation::Adapter { .. } => (&USUAL_RATES[0], "an adapter", "2e-4"),
        Adaptation::Full { .. } => (&USUAL_RATES[1], "full fine-tuning", "2e-5"),
    };
    if !usual.contains(&rate) {
        // As it was written: a slip of the exponent is seen there.
        let written = recipe.values.get("learning_rate").filter(|text| text.parse() == Ok(rate));
        let shown = written.map_or_else(|| rate.to_string(), String::clone);
        lines.push(format!(
            "learning_rate {shown} is {} for {what}; {example} is usual",
            if rate > *usual.end() { "very high" } else { "very low" }
        ));
    }
    if let Adaptation::Adapter { spec, .. } = &plan.adaptation {
        let low_rank = spec.method.low_rank();
        let scale = low_rank.scaling();
        if !USUAL_SCALES.contains(&scale) {
            let size = if scale > *USUAL_SCALES.end() { "large" } else { "small" };
            lines.push(format!(
                "lora_alpha {} with lora_r {} scales the update by {scale}, which is very {size}; alpha is usually r to 2 r",
                low_rank.alpha, low_rank.rank
            ));
        }
    }
    let unusual = [
        ("weight_decay", *recipe.weight_decay, 1.0, "0 to 0.1"),
        ("lora_dropout", *recipe.lora_dropout, 0.5, "0 to 0.1"),
        ("neftune_noise_alpha", recipe.neftune_noise_alpha.unwrap_or(0.0), 50.0, "5 to 15"),
    ];
    let high = unusual.into_iter().filter(|(_, value, most, _)| value > most);
    lines.extend(high.map(|(key, value, _, usual)| format!("{key} {value} is very high; {usual} is usual")));
    let norm = *recipe.max_grad_norm;
    if norm > 0.0 && norm < 1e-3 {
        lines.push(format!("max_grad_norm {norm} is very low; 1 is usual, and 0 turns clipping off"));
    }
}

/// The number of steps, where it is not what a reader of the recipe expects.
fn length(lines: &mut Vec<String>, recipe: &Recipe, plan: &Plan, steps: &Steps, counts: &Counts) {
    let batching = &plan.dataset.batching;
    let (rows, wanted) = (counts.packed_rows, batching.rows_per_step());
    if wanted > rows {
        lines.push(format!(
            "a step of {} x {} rows is more than the {} there are: each epoch is one step of all of them",
            grouped(batching.accumulation),
            grouped(batching.micro_batch_size),
            if batching.packing { counted(rows, "packed row") } else { counted(rows, "row") },
        ));
    }
    let (total, axolotl) = (steps.total(), steps.of_axolotl);
    let passes = total / steps.per_epoch;
    if passes > USUAL_PASSES {
        lines.push(format!("every row is trained on {} times; 1 to 5 is usual", grouped(passes)));
    }
    if recipe.max_steps.is_none() && axolotl != total {
        let (about, why) = if batching.packing {
            ("about ", "the last rows of an epoch are trained, where Axolotl leaves incomplete batches out")
        } else {
            ("", "the last, partial step of an epoch holds rows of that epoch alone, where Axolotl fills it up")
        };
        let taken = format!("{}, where Axolotl takes {about}{}", counted(total, "step"), grouped(axolotl));
        lines.push(format!("{taken}: {why}"));
    }
    let positions = plan.model.spec.max_positions;
    if plan.dataset.sequence_len > positions {
        lines.push(format!(
            "sequence_len {} is longer than the {} positions of the base model: {}",
            grouped(plan.dataset.sequence_len),
            grouped(positions),
            if counts.longest > positions {
                format!(
                    "rows beyond them are trained at positions that it has never seen, its rope ({}) as it is",
                    plan.model.rope
                )
            } else {
                "no row is so long".to_owned()
            }
        ));
        let merges = plan.export.formats.iter().any(|format| format.is_merged());
        lines.extend(merges.then(|| match plan.export.positions {
            Some(raised) => format!("config.json of exports gets max_position_embeddings {raised}, as in Axolotl"),
            None => format!("config.json of exports keeps {positions} positions, from which its rope is computed"),
        }));
    }
}

/// The warm-up, where it is not what the recipe says at first sight.
fn warmup(lines: &mut Vec<String>, recipe: &Recipe, steps: &Steps) {
    let schedule = &steps.train.schedule;
    if schedule.kind.no_warmup.is_some() {
        return;
    }
    let (warmup, total) = (schedule.warmup_steps, steps.total());
    if *recipe.warmup_steps == Some(1) {
        lines.push("warmup_steps 1 means 2 steps, as in Axolotl: the first step has learning rate 0".to_owned());
    }
    if recipe.warmup_steps.is_none() && steps.warmed < total {
        lines.push(format!(
            "the warm-up is a share of the {} of num_epochs, not of the {} of max_steps, as in Axolotl",
            counted(steps.warmed, "step"),
            grouped(total)
        ));
    }
    if warmup >= total {
        let most = (0..total).map(|step| schedule.learning_rate(step)).fold(0.0, f64::max);
        lines.push(format!(
            "the warm-up of {} does not end within the run's {}: the learning rate reaches {most:.3e}, not {}",
            counted(warmup, "step"),
            counted(total, "step"),
            schedule.peak
        ));
    } else if 2 * warmup > total && total > 4 {
        lines.push(format!("the learning rate rises for {} of the run's {}", grouped(warmup), counted(total, "step")));
    }
}

/// Evaluations and checkpoints that never come.
fn cadences(lines: &mut Vec<String>, recipe: &Recipe, steps: &Steps, counts: &Counts) {
    let total = steps.total();
    let never = [
        ("eval_steps", *recipe.eval_steps, steps.evaluate, "evaluation falls within"),
        ("save_steps", *recipe.save_steps, steps.save, "checkpoint but the last falls within"),
    ];
    for (key, written, every, what) in never {
        if let (Some(recipe::Steps::Every(distance)), true) = (written, every.happens())
            && distance > total
        {
            let run = counted(total, "step");
            lines.push(format!("{key} {} is longer than the run: no {what} its {run}", grouped(distance)));
        }
    }
    if let (Some(patience), Some(distance)) = (steps.patience, steps.evaluate.steps())
        && counts.held_out_rows > 0
        && total / distance <= patience
    {
        lines.push(format!(
            "early_stopping_patience {patience} cannot end the run, which has only {}",
            counted(total / distance, "evaluation")
        ));
    }
}
