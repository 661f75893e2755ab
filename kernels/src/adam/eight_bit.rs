//! Steps of Adam on CubeCL devices with both moments in 8 bits a value (Dettmers et al. 2022, arXiv:2110.02861), one
//! launch a parameter: moments are decoded, updated and encoded again without ever being in memory in f32.

#[cfg(feature = "cube")]
mod kernel;

use burn::tensor::{Int, Tensor};

use super::AdamStep;

/// A moment in 8 bits a value.
#[derive(Debug, Clone)]
pub struct EightBitMoment {
    /// Four codes a word, u32, the first in its lowest byte: those of whole blocks of 256 values.
    pub codes: Tensor<1, Int>,
    /// The factor of every block, f32.
    pub scales: Tensor<1>,
}

/// A parameter and what its optimizer remembers of it.
#[derive(Debug, Clone)]
pub struct EightBitState {
    /// The parameter, f32.
    pub value: Tensor<1>,
    /// Mean of its gradients.
    pub first: EightBitMoment,
    /// Mean of their squares.
    pub second: EightBitMoment,
}

/// A parameter's state, its gradient, and the step to take.
#[derive(Debug, Clone)]
pub struct EightBitWork {
    /// The state before.
    pub state: EightBitState,
    /// The gradient, f32.
    pub gradient: Tensor<1>,
    /// Its constants.
    pub step: AdamStep,
}

/// The states after a step each, of parameters on one device that runs CubeCL kernels. `numbers` are what the codes
/// of the first moment mean, and those of the second, 256 in ascending order each.
pub fn adam_eight_bit(work: Vec<EightBitWork>, numbers: [Vec<f32>; 2]) -> Vec<EightBitState> {
    #[cfg(feature = "cube")]
    {
        kernel::adam_on_cube(work, numbers)
    }
    #[cfg(not(feature = "cube"))]
    {
        let _ = numbers;
        assert!(work.is_empty(), "a build for the CPU alone keeps such moments on the host");
        Vec::new()
    }
}
