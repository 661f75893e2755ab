#!/bin/bash
# The Rust crate csv 1.4.0 gives lines of records that are not an editor's: in a file with CRLF the LF is counted with the
# record that follows it, so that `Position::line()` of every record after the first is one too small, and blank lines before
# a record are not counted for it, with LF as with CRLF. An error message built from it names another line than the mistake's.
# `Position::byte()` is off in the same way: it points at what is left of the line's end, not at the record.
#
# Seen: for the three records of "a,b", "1,2", "3,4" the lines are 1, 2, 3 with LF and 1, 1, 2 with CRLF; with a blank line
# before the last record, which is on line 4, they are 1, 2, 3 and 1, 1, 2.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/src"
cat > "$work/Cargo.toml" <<'TOML'
[package]
name = "lines"
version = "0.0.0"
edition = "2021"

[dependencies]
csv = "=1.4.0"
TOML
cat > "$work/src/main.rs" <<'RUST'
use csv::ReaderBuilder;

fn main() -> Result<(), csv::Error> {
    for (text, editor, expected) in [
        ("a,b\n1,2\n3,4\n", [1, 2, 3], [1, 2, 3]),
        ("a,b\r\n1,2\r\n3,4\r\n", [1, 2, 3], [1, 1, 2]),
        ("a,b\n1,2\n\n3,4\n", [1, 2, 4], [1, 2, 3]),
        ("a,b\r\n1,2\r\n\r\n3,4\r\n", [1, 2, 4], [1, 1, 2]),
    ] {
        let (mut lines, mut starts) = (Vec::new(), Vec::new());
        for record in ReaderBuilder::new().has_headers(false).from_reader(text.as_bytes()).byte_records() {
            let position = record?.position().expect("a position").clone();
            lines.push(position.line());
            starts.push(text.as_bytes()[position.byte() as usize] as char);
        }
        println!("{text:?}: lines {lines:?}, an editor's {editor:?}; the positions point at {starts:?}");
        assert_eq!(lines, expected, "the lines are others now");
        for ((line, place), start) in lines.into_iter().zip(editor).zip(starts) {
            assert_eq!(line != place, start == '\n', "the bytes are others now");
        }
    }
    Ok(())
}
RUST
cd "$work"
CARGO_TARGET_DIR=$work/target cargo run --quiet
