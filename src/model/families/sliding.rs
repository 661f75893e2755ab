//! How far back each layer may look: `sliding_window`, `layer_types` and what gates them.
//!
//! `layer_types` (as transformers 5 writes it) is believed where it is given; the older rules apply
//! where it is not. Each function returns one [`Reach`] per layer.

use super::config::{Config, ConfigError};
use crate::model::spec::Reach;

/// Longest window that is believed; longer than any context.
const WINDOW_LIMIT: usize = 1 << 32;
/// What `layer_types` calls a layer that looks back to the beginning.
const FULL: &str = "full_attention";
/// What `layer_types` calls a layer with a window.
const SLIDING: &str = "sliding_attention";

/// Every layer looks back to the beginning; a configuration that says otherwise is refused.
pub(super) fn full(config: &Config, layers: usize) -> Result<Vec<Reach>, ConfigError> {
    if config.value("sliding_window").is_some() {
        let hint = "use a model of a family with sliding windows";
        return Err(config.unsupported("sliding_window", "`null`", hint));
    }
    uniform(config, layers, Reach::Full)
}

/// One window for all layers: `sliding_window`, `null` for none, `default_window` if the key is not written.
pub(super) fn same_window(config: &Config, layers: usize, default_window: usize) -> Result<Vec<Reach>, ConfigError> {
    let reach = match config.size("sliding_window", WINDOW_LIMIT)? {
        Some(window) => Reach::Window(window),
        None if config.has("sliding_window") => Reach::Full,
        None => Reach::Window(default_window),
    };
    uniform(config, layers, reach)
}

/// The window is off unless `use_sliding_window`, and then holds from layer `max_window_layers` up.
pub(super) fn upper_layers(config: &Config, layers: usize) -> Result<Vec<Reach>, ConfigError> {
    let window = match config.flag("use_sliding_window")? {
        Some(true) => config.size("sliding_window", WINDOW_LIMIT)?,
        _ => None,
    };
    // transformers' own default; every published file names it where it matters.
    let first = config.count("max_window_layers", WINDOW_LIMIT)?.unwrap_or(28);
    let types = layer_types(config, layers)?;
    let reach = |layer: usize| match (types.as_ref().map(|types| types[layer]), window) {
        (Some(SLIDING), None) => Err(config.wrong(
            "layer_types",
            "`sliding_attention` only with `use_sliding_window: true` and a `sliding_window`",
            "the keys contradict each other: use the `config.json` that the model was published with",
        )),
        (Some(SLIDING), Some(window)) => Ok(Reach::Window(window)),
        (None, Some(window)) if layer >= first => Ok(Reach::Window(window)),
        _ => Ok(Reach::Full),
    };
    (0..layers).map(reach).collect()
}

/// The same reach for all layers, which `layer_types` must not contradict.
fn uniform(config: &Config, layers: usize, reach: Reach) -> Result<Vec<Reach>, ConfigError> {
    let expected = if reach == Reach::Full { FULL } else { SLIDING };
    if let Some(types) = layer_types(config, layers)?
        && types.iter().any(|name| *name != expected)
    {
        let hint = "this family has one kind of layer, which `sliding_window` decides";
        return Err(config.unsupported("layer_types", format!("`{expected}` for every layer"), hint));
    }
    Ok(vec![reach; layers])
}

fn layer_types<'a>(config: &Config<'a>, layers: usize) -> Result<Option<Vec<&'a str>>, ConfigError> {
    let Some(types) = config.texts("layer_types")? else {
        return Ok(None);
    };
    if types.len() != layers {
        return Err(config.wrong(
            "layer_types",
            format!("one entry per layer, {layers} as `num_hidden_layers` says,"),
            "use the `config.json` that the model was published with",
        ));
    }
    if types.iter().any(|name| ![FULL, SLIDING].contains(name)) {
        let hint = "use a model of a supported family";
        return Err(config.unsupported("layer_types", format!("a list of `{FULL}` and `{SLIDING}`"), hint));
    }
    Ok(Some(types))
}
