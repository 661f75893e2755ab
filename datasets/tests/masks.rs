//! Training masks against Axolotl: rows with the ids and masks that `scripts/make_mask_cases.py` stored.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Write as _;
use std::path::Path;

use datasets::{
    Dataset, DatasetSettings, Defect, SourceSettings, SpecialTokenOverrides, TemplateChoice, Tokenizer, TrainOnEnd,
};
use serde_json::Value;

/// A row of which something is trained on, so that those of which nothing is are loaded beside it.
const OTHER: &str = r#"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}"#;

fn end_rule(options: &Value, key: &str) -> Option<TrainOnEnd> {
    let name = options.get(key)?.as_str().unwrap();
    TrainOnEnd::ALL.into_iter().find(|rule| rule.choice().name == name)
}

/// The ids of a row and its mask; `None` if nothing of it is trained on.
fn load(
    tokenizer: &Tokenizer,
    folder: &Path,
    row: &Value,
    options: &Value,
) -> Result<Option<(Vec<u32>, String)>, String> {
    let path = folder.join("rows.jsonl");
    std::fs::write(&path, format!("{}\n{OTHER}\n", serde_json::json!({"messages": row["messages"]}))).unwrap();
    let text = |key: &str| options.get(key).map(|value| value.as_str().unwrap().to_owned());
    let roles =
        |roles: &Value| roles.as_array().unwrap().iter().map(|role| role.as_str().unwrap().to_owned()).collect();
    let settings = DatasetSettings {
        sources: vec![SourceSettings {
            roles_to_train: options.get("roles_to_train").map(roles),
            train_on_eos: end_rule(options, "train_on_eos"),
            train_on_eot: end_rule(options, "train_on_eot"),
            message_field_training: text("message_field_training"),
            message_field_training_detail: text("message_field_training_detail"),
            ..SourceSettings::new(&path, "recipe.yaml:3:5")
        }],
        sequence_len: 4096,
        shuffle: false,
        train_on_inputs: options.get("train_on_inputs").is_some(),
        allowed: Defect::ALL.to_vec(),
        ..DatasetSettings::default()
    };
    let dataset = Dataset::load(&settings, tokenizer, &mut |_| {}).map_err(|error| error.to_string())?;
    let example = dataset.train.iter().find(|example| example.line == 1);
    let bit = |trained: &bool| if *trained { '1' } else { '0' };
    Ok(example.map(|example| (example.tokens.clone(), example.trained.iter().map(bit).collect())))
}

/// The stretches of tokens that are trained on, as text.
fn shown(tokenizer: &Tokenizer, ids: &[u32], mask: &str) -> Vec<String> {
    let mut stretches: Vec<Vec<u32>> = vec![Vec::new()];
    for (id, bit) in ids.iter().zip(mask.chars()) {
        match bit {
            '1' => stretches.last_mut().unwrap().push(*id),
            _ if stretches.last().unwrap().is_empty() => {}
            _ => stretches.push(Vec::new()),
        }
    }
    stretches.iter().filter(|ids| !ids.is_empty()).map(|ids| tokenizer.decode(ids).unwrap()).collect()
}

#[test]
fn rows_have_the_ids_and_masks_of_axolotl() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let file = std::fs::read_to_string(root.join("tests/fixtures/masks.json")).unwrap();
    let file: Value = serde_json::from_str(&file).unwrap();
    let special =
        SpecialTokenOverrides { eos_token: Some("<|endoftext|>".to_owned()), ..SpecialTokenOverrides::default() };
    let folder = std::env::temp_dir().join(format!("datasets-masks-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (mut equal, mut different) = (0, String::new());
    for (name, template) in file["templates"].as_object().unwrap() {
        let template = TemplateChoice::Jinja(template.as_str().unwrap().to_owned());
        let tokenizer = root.join("../tests/fixtures/tokenizers/qwen3");
        let tokenizer = Tokenizer::open(&tokenizer, &template, &special, &["<|im_end|>".to_owned()], &[]).unwrap();
        for row in file["rows"].as_array().unwrap().iter().filter(|row| row["template"] == **name) {
            let ids: Vec<u32> = serde_json::from_value(row["ids"].clone()).unwrap();
            for result in row["results"].as_array().unwrap() {
                let wanted = result["trained"].as_str().unwrap();
                let ours = load(&tokenizer, &folder, row, result);
                match &ours {
                    Ok(Some((tokens, mask))) if *tokens == ids && mask == wanted => equal += 1,
                    Ok(None) if !wanted[1..].contains('1') => equal += 1,
                    _ => {
                        let ours = match &ours {
                            Ok(Some((tokens, mask))) => format!("{:?}", shown(&tokenizer, tokens, mask)),
                            other => format!("{other:?}"),
                        };
                        let wanted = shown(&tokenizer, &ids, wanted);
                        writeln!(
                            different,
                            "{name} {}\n  {result}\n  ours   {ours}\n  theirs {wanted:?}",
                            row["messages"]
                        )
                        .unwrap();
                    }
                }
            }
        }
    }
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(different.is_empty(), "{equal} masks are equal, different are:\n{different}");
    assert!(equal > 600, "{equal}");
}
