//! The claims of reading: every container gives the same rows, and damage is named, never a panic.

use std::io::Write;

use std::sync::Arc;

use ::parquet::arrow::ArrowWriter;
use arrow_array::builder::{Int32Builder, ListBuilder, MapBuilder, StringBuilder, StructBuilder};
use arrow_array::types::Int8Type;
use arrow_array::{
    ArrayRef, BinaryArray, Date32Array, Decimal128Array, DictionaryArray, Int64Array, ListArray, RecordBatch,
    StringArray, StructArray, TimestampMillisecondArray,
};
use arrow_buffer::OffsetBuffer;
use arrow_ipc::writer::{FileWriter, StreamWriter};
use arrow_schema::{DataType, Field, Fields, Schema};
use serde_json::json;

use super::*;
use crate::reading::row::NOT_A_NUMBER;
use crate::test_tokenizer::Folder;

/// Every row of a file with its place, or what is wrong with the file or with a row.
fn read_as(path: &Path, kind: Kind) -> Result<Vec<(String, Value)>, String> {
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    let short = |error: Error| error.shown().replace(&format!("{}/", path.parent().unwrap().display()), "");
    let opened = open(path, kind).map_err(short)?;
    let mut rows = Vec::new();
    for row in opened.rows {
        let row = row.map_err(short)?;
        let place = opened.unit.place(&name, row.number);
        let columns = row.parse().map_err(|problem| format!("{place}: {}\nhint: {}", problem.problem, problem.hint))?;
        rows.push((place, Value::Object(columns.columns)));
    }
    Ok(rows)
}

fn read(path: &Path) -> Result<Vec<(String, Value)>, String> {
    read_as(path, Kind::of_name(path).unwrap())
}

fn rows_of(name: &str, bytes: &[u8]) -> Result<Vec<(String, Value)>, String> {
    let folder = Folder::new();
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    read(&path)
}

fn places(name: &str, text: &str) -> Vec<String> {
    rows_of(name, text.as_bytes()).unwrap().into_iter().map(|(place, _)| place).collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Two rows: a text, a number, and messages of which one has a field that the other lacks.
fn batch() -> RecordBatch {
    let fields =
        Fields::from(vec![Field::new("role", DataType::Utf8, true), Field::new("content", DataType::Utf8, true)]);
    let columns = vec![Box::new(StringBuilder::new()) as _, Box::new(StringBuilder::new()) as _];
    let mut messages = ListBuilder::new(StructBuilder::new(fields, columns));
    for content in [Some("Hi"), None] {
        let message = messages.values();
        message.field_builder::<StringBuilder>(0).unwrap().append_value("user");
        message.field_builder::<StringBuilder>(1).unwrap().append_option(content);
        message.append(true);
        messages.append(true);
    }
    RecordBatch::try_from_iter([
        ("text", Arc::new(StringArray::from(vec![Some("a"), None])) as ArrayRef),
        ("id", Arc::new(Int64Array::from(vec![1, 2])) as ArrayRef),
        ("messages", Arc::new(messages.finish()) as ArrayRef),
        ("picture", Arc::new(BinaryArray::from_vec(vec![b"x", b"y"])) as ArrayRef),
    ])
    .unwrap()
}

fn wanted_of_batch(name: &str) -> Vec<(String, Value)> {
    vec![
        (format!("{name}: row 1"), json!({"text": "a", "id": 1, "messages": [{"role": "user", "content": "Hi"}]})),
        (format!("{name}: row 2"), json!({"text": null, "id": 2, "messages": [{"role": "user"}]})),
    ]
}

fn parquet_bytes(batch: &RecordBatch) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
    bytes
}

fn arrow_bytes(batch: &RecordBatch) -> (Vec<u8>, Vec<u8>) {
    let mut file = FileWriter::try_new(Vec::new(), &batch.schema()).unwrap();
    let mut stream = StreamWriter::try_new(Vec::new(), &batch.schema()).unwrap();
    file.write(batch).unwrap();
    stream.write(batch).unwrap();
    (file.into_inner().unwrap(), stream.into_inner().unwrap())
}

#[test]
fn json_is_read_by_line_as_an_array_over_lines_and_as_columns() {
    let lines = "\u{feff}{\"a\": 1}\r\n\n{\"a\": 2}\n";
    assert_eq!(places("a.jsonl", lines), ["a.jsonl:1", "a.jsonl:3"]);
    assert_eq!(places("a.json", lines), ["a.json:1", "a.json:3"]);
    let array = "[\n {\"a\": \"]\\\"}\"},\n {\n\"a\": [2]\n},{\"b\": 1}\n]\n";
    assert_eq!(places("a.json", array), ["a.json:2", "a.json:3", "a.json:5"]);
    assert_eq!(places("a.json", "[{\"a\": 1}, {\"a\": 2}]"), ["a.json: row 1", "a.json: row 2"]);
    assert_eq!(places("a.json", "{\n \"a\": 1\n}\n{\"a\":\n 2}"), ["a.json:1", "a.json:4"]);
    let columns = "{\n\"a\": [1, 2],\n\"messages\": [[], [3]]\n}";
    assert_eq!(
        rows_of("a.json", columns.as_bytes()).unwrap(),
        [
            ("a.json: row 1".to_owned(), json!({"a": 1, "messages": []})),
            ("a.json: row 2".to_owned(), json!({"a": 2, "messages": [3]})),
        ]
    );
}

#[test]
fn a_single_object_is_a_row_if_its_columns_are_lists_of_objects() {
    for one_row in [
        r#"{"messages": [{"role": "user"}, {"role": "assistant"}]}"#,
        r#"{"prompt": [{"role": "user"}], "completion": [{"role": "assistant"}]}"#,
        r#"{"turns": [{"role": "user"}, {"role": "assistant"}]}"#,
        r#"{"turns": [{"role": "user"}, {"role": "assistant"}], "tags": ["a", "b"]}"#,
        r#"{"messages": [], "tools": []}"#,
        r#"{"segments": [{"text": "a", "label": true}]}"#,
        r#"{"input_ids": [1, 2], "labels": [1, 2]}"#,
    ] {
        let wanted: Value = serde_json::from_str(one_row).unwrap();
        for name in ["a.jsonl", "a.json"] {
            for text in [one_row.to_owned(), format!("{one_row}\n"), serde_json::to_string_pretty(&wanted).unwrap()] {
                assert_eq!(rows_of(name, text.as_bytes()).unwrap(), [(format!("{name}:1"), wanted.clone())], "{text}");
            }
        }
    }
    for table in [
        r#"{"prompt": ["a", "b"], "completion": ["c", "d"]}"#,
        r#"{"messages": [[{"role": "user"}], [{"role": "user"}]]}"#,
        r#"{"text": ["a", "b"], "score": [1, NaN]}"#,
    ] {
        assert_eq!(places("a.json", table), ["a.json: row 1", "a.json: row 2"], "{table}");
    }
}

#[test]
fn numbers_that_only_python_writes_are_no_matter_and_stand_for_themselves() {
    let name = |name: &str| json!({ (NOT_A_NUMBER): name });
    let row = r#"{"a": NaN, "b": [1, -Infinity], "c": {"d":Infinity}, "text": "NaN, \"Infinity"}"#;
    let wanted =
        json!({"a": name("NaN"), "b": [1, name("-Infinity")], "c": {"d": name("Infinity")}, "text": "NaN, \"Infinity"});
    let read = |file: &str, text: String| rows_of(file, text.as_bytes()).unwrap().into_iter().map(|(_, row)| row);
    assert!(read("a.jsonl", format!("{row}\n{row}\n")).eq([wanted.clone(), wanted.clone()]));
    assert!(read("a.json", format!("[{row},\n{row}]")).eq([wanted.clone(), wanted.clone()]));
    assert!(read("a.json", row.replace(", \"", ",\n\"")).eq([wanted]));
    refused("a.jsonl", b"{\"a\": NaN, \"b\": }\n", "a.jsonl:1: broken JSON: expected value", "");
    refused("a.jsonl", b"{\"a\": Nan}\n", "a.jsonl:1: broken JSON: expected value", "");
    refused("a.jsonl", b"{'a': None}\n", "a.jsonl:1: broken JSON: ", "write rows with `json.dumps`");
}

#[test]
fn csv_tsv_and_text_are_read_with_their_lines() {
    let csv = "\u{feff}prompt,completion\n\"a, \"\"b\"\"\n c\",d\ne,\n";
    assert_eq!(
        rows_of("a.csv", csv.as_bytes()).unwrap(),
        [
            ("a.csv:2".to_owned(), json!({"prompt": "a, \"b\"\n c", "completion": "d"})),
            ("a.csv:4".to_owned(), json!({"prompt": "e", "completion": ""})),
        ]
    );
    assert_eq!(rows_of("a.tsv", b"x\ty\n1\t2\n").unwrap(), [("a.tsv:2".to_owned(), json!({"x": "1", "y": "2"}))]);
    assert_eq!(places("a.txt", "one\n\n  \ntwo"), ["a.txt:1", "a.txt:4"]);
}

#[test]
fn records_have_the_lines_that_editors_show_whatever_ends_them() {
    let lf = "a,b\n1,2\n\n\"x\ny\",3\n  \n4,5\n";
    for (ending, name) in [("\n", "lf"), ("\r\n", "crlf"), ("\r", "cr")] {
        let text = lf.replace('\n', ending);
        assert_eq!(places("a.csv", &text), ["a.csv:2", "a.csv:4", "a.csv:7"], "{name}");
        let marked = format!("\u{feff}{ending}{text}");
        assert_eq!(places("a.csv", &marked), ["a.csv:3", "a.csv:5", "a.csv:8"], "{name}, blank line and mark first");
        let bad = format!("{text}6,7,8{ending}");
        refused("a.csv", bad.as_bytes(), "a.csv:8: the record has 3 fields", "");
        let header = format!("\"a{ending}b\",c{ending}1,2{ending}");
        assert_eq!(places("a.csv", &header), ["a.csv:3"], "{name}, a header over two lines");
        let compressed = gzip(text.as_bytes());
        assert_eq!(rows_of("a.csv.gz", &compressed).unwrap()[2].0, "a.csv.gz:7", "{name}");
    }
    // Ends of both kinds in one file, and none at the end.
    assert_eq!(places("a.csv", "a\r\n1\n2\r3"), ["a.csv:2", "a.csv:3", "a.csv:4"]);
    // Longer than a buffer of the file.
    let long = format!("a\r\n{}", "\"x\r\ny\"\r\n".repeat(60_000));
    assert_eq!(places("a.csv", &long).last().unwrap(), "a.csv:120000");
}

#[test]
fn semicolons_and_tabs_are_read_as_separators_where_the_header_has_no_comma() {
    for (name, text, separator) in [
        ("a.csv", "x;y\n1;\"2;3\"\n", "`;`"),
        ("a.csv", "x\ty\r\n1\t\"2;3\"\r\n", "tabs"),
        ("a.csv", "\"x\";\"y\"\n1;\"2;3\"", "`;`"),
        ("a.tsv", "x,y\n1,2;3\n", "`,`"),
        ("a.csv", "x|y\n1|2;3\n", "`|`"),
    ] {
        let folder = Folder::new();
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        let opened = open(&path, Kind::of_name(&path).unwrap()).unwrap();
        assert_eq!(opened.notes, [format!("its fields are separated by {separator}")]);
        assert_eq!(read(&path).unwrap()[0].1, json!({"x": "1", "y": "2;3"}), "{text}");
    }
    let opened = |text: &str| rows_of("a.csv", text.as_bytes()).unwrap()[0].1.clone();
    assert_eq!(opened("x,\"y;z\"\n1,2\n"), json!({"x": "1", "y;z": "2"}));
    assert_eq!(opened("\"x;y\"\n1;2\n"), json!({"x;y": "1;2"}));
    assert_eq!(opened("text\na;b\n"), json!({"text": "a;b"}));
    refused("a.csv", b"x;y\n1;2;3\n", "a.csv:2: the record has 3 fields", "a field that holds semicolons");
}

#[test]
fn compressed_files_give_the_same_rows() {
    let plain = b"{\"a\": 1}\n{\"a\": 2}\n";
    let wanted: Vec<Value> = rows_of("a.jsonl", plain).unwrap().into_iter().map(|(_, row)| row).collect();
    let twice = [gzip(b"{\"a\": 1}\n"), gzip(b"{\"a\": 2}\n")].concat();
    for (name, bytes) in [
        ("a.jsonl.gz", gzip(plain)),
        ("a.json.gz", twice),
        ("a.jsonl.zst", zstd::encode_all(plain.as_slice(), 1).unwrap()),
    ] {
        let rows: Vec<Value> = rows_of(name, &bytes).unwrap().into_iter().map(|(_, row)| row).collect();
        assert_eq!(rows, wanted, "{name}");
    }
    assert!(rows_of("a.csv.gz", &gzip(b"a\n1\n")).is_ok());
    let batch = batch();
    let (file, stream) = arrow_bytes(&batch);
    for (name, bytes) in [
        ("a.parquet.gz", gzip(&parquet_bytes(&batch))),
        ("a.arrow.zst", zstd::encode_all(file.as_slice(), 1).unwrap()),
        ("a.arrow.gz", gzip(&stream)),
    ] {
        assert_eq!(rows_of(name, &bytes).unwrap(), wanted_of_batch(name));
    }
    refused("a.parquet.gz", &gzip(&parquet_bytes(&batch))[..60], "a.parquet.gz: the compressed data is damaged", "");
}

#[test]
fn parquet_and_arrow_give_their_rows_without_what_json_cannot_say() {
    let batch = batch();
    assert_eq!(rows_of("a.parquet", &parquet_bytes(&batch)).unwrap(), wanted_of_batch("a.parquet"));
    let (file, stream) = arrow_bytes(&batch);
    assert_eq!(rows_of("a.arrow", &file).unwrap(), wanted_of_batch("a.arrow"));
    assert_eq!(rows_of("a.arrow", &stream).unwrap(), wanted_of_batch("a.arrow"));
}

/// One row: messages with fields of types that no format reads, and columns of other types.
fn varied_batch() -> RecordBatch {
    let bytes = || Arc::new(BinaryArray::from_vec(vec![b"x"])) as ArrayRef;
    let text = |text: &str| Arc::new(StringArray::from(vec![text])) as ArrayRef;
    let structure = |fields: Vec<(&str, ArrayRef)>| {
        let fields = fields.into_iter();
        let pairs = fields.map(|(name, array)| (Arc::new(Field::new(name, array.data_type().clone(), true)), array));
        Arc::new(StructArray::from(pairs.collect::<Vec<_>>())) as ArrayRef
    };
    let list = |items: ArrayRef| {
        let field = Arc::new(Field::new("item", items.data_type().clone(), true));
        Arc::new(ListArray::new(field, OffsetBuffer::from_lengths([items.len()]), items, None)) as ArrayRef
    };
    let time = Arc::new(TimestampMillisecondArray::from(vec![5]).with_timezone("UTC"));
    let price = Decimal128Array::from(vec![125]).with_precision_and_scale(10, 2).unwrap();
    let image = structure(vec![("bytes", bytes()), ("path", text("a.png"))]);
    let role: DictionaryArray<Int8Type> = vec!["user"].into_iter().collect();
    let message = structure(vec![
        ("role", Arc::new(role)),
        ("content", text("Hi")),
        ("sent", time),
        ("images", list(image)),
        ("blobs", list(bytes())),
        ("meta", structure(vec![("day", Arc::new(Date32Array::from(vec![1]))), ("id", text("7"))])),
    ]);
    let mut tags = MapBuilder::new(None, Int32Builder::new(), StringBuilder::new());
    tags.keys().append_value(3);
    tags.values().append_value("c");
    tags.append(true).unwrap();
    RecordBatch::try_from_iter([
        ("messages", list(message)),
        ("price", Arc::new(price) as ArrayRef),
        ("tags", Arc::new(tags.finish()) as ArrayRef),
        ("picture", bytes()),
    ])
    .unwrap()
}

#[test]
fn fields_of_other_types_are_left_out_alone_and_named() {
    let batch = varied_batch();
    let (file, stream) = arrow_bytes(&batch);
    let wanted = json!({
        "messages": [{"role": "user", "content": "Hi", "images": [{"path": "a.png"}], "meta": {"id": "7"}}],
        "tags": {"3": "c"},
    });
    for (name, bytes) in [("a.parquet", parquet_bytes(&batch)), ("a.arrow", file), ("b.arrow", stream)] {
        let folder = Folder::new();
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(read(&path).unwrap()[0].1, wanted, "{name}");
        let notes = open(&path, Kind::of_name(&path).unwrap()).unwrap().notes;
        assert_eq!(
            notes,
            [
                "left out `messages[].sent` (timestamp), `messages[].images[].bytes` (bytes), `messages[].blobs[]` (bytes), \
                 `messages[].meta.day` (date), `price` (decimal), `picture` (bytes), of types that are not read"
            ],
            "{name}"
        );
    }
}

#[test]
fn an_arrow_file_whose_blocks_are_longer_than_it_is_refused_before_memory_is_asked_for() {
    let (mut file, _) = arrow_bytes(&batch());
    let end = file.len() - 10;
    let begin = end - u32::from_le_bytes(file[end..end + 4].try_into().unwrap()) as usize;
    let footer = arrow_ipc::root_as_footer(&file[begin..end]).unwrap();
    let length = footer.recordBatches().unwrap().get(0).bodyLength().to_le_bytes();
    let place = file[begin..end].windows(8).rposition(|bytes| bytes == length).unwrap();
    file[begin + place..][..8].copy_from_slice(&(1_i64 << 40).to_le_bytes());
    refused(
        "a.arrow",
        &file,
        "a.arrow: this is not an Arrow file, or it is damaged",
        "a block is longer than the file",
    );
}

#[test]
fn a_ds_type_wins_over_the_suffix() {
    let folder = Folder::new();
    let path = folder.write("rows.data", "a\tb\n1\t2\n");
    let kind = Kind::of_type(&path, "tsv", "recipe.yaml:3:5").unwrap();
    assert_eq!(read_as(&path, kind).unwrap()[0].1, json!({"a": "1", "b": "2"}));
}

/// Asserts that reading fails with a text that begins with one text, contains another, and has a hint.
fn refused(name: &str, bytes: &[u8], begins: &str, holds: &str) {
    let error = match rows_of(name, bytes) {
        Ok(rows) => panic!("{name} gave {} rows", rows.len()),
        Err(error) => error,
    };
    assert!(error.starts_with(begins) && error.contains(holds) && error.contains("\nhint: "), "{error}");
}

#[test]
fn broken_text_is_named_by_file_and_line() {
    refused("a.jsonl", b"{\"a\": 1}\n{\"a\": }\n", "a.jsonl:2: broken JSON: expected value", "column 7");
    refused("a.json", b"[\n{\"a\": 1},\n{\"a\" 2}\n]", "a.json:3: broken JSON: expected `:`", "");
    refused("a.json", b"[\n{\"a\": 1}\n{\"a\": 2}\n]", "a.json:3: broken JSON: expected `,` or `]`", "");
    refused("a.json", b"[{\"a\": 1}", "a.json:1: broken JSON: the array is not closed", "");
    refused("a.json", b"[{\"a\": 1},", "a.json:1: broken JSON: the array is not closed", "");
    refused("a.json", b"[{\"a\": 1},]x", "a.json:1: broken JSON: there is more text", "");
    refused("a.json", b"[1]", "a.json: row 1: the row is `1`, accepted is an object", "");
    refused("a.json", b"[{}] x", "a.json:1: broken JSON: there is more text", "");
    refused("a.json", b"{\n\"a\": [", "a.json:1: broken JSON: EOF", "");
    refused("a.jsonl", b"{}\n{\"a\": \"\xff\"}", "a.jsonl:2: the text is not valid UTF-8", "save the file as UTF-8");
    refused("a.jsonl", b"{}\n{\"a\": \"\0\"}", "a.jsonl:2: broken JSON: control character", "");
    refused("a.txt", b"a\nb\0\n", "a.txt:2: the row holds a NUL byte", "");
    refused("a.csv", b"a,b\n1,\xff\n", "a.csv:2: the text is not valid UTF-8", "");
    refused("a.csv", b"a,b\n1,2\n1,2,3\n", "a.csv:3: the record has 3 fields, the header names `a` and `b`", "");
    refused("a.csv", b"a,b\n1\n", "a.csv:2: the record has 1 field, the header", "");
    refused("a.csv", b"a,a\n1,2\n", "a.csv:1: the header names the column `a` twice", "");
    // In a moment: names are not compared with all others.
    let many: String = (0..300_000).map(|column| format!("c{column},")).collect();
    refused("a.csv", format!("{many}c9\n").as_bytes(), "a.csv:1: the header names the column `c9` twice", "");
    refused(
        "a.jsonl",
        "\u{feff}".encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>().as_slice(),
        "a.jsonl: the file begins like UTF-16",
        "UTF-8",
    );
}

#[test]
fn a_bomb_of_brackets_and_a_line_without_end_are_refused() {
    let bomb = "[".repeat(1_000_000);
    refused("a.jsonl", format!("{{\"a\": {bomb}\n").as_bytes(), "a.jsonl:1: broken JSON: recursion limit", "");
    refused("a.json", format!("[{bomb}").as_bytes(), "a.json: row 1: broken JSON: recursion limit", "");
    let long = vec![b'x'; MAX_ROW_BYTES + (1 << 20)];
    refused(
        "a.jsonl",
        &[b"{}\n{\"a\": \"".as_slice(), &long].concat(),
        "a.jsonl:2: the row is longer than the 64 MiB",
        "",
    );
    refused("a.json", &[b"[\n\"".as_slice(), &long].concat(), "a.json:2: the row is longer than the 64 MiB", "");
    refused("a.txt", &long, "a.txt:1: the row is longer than the 64 MiB", "");
    refused("a.csv", &[b"a\n\"".as_slice(), &long].concat(), "a.csv:2: the row is longer than the 64 MiB", "");
}

#[test]
fn files_of_another_kind_are_told_apart() {
    let parquet = parquet_bytes(&batch());
    refused("a.jsonl", &parquet, "a.jsonl: the file begins like parquet, but is read as JSON", "ds_type: parquet");
    refused("a.csv", &gzip(b"a"), "a.csv: the file begins like gzip, but is read as CSV", ".gz");
    refused("a.jsonl.gz", b"{}", "a.jsonl.gz: the compressed data is damaged", "");
    refused("a.parquet", b"{\"a\": 1}", "a.parquet: this is not a Parquet file, or it is damaged", "PAR1");
    refused("a.parquet", b"", "a.parquet: this is not a Parquet file, or it is damaged", "PAR1");
    refused("a.arrow", b"{\"a\": 1}", "a.arrow: this is not an Arrow file, or it is damaged", "");
}

#[test]
fn a_cut_or_scratched_file_is_an_error_or_its_rows_but_never_a_panic() {
    let rows: Vec<String> = (0..3000).map(|row| format!("{{\"a\": \"row {row} of many\", \"b\": {row}}}")).collect();
    let json = rows.join("\n").into_bytes();
    let texts = StringArray::from(rows);
    let batch = RecordBatch::try_from_iter([("text", Arc::new(texts) as ArrayRef)]).unwrap();
    let (file, stream) = arrow_bytes(&batch);
    let whole: [(&str, Vec<u8>); 6] = [
        ("a.jsonl", json.clone()),
        ("a.jsonl.gz", gzip(&json)),
        ("a.jsonl.zst", zstd::encode_all(json.as_slice(), 1).unwrap()),
        ("a.parquet", parquet_bytes(&batch)),
        ("a.arrow", file),
        ("b.arrow", stream),
    ];
    for (name, bytes) in whole {
        assert_eq!(rows_of(name, &bytes).unwrap().len(), 3000, "{name}");
        for step in 1..24 {
            let cut = &bytes[..bytes.len() * step / 24];
            match rows_of(name, cut) {
                Ok(rows) => assert!(rows.len() < 3000, "{name}"),
                Err(error) => assert!(error.contains("\nhint: "), "{name}: {error}"),
            }
            let mut scratched = bytes.clone();
            for offset in 0..8 {
                let at = (bytes.len() * step / 24 + offset * 7919) % bytes.len();
                scratched[at] ^= 0xA5;
            }
            if let Err(error) = rows_of(name, &scratched) {
                assert!(error.contains("\nhint: "), "{name}: {error}");
            }
        }
    }
}

#[test]
fn columns_of_mixed_types_are_each_what_they_are() {
    let rows = rows_of("a.jsonl", b"{\"a\": 1}\n{\"a\": \"b\"}\n{\"a\": null, \"b\": [1]}").unwrap();
    assert_eq!(rows[2].1, json!({"a": null, "b": [1]}));
    let schema = Schema::new(vec![Field::new("a", DataType::Null, true)]);
    let nulls = RecordBatch::try_new(Arc::new(schema), vec![Arc::new(arrow_array::NullArray::new(1))]).unwrap();
    assert_eq!(rows_of("a.parquet", &parquet_bytes(&nulls)).unwrap()[0].1, json!({"a": null}));
}
