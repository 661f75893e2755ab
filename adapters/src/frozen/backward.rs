//! The gradient of a product with a frozen matrix: the product from the other side; the packed matrix is all
//! that is kept for it.

use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind, unary};
use burn::backend::tensor::{FloatTensor, IntTensor};

use super::{FrozenProducts, Nf4Form, Side};

#[derive(Debug)]
struct Nf4Product;

impl<B: FrozenProducts> Backward<B, 1> for Nf4Product {
    type State = (IntTensor<B>, IntTensor<B>, FloatTensor<B>, Nf4Form, Side);

    fn backward(self, ops: Ops<Self::State, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let (codes, scale_codes, scale_values, form, side) = ops.state;
        unary::<B, _>(ops.parents, ops.node, gradients, |gradient| {
            B::nf4_product(gradient, codes, scale_codes, scale_values, form, side.other())
        });
    }
}

#[derive(Debug)]
struct HalfProduct;

impl<B: FrozenProducts> Backward<B, 1> for HalfProduct {
    type State = (FloatTensor<B>, Side);

    fn backward(self, ops: Ops<Self::State, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let (weight, side) = ops.state;
        unary::<B, _>(ops.parents, ops.node, gradients, |gradient| B::half_product(gradient, weight, side.other()));
    }
}

impl<B: FrozenProducts, C: CheckpointStrategy> FrozenProducts for Autodiff<B, C> {
    fn nf4_product(
        x: FloatTensor<Self>,
        codes: IntTensor<Self>,
        scale_codes: IntTensor<Self>,
        scale_values: FloatTensor<Self>,
        form: Nf4Form,
        side: Side,
    ) -> FloatTensor<Self> {
        let scale_values = scale_values.into_primitive();
        let (x, guard) = x.into_parts();
        match Nf4Product.prepare::<C>([guard]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => {
                let state = (codes.clone(), scale_codes.clone(), scale_values.clone(), form, side);
                prepared.finish(state, B::nf4_product(x, codes, scale_codes, scale_values, form, side))
            }
            OpsKind::UnTracked(prepared) => {
                prepared.finish(B::nf4_product(x, codes, scale_codes, scale_values, form, side))
            }
        }
    }

    fn half_product(x: FloatTensor<Self>, weight: FloatTensor<Self>, side: Side) -> FloatTensor<Self> {
        let weight = weight.into_primitive();
        let (x, guard) = x.into_parts();
        match HalfProduct.prepare::<C>([guard]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish((weight.clone(), side), B::half_product(x, weight, side)),
            OpsKind::UnTracked(prepared) => prepared.finish(B::half_product(x, weight, side)),
        }
    }
}
