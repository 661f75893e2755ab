//! Large blocks from one heap of the C library (glibc), small ones from mimalloc.

use std::alloc::{GlobalAlloc, Layout, System};

use mimalloc::MiMalloc;

/// Bytes from which on a block is large.
const LARGE_BYTES: usize = 64 << 10;
/// Bytes from which on a block goes back to the system when it is freed: the most that glibc takes.
const MAPPED_BYTES: i32 = 32 << 20;
/// Bytes that the shared heap keeps free at its end before it gives some back.
const KEPT_BYTES: i32 = 256 << 20;

/// The allocator of the whole program.
struct Allocator;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

pub(super) fn share_heap() {
    // SAFETY: `mallopt` takes any numbers; where it refuses one, the default stays.
    #[expect(unsafe_code, reason = "the C library has no safe interface")]
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_BYTES);
        libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT_BYTES);
    }
}

const fn is_large(bytes: usize) -> bool {
    bytes >= LARGE_BYTES
}

// SAFETY: each block goes back to the allocator that gave it, which its layout names.
#[expect(unsafe_code, reason = "allocators are unsafe by contract")]
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's.
        unsafe { if is_large(layout.size()) { System.alloc(layout) } else { MiMalloc.alloc(layout) } }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's.
        unsafe { if is_large(layout.size()) { System.alloc_zeroed(layout) } else { MiMalloc.alloc_zeroed(layout) } }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's; a block of this size came from here.
        unsafe { if is_large(layout.size()) { System.dealloc(block, layout) } else { MiMalloc.dealloc(block, layout) } }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's; between the two allocators a block is copied, as far as both reach.
        unsafe {
            match (is_large(layout.size()), is_large(size)) {
                (true, true) => System.realloc(block, layout, size),
                (false, false) => MiMalloc.realloc(block, layout, size),
                _ => {
                    let moved = self.alloc(Layout::from_size_align_unchecked(size, layout.align()));
                    if !moved.is_null() {
                        std::ptr::copy_nonoverlapping(block, moved, layout.size().min(size));
                        self.dealloc(block, layout);
                    }
                    moved
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_keeps_its_values_as_it_grows_into_a_large_one_and_shrinks_again() {
        let expected: Vec<u32> = (0..LARGE_BYTES as u32).collect();
        let mut values = Vec::with_capacity(1);
        expected.iter().for_each(|value| values.push(*value));
        assert!(is_large(4 * values.capacity()) && values == expected);
        values.truncate(100);
        values.shrink_to_fit();
        assert!(!is_large(4 * values.capacity()) && values == expected[..100]);
        assert!(vec![0_u64; LARGE_BYTES].iter().chain(&vec![0_u64; 8]).all(|value| *value == 0));
    }
}
