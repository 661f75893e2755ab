//! The recipe's top level, key by key: this is its schema.
//!
//! Text becomes a tree, overrides and variables are put in, and the tree is read into [`Recipe`].

use std::collections::BTreeMap;

use super::dataset::{self, DatasetEntry};
use super::hints;
use super::problem::{Found, Place, Problems, Source};
use super::reader::{
    BELOW_ONE, Findings, MOST, NOT_NEGATIVE, POSITIVE, SHARE, Section, boolean, number, scalar,
    whole,
};
use super::values::{
    AdapterKind, Cadence, DeviceChoice, DtypeName, Excess, Export, ExportFormat, Optimizer,
    Scheduler, SpecialTokens, Steps, Targets, Toggle, ValSetSize,
};
use super::yaml::{self, Node, Value};
use super::{Recipe, checks, environment, overrides, refused};

/// Reads `text` as a recipe.
pub(super) fn recipe(
    source: &Source,
    text: &str,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Recipe, Problems> {
    let mut found = Found::default();
    let Some(mut root) = yaml::parse(text, None, &mut found) else {
        found.into_result(source)?;
        // A text that is no tree was reported; an empty list is the honest rest.
        return Err(Problems(Vec::new()));
    };
    overrides::apply(&mut root, &source.overrides, &mut found);
    environment::expand(&mut root, env, &mut found);

    let mut places = BTreeMap::new();
    record_places(&root, "", &mut places);
    let findings = Findings::new(source, found);
    let mut recipe = top(&findings, &root, text, places);
    let Findings {
        problems, hints, ..
    } = findings;
    problems.into_inner().into_result(source)?;
    let mut hints = hints.into_inner();
    hints.sort_by_key(|(place, _)| *place);
    recipe.hints = hints.into_iter().map(|(_, hint)| hint).collect();
    Ok(recipe)
}

/// Every key's place by dotted name: its value's, or its own where the value is a block.
fn record_places(node: &Node, name: &str, places: &mut BTreeMap<String, Place>) {
    let prefix = if name.is_empty() {
        String::new()
    } else {
        format!("{name}.")
    };
    match &node.value {
        Value::Scalar { .. } => {}
        Value::List(items) => {
            for (index, item) in items.iter().enumerate() {
                let name = format!("{prefix}{index}");
                record_places(item, &name, places);
                places.insert(name, item.at);
            }
        }
        Value::Map(entries) => {
            for entry in entries {
                let name = format!("{prefix}{}", entry.key);
                record_places(&entry.node, &name, places);
                let block = !matches!(entry.node.value, Value::Scalar { .. });
                places.insert(name, if block { entry.at } else { entry.node.at });
            }
        }
    }
}

fn top(
    findings: &Findings<'_>,
    root: &Node,
    text: &str,
    places: BTreeMap<String, Place>,
) -> Recipe {
    let source = findings.source;
    let mut top = Section::new(findings, "", root);
    // What is missing from the file is nowhere in it.
    top.at = Place::Whole;
    let recipe = Recipe {
        path: source.path.clone(),
        text: text.to_owned(),
        overrides: source.overrides.clone(),
        hints: Vec::new(),

        base_model: top.text("base_model").unwrap_or_default(),
        revision_of_model: top.text("revision_of_model"),
        tokenizer_config: top.text("tokenizer_config"),
        model_type: top.text("model_type"),
        tokenizer_type: top.text("tokenizer_type"),
        special_tokens: special_tokens(&mut top),

        adapter: top.choice("adapter", &[("lora", AdapterKind::Lora)]),
        load_in_8bit: top.only("load_in_8bit", false, "8-bit bases are not built yet; write `load_in_8bit: false`"),
        load_in_4bit: top.only("load_in_4bit", false, "4-bit bases are not built yet; write `load_in_4bit: false` and `adapter: lora`"),
        lora_r: top.whole("lora_r", 1),
        lora_alpha: top.number("lora_alpha", &POSITIVE),
        lora_dropout: top.number("lora_dropout", &BELOW_ONE),
        lora_target_modules: targets(&mut top),
        lora_target_linear: top.flag("lora_target_linear"),
        lora_fan_in_fan_out: top.only("lora_fan_in_fan_out", false, "it is for models whose weights are stored transposed, which none of the families here are"),
        lora_model_dir: top.text("lora_model_dir"),
        peft_layers_to_transform: layers(&mut top),
        peft_use_rslora: top.flag("peft_use_rslora"),
        peft_init_lora_weights: top.only("peft_init_lora_weights", true, "PEFT's default initialisation is what is used: A Kaiming-uniform, B zero"),
        unfrozen_parameters: parameter_patterns(&mut top),

        datasets: entries(&mut top, "datasets"),
        test_datasets: entries(&mut top, "test_datasets"),
        val_set_size: val_set_size(&mut top),
        shuffle_merged_datasets: top.flag("shuffle_merged_datasets"),
        chat_template: dataset::chat_template(&mut top),
        chat_template_jinja: top.text("chat_template_jinja"),
        train_on_inputs: top.flag("train_on_inputs"),
        eot_tokens: top.texts("eot_tokens").unwrap_or_default(),
        sequence_len: top.whole("sequence_len", 2),
        excess_length_strategy: top.choice("excess_length_strategy", &[("drop", Excess::Drop), ("truncate", Excess::Truncate), ("raise", Excess::Raise)]),
        sample_packing: top.flag("sample_packing"),
        eval_sample_packing: top.flag("eval_sample_packing"),
        pad_to_sequence_len: top.flag("pad_to_sequence_len"),

        micro_batch_size: top.whole("micro_batch_size", 1),
        gradient_accumulation_steps: top.whole("gradient_accumulation_steps", 1),
        batch_size: top.whole("batch_size", 1),
        eval_batch_size: top.whole("eval_batch_size", 1),
        num_epochs: top.number("num_epochs", &POSITIVE),
        max_steps: max_steps(&mut top),
        optimizer: optimizer(&mut top),
        learning_rate: top.number("learning_rate", &POSITIVE).unwrap_or_default(),
        lr_scheduler: scheduler(&mut top),
        cosine_min_lr_ratio: top.number("cosine_min_lr_ratio", &SHARE),
        warmup_steps: top.whole("warmup_steps", 0),
        warmup_ratio: top.number("warmup_ratio", &SHARE),
        weight_decay: top.number("weight_decay", &NOT_NEGATIVE),
        adam_beta1: top.number("adam_beta1", &BELOW_ONE),
        adam_beta2: top.number("adam_beta2", &BELOW_ONE),
        adam_epsilon: top.number("adam_epsilon", &POSITIVE),
        max_grad_norm: top.number("max_grad_norm", &NOT_NEGATIVE),
        neftune_noise_alpha: top.number("neftune_noise_alpha", &POSITIVE),
        bf16: toggle(&mut top, "bf16"),
        fp16: float16(&mut top),
        tf32: toggle(&mut top, "tf32"),
        gradient_checkpointing: checkpointing(&mut top),
        seed: seed(&mut top),

        eval_strategy: cadence(&mut top, "eval_strategy"),
        eval_steps: steps(&mut top, "eval_steps"),
        evals_per_epoch: per_epoch(&mut top, "evals_per_epoch"),
        save_strategy: cadence(&mut top, "save_strategy"),
        save_steps: steps(&mut top, "save_steps"),
        saves_per_epoch: per_epoch(&mut top, "saves_per_epoch"),
        save_total_limit: top.whole("save_total_limit", 1),
        logging_steps: top.whole("logging_steps", 1),
        output_dir: top.text("output_dir"),

        device: device(&mut top),
        export: export(&mut top),

        places,
    };
    hints::read(&mut top);
    checks::check(&top, &recipe);
    top.finish(refused::TOP);
    recipe
}

fn special_tokens(top: &mut Section<'_>) -> SpecialTokens {
    let Some(mut section) = top.section("special_tokens") else {
        return SpecialTokens::default();
    };
    let tokens = SpecialTokens {
        bos_token: section.text("bos_token"),
        eos_token: section.text("eos_token"),
        pad_token: section.text("pad_token"),
        unk_token: section.text("unk_token"),
    };
    section.finish(refused::SPECIAL_TOKENS);
    tokens
}

fn targets(top: &mut Section<'_>) -> Option<Targets> {
    const KEY: &str = "lora_target_modules";
    let node = top.take(KEY)?;
    let Value::List(items) = &node.value else {
        let Some(text) = scalar(node) else {
            top.refuse(
                KEY,
                node,
                "a list of names, a regular expression, or all-linear",
            );
            return None;
        };
        let all = matches!(text.trim(), "all-linear" | "all_linear");
        return Some(if all {
            Targets::AllLinear
        } else {
            Targets::Regex(text.to_owned())
        });
    };
    if let Some(item) = items.iter().find(|item| scalar(item) == Some("all-linear")) {
        let message = "`all-linear` stands for all names, so it is no entry of a list";
        top.findings
            .problem(item.at, message, "write `lora_target_modules: all-linear`");
    }
    let names = top.items(KEY, items);
    (!names.is_empty()).then_some(Targets::List(names))
}

fn layers(top: &mut Section<'_>) -> Option<Vec<usize>> {
    const KEY: &str = "peft_layers_to_transform";
    let node = top.take(KEY)?;
    let items = match &node.value {
        Value::List(items) => items.as_slice(),
        _ => std::slice::from_ref(node),
    };
    let mut layers = Vec::new();
    for item in items {
        match scalar(item).and_then(whole).filter(|layer| *layer <= MOST) {
            Some(layer) => layers.push(layer),
            None => top.refuse(KEY, item, "a layer number from 0, or a list of them"),
        }
    }
    (!layers.is_empty()).then_some(layers)
}

/// Patterns of parameter names; Axolotl also takes a range of rows after one, which is refused.
fn parameter_patterns(top: &mut Section<'_>) -> Vec<String> {
    let at = top.place("unfrozen_parameters");
    let patterns = top.texts("unfrozen_parameters").unwrap_or_default();
    for pattern in &patterns {
        let range = pattern
            .strip_suffix(']')
            .and_then(|rest| rest.rsplit_once('['))
            .map(|(_, range)| range);
        if range.is_some_and(|range| {
            range.contains(':')
                && range
                    .bytes()
                    .all(|byte| byte == b':' || byte.is_ascii_digit())
        }) {
            let message = format!(
                "`unfrozen_parameters` does not support a range of rows, as in `{pattern}`"
            );
            top.findings.problem(
                at,
                message,
                "parameters are trained as a whole: remove the brackets",
            );
        }
    }
    patterns
}

fn entries(top: &mut Section<'_>, key: &'static str) -> Vec<DatasetEntry> {
    top.sections(key).into_iter().map(dataset::read).collect()
}

fn val_set_size(top: &mut Section<'_>) -> Option<ValSetSize> {
    const KEY: &str = "val_set_size";
    let node = top.take(KEY)?;
    match scalar(node).and_then(number) {
        Some(0.0) => None,
        Some(share) if share > 0.0 && share < 1.0 => Some(ValSetSize::Fraction(share)),
        Some(count) if count >= 2.0 && count.fract() == 0.0 && count <= MOST as f64 => {
            Some(ValSetSize::Count(count as usize))
        }
        _ => {
            top.refuse(
                KEY,
                node,
                "a share of the rows below 1, a number of rows from 2 on, or 0 for none",
            );
            None
        }
    }
}

fn max_steps(top: &mut Section<'_>) -> Option<usize> {
    const KEY: &str = "max_steps";
    let node = top.take(KEY)?;
    match scalar(node).and_then(number) {
        // Both mean "no bound" wherever Axolotl's recipes come from.
        Some(unbounded) if unbounded == 0.0 || unbounded == -1.0 => None,
        _ => top.whole(KEY, 1),
    }
}

fn optimizer(top: &mut Section<'_>) -> Option<Optimizer> {
    const KEY: &str = "optimizer";
    const NAMES: &[&str] = &["adamw_torch", "adamw_torch_fused", "paged_adamw_32bit"];
    let node = top.take(KEY)?;
    let name = scalar(node).map(str::trim);
    match name {
        Some("adamw_torch") => {}
        Some("adamw_torch_fused") => hints::same_result(
            top,
            KEY,
            node,
            "fused is the same arithmetic in fewer kernels",
        ),
        Some("paged_adamw_32bit") => hints::same_result(
            top,
            KEY,
            node,
            "paged is the same arithmetic with its state in other memory",
        ),
        _ => {
            let advice = match name {
                Some(name) if name.contains("8bit") || name.contains("4bit") => {
                    "; `adamw_torch` keeps its state in 32 bits, with 8 bytes per trained parameter"
                }
                _ => "",
            };
            top.unsupported(KEY, node, NAMES, advice);
            return None;
        }
    }
    Some(Optimizer::AdamW)
}

fn scheduler(top: &mut Section<'_>) -> Option<Scheduler> {
    let names = [
        ("cosine", Scheduler::Cosine),
        ("linear", Scheduler::Linear),
        ("constant", Scheduler::Constant),
        ("constant_with_warmup", Scheduler::ConstantWithWarmup),
    ];
    top.choice("lr_scheduler", &names)
}

fn toggle(top: &mut Section<'_>, key: &'static str) -> Option<Toggle> {
    let node = top.take(key)?;
    toggled(node).or_else(|| {
        top.refuse(key, node, "true, false or auto");
        None
    })
}

fn toggled(node: &Node) -> Option<Toggle> {
    let text = scalar(node)?;
    match boolean(text) {
        Some(true) => Some(Toggle::True),
        Some(false) => Some(Toggle::False),
        None => text
            .trim()
            .eq_ignore_ascii_case("auto")
            .then_some(Toggle::Auto),
    }
}

fn float16(top: &mut Section<'_>) -> Option<Toggle> {
    let toggle = toggle(top, "fp16")?;
    if toggle == Toggle::True {
        let hint = "accepted: false, auto; half precision without bfloat16's range needs loss scaling, use `bf16: auto`";
        top.findings
            .problem(top.place("fp16"), "`fp16` does not support `true`", hint);
    }
    Some(toggle)
}

fn checkpointing(top: &mut Section<'_>) -> Option<Toggle> {
    const KEY: &str = "gradient_checkpointing";
    let node = top.take(KEY)?;
    if scalar(node).is_some_and(|text| text.trim() == "offload") {
        hints::same_result(
            top,
            KEY,
            node,
            "layers are recomputed as with `true`, and their inputs stay on the device",
        );
        return Some(Toggle::True);
    }
    toggled(node).or_else(|| {
        top.refuse(KEY, node, "true, false, auto or offload");
        None
    })
}

fn seed(top: &mut Section<'_>) -> Option<u64> {
    let node = top.take("seed")?;
    let seed = scalar(node).and_then(whole);
    if seed.is_none() {
        top.refuse("seed", node, "an integer of at least 0");
    }
    seed.map(|seed| seed as u64)
}

fn cadence(top: &mut Section<'_>, key: &'static str) -> Option<Cadence> {
    let names = [
        ("no", Cadence::No),
        ("steps", Cadence::Steps),
        ("epoch", Cadence::Epoch),
        ("|false", Cadence::No),
        ("|off", Cadence::No),
    ];
    top.choice(key, &names)
}

fn steps(top: &mut Section<'_>, key: &'static str) -> Option<Steps> {
    let node = top.take(key)?;
    match scalar(node).and_then(number) {
        // Zero is how circulating recipes leave it unset.
        Some(0.0) => None,
        Some(share) if share > 0.0 && share < 1.0 => Some(Steps::Fraction(share)),
        Some(count) if count >= 1.0 && count.fract() == 0.0 && count <= MOST as f64 => {
            Some(Steps::Every(count as usize))
        }
        _ => {
            top.refuse(
                key,
                node,
                "a number of steps, or a share of all steps below 1",
            );
            None
        }
    }
}

fn per_epoch(top: &mut Section<'_>, key: &'static str) -> Option<usize> {
    top.whole(key, 0).filter(|count| *count > 0)
}

fn device(top: &mut Section<'_>) -> Option<DeviceChoice> {
    let node = top.take("device")?;
    let text = scalar(node).map_or(String::new(), |text| text.trim().to_ascii_lowercase());
    let (name, index) = match text.split_once(':') {
        Some((name, index)) => (name, Some(index)),
        None => (text.as_str(), None),
    };
    let number = index.map_or(Some(0), |index| whole(index).filter(|index| *index <= MOST));
    let choice = match (name, index, number) {
        ("auto", None, _) => Some(DeviceChoice::Auto),
        ("cpu", None, _) => Some(DeviceChoice::Cpu),
        ("vulkan", Some("cpu"), _) => Some(DeviceChoice::VulkanCpu),
        ("wgpu", Some("cpu"), _) => Some(DeviceChoice::WgpuCpu),
        ("cuda", _, Some(index)) => Some(DeviceChoice::Cuda(index)),
        ("vulkan", _, Some(index)) => Some(DeviceChoice::Vulkan(index)),
        ("metal", _, Some(index)) => Some(DeviceChoice::Metal(index)),
        ("wgpu", _, Some(index)) => Some(DeviceChoice::Wgpu(index)),
        _ => None,
    };
    if choice.is_none() {
        let names = ["auto", "cpu", "cuda", "vulkan", "metal", "wgpu"];
        let advice = "; `cuda:1` is the second of its kind, `vulkan:cpu` and `wgpu:cpu` are the software rasterizer";
        top.unsupported("device", node, &names, advice);
    }
    choice
}

fn export(top: &mut Section<'_>) -> Export {
    let Some(mut section) = top.section("export") else {
        return Export::default();
    };
    let mut export = Export::default();
    let formats = [
        ("adapter", ExportFormat::Adapter),
        ("merged", ExportFormat::Merged),
    ];
    if let Some(node) = section.take("formats") {
        if let Value::List(items) = &node.value {
            for (index, item) in items.iter().enumerate() {
                let format = section.choose(&format!("formats.{index}"), item, &formats);
                export
                    .formats
                    .extend(format.filter(|format| !export.formats.contains(format)));
            }
        } else {
            section.refuse("formats", node, "a list such as [adapter, merged]");
        }
    }
    let dtypes = [
        ("f32", DtypeName::F32),
        ("bf16", DtypeName::Bf16),
        ("f16", DtypeName::F16),
        ("|float32", DtypeName::F32),
        ("|bfloat16", DtypeName::Bf16),
        ("|float16", DtypeName::F16),
    ];
    export.dtype = section.choice("dtype", &dtypes);
    section.finish(refused::EXPORT);
    export
}
