//! What an adapter makes of a weight, and in which form that is written.

use adapters::nf4::{Nf4, Nf4Weight};
use adapters::{Parameter, Projection, Weight};
use burn::tensor::{Device, FloatDType, Tensor};

use crate::hub::{BaseModel, HubError};
use crate::model::{Quantised, names, stored_values};

/// Into which weights an adapter on a 4-bit base is merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MergeBase {
    /// Those of the checkpoint, before they were quantised.
    Original,
    /// What the 4-bit codes stand for: the weights that training saw.
    Quantised,
}

/// How a whole checkpoint is written.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MergedForm {
    /// Type of the written numbers; the base's own if unset.
    pub dtype: Option<FloatDType>,
    /// Into which weights an adapter is merged; into those that it was trained on if unset.
    pub base: Option<MergeBase>,
    /// Which merged weights become 4-bit codes.
    pub quantised: Option<Quantised>,
}

impl MergedForm {
    /// The merged weight of `projection` in f32, before it is written in another type.
    ///
    /// # Errors
    /// When the base's own weight cannot be read.
    pub(super) fn merged(&self, projection: &Projection, base: &BaseModel) -> Result<Tensor<2>, HubError> {
        let (Some(MergeBase::Original), Some(weights)) = (self.base, &base.weights) else {
            return Ok(projection.merged_weight());
        };
        let name = names::weight(projection.name());
        let sizes = [projection.outputs(), projection.inputs()];
        let values = stored_values(weights, &name)?;
        weights.release(&name);
        let weight = Parameter::from_host(values, &sizes, FloatDType::F32, &device(projection));
        Ok(projection.merged_into(&Weight::Dense(weight)))
    }

    /// Puts into `projection` what [`MergedForm::merged`] gives it, in type `written` or as codes, and takes its update away.
    ///
    /// # Errors
    /// As [`MergedForm::merged`], or when the device fails.
    pub(super) fn apply(
        &self,
        projection: &mut Projection,
        base: &BaseModel,
        written: FloatDType,
    ) -> Result<(), HubError> {
        let sizes = [projection.outputs(), projection.inputs()];
        let merged = self.merged(projection, base)?.cast(written);
        projection.weight = match &self.quantised {
            Some(quantised) if quantised.takes(projection.name(), projection.role()) => {
                let values = merged.cast(FloatDType::F32).into_data().try_to_vec::<f32>().expect("cast to f32");
                let packed = Nf4::quantise(&values, quantised.spec.double, written);
                Weight::Nf4(Nf4Weight::new(&packed, sizes, &device(projection)))
            }
            _ => Weight::Dense(Parameter::from_matrix(merged)),
        };
        projection.update = None;
        Ok(())
    }
}

/// Where a projection's weight is.
fn device(projection: &Projection) -> Device {
    projection.weight.device()
}
