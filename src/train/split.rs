//! A micro-batch in parts, one for each core, without padding: on the CPU most operations run on one thread, so
//! that two halves of the rows side by side take little more time than one of them, and distinct shapes cost nothing.

use std::ops::Range;

use datasets::MicroBatch;

/// At most `parts` micro-batches that together hold the rows of `batch`, about equal in tokens. The rows of a part lie
/// in one, one document after the other, as if they had been packed; `as_rows` leaves them in rows of their own.
/// Documents of a group, `group` consecutive ones, stay in one part, in their order.
pub(super) fn split(batch: &MicroBatch, parts: usize, as_rows: bool, group: usize) -> Vec<MicroBatch> {
    let lengths: Vec<usize> =
        batch.documents.chunks(batch.width).map(|row| row.iter().filter(|document| **document >= 0).count()).collect();
    let blocks = blocks(batch, group);
    let of_block = |block: &Range<usize>| lengths[block.clone()].iter().sum();
    let of_blocks: Vec<usize> = blocks.iter().map(of_block).collect();
    let part = |share: Vec<usize>| {
        let rows: Vec<usize> = share.into_iter().flat_map(|block| blocks[block].clone()).collect();
        if as_rows { side_by_side(batch, &rows, &lengths) } else { end_to_end(batch, &rows, &lengths) }
    };
    shares(&of_blocks, parts).into_iter().map(part).collect()
}

/// Consecutive rows that hold whole groups of `group` documents: single rows where a document is a group.
fn blocks(batch: &MicroBatch, group: usize) -> Vec<Range<usize>> {
    if group == 1 {
        return (0..batch.rows).map(|row| row..row + 1).collect();
    }
    let mut documents = vec![0; batch.rows];
    documents_of(batch).into_iter().for_each(|document| documents[document.start / batch.width] += 1);
    let (mut blocks, mut first, mut open) = (Vec::new(), 0, 0);
    for (row, documents) in documents.into_iter().enumerate() {
        open = (open + documents) % group;
        if open == 0 {
            blocks.push(first..row + 1);
            first = row + 1;
        }
    }
    if first < batch.rows {
        blocks.push(first..batch.rows);
    }
    blocks
}

/// The cells of each document of `batch`, row by row.
pub(super) fn documents_of(batch: &MicroBatch) -> Vec<Range<usize>> {
    let mut documents = Vec::new();
    let mut start = 0;
    for row in batch.documents.chunks(batch.width) {
        for same in row.chunk_by(|before, after| before == after) {
            if same[0] >= 0 {
                documents.push(start..start + same.len());
            }
            start += same.len();
        }
    }
    documents
}

/// Rows of `lengths` tokens in at most `parts` shares about equal in tokens, empty rows left out: the rows of each.
pub(super) fn shares(lengths: &[usize], parts: usize) -> Vec<Vec<usize>> {
    let mut by_length: Vec<usize> = (0..lengths.len()).filter(|row| lengths[*row] > 0).collect();
    by_length.sort_by_key(|row| std::cmp::Reverse(lengths[*row]));
    // The longest rows first, each to the part that has least (Graham 1969).
    let mut shares: Vec<(usize, Vec<usize>)> = vec![(0, Vec::new()); parts.clamp(1, by_length.len().max(1))];
    for row in by_length {
        let lightest = shares.iter_mut().min_by_key(|(tokens, _)| *tokens).expect("there is a part");
        lightest.0 += lengths[row];
        lightest.1.push(row);
    }
    shares.retain(|(_, rows)| !rows.is_empty());
    shares
        .into_iter()
        .map(|(_, mut rows)| {
            rows.sort_unstable();
            rows
        })
        .collect()
}

/// The chosen rows, as wide as the longest of them.
fn side_by_side(batch: &MicroBatch, rows: &[usize], lengths: &[usize]) -> MicroBatch {
    let width = rows.iter().map(|row| lengths[*row]).max().unwrap_or(0).max(1);
    let cut = |row: &usize| row * batch.width..row * batch.width + width;
    let numbers = |values: &[i32]| -> Vec<i32> { rows.iter().flat_map(|row| values[cut(row)].to_vec()).collect() };
    MicroBatch {
        rows: rows.len(),
        width,
        tokens: numbers(&batch.tokens),
        targets: numbers(&batch.targets),
        documents: numbers(&batch.documents),
        positions: numbers(&batch.positions),
        trained: rows.iter().flat_map(|row| batch.trained[cut(row)].to_vec()).collect(),
        real_tokens: rows.iter().map(|row| lengths[*row]).sum(),
    }
}

/// The chosen rows' tokens in one row, every document of every row a document of its own.
fn end_to_end(batch: &MicroBatch, rows: &[usize], lengths: &[usize]) -> MicroBatch {
    let width = rows.iter().map(|row| lengths[*row]).sum();
    let cut = |row: &usize| row * batch.width..row * batch.width + lengths[*row];
    let numbers = |values: &[i32]| -> Vec<i32> { rows.iter().flat_map(|row| values[cut(row)].to_vec()).collect() };
    let mut documents = Vec::with_capacity(width);
    let mut next = 0;
    for row in rows {
        for same in batch.documents[cut(row)].chunk_by(|before, after| before == after) {
            documents.extend(std::iter::repeat_n(next, same.len()));
            next += 1;
        }
    }
    MicroBatch {
        rows: 1,
        width,
        tokens: numbers(&batch.tokens),
        targets: numbers(&batch.targets),
        documents,
        positions: numbers(&batch.positions),
        trained: rows.iter().flat_map(|row| batch.trained[cut(row)].to_vec()).collect(),
        real_tokens: width,
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
    fn parts_are_about_equal_and_hold_every_token_once() {
        let parts = split(&batch(&[6, 5, 4, 3, 2], 8), 2, false, 1);
        assert_eq!(parts.iter().map(|part| part.real_tokens).collect::<Vec<_>>(), [11, 9]);
        assert_eq!(parts.iter().map(|part| (part.rows, part.width)).collect::<Vec<_>>(), [(1, 11), (1, 9)]);
        assert_eq!(parts.iter().map(MicroBatch::trained_tokens).sum::<usize>(), 15);
        // Rows 0, 3 and 4, and rows 1 and 2.
        assert_eq!(parts[0].tokens, [0, 1, 2, 3, 4, 5, 300, 301, 302, 400, 401]);
        assert_eq!(parts[0].documents, [0, 0, 0, 0, 0, 0, 1, 1, 1, 2, 2]);
        assert_eq!(parts[0].positions, [0, 1, 2, 3, 4, 5, 0, 1, 2, 0, 1]);
        assert_eq!(parts[1].targets[..5], [101, 102, 103, 104, 0]);
    }

    #[test]
    fn packed_documents_stay_apart() {
        let mut packed = batch(&[4, 3], 5);
        packed.documents[..4].copy_from_slice(&[0, 0, 1, 1]);
        assert_eq!(split(&packed, 1, false, 1)[0].documents, [0, 0, 1, 1, 2, 2, 2]);
    }

    #[test]
    fn rows_of_their_own_are_no_wider_than_they_must_be() {
        let parts = split(&batch(&[6, 5, 4, 3, 2], 8), 2, true, 1);
        assert_eq!(parts.iter().map(|part| (part.rows, part.width)).collect::<Vec<_>>(), [(3, 6), (2, 5)]);
        assert_eq!(parts[1].tokens[5..], [200, 201, 202, 203, 0]);
    }

    #[test]
    fn documents_of_a_group_stay_together_in_their_order() {
        let parts = split(&batch(&[2, 3, 4, 1, 1, 2], 5), 2, false, 2);
        assert_eq!(parts[0].tokens, [0, 1, 100, 101, 102, 400, 500, 501], "the first and the last pair");
        assert_eq!(parts[1].tokens, [200, 201, 202, 203, 300]);
        // A row that holds a whole pair, and two rows with one and a half each.
        let mut packed = batch(&[4, 4, 4], 4);
        packed.documents = vec![0, 0, 1, 1, 0, 1, 1, 2, 0, 0, 0, 0];
        let sizes = |parts: Vec<MicroBatch>| parts.iter().map(|part| part.real_tokens).collect::<Vec<_>>();
        assert_eq!(sizes(split(&packed, 3, false, 2)), [8, 4]);
        assert_eq!(sizes(split(&packed, 3, false, 1)), [4, 4, 4]);
    }

    #[test]
    fn more_parts_than_rows_give_one_part_a_row() {
        assert_eq!(split(&batch(&[3, 3], 3), 8, false, 1).len(), 2);
        assert_eq!(split(&batch(&[3], 5), 2, false, 1).len(), 1);
        assert!(split(&batch(&[0], 5), 2, false, 1).is_empty());
    }
}
