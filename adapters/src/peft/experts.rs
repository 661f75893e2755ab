//! Stacks of experts as PEFT's `target_parameters` keeps them: two matrices for all experts of a layer,
//! A with the experts' rows one after the other and B with their columns interleaved.
//!
//! PEFT takes a tensor for `[experts, out, in]` unless its module says otherwise. Where the module does
//! not and the tensor is `[experts, in, out]`, its A acts on what we call B's side, transposed.

/// The keys of a stack's module: of the module that holds the parameter, with PEFT's wrappers.
///
/// Each targeted parameter of a module has a wrapper around those of the ones before it; `place` counts the
/// module's targeted parameters from 0, of `count` in all.
pub(super) fn key(name: &str, place: usize, count: usize) -> String {
    let module = name.rsplit_once('.').map_or(name, |(module, _)| module);
    format!("{module}{}", ".base_layer".repeat(count - 1 - place))
}

/// The layout of one stack's update in PEFT's two matrices.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    pub(super) experts: usize,
    pub(super) inputs: usize,
    pub(super) outputs: usize,
    pub(super) rank: usize,
    /// If set, inputs and outputs change places in PEFT.
    pub(super) swapped: bool,
}

impl Layout {
    /// Shapes of PEFT's A `[experts * rank, in]` and B `[out, rank * experts]`.
    pub(super) fn shapes(&self) -> [[usize; 2]; 2] {
        let (inputs, outputs) = if self.swapped { (self.outputs, self.inputs) } else { (self.inputs, self.outputs) };
        [[self.experts * self.rank, inputs], [outputs, self.rank * self.experts]]
    }

    /// Ours to PEFT's: `a: [experts, rank, in]` and `b: [experts, out, rank]` to A and B.
    pub(super) fn to_peft(self, a: &[f32], b: &[f32]) -> [Vec<f32>; 2] {
        match self.swapped {
            false => [a.to_vec(), self.interleave(b, self.outputs)],
            true => [
                self.transpose(b, self.outputs, self.rank),
                self.interleave(&self.transpose(a, self.rank, self.inputs), self.inputs),
            ],
        }
    }

    /// PEFT's A and B to ours.
    pub(super) fn to_ours(self, a: &[f32], b: &[f32]) -> [Vec<f32>; 2] {
        match self.swapped {
            false => [a.to_vec(), self.separate(b, self.outputs)],
            true => [
                self.transpose(&self.separate(b, self.inputs), self.inputs, self.rank),
                self.transpose(a, self.rank, self.outputs),
            ],
        }
    }

    /// `[experts, rows, rank]` to `[rows, rank * experts]`, the expert running fastest.
    fn interleave(&self, values: &[f32], rows: usize) -> Vec<f32> {
        let mut out = vec![0.0; values.len()];
        self.each(rows, |ours, peft| out[peft] = values[ours]);
        out
    }

    /// The inverse of [`Layout::interleave`].
    fn separate(&self, values: &[f32], rows: usize) -> Vec<f32> {
        let mut out = vec![0.0; values.len()];
        self.each(rows, |ours, peft| out[ours] = values[peft]);
        out
    }

    fn each(&self, rows: usize, mut place: impl FnMut(usize, usize)) {
        for expert in 0..self.experts {
            for row in 0..rows {
                for rank in 0..self.rank {
                    let ours = (expert * rows + row) * self.rank + rank;
                    place(ours, (row * self.rank + rank) * self.experts + expert);
                }
            }
        }
    }

    /// `[experts, rows, columns]` to `[experts, columns, rows]`.
    fn transpose(&self, values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
        let mut out = vec![0.0; values.len()];
        for (index, value) in values.iter().enumerate() {
            let (expert, row, column) = (index / (rows * columns), index / columns % rows, index % columns);
            out[(expert * columns + column) * rows + row] = *value;
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrappers_nest_in_the_order_of_the_parameters() {
        let name = "model.layers.0.mlp.experts.gate_up_proj";
        assert_eq!(key(name, 0, 2), "model.layers.0.mlp.experts.base_layer");
        assert_eq!(key("model.layers.0.mlp.experts.down_proj", 1, 2), "model.layers.0.mlp.experts");
        assert_eq!(key(name, 0, 1), "model.layers.0.mlp.experts");
    }

    #[test]
    fn an_update_goes_to_peft_and_back() {
        let (a, b): (Vec<f32>, Vec<f32>) =
            ((0..2 * 3 * 4).map(|x| x as f32).collect(), (0..2 * 5 * 3).map(|x| x as f32).collect());
        for swapped in [false, true] {
            let layout = Layout { experts: 2, inputs: 4, outputs: 5, rank: 3, swapped };
            let [peft_a, peft_b] = layout.to_peft(&a, &b);
            assert_eq!(layout.to_ours(&peft_a, &peft_b), [a.clone(), b.clone()]);
            // PEFT reshapes B to [out, rank, experts]: the first row's first rank of the second expert is its second value.
            let expected = if swapped { a[3 * 4] } else { b[5 * 3] };
            assert_eq!(peft_b[1], expected);
        }
    }
}
