//! The weights of the trained model with its updates merged, one tensor at a time, and the forms they are written in.

use std::collections::BTreeMap;

use adapters::{ExpertStack, Parameter, Projection, Weight};
use burn::tensor::{Device, FloatDType, Tensor};
use safetensors::tensor::Dtype;
use serde_json::Value;

use super::{ExportError, ExportSettings};
use crate::hub::{self, BaseModel, HubError};
use crate::model::{Decoder, Quantised, names, stored_values};

/// The weights that an adapter on a 4-bit base is merged into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MergeBase {
    /// Those of the checkpoint, before they were quantised.
    Original,
    /// The values of the 4-bit codes: the weights that training saw.
    Quantised,
}

/// The form in which a whole checkpoint is written.
#[derive(Debug, Clone, Default)]
pub struct MergedForm {
    /// Type of the written numbers; the base's own if unset.
    pub dtype: Option<FloatDType>,
    /// The weights that an adapter is merged into; those that it was trained on if unset.
    pub base: Option<MergeBase>,
    /// The packing of merged weights into fewer bits; none if unset.
    pub packing: Option<Packing>,
    /// Positions that the configuration promises, if they are more than the base's.
    pub positions: Option<usize>,
}

/// A way to store linear maps in fewer bits than numbers take.
#[derive(Debug, Clone)]
pub struct Packing {
    /// The linear maps that are packed, and the details of the code.
    pub quantised: Quantised,
    /// The tensors that a weight of these values, this shape and this type becomes.
    pub tensors: fn(&Quantised, &[f32], &[usize], FloatDType) -> Vec<PackedTensor>,
    /// The weight that a reader of those tensors computes with.
    pub weight: fn(&Quantised, &[f32], [usize; 2], FloatDType, &Device) -> Weight,
    /// `quantization_config` of `config.json`, for numbers of this type and the head of this name.
    pub config: fn(&Quantised, FloatDType, &str) -> Value,
}

/// One of the tensors that a packed weight becomes.
#[derive(Debug, Clone)]
pub struct PackedTensor {
    /// The end of its name, after that of the weight.
    pub suffix: &'static str,
    /// Type of its elements.
    pub dtype: Dtype,
    /// Sizes.
    pub shape: Vec<usize>,
    /// Little endian.
    pub bytes: Vec<u8>,
}

impl MergedForm {
    /// The form that `settings` ask for, without packing.
    pub fn of(settings: &ExportSettings) -> Self {
        Self { dtype: settings.dtype, base: settings.merge_base, packing: None, positions: settings.positions }
    }

    /// The merged weight of `projection` in f32, before it is written in another type.
    fn merged(&self, projection: &Projection, base: &BaseModel) -> Result<Tensor<2>, HubError> {
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

    /// Replaces the weight of `projection` by the merged one, in type `written` or packed, and removes its update.
    ///
    /// # Errors
    /// When the base's own weight cannot be read.
    pub(super) fn apply(
        &self,
        projection: &mut Projection,
        base: &BaseModel,
        written: FloatDType,
    ) -> Result<(), HubError> {
        let sizes = [projection.outputs(), projection.inputs()];
        let merged = self.merged(projection, base)?.cast(written);
        projection.weight = match &self.packing {
            Some(packing) if packing.quantised.takes(projection.name(), projection.role()) => {
                let values = merged.cast(FloatDType::F32).into_data().try_to_vec::<f32>().expect("cast to f32");
                (packing.weight)(&packing.quantised, &values, sizes, written, &device(projection))
            }
            _ => Weight::Dense(Parameter::from_matrix(merged)),
        };
        projection.update = None;
        Ok(())
    }
}

/// Lets a configuration promise `positions`, as Axolotl does for a longer `sequence_len`.
pub fn raise_positions(config: &mut Value, positions: usize) {
    const KEY: &str = "max_position_embeddings";
    let is_nested = config.get(KEY).is_none() && config["text_config"].get(KEY).is_some();
    let object = if is_nested { &mut config["text_config"] } else { config };
    object[KEY] = positions.into();
}

fn device(projection: &Projection) -> Device {
    projection.weight.device()
}

/// All tensors of the trained model by their names in the base's checkpoint, computed one at a time.
pub(super) struct MergedTensors<'a> {
    /// The tensors that differ from the base's files; all where there are no files.
    changed: BTreeMap<String, Changed<'a>>,
    base: &'a BaseModel,
    form: &'a MergedForm,
}

/// A tensor that differs from the base's files.
enum Changed<'a> {
    /// A value, flat, and its shape.
    Value(Box<Tensor<1>>, Vec<usize>),
    /// A weight that an update is merged into when it is written, or that was quantised for training.
    Projection(&'a Projection),
    /// The same for the experts of a layer.
    Stack(&'a ExpertStack),
}

impl<'a> MergedTensors<'a> {
    /// The tensors of `decoder`, which was trained from `base`, merged as `form` says.
    pub(super) fn of(decoder: &'a mut Decoder, base: &'a BaseModel, form: &'a MergedForm) -> Self {
        let all = base.weights.is_none();
        let mut changed = BTreeMap::new();
        decoder.visit(&mut |name, parameter| {
            // Adapter matrices are no tensors of the checkpoint; their effect comes with the merged weights.
            let is_new = base.weights.as_ref().is_some_and(|weights| weights.info(name).is_none());
            if (all || parameter.is_trainable() || is_new) && !names::is_adapter(name) {
                let shape = parameter.shape().to_vec();
                changed.insert(name.to_owned(), Changed::Value(Box::new(parameter.plain()), shape));
            }
        });
        let adaptable = decoder.adaptable();
        for projection in adaptable.projections {
            let was_quantised = matches!(projection.weight, Weight::Nf4(_)) && form.base == Some(MergeBase::Quantised);
            if projection.update.is_some() || was_quantised {
                changed.insert(names::weight(projection.name()), Changed::Projection(projection));
            }
        }
        for stack in adaptable.stacks.into_iter().filter(|stack| stack.update.is_some()) {
            changed.insert(stack.name().to_owned(), Changed::Stack(stack));
        }
        Self { changed, base, form }
    }

    /// The sizes of a tensor.
    pub(super) fn shape(&self, name: &str) -> Vec<usize> {
        match self.base.weights.as_ref().and_then(|weights| weights.info(name)) {
            Some(info) => info.shape.clone(),
            None => self.changed[name].shape(),
        }
    }

    /// The bytes of a tensor in the base's files, if it is as they have it.
    pub(super) fn stored_bytes(&self, name: &str) -> Option<Result<&[u8], HubError>> {
        let weights = self.base.weights.as_ref()?;
        (!self.changed.contains_key(name)).then(|| weights.bytes(name))
    }

    /// The values of a tensor.
    ///
    /// # Errors
    /// When the base's files cannot be read, the device fails, or a trained value is not finite.
    pub(super) fn values(&self, name: &str) -> Result<Vec<f32>, ExportError> {
        let Some(changed) = self.changed.get(name) else {
            return match &self.base.weights {
                Some(weights) => Ok(stored_values(weights, name)?),
                None => Ok(Vec::new()),
            };
        };
        let data = changed.value(self.base, self.form)?.cast(FloatDType::F32).try_into_data();
        let values = data
            .map_err(|error| format!("{error:?}"))
            .and_then(|data| data.try_to_vec::<f32>().map_err(|error| format!("{error:?}")));
        let values = values.map_err(|reason| ExportError::Content { path: name.into(), reason })?;
        match hub::find_non_finite(&values) {
            None => Ok(values),
            Some(_) => Err(ExportError::NotFinite { tensor: name.to_owned() }),
        }
    }
}

impl Changed<'_> {
    fn shape(&self) -> Vec<usize> {
        match self {
            Self::Value(_, shape) => shape.clone(),
            Self::Projection(projection) => vec![projection.outputs(), projection.inputs()],
            Self::Stack(stack) => stack.sizes().to_vec(),
        }
    }

    fn value(&self, base: &BaseModel, form: &MergedForm) -> Result<Tensor<1>, ExportError> {
        Ok(match self {
            Self::Value(value, _) => value.as_ref().clone(),
            Self::Projection(projection) => form.merged(projection, base)?.reshape([-1]),
            Self::Stack(stack) => stack.merged_weight().reshape([-1]),
        })
    }
}
