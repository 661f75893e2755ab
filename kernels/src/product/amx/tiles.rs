//! The matrix units' own instructions: permission, configuration, and the innermost loop.

#![expect(unsafe_code, reason = "instructions that the language has no functions for")]

use std::arch::asm;
use std::arch::x86_64::__cpuid_count;

use super::pack::Line;
use super::{PANEL, PARTS};

/// Asks the processor for the units, and the system for leave to use them in this process.
pub(super) fn request() -> bool {
    const BF16_AND_TILES: u32 = 1 << 22 | 1 << 24;
    // `arch_prctl`'s request for a part of the processor's state, and the number of the tiles' part.
    const REQUEST_STATE: (i64, i64) = (0x1023, 18);
    let vectors = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl");
    if !vectors || __cpuid_count(7, 0).edx & BF16_AND_TILES != BF16_AND_TILES {
        return false;
    }
    // SAFETY: this call of Linux changes nothing but what the process may do.
    unsafe { libc::syscall(libc::SYS_arch_prctl, REQUEST_STATE.0, REQUEST_STATE.1) == 0 }
}

/// The sizes of the eight tiles, in the layout that the processor loads.
#[repr(C, align(64))]
struct Sizes {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// This thread's tiles are configured, 16 rows of 64 bytes each, until this is dropped.
pub(super) struct Configured {
    /// Only the thread that configured its tiles may use them.
    here: std::marker::PhantomData<*const ()>,
}

impl Configured {
    pub(super) fn new() -> Self {
        let mut sizes = Sizes { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
        sizes.row_bytes[..8].fill(64);
        sizes.rows[..8].fill(16);
        // SAFETY: `request` was granted before any product comes here, and the sizes are valid.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &sizes, options(nostack, readonly)) };
        Self { here: std::marker::PhantomData }
    }

    /// The product of two packed panels of as many steps as `a` holds, into a square of 32 x 32 whose rows are
    /// `row_stride` values apart, or added to it; `b` holds the first parts alone, or all.
    ///
    /// # Safety
    /// The square can be written to.
    pub(super) unsafe fn multiply(
        &self,
        a: &[Line],
        b: &[Line],
        b_parts: usize,
        square: *mut f32,
        row_stride: usize,
        add: bool,
    ) {
        let Self { here: _ } = self;
        let steps = a.len() / (PARTS * PANEL);
        let one_part = b_parts == 1;
        assert!(one_part || b_parts == PARTS, "one part or all");
        assert!(steps > 0 && b.len() == steps * b_parts * PANEL, "both panels have the same steps");
        macro_rules! load_a {
            ($at:literal) => {
                concat!("tileloadd tmm4, [{a} + {line} + ", $at, "]\ntileloadd tmm5, [{a} + {line} + 1024 + ", $at, "]")
            };
        }
        macro_rules! load_b {
            ($at:literal) => {
                concat!("tileloadd tmm6, [{b} + {line} + ", $at, "]\ntileloadd tmm7, [{b} + {line} + 1024 + ", $at, "]")
            };
        }
        macro_rules! multiply {
            () => {
                "tdpbf16ps tmm0, tmm4, tmm6\ntdpbf16ps tmm1, tmm4, tmm7\ntdpbf16ps tmm2, tmm5, tmm6\ntdpbf16ps tmm3, tmm5, tmm7"
            };
        }
        // A step is two tiles of 1024 bytes for each part: 6144 bytes of `a`.
        macro_rules! run {
            ($($piece:expr),*) => {
                asm!(
                    "test {add}, {add}",
                    "jnz 3f",
                    "tilezero tmm0",
                    "tilezero tmm1",
                    "tilezero tmm2",
                    "tilezero tmm3",
                    "jmp 2f",
                    "3:",
                    "tileloadd tmm0, [{square} + {row}]",
                    "tileloadd tmm1, [{square} + {row} + 64]",
                    "tileloadd tmm2, [{below} + {row}]",
                    "tileloadd tmm3, [{below} + {row} + 64]",
                    "2:",
                    $($piece,)*
                    "add {a}, 6144",
                    "add {b}, {b_step}",
                    "dec {steps}",
                    "jnz 2b",
                    "tilestored [{square} + {row}], tmm0",
                    "tilestored [{square} + {row} + 64], tmm1",
                    "tilestored [{below} + {row}], tmm2",
                    "tilestored [{below} + {row} + 64], tmm3",
                    a = inout(reg) a.as_ptr() => _,
                    b = inout(reg) b.as_ptr() => _,
                    steps = inout(reg) steps => _,
                    b_step = in(reg) b_parts * PANEL * size_of::<Line>(),
                    add = in(reg) usize::from(add),
                    square = in(reg) square,
                    below = in(reg) square.wrapping_add(16 * row_stride),
                    line = in(reg) 64_usize,
                    row = in(reg) 4 * row_stride,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack),
                )
            };
        }
        // SAFETY: this thread's tiles are configured; the loop reads `steps` steps of both panels, which hold them, and
        // reads and writes 32 rows of 128 bytes of the square.
        unsafe {
            // Each product changes one operand only; the smallest come first.
            if one_part {
                run!(
                    load_b!("0"),
                    load_a!("4096"),
                    multiply!(),
                    load_a!("2048"),
                    multiply!(),
                    load_a!("0"),
                    multiply!()
                );
            } else {
                run!(
                    load_a!("4096"),
                    load_b!("0"),
                    multiply!(),
                    load_a!("2048"),
                    multiply!(),
                    load_b!("2048"),
                    multiply!(),
                    load_a!("0"),
                    multiply!(),
                    load_b!("4096"),
                    multiply!(),
                    load_b!("0"),
                    multiply!()
                );
            }
        }
    }
}
