//! The plan as a person reads it; `tune check` prints exactly this.

use std::fmt::Write;

use adapters::Method;
use datasets::{Counts, TemplateChoice};

use super::estimate::available_bytes;
use super::{Adaptation, Plan, Precision, Steps, bytes_text, quantisation};
use crate::device::FloatDType;
use crate::export::MergeBase;
use crate::hub::BaseModel;
use crate::model::inspect::{layer_table, parameter_counts};
use crate::recipe::Recipe;
use crate::train::{Shape, StateBits};

/// Lines of the histogram of lengths.
const LENGTH_BARS: usize = 8;

/// Every decision of a run, one per line.
pub fn plan_text(recipe: &Recipe, base: &BaseModel, plan: &Plan, steps: &Steps, counts: &Counts) -> String {
    let mut text = String::new();
    model(&mut text, base, plan);
    adaptation(&mut text, base, plan);
    data(&mut text, plan, counts);
    training(&mut text, plan, steps);
    line(&mut text, "device", &format!("{}, {} ({})", plan.device.name, plan.precision.name(), plan.precision.reason));
    line(&mut text, "precision", &precision(plan.precision));
    let memory = &steps.memory;
    let allowed = recipe.max_memory.map_or(String::new(), |bytes| format!("; {} allowed", bytes_text(bytes)));
    let origin = if memory.is_measured { "" } else { " (counted; not compared with measured peaks on this device)" };
    line(&mut text, "memory", &format!("about {}: {}{origin}{allowed}", bytes_text(memory.total()), memory.parts()));
    if let Some(free) = available_bytes(plan).filter(|free| *free < memory.total()) {
        line(&mut text, "look at", &format!("the run needs more memory than the {} that are free", bytes_text(free)));
    }
    if let (true, Some(base)) = (plan.export.merged, plan.export.merge_base) {
        let into = match base {
            MergeBase::Original => "the checkpoint's own weights, which training saw in 4 bits",
            MergeBase::Quantised => "what the 4-bit codes stand for, as training saw it",
        };
        line(&mut text, "merge", &format!("into {into}"));
    }
    if recipe.auto_resume_from_checkpoints == Some(true) {
        line(&mut text, "goes on", "from the newest checkpoint in its folder, if there is one");
    }
    if let Some(folder) = &recipe.resume_from_checkpoint {
        line(&mut text, "goes on", &format!("from {}", recipe.locate(folder).display()));
    }
    files(&mut text, plan);
    for hint in &recipe.hints {
        line(&mut text, "no effect", &format!("{}: `{}: {}`, because {}", hint.at, hint.key, hint.value, hint.why));
    }
    text
}

fn model(text: &mut String, base: &BaseModel, plan: &Plan) {
    let spec = &plan.model.spec;
    let origin = match (&base.weights, &base.promised) {
        (Some(_), _) => "",
        (None, Some(_)) => ", weights to be downloaded",
        (None, None) => ", weights drawn at random",
    };
    line(text, "base model", &format!("{} ({}{origin})", base.name, base.folder.display()));
    if let Some(revision) = &base.revision {
        line(text, "revision", revision);
    }
    let tied = if spec.head.tied { "tied head" } else { "own head" };
    let counts = parameter_counts(spec);
    let active = match counts.active < counts.total {
        true => format!(" ({} of them for a token)", grouped(counts.active)),
        false => String::new(),
    };
    line(
        text,
        "family",
        &format!(
            "{}, {} parameters{active}, hidden {}, vocabulary {}, {tied}",
            plan.model.family,
            grouped(counts.total),
            spec.hidden,
            grouped(spec.vocab as u64),
        ),
    );
    for row in layer_table(spec) {
        line(text, "layers", &row);
    }
    line(text, "rope", &plan.model.rope);
    for part in &plan.model.ignored {
        line(text, "not trained", &format!("{} (`{}*`): kept as it is in a merged export", part.what, part.prefix));
    }
}

fn adaptation(text: &mut String, base: &BaseModel, plan: &Plan) {
    let trainable = plan.adaptation.trainable();
    let share = 100.0 * trainable as f64 / parameter_counts(&plan.model.spec).total.max(1) as f64;
    match &plan.adaptation {
        Adaptation::Adapter { spec, targets, stacks, continued, .. } => {
            let low_rank = spec.method.low_rank();
            let method = if matches!(spec.method, Method::Dora(_)) { "dora" } else { "lora" };
            let kind = if low_rank.rank_stabilised { format!("rank-stabilised {method}") } else { method.to_owned() };
            if let Some(quantised) = &plan.storage.quantised {
                line(text, "base", &quantisation::describe(quantised, quantisation::stored(base).is_some()));
            }
            line(
                text,
                "adapter",
                &format!(
                    "{kind}, r {}, alpha {}, scaling {:.4}, dropout {}",
                    low_rank.rank,
                    low_rank.alpha,
                    low_rank.scaling(),
                    low_rank.dropout
                ),
            );
            let mut names: Vec<&str> = targets.iter().filter_map(|path| path.rsplit('.').next()).collect();
            names.sort_unstable();
            names.dedup();
            if !targets.is_empty() {
                line(text, "targets", &format!("{} projections: {}", targets.len(), names.join(", ")));
            }
            if !stacks.is_empty() {
                line(text, "targets", &format!("{} stacks of experts: {}", stacks.len(), spec.parameters.join(", ")));
            }
            if !spec.saved_modules.is_empty() {
                line(text, "whole modules", &spec.saved_modules.join(", "));
            }
            if let Some(folder) = continued {
                line(text, "continues", &folder.display().to_string());
            }
        }
        Adaptation::Full { parameters, .. } => {
            line(text, "adapter", &format!("none: {} parameter tensors of the model learn", parameters.len()));
        }
    }
    line(text, "trainable", &format!("{} values, {share:.2} % of the model", grouped(trainable)));
}

fn data(text: &mut String, plan: &Plan, counts: &Counts) {
    for source in &counts.sources {
        let how = if source.recognised { "recognised by its columns" } else { "as the recipe says" };
        line(
            text,
            "data",
            &format!("{}: {} rows, {} ({how})", source.path, grouped(source.rows as u64), source.format),
        );
    }
    let template = match &plan.template {
        TemplateChoice::TokenizerDefault => "the tokenizer's own".to_owned(),
        TemplateChoice::Jinja(_) => "the recipe's own".to_owned(),
        TemplateChoice::Named(name) => name.clone(),
    };
    line(text, "template", &template);
    let share = 100.0 * counts.trained_tokens as f64 / counts.tokens.max(1) as f64;
    line(
        text,
        "tokens",
        &format!(
            "{} rows, {} tokens, {} trained ({share:.1} %), longest {}; held out {} rows",
            grouped(counts.train_rows as u64),
            grouped(counts.tokens as u64),
            grouped(counts.trained_tokens as u64),
            counts.longest,
            grouped(counts.held_out_rows as u64),
        ),
    );
    for complaint in complaints(counts) {
        line(text, "look at", &complaint);
    }
    let dataset = &plan.dataset;
    let batching = &dataset.batching;
    let rows = if batching.packing {
        format!(
            "packed into {} rows of at most {} tokens, documents isolated, {:.1} % of the positions used",
            counts.packed_rows,
            dataset.sequence_len,
            100.0 * counts.packing_efficiency(),
        )
    } else {
        format!("at most {} tokens a row, padded to the longest of a micro-batch", dataset.sequence_len)
    };
    line(text, "rows", &rows);
    for bar in counts.length_histogram(LENGTH_BARS).lines() {
        line(text, "lengths", bar);
    }
}

/// What the counts say that a person should know before training.
pub(crate) fn complaints(counts: &Counts) -> Vec<String> {
    [
        (counts.truncated, "rows cut at sequence_len"),
        (counts.truncated_answers, "of these lost trained tokens"),
        (counts.dropped, "rows left out because they are longer than sequence_len"),
        (counts.no_trained_tokens, "rows left out because nothing of them would be trained"),
        (counts.without_end_of_turn, "rows with a trained turn that no end-of-turn token closes"),
        (counts.doubled_bos, "rows begin with two BOS tokens"),
        (counts.empty_answers, "rows with an answer that is empty"),
        (counts.unknown_roles, "rows with a role that nobody knows"),
        (counts.duplicates, "rows equal an earlier one"),
        (counts.held_out_duplicates, "held-out rows are also trained on"),
        (counts.altered, "rows whose trained turns the template shortened or changed"),
        (counts.split_texts, "texts longer than sequence_len became several rows"),
    ]
    .into_iter()
    .filter(|(count, _)| *count > 0)
    .map(|(count, what)| format!("{count} {what}"))
    .collect()
}

fn training(text: &mut String, plan: &Plan, steps: &Steps) {
    let batching = &plan.dataset.batching;
    let schedule = &steps.train.schedule;
    line(
        text,
        "steps",
        &format!(
            "{} of {} x {} rows, {} an epoch",
            grouped(schedule.total_steps as u64),
            batching.accumulation,
            batching.micro_batch_size,
            steps.per_epoch,
        ),
    );
    let shape = match schedule.shape {
        Shape::Constant => "constant".to_owned(),
        Shape::Linear => "linear to 0".to_owned(),
        Shape::Cosine { floor } => format!("cosine to {}", floor * schedule.peak),
    };
    line(text, "learning rate", &format!("{}, {shape}, {} steps of warm-up", schedule.peak, schedule.warmup_steps));
    let optimizer = &steps.train.optimizer;
    let state = match optimizer.state {
        StateBits::ThirtyTwo => "",
        StateBits::Eight => " with its state in 8 bits",
    };
    let clip = steps.train.max_gradient_norm.map_or("no clipping".to_owned(), |norm| format!("clipped at norm {norm}"));
    line(
        text,
        "optimizer",
        &format!(
            "AdamW{state}, betas {} and {}, epsilon {:e}, weight decay {}, {clip}",
            optimizer.beta1, optimizer.beta2, optimizer.epsilon, optimizer.weight_decay
        ),
    );
    let watchdog = &steps.watchdog;
    let high = watchdog.threshold.map_or(String::new(), |threshold| format!(" a loss above {threshold} ends the run,"));
    line(text, "watchdog", &format!("{} steps in a row:{high} one that is not finite fails it", watchdog.patience));
    let recompute =
        if steps.train.recompute { "layers are recomputed in the backward pass" } else { "activations are kept" };
    line(text, "backward", recompute);
    if let Some(alpha) = steps.train.embedding_noise {
        line(text, "noise", &format!("NEFTune, alpha {alpha}"));
    }
    let every =
        |every: super::steps::Every| every.steps().map_or("never".to_owned(), |steps| format!("every {steps} steps"));
    line(text, "evaluation", &format!("{}; before and after training if rows are held out", every(steps.evaluate)));
    if let Some(answers) = &steps.answers {
        let text_of = format!(
            "the first {} held-out prompts, before and after, at most {} tokens each",
            answers.questions, answers.max_tokens
        );
        line(text, "answers", &text_of);
    }
    if let Some(patience) = steps.patience {
        line(text, "early stop", &format!("after {patience} evaluations in a row without a lower held-out loss"));
    }
    let limit = match steps.save.happens() {
        true => format!(" and after the last, {} are kept", steps.save_limit),
        false => String::new(),
    };
    line(text, "checkpoints", &format!("{}{limit}", every(steps.save)));
    if steps.load_best {
        line(text, "exported", "the saved state with the lowest held-out loss");
    }
    line(text, "seed", &plan.seed.to_string());
}

/// Which type what is computed in.
fn precision(precision: Precision) -> String {
    const F32: &str = "norms, softmax, loss, sums, trained tensors, their gradients and the optimizer";
    match precision.compute {
        FloatDType::F32 if precision.tf32 => "everything in f32, matrix products in TF32".to_owned(),
        FloatDType::F32 => "everything in f32".to_owned(),
        FloatDType::F16 => format!(
            "weights, activations and products in f16, with the loss scaled so that gradients stay in its range; {F32} in f32"
        ),
        _ => format!("weights, activations and products in {}; {F32} in f32", precision.name()),
    }
}

fn files(text: &mut String, plan: &Plan) {
    let folder = plan.run_dir.display();
    let mut names = vec!["recipe.yaml", "run.json", "plan.txt", "metrics.jsonl", "summary.json", "README.md"];
    if plan.export.adapter {
        names.push("adapter/");
    }
    if plan.export.merged {
        names.push("merged/");
    }
    if plan.export.bnb_4bit.is_some() {
        names.push("bnb-4bit/");
    }
    line(text, "files", &format!("{folder}: {}", names.join(", ")));
}

fn line(text: &mut String, name: &str, value: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{name:<14} {value}");
}

/// A number with its digits in groups of three.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}
