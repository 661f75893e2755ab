//! The reach of each layer: windows, chunks, `layer_types` and what gates them.
//!
//! `layer_types` (as transformers 5 writes it) is believed where it is given; the older rules apply
//! where it is not. Each function returns one [`Reach`] per layer.

use super::config::{AS_PUBLISHED, Config, ConfigError, OTHER_FAMILY};
use crate::model::spec::Reach;

/// Longest window that is believed; longer than any context.
const WINDOW_LIMIT: usize = 1 << 32;
/// The name in `layer_types` of a layer that looks back to the beginning.
pub(super) const FULL: &str = "full_attention";
/// The name in `layer_types` of a layer with a window.
pub(super) const SLIDING: &str = "sliding_attention";
/// The name in `layer_types` of a layer with chunks.
const CHUNKED: &str = "chunked_attention";

/// Every layer looks back to the beginning; a configuration that says otherwise is refused.
pub(super) fn full(config: &Config, layers: usize) -> Result<Vec<Reach>, ConfigError> {
    if config.value("sliding_window").is_some() {
        let hint = "use a model of a family with sliding windows";
        return Err(config.unsupported("sliding_window", "`null`", hint));
    }
    uniform(config, layers, Reach::Full)
}

/// One window for all layers: `sliding_window`, `null` for none, `default` if the key is not written.
pub(super) fn same_window(config: &Config, layers: usize, default: Option<usize>) -> Result<Vec<Reach>, ConfigError> {
    let window = if config.has("sliding_window") { config.size("sliding_window", WINDOW_LIMIT)? } else { default };
    uniform(config, layers, window.map_or(Reach::Full, Reach::Window))
}

/// One window for all layers if `use_sliding_window`.
pub(super) fn gated_window(config: &Config, layers: usize) -> Result<Vec<Reach>, ConfigError> {
    if config.flag("use_sliding_window")? == Some(true) {
        return same_window(config, layers, Some(4096));
    }
    config.without_effect(&["sliding_window"]);
    uniform(config, layers, Reach::Full)
}

/// A window on all layers but every `sliding_window_pattern`th, or as `layer_types` says.
pub(super) fn every_nth_full(config: &Config, layers: usize) -> Result<Vec<Reach>, ConfigError> {
    let key = if config.has("sliding_window_pattern") { "sliding_window_pattern" } else { "_sliding_window_pattern" };
    config.without_effect(&["_sliding_window_pattern"]);
    let pattern = config.size(key, WINDOW_LIMIT)?.unwrap_or(6);
    windows(config, layers, 4096, |layer| !(layer + 1).is_multiple_of(pattern))
}

/// A window on every other layer, the first among them, or as `layer_types` says.
pub(super) fn alternating(config: &Config, layers: usize) -> Result<Vec<Reach>, ConfigError> {
    windows(config, layers, 128, |layer| layer.is_multiple_of(2))
}

/// `sliding_window` where `layer_types` says, or else `by_rule`.
fn windows(
    config: &Config,
    layers: usize,
    default: usize,
    by_rule: impl Fn(usize) -> bool,
) -> Result<Vec<Reach>, ConfigError> {
    let window = config.size("sliding_window", WINDOW_LIMIT)?.unwrap_or(default);
    let types = layer_types(config, layers, &[FULL, SLIDING])?;
    let slides = |layer: usize| types.as_ref().map_or_else(|| by_rule(layer), |types| types[layer] == SLIDING);
    Ok((0..layers).map(|layer| if slides(layer) { Reach::Window(window) } else { Reach::Full }).collect())
}

/// Chunks of `attention_chunk_size` on layers with positions, `no_rope_layers` says which; no limit on the others.
pub(super) fn chunks(config: &Config, layers: usize) -> Result<Vec<Reach>, ConfigError> {
    let chunk = if config.has("attention_chunk_size") {
        config.size("attention_chunk_size", WINDOW_LIMIT)?
    } else {
        Some(8192)
    };
    let Some(chunk) = chunk else {
        return Err(config.unsupported("attention_chunk_size", "a whole number above 0", AS_PUBLISHED));
    };
    let interval = config.size("no_rope_layer_interval", WINDOW_LIMIT)?.unwrap_or(4);
    let listed = config.counts("no_rope_layers", 1)?.filter(|listed| !listed.is_empty());
    if listed.as_ref().is_some_and(|listed| listed.len() != layers) {
        return Err(config.wrong("no_rope_layers", format!("one entry per layer, {layers},"), AS_PUBLISHED));
    }
    let turns = |layer: usize| match &listed {
        Some(listed) => listed[layer] == 1,
        None => !(layer + 1).is_multiple_of(interval),
    };
    if let Some(types) = layer_types(config, layers, &[FULL, CHUNKED])?
        && (0..layers).any(|layer| (types[layer] == CHUNKED) != turns(layer))
    {
        let accepted = format!("`{CHUNKED}` for the layers with positions, `{FULL}` for the others");
        return Err(config.unsupported("layer_types", accepted, AS_PUBLISHED));
    }
    Ok((0..layers).map(|layer| if turns(layer) { Reach::Chunk(chunk) } else { Reach::Full }).collect())
}

/// The window is off unless `use_sliding_window`, and then holds from layer `max_window_layers` up.
pub(super) fn upper_layers(config: &Config, layers: usize) -> Result<Vec<Reach>, ConfigError> {
    config.without_effect(&["sliding_window"]);
    let window = match config.flag("use_sliding_window")? {
        Some(true) => config.size("sliding_window", WINDOW_LIMIT)?,
        _ => None,
    };
    // transformers' own default; every published file names it where it matters.
    let first = config.count("max_window_layers", WINDOW_LIMIT)?.unwrap_or(28);
    let types = layer_types(config, layers, &[FULL, SLIDING])?;
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

/// One reach for all layers, which `layer_types` must not contradict.
fn uniform(config: &Config, layers: usize, reach: Reach) -> Result<Vec<Reach>, ConfigError> {
    let expected = if reach == Reach::Full { FULL } else { SLIDING };
    if let Some(types) = layer_types(config, layers, &[FULL, SLIDING])?
        && types.iter().any(|name| *name != expected)
    {
        let hint = "this family has one kind of layer, which `sliding_window` decides";
        return Err(config.unsupported("layer_types", format!("`{expected}` for every layer"), hint));
    }
    Ok(vec![reach; layers])
}

fn layer_types<'a>(config: &Config<'a>, layers: usize, known: &[&str]) -> Result<Option<Vec<&'a str>>, ConfigError> {
    let Some(types) = config.texts("layer_types")? else {
        return Ok(None);
    };
    if types.len() != layers {
        return Err(config.wrong(
            "layer_types",
            format!("one entry per layer, {layers} as `num_hidden_layers` says,"),
            AS_PUBLISHED,
        ));
    }
    if types.iter().any(|name| !known.contains(name)) {
        let accepted: Vec<String> = known.iter().map(|name| format!("`{name}`")).collect();
        return Err(config.unsupported("layer_types", format!("a list of {}", accepted.join(" and ")), OTHER_FAMILY));
    }
    Ok(Some(types))
}
