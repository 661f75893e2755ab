//! The plan as people read it; `tune check` prints exactly this.

use adapters::Method;
use datasets::{Counts, SourceCounts, SourceSettings, TemplateChoice};

use super::estimate::available_bytes;
use super::look_at::look_at;
use super::steps::Every;
use super::{Adaptation, Plan, Precision, Steps, quantisation};
use crate::device::{BUILT_FOR_GPUS, DeviceChoice, FloatDType};
use crate::export::{Format, MergeBase};
use crate::hub::BaseModel;
use crate::model::families::Ignored;
use crate::model::inspect::{layer_table, parameter_counts};
use crate::recipe::{Hint, Recipe};
use crate::report::{ReportSettings, printable, wanted_files};
use crate::text::{bytes, counted, grouped, line, lines};

/// Lines of the histogram of lengths.
const LENGTH_BARS: usize = 8;

/// Added to the device that `auto` chose in a build that looks for no GPU.
const UNSEEN_GPUS: &str = "; this build is for the CPU alone: for a GPU build with --features cuda, or wgpu";

/// Every decision of a run, one per line.
pub fn plan_text(recipe: &Recipe, base: &BaseModel, plan: &Plan, steps: &Steps, counts: &Counts) -> String {
    let mut text = String::new();
    model(&mut text, base, plan);
    adaptation(&mut text, base, plan);
    data(&mut text, plan, counts);
    training(&mut text, recipe, plan, steps, counts);
    let unseen = if !BUILT_FOR_GPUS && *recipe.device == DeviceChoice::Auto { UNSEEN_GPUS } else { "" };
    let device = format!("{}, {} ({}){unseen}", plan.device.name, plan.precision.name(), plan.precision.reason);
    line(&mut text, "device", &device);
    line(&mut text, "precision", &precision(plan.precision));
    let memory = &steps.memory;
    let allowed = recipe.preflight.max_memory.map_or(String::new(), |most| format!("; {} allowed", bytes(most)));
    let basis = if memory.is_measured { "" } else { " (estimated; not compared with measured peaks on this device)" };
    line(&mut text, "memory", &format!("about {}: {}{basis}{allowed}", bytes(memory.total()), memory.parts()));
    if let Some(free) = available_bytes(plan).filter(|free| *free < memory.total()) {
        let shortage = format!("the run needs about {}, but only {} is free", bytes(memory.total()), bytes(free));
        line(&mut text, "warning", &shortage);
    }
    let merges = plan.export.formats.iter().any(|format| format.is_merged());
    if let (true, Some(base)) = (merges, plan.export.merge_base) {
        let weights = match base {
            MergeBase::Original => "into the checkpoint's original weights, which training used in 4 bits",
            MergeBase::Quantised => "into the dequantised 4-bit weights, which training used",
        };
        line(&mut text, "merge", weights);
    }
    if *recipe.auto_resume_from_checkpoints && recipe.resume_from_checkpoint.is_none() {
        line(&mut text, "resumes", "from the newest checkpoint in its folder, if there is one");
    }
    if let Some(folder) = &*recipe.resume_from_checkpoint {
        line(&mut text, "resumes", &format!("from {}", recipe.locate(folder).display()));
    }
    files(&mut text, plan, &steps.report);
    let unused = |hint: &Hint| format!("{}: `{}: {}`, because {}", hint.at, hint.key, hint.value, hint.why);
    lines(&mut text, "no effect", recipe.hints.iter().map(unused));
    lines(&mut text, "look at", warnings(counts).into_iter().chain(look_at(recipe, plan, steps, counts)));
    text
}

fn model(text: &mut String, base: &BaseModel, plan: &Plan) {
    let spec = &plan.model.spec;
    let weights = match (&base.weights, &base.missing) {
        (Some(_), _) => "",
        (None, Some(_)) => ", weights to be downloaded",
        (None, None) => ", weights initialised at random",
    };
    let folder = base.folder.display().to_string();
    let place = if base.name == folder { String::new() } else { format!(", {folder}") };
    line(text, "base model", &format!("{}{place}{weights}", base.name));
    if let Some(revision) = &base.revision {
        line(text, "revision", revision);
    }
    let tied = if spec.head.tied { "tied head" } else { "untied head" };
    let counts = parameter_counts(spec);
    let active = if counts.active < counts.total {
        format!(" ({} active per token)", grouped(counts.active))
    } else {
        String::new()
    };
    line(
        text,
        "family",
        &format!(
            "{}, {} parameters{active}, hidden {}, vocabulary {}, {tied}",
            plan.model.family,
            grouped(counts.total),
            spec.hidden,
            grouped(spec.vocab),
        ),
    );
    lines(text, "layers", layer_table(spec));
    line(text, "rope", &plan.model.rope);
    let ignored = |part: &Ignored| format!("{} (`{}*`): copied unchanged into a merged export", part.what, part.prefix);
    lines(text, "not loaded", plan.model.ignored.iter().map(ignored));
}

fn adaptation(text: &mut String, base: &BaseModel, plan: &Plan) {
    let trainable = plan.adaptation.trainable();
    let share = 100.0 * trainable as f64 / parameter_counts(&plan.model.spec).total.max(1) as f64;
    match &plan.adaptation {
        Adaptation::Adapter { spec, targets, stacks, continued, .. } => {
            if let Some(quantised) = &plan.storage.quantised {
                line(text, "base", &quantisation::describe(quantised, quantisation::stored(base).is_some()));
            }
            line(text, "adapter", &adapter_method(&spec.method));
            let mut names: Vec<&str> = targets.iter().filter_map(|path| path.rsplit('.').next()).collect();
            names.sort_unstable();
            names.dedup();
            if !targets.is_empty() {
                let projections = counted(targets.len(), "projection");
                line(text, "targets", &format!("{projections}: {}", names.join(", ")));
            }
            if !stacks.is_empty() {
                let stacks = counted(stacks.len(), "expert stack");
                line(text, "targets", &format!("{stacks}: {}", spec.parameters.join(", ")));
            }
            if !spec.saved_modules.is_empty() {
                line(text, "full modules", &spec.saved_modules.join(", "));
            }
            if let Some(continued) = continued {
                line(text, "continues", &continued.folder.display().to_string());
                if !continued.exceptions.is_empty() {
                    let modules = counted(continued.exceptions.len(), "module");
                    line(text, "patterns", &format!("{modules} with another rank or scaling, as the adapter has them"));
                }
            }
        }
        Adaptation::Full { parameters, .. } => {
            let tensors = counted(parameters.len(), "parameter tensor");
            line(text, "adapter", &format!("none: full fine-tuning, {tensors}"));
        }
    }
    line(text, "trainable", &format!("{} parameters, {share:.2} % of the model", grouped(trainable)));
}

/// An adapter's method with its rank and scaling, in a phrase.
pub fn adapter_method(method: &Method) -> String {
    let low_rank = method.low_rank();
    let name = if matches!(method, Method::Dora(_)) { "dora" } else { "lora" };
    let kind = if low_rank.rank_stabilised { format!("rank-stabilised {name}") } else { name.to_owned() };
    format!(
        "{kind}, r {}, alpha {}, scaling {:.4}, dropout {}",
        low_rank.rank,
        low_rank.alpha,
        low_rank.scaling(),
        low_rank.dropout
    )
}

fn data(text: &mut String, plan: &Plan, counts: &Counts) {
    let source = |source: &SourceCounts| {
        let basis = if source.recognised { "detected from its columns" } else { "set in the recipe" };
        format!("{}: {}, {} ({basis})", source.path, counted(source.rows, "row"), source.format)
    };
    lines(text, "data", counts.sources.iter().map(source));
    let template = match &plan.template {
        _ if counts.conversations == 0 => "not used: no row is a conversation".to_owned(),
        TemplateChoice::TokenizerDefault => "the tokenizer's".to_owned(),
        TemplateChoice::Jinja(_) => "custom, from the recipe".to_owned(),
        TemplateChoice::Named(name) => name.clone(),
    };
    let variables: Vec<String> = plan.dataset.sources.iter().map(template_variables).collect();
    let named = |(variables, source): (&String, &SourceCounts)| format!("{template}{variables} ({})", source.path);
    match variables.first() {
        Some(first) if variables.iter().all(|other| other == first) => {
            line(text, "template", &format!("{template}{first}"));
        }
        _ => lines(text, "template", variables.iter().zip(&counts.sources).map(named)),
    }
    let share = 100.0 * counts.trained_tokens as f64 / counts.tokens.max(1) as f64;
    line(
        text,
        "tokens",
        &format!(
            "{}, {} tokens, {} trained ({share:.1} %), longest {}; {} held out",
            counted(counts.train_rows, "row"),
            grouped(counts.tokens),
            grouped(counts.trained_tokens),
            grouped(counts.longest),
            counted(counts.held_out_rows, "row"),
        ),
    );
    let dataset = &plan.dataset;
    let batching = &dataset.batching;
    let rows = if batching.packing {
        format!(
            "packed into {} of at most {} tokens, documents isolated, {:.1} % of the positions used",
            counted(counts.packed_rows, "row"),
            grouped(dataset.sequence_len),
            100.0 * counts.packing_efficiency(),
        )
    } else {
        format!("at most {} tokens each, padded to the longest of a micro-batch", grouped(dataset.sequence_len))
    };
    line(text, "rows", &rows);
    lines(text, "lengths", counts.length_histogram(LENGTH_BARS).lines());
}

/// The variables that a source gives the chat template: `, with enable_thinking = false`.
fn template_variables(source: &SourceSettings) -> String {
    let shown = source.template_variables.iter().map(|(name, value)| format!("{name} = {value}"));
    let shown = shown.collect::<Vec<_>>().join(", ");
    if shown.is_empty() { String::new() } else { format!(", with {}", printable(&shown)) }
}

/// Properties of the data that a person should know before training.
pub(crate) fn warnings(counts: &Counts) -> Vec<String> {
    let role = counts.unknown_role.as_ref().map_or(String::new(), |role| format!(", such as `{}`", printable(role)));
    let unknown_role = format!("with an unknown role{role}, which is not trained");
    let trained_too = format!(
        "of {} also trained on: held-out loss and exact match then say little about new rows",
        grouped(counts.held_out_rows)
    );
    let unread = |(name, rows): (&String, &usize)| {
        // A key of messages has a dot.
        let kind = if name.contains('.') { "" } else { "a column " };
        format!("{} with {kind}`{name}`, which is not read", counted(*rows, "row"))
    };
    let found = [
        (counts.truncated, "row", "truncated to sequence_len"),
        (counts.truncated_answers, "truncated row", "that lost trained tokens"),
        (counts.dropped, "row", "dropped: longer than sequence_len"),
        (counts.no_trained_tokens, "row", "dropped: without a token to train on"),
        (counts.without_end_of_turn, "row", "with a trained turn that no end-of-turn token closes"),
        (counts.doubled_bos, "row", "with two BOS tokens at the start"),
        (counts.empty_answers, "row", "with an empty answer, which is not trained"),
        (counts.unknown_roles, "row", &unknown_role),
        (counts.hidden_tools, "row", "with tools that the chat template does not show"),
        (counts.hidden_calls, "row", "with tool calls that the chat template does not show"),
        (counts.hidden_reasoning, "row", "with reasoning that the chat template does not show"),
        (counts.flagged, "row", "with messages that `train` or `weight` mark as trained or not"),
        (counts.duplicates, "row", "equal to an earlier one"),
        (counts.held_out_duplicates, "held-out row", &trained_too),
        (counts.altered, "row", "with trained turns that the chat template shortened or changed"),
        (counts.split_texts, "text", "longer than sequence_len, split into several rows"),
    ]
    .into_iter()
    .filter(|(count, ..)| *count > 0)
    .map(|(count, noun, what)| format!("{} {what}", counted(count, noun)));
    let unread_fields = |source: &SourceCounts| {
        let names = source.unread_fields.iter();
        let line = |name| format!("`{name}` of {} is not read by the type {}", source.path, source.format);
        names.map(line).collect::<Vec<_>>()
    };
    let notes = counts.notes.iter().map(|note| printable(note).into_owned());
    let of_sources = counts.sources.iter().flat_map(unread_fields);
    found.chain(counts.unread.iter().map(unread)).chain(of_sources).chain(notes).collect()
}

fn training(text: &mut String, recipe: &Recipe, plan: &Plan, steps: &Steps, counts: &Counts) {
    let batching = &plan.dataset.batching;
    let schedule = &steps.train.schedule;
    let decided = match *recipe.max_steps {
        Some(_) if steps.of_epochs == steps.total() => "by max_steps".to_owned(),
        Some(_) => {
            let epochs = grouped(steps.of_epochs);
            format!("by max_steps, which overrides num_epochs: {} ({epochs})", *recipe.num_epochs)
        }
        None => format!("by num_epochs: {}", *recipe.num_epochs),
    };
    line(
        text,
        "steps",
        &format!(
            "{} of {} x {} rows, {} per epoch, {decided}",
            grouped(schedule.total_steps),
            batching.accumulation,
            batching.micro_batch_size,
            grouped(steps.per_epoch),
        ),
    );
    let course = (schedule.kind.describe)(schedule);
    let warmup = counted(schedule.warmup_steps, "warm-up step");
    line(text, "learning rate", &format!("{}, {course}, {warmup}", schedule.peak));
    let optimizer = &steps.train.optimizer;
    let clip = steps
        .train
        .max_gradient_norm
        .map_or("no gradient clipping".to_owned(), |norm| format!("gradients clipped at norm {norm}"));
    line(text, "optimizer", &format!("{}, {clip}", (optimizer.kind.describe)(optimizer)));
    let watchdog = &steps.watchdog;
    let steps_allowed = counted(watchdog.patience, "consecutive step");
    let high =
        watchdog.threshold.map_or(String::new(), |loss| format!("; stops after as many with a loss above {loss}"));
    line(text, "watchdog", &format!("fails after {steps_allowed} with a non-finite loss or gradient{high}"));
    let recompute =
        if steps.train.recompute { "recomputed in the backward pass" } else { "kept for the backward pass" };
    line(text, "activations", recompute);
    if let Some(alpha) = steps.train.embedding_noise {
        line(text, "noise", &format!("NEFTune, alpha {alpha}"));
    }
    let every = |every: Every| every.steps().map(|steps| format!("every {}", counted(steps, "step")));
    let evaluation = match every(steps.evaluate) {
        _ if counts.held_out_rows == 0 => "never: no rows are held out".to_owned(),
        Some(every) => format!("{every}, and before and after training"),
        None => "before and after training".to_owned(),
    };
    line(text, "evaluation", &evaluation);
    if let Some(answers) = &steps.answers {
        let prompts = counted(answers.questions, "held-out prompt");
        let limit = answers.max_tokens;
        line(
            text,
            "answers",
            &format!("to the first {prompts}, before and after training, at most {limit} tokens each"),
        );
    }
    if let Some(patience) = steps.patience {
        let evaluations = counted(patience, "consecutive evaluation");
        line(text, "early stopping", &format!("after {evaluations} without a lower held-out loss"));
    }
    let checkpoints = every(steps.save).map_or("never".to_owned(), |every| {
        format!("{every} and after the last one; {} kept", grouped(steps.save_limit))
    });
    line(text, "checkpoints", &checkpoints);
    if steps.load_best {
        line(text, "exported", "the checkpoint with the lowest held-out loss");
    }
    line(text, "seed", &plan.seed.to_string());
}

/// The types in which the parts of a step are computed.
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

fn files(text: &mut String, plan: &Plan, report: &ReportSettings) {
    let folder = plan.run_dir.display();
    let folder_of = |format: &&Format| format!("{}/: {}", format.name, format.description);
    lines(text, "export", plan.export.formats.iter().map(folder_of));
    let mut names = vec!["recipe.yaml", "run.json", "plan.txt"];
    names.extend(wanted_files(report));
    names.extend(["summary.json", "README.md"]);
    line(text, "files", &format!("{folder}: {}", names.join(", ")));
}
