//! A saved adapter, put on the decoder that it was made for.

use std::collections::BTreeSet;

use burn::tensor::Device;

use super::{PeftError, SavedAdapter};
use crate::attach::Adaptable;
use crate::dora::Dora;
use crate::projection::Update;

/// Puts a saved adapter on what it was made for.
///
/// # Errors
/// When it holds tensors for modules that are not there or whose shape differs.
pub fn attach_saved(saved: &SavedAdapter, decoder: Adaptable, device: &Device) -> Result<(), PeftError> {
    let Adaptable { projections, stacks, modules } = decoder;
    let mut unused: BTreeSet<String> = saved.targets();
    for projection in projections {
        if unused.remove(projection.name()) {
            let (inputs, outputs) = (projection.inputs(), projection.outputs());
            let low_rank = saved.low_rank(projection.name(), inputs, outputs, device)?;
            projection.update = Some(match saved.magnitude(projection.name(), outputs, device)? {
                Some(magnitude) => {
                    Update::Dora(Box::new(Dora::with_magnitude(low_rank, magnitude, &projection.weight)))
                }
                None => Update::LowRank(Box::new(low_rank)),
            });
        }
    }
    for stack in stacks {
        if unused.remove(stack.name()) {
            stack.update = Some(saved.stack_update(stack.name(), stack.sizes(), stack.is_swapped(), device)?);
        }
    }
    for (path, parameter) in modules {
        if unused.remove(&path) {
            let value = saved.module(&path, parameter, device)?;
            parameter.train();
            parameter.replace(value);
        }
    }
    match unused.into_iter().next() {
        Some(module) => Err(PeftError::UnknownModule { module, folder: saved.folder.clone() }),
        None => Ok(()),
    }
}
