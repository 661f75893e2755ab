//! Types of 16 bits: training in them follows training in f32, and a recipe that contradicts itself is refused.

use std::path::Path;

use crate::harness::{Scratch, metrics, model};

/// Loss and gradient norm of every step of a run with `changes` to the small recipe.
fn steps(scratch: &Scratch, name: &str, changes: &[(&str, &str)]) -> Vec<(f64, f64)> {
    let folder = format!("out-{name}");
    let changes = [changes, &[("output_dir", folder.as_str())]].concat();
    scratch.run(&scratch.recipe(&format!("{name}.yaml"), &model("qwen3"), &changes));
    let number = |line: &serde_json::Value, key: &str| line[key].as_f64().unwrap();
    let lines = metrics(&scratch.join(&folder), "loss");
    lines.iter().map(|line| (number(line, "loss"), number(line, "gradient_norm"))).collect()
}

#[test]
fn training_in_16_bits_follows_training_in_f32() {
    let scratch = Scratch::new("sixteen-bits");
    let expected = steps(&scratch, "f32", &[("bf16", "false")]);
    for (name, key, bound) in [("f16", "fp16", 3e-3), ("bf16", "bf16", 8e-3)] {
        let found = steps(&scratch, name, &[(key, "true")]);
        assert_eq!(found.len(), expected.len());
        for ((loss, norm), (expected_loss, expected_norm)) in found.iter().zip(&expected) {
            assert!((loss - expected_loss).abs() < bound, "{name}: loss {loss}, in f32 {expected_loss}");
            assert!((norm - expected_norm).abs() < bound * expected_norm, "{name}: norm {norm}, {expected_norm}");
        }
    }
}

#[test]
fn a_step_whose_gradients_overflow_f16_is_run_again_with_a_smaller_loss_scale() {
    let scratch = Scratch::new("overflow");
    // The gradient of B grows with alpha while B is next to nothing.
    let changes = [("lora_alpha", "8192"), ("learning_rate", "1e-12"), ("max_steps", "2")];
    let expected = steps(&scratch, "f32", &changes);
    let found = steps(&scratch, "f16", &[&changes[..], &[("fp16", "true")]].concat());
    // Two matrices B of 64 x 4 and 32 x 4 in each of two layers: the largest of these gradients is at least the mean one.
    let mean = expected[0].1 / f64::from(2 * (64 + 32) * 4).sqrt();
    assert!(mean * 65_536.0 > 65_504.0, "without a smaller scale, {mean} does not overflow");
    for ((loss, norm), (expected_loss, expected_norm)) in found.iter().zip(&expected) {
        assert!((loss - expected_loss).abs() < 1e-3);
        assert!((norm - expected_norm).abs() < 1e-2 * expected_norm, "{norm}, in f32 {expected_norm}");
    }
}

#[test]
fn the_plan_says_which_type_is_used_and_two_at_a_time_are_refused() {
    let scratch = Scratch::new("precision-plan");
    let check = |changes: &[(&str, &str)]| {
        let recipe = scratch.recipe("recipe.yaml", &model("qwen3"), changes);
        scratch.tune(&["check".as_ref(), AsRef::<Path>::as_ref(&recipe).as_os_str()])
    };
    let planned = check(&[("fp16", "true")]);
    assert!(planned.stdout.contains("cpu, f16 (fp16: true)"), "{}", planned.stdout);
    assert!(planned.stdout.contains("the loss scaled"), "{}", planned.stdout);
    assert!(check(&[("tf32", "false")]).stdout.contains("precision       everything in f32"));
    let refused = check(&[("bf16", "true"), ("fp16", "true")]);
    assert_eq!(refused.code, Some(2));
    assert!(refused.stderr.contains("`fp16: true` contradicts bf16: true on cpu"), "{}", refused.stderr);
    assert!(refused.stderr.contains("hint: keep one of the two"), "{}", refused.stderr);
}
