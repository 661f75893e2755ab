//! `act(gate) * up` and its gradients on CubeCL devices, one vector a unit. All activations are `x sigmoid(z(x))`.

use burn::backend::TensorMetadata;
use burn::backend::cubecl::dtype_to_elem_type;
use burn::backend::tensor::FloatTensor;
use burn_cubecl::CubeBackend;
use cubecl::{CubeDim, calculate_cube_count_elemwise};

use super::{Activation, GatedBackend, GatedGradients};
use crate::rows::{Rows, like, vector_size};

/// The activation that a kernel is compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Silu,
    GeluTanh,
    ClampedSwish,
}

impl Activation {
    /// Its kind, its alpha and its limit.
    fn parts(self) -> (Kind, f32, f32) {
        match self {
            Activation::Silu => (Kind::Silu, 1.0, 0.0),
            Activation::GeluTanh => (Kind::GeluTanh, 1.0, 0.0),
            Activation::ClampedSwish { alpha, limit } => (Kind::ClampedSwish, alpha, limit),
        }
    }
}

mod launch {
    use cubecl::prelude::*;

    use super::Kind;
    use crate::gated::{GELU_CUBIC, GELU_FACTOR};

    /// The sigmoid's argument for `x`.
    #[cube]
    fn inner<N: Size>(x: Vector<f32, N>, alpha: f32, #[comptime] kind: Kind) -> Vector<f32, N> {
        match kind {
            Kind::Silu => x,
            Kind::ClampedSwish => x * Vector::new(alpha),
            // 1 + tanh(u) = 2 sigmoid(2 u).
            Kind::GeluTanh => Vector::new(2.0f32 * GELU_FACTOR) * (x + Vector::new(GELU_CUBIC.runtime()) * x * x * x),
        }
    }

    /// Its derivative.
    #[cube]
    fn slope<N: Size>(x: Vector<f32, N>, alpha: f32, #[comptime] kind: Kind) -> Vector<f32, N> {
        match kind {
            Kind::Silu => Vector::new(1.0f32),
            Kind::ClampedSwish => Vector::new(alpha),
            Kind::GeluTanh => {
                Vector::new(2.0f32 * GELU_FACTOR) * (Vector::new(1.0f32) + Vector::new(3.0f32 * GELU_CUBIC) * x * x)
            }
        }
    }

    #[cube]
    fn sigmoid<N: Size>(x: Vector<f32, N>) -> Vector<f32, N> {
        let one = Vector::<f32, N>::new(1.0f32);
        one / (one + (Vector::<f32, N>::new(0.0f32) - x).exp())
    }

    #[cube(launch)]
    pub(super) fn gated<F: Float, N: Size>(
        gate: &[Vector<F, N>],
        up: &[Vector<F, N>],
        out: &mut [Vector<F, N>],
        vectors: usize,
        gate_stride: usize,
        up_stride: usize,
        alpha: f32,
        limit: f32,
        #[comptime] kind: Kind,
        #[define(F)] _dtype: ElemType,
    ) {
        if ABSOLUTE_POS >= out.len() {
            terminate!();
        }
        let (row, place) = (ABSOLUTE_POS / vectors, ABSOLUTE_POS % vectors);
        let mut gate = Vector::<f32, N>::cast_from(gate[row * gate_stride + place]);
        let mut up = Vector::<f32, N>::cast_from(up[row * up_stride + place]);
        if comptime!(kind == Kind::ClampedSwish) {
            let limit = Vector::<f32, N>::new(limit);
            gate = min(gate, limit);
            up = max(min(up, limit), Vector::<f32, N>::new(0.0f32) - limit) + Vector::<f32, N>::new(1.0f32);
        }
        out[ABSOLUTE_POS] = Vector::<F, N>::cast_from(gate * sigmoid::<N>(inner::<N>(gate, alpha, kind)) * up);
    }

    #[cube(launch)]
    pub(super) fn gradients<F: Float, N: Size>(
        gate: &[Vector<F, N>],
        up: &[Vector<F, N>],
        gradient: &[Vector<F, N>],
        to_gate: &mut [Vector<F, N>],
        to_up: &mut [Vector<F, N>],
        vectors: usize,
        gate_stride: usize,
        up_stride: usize,
        gradient_stride: usize,
        alpha: f32,
        limit: f32,
        #[comptime] kind: Kind,
        #[define(F)] _dtype: ElemType,
    ) {
        if ABSOLUTE_POS >= to_gate.len() {
            terminate!();
        }
        let (row, place) = (ABSOLUTE_POS / vectors, ABSOLUTE_POS % vectors);
        let mut gate = Vector::<f32, N>::cast_from(gate[row * gate_stride + place]);
        let mut up = Vector::<f32, N>::cast_from(up[row * up_stride + place]);
        let gradient = Vector::<f32, N>::cast_from(gradient[row * gradient_stride + place]);
        let mut through_gate = gradient;
        let mut through_up = gradient;
        if comptime!(kind == Kind::ClampedSwish) {
            // Where a clamp acts, nothing comes through.
            #[unroll]
            for component in 0..N::value() {
                if gate.extract(component) > limit {
                    gate.insert(component, limit);
                    through_gate.insert(component, 0.0f32);
                }
                if up.extract(component) > limit {
                    up.insert(component, limit);
                    through_up.insert(component, 0.0f32);
                } else if up.extract(component) < -limit {
                    up.insert(component, -limit);
                    through_up.insert(component, 0.0f32);
                }
            }
            up += Vector::<f32, N>::new(1.0f32);
        }
        let one = Vector::<f32, N>::new(1.0f32);
        let open = sigmoid::<N>(inner::<N>(gate, alpha, kind));
        to_up[ABSOLUTE_POS] = Vector::<F, N>::cast_from(through_up * gate * open);
        let derivative = open * (one + gate * (one - open) * slope::<N>(gate, alpha, kind));
        to_gate[ABSOLUTE_POS] = Vector::<F, N>::cast_from(through_gate * up * derivative);
    }
}

impl GatedBackend for CubeBackend {
    fn gated(gate: FloatTensor<Self>, up: FloatTensor<Self>, activation: Activation) -> FloatTensor<Self> {
        let (gate, up) = (Rows::of(gate), Rows::of(up));
        let client = gate.tensor.client.clone();
        let out = like(&gate.tensor);
        if gate.count == 0 {
            return out;
        }
        let size = vector_size(&client, out.elem_size(), &[gate.length, gate.stride, up.stride]);
        let (vectors, strides) = (gate.length / size, [gate.stride, up.stride].map(|stride| stride / size));
        let units = out.shape().num_elements() / size;
        let dim = CubeDim::new(&client, units);
        let (kind, alpha, limit) = activation.parts();
        launch::gated::launch(
            &client,
            calculate_cube_count_elemwise(&client, units, dim),
            dim,
            size,
            gate.into_arg(),
            up.into_arg(),
            out.clone().into_buffer_arg(),
            vectors,
            strides[0],
            strides[1],
            alpha,
            limit,
            kind,
            dtype_to_elem_type(out.dtype),
        );
        out
    }
}

impl GatedGradients for CubeBackend {
    fn gated_gradients(
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        activation: Activation,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let (gate, up, gradient) = (Rows::of(gate), Rows::of(up), Rows::of(gradient));
        let client = gate.tensor.client.clone();
        let (to_gate, to_up) = (like(&gate.tensor), like(&gate.tensor));
        if gate.count == 0 {
            return (to_gate, to_up);
        }
        let strides = [gate.stride, up.stride, gradient.stride];
        let size = vector_size(&client, to_up.elem_size(), &[[gate.length].as_slice(), &strides].concat());
        let (vectors, strides) = (gate.length / size, strides.map(|stride| stride / size));
        let units = to_up.shape().num_elements() / size;
        let dim = CubeDim::new(&client, units);
        let (kind, alpha, limit) = activation.parts();
        launch::gradients::launch(
            &client,
            calculate_cube_count_elemwise(&client, units, dim),
            dim,
            size,
            gate.into_arg(),
            up.into_arg(),
            gradient.into_arg(),
            to_gate.clone().into_buffer_arg(),
            to_up.clone().into_buffer_arg(),
            vectors,
            strides[0],
            strides[1],
            strides[2],
            alpha,
            limit,
            kind,
            dtype_to_elem_type(to_up.dtype),
        );
        (to_gate, to_up)
    }
}
