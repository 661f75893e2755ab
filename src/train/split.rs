//! A micro-batch in parts, one for each core: on the CPU most operations run on one thread, so that two
//! halves of the rows side by side take little more time than one of them.

use datasets::MicroBatch;

/// At most `parts` micro-batches with the rows of `batch` in order, about equal in tokens, each as wide as its longest row.
pub(crate) fn split(batch: &MicroBatch, parts: usize) -> Vec<MicroBatch> {
    let lengths: Vec<usize> =
        batch.documents.chunks(batch.width).map(|row| row.iter().filter(|document| **document >= 0).count()).collect();
    let total: usize = lengths.iter().sum();
    let mut split = Vec::with_capacity(parts);
    let (mut first, mut before) = (0, 0);
    for (row, length) in lengths.iter().enumerate() {
        before += length;
        let enough = before * parts >= total * (split.len() + 1);
        if enough || row + 1 == lengths.len() {
            split.push(rows(batch, first, &lengths[first..=row]));
            first = row + 1;
        }
    }
    split
}

fn rows(batch: &MicroBatch, first: usize, lengths: &[usize]) -> MicroBatch {
    let width = lengths.iter().copied().max().unwrap_or(0).max(1);
    let numbers = |values: &[i32]| -> Vec<i32> {
        let row = |index: usize| values[(first + index) * batch.width..][..width].to_vec();
        (0..lengths.len()).flat_map(row).collect()
    };
    MicroBatch {
        rows: lengths.len(),
        width,
        tokens: numbers(&batch.tokens),
        targets: numbers(&batch.targets),
        documents: numbers(&batch.documents),
        positions: numbers(&batch.positions),
        trained: (0..lengths.len())
            .flat_map(|index| batch.trained[(first + index) * batch.width..][..width].to_vec())
            .collect(),
        real_tokens: lengths.iter().sum(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(lengths: &[usize], width: usize) -> MicroBatch {
        let cell = |row: usize, column: usize| if column < lengths[row] { (row * 100 + column) as i32 } else { 0 };
        let cells = || (0..lengths.len()).flat_map(|row| (0..width).map(move |column| (row, column)));
        MicroBatch {
            rows: lengths.len(),
            width,
            tokens: cells().map(|(row, column)| cell(row, column)).collect(),
            targets: cells().map(|(row, column)| cell(row, column + 1)).collect(),
            trained: cells().map(|(row, column)| column + 1 < lengths[row]).collect(),
            documents: cells().map(|(row, column)| if column < lengths[row] { 0 } else { -1 }).collect(),
            positions: cells().map(|(_, column)| column as i32).collect(),
            real_tokens: lengths.iter().sum(),
        }
    }

    #[test]
    fn parts_hold_every_row_once_and_no_needless_padding() {
        let parts = split(&batch(&[6, 5, 4, 3, 2], 8), 2);
        assert_eq!(parts.iter().map(|part| part.rows).collect::<Vec<_>>(), [2, 3]);
        assert_eq!(parts.iter().map(|part| part.width).collect::<Vec<_>>(), [6, 4]);
        assert_eq!(parts.iter().map(|part| part.real_tokens).sum::<usize>(), 20);
        assert_eq!(parts.iter().map(MicroBatch::trained_tokens).sum::<usize>(), 15);
        assert_eq!(parts[1].tokens[..4], [200, 201, 202, 203]);
        assert_eq!(parts[1].tokens[8..], [400, 401, 0, 0]);
    }

    #[test]
    fn more_parts_than_rows_give_one_part_a_row() {
        assert_eq!(split(&batch(&[3, 3], 3), 8).len(), 2);
        assert_eq!(split(&batch(&[3], 5), 2).len(), 1);
    }
}
