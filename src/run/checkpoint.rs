//! What has been learnt so far, saved in the form in which it will be exported.

use anyhow::{Context, Result};

use crate::device::FloatDType;
use crate::export::{self, Companions, MergedForm};
use crate::hub::BaseModel;
use crate::plan::{Adaptation, Plan};
use crate::run_dir::RunDir;
use crate::train::Trainer;

/// Writes the run folder's checkpoint of the trainer's step; `plan_text` goes into its card.
pub(super) fn save(
    trainer: &mut Trainer,
    plan: &Plan,
    base: &BaseModel,
    run_dir: &RunDir,
    companions: &Companions,
    plan_text: &str,
) -> Result<()> {
    let step = trainer.position();
    let folder = run_dir.checkpoint(step);
    let card = format!("Checkpoint after {step} steps.\n\n```text\n{plan_text}```\n");
    let decoder = trainer.decoder_mut();
    let form = MergedForm { dtype: plan.export.dtype, ..MergedForm::default() };
    let saved = match &plan.adaptation {
        Adaptation::Adapter { spec, .. } => {
            export::write_adapter(&folder, decoder, spec, base, FloatDType::F32, companions, &card)
        }
        Adaptation::Full { .. } => export::write_merged(&folder, decoder, base, &form, companions, &card),
    };
    saved.with_context(|| format!("{} cannot be saved", folder.display()))
}
