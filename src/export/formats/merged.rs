//! `merged`: the whole model in the base's own names, layout and files, the updates merged into its weights.

use std::path::Path;

use burn::tensor::{Device, FloatDType};

use super::{CardWords, Content, Divergence, Expected, Format, tune_generate};
use crate::export::{ExportError, Job, MergeBase, MergedForm, Probe, weights};
use crate::hub::{self, BaseModel};
use crate::model::{Decoder, Storage};
use crate::open;

pub(super) const FORMAT: Format = Format {
    name: "merged",
    description: "a whole checkpoint in the base's own names, layout and files, for transformers and vLLM",
    needs: &[],
    write_files: write,
    expected,
    content: Content::Model(read),
    card: CardWords {
        library: "transformers",
        load: "from transformers import AutoModelForCausalLM\nmodel = AutoModelForCausalLM.from_pretrained(\"merged\")\n",
    },
    command: tune_generate,
};

fn write(folder: &Path, decoder: &mut Decoder, job: &Job) -> Result<(), ExportError> {
    weights::write(folder, decoder, job.base, &MergedForm::of(job.settings))?;
    job.companions.write(job.base, folder, &(job.card)(&FORMAT))
}

/// On a base in 4 bits, the distance of each way to merge from the trained decoder, and the logits of the chosen one.
fn expected(probe: &Probe, decoder: &Decoder, job: &Job) -> Result<Expected, ExportError> {
    let form = MergedForm::of(job.settings);
    let mut expected = Expected::trained();
    let ways = [
        ("4bit", "merged into the 4-bit weights", MergeBase::Quantised, true),
        ("16bit", "merged into the original weights", MergeBase::Original, job.settings.has_original_weights),
    ];
    for (name, way, base, is_possible) in ways {
        if form.base.is_some() && is_possible {
            let merged = probe.merged(decoder, job.base, &MergedForm { base: Some(base), ..form.clone() })?;
            expected.divergences.push(Divergence { name, way, distance: probe.divergence(&merged) });
            if form.base == Some(base) {
                (expected.probe, expected.model) = (Some(merged), "the merged model");
            }
        }
    }
    Ok(expected)
}

/// The model in a folder that holds a whole checkpoint.
pub(super) fn read(folder: &Path, storage: &Storage, device: &Device) -> Result<(Decoder, FloatDType), ExportError> {
    let base = BaseModel::open(&folder.to_string_lossy(), &[Path::new("")], None)?;
    let decoder = open::resolve(&base)
        .and_then(|model| open::load(&base, &model, None, device, storage, &mut |_, _| {}))
        .map_err(|error| ExportError::unusable(folder, error))?;
    let mut tensors = base.weights.iter().flat_map(|weights| weights.tensors());
    let is_narrow = tensors.any(|(_, info)| info.dtype != hub::Dtype::F32);
    Ok((decoder, if is_narrow { FloatDType::BF16 } else { FloatDType::F32 }))
}
