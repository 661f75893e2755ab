//! `adapter_config.json`: the keys that this project understands, and refusals of all others by name.
//!
//! PEFT adds a key with almost every release, and most of them make an adapter more than `W + s B A`. So the keys are
//! listed whose values do not matter or are read; any other one must be unset.

use std::path::Path;

use fancy_regex::Regex;
use serde_json::{Map, Value};

use super::{PeftError, content};
use crate::attach::{Method, answers_to};
use crate::low_rank::LowRankSpec;

/// Highest rank that is believed.
const MOST_RANK: u64 = 1 << 20;

/// The way out of most refusals.
const MERGE: &str = "merge the adapter with PEFT (`merge_and_unload`, `save_pretrained`), and name the merged model";

/// Keys that are read below.
const READ: &[&str] = &[
    "alpha_pattern",
    "base_model_name_or_path",
    "bias",
    "ensure_weight_tying",
    "init_lora_weights",
    "lora_alpha",
    "lora_dropout",
    "modules_to_save",
    "peft_type",
    "r",
    "rank_pattern",
    "revision",
    "target_modules",
    "target_parameters",
    "task_type",
    "trainable_token_indices",
    "use_dora",
    "use_rslora",
];

/// Keys whose values do not change what a saved adapter computes: the choice among the targets, which the tensors' names
/// repeat; settings of initialisations, of training and of the writer.
const WITHOUT_EFFECT: &[&str] = &[
    "auto_mapping",
    "corda_config",
    "eva_config",
    "exclude_modules",
    // PEFT sets it to false for linear maps.
    "fan_in_fan_out",
    "inference_mode",
    "layers_pattern",
    "layers_to_transform",
    "loftq_config",
    "lora_ga_config",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "runtime_config",
];

/// Keys with which an adapter is more than `W + s B A`, and what they make of it.
const REFUSED: &[(&str, &str)] = &[
    (
        "alora_invocation_tokens",
        "an activated LoRA changes nothing before its invocation tokens, so that it cannot be merged; serve it with a program that reads it",
    ),
    ("arrow_config", "it routes between several adapters, so that it cannot be merged; serve it with PEFT"),
];

/// Initialisations that leave the base weights alone: a saved adapter is `W + s B A`.
const PLAIN_INITIALISATIONS: &[&str] = &["eva", "gaussian", "mica", "orthogonal"];

/// Initialisations that take the adapter's first product out of the base weights.
const CHANGED_BASE: &[&str] = &["corda", "loftq", "lora_ga", "olora", "pissa"];

/// Rows of a matrix that were trained by their numbers, and the path of its module or the end of it; `None` is the embedding.
type TokenRows = (Option<String>, Vec<usize>);

/// The content of `adapter_config.json`.
#[derive(Debug)]
pub(super) struct AdapterConfig {
    pub(super) base_model: Option<String>,
    pub(super) revision: Option<String>,
    /// Method, rank and scaling of the targets that no pattern names.
    pub(super) method: Method,
    /// Stacks of experts that it names, by parameter name or its last components.
    pub(super) parameters: Vec<String>,
    /// Modules that were trained as a whole, by path or its last components.
    pub(super) saved_modules: Vec<String>,
    /// Rows of embedding and head that were trained.
    pub(super) token_rows: Vec<TokenRows>,
    /// True if modules that share a weight share its adapter.
    pub(super) ties_weights: bool,
    targets: Option<Targets>,
    ranks: Vec<(Regex, usize)>,
    alphas: Vec<(Regex, f64)>,
}

/// The modules that `target_modules` names.
#[derive(Debug)]
enum Targets {
    Names(Vec<String>),
    Pattern(Regex),
}

impl AdapterConfig {
    /// Reads the JSON object of the file at `path`.
    ///
    /// # Errors
    /// When a value says that the adapter is of a kind that this project does not run.
    pub(super) fn read(config: &Map<String, Value>, path: &Path) -> Result<Self, PeftError> {
        let reader = Reader { config, path };
        if reader.value("peft_type") != "LORA" {
            return Err(reader.refused("peft_type", "accepted: LORA"));
        }
        for (key, value) in config {
            let known = READ.contains(&key.as_str()) || WITHOUT_EFFECT.contains(&key.as_str());
            if !known && !is_unset(value) {
                let reason = REFUSED.iter().find(|(name, _)| name == key);
                return Err(reader.refused(key, reason.map_or(MERGE, |(_, hint)| hint)));
            }
        }
        reader.task()?;
        reader.initialisation()?;
        if reader.text("bias")?.is_some_and(|bias| bias != "none") {
            return Err(reader.refused("bias", &format!("trained biases are not read: {MERGE}")));
        }
        let spec = LowRankSpec {
            rank: reader.rank("r", reader.value("r"))?,
            alpha: reader.alpha("lora_alpha", reader.value("lora_alpha"))?,
            dropout: reader.dropout()?,
            rank_stabilised: reader.flag("use_rslora")?,
        };
        let is_dora = reader.flag("use_dora")?;
        Ok(Self {
            base_model: reader.text("base_model_name_or_path")?.filter(|name| !name.is_empty()),
            revision: reader.text("revision")?,
            method: if is_dora { Method::Dora(spec) } else { Method::LowRank(spec) },
            parameters: reader.names("target_parameters")?,
            saved_modules: reader.names("modules_to_save")?,
            targets: reader.targets()?,
            token_rows: reader.token_rows()?,
            ties_weights: reader.flag("ensure_weight_tying")?,
            ranks: reader.pattern("rank_pattern", |key, value| reader.rank(key, value))?,
            alphas: reader.pattern("alpha_pattern", |key, value| reader.alpha(key, value))?,
        })
    }

    /// Rank and scaling of the module at `path` in PEFT's class: the first pattern that matches decides, as in PEFT.
    pub(super) fn spec_of(&self, path: &str) -> LowRankSpec {
        let matches = |regex: &Regex| regex.is_match(path).unwrap_or(false);
        let mut spec = self.method.low_rank();
        if let Some((_, rank)) = self.ranks.iter().find(|(regex, _)| matches(regex)) {
            spec.rank = *rank;
        }
        if let Some((_, alpha)) = self.alphas.iter().find(|(regex, _)| matches(regex)) {
            spec.alpha = *alpha;
        }
        spec
    }

    /// False for the path of a module that `target_modules` leaves out, so that PEFT would not load its tensors.
    pub(super) fn adapts(&self, path: &str) -> bool {
        match &self.targets {
            None => true,
            Some(Targets::Names(names)) => names.iter().any(|name| answers_to(path, name)),
            Some(Targets::Pattern(regex)) => regex.is_match(path).unwrap_or(true),
        }
    }

    /// The highest rank of any target.
    pub(super) fn highest_rank(&self) -> usize {
        self.ranks.iter().map(|(_, rank)| *rank).fold(self.method.low_rank().rank, usize::max)
    }
}

/// True for the values that mean nothing: null, false and everything empty.
fn is_unset(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Bool(true) | Value::Number(_) => false,
    }
}

struct Reader<'a> {
    config: &'a Map<String, Value>,
    path: &'a Path,
}

impl Reader<'_> {
    fn value(&self, key: &str) -> &Value {
        self.config.get(key).unwrap_or(&Value::Null)
    }

    fn refused(&self, key: &str, hint: &str) -> PeftError {
        self.refused_value(key, self.value(key), hint)
    }

    fn refused_value(&self, key: &str, value: &Value, hint: &str) -> PeftError {
        content(self.path, format!("`{key}: {value}` is not supported"), hint)
    }

    fn flag(&self, key: &str) -> Result<bool, PeftError> {
        match self.value(key) {
            Value::Null => Ok(false),
            Value::Bool(flag) => Ok(*flag),
            _ => Err(self.refused(key, "accepted: true, false")),
        }
    }

    fn text(&self, key: &str) -> Result<Option<String>, PeftError> {
        match self.value(key) {
            Value::Null => Ok(None),
            Value::String(text) => Ok(Some(text.clone())),
            _ => Err(self.refused(key, "accepted: a text")),
        }
    }

    fn task(&self) -> Result<(), PeftError> {
        match self.text("task_type")?.as_deref() {
            None | Some("CAUSAL_LM") => Ok(()),
            Some(_) => Err(self.refused("task_type", "accepted: CAUSAL_LM; only models that write text are run here")),
        }
    }

    /// The adapter must be one for the base weights as they are.
    fn initialisation(&self) -> Result<(), PeftError> {
        const KEY: &str = "init_lora_weights";
        let name = match self.value(KEY) {
            Value::Null | Value::Bool(_) => return Ok(()),
            Value::String(name) => name.to_lowercase(),
            _ => return Err(self.refused(KEY, "accepted: true, false, the name of an initialisation")),
        };
        if PLAIN_INITIALISATIONS.contains(&name.as_str()) {
            return Ok(());
        }
        if CHANGED_BASE.iter().any(|known| name.starts_with(known)) {
            let hint = "this initialisation changes the base weights, so that the adapter does not fit the base model as it is: \
                        convert it with PEFT to a plain LoRA (`save_pretrained` with \
                        `path_initial_model_for_weight_conversion`), or merge it where it was trained and name the merged model";
            return Err(self.refused(KEY, hint));
        }
        Err(self.refused(KEY, &format!("accepted: true, false, {}", PLAIN_INITIALISATIONS.join(", "))))
    }

    fn rank(&self, key: &str, value: &Value) -> Result<usize, PeftError> {
        let rank = value.as_u64().filter(|rank| (1..=MOST_RANK).contains(rank));
        let accepted = || self.refused_value(key, value, &format!("accepted: an integer from 1 to {MOST_RANK}"));
        rank.map(|rank| rank as usize).ok_or_else(accepted)
    }

    fn alpha(&self, key: &str, value: &Value) -> Result<f64, PeftError> {
        let alpha = value.as_f64().filter(|alpha| *alpha > 0.0 && *alpha < f64::from(f32::MAX));
        alpha.ok_or_else(|| self.refused_value(key, value, "accepted: a number above 0 that f32 holds"))
    }

    fn dropout(&self) -> Result<f64, PeftError> {
        let value = self.value("lora_dropout");
        let dropout = if value.is_null() { Some(0.0) } else { value.as_f64() };
        let dropout = dropout.filter(|dropout| (0.0..1.0).contains(dropout));
        dropout.ok_or_else(|| self.refused("lora_dropout", "accepted: a number from 0 to below 1"))
    }

    fn names(&self, key: &str) -> Result<Vec<String>, PeftError> {
        let refused = || self.refused(key, "accepted: a list of names");
        match self.value(key) {
            Value::Null => Ok(Vec::new()),
            Value::Array(list) => {
                list.iter().map(|name| name.as_str().map(str::to_owned).ok_or_else(refused)).collect()
            }
            _ => Err(refused()),
        }
    }

    /// The targets, unless they are all linear maps or those of the model's family.
    fn targets(&self) -> Result<Option<Targets>, PeftError> {
        const KEY: &str = "target_modules";
        match self.value(KEY) {
            Value::Null => Ok(None),
            Value::String(text) if text.eq_ignore_ascii_case("all-linear") => Ok(None),
            // A pattern that only Python knows is left to the tensors' names.
            Value::String(text) => Ok(Regex::new(&format!("^(?:{text})$")).ok().map(Targets::Pattern)),
            _ => Ok(Some(Targets::Names(self.names(KEY)?))),
        }
    }

    /// A list of token ids means the embedding; an object names the module of each list.
    fn token_rows(&self) -> Result<Vec<TokenRows>, PeftError> {
        const KEY: &str = "trainable_token_indices";
        let refused = || self.refused(KEY, "accepted: a list of token ids, or an object of such lists by module");
        let ids = |value: &Value| -> Option<Vec<usize>> {
            value.as_array()?.iter().map(|id| id.as_u64().and_then(|id| usize::try_from(id).ok())).collect()
        };
        match self.value(KEY) {
            Value::Null => Ok(Vec::new()),
            Value::Object(modules) => {
                let rows = modules.iter().map(|(name, value)| Some((Some(name.clone()), ids(value)?)));
                rows.collect::<Option<_>>().ok_or_else(refused)
            }
            value => Ok(vec![(None, ids(value).ok_or_else(refused)?)]),
        }
    }

    /// The entries of a pattern in the file's order, as regular expressions for the end of a path.
    fn pattern<T>(
        &self,
        key: &str,
        read: impl Fn(&str, &Value) -> Result<T, PeftError>,
    ) -> Result<Vec<(Regex, T)>, PeftError> {
        let entries = match self.value(key) {
            Value::Null => return Ok(Vec::new()),
            Value::Object(entries) => entries,
            _ => return Err(self.refused(key, "accepted: an object of numbers by module name or pattern")),
        };
        let entry = |(name, value): (&String, &Value)| {
            let named = format!("{key}.{name}");
            let regex = Regex::new(&format!(r"^(?:.*\.)?(?:{name})$"));
            let regex =
                regex.map_err(|error| self.refused_value(&named, value, &format!("not a valid pattern: {error}")))?;
            Ok((regex, read(&named, value)?))
        };
        entries.iter().map(entry).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What is read of a configuration with `changes` to a usual one.
    fn read(changes: &Value) -> Result<AdapterConfig, PeftError> {
        let mut config = json!({ "peft_type": "LORA", "r": 4, "lora_alpha": 8 }).as_object().unwrap().clone();
        config.extend(changes.as_object().unwrap().clone());
        AdapterConfig::read(&config, Path::new("adapter_config.json"))
    }

    #[test]
    fn every_key_that_peft_writes_by_default_is_accepted() {
        // `LoraConfig(task_type="CAUSAL_LM").to_dict()` of PEFT 0.21.2.
        let written = json!({
            "alora_invocation_tokens": null, "alpha_pattern": {}, "arrow_config": null, "auto_mapping": null,
            "base_model_name_or_path": null, "bias": "none", "corda_config": null, "ensure_weight_tying": false,
            "eva_config": null, "exclude_modules": null, "fan_in_fan_out": false, "inference_mode": false,
            "init_lora_weights": true, "kasa_config": null, "layer_replication": null, "layers_pattern": null,
            "layers_to_transform": null, "loftq_config": {}, "lora_alpha": 8, "lora_bias": false, "lora_dropout": 0.0,
            "lora_ga_config": null, "megatron_config": null, "megatron_core": "megatron.core", "modules_to_save": null,
            "monteclora_config": null, "peft_type": "LORA", "peft_version": "0.21.2", "qalora_group_size": 16, "r": 8,
            "rank_pattern": {}, "revision": null, "target_modules": ["q_proj"], "target_parameters": null,
            "task_type": "CAUSAL_LM", "trainable_token_indices": null, "use_bdlora": null, "use_dora": false,
            "use_qalora": false, "use_rslora": false, "velora_config": null,
        });
        assert_eq!(read(&written).unwrap().method.low_rank().rank, 8);
        // Keys of the first versions.
        read(&json!({ "enable_lora": null, "merge_weights": false })).unwrap();
    }

    #[test]
    fn what_makes_an_adapter_more_than_a_low_rank_update_is_refused_by_name() {
        for (key, value) in [
            ("alora_invocation_tokens", json!([1, 2])),
            ("arrow_config", json!({ "top_k": 3 })),
            ("kasa_config", json!({ "beta": 0.1 })),
            ("layer_replication", json!([[0, 2], [1, 3]])),
            ("lora_bias", json!(true)),
            ("megatron_config", json!({ "hidden_size": 64 })),
            ("monteclora_config", json!({ "num_samples": 8 })),
            ("use_bdlora", json!({ "nblocks": 2 })),
            ("use_qalora", json!(true)),
            ("velora_config", json!({ "num_groups": 64 })),
            ("of_a_later_version", json!(1)),
            ("bias", json!("lora_only")),
            ("bias", json!("all")),
            ("task_type", json!("SEQ_CLS")),
            ("peft_type", json!("ADALORA")),
            ("init_lora_weights", json!("unheard-of")),
        ] {
            let error = read(&json!({ key: value })).unwrap_err();
            assert!(error.to_string().contains(&format!("`{key}: {value}` is not supported")), "{error}");
            assert!(error.hint().is_some_and(|hint| !hint.is_empty()), "{key}");
        }
    }

    #[test]
    fn initialisations_that_change_the_base_weights_are_refused_with_a_way_out() {
        for name in ["pissa", "pissa_niter_16", "olora", "OLoRA", "corda", "loftq", "lora_ga"] {
            let error = read(&json!({ "init_lora_weights": name })).unwrap_err();
            assert!(error.to_string().contains(&format!("`init_lora_weights: \"{name}\"`")), "{error}");
            assert!(error.hint().unwrap().contains("path_initial_model_for_weight_conversion"), "{error:?}");
        }
        for value in [json!(null), json!(true), json!(false), json!("gaussian"), json!("eva"), json!("orthogonal")] {
            read(&json!({ "init_lora_weights": value })).unwrap();
        }
    }

    #[test]
    fn the_first_pattern_that_matches_the_end_of_a_path_decides() {
        let config = read(&json!({
            "rank_pattern": { "layers.1.self_attn.q_proj": 6, "q_proj": 2, "^model\\.layers\\.0\\.mlp.*": 5 },
            "alpha_pattern": { ".*[02]\\.self_attn\\.(q|v)_proj": 16 },
        }))
        .unwrap();
        let of = |path: &str| {
            let spec = config.spec_of(path);
            (spec.rank, spec.alpha)
        };
        assert_eq!(of("model.layers.1.self_attn.q_proj"), (6, 8.0));
        assert_eq!(of("model.layers.0.self_attn.q_proj"), (2, 16.0));
        assert_eq!(of("model.layers.2.self_attn.v_proj"), (4, 16.0));
        assert_eq!(of("model.layers.0.mlp.down_proj"), (5, 8.0));
        assert_eq!(of("model.layers.11.self_attn.q_proj"), (2, 8.0), "a component matches as a whole");
        assert_eq!(config.highest_rank(), 6);
        for wrong in [json!({ "q_proj": 0 }), json!({ "q_proj": "4" }), json!({ "(": 4 }), json!([4])] {
            assert!(read(&json!({ "rank_pattern": wrong })).is_err(), "{wrong}");
        }
    }

    #[test]
    fn tensors_of_modules_that_are_no_targets_are_recognised() {
        let adapts = |targets: Value, path: &str| read(&json!({ "target_modules": targets })).unwrap().adapts(path);
        let path = "model.layers.0.self_attn.q_proj";
        for targets in [json!(["q_proj"]), json!([path]), json!("all-linear"), json!(null), json!(".*\\.(q|v)_proj")] {
            assert!(adapts(targets.clone(), path), "{targets}");
        }
        for targets in [json!(["v_proj"]), json!([]), json!("q_proj")] {
            assert!(!adapts(targets.clone(), path), "{targets}");
        }
    }

    #[test]
    fn trained_rows_belong_to_the_embedding_or_the_module_that_is_named() {
        let rows = |value: Value| read(&json!({ "trainable_token_indices": value })).map(|config| config.token_rows);
        assert_eq!(rows(json!([3, 5])).unwrap(), [(None, vec![3, 5])]);
        assert_eq!(rows(json!({ "lm_head": [7] })).unwrap(), [(Some("lm_head".to_owned()), vec![7])]);
        for wrong in [json!([-1]), json!("all"), json!({ "lm_head": 7 })] {
            assert!(rows(wrong).is_err());
        }
    }
}
