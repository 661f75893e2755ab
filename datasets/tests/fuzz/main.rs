//! Readers, formats, tokenizers and templates against damaged input: rows, an error, or nothing, but no panic and no hang.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod damage;

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow_ipc::writer::{FileWriter, StreamWriter};
use datasets::{
    BatchSettings, Dataset, DatasetSettings, Message, SourceSettings, SpecialTokenOverrides, TemplateChoice, Tokenizer,
    named_templates,
};
use parquet::arrow::ArrowWriter;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use serde_json::{Map, Value, json};

use damage::{Folder, damage, damaged_json, for_a_while};

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
            Err(error) => assert!(!error.hint().is_empty(), "{error}"),
        }
    });
}

#[test]
fn damaged_templates_render_or_fail() {
    let of_name =
        |name: &str| tokenizer(&TemplateChoice::Named(name.to_owned())).unwrap().template_source().map(str::to_owned);
    let mut sound: Vec<String> = named_templates().filter_map(|known| of_name(known.name)).collect();
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

#[test]
fn damaged_tokenizers_encode_or_fail() {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/tokenizers");
    let json =
        |path: &Path| -> Value { serde_json::from_slice(&std::fs::read(path).unwrap_or_default()).unwrap_or_default() };
    let folders = std::fs::read_dir(models).unwrap().map(|entry| entry.unwrap().path());
    let files = |folder: std::path::PathBuf| {
        let [tokenizer, config] = ["tokenizer.json", "tokenizer_config.json"].map(|name| json(&folder.join(name)));
        // Words beyond the first few are all alike, and take time.
        let mut tokenizer = tokenizer;
        for list in ["/model/vocab", "/model/merges"] {
            match tokenizer.pointer_mut(list) {
                Some(Value::Array(items)) => items.truncate(300),
                Some(Value::Object(entries)) => *entries = std::mem::take(entries).into_iter().take(600).collect(),
                _ => {}
            }
        }
        (tokenizer, config)
    };
    let sound: Vec<(Value, Value)> = folders.map(files).collect();
    let folder = Folder::new("tokenizer");
    for_a_while("tokenizer.json and tokenizer_config.json", |random| {
        let (tokenizer, config) = &sound[random.random_range(0..sound.len())];
        let as_it_is = |value: &Value| value.to_string().into_bytes();
        let tokenizer = if random.random() { damaged_json(tokenizer, random) } else { as_it_is(tokenizer) };
        let config = if random.random() { damaged_json(config, random) } else { as_it_is(config) };
        std::fs::write(folder.0.join("tokenizer.json"), tokenizer).unwrap();
        std::fs::write(folder.0.join("tokenizer_config.json"), config).unwrap();
        let choice = TemplateChoice::TokenizerDefault;
        match Tokenizer::open(&folder.0, &choice, &SpecialTokenOverrides::default(), &[], &[]) {
            Err(error) => assert!(!error.hint().is_empty(), "{error}"),
            Ok(tokenizer) => {
                let ids = tokenizer.encode("Some text: ä 12345 <|im_end|>  \n\n'll", random.random());
                let _ = tokenizer.decode(&ids.unwrap_or_default());
                let _ = tokenizer.render(&[Message::new("user", "text")], None, true, &Map::new());
            }
        }
    });
}

/// One of the templates with pieces of it or of others left out, doubled or swapped.
fn damaged_template(sound: &[String], random: &mut ChaCha8Rng) -> String {
    let pieces = |text: &str| -> Vec<String> { text.split_inclusive(['}', ' ', '(']).map(str::to_owned).collect() };
    let mut template = pieces(&sound[random.random_range(0..sound.len())]);
    let other = pieces(&sound[random.random_range(0..sound.len())]);
    for _ in 0..random.random_range(0..5) {
        let place = random.random_range(0..template.len().max(1)).min(template.len());
        match random.random_range(0..5) {
            0 if place < template.len() => drop(template.remove(place)),
            1 if place < template.len() => template.insert(place, template[place].clone()),
            2 => template.insert(place, "{% for m in messages %}{% for n in range(100000) %}x".to_owned()),
            3 if random.random() => template.insert(0, sharing(random)),
            _ => template.insert(place, other[random.random_range(0..other.len())].clone()),
        }
    }
    template.concat()
}

/// A value that holds itself again and again, and something that is done with it.
fn sharing(random: &mut ChaCha8Rng) -> String {
    const MADE: [&str; 16] = [
        "[_, _]",
        "(_, _)",
        "{'a': _, 'b': _}",
        "{'a': _}",
        "{_: _}",
        "dict(a=_, b=_)",
        "namespace(a=_, b=_)",
        "_ + _",
        "[_] + [1]",
        "[_] * 3",
        "_ ~ _",
        "_.items()",
        "_[::-1]",
        "_[0]",
        "'{} {}'.format(_, _)",
        "messages + [_]",
    ];
    const FILTERS: [&str; 24] = [
        "list",
        "batch(3, _)",
        "slice(3, _)",
        "map('default', _, true)",
        "zip(_)",
        "items",
        "dictsort",
        "groupby('a')",
        "reverse",
        "sort",
        "unique",
        "join(_)",
        "tojson",
        "string",
        "pprint",
        "first",
        "sum",
        "max",
        "length",
        "replace(_, _)",
        "indent(9999)",
        "format(_)",
        "upper",
        "selectattr('a', 'eq', _)",
    ];
    const USES: [&str; 8] = [
        "{{ n.x == n.y }}",
        "{{ n.x < n.y }}",
        "{{ n.x }}",
        "{{ n.x ~ n.y }}",
        "{{ n.x in n.y }}",
        "{{ {n.x: 1} }}",
        "{{ n.x is eq(n.y) }}",
        "{{ {}[n.x] }}",
    ];
    let mut made = MADE[random.random_range(0..MADE.len())].to_owned();
    for _ in 0..random.random_range(0..3) {
        made = format!("({made}) | {}", FILTERS[random.random_range(0..FILTERS.len())]);
    }
    if random.random() {
        made = MADE[random.random_range(0..MADE.len())].replace('_', &format!("({made})"));
    }
    let times = random.random_range(1..99);
    let step = format!("{{% set n.x = {} %}}{{% set n.y = {} %}}", made.replace('_', "n.x"), made.replace('_', "n.y"));
    let used = USES[random.random_range(0..USES.len())];
    format!("{{% set n = namespace(x=['a'], y=['a']) %}}{{% for i in range({times}) %}}{step}{{% endfor %}}{used}")
}
