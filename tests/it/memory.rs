//! The plan's estimate of memory decides: about recompute where the recipe leaves it open, and about the run where the
//! recipe says how much there may be.

use crate::harness::{LEFT_OUT, Scratch, model};

/// MiB that the plan of `settings` needs, and whether it recomputes layers; none if it is refused for its memory.
fn planned(scratch: &Scratch, settings: &[(&str, &str)]) -> Option<(f64, bool)> {
    scratch.recipe("recipe.yaml", &model("qwen3"), settings);
    let finished = scratch.tune(&["check", "recipe.yaml"]);
    if finished.code == Some(2) && finished.stderr.contains("the run needs about ") {
        return None;
    }
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    let line = |start: &str| finished.stdout.lines().find_map(|line| line.strip_prefix(start)).unwrap().trim();
    let (number, rest) = line("memory ").strip_prefix("about ").unwrap().split_once(' ').unwrap();
    assert!(rest.starts_with("MiB"), "{rest}");
    Some((number.parse().unwrap(), line("activations ").starts_with("recomputed")))
}

#[test]
fn recompute_is_chosen_where_the_memory_allowed_needs_it_and_what_is_too_much_refused() {
    let scratch = Scratch::new("memory-allowed");
    let text = "the quick brown fox jumps over the lazy dog ".repeat(200);
    scratch.write("rows.jsonl", format!("{{\"text\": \"{text}\"}}\n").repeat(32));
    let common = [
        ("datasets", "\n  - path: rows.jsonl\n    type: completion"),
        ("excess_length_strategy", "truncate"),
        ("micro_batch_size", "8"),
    ];
    let full = ["adapter", "lora_r", "lora_alpha", "lora_target_modules"].map(|key| (key, LEFT_OUT));
    let kinds: [&[(&str, &str)]; 3] = [&[], &[("adapter", "qlora"), ("load_in_4bit", "true")], &full];
    for kind in kinds {
        let plan = |checkpointing: &str, allowed: f64| {
            let allowed = format!("{{max_memory: {allowed}MiB}}");
            let own = [("gradient_checkpointing", checkpointing), ("preflight", &allowed)];
            planned(&scratch, &[&common[..], kind, &own].concat())
        };
        let (kept, recomputed) = (plan("false", 1e5).unwrap(), plan("true", 1e5).unwrap());
        assert!(!kept.1 && recomputed.1 && recomputed.0 + 2.0 <= kept.0, "{kind:?}: {kept:?} {recomputed:?}");
        assert_eq!(plan("auto", 1e5), Some(kept), "{kind:?}");
        let less = kept.0 - 1.0;
        assert_eq!((plan("auto", less), plan("false", less)), (Some(recomputed), None), "{kind:?}");
        let least = recomputed.0 - 1.0;
        assert_eq!((plan("auto", least), plan("true", least)), (None, None), "{kind:?}");
    }
}
