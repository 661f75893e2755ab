//! Routing: the experts that each token goes to, from the router's scores, on the host.
//!
//! Group-limited choice is that of DeepSeek-V3 (DeepSeek-AI 2024, arXiv:2412.19437): a group is worth the
//! sum of its two best scores, and experts outside of the best groups cannot be chosen.

use super::spec::RouterSpec;

/// The tokens of each expert, and the order in which they are multiplied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Assignment {
    /// The chosen experts of each token, best first, `[tokens * chosen]`.
    pub(crate) experts: Vec<i32>,
    /// The token of each row when rows are sorted by expert.
    pub(crate) tokens: Vec<i32>,
    /// The place in `experts` of each sorted row.
    pub(crate) slots: Vec<i32>,
    /// The sorted row of each place in `experts`.
    pub(crate) places: Vec<i32>,
    /// The used experts in order, each with its number of rows.
    pub(crate) shares: Vec<(usize, usize)>,
}

/// The choice by `scores`, `[tokens, experts]` row-major; of equal scores the lower expert wins.
pub(crate) fn choose(scores: &[f32], experts: usize, spec: &RouterSpec) -> Assignment {
    let tokens = scores.len() / experts;
    let mut chosen = Vec::with_capacity(tokens * spec.chosen);
    let mut open = scores.to_vec();
    for row in open.chunks_mut(experts) {
        close_groups(row, spec);
        for best in largest(row, spec.chosen) {
            chosen.push(best as i32);
        }
    }
    sort(chosen, experts, spec.chosen)
}

/// Makes the scores of experts outside of the best groups negative infinity.
fn close_groups(row: &mut [f32], spec: &RouterSpec) {
    let Some(groups) = spec.groups else { return };
    let size = row.len() / groups.count;
    let worth: Vec<f32> =
        row.chunks(size).map(|group| largest(group, 2).iter().map(|&best| group[best]).sum()).collect();
    let kept = largest(&worth, groups.kept);
    for (index, group) in row.chunks_mut(size).enumerate() {
        if !kept.contains(&index) {
            group.fill(f32::NEG_INFINITY);
        }
    }
}

/// The places of the `count` largest values, largest first; of equal ones the first. A NaN is below all others.
fn largest(values: &[f32], count: usize) -> Vec<usize> {
    let mut best: Vec<usize> = Vec::with_capacity(count + 1);
    let value = |place: usize| if values[place].is_nan() { f32::NEG_INFINITY } else { values[place] };
    for place in 0..values.len() {
        let before = best.partition_point(|&other| value(other) >= value(place));
        if before < count {
            best.insert(before, place);
            best.truncate(count);
        }
    }
    best
}

/// A counting sort by expert.
fn sort(chosen: Vec<i32>, experts: usize, per_token: usize) -> Assignment {
    let mut counts = vec![0; experts];
    for &expert in &chosen {
        counts[expert as usize] += 1;
    }
    let mut next = vec![0; experts];
    for expert in 1..experts {
        next[expert] = next[expert - 1] + counts[expert - 1];
    }
    let mut assignment = Assignment {
        tokens: vec![0; chosen.len()],
        slots: vec![0; chosen.len()],
        places: vec![0; chosen.len()],
        shares: counts.iter().copied().enumerate().filter(|(_, count)| *count > 0).collect(),
        experts: chosen,
    };
    for (slot, &expert) in assignment.experts.iter().enumerate() {
        let row = next[expert as usize];
        next[expert as usize] += 1;
        assignment.tokens[row] = (slot / per_token) as i32;
        assignment.slots[row] = slot as i32;
        assignment.places[slot] = row as i32;
    }
    assignment
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::spec::{RouterGroups, Scoring, Weighs};

    fn router(chosen: usize, groups: Option<RouterGroups>) -> RouterSpec {
        let scoring = Scoring::Sigmoid;
        let weighs = Weighs::Output;
        RouterSpec { chosen, scoring, normalise: true, scale: 1.0, groups, correction: false, bias: false, weighs }
    }

    #[test]
    fn the_best_experts_are_chosen_and_ties_go_to_the_first() {
        let scores = [0.1, 0.9, 0.9, 0.3, 0.5, 0.5, 0.5, 0.5];
        assert_eq!(choose(&scores, 4, &router(2, None)).experts, [1, 2, 0, 1]);
    }

    #[test]
    fn only_the_best_groups_are_open() {
        // The best expert stands alone in the worst group.
        let scores = [0.9, 0.0, 0.5, 0.6, 0.8, 0.4, 0.1, 0.2];
        let groups = Some(RouterGroups { count: 4, kept: 2 });
        assert_eq!(choose(&scores, 8, &router(3, groups)).experts, [4, 3, 2]);
        assert_eq!(choose(&scores, 8, &router(3, None)).experts, [0, 4, 3]);
    }

    #[test]
    fn rows_are_sorted_by_expert_and_find_back() {
        let scores = [0.1, 0.9, 0.3, 0.8, 0.2, 0.7, 0.9, 0.1, 0.5];
        let assignment = choose(&scores, 3, &router(2, None));
        assert_eq!(assignment.experts, [1, 2, 0, 2, 0, 2]);
        assert_eq!(assignment.shares, [(0, 2), (1, 1), (2, 3)]);
        assert_eq!(assignment.tokens, [1, 2, 0, 0, 1, 2]);
        for (slot, &place) in assignment.places.iter().enumerate() {
            assert_eq!(assignment.slots[place as usize], slot as i32);
        }
    }

    #[test]
    fn scores_that_are_not_numbers_still_choose() {
        assert_eq!(choose(&[f32::NAN, 0.1, f32::NAN], 3, &router(2, None)).experts, [1, 0]);
    }
}
