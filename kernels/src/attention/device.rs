//! Attention on CubeCL devices: which way a device takes, how its work is cut, and the launches of the kernels.

mod blocks;
mod kernel;
mod row;
mod tile;

use burn::backend::TensorMetadata;
use burn::backend::cubecl::dtype_to_elem_type;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::tensor::DType;
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;
use cubecl::client::Client;
use cubecl::ir::{ElemType, FloatKind};
use cubecl::{CubeCount, CubeDim, calculate_cube_count_elemwise};

use self::kernel::{Gradient, Heads, LengthsLaunch};
use self::tile::Tiles;
use super::{AttentionBackend, AttentionMethod, Form, Gradients, Sizes, block_scores_bytes};
use crate::cube::{empty, gapless};

/// Ways to cut the work on a GPU, the best first: own rows, other rows, columns in shared memory at a time.
const CUTS: [[usize; 3]; 4] = [[64, 64, 16], [32, 64, 16], [32, 32, 16], [16, 32, 16]];
/// Units of a cube on a GPU.
const UNITS: [usize; 2] = [16, 8];
/// Numbers that a unit can hold as sums over other rows beside its products, in registers.
const REGISTERS: usize = 64;

impl Tiles {
    /// For sums over rows `dim` wide on the device of `client`.
    fn of(client: &Client, dim: usize) -> Self {
        let hardware = &client.properties().hardware;
        let [units_x, units_y] = UNITS;
        let cuts = CUTS.map(|[own, other, depth]| Self { units_x, units_y, own, other, depth, unrolled: true });
        let fits = |tiles: &Self| {
            tiles.own / units_y * dim.div_ceil(units_x) <= REGISTERS
                && tiles.shared_bytes() <= hardware.max_shared_memory_size
                && tiles.whole_rows(dim).is_some()
        };
        if hardware.max_units_per_cube as usize >= units_x * units_y {
            let smallest = cuts[cuts.len() - 1];
            return cuts.into_iter().find(fits).unwrap_or(smallest);
        }
        // The CPU, where a barrier between units costs more than what they share saves.
        Self { units_x: 1, units_y: 1, own: 8, other: 16, depth: 16, unrolled: false }
    }

    /// As [`Tiles::whole_rows`], where the cut was chosen for `dim`.
    fn rows_of(&self, dim: usize) -> usize {
        self.whole_rows(dim).expect("the shared memory for parts of rows holds one whole row")
    }

    fn cube_dim(&self) -> CubeDim {
        CubeDim::new_2d(self.units_x as u32, self.units_y as u32)
    }

    /// A cube for each tile of `length` tokens of each of `heads` and `rows`.
    fn cubes(&self, length: usize, heads: usize, rows: usize) -> CubeCount {
        CubeCount::Static(length.div_ceil(self.own) as u32, heads as u32, rows as u32)
    }
}

impl Sizes {
    fn heads(&self) -> Heads {
        let Self { heads, kv_heads, group, query_dim, value_dim, .. } = *self;
        Heads { heads, kv_heads, group, query_dim, value_dim }
    }

    fn lengths(&self, form: &Form) -> LengthsLaunch {
        let distinct = form.first.len() / self.width;
        LengthsLaunch::new(self.width as u32, self.keys as u32, form.past as u32, distinct as u32)
    }
}

/// Through the device's own products where it has matrix units for numbers of this type, or for shortened f32 (TF32),
/// in which burn's products of f32 are made there too.
fn way(query: &CubeTensor, form: &Form) -> AttentionMethod {
    let float = dtype_to_elem_type(query.dtype);
    let shortened = (query.dtype == DType::F32).then_some(ElemType::Float(FloatKind::TF32));
    let units = &query.client.properties().features.matmul;
    let has_units =
        units.cmma.iter().chain(&units.mma).any(|unit| unit.a_type == float || Some(unit.a_type) == shortened);
    let [rows, width, _, _] = query.shape().dims();
    let scores_bytes = block_scores_bytes(rows * width);
    form.way.unwrap_or(if has_units { AttentionMethod::Blocks { scores_bytes } } else { AttentionMethod::Tiles })
}

impl AttentionBackend for CubeBackend {
    fn attend(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        sinks: FloatTensor<Self>,
        first: IntTensor<Self>,
        form: Form,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let [query, key, value, sinks, first] = [query, key, value, sinks, first].map(gapless);
        let sizes = Sizes::of(&query, &key, &value);
        if let AttentionMethod::Blocks { scores_bytes } = way(&query, &form) {
            return blocks::forward([query, key, value], &sinks, &first, &form, sizes, scores_bytes);
        }
        let client = query.client.clone();
        let tiles = Tiles::of(&client, sizes.value_dim);
        let mixed = empty(&query, [sizes.rows * sizes.width, sizes.heads * sizes.value_dim], query.dtype);
        let log_sums = empty(&query, [sizes.rows * sizes.width, sizes.heads], DType::F32);
        kernel::forward::launch(
            &client,
            tiles.cubes(sizes.width, sizes.heads, sizes.rows),
            tiles.cube_dim(),
            query.clone().into_buffer_arg(),
            key.into_buffer_arg(),
            value.into_buffer_arg(),
            sinks.into_buffer_arg(),
            first.into_buffer_arg(),
            mixed.clone().into_buffer_arg(),
            log_sums.clone().into_buffer_arg(),
            form.scale,
            sizes.lengths(&form),
            sizes.heads(),
            tiles.rows_of(sizes.value_dim),
            tiles,
            dtype_to_elem_type(query.dtype),
        );
        (mixed, log_sums)
    }

    fn attend_back(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        mixed: FloatTensor<Self>,
        log_sums: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        first: IntTensor<Self>,
        form: Form,
    ) -> Gradients<Self> {
        let [query, key, value, mixed] = [query, key, value, mixed].map(gapless);
        let [log_sums, gradient, first] = [log_sums, gradient, first].map(gapless);
        let sizes = Sizes::of(&query, &key, &value);
        let row_sums = row_sums(&mixed, &gradient, sizes);
        if let AttentionMethod::Blocks { scores_bytes } = way(&query, &form) {
            let given =
                blocks::BackwardInputs { query, key, value, gradient, log_sums, row_sums: row_sums.clone(), first };
            let [to_query, to_key, to_value] = blocks::backward(given, &form, sizes, scores_bytes);
            return (to_query, to_key, to_value, row_sums);
        }
        let back = Back { query, key, value, gradient, log_sums, row_sums: row_sums.clone(), first, form, sizes };
        (back.to_query(), back.to_keys(Gradient::Key), back.to_keys(Gradient::Value), row_sums)
    }
}

/// Of each query and head, the sum of the products of the mix with its gradient, `[rows * width, heads]`.
fn row_sums(mixed: &CubeTensor, gradient: &CubeTensor, sizes: Sizes) -> CubeTensor {
    let client = mixed.client.clone();
    let out = empty(mixed, [sizes.rows * sizes.width, sizes.heads], DType::F32);
    let count = sizes.rows * sizes.width * sizes.heads;
    let cube_dim = CubeDim::new(&client, count);
    kernel::row_sums::launch(
        &client,
        calculate_cube_count_elemwise(&client, count, cube_dim),
        cube_dim,
        mixed.clone().into_buffer_arg(),
        gradient.clone().into_buffer_arg(),
        out.clone().into_buffer_arg(),
        count as u32,
        sizes.value_dim,
        dtype_to_elem_type(mixed.dtype),
    );
    out
}

/// The inputs of the backward kernels, without gaps.
struct Back {
    query: CubeTensor,
    key: CubeTensor,
    value: CubeTensor,
    gradient: CubeTensor,
    log_sums: CubeTensor,
    row_sums: CubeTensor,
    first: CubeTensor,
    form: Form,
    sizes: Sizes,
}

impl Back {
    fn to_query(&self) -> CubeTensor {
        let Sizes { rows, width, heads, query_dim, .. } = self.sizes;
        let client = self.query.client.clone();
        let tiles = Tiles::of(&client, query_dim);
        let out = empty(&self.query, [rows, width, heads, query_dim], self.query.dtype);
        kernel::to_query::launch(
            &client,
            tiles.cubes(width, heads, rows),
            tiles.cube_dim(),
            self.query.clone().into_buffer_arg(),
            self.key.clone().into_buffer_arg(),
            self.value.clone().into_buffer_arg(),
            self.gradient.clone().into_buffer_arg(),
            self.log_sums.clone().into_buffer_arg(),
            self.row_sums.clone().into_buffer_arg(),
            self.first.clone().into_buffer_arg(),
            out.clone().into_buffer_arg(),
            self.form.scale,
            self.sizes.lengths(&self.form),
            self.sizes.heads(),
            tiles.rows_of(query_dim),
            tiles,
            dtype_to_elem_type(self.query.dtype),
        );
        out
    }

    fn to_keys(&self, which: Gradient) -> CubeTensor {
        let Sizes { rows, keys, kv_heads, query_dim, value_dim, .. } = self.sizes;
        let client = self.query.client.clone();
        let dim = if which == Gradient::Key { query_dim } else { value_dim };
        let tiles = Tiles::of(&client, dim);
        let out = empty(&self.query, [rows, keys, kv_heads, dim], self.query.dtype);
        kernel::to_keys::launch(
            &client,
            tiles.cubes(keys, kv_heads, rows),
            tiles.cube_dim(),
            self.query.clone().into_buffer_arg(),
            self.key.clone().into_buffer_arg(),
            self.value.clone().into_buffer_arg(),
            self.gradient.clone().into_buffer_arg(),
            self.log_sums.clone().into_buffer_arg(),
            self.row_sums.clone().into_buffer_arg(),
            self.first.clone().into_buffer_arg(),
            out.clone().into_buffer_arg(),
            self.form.scale,
            self.sizes.lengths(&self.form),
            which,
            self.sizes.heads(),
            tiles.rows_of(dim),
            tiles,
            dtype_to_elem_type(self.query.dtype),
        );
        out
    }
}
