//! The kinds of single keys that need more than a type and bounds.

use std::collections::BTreeMap;

use adapters::Targets;
use datasets::{Choice, Defect, Excess, HeldOut, TrainOnEnd, file_types, named_templates};
use serde_json::json;

use super::{Kind, MOST, POSITIVE, Reading, choice, choices, decimal, text, texts, whole};
use crate::device::{self, DeviceChoice};
use crate::export::{FORMATS, Format};
use crate::recipe::scalars::{boolean, number, scalar, whole as whole_number};
use crate::recipe::values::{Cadence, ChatTemplate, MicroBatchSize, Steps, Toggle};
use crate::recipe::yaml::{Node, Value};
use crate::train::optimizers::{self, OptimizerKind};
use crate::train::schedules::{SCHEDULES, ScheduleKind};

/// `all-linear`, a list of names of projections, or a regular expression.
pub(in crate::recipe) fn targets() -> Kind<Targets> {
    const ACCEPTS: &str = "a list of names, a regular expression, or all-linear";
    let schema = json!({"anyOf": [
        {"const": "all-linear"},
        {"type": "array", "items": {"type": "string", "not": {"const": "all-linear"}}},
        {"type": "string"},
    ]});
    Kind::new(ACCEPTS, schema, |reading, node| {
        let Value::List(items) = &node.value else {
            let text = reading.single(node, ACCEPTS)?;
            let all = matches!(text.trim(), "all-linear" | "all_linear");
            return Some(if all { Targets::AllLinear } else { Targets::Pattern(text.to_owned()) });
        };
        if let Some(item) = items.iter().find(|item| scalar(item) == Some("all-linear")) {
            let message = "`all-linear` stands for all names, so it cannot be an entry of a list";
            reading.findings.problem(item.at, message, "write `lora_target_modules: all-linear`");
        }
        let names = reading.texts(items);
        (!names.is_empty()).then_some(Targets::Names(names))
    })
}

/// A layer number, or a list of them.
pub(in crate::recipe) fn layers() -> Kind<Vec<usize>> {
    const ACCEPTS: &str = "a layer number from 0, or a list of them";
    let one = json!({"type": "integer", "minimum": 0, "maximum": MOST});
    Kind::new(ACCEPTS, json!({"anyOf": [one, {"type": "array", "items": one}]}), |reading, node| {
        let items = match &node.value {
            Value::List(items) => items.as_slice(),
            _ => std::slice::from_ref(node),
        };
        let mut layers = Vec::new();
        for item in items {
            match scalar(item).and_then(whole_number).filter(|layer| *layer <= MOST) {
                Some(layer) => layers.push(layer),
                None => reading.refuse(item, ACCEPTS),
            }
        }
        (!layers.is_empty()).then_some(layers)
    })
}

/// Regular expressions of parameter names; Axolotl also takes a range of rows after one, which is refused.
pub(in crate::recipe) fn parameter_patterns() -> Kind<Vec<String>> {
    let list = texts();
    Kind::new("a list of regular expressions", list.schema.clone(), move |reading, node| {
        let patterns = list.read(reading, node)?;
        for pattern in &patterns {
            let range = pattern.strip_suffix(']').and_then(|rest| rest.rsplit_once('[')).map(|(_, range)| range);
            let is_range =
                |range: &str| range.contains(':') && range.bytes().all(|byte| byte == b':' || byte.is_ascii_digit());
            if range.is_some_and(is_range) {
                let message = format!("`{}` does not support a range of rows, as in `{pattern}`", reading.name);
                reading.findings.problem(node.at, message, "parameters are trained as a whole: remove the brackets");
            }
        }
        Some(patterns)
    })
}

/// A share or a number of rows to hold out.
pub(in crate::recipe) fn held_out() -> Kind<HeldOut> {
    let schema = json!({"anyOf": [
        {"type": "number", "minimum": 0, "exclusiveMaximum": 1},
        {"type": "integer", "minimum": 2, "maximum": MOST},
        {"$ref": "#/$defs/quoted_number"},
    ]});
    let accepts = "a share of the rows below 1, a number of rows from 2 on, or 0 for none";
    Kind::new(accepts, schema, move |reading, node| match scalar(node).and_then(number) {
        Some(0.0) => None,
        Some(share) if share > 0.0 && share < 1.0 => Some(HeldOut::Fraction(share)),
        Some(count) if count >= 2.0 && count.fract() == 0.0 && count <= MOST as f64 => {
            Some(HeldOut::Count(count as usize))
        }
        _ => {
            reading.refuse(node, accepts);
            None
        }
    })
}

/// A number of rows, or `auto`.
pub(in crate::recipe) fn micro_batch_size() -> Kind<MicroBatchSize> {
    let rows = whole(1);
    let schema = json!({"anyOf": [rows.schema, {"const": "auto"}]});
    Kind::new("an integer of at least 1, or `auto`", schema, move |reading, node| match scalar(node).map(str::trim) {
        Some(text) if text.eq_ignore_ascii_case("auto") => Some(MicroBatchSize::Auto),
        _ => rows.read(reading, node).map(MicroBatchSize::Rows),
    })
}

/// A number above 0; 0 and `false` are how circulating recipes leave it off.
pub(in crate::recipe) fn threshold() -> Kind<f64> {
    let positive = decimal(POSITIVE);
    let schema = json!({"anyOf": [positive.schema, {"enum": [0, false]}]});
    Kind::new("a number above 0, or 0 for none", schema, move |reading, node| match scalar(node) {
        Some(text) if number(text) == Some(0.0) || boolean(text) == Some(false) => None,
        _ => positive.read(reading, node),
    })
}

/// A number of steps; 0 and -1 mean "no bound" wherever Axolotl's recipes come from.
pub(in crate::recipe) fn step_limit() -> Kind<usize> {
    let steps = whole(1);
    let schema = json!({"anyOf": [steps.schema, {"enum": [0, -1]}]});
    Kind::new("an integer of at least 1, or 0 or -1 for no limit", schema, move |reading, node| {
        let value = scalar(node).and_then(number);
        if value.is_some_and(|value| value == 0.0 || value == -1.0) { None } else { steps.read(reading, node) }
    })
}

/// An optimizer; some of its names are the same as another but for how it is computed.
pub(in crate::recipe) fn optimizer() -> Kind<&'static OptimizerKind> {
    let names = optimizers::names();
    let accepts = names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    Kind::new(accepts, json!({"enum": names}), move |reading, node| {
        let name = scalar(node).map(str::trim);
        let Some((kind, known)) = name.and_then(optimizers::named) else {
            let advice = match name {
                Some(name) if name.contains("4bit") => "; `adamw_bnb_8bit` keeps 2 bytes of state a trained parameter",
                _ => "",
            };
            reading.unsupported(node, &names, advice);
            return None;
        };
        if let Some(why) = known.same_because {
            reading.no_effect(node, why);
        }
        Some(kind)
    })
}

/// A learning-rate schedule.
pub(in crate::recipe) fn schedule() -> Kind<&'static ScheduleKind> {
    choice(SCHEDULES.iter().map(|kind| (kind.name, kind)))
}

/// Export formats.
pub(in crate::recipe) fn export_formats() -> Kind<Vec<&'static Format>> {
    choices(FORMATS.iter().map(|format| (format.name, *format)), "a list such as [adapter, merged]")
}

/// `true`, `false` or `auto`.
pub(in crate::recipe) fn toggle() -> Kind<Toggle> {
    const ACCEPTS: &str = "true, false or auto";
    let schema = json!({"anyOf": [{"$ref": "#/$defs/flag"}, {"const": "auto"}]});
    Kind::new(ACCEPTS, schema, |reading, node| {
        let toggle = toggled(node);
        if toggle.is_none() {
            reading.refuse(node, ACCEPTS);
        }
        toggle
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

/// A toggle that also takes `offload`.
pub(in crate::recipe) fn checkpointing() -> Kind<Toggle> {
    const ACCEPTS: &str = "true, false, auto or offload";
    let schema = json!({"anyOf": [{"$ref": "#/$defs/flag"}, {"enum": ["auto", "offload"]}]});
    Kind::new(ACCEPTS, schema, |reading, node| {
        if scalar(node).is_some_and(|text| text.trim() == "offload") {
            reading.no_effect(node, "layers are recomputed as with `true`, and their inputs stay on the device");
            return Some(Toggle::True);
        }
        let toggle = toggled(node);
        if toggle.is_none() {
            reading.refuse(node, ACCEPTS);
        }
        toggle
    })
}

/// An integer of at least 0, of any size.
pub(in crate::recipe) fn seed() -> Kind<u64> {
    const ACCEPTS: &str = "an integer of at least 0";
    let schema = json!({"anyOf": [{"type": "integer", "minimum": 0}, {"$ref": "#/$defs/quoted_number"}]});
    Kind::new(ACCEPTS, schema, |reading, node| {
        let seed = scalar(node).and_then(whole_number);
        if seed.is_none() {
            reading.refuse(node, ACCEPTS);
        }
        seed.map(|seed| seed as u64)
    })
}

/// `no`, `steps` or `epoch`.
pub(in crate::recipe) fn cadence() -> Kind<Cadence> {
    choice([
        ("no", Cadence::No),
        ("steps", Cadence::Steps),
        ("epoch", Cadence::Epoch),
        ("|false", Cadence::No),
        ("|off", Cadence::No),
    ])
}

/// A number of steps, or a share of all steps; 0 is how circulating recipes leave it unset.
pub(in crate::recipe) fn steps() -> Kind<Steps> {
    const ACCEPTS: &str = "a number of steps, or a share of all steps below 1";
    let schema = json!({"anyOf": [
        {"type": "number", "minimum": 0, "exclusiveMaximum": 1},
        {"type": "integer", "minimum": 1, "maximum": MOST},
        {"$ref": "#/$defs/quoted_number"},
    ]});
    Kind::new(ACCEPTS, schema, |reading, node| match scalar(node).and_then(number) {
        Some(0.0) => None,
        Some(share) if share > 0.0 && share < 1.0 => Some(Steps::Fraction(share)),
        Some(count) if count >= 1.0 && count.fract() == 0.0 && count <= MOST as f64 => {
            Some(Steps::Every(count as usize))
        }
        _ => {
            reading.refuse(node, ACCEPTS);
            None
        }
    })
}

/// A checkpoint folder; a written `false` is how circulating recipes leave it unset.
pub(in crate::recipe) fn checkpoint() -> Kind<String> {
    const ACCEPTS: &str = "a checkpoint folder; `auto_resume_from_checkpoints: true` takes the newest";
    let folder = text();
    let schema = json!({"anyOf": [{"type": "string"}, {"const": false}]});
    Kind::new("a folder", schema, move |reading, node| match scalar(node).and_then(boolean) {
        Some(false) => None,
        Some(true) => {
            reading.refuse(node, ACCEPTS);
            None
        }
        None => folder.read(reading, node),
    })
}

/// A device.
pub(in crate::recipe) fn device() -> Kind<DeviceChoice> {
    const NAMES: [&str; 6] = ["auto", "cpu", "cuda", "vulkan", "metal", "wgpu"];
    let numbered = "^(cuda|vulkan|metal|wgpu):[0-9]+$|^(vulkan|wgpu):cpu$|^cube-cpu$";
    let schema = json!({"anyOf": [{"enum": NAMES}, {"type": "string", "pattern": numbered}]});
    let accepts = device::ACCEPTED.split(", ").map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    Kind::new(accepts, schema, |reading, node| {
        let text = scalar(node).map_or(String::new(), |text| text.trim().to_ascii_lowercase());
        let choice = DeviceChoice::parse(&text);
        if choice.is_none() {
            reading.unsupported(node, &NAMES, reading.hint);
        }
        choice
    })
}

/// Names with their meanings, as a phrase.
fn described(choices: &[Choice]) -> String {
    let one = |choice: &Choice| format!("`{}`: {}", choice.name, choice.description);
    choices.iter().map(one).collect::<Vec<_>>().join("; ")
}

/// Defects of rows.
pub(in crate::recipe) fn defects() -> Kind<Vec<Defect>> {
    let meanings = described(&Defect::ALL.map(Defect::choice));
    choices(Defect::ALL.map(|defect| (defect.name(), defect)), "a list such as [empty_answers]")
        .accepting(format!("a list of {meanings}"))
}

/// A size in bytes with its unit, of at least a byte.
pub(in crate::recipe) fn size() -> Kind<u64> {
    const ACCEPTS: &str = "a size such as 22GiB, 500 MiB or 24GB";
    let schema = json!({"type": "string", "pattern": "^\\s*[0-9][0-9._eE+]*\\s*([KMGT]iB|[MGT]B)\\s*$"});
    Kind::new(ACCEPTS, schema, |reading, node| {
        let bytes = scalar(node).and_then(bytes);
        if bytes.is_none() {
            reading.refuse(node, ACCEPTS);
        }
        bytes
    })
}

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

/// End-of-turn tokens that are trained on.
pub(in crate::recipe) fn train_on_end() -> Kind<TrainOnEnd> {
    choice(TrainOnEnd::ALL.map(|rule| (rule.choice().name, rule)))
        .accepting(described(&TrainOnEnd::ALL.map(TrainOnEnd::choice)))
}

/// A treatment of examples that are too long.
pub(in crate::recipe) fn excess() -> Kind<Excess> {
    choice(Excess::ALL.map(|excess| (excess.choice().name, excess)))
        .accepting(described(&Excess::ALL.map(Excess::choice)))
}

/// The type of files.
pub(in crate::recipe) fn file_type() -> Kind<String> {
    choice(file_types().map(|known| (known.name, known.name.to_owned())))
}

/// A chat template by name, the tokenizer's own, or `jinja`.
pub(in crate::recipe) fn chat_template() -> Kind<ChatTemplate> {
    const ADVICE: &str =
        "; the model's own template is `tokenizer_default`, and `jinja` takes one from `chat_template_jinja`";
    let names: Vec<&str> = ChatTemplate::choices().map(|known| known.name).collect();
    let fallback = ChatTemplate::FALLBACK;
    let fallbacks: Vec<String> = named_templates().map(|known| format!("{fallback}{}", known.name)).collect();
    let shown = names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let accepts = format!("{shown}, or `{fallback}NAME`");
    Kind::new(accepts, json!({"anyOf": [{"enum": names}, {"enum": fallbacks}]}), move |reading, node| {
        let template = scalar(node).and_then(|name| ChatTemplate::parse(name.trim()));
        if template.is_none() {
            reading.unsupported(node, &names, ADVICE);
        }
        template
    })
}

/// The entries of a mapping whose keys are free.
fn free<T>(
    reading: &Reading<'_>,
    node: &Node,
    read: impl Fn(&Reading<'_>, &Node) -> Option<T>,
) -> Option<BTreeMap<String, T>> {
    let Value::Map(entries) = &node.value else {
        reading.refuse(node, "a mapping");
        return None;
    };
    let one = |entry: &crate::recipe::yaml::Entry| {
        Some((entry.key.clone(), read(&reading.inside(&entry.key, entry.at), &entry.node)?))
    };
    Some(entries.iter().filter_map(one).collect())
}

/// A mapping to the names of keys in the rows.
pub(in crate::recipe) fn mappings() -> Kind<BTreeMap<String, String>> {
    let schema = json!({"type": "object", "additionalProperties": {"$ref": "#/$defs/text"}});
    Kind::new("a mapping of texts to texts", schema, |reading, node| {
        free(reading, node, |reading, node| {
            let name = scalar(node).filter(|_| !node.is_unset()).map(str::to_owned);
            if name.is_none() {
                reading.refuse(node, "the name of a key in the rows");
            }
            name
        })
    })
}

/// A mapping to lists of the names that the rows use.
pub(in crate::recipe) fn roles() -> Kind<BTreeMap<String, Vec<String>>> {
    let list = json!({"type": "array", "items": {"$ref": "#/$defs/text"}});
    let schema = json!({"type": "object", "additionalProperties": list});
    Kind::new("a mapping of roles to lists of names", schema, |reading, node| {
        free(reading, node, |reading, node| match &node.value {
            Value::List(items) => Some(reading.texts(items)),
            _ => {
                reading.refuse(node, "a list of the names that the rows use for this role");
                None
            }
        })
    })
}
