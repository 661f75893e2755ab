//! Packing: several documents share a row, so that little is padded.
//!
//! First-fit-decreasing within windows of the given order: windows keep documents from always
//! meeting others of the same length, and keep the work linear in the number of documents.

/// Documents that are packed together at a time.
const WINDOW: usize = 4096;

/// PackedRows, each of one or more documents, side by side in one list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PackedRows {
    documents: Vec<u32>,
    /// The end of each row in `documents`.
    ends: Vec<u32>,
}

impl PackedRows {
    /// PackedRows of one document each.
    pub(crate) fn single(documents: Vec<u32>) -> PackedRows {
        let ends = (1..=u32::try_from(documents.len()).unwrap_or(u32::MAX)).collect();
        PackedRows { documents, ends }
    }

    /// The number of rows.
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The documents of a row, which must be below `len`.
    pub(crate) fn row(&self, index: usize) -> &[u32] {
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
        &self.documents[start..self.ends[index] as usize]
    }

    /// All rows in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &[u32]> {
        (0..self.len()).map(|index| self.row(index))
    }

    fn push(&mut self, documents: impl Iterator<Item = u32>) {
        self.documents.extend(documents);
        self.ends.push(u32::try_from(self.documents.len()).unwrap_or(u32::MAX));
    }
}

/// PackedRows of documents whose lengths add up to at most `capacity`; a longer document is a row alone.
///
/// `order` holds indices into `lengths`. PackedRows come out in the order of their first documents, and
/// documents within a row in that order too.
pub(crate) fn pack(lengths: &[u32], order: &[u32], capacity: usize) -> PackedRows {
    let mut rows = PackedRows::default();
    for window in order.chunks(WINDOW) {
        pack_window(lengths, window, capacity, &mut rows);
    }
    rows
}

fn pack_window(lengths: &[u32], window: &[u32], capacity: usize, packed: &mut PackedRows) {
    let length = |place: usize| lengths[window[place] as usize] as usize;
    let mut by_length: Vec<usize> = (0..window.len()).collect();
    by_length.sort_by_key(|place| std::cmp::Reverse(length(*place)));
    let mut rows: Vec<(usize, Vec<usize>)> = Vec::new();
    for place in by_length {
        let length = length(place);
        match rows.iter_mut().find(|(left, _)| *left >= length) {
            Some((left, places)) => {
                *left -= length;
                places.push(place);
            }
            None => rows.push((capacity.saturating_sub(length), vec![place])),
        }
    }
    let mut rows: Vec<Vec<usize>> = rows.into_iter().map(|(_, places)| places).collect();
    for places in &mut rows {
        places.sort_unstable();
    }
    rows.sort_unstable();
    for places in rows {
        packed.push(places.into_iter().map(|place| window[place]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows_of(rows: &PackedRows) -> Vec<Vec<u32>> {
        rows.iter().map(<[u32]>::to_vec).collect()
    }

    #[test]
    fn every_document_is_packed_once_and_no_row_overflows() {
        let lengths: Vec<u32> = (0..10_000).map(|index| 1 + (index * 7919) % 300).collect();
        let order: Vec<u32> = (0..10_000).rev().collect();
        let rows = pack(&lengths, &order, 512);
        let mut seen: Vec<u32> = rows.iter().flatten().copied().collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..10_000).collect::<Vec<_>>());
        let used = |row: &[u32]| row.iter().map(|document| lengths[*document as usize]).sum::<u32>();
        assert!(rows.iter().all(|row| used(row) <= 512));
        let total = lengths.iter().sum::<u32>() as usize;
        assert!(rows.len() * 512 < total + total / 20, "{} rows for {total} tokens", rows.len());
        assert_eq!(rows, pack(&lengths, &order, 512));
    }

    #[test]
    fn rows_keep_the_order_of_their_documents() {
        assert_eq!(rows_of(&pack(&[3, 5, 2, 4], &[0, 1, 2, 3], 7)), [vec![0, 3], vec![1, 2]]);
        assert_eq!(rows_of(&pack(&[9, 1], &[0, 1], 7)), [[0], [1]]);
        assert_eq!(rows_of(&PackedRows::single(vec![4, 2])), [[4], [2]]);
    }
}
