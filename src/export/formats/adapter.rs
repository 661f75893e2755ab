//! `adapter`: the updates alone, in the folder that PEFT reads.

use std::path::Path;

use adapters::{Adaptable, Parameter, peft};
use burn::tensor::FloatDType;

use super::{CardWords, Content, Expected, Format, NEEDS_ADAPTER, tune_generate};
use crate::export::{ExportError, Job};
use crate::model::{Decoder, DeviceFailure, names, stored_values};
use crate::open;

pub(super) const FORMAT: Format = Format {
    name: "adapter",
    description: "a PEFT adapter in safetensors, for PEFT, vLLM and other readers of PEFT folders",
    needs: &[NEEDS_ADAPTER],
    write_files: write,
    expected: |_, _, _| Ok(Expected::trained()),
    content: Content::Adapter(read),
    card: CardWords {
        library: "peft",
        load: "from peft import AutoPeftModelForCausalLM\nmodel = AutoPeftModelForCausalLM.from_pretrained(\"adapter\")\n",
    },
    command: tune_generate,
};

fn dtype(job: &Job) -> FloatDType {
    job.settings.dtype.unwrap_or(FloatDType::F32)
}

fn write(folder: &Path, decoder: &mut Decoder, job: &Job) -> Result<(), ExportError> {
    let spec = job.adapter.expect("the format needs an adapter");
    let reference = job.base.reference();
    let paths = names::module_paths(&decoder.spec);
    let origin = peft::Origin { base_model: &reference, revision: job.base.revision.as_deref(), paths };
    peft::write(folder, spec, &origin, &decoder.adaptable(), dtype(job))?;
    job.companions.write(job.base, folder, &(job.card)(&FORMAT))
}

fn read(folder: &Path, decoder: &mut Decoder, job: &Job) -> Result<FloatDType, ExportError> {
    let device = decoder.device().clone();
    let adaptable = decoder.adaptable();
    adaptable.projections.into_iter().for_each(|projection| projection.update = None);
    adaptable.stacks.into_iter().for_each(|stack| stack.update = None);
    // What the folder does not hold must not be left over from training.
    for (path, parameter) in adaptable.modules {
        if let Some(weights) = job.base.weights.as_ref().filter(|_| parameter.is_trainable()) {
            let values = stored_values(weights, &names::weight(&path))?;
            let stored = Parameter::from_host(values, parameter.shape(), FloatDType::F32, &device);
            parameter.replace(stored.plain());
        }
    }
    open::attach(decoder, folder, None).map_err(|error| ExportError::unusable(folder, error))?;
    if !changes_anything(&decoder.adaptable())? {
        return Err(ExportError::check(folder, "the adapter changes nothing: all of its products are zero"));
    }
    Ok(dtype(job))
}

/// True if any update is other than zero, or a module was trained as a whole.
fn changes_anything(decoder: &Adaptable) -> Result<bool, DeviceFailure> {
    let not_zero = |parameter: &Parameter| {
        let largest = parameter.plain().abs().max().try_into_scalar::<f32>().map_err(DeviceFailure::new)?;
        Ok(largest > 0.0)
    };
    for update in decoder.projections.iter().filter_map(|projection| projection.update.as_ref()) {
        let low_rank = update.low_rank();
        if not_zero(&low_rank.a)? && not_zero(&low_rank.b)? {
            return Ok(true);
        }
    }
    for update in decoder.stacks.iter().filter_map(|stack| stack.update.as_ref()) {
        if not_zero(&update.a)? && not_zero(&update.b)? {
            return Ok(true);
        }
    }
    Ok(decoder.modules.iter().any(|(_, parameter)| parameter.is_trainable()))
}
