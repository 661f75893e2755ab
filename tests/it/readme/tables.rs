//! The generated tables: between a line `<!-- generated: NAME -->` and `<!-- end -->` stands what the code says.
//!
//! With `TUNE_WRITE_DOCS=1` the test writes them.

use std::collections::BTreeSet;
use std::fs;

use datasets::dataset_types;
use serde_json::Value;
use tune::export::FORMATS;
use tune::model::families::FAMILIES;

use super::{pages, settle};
use crate::harness::{project, read_json};
use crate::invariants::FLOORS;

/// The name in a table's marker, and the function that writes the table.
type Table = (&'static str, fn() -> String);

/// Every table.
const TABLES: [Table; 6] = [
    ("commands", commands),
    ("families", families),
    ("families in full", coverage),
    ("formats", formats),
    ("exports", exports),
    ("floors", floors),
];

#[test]
fn generated_tables_say_what_the_code_says() {
    let is_writing = std::env::var_os("TUNE_WRITE_DOCS").is_some();
    let (mut wrong, mut seen) = (Vec::new(), BTreeSet::new());
    for page in pages() {
        let (mut text, mut rest) = (String::new(), page.text.as_str());
        while let Some((before, marked)) = rest.split_once("<!-- generated: ") {
            let (name, marked) = marked.split_once(" -->\n").expect("a marker ends on its line");
            let (written, after) = marked.split_once("<!-- end -->").expect("a generated table has an end");
            let known = TABLES.iter().find(|(known, _)| *known == name);
            let (name, table) = known.unwrap_or_else(|| panic!("{}: no table `{name}`", page.path.display()));
            let table = table();
            if written.trim_end() != table {
                wrong.push(format!("{}: the table `{name}` should be\n{table}", page.path.display()));
            }
            seen.insert(*name);
            text += &format!("{before}<!-- generated: {name} -->\n{table}\n<!-- end -->");
            rest = after;
        }
        text += rest;
        if is_writing && text != page.text {
            fs::write(project().join(&page.path), text).unwrap();
        }
    }
    assert_eq!(seen.len(), TABLES.len(), "every table is on a page: {seen:?}");
    if !is_writing {
        settle(&wrong);
    }
}

/// A table of Markdown.
fn table(head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let line = |cells: &[String]| format!("| {} |", cells.join(" | "));
    let head: Vec<String> = head.iter().map(|&cell| cell.to_owned()).collect();
    let rule = format!("|{}", "---|".repeat(head.len()));
    let rows = rows.into_iter().map(|row| line(&row));
    [line(&head), rule].into_iter().chain(rows).collect::<Vec<_>>().join("\n")
}

/// The subcommands, with the arguments that have no name, and their descriptions.
fn commands() -> String {
    let tune = tune::cli::command();
    let rows = tune.get_subcommands().map(|command| {
        let mut usage = format!("tune {}", command.get_name());
        for argument in command.get_positionals() {
            usage += &format!(" {}", argument.get_id().as_str().to_uppercase());
        }
        for argument in
            command.get_arguments().filter(|argument| argument.is_required_set() && !argument.is_positional())
        {
            usage += &format!(" --{} {}", argument.get_long().unwrap(), argument.get_id().as_str().to_uppercase());
        }
        let about = command.get_about().unwrap().to_string();
        vec![format!("`{usage}`"), about.trim_end_matches('.').to_owned()]
    });
    table(&["command", "does"], rows)
}

/// Three families a row, to be short.
fn families() -> String {
    let rows = FAMILIES.chunks(3).map(|few| {
        let cells = few.iter().flat_map(|family| [family.name.to_owned(), family.example.to_owned()]);
        cells.chain(std::iter::repeat(String::new())).take(6).collect()
    });
    table(&["family", "for example"].repeat(3), rows)
}

/// Families with what the fixtures cover.
fn coverage() -> String {
    let types = |names: Vec<String>| -> BTreeSet<String> { names.iter().map(|name| model_type(name)).collect() };
    let forward = types(folders("forward"));
    let exports = types(folders("models"));
    let traced = folders("lora").into_iter().map(|variant| {
        let summary: Value = read_json(&project().join(format!("tests/fixtures/lora/{variant}/trace.json")));
        summary["spec"]["base"].as_str().unwrap().to_owned()
    });
    let traced = types(traced.collect());
    let rows = FAMILIES.iter().map(|family| {
        let any = |covered: &BTreeSet<String>| family.model_types.iter().any(|name| covered.contains(*name));
        let equal = if any(&forward) { "equal" } else { "not compared" };
        let lora = match (any(&traced), any(&exports)) {
            (true, _) => "every step equal, PEFT loads it",
            (false, true) => "PEFT loads it",
            (false, false) => "not compared",
        };
        let merged = if any(&exports) { "transformers loads it" } else { "not compared" };
        // `.ci/run` puts the same cases through wgpu.
        let gpu = if any(&forward) { "software Vulkan" } else { "not run" };
        [family.name, family.example, equal, lora, merged, gpu].map(str::to_owned).to_vec()
    });
    table(&["family", "for example", "logits, gradients", "LoRA", "merged export", "GPU"], rows)
}

/// The `model_type` of a fixture.
fn model_type(name: &str) -> String {
    let config = read_json(&project().join(format!("tests/fixtures/models/{name}/config.json")));
    config["model_type"].as_str().unwrap().to_owned()
}

/// The names in a folder of fixtures.
fn folders(kind: &str) -> Vec<String> {
    let entries = fs::read_dir(project().join("tests/fixtures").join(kind)).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// The types of data sets that are trained on, by format.
fn formats() -> String {
    let mut rows: Vec<(&str, Vec<String>)> = Vec::new();
    for known in dataset_types().filter(|known| known.trainable) {
        match rows.last_mut().filter(|(format, _)| *format == known.format) {
            Some((_, row)) => row[0] += &format!(", `{}`", known.name),
            None => rows.push((known.format, vec![format!("`{}`", known.name), known.description.to_owned()])),
        }
    }
    table(&["`type`", "a row is"], rows.into_iter().map(|(_, row)| row))
}

/// The export formats.
fn exports() -> String {
    let rows = FORMATS.iter().map(|format| vec![format!("`{}`", format.name), format.description.to_owned()]);
    table(&["format and folder", "content"], rows)
}

/// The modules of the root package by floor, the highest first.
fn floors() -> String {
    let highest = FLOORS.iter().map(|(_, floor)| *floor).max().unwrap();
    let rows = (0..=highest).rev().map(|floor| {
        let modules = FLOORS.iter().filter(|(_, own)| *own == floor).map(|(name, _)| format!("`{name}`"));
        vec![floor.to_string(), modules.collect::<Vec<_>>().join(", ")]
    });
    table(&["floor", "modules"], rows)
}
