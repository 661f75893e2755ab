//! Seeded orders: which rows are held out, how rows meet in packing, and each epoch's order.
//!
//! Every order is a pure function of the seed and its purpose, so that a run can resume anywhere.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

/// The purpose of an order; each draws from its own stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The rows of an epoch.
    Epoch(u64),
    /// The choice of held-out rows.
    HeldOut,
    /// The order in which rows are packed.
    Packing,
    /// The rows of a shard.
    Shard,
    /// The choice of rows to show.
    Preview,
}

/// The numbers below `count`, which is at most 2^32, in an order drawn from `seed`.
pub(crate) fn shuffled(count: usize, seed: u64, purpose: Purpose) -> Vec<u32> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream(match purpose {
        Purpose::Epoch(epoch) => epoch,
        Purpose::HeldOut => u64::MAX,
        Purpose::Packing => u64::MAX - 1,
        Purpose::Shard => u64::MAX - 2,
        Purpose::Preview => u64::MAX - 3,
    });
    let mut order = in_turn(count);
    order.shuffle(&mut random);
    order
}

/// The numbers below `count`, which is at most 2^32, ascending.
pub(crate) fn in_turn(count: usize) -> Vec<u32> {
    (0..u32::try_from(count).unwrap_or(u32::MAX)).collect()
}

/// A flag for each of `count` rows: true for the `held_out` rows that are held out. They are drawn by the seed; the last
/// ones if the rows keep their order, as in Axolotl.
pub(crate) fn held_out_rows(count: usize, held_out: usize, shuffle: bool, seed: u64) -> Vec<bool> {
    let mut chosen = vec![false; count];
    if held_out == 0 {
        return chosen;
    }
    if !shuffle {
        chosen[count.saturating_sub(held_out)..].fill(true);
        return chosen;
    }
    for row in shuffled(count, seed, Purpose::HeldOut).into_iter().take(held_out) {
        chosen[row as usize] = true;
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_holds_every_row_once_and_depends_on_seed_and_purpose_alone() {
        let order = shuffled(100, 7, Purpose::Epoch(3));
        assert_eq!(order, shuffled(100, 7, Purpose::Epoch(3)));
        assert_ne!(order, shuffled(100, 7, Purpose::Epoch(4)));
        assert_ne!(order, shuffled(100, 8, Purpose::Epoch(3)));
        let mut sorted = order;
        sorted.sort_unstable();
        assert_eq!(sorted, in_turn(100));
    }

    #[test]
    fn the_held_out_split_is_stable_and_of_the_asked_size() {
        let chosen = held_out_rows(50, 7, true, 42);
        assert_eq!(chosen, held_out_rows(50, 7, true, 42));
        assert_ne!(chosen, held_out_rows(50, 7, true, 43));
        assert_eq!(chosen.iter().filter(|held_out| **held_out).count(), 7);
    }

    #[test]
    fn the_last_rows_are_held_out_of_rows_in_order() {
        let chosen = held_out_rows(10, 2, false, 42);
        let held_out: Vec<usize> = (0..10).filter(|row| chosen[*row]).collect();
        assert_eq!(held_out, [8, 9]);
        assert_eq!(held_out_rows(10, 0, false, 42), [false; 10]);
    }
}
