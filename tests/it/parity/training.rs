//! What training must keep equal whatever the reference says: recompute under dropout, and the ways to
//! cut one accumulation window into micro-batches.

use adapters::Update;
use datasets::{Example, MicroBatch};

use super::Bench;
use super::check::{Check, settle};
use super::fixture;
use super::gradients::{loss_and_gradients, same_gradients, settings};
use super::lora::{Variant, variants};

/// The rows of the first step of a variant's trace.
fn rows(variant: &Variant) -> Vec<Example> {
    let mut examples = variant.tensors("trace").examples("trace");
    examples.truncate(4);
    examples
}

#[test]
fn dropout_masks_survive_recompute() {
    let Some(bench) = Bench::open_for_full_set("dropout_masks_survive_recompute") else {
        return;
    };
    let (variants, mut wrong) = (variants(&bench), Vec::new());
    for variant in &variants {
        let mut check = Check::new(format!("{} with dropout", variant.folder));
        let window: Vec<MicroBatch> = rows(variant).chunks(2).map(|rows| fixture::in_rows(rows, 0)).collect();
        let (undropped, _) = loss_and_gradients(variant.adapted(&bench, "init"), settings(false), &window);
        let mut decoder = variant.adapted(&bench, "init");
        for projection in decoder.projections() {
            match &mut projection.update {
                Some(Update::LowRank(update)) => update.spec.dropout = 0.3,
                Some(Update::Dora(update)) => update.low_rank.spec.dropout = 0.3,
                None => {}
            }
        }
        let (kept_loss, kept) = loss_and_gradients(decoder.clone(), settings(false), &window);
        let (loss, gradients) = loss_and_gradients(decoder, settings(true), &window);
        check.within("loss", "loss", (loss - kept_loss).abs(), bench.tolerance.loss);
        same_gradients(&mut check, &gradients, &kept, bench.tolerance.gradient);
        if (kept_loss - undropped).abs() < 1e-4 {
            check.fail("dropout changes nothing");
        }
        check.done(&mut wrong);
    }
    settle(&wrong, variants.len());
}

#[test]
fn a_window_gives_the_same_gradients_however_it_is_cut() {
    let Some(bench) = Bench::open_for_full_set("a_window_gives_the_same_gradients_however_it_is_cut") else {
        return;
    };
    let (variants, mut wrong) = (variants(&bench), Vec::new());
    for variant in &variants {
        let mut check = Check::new(format!("{} cut in micro-batches", variant.folder));
        let rows = rows(variant);
        let whole = || vec![fixture::in_rows(&rows, 0)];
        let (whole_loss, reference) = loss_and_gradients(variant.adapted(&bench, "init"), settings(false), &whole());
        for size in [1, 2, 4] {
            let window: Vec<MicroBatch> = rows.chunks(size).map(|rows| fixture::in_rows(rows, 0)).collect();
            for &recompute in bench.recompute() {
                let (loss, gradients) =
                    loss_and_gradients(variant.adapted(&bench, "init"), settings(recompute), &window);
                check.within("loss", format!("loss by {size}"), (loss - whole_loss).abs(), bench.tolerance.loss);
                same_gradients(&mut check, &gradients, &reference, bench.tolerance.gradient / 10.0);
            }
        }
        check.done(&mut wrong);
    }
    settle(&wrong, variants.len());
}
