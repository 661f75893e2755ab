//! Operations on any number of vectors of a CubeCL device at a time ("multi-tensor apply"): to fusion's queue each is one entry, whatever it
//! launches.

use std::fmt;
use std::sync::Arc;

use burn::backend::ExecutionError;
use burn::backend::fusion::custom::{CustomOpIr, HandleContainer, Operation, OperationIr, StreamId, TensorIr};
use burn::backend::fusion::{Fusion, FusionBackend, FusionRuntime, FusionTensor};
use burn::tensor::{DType, Int, Tensor};
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;

type CubeFusion = <CubeBackend as FusionBackend>::FusionRuntime;
type Run = dyn Fn(Vec<CubeTensor>) -> Vec<CubeTensor> + Send + Sync;

/// A vector of either kind.
pub(crate) enum Vector {
    /// Of floats.
    Float(Tensor<1>),
    /// Of integers.
    Int(Tensor<1, Int>),
}

impl Vector {
    /// The floats.
    pub(crate) fn float(self) -> Tensor<1> {
        match self {
            Self::Float(tensor) => tensor,
            Self::Int(_) => unreachable!("an operation's results come in the types that it was asked for"),
        }
    }

    /// The integers.
    pub(crate) fn int(self) -> Tensor<1, Int> {
        match self {
            Self::Int(tensor) => tensor,
            Self::Float(_) => unreachable!("an operation's results come in the types that it was asked for"),
        }
    }
}

/// Runs `run` on `inputs`, outside autodiff, once the device comes to it, and returns vectors of those lengths and types. An
/// input that nothing else holds may be written to.
pub(crate) fn apply(
    name: &str,
    inputs: Vec<Vector>,
    outputs: &[(usize, DType)],
    run: impl Fn(Vec<CubeTensor>) -> Vec<CubeTensor> + Send + Sync + 'static,
) -> Vec<Vector> {
    const HERE: &str = "the tensor is on a CubeCL device, outside autodiff";
    let primitive = |input| match input {
        Vector::Float(tensor) => tensor.try_into_primitive::<Fusion<CubeBackend>>().expect(HERE),
        Vector::Int(tensor) => tensor.try_into_primitive::<Fusion<CubeBackend>>().expect(HERE),
    };
    let inputs: Vec<_> = inputs.into_iter().map(primitive).collect();
    let Some(client) = inputs.first().map(|input| input.client.clone()) else { return Vec::new() };
    let inputs: Vec<TensorIr> = inputs.into_iter().map(|input| input.into_ir()).collect();
    let output =
        |&(length, dtype): &(usize, DType)| TensorIr::uninit(client.create_empty_handle(), [length].into(), dtype);
    let outputs: Vec<TensorIr> = outputs.iter().map(output).collect();
    let operation = MultiTensor { inputs: inputs.clone(), outputs: outputs.clone(), run: Arc::new(run) };
    let description = CustomOpIr { id: name.to_owned(), inputs, outputs, scalars: Vec::new() };
    let outputs = client.register(StreamId::current(), OperationIr::Custom(description), operation);
    let wrap = |output: FusionTensor<CubeFusion>| match output.dtype.is_float() {
        true => Vector::Float(Tensor::from_primitive::<Fusion<CubeBackend>>(output)),
        false => Vector::Int(Tensor::from_primitive::<Fusion<CubeBackend>>(output)),
    };
    outputs.into_iter().map(wrap).collect()
}

struct MultiTensor {
    inputs: Vec<TensorIr>,
    outputs: Vec<TensorIr>,
    run: Arc<Run>,
}

impl fmt::Debug for MultiTensor {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "an operation on {} tensors", self.inputs.len())
    }
}

impl Operation<CubeFusion> for MultiTensor {
    fn execute(
        &self,
        handles: &mut HandleContainer<<CubeFusion as FusionRuntime>::FusionHandle>,
    ) -> Result<(), ExecutionError> {
        let mut take = |input: &TensorIr| match input.dtype.is_float() {
            true => handles.get_float_tensor::<CubeBackend>(input),
            false => handles.get_int_tensor::<CubeBackend>(input),
        };
        let inputs = self.inputs.iter().map(&mut take).collect();
        for (output, tensor) in self.outputs.iter().zip((self.run)(inputs)) {
            match output.dtype.is_float() {
                true => handles.register_float_tensor::<CubeBackend>(&output.id, tensor),
                false => handles.register_int_tensor::<CubeBackend>(&output.id, tensor),
            }
        }
        Ok(())
    }
}
