//! Readers, formats and templates against damaged input: rows, an error, or nothing, but no panic and no hang.
//!
//! Sound files and templates are damaged at random, over and over; `TUNE_FUZZ_SECONDS` says for how long, without it
//! each target runs for a moment. A failure names the seed of the damage, which makes it again.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow_ipc::writer::{FileWriter, StreamWriter};
use datasets::{
    BatchSettings, Dataset, DatasetSettings, Message, SourceSettings, SpecialTokenOverrides, TemplateChoice, Tokenizer,
    named_templates,
};
use parquet::arrow::ArrowWriter;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Map, Value, json};

/// Longest that one input may take.
const LONGEST: Duration = Duration::from_secs(20);

/// Runs a target on input after input until the time is up.
fn for_a_while(name: &str, target: impl Fn(&mut ChaCha8Rng)) {
    let seconds = std::env::var("TUNE_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(1.0);
    let began = Instant::now();
    let mut seed = 0;
    while began.elapsed().as_secs_f64() < seconds {
        let started = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| target(&mut ChaCha8Rng::seed_from_u64(seed))));
        assert!(outcome.is_ok(), "{name}: seed {seed} panics");
        assert!(started.elapsed() < LONGEST, "{name}: seed {seed} takes {:?}", started.elapsed());
        seed += 1;
    }
    say(&format!("{name}: {seed} inputs"));
    assert!(seed > 0);
}

#[expect(clippy::print_stderr, reason = "how many inputs there were is what a person wants to know")]
fn say(text: &str) {
    eprintln!("{text}");
}

/// A folder that is removed when the test ends.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("datasets-fuzz-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn tokenizer(choice: &TemplateChoice) -> Result<Tokenizer, datasets::Error> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/tokenizers/llama3");
    Tokenizer::open(&folder, choice, &SpecialTokenOverrides::default(), &[], &[])
}

fn chat(index: usize) -> Value {
    json!({"messages": [
        {"role": "user", "content": format!("Question {index}: ä, \"quoted\"\n?")},
        {"role": "assistant", "content": "An answer.", "weight": 1},
    ]})
}

/// Sound files of every container, by name.
fn sound_files() -> Vec<(&'static str, Vec<u8>)> {
    let chats: Vec<Value> = (0..6).map(chat).collect();
    let lines: String = chats.iter().map(|row| format!("{row}\n")).collect();
    let tokens = "{\"input_ids\": [5, 6, 7], \"labels\": [-100, 6, 7], \"attention_mask\": [1, 1, 1]}\n".repeat(4);
    let segments = "{\"segments\": [{\"text\": \"a\", \"label\": false}, {\"text\": \"b\", \"label\": true}]}\n";
    let shared =
        "{\"conversations\": [{\"from\": \"human\", \"value\": \"Hi\"}, {\"from\": \"gpt\", \"value\": \"Ho\"}]}\n";
    let calls = json!({"messages": [
        {"role": "user", "content": [{"type": "text", "text": "Weather?"}]},
        {"role": "assistant", "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": {"a": 1}}}]},
        {"role": "tool", "content": "{\"degrees\": 3}"},
        {"role": "assistant", "content": "Cold."},
    ], "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]});
    let csv = "instruction,input,output\n\"Add, please\",1 2,3\n\"a\"\"b\",,c\n";
    let batch = RecordBatch::try_from_iter([
        ("prompt", Arc::new(StringArray::from(vec![Some("a"), None, Some("ß")])) as ArrayRef),
        ("completion", Arc::new(StringArray::from(vec!["x", "y", "z"])) as ArrayRef),
        ("id", Arc::new(Int64Array::from(vec![1, 2, 3])) as ArrayRef),
    ])
    .unwrap();
    let mut parquet = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut parquet, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let mut file = FileWriter::try_new(Vec::new(), &batch.schema()).unwrap();
    let mut stream = StreamWriter::try_new(Vec::new(), &batch.schema()).unwrap();
    file.write(&batch).unwrap();
    stream.write(&batch).unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(lines.as_bytes()).unwrap();
    vec![
        ("chat.jsonl", lines.clone().into_bytes()),
        ("chat.json", json!(chats).to_string().into_bytes()),
        ("columns.json", b"{\"prompt\": [\"a\", \"b\"], \"completion\": [\"c\", \"d\"]}".to_vec()),
        ("tokens.jsonl", tokens.into_bytes()),
        ("segments.jsonl", segments.repeat(4).into_bytes()),
        ("shared.jsonl", shared.repeat(4).into_bytes()),
        ("calls.jsonl", format!("{calls}\n").into_bytes()),
        ("rows.csv", csv.as_bytes().to_vec()),
        ("rows.tsv", csv.replace(',', "\t").into_bytes()),
        ("rows.txt", b"one text\nanother text\n".to_vec()),
        ("rows.parquet", parquet),
        ("file.arrow", file.into_inner().unwrap()),
        ("stream.arrow", stream.into_inner().unwrap()),
        ("chat.jsonl.gz", gzip.finish().unwrap()),
        ("chat.jsonl.zst", zstd::encode_all(lines.as_bytes(), 1).unwrap()),
    ]
}

/// Some bytes changed, left out, doubled or put in.
fn damage(bytes: &mut Vec<u8>, random: &mut ChaCha8Rng) {
    const PIECES: [&[u8]; 10] =
        [b"\0", b"\xff\xfe", b"{", b"[", b"\"", b"\\u", b"null", b"1e999", b"-9223372036854775809", b"\n\n"];
    for _ in 0..random.random_range(1..6) {
        let place = random.random_range(0..=bytes.len());
        let end = (place + random.random_range(0..40)).min(bytes.len());
        match random.random_range(0..6) {
            0 if place < bytes.len() => bytes[place] = random.random(),
            1 => bytes.truncate(place),
            2 => drop(bytes.drain(place..end)),
            3 => {
                let piece = bytes[place..end].to_vec();
                drop(bytes.splice(place..place, piece));
            }
            4 if place < bytes.len() => bytes[place] ^= 1 << random.random_range(0..8),
            _ => {
                let piece = PIECES[random.random_range(0..PIECES.len())];
                drop(bytes.splice(place..place, piece.iter().copied()));
            }
        }
    }
}

#[test]
fn damaged_files_are_rows_or_an_error() {
    let folder = Folder::new("files");
    let tokenizer = tokenizer(&TemplateChoice::Named("chatml".to_owned())).unwrap();
    let files = sound_files();
    for_a_while("files", |random| {
        let (name, sound) = &files[random.random_range(0..files.len())];
        let mut bytes = sound.clone();
        damage(&mut bytes, random);
        let path = folder.0.join(name);
        std::fs::write(&path, bytes).unwrap();
        let settings = DatasetSettings {
            sources: vec![SourceSettings::new(&path, "recipe.yaml:3:5")],
            batching: BatchSettings { packing: random.random(), ..BatchSettings::default() },
            ..DatasetSettings::default()
        };
        match Dataset::load(&settings, &tokenizer, &mut |_| {}) {
            Ok(dataset) => drop(dataset.batch_at(0)),
            Err(error) => assert!(error.to_string().contains("\nhint: "), "{error}"),
        }
    });
}

#[test]
fn damaged_templates_render_or_fail() {
    let of_name =
        |name: &str| tokenizer(&TemplateChoice::Named(name.to_owned())).unwrap().template_source().map(str::to_owned);
    let mut sound: Vec<String> = named_templates().filter_map(of_name).collect();
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/tokenizers");
    for entry in std::fs::read_dir(models).unwrap() {
        let text = std::fs::read(entry.unwrap().path().join("tokenizer_config.json")).unwrap_or_default();
        let config: Value = serde_json::from_slice(&text).unwrap_or_default();
        sound.extend(config["chat_template"].as_str().map(str::to_owned));
    }
    for_a_while("templates", |random| {
        let template = damaged_template(&sound, random);
        let Ok(tokenizer) = tokenizer(&TemplateChoice::Jinja(template)) else { return };
        let message = |random: &mut ChaCha8Rng| {
            let role = ["user", "assistant", "system", "tool", ""][random.random_range(0..5)];
            let mut message = Message::new(role, "text");
            message.content = match random.random_range(0..5) {
                0 => Value::Null,
                1 => json!([{"type": "text", "text": "part"}, {"type": "image"}]),
                2 => json!(3),
                _ => json!("some {{ text }} {% end %}"),
            };
            message
        };
        let messages: Vec<Message> = (0..random.random_range(0..5)).map(|_| message(random)).collect();
        let tools = json!([{"function": {"name": "f"}}]);
        let _ = tokenizer.render(&messages, Some(&tools).filter(|_| random.random()), random.random(), &Map::new());
    });
}

/// One of the templates with pieces of it or of others left out, doubled or swapped.
fn damaged_template(sound: &[String], random: &mut ChaCha8Rng) -> String {
    let pieces = |text: &str| -> Vec<String> { text.split_inclusive(['}', ' ', '(']).map(str::to_owned).collect() };
    let mut template = pieces(&sound[random.random_range(0..sound.len())]);
    let other = pieces(&sound[random.random_range(0..sound.len())]);
    for _ in 0..random.random_range(0..5) {
        let place = random.random_range(0..template.len().max(1)).min(template.len());
        match random.random_range(0..4) {
            0 if place < template.len() => drop(template.remove(place)),
            1 if place < template.len() => template.insert(place, template[place].clone()),
            2 => template.insert(place, "{% for m in messages %}{% for n in range(100000) %}x".to_owned()),
            _ => template.insert(place, other[random.random_range(0..other.len())].clone()),
        }
    }
    template.concat()
}
