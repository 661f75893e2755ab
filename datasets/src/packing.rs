//! Packing: several documents share a row, so that little is padded.
//!
//! First-fit-decreasing within windows of the given order: windows keep documents from always
//! meeting those of their own length, and keep the work linear in the number of documents.

/// Documents that are packed together at a time.
const WINDOW: usize = 4096;

/// Rows of documents whose lengths add up to at most `capacity`; a longer document is a row alone.
///
/// `order` holds indices into `lengths`. Rows come out in the order of their first documents, and
/// documents within a row in that order too.
pub(crate) fn pack(lengths: &[usize], order: &[usize], capacity: usize) -> Vec<Vec<usize>> {
    order.chunks(WINDOW).flat_map(|window| pack_window(lengths, window, capacity)).collect()
}

fn pack_window(lengths: &[usize], window: &[usize], capacity: usize) -> Vec<Vec<usize>> {
    let mut by_length: Vec<usize> = (0..window.len()).collect();
    by_length.sort_by_key(|place| std::cmp::Reverse(lengths[window[*place]]));
    let mut rows: Vec<(usize, Vec<usize>)> = Vec::new();
    for place in by_length {
        let length = lengths[window[place]];
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
    rows.into_iter().map(|places| places.into_iter().map(|place| window[place]).collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_document_is_packed_once_and_no_row_overflows() {
        let lengths: Vec<usize> = (0..10_000).map(|index| 1 + (index * 7919) % 300).collect();
        let order: Vec<usize> = (0..lengths.len()).rev().collect();
        let rows = pack(&lengths, &order, 512);
        let mut seen: Vec<usize> = rows.iter().flatten().copied().collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..lengths.len()).collect::<Vec<_>>());
        let used = |row: &Vec<usize>| row.iter().map(|document| lengths[*document]).sum::<usize>();
        assert!(rows.iter().all(|row| used(row) <= 512));
        let total: usize = lengths.iter().sum();
        assert!(rows.len() * 512 < total + total / 20, "{} rows for {total} tokens", rows.len());
        assert_eq!(rows, pack(&lengths, &order, 512));
    }

    #[test]
    fn rows_keep_the_order_of_their_documents() {
        assert_eq!(pack(&[3, 5, 2, 4], &[0, 1, 2, 3], 7), [vec![0, 3], vec![1, 2]]);
        assert_eq!(pack(&[9, 1], &[0, 1], 7), [[0], [1]]);
    }
}
