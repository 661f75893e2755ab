//! `tune preview`: examples with their trained parts marked, and counts, for people or as JSON.

use anyhow::{Result, bail};
use datasets::{Counts, Dataset, Preview, preview_of};
use serde_json::{Value, json};

use crate::hint::hinted;
use crate::hub::Hub;
use crate::plan::warnings;
use crate::recipe::Recipe;
use crate::report::{Report, printable};
use crate::run::{Failure, Prepared, prepare};
use crate::text::grouped;

/// Number of lines of the histogram of lengths.
const BARS: usize = 12;
/// The label of tokens that are not trained on, as torch's cross-entropy and pretokenized rows have it.
const UNTRAINED: i64 = -100;

/// The arguments of `tune preview`.
#[derive(Debug, Clone, Copy)]
pub struct PreviewOptions {
    /// Number of examples.
    pub rows: usize,
    /// If set, examples are drawn by the recipe's seed, else the first are taken.
    pub random: bool,
    /// Only the examples from this line of a file, or row of a table.
    pub line: Option<usize>,
    /// If set, one JSON object is printed.
    pub json: bool,
    /// If set, terminal colours mark the trained parts.
    pub colour: bool,
}

/// Prints examples with their trained parts marked, and the counts.
///
/// # Errors
/// When anything is wrong with the recipe, the tokenizer or the data.
pub fn preview(recipe: Recipe, options: PreviewOptions, hub: &Hub, report: &mut Report) -> Result<(), Failure> {
    let prepared = prepare(recipe, hub, report).map_err(Failure::of_preparation)?;
    let shown = examples(&prepared, options).map_err(Failure::Input)?;
    let counts = &prepared.dataset.counts;
    if options.json {
        let text = as_json(&shown, counts).map_err(|error| Failure::Work(error.into()))?;
        report.print(&text);
        return Ok(());
    }
    for example in shown {
        report.print(&as_text(&example, options.colour));
    }
    report.print(&table(counts));
    for warning in warnings(counts) {
        report.print(&format!("warning: {warning}\n"));
    }
    report.print("\ntokens per row, and number of rows:\n");
    report.print(&counts.length_histogram(BARS));
    Ok(())
}

fn examples(prepared: &Prepared, options: PreviewOptions) -> Result<Vec<Preview>> {
    let dataset: &Dataset = &prepared.dataset;
    let indices = match (options.line, options.random) {
        (Some(line), _) => {
            let indices = dataset.on_line(line);
            if indices.is_empty() {
                let nearest = match dataset.lines_around(line) {
                    (Some(before), Some(after)) => format!("those around it begin on the lines {before} and {after}"),
                    (Some(before), None) => format!("the last begins on line {before}"),
                    (None, Some(after)) => format!("the first begins on line {after}"),
                    (None, None) => "there is none".to_owned(),
                };
                bail!(hinted(
                    format!("no training example begins on line `{line}`"),
                    format!("lines count from 1; held-out and dropped rows are not shown; {nearest}")
                ));
            }
            indices
        }
        (None, true) => dataset.drawn(options.rows),
        (None, false) => (0..options.rows).collect(),
    };
    Ok(preview_of(dataset, &prepared.tokenizer, &indices)?)
}

fn as_text(example: &Preview, colour: bool) -> String {
    let (tokens, trained) = (example.example.tokens.len(), example.example.trained_tokens());
    let mut text = format!("{} ({tokens} tokens, {trained} trained)\n", example.location);
    for piece in &example.pieces {
        let shown = printable(&piece.text);
        match (piece.trained, colour) {
            (true, true) => text.push_str(&format!("\u{1b}[32m{shown}\u{1b}[0m")),
            (true, false) => text.push_str(&format!("⟦{shown}⟧")),
            (false, true) => text.push_str(&format!("\u{1b}[2m{shown}\u{1b}[0m")),
            (false, false) => text.push_str(&shown),
        }
    }
    text + "\n\n"
}

/// The counts by name.
fn figures(counts: &Counts) -> [(&'static str, usize); 24] {
    [
        ("rows", counts.rows),
        ("conversations", counts.conversations),
        ("train_rows", counts.train_rows),
        ("held_out_rows", counts.held_out_rows),
        ("tokens", counts.tokens),
        ("trained_tokens", counts.trained_tokens),
        ("longest", counts.longest),
        ("packed_rows", counts.packed_rows),
        ("duplicates", counts.duplicates),
        ("held_out_duplicates", counts.held_out_duplicates),
        ("over_length", counts.over_length),
        ("over_length_tokens", counts.over_length_tokens),
        ("truncated", counts.truncated),
        ("truncated_answers", counts.truncated_answers),
        ("dropped", counts.dropped),
        ("no_trained_tokens", counts.no_trained_tokens),
        ("without_end_of_turn", counts.without_end_of_turn),
        ("doubled_bos", counts.doubled_bos),
        ("empty_answers", counts.empty_answers),
        ("unknown_roles", counts.unknown_roles),
        ("hidden_tools", counts.hidden_tools),
        ("hidden_calls", counts.hidden_calls),
        ("hidden_reasoning", counts.hidden_reasoning),
        ("flagged", counts.flagged),
    ]
}

fn table(counts: &Counts) -> String {
    let mut text = String::new();
    for (name, number) in figures(counts) {
        let share = match name {
            "trained_tokens" => format!(" ({:.1} %)", 100.0 * number as f64 / counts.tokens.max(1) as f64),
            _ => String::new(),
        };
        text.push_str(&format!("{:<20} {}{share}\n", name.replace('_', " "), grouped(number)));
    }
    text.push_str(&format!("{:<20} {:.3}\n", "packing efficiency", counts.packing_efficiency()));
    text
}

/// The examples, one a line, and the counts.
fn as_json(shown: &[Preview], counts: &Counts) -> serde_json::Result<String> {
    let examples = shown.iter().map(|example| serde_json::to_string(&example_json(example)));
    let examples = examples.collect::<serde_json::Result<Vec<String>>>()?.join(",\n    ");
    let examples = if examples.is_empty() { "[]".to_owned() } else { format!("[\n    {examples}\n  ]") };
    let counts = serde_json::to_string_pretty(&counts_json(counts))?.replace('\n', "\n  ");
    Ok(format!("{{\n  \"examples\": {examples},\n  \"counts\": {counts}\n}}\n"))
}

/// An example; `input_ids` and `labels` are those of pretokenized rows.
fn example_json(shown: &Preview) -> Value {
    let example = &shown.example;
    let labels = example.tokens.iter().zip(&example.trained);
    json!({
        "location": shown.location,
        "tokens": example.tokens.len(),
        "trained_tokens": example.trained_tokens(),
        "pieces": shown.pieces.iter().map(|piece| json!({"text": piece.text, "trained": piece.trained})).collect::<Vec<Value>>(),
        "input_ids": example.tokens,
        "labels": labels.map(|(token, trained)| if *trained { i64::from(*token) } else { UNTRAINED }).collect::<Vec<i64>>(),
    })
}

fn counts_json(counts: &Counts) -> Value {
    let mut numbers: serde_json::Map<String, Value> =
        figures(counts).into_iter().map(|(name, number)| (name.to_owned(), json!(number))).collect();
    numbers.insert("packing_efficiency".to_owned(), json!(counts.packing_efficiency()));
    let lengths = counts.lengths.iter().map(|(length, rows)| json!([length, rows])).collect::<Vec<Value>>();
    numbers.insert("lengths".to_owned(), json!(lengths));
    Value::Object(numbers)
}
