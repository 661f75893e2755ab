//! The files that a run leaves for other programs, and the proof that they compute what was trained.

use anyhow::Result;

use super::summary::Outcome;
use crate::device::FloatDType;
use crate::export::{self, AdapterForm, Companions, MergeBase, MergedForm, Probe};
use crate::hub::BaseModel;
use crate::model::{Decoder, Storage};
use crate::plan::{Adaptation, Plan};
use crate::run_dir::{ADAPTER, BNB_4BIT, MERGED, RunDir};

/// What exporting needs beside the trained decoder.
pub(super) struct Exports<'a> {
    pub(super) plan: &'a Plan,
    pub(super) base: &'a BaseModel,
    pub(super) run_dir: &'a RunDir,
    pub(super) companions: &'a Companions,
    /// The card of an adapter, or of a whole model.
    pub(super) card: &'a dyn Fn(bool) -> String,
}

impl Exports<'_> {
    /// Writes everything that the plan asks for, loads it again and compares it with `probe`, which was taken of `decoder`.
    ///
    /// # Errors
    /// When a file cannot be written, or what was written computes something else.
    pub(super) fn write(&self, mut decoder: Decoder, probe: &Probe, outcome: &mut Outcome) -> Result<()> {
        let wanted = &self.plan.export;
        let form = MergedForm { dtype: wanted.dtype, base: wanted.merge_base, quantised: None };
        // Each folder with the model that it must hold: the trained one, or what merging makes of it.
        let mut written: Vec<(&str, Option<Probe>)> = Vec::new();
        // Merging reads the updates that the check of the adapter replaces, so it comes first.
        if wanted.merged {
            let expected = self.divergences(&decoder, probe, &form, outcome)?;
            self.write_merged(MERGED, &mut decoder, &form)?;
            written.push((MERGED, expected));
        }
        if let Some(quantised) = &wanted.bnb_4bit {
            let form = MergedForm { quantised: Some(quantised.clone()), ..form };
            let expected = probe.merged(&decoder, self.base, &form, self.run_dir.path())?;
            outcome.divergences.push((BNB_4BIT, probe.divergence(&expected)));
            self.write_merged(BNB_4BIT, &mut decoder, &form)?;
            written.push((BNB_4BIT, Some(expected)));
        }
        if let (true, Adaptation::Adapter { spec, .. }) = (wanted.adapter, &self.plan.adaptation) {
            let folder = self.run_dir.join(ADAPTER);
            let dtype = wanted.dtype.unwrap_or(FloatDType::F32);
            let form = AdapterForm { spec, dtype };
            export::write_adapter(&folder, &mut decoder, form, self.base, self.companions, &(self.card)(true))?;
            outcome.exports.push((ADAPTER, probe.check_adapter(&mut decoder, &folder, dtype)?));
        }
        let device = decoder.device().clone();
        drop(decoder);
        let storage = Storage { quantised: None, ..self.plan.storage.clone() };
        for (name, expected) in written {
            let probe = expected.as_ref().unwrap_or(probe);
            outcome.exports.push((name, probe.check_merged(&self.run_dir.join(name), &storage, &device)?));
        }
        Ok(())
    }

    /// On a base in 4 bits, how far each way to merge is from what was trained; the logits of the one that is written.
    fn divergences(
        &self,
        decoder: &Decoder,
        probe: &Probe,
        form: &MergedForm,
        outcome: &mut Outcome,
    ) -> Result<Option<Probe>> {
        let mut chosen = None;
        for (name, base) in [("4bit", MergeBase::Quantised), ("16bit", MergeBase::Original)] {
            let possible = base == MergeBase::Quantised || self.plan.has_original_weights;
            if form.base.is_some() && possible {
                let form = MergedForm { base: Some(base), ..form.clone() };
                let merged = probe.merged(decoder, self.base, &form, self.run_dir.path())?;
                outcome.divergences.push((name, probe.divergence(&merged)));
                if self.plan.export.merge_base == Some(base) {
                    chosen = Some(merged);
                }
            }
        }
        Ok(chosen)
    }

    fn write_merged(&self, name: &str, decoder: &mut Decoder, form: &MergedForm) -> Result<()> {
        let folder = self.run_dir.join(name);
        Ok(export::write_merged(&folder, decoder, self.base, form, self.companions, &(self.card)(false))?)
    }
}
