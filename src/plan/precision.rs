//! The type that a run computes in, decided here alone: bf16 on CUDA, f32 elsewhere, f16 where the recipe asks for it.
//!
//! That is the type of frozen weights, activations and matrix products. Whatever it is, trained tensors, their
//! gradients and the optimizer are f32, and so are norms, softmax, loss and sums.

use anyhow::Result;

use crate::device::{FloatDType, Hardware, OpenDevice};
use crate::hint::hinted;
use crate::recipe::{Recipe, Setting, Toggle};

/// The type of frozen weights and activations.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Precision {
    /// The type.
    pub compute: FloatDType,
    /// The reason for it.
    pub reason: &'static str,
    /// Set if products of f32 matrices are made in TF32, with 10 bits after the point.
    pub tf32: bool,
}

/// A key of the recipe that chooses a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Bf16,
    Fp16,
    Tf32,
}

impl Key {
    /// The key's value and name.
    fn of(self, recipe: &Recipe) -> (&Setting<Option<Toggle>>, &'static str) {
        match self {
            Self::Bf16 => (&recipe.bf16, "bf16"),
            Self::Fp16 => (&recipe.fp16, "fp16"),
            Self::Tf32 => (&recipe.tf32, "tf32"),
        }
    }
}

/// The types that a recipe asks for.
#[derive(Debug, Clone, Copy, Default)]
struct Asked {
    bf16: Option<Toggle>,
    fp16: Option<Toggle>,
    tf32: Option<Toggle>,
}

/// The types that a device calculates with.
#[derive(Debug, Clone, Copy)]
struct Able {
    hardware: Hardware,
    bf16: bool,
    f16: bool,
    /// Set if its products in f16 may be wrong.
    wrong_f16: bool,
}

/// A key that cannot be honoured on a device.
#[derive(Debug, PartialEq, Eq)]
struct Refusal {
    key: Key,
    value: bool,
    problem: &'static str,
    hint: &'static str,
}

impl Precision {
    /// Decides what `bf16`, `fp16` and `tf32` mean on `device`, for a model that has routers or not: these are always in f32.
    ///
    /// # Errors
    /// If the device cannot do what is asked for.
    pub fn resolve(recipe: &Recipe, device: &OpenDevice, routers: bool) -> Result<Self> {
        let asked = Asked { bf16: *recipe.bf16, fp16: *recipe.fp16, tf32: *recipe.tf32 };
        let able = Able {
            hardware: device.hardware,
            bf16: device.supports(FloatDType::BF16),
            f16: device.supports(FloatDType::F16),
            wrong_f16: device.breaks_matrix_units(),
        };
        decide(asked, able, routers).map_err(|Refusal { key, value, problem, hint }| {
            let (setting, name) = key.of(recipe);
            hinted(format!("{}: `{name}: {value}` {problem} on {}", setting.place(), device.name), hint).into()
        })
    }

    /// Bytes of one value.
    pub fn bytes(&self) -> u64 {
        match self.compute {
            FloatDType::BF16 | FloatDType::F16 => 2,
            _ => 4,
        }
    }

    /// The type's name.
    pub fn name(&self) -> &'static str {
        match self.compute {
            FloatDType::BF16 => "bf16",
            FloatDType::F16 => "f16",
            _ => "f32",
        }
    }
}

fn decide(asked: Asked, able: Able, routers: bool) -> Result<Precision, Refusal> {
    use FloatDType::{BF16, F16, F32};
    let refuse = |key, value, problem, hint| Err(Refusal { key, value, problem, hint });
    let cuda = able.hardware == Hardware::Cuda;
    let (compute, reason) = match (asked.bf16, asked.fp16) {
        (Some(Toggle::True), Some(Toggle::True)) => {
            return refuse(Key::Fp16, true, "contradicts bf16: true", "keep one of the two");
        }
        (Some(Toggle::True), _) if !able.bf16 => {
            return refuse(Key::Bf16, true, "is not possible: there is no bf16 arithmetic", without_bf16(able));
        }
        (Some(Toggle::True), _) => (BF16, "bf16: true"),
        (_, Some(Toggle::True)) if !able.f16 => {
            return refuse(
                Key::Fp16,
                true,
                "is not possible: there is no f16 arithmetic",
                "leave it out: f32 works there",
            );
        }
        (_, Some(Toggle::True)) if able.wrong_f16 => {
            return refuse(
                Key::Fp16,
                true,
                "is refused: products in f16 may be wrong",
                "leave it out, or take a build without the feature vulkan: software Vulkan breaks matrix units",
            );
        }
        (_, Some(Toggle::True)) => (F16, "fp16: true"),
        (Some(Toggle::False), _) => (F32, "bf16: false"),
        _ if cuda && able.bf16 => (BF16, "the device computes in bf16"),
        _ => (F32, unasked(able)),
    };
    // What routers choose must not hang on the last bits, so their products are f32 in any case.
    if cuda && asked.tf32 == Some(Toggle::False) && (compute == F32 || routers) {
        return refuse(
            Key::Tf32,
            false,
            "cannot be kept: f32 products run on tensor cores",
            "leave tf32 out; in bf16 nothing but a router's product is f32",
        );
    }
    Ok(Precision { compute, reason, tf32: cuda })
}

fn without_bf16(able: Able) -> &'static str {
    if able.f16 {
        "set bf16: auto to compute in f32 there, or fp16: true to compute in f16"
    } else {
        "set bf16: auto to compute in f32 there"
    }
}

/// The reason why nothing shorter than f32 is chosen by default.
fn unasked(able: Able) -> &'static str {
    match able.hardware {
        // Products in 16 bits are f32 products there, between conversions of both matrices.
        Hardware::Cpu => "the CPU computes best in f32",
        Hardware::Software => "a device in software computes best in f32",
        Hardware::Cuda | Hardware::Gpu if able.f16 => "fp16: true computes in f16",
        Hardware::Cuda | Hardware::Gpu => "the device has no 16-bit arithmetic",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CUDA: Able = Able { hardware: Hardware::Cuda, bf16: true, f16: true, wrong_f16: false };
    const VULKAN: Able = Able { hardware: Hardware::Gpu, bf16: false, f16: true, wrong_f16: false };
    const WEBGPU: Able = Able { hardware: Hardware::Gpu, bf16: false, f16: false, wrong_f16: false };
    const METAL: Able = Able { hardware: Hardware::Gpu, bf16: true, f16: true, wrong_f16: false };
    const SOFTWARE: Able = Able { hardware: Hardware::Software, bf16: true, f16: true, wrong_f16: false };
    const CPU: Able = Able { hardware: Hardware::Cpu, bf16: true, f16: true, wrong_f16: false };

    fn compute(asked: Asked, able: Able) -> FloatDType {
        decide(asked, able, false).expect("the device can").compute
    }

    fn refused(asked: Asked, able: Able, routers: bool) -> Key {
        decide(asked, able, routers).expect_err("the device cannot").key
    }

    #[test]
    fn bf16_is_taken_unasked_on_cuda_alone() {
        let auto = Asked { bf16: Some(Toggle::Auto), fp16: Some(Toggle::Auto), tf32: Some(Toggle::Auto) };
        for asked in [Asked::default(), auto] {
            assert_eq!(compute(asked, CUDA), FloatDType::BF16);
            for other in [VULKAN, WEBGPU, METAL, SOFTWARE, CPU, Able { bf16: false, ..CUDA }] {
                assert_eq!(compute(asked, other), FloatDType::F32, "{other:?}");
            }
        }
        assert_eq!(compute(Asked { bf16: Some(Toggle::False), ..Asked::default() }, CUDA), FloatDType::F32);
        assert_eq!(compute(Asked { bf16: Some(Toggle::True), ..Asked::default() }, METAL), FloatDType::BF16);
    }

    #[test]
    fn f16_is_taken_where_it_is_asked_for_and_there() {
        let asked = Asked { fp16: Some(Toggle::True), ..Asked::default() };
        for able in [CUDA, VULKAN, METAL, CPU] {
            assert_eq!(compute(asked, able), FloatDType::F16, "{able:?}");
        }
        assert_eq!(compute(Asked { bf16: Some(Toggle::Auto), ..asked }, CUDA), FloatDType::F16);
        assert_eq!(refused(asked, WEBGPU, false), Key::Fp16);
        assert_eq!(compute(asked, SOFTWARE), FloatDType::F16);
        let wrong = Able { wrong_f16: true, ..SOFTWARE };
        assert_eq!(refused(asked, wrong, false), Key::Fp16);
        assert_eq!(compute(Asked { bf16: Some(Toggle::True), ..Asked::default() }, wrong), FloatDType::BF16);
        assert_eq!(refused(Asked { bf16: Some(Toggle::True), ..asked }, CUDA, false), Key::Fp16);
        assert_eq!(refused(Asked { bf16: Some(Toggle::True), ..Asked::default() }, VULKAN, false), Key::Bf16);
    }

    #[test]
    fn tf32_false_is_kept_where_no_product_is_in_f32_on_tensor_cores() {
        let asked = Asked { tf32: Some(Toggle::False), ..Asked::default() };
        assert_eq!(compute(asked, CUDA), FloatDType::BF16);
        assert_eq!(compute(asked, VULKAN), FloatDType::F32);
        assert_eq!(refused(asked, CUDA, true), Key::Tf32);
        assert_eq!(refused(Asked { bf16: Some(Toggle::False), ..asked }, CUDA, false), Key::Tf32);
    }
}
