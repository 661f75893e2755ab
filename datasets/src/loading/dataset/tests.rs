//! The claims of order, batching and resuming.

use super::*;

fn examples(count: usize) -> Vec<Example> {
    (0..count)
        .map(|index| {
            let length = 2 + (index * 7) % 11;
            Example {
                tokens: vec![u32::try_from(index).unwrap() + 100; length],
                trained: vec![true; length],
                file: 0,
                line: index + 1,
            }
        })
        .collect()
}

fn settings(batching: BatchSettings) -> DatasetSettings {
    DatasetSettings { sequence_len: 24, batching, ..DatasetSettings::default() }
}

fn rows_of_batch(batch: &Batch) -> Vec<i32> {
    let mut rows: Vec<i32> = batch
        .micro_batches
        .iter()
        .flat_map(|batch| (0..batch.rows).map(|row| batch.tokens[row * batch.width]))
        .collect();
    rows.sort_unstable();
    rows
}

#[test]
fn an_epoch_sees_every_row_once_and_its_partial_window_is_a_step() {
    let batching = BatchSettings { micro_batch_size: 2, accumulation: 3, ..BatchSettings::default() };
    let dataset = Dataset::from_examples(examples(20), Vec::new(), &settings(batching));
    assert_eq!(dataset.steps_per_epoch(), 4);
    let mut rows: Vec<i32> = (0..4).flat_map(|step| rows_of_batch(&dataset.batch_at(step))).collect();
    rows.sort_unstable();
    assert_eq!(rows, (100..120).collect::<Vec<_>>());
    let last = dataset.batch_at(3);
    assert_eq!(last.micro_batches.len(), 1);
    assert_eq!(last.epoch, 1.0);
    assert_eq!(dataset.batch_at(4).epoch, 1.25);
    assert_ne!(rows_of_batch(&dataset.batch_at(0)), rows_of_batch(&dataset.batch_at(4)));
}

#[test]
fn a_batch_depends_on_its_step_alone() {
    let batching = BatchSettings { micro_batch_size: 2, accumulation: 2, packing: true, ..BatchSettings::default() };
    let one = Dataset::from_examples(examples(30), Vec::new(), &settings(batching.clone()));
    let other = Dataset::from_examples(examples(30), Vec::new(), &settings(batching));
    for step in [5, 0, 7, 5] {
        assert_eq!(one.batch_at(step), other.batch_at(step));
    }
}

#[test]
fn sorting_by_length_keeps_the_rows_of_each_step() {
    let batching = BatchSettings { micro_batch_size: 1, accumulation: 6, ..BatchSettings::default() };
    let together = BatchSettings { micro_batch_size: 6, accumulation: 1, ..BatchSettings::default() };
    let one = Dataset::from_examples(examples(20), Vec::new(), &settings(batching));
    let other = Dataset::from_examples(examples(20), Vec::new(), &settings(together));
    for step in 0..8 {
        let (one, other) = (one.batch_at(step), other.batch_at(step));
        assert_eq!(rows_of_batch(&one), rows_of_batch(&other));
        assert_eq!((one.trained_tokens, one.tokens), (other.trained_tokens, other.tokens));
        let widths: Vec<usize> = one.micro_batches.iter().map(|batch| batch.width).collect();
        assert!(widths.is_sorted_by(|left, right| left >= right), "{widths:?}");
    }
}

#[test]
fn locations_are_in_the_order_of_the_batch_and_another_batching_keeps_its_rows() {
    let batching = BatchSettings { micro_batch_size: 6, accumulation: 1, ..BatchSettings::default() };
    let mut dataset = Dataset::from_examples(examples(20), Vec::new(), &settings(batching));
    let of_tokens = |dataset: &Dataset| -> Vec<Vec<String>> {
        let line = |batch: &MicroBatch, row: usize| format!("line {}", batch.tokens[row * batch.width] - 99);
        let lines = |batch: &MicroBatch| (0..batch.rows).map(|row| line(batch, row)).collect();
        dataset.batch_at(2).micro_batches.iter().map(lines).collect()
    };
    let together = dataset.locations_at(2);
    assert_eq!(together, of_tokens(&dataset));
    dataset.batch_as(2, 3);
    assert_eq!(dataset.locations_at(2), of_tokens(&dataset));
    assert_eq!(dataset.locations_at(2).concat(), together.concat());
    assert_eq!(dataset.locations_at(2).len(), 3);
}

#[test]
fn without_shuffling_rows_keep_their_order() {
    let mut settings = settings(BatchSettings { micro_batch_size: 4, ..BatchSettings::default() });
    settings.shuffle = false;
    let dataset = Dataset::from_examples(examples(10), Vec::new(), &settings);
    assert_eq!(rows_of_batch(&dataset.batch_at(1)), [104, 105, 106, 107]);
    assert_eq!(rows_of_batch(&dataset.batch_at(2)), [108, 109]);
}

#[test]
fn packed_rows_hold_every_document_once() {
    let batching = BatchSettings { micro_batch_size: 2, packing: true, ..BatchSettings::default() };
    let dataset = Dataset::from_examples(examples(40), Vec::new(), &settings(batching));
    assert!(dataset.counts.packed_rows < 20, "{}", dataset.counts.packed_rows);
    let tokens: usize = (0..dataset.steps_per_epoch()).map(|step| dataset.batch_at(step).tokens).sum();
    assert_eq!(tokens, dataset.counts.tokens);
    let trained: usize = (0..dataset.steps_per_epoch()).map(|step| dataset.batch_at(step).trained_tokens).sum();
    assert_eq!(trained, dataset.counts.trained_tokens);
}

#[test]
fn widths_are_buckets_within_the_sequence_length() {
    let batching = BatchSettings { micro_batch_size: 3, width_multiple: 10, ..BatchSettings::default() };
    let dataset = Dataset::from_examples(examples(20), Vec::new(), &settings(batching.clone()));
    for step in 0..dataset.steps_per_epoch() {
        for batch in dataset.batch_at(step).micro_batches {
            assert!([10, 20].contains(&batch.width), "{}", batch.width);
        }
    }
    assert_eq!(dataset.batching.width(23, dataset.sequence_len), 24);
    let padded = BatchSettings { pad_to_sequence_len: true, ..batching };
    let dataset = Dataset::from_examples(examples(20), Vec::new(), &settings(padded));
    assert_eq!(dataset.batch_at(0).micro_batches[0].width, 24);
}

#[test]
fn held_out_rows_come_longest_first_in_their_own_batch_size() {
    let batching = BatchSettings { eval_batch_size: 4, ..BatchSettings::default() };
    let mut settings = settings(batching);
    let dataset = Dataset::from_examples(examples(3), examples(10), &settings);
    let batches = dataset.held_out_batches();
    assert_eq!(batches.iter().map(|batch| batch.rows).collect::<Vec<_>>(), [4, 4, 2]);
    assert!(batches.is_sorted_by(|left, right| left.width >= right.width));
    settings.batching.eval_packing = true;
    let packed = Dataset::from_examples(examples(3), examples(10), &settings).held_out_batches();
    let real = |batches: &[MicroBatch]| batches.iter().map(|batch| batch.real_tokens).sum::<usize>();
    assert_eq!(real(&packed), real(&batches));
    assert!(packed.iter().any(|batch| batch.documents.contains(&1)));
}
