//! Finding and opening base models, and files that lie.

use serde_json::json;

use super::fixtures::{Scratch, fixture, safetensors};
use super::*;
use crate::hint::with_hint;

fn nowhere() -> HubCache {
    HubCache::at(Path::new("/nonexistent"))
}

fn opened(name: &str) -> BaseModel {
    BaseModel::open_with(name, &[&fixture("models")], None, &nowhere()).expect("a sound model")
}

/// The error as it is shown.
fn shown(error: &HubError) -> String {
    with_hint(&error.to_string(), &error.hint().expect("a hint"))
}

fn refused(folder: &Scratch, name: &str) -> String {
    let opened = BaseModel::open_with(name, &[folder.path()], None, &nowhere());
    let text = shown(&opened.expect_err("must be refused"));
    assert!(text.contains("\nhint: "), "{text}");
    text
}

/// Opens weights of one file with these bytes and returns the error.
fn refused_weights(name: &str, file: &[u8]) -> String {
    let folder = Scratch::new(name);
    folder.write("model.safetensors", file);
    let text = shown(&Weights::open(folder.path()).expect_err("must be refused"));
    assert!(text.contains("model.safetensors: ") && text.contains("\nhint: "), "{text}");
    text
}

const ONE: &str = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;

#[test]
fn shards_equal_the_single_file() {
    let (single, sharded) = (opened("qwen3"), opened("qwen3_sharded"));
    let (single, sharded) = (single.weights.expect("weights"), sharded.weights.expect("weights"));
    assert!(single.names().eq(sharded.names()));
    assert_eq!((single.files().len(), sharded.files().len()), (1, 2));
    assert_eq!(single.total_bytes(), sharded.total_bytes());
    for name in single.names() {
        assert_eq!(single.bytes(name).expect("bytes"), sharded.bytes(name).expect("bytes"), "{name}");
    }
}

#[test]
fn bf16_and_f16_decode_to_the_nearest_f32() {
    let (exact, rounded) = (opened("llama31"), opened("llama31_bf16"));
    let (exact, rounded) = (exact.weights.expect("weights"), rounded.weights.expect("weights"));
    let name = exact.names().last().expect("a tensor");
    assert_eq!(rounded.info(name).map(|info| info.dtype), Some(Dtype::BF16));
    let exact = exact.to_f32(name).expect("f32");
    let expected: Vec<f32> = exact.into_iter().map(|value| half::bf16::from_f32(value).to_f32()).collect();
    assert_eq!(rounded.to_f32(name).expect("bf16"), expected);
    let folder = Scratch::new("hub-f16");
    let mut file = safetensors(r#"{"a":{"dtype":"F16","shape":[2],"data_offsets":[0,4]}}"#, 0);
    file.extend([half::f16::from_f32(-1.5), half::f16::INFINITY].into_iter().flat_map(half::f16::to_le_bytes));
    folder.write("model.safetensors", file);
    let weights = Weights::open(folder.path()).expect("a sound file").expect("weights");
    assert_eq!(weights.to_f32("a").expect("f16"), [-1.5, f32::INFINITY]);
    let text = shown(&weights.to_finite_f32("a").expect_err("infinite"));
    assert!(text.contains("tensor `a` has the value `inf` at element 1"), "{text}");
    assert!(weights.bytes("b").is_err());
}

#[test]
fn non_finite_values_are_found_where_they_are() {
    let mut values = vec![f32::MAX; 10_000];
    assert_eq!(find_non_finite(&values), None);
    values[9_000] = f32::NAN;
    assert_eq!(find_non_finite(&values), Some(9_000));
    values[4_096] = f32::NEG_INFINITY;
    assert_eq!(find_non_finite(&values), Some(4_096));
    assert_eq!(find_non_finite(&[]), None);
}

#[test]
fn integers_are_refused_by_name_when_decoded() {
    let folder = Scratch::new("hub-integers");
    let header = r#"{"a":{"dtype":"I64","shape":[1],"data_offsets":[0,8]}}"#;
    folder.write("model.safetensors", safetensors(header, 8));
    let weights = Weights::open(folder.path()).expect("a sound file").expect("weights");
    let text = shown(&weights.to_f32("a").expect_err("integers"));
    assert!(text.contains("tensor `a` is `I64`; F32, BF16 and F16 are accepted"), "{text}");
}

#[test]
fn a_truncated_file_says_both_lengths() {
    let text = refused_weights("hub-truncated", &safetensors(ONE, 5));
    let (promised, actual) = (8 + ONE.len() + 8, 8 + ONE.len() + 5);
    assert!(
        text.contains(&format!("truncated: the header promises {promised} bytes, the file has {actual}")),
        "{text}"
    );
    assert!(text.contains("hint: download the file again"), "{text}");
    let file = safetensors(ONE, 8);
    // Cut anywhere, it is an error and no panic.
    for length in 0..file.len() {
        refused_weights("hub-cut", &file[..length]);
    }
}

#[test]
fn no_damaged_byte_of_a_header_panics() {
    let folder = Scratch::new("hub-damage");
    let file = safetensors(ONE, 8);
    for position in 0..file.len() - 8 {
        for byte in [0, 1, b'"', b'9', b'}', 0xff] {
            let mut damaged = file.clone();
            damaged[position] = byte;
            folder.write("model.safetensors", damaged);
            if let Ok(Some(weights)) = Weights::open(folder.path()) {
                let lengths = weights.tensors().map(|(name, info)| (weights.bytes(name), info));
                for (bytes, info) in lengths {
                    assert_eq!(bytes.expect("bytes").len(), info.len_bytes());
                }
            }
        }
    }
}

#[test]
fn a_header_that_lies_is_refused_with_file_and_tensor() {
    let cases = [
        (r#"{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}"#, "shape [3] of F32 takes 12 bytes"),
        (r#"{"a":{"dtype":"F99","shape":[2],"data_offsets":[0,8]}}"#, "tensor `a`: unknown dtype `F99`"),
        (r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}}"#, "end before they begin"),
        (r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0]}}"#, "`data_offsets` has 1 numbers"),
        (r#"{"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}}"#, "no `shape` of whole numbers"),
        (r#"{"a":{"dtype":"F32","shape":[2]}}"#, "no `data_offsets`"),
        (r#"{"a":{"shape":[2],"data_offsets":[0,8]}}"#, "no `dtype`"),
        (r#"{"a":7}"#, "expected an object with `dtype`"),
        (
            r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{"dtype":"U8","shape":[0],"data_offsets":[8,8]}}"#,
            "tensor `a`: is written twice",
        ),
        (r#"{"a":{"dtype":"F32","shape":["2"],"data_offsets":[0,8]}}"#, "expected a JSON number"),
        (r#"{"a":{"dtype":7,"shape":[2],"data_offsets":[0,8]}}"#, "expected a string"),
        (r#"{"a":{"dtype":"F4","shape":[3],"data_offsets":[0,2]}}"#, "takes 2 bytes, but"),
        (
            r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296,4294967296],"data_offsets":[0,8]}}"#,
            "larger than any memory",
        ),
        (
            r#"{"a":{"dtype":"U8","shape":[18446744073709551615],"data_offsets":[0,18446744073709551615]}}"#,
            "larger than any memory",
        ),
        (
            r#"{"a":{"dtype":"U8","shape":[1152921504606846975],"data_offsets":[0,1152921504606846975]}}"#,
            "truncated: the header promises",
        ),
        (
            r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[18446744073709551614,18446744073709551615]}}"#,
            "truncated: the header promises 18,446,744,073,709,551,615 bytes",
        ),
        (
            r#"{"a":{"dtype":"U8","shape":[5],"data_offsets":[0,5]},"b":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}}"#,
            "tensor `b`: begins at byte 4 of the data and overlaps",
        ),
        (
            r#"{"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},"b":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}}"#,
            "tensor `b`: begins at byte 4 of the data and leaves a gap",
        ),
        (r#"{"a":{"dtype":"U8","shape":[7],"data_offsets":[0,7]}}"#, "1 bytes after its last tensor"),
        ("[]", "expected a JSON object"),
        ("{", "not JSON"),
    ];
    for (header, expected) in cases {
        let text = refused_weights("hub-lies", &safetensors(header, 8));
        assert!(text.contains(expected), "{expected} in {text}");
    }
    let many = format!(r#"{{"a":{{"dtype":"U8","shape":[{}8],"data_offsets":[0,8]}}}}"#, "1,".repeat(1_000));
    assert!(refused_weights("hub-dimensions", &safetensors(&many, 8)).contains("no `shape` of whole numbers"));
    let letters = safetensors("{\"\u{1}", 8).into_iter().map(|byte| if byte == 1 { 0xff } else { byte });
    assert!(refused_weights("hub-letters", &letters.collect::<Vec<u8>>()).contains("header is not JSON"));
    assert!(refused_weights("hub-nested", &safetensors(&"[".repeat(100_000), 8)).contains("header is not"));
    let mut long = safetensors(ONE, 8);
    long[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(refused_weights("hub-long", &long).contains("at most 100000000 are accepted"));
    long[..8].copy_from_slice(&1000_u64.to_le_bytes());
    assert!(refused_weights("hub-longer", &long).contains("truncated: the header promises 1,008 bytes"));
    assert!(refused_weights("hub-lfs", b"version https://git-lfs.github.com/spec/v1\n").contains("Git LFS pointer"));
    assert!(refused_weights("hub-empty", b"").contains("0 bytes"));
}

#[test]
fn tensors_without_elements_are_read_as_such() {
    let folder = Scratch::new("hub-zero");
    let header = r#"{"a":{"dtype":"F32","shape":[0,7],"data_offsets":[0,0]},"b":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}"#;
    folder.write("model.safetensors", safetensors(header, 4));
    let weights = Weights::open(folder.path()).expect("a sound file").expect("weights");
    assert_eq!((weights.to_f32("a").expect("none").len(), weights.to_f32("b").expect("one").len()), (0, 1));
    folder.write("model.safetensors", safetensors("{}", 0));
    assert_eq!(Weights::open(folder.path()).expect("a sound file").expect("weights").names().count(), 0);
}

#[test]
fn weights_that_change_after_they_were_opened_are_found_out() {
    let folder = Scratch::new("hub-changed");
    folder.write("model.safetensors", safetensors(ONE, 8));
    let weights = Weights::open(folder.path()).expect("a sound file").expect("weights");
    weights.unchanged().expect("nothing happened");
    folder.write("other", safetensors(ONE, 8));
    std::fs::rename(folder.path().join("other"), folder.path().join("model.safetensors")).expect("own folder");
    let text = shown(&weights.unchanged().expect_err("another file"));
    assert!(text.contains("model.safetensors: the file changed while it was being read\nhint: "), "{text}");
}

#[cfg(unix)]
#[test]
fn links_that_lead_nowhere_and_files_that_are_none_are_refused() {
    use std::os::unix::fs::symlink;
    let folder = Scratch::new("hub-links");
    folder.write("m/config.json", "{}");
    let weights = folder.path().join("m/model.safetensors");
    symlink("model.safetensors", &weights).expect("a link to itself");
    assert!(refused(&folder, "m").contains("m/model.safetensors: "));
    std::fs::remove_file(&weights).expect("own file");
    symlink("/dev/zero", &weights).expect("a link to a device");
    assert!(refused(&folder, "m").contains("m/model.safetensors: cannot be read: it is not a regular file"));
    std::fs::remove_file(folder.path().join("m/config.json")).expect("own file");
    symlink("/dev/zero", folder.path().join("m/config.json")).expect("a link to a device");
    assert!(refused(&folder, "m").contains("m/config.json: cannot be read: it is not a regular file"));
}

#[test]
fn an_index_must_fit_its_shards() {
    let folder = Scratch::new("hub-index");
    folder.write("m/config.json", "{}");
    folder.write("m/one.safetensors", safetensors(ONE, 8));
    let cases = [
        (json!({ "weight_map": { "a": "one.safetensors", "b": "two.safetensors" } }), "shard `two.safetensors`, which"),
        (json!({ "weight_map": { "a": "one.safetensors", "b": "one.safetensors" } }), "the tensor `b`, which"),
        (json!({ "weight_map": { "a": "../one.safetensors" } }), "a file name is accepted"),
        (json!({ "weight_map": { "a": "/etc/passwd" } }), "a file name is accepted"),
        (json!({ "weight_map": { "a": "..\\one.safetensors" } }), "a file name is accepted"),
        (json!({ "weight_map": { "a": "" } }), "a file name is accepted"),
        (json!({ "weight_map": { "a": 1 } }), "a file name is accepted"),
        (json!({ "weight_map": [] }), "no `weight_map`"),
        (json!([]), "does not hold a JSON object"),
    ];
    for (index, expected) in cases {
        folder.write("m/model.safetensors.index.json", index.to_string());
        let text = refused(&folder, "m");
        assert!(text.contains("index.json: ") && text.contains(expected), "{expected} in {text}");
    }
    folder.write("m/two.safetensors", safetensors(ONE, 8));
    let index = json!({ "weight_map": { "a": "one.safetensors", "b": "two.safetensors" } });
    folder.write("m/model.safetensors.index.json", index.to_string());
    assert!(refused(&folder, "m").contains("tensor `a`: is also in `"));
}

#[test]
fn folders_that_are_no_base_model_are_refused() {
    let folder = Scratch::new("hub-folders");
    folder.write("adapter/adapter_config.json", r#"{"base_model_name_or_path": "org/base"}"#);
    assert!(refused(&folder, "adapter").contains("holds an adapter (of base model `org/base`)"));
    folder.write("empty/README.md", "");
    assert!(refused(&folder, "empty").contains("no `config.json`"));
    folder.write("pickled/config.json", "{}");
    folder.write("pickled/pytorch_model.bin", "");
    assert!(refused(&folder, "pickled").contains("pickled weights can run code"));
    folder.write("unlisted/config.json", "{}");
    folder.write("unlisted/model-00001-of-00002.safetensors", "");
    assert!(refused(&folder, "unlisted").contains("download `model.safetensors.index.json`"));
    folder.write("broken/config.json", "{\"a\": 1,\n}");
    assert!(refused(&folder, "broken").contains("line 2 column 1"));
    assert!(refused(&folder, "broken/config.json").contains("is a file"));
    assert!(refused(&folder, "nothing/there/at/all").contains("is neither a folder nor"));
    assert!(refused(&folder, "org/absent").contains("hint: without `--offline`"));
    assert!(refused(&folder, "").contains("looked at nothing"));
    assert!(refused(&folder, "..\0").contains("is neither a folder nor"));
}

#[test]
fn a_name_leads_through_the_cache_to_a_snapshot() {
    let folder = Scratch::new("hub-cache");
    let model = "models--org--name";
    folder.write(&format!("{model}/refs/main"), "abc123\n");
    folder.write(&format!("{model}/snapshots/abc123/config.json"), "{\"model_type\": \"x\"}");
    folder.write(&format!("{model}/snapshots/def456/README.md"), "");
    let cache = HubCache::at(folder.path());
    let open = |name: &str, revision: Option<&str>| BaseModel::open_with(name, &[], revision, &cache);
    let refused = |revision| shown(&open("org/name", revision).expect_err("must be refused"));
    let partial = refused(None);
    assert!(partial.contains("no weights in this snapshot of `org/name`\nhint: without `--offline`"), "{partial}");
    folder.write(&format!("{model}/snapshots/abc123/model.safetensors"), safetensors(ONE, 8));
    for revision in [None, Some("main"), Some("abc123")] {
        let base = open("org/name", revision).expect("a snapshot");
        assert_eq!((base.name.as_str(), base.revision.as_deref()), ("org/name", Some("abc123")));
        assert_eq!(base.config["model_type"], "x");
    }
    assert!(refused(Some("v2")).contains("revision `v2` of `org/name` is not in the cache"));
    assert!(refused(Some("../../x")).contains("is not in the cache"));
    assert!(refused(Some("def456")).contains("hint: without `--offline`"));
    assert!(open("../name", None).is_err());
    let of_folder = BaseModel::open_with("qwen3", &[&fixture("models")], Some("main"), &cache);
    assert!(shown(&of_folder.expect_err("a folder")).contains("only a model of the Hugging Face cache"));
}

#[test]
fn earlier_roots_win_and_absolute_paths_stand() {
    let folder = Scratch::new("hub-roots");
    folder.write("first/m/config.json", "{\"at\": 1}");
    folder.write("second/m/config.json", "{\"at\": 2}");
    let (first, second) = (folder.path().join("first"), folder.path().join("second"));
    let open = |name: &str| BaseModel::open_with(name, &[&first, &second], None, &nowhere()).expect("a model");
    assert_eq!(open("m").config["at"], 1);
    assert!(open("m").weights.is_none());
    assert_eq!(open(&second.join("m").to_string_lossy()).config["at"], 2);
}

#[test]
fn end_ids_come_from_generation_config_first() {
    assert_eq!(opened("llama31").eos_token_ids().expect("ids"), [377, 381, 382]);
    let mut base = opened("mistral_sw");
    assert_eq!(base.eos_token_ids().expect("ids"), [2]);
    base.generation_config = Some(json!({ "eos_token_id": [7, 8], "pad_token_id": -1 }));
    assert_eq!(base.eos_token_ids().expect("ids"), [7, 8]);
    assert_eq!(base.token_ids("pad_token_id").expect("ids"), [0u32; 0]);
    base.generation_config = Some(json!({ "eos_token_id": null }));
    assert_eq!(base.eos_token_ids().expect("ids"), [2]);
    base.config["eos_token_id"] = json!("</s>");
    assert!(shown(&base.eos_token_ids().expect_err("a text")).contains("`eos_token_id` is `\"</s>\"`"));
}

#[test]
fn the_files_of_a_tokenizer_are_found() {
    let files = super::tokenizer_files(&opened("qwen3").folder);
    let names: Vec<String> =
        files.iter().map(|path| path.file_name().expect("a file").to_string_lossy().into_owned()).collect();
    assert_eq!(names, ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"]);
}
