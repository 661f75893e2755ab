//! Damaged data files through the binary: file and row, what is wrong, a hint, exit code 2, never a panic.

use crate::harness::{Scratch, model};

/// Checks a recipe on a file of these bytes, which must be refused with a text that begins so.
fn refused(scratch: &Scratch, name: &str, bytes: &[u8], kind: &str, begins: &str) {
    scratch.write(name, bytes);
    let datasets = format!("\n  - path: {name}\n    type: {kind}");
    let recipe = scratch.recipe("recipe.yaml", &model("qwen3"), &[("datasets", &datasets)]);
    let finished = scratch.tune(&["check".as_ref(), recipe.as_os_str()]);
    assert_eq!(finished.code, Some(2), "{name}: {}", finished.stderr);
    let text =
        finished.stderr.replace(&format!("{}/", scratch.join("").display().to_string().trim_end_matches('/')), "");
    assert!(text.contains(&format!("error: {begins}")), "{name}: wanted {begins}\n{text}");
    assert!(text.contains("\nhint: ") && !text.contains("panicked"), "{name}: {text}");
    assert!(finished.stdout.is_empty(), "{name}");
}

#[test]
fn damaged_containers_are_named_by_file_and_row() {
    let scratch = Scratch::new("bad-data");
    let good = "{\"text\": \"a\"}\n";
    let check = |name: &str, bytes: &[u8], begins: &str| refused(&scratch, name, bytes, "completion", begins);
    // Truncated and of another kind.
    check("cut.parquet", b"PAR1 and then nothing", "cut.parquet: this is not a Parquet file, or it is damaged: ");
    check("none.parquet", good.as_bytes(), "none.parquet: this is not a Parquet file, or it is damaged: ");
    check("none.arrow", good.as_bytes(), "none.arrow: this is not an Arrow file, or it is damaged: ");
    check("cut.arrow", b"ARROW1\0\0 and then nothing", "cut.arrow: this is not an Arrow file, or it is damaged: ");
    check("none.jsonl", b"PAR1 and then nothing", "none.jsonl: the file begins like parquet, but is read as JSON");
    check("cut.jsonl.gz", b"\x1f\x8b\x08\0 cut", "cut.jsonl.gz: the compressed data is damaged: ");
    check("none.jsonl.zst", good.as_bytes(), "none.jsonl.zst: the compressed data is damaged: ");
    // Text that is none.
    check("bytes.jsonl", b"{\"text\": \"a\"}\n{\"text\": \"\xff\"}\n", "bytes.jsonl:2: the text is not valid UTF-8");
    check("bytes.csv", b"text\na\n\xff\n", "bytes.csv:3: the text is not valid UTF-8");
    check("bytes.txt", b"a\n\xff\n", "bytes.txt:2: the text is not valid UTF-8");
    check("nul.jsonl", b"{\"text\": \"a\0\"}\n", "nul.jsonl:1: broken JSON: control character");
    check("nul.csv", b"text\na\0b\n", "nul.csv:2: ");
    check("nul.txt", b"a\0b\n", "nul.txt:1: the row holds a NUL byte");
    // Structure.
    check("ragged.csv", b"text,id\na,1\nb\n", "ragged.csv:3: the record has 1 field, the header names `text` and `id`");
    check("mixed.jsonl", b"{\"text\": \"a\"}\n{\"text\": 3}\n{\"text\": [\"b\"]}\n", "mixed.jsonl:2: ");
    check("lacking.jsonl", b"{\"text\": \"a\"}\n{\"other\": \"a\"}\n", "lacking.jsonl:2: ");
    check("list.jsonl", b"{\"text\": \"a\"}\n[1, 2]\n", "list.jsonl:2: the row is a list, accepted is an object");
    let bomb = format!("{{\"text\": {}\n", "[".repeat(1_000_000));
    check("bomb.jsonl", bomb.as_bytes(), "bomb.jsonl:1: broken JSON: recursion limit");
    let wide = format!("{{\"text\": {}{}}}\n", "{\"a\":".repeat(100_000), "}".repeat(100_000));
    check("objects.jsonl", wide.as_bytes(), "objects.jsonl:1: broken JSON: ");
    check("empty.jsonl", b"", "empty.jsonl: ");
    check("empty.csv", b"text\n", "empty.csv: ");
}

#[test]
fn a_line_of_a_hundred_megabytes_is_refused_without_being_kept() {
    let scratch = Scratch::new("bad-data-line");
    let mut line = b"{\"text\": \"a\"}\n{\"text\": \"".to_vec();
    line.resize(100_000_000, b'x');
    line.extend(b"\"}\n");
    refused(&scratch, "long.jsonl", &line, "completion", "long.jsonl:2: the row is longer than the 64 MiB");
}

#[test]
fn columns_of_mixed_types_in_messages_are_refused_by_row() {
    let scratch = Scratch::new("bad-data-mixed");
    let good =
        "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", \"content\": \"b\"}]}\n";
    for (index, bad) in [
        "{\"messages\": \"a\"}",
        "{\"messages\": [1]}",
        "{\"messages\": [{\"role\": 1, \"content\": \"a\"}]}",
        "{\"messages\": [{\"role\": \"user\", \"content\": {\"a\": 1}}]}",
        "{\"messages\": []}",
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("mixed-{index}.jsonl");
        refused(&scratch, &name, format!("{good}{bad}\n").as_bytes(), "chat_template", &format!("{name}:2: "));
    }
}
