//! The weights of the base that are kept in 4 bits: those of QLoRA, and those that a checkpoint stores so.

use adapters::nf4::Nf4Spec;
use anyhow::{Result, bail};

use super::Precision;
use crate::export::MergeBase;
use crate::hint::hinted;
use crate::hub::BaseModel;
use crate::model::spec::DecoderSpec;
use crate::model::{Quantised, Storage, is_skipped, names};
use crate::recipe::{AdapterKind, Recipe};

/// The form in which the checkpoint stores linear maps in 4 bits, if it does; its configuration tells before the weights
/// are there.
pub(super) fn stored(base: &BaseModel) -> Option<Nf4Spec> {
    let config = &base.config["quantization_config"];
    let double = config["bnb_4bit_use_double_quant"].as_bool().unwrap_or(false);
    (config["quant_method"] == "bitsandbytes").then_some(Nf4Spec { double })
}

/// Decides how the parameters of a run are kept.
///
/// # Errors
/// If the recipe contradicts what the checkpoint stores, or skips what is not there.
pub(super) fn storage(
    recipe: &Recipe,
    spec: &DecoderSpec,
    base: &BaseModel,
    precision: &Precision,
    on_host: bool,
) -> Result<Storage> {
    let plain = Storage::of(precision.compute, on_host);
    let stored = stored(base);
    let config = &recipe.bnb_config_kwargs;
    if *recipe.adapter != Some(AdapterKind::Qlora) {
        if stored.is_some() {
            bail!(hinted(
                format!(
                    "{}: `{}` stores its weights in 4 bits, which an adapter: qlora trains on",
                    recipe.base_model.place(),
                    base.name
                ),
                "write `adapter: qlora` and `load_in_4bit: true`, or name the checkpoint that it was made from"
            ));
        }
        return Ok(plain);
    }
    if let (Some(stored), Some(wanted)) = (stored, *config.bnb_4bit_use_double_quant)
        && stored.double != wanted
    {
        bail!(hinted(
            format!(
                "{}: bnb_4bit_use_double_quant is `{}` in the weights of `{}`",
                config.bnb_4bit_use_double_quant.place(),
                stored.double,
                base.name
            ),
            "leave it out; a checkpoint in 4 bits stays as it is"
        ));
    }
    let head = names::head(spec).path;
    let paths: Vec<String> = names::projections(spec).into_iter().map(|projection| projection.path).collect();
    for (index, name) in config.llm_int8_skip_modules.iter().enumerate() {
        // The head is never quantised, and lists of modules to skip usually have it.
        if !paths.iter().chain([&head]).any(|path| is_skipped(path, name)) {
            let mut known: Vec<&str> = paths.iter().map(|path| names::short(path)).collect();
            known.sort_unstable();
            known.dedup();
            bail!(hinted(
                format!("{}: `{name}` is not a linear map of this model", config.llm_int8_skip_modules.item(index)),
                format!("name modules such as {}", known.join(", "))
            ));
        }
    }
    let spec = stored.unwrap_or(Nf4Spec { double: config.bnb_4bit_use_double_quant.unwrap_or(true) });
    Ok(Storage { quantised: Some(Quantised { spec, skipped: config.llm_int8_skip_modules.to_vec() }), ..plain })
}

/// The weights that the adapter is merged into, where there is a choice: by default those that training saw.
///
/// # Errors
/// If the weights of the recipe's choice are not there.
pub(super) fn merge_base(recipe: &Recipe, storage: &Storage, base: &BaseModel) -> Result<Option<MergeBase>> {
    if storage.quantised.is_none() {
        return Ok(None);
    }
    match *recipe.export.merge_base {
        Some(MergeBase::Original) if stored(base).is_some() => bail!(hinted(
            format!("{}: `{}` has its weights in 4 bits alone", recipe.export.merge_base.place(), base.name),
            "write `merge_base: 4bit`, or name the checkpoint that it was made from"
        )),
        chosen => Ok(Some(chosen.unwrap_or(MergeBase::Quantised))),
    }
}

/// The form of 4-bit weights in one line.
pub(super) fn describe(quantised: &Quantised, is_stored: bool) -> String {
    let scales = if quantised.spec.double { ", scales in 8 bits" } else { "" };
    let origin = if is_stored { ", as the checkpoint stores them" } else { "" };
    let skipped = match quantised.skipped.as_slice() {
        [] => String::new(),
        names => format!(" and {}", names.join(", ")),
    };
    format!("linear maps in NF4{scales}{origin}; all but the head{skipped}")
}
