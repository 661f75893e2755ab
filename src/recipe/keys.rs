//! Reading of the top-level keys that need more than a type and bounds.

use datasets::Defect;

use super::dataset::{self, DatasetEntry};
use super::reader::{MOST, POSITIVE, Section};
use super::scalars::{boolean, number, scalar, whole};
use super::values::{
    BnbConfig, Cadence, DeviceChoice, DtypeName, Export, MergeBase, MicroBatchSize, SpecialTokens, Steps, Targets,
    Toggle, ValSetSize,
};
use super::yaml::{Node, Value};
use super::{hints, refused};
use crate::export::{FORMATS, Format};
use crate::train::optimizers::{self, OptimizerKind};
use crate::train::schedules::{SCHEDULES, ScheduleKind};

pub(super) fn special_tokens(top: &mut Section<'_>) -> SpecialTokens {
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

/// `bnb_config_kwargs`: only NF4 is built; the rest of what bitsandbytes takes is for 8 bits or for placement.
pub(super) fn bnb_config(top: &mut Section<'_>) -> BnbConfig {
    let Some(mut section) = top.section("bnb_config_kwargs") else {
        return BnbConfig::default();
    };
    section.choice("bnb_4bit_quant_type", &[("nf4", ())]);
    let config = BnbConfig {
        double_quant: section.flag("bnb_4bit_use_double_quant"),
        skip_modules: section.texts("llm_int8_skip_modules").unwrap_or_default(),
    };
    let placement = "codes are kept as bytes, and nothing is sharded";
    let eight = "it is for 8-bit bases";
    for (key, why) in
        [("bnb_4bit_quant_storage", placement), ("llm_int8_threshold", eight), ("llm_int8_has_fp16_weight", eight)]
    {
        if let Some(node) = section.take(key) {
            hints::same_result(&section, key, node, why);
        }
    }
    section.finish(refused::BNB);
    config
}

pub(super) fn targets(top: &mut Section<'_>) -> Option<Targets> {
    const KEY: &str = "lora_target_modules";
    let node = top.take(KEY)?;
    let Value::List(items) = &node.value else {
        let Some(text) = scalar(node) else {
            top.refuse(KEY, node, "a list of names, a regular expression, or all-linear");
            return None;
        };
        let all = matches!(text.trim(), "all-linear" | "all_linear");
        return Some(if all { Targets::AllLinear } else { Targets::Regex(text.to_owned()) });
    };
    if let Some(item) = items.iter().find(|item| scalar(item) == Some("all-linear")) {
        let message = "`all-linear` stands for all names, so it is no entry of a list";
        top.findings.problem(item.at, message, "write `lora_target_modules: all-linear`");
    }
    let names = top.items(KEY, items);
    (!names.is_empty()).then_some(Targets::List(names))
}

pub(super) fn layers(top: &mut Section<'_>) -> Option<Vec<usize>> {
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
pub(super) fn parameter_patterns(top: &mut Section<'_>) -> Vec<String> {
    let at = top.place("unfrozen_parameters");
    let patterns = top.texts("unfrozen_parameters").unwrap_or_default();
    for pattern in &patterns {
        let range = pattern.strip_suffix(']').and_then(|rest| rest.rsplit_once('[')).map(|(_, range)| range);
        if range
            .is_some_and(|range| range.contains(':') && range.bytes().all(|byte| byte == b':' || byte.is_ascii_digit()))
        {
            let message = format!("`unfrozen_parameters` does not support a range of rows, as in `{pattern}`");
            top.findings.problem(at, message, "parameters are trained as a whole: remove the brackets");
        }
    }
    patterns
}

pub(super) fn entries(top: &mut Section<'_>, key: &'static str) -> Vec<DatasetEntry> {
    top.sections(key).into_iter().map(dataset::read).collect()
}

pub(super) fn val_set_size(top: &mut Section<'_>) -> Option<ValSetSize> {
    const KEY: &str = "val_set_size";
    let node = top.take(KEY)?;
    match scalar(node).and_then(number) {
        Some(0.0) => None,
        Some(share) if share > 0.0 && share < 1.0 => Some(ValSetSize::Fraction(share)),
        Some(count) if count >= 2.0 && count.fract() == 0.0 && count <= MOST as f64 => {
            Some(ValSetSize::Count(count as usize))
        }
        _ => {
            top.refuse(KEY, node, "a share of the rows below 1, a number of rows from 2 on, or 0 for none");
            None
        }
    }
}

pub(super) fn micro_batch_size(top: &mut Section<'_>) -> Option<MicroBatchSize> {
    const KEY: &str = "micro_batch_size";
    match scalar(top.take(KEY)?).map(str::trim) {
        Some(text) if text.eq_ignore_ascii_case("auto") => Some(MicroBatchSize::Auto),
        _ => top.whole(KEY, 1).map(MicroBatchSize::Rows),
    }
}

pub(super) fn watchdog_threshold(top: &mut Section<'_>) -> Option<f64> {
    const KEY: &str = "loss_watchdog_threshold";
    let node = top.take(KEY)?;
    match scalar(node).and_then(number) {
        // How circulating recipes leave it off.
        Some(0.0) => None,
        _ if scalar(node).and_then(boolean) == Some(false) => None,
        _ => top.number(KEY, &POSITIVE),
    }
}

pub(super) fn max_steps(top: &mut Section<'_>) -> Option<usize> {
    const KEY: &str = "max_steps";
    let node = top.take(KEY)?;
    match scalar(node).and_then(number) {
        // Both mean "no bound" wherever Axolotl's recipes come from.
        Some(unbounded) if unbounded == 0.0 || unbounded == -1.0 => None,
        _ => top.whole(KEY, 1),
    }
}

pub(super) fn optimizer(top: &mut Section<'_>) -> Option<&'static OptimizerKind> {
    const KEY: &str = "optimizer";
    let node = top.take(KEY)?;
    let name = scalar(node).map(str::trim);
    let Some((kind, known)) = name.and_then(optimizers::named) else {
        let advice = match name {
            Some(name) if name.contains("4bit") => "; `adamw_bnb_8bit` keeps 2 bytes of state a trained parameter",
            _ => "",
        };
        top.unsupported(KEY, node, &optimizers::names(), advice);
        return None;
    };
    if let Some(why) = known.same_because {
        hints::same_result(top, KEY, node, why);
    }
    Some(kind)
}

pub(super) fn scheduler(top: &mut Section<'_>) -> Option<&'static ScheduleKind> {
    let kinds: Vec<(&str, &'static ScheduleKind)> = SCHEDULES.iter().map(|kind| (kind.name, kind)).collect();
    top.choice("lr_scheduler", &kinds)
}

pub(super) fn toggle(top: &mut Section<'_>, key: &'static str) -> Option<Toggle> {
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
        None => text.trim().eq_ignore_ascii_case("auto").then_some(Toggle::Auto),
    }
}

pub(super) fn checkpointing(top: &mut Section<'_>) -> Option<Toggle> {
    const KEY: &str = "gradient_checkpointing";
    let node = top.take(KEY)?;
    if scalar(node).is_some_and(|text| text.trim() == "offload") {
        hints::same_result(top, KEY, node, "layers are recomputed as with `true`, and their inputs stay on the device");
        return Some(Toggle::True);
    }
    toggled(node).or_else(|| {
        top.refuse(KEY, node, "true, false, auto or offload");
        None
    })
}

pub(super) fn seed(top: &mut Section<'_>) -> Option<u64> {
    let node = top.take("seed")?;
    let seed = scalar(node).and_then(whole);
    if seed.is_none() {
        top.refuse("seed", node, "an integer of at least 0");
    }
    seed.map(|seed| seed as u64)
}

pub(super) fn cadence(top: &mut Section<'_>, key: &'static str) -> Option<Cadence> {
    let names = [
        ("no", Cadence::No),
        ("steps", Cadence::Steps),
        ("epoch", Cadence::Epoch),
        ("|false", Cadence::No),
        ("|off", Cadence::No),
    ];
    top.choice(key, &names)
}

pub(super) fn steps(top: &mut Section<'_>, key: &'static str) -> Option<Steps> {
    let node = top.take(key)?;
    match scalar(node).and_then(number) {
        // Zero is how circulating recipes leave it unset.
        Some(0.0) => None,
        Some(share) if share > 0.0 && share < 1.0 => Some(Steps::Fraction(share)),
        Some(count) if count >= 1.0 && count.fract() == 0.0 && count <= MOST as f64 => {
            Some(Steps::Every(count as usize))
        }
        _ => {
            top.refuse(key, node, "a number of steps, or a share of all steps below 1");
            None
        }
    }
}

pub(super) fn per_epoch(top: &mut Section<'_>, key: &'static str) -> Option<usize> {
    top.whole(key, 0).filter(|count| *count > 0)
}

/// `resume_from_checkpoint`: a folder; a written `false` is how circulating recipes leave it unset.
pub(super) fn checkpoint(top: &mut Section<'_>) -> Option<String> {
    const KEY: &str = "resume_from_checkpoint";
    let node = top.take(KEY)?;
    match scalar(node).and_then(boolean) {
        Some(false) => None,
        Some(true) => {
            top.refuse(KEY, node, "a checkpoint folder; `auto_resume_from_checkpoints: true` takes the newest");
            None
        }
        None => top.text(KEY),
    }
}

pub(super) fn device(top: &mut Section<'_>) -> Option<DeviceChoice> {
    let node = top.take("device")?;
    let text = scalar(node).map_or(String::new(), |text| text.trim().to_ascii_lowercase());
    let choice = DeviceChoice::parse(&text);
    if choice.is_none() {
        let names = ["auto", "cpu", "cuda", "vulkan", "metal", "wgpu"];
        let advice = "; `cuda:1` is the second of its kind, `vulkan:cpu` and `wgpu:cpu` are the software rasterizer";
        top.unsupported("device", node, &names, advice);
    }
    choice
}

/// The section `preflight`: defects of rows that do not end a run, and the memory in bytes that it may take.
pub(super) fn preflight(top: &mut Section<'_>) -> (Vec<Defect>, Option<u64>) {
    let Some(mut section) = top.section("preflight") else {
        return (Vec::new(), None);
    };
    let known = Defect::ALL.map(|defect| (defect.name(), defect));
    let mut allowed = Vec::new();
    if let Some(node) = section.take("allow") {
        if let Value::List(items) = &node.value {
            let named = |(index, item)| section.choose(&format!("allow.{index}"), item, &known);
            allowed = items.iter().enumerate().filter_map(named).collect();
        } else {
            section.refuse("allow", node, "a list such as [empty_answers]");
        }
    }
    let max_memory = section.take("max_memory").and_then(|node| {
        let bytes = scalar(node).and_then(bytes);
        if bytes.is_none() {
            section.refuse("max_memory", node, "a size such as 22GiB, 500 MiB or 24GB");
        }
        bytes
    });
    section.finish(&[]);
    (allowed, max_memory)
}

/// A size with its unit, of at least a byte.
fn bytes(text: &str) -> Option<u64> {
    const UNITS: [(&str, f64); 7] = [
        ("KiB", 1024.0),
        ("MiB", 1_048_576.0),
        ("GiB", 1_073_741_824.0),
        ("TiB", 1_099_511_627_776.0),
        ("MB", 1e6),
        ("GB", 1e9),
        ("TB", 1e12),
    ];
    let text = text.trim();
    let (digits, factor) = UNITS.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, factor)))?;
    let bytes = number(digits)? * factor;
    (1.0..1e18).contains(&bytes).then_some(bytes as u64)
}

pub(super) fn export(top: &mut Section<'_>) -> Export {
    let Some(mut section) = top.section("export") else {
        return Export::default();
    };
    let mut export = Export::default();
    let formats: Vec<(&str, &'static Format)> = FORMATS.iter().map(|format| (format.name, *format)).collect();
    if let Some(node) = section.take("formats") {
        if let Value::List(items) = &node.value {
            for (index, item) in items.iter().enumerate() {
                let format = section.choose(&format!("formats.{index}"), item, &formats);
                export.formats.extend(format.filter(|format| !export.formats.contains(format)));
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
    export.merge_base = section.choice("merge_base", &[("16bit", MergeBase::Original), ("4bit", MergeBase::Quantised)]);
    section.finish(refused::EXPORT);
    export
}
