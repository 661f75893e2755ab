//! The schema of recipes as a page of the documentation.

use std::fmt::Write;

use super::{FIRST_VERSION, Key, Keys, NoEffect, OnResume, Recipe, Refused, Row};
use crate::recipe::no_effect::Accepts;
use crate::recipe::refused::Off;

/// The head of the page.
const HEAD: &str = "\
# Recipe keys

<!-- Made by `tune schema --markdown`; edit the rows in src/recipe/schema instead. -->

A recipe is one YAML file with Axolotl's flat keys. Every key either takes effect, or is accepted with a note that it
has no effect here, or is refused with its line, column and advice; nothing is ignored silently. All problems of a file are
reported together. A blank value or `null` means the default. `${NAME}` and `${NAME:-default}` in values come from the
environment, and `--set key=value` on the command line changes a key (`--set datasets.0.path=rows.jsonl`). Relative
paths are relative to the recipe's folder, or to the working folder if they do not exist there.

Resuming compares the recipe with that of the interrupted run. A key marked *may change* can differ where
`--allow-change KEY` permits it, one marked *not compared* always can, and every other key must be the same; what is in
a section follows the section.

`tune schema` prints all of this as JSON Schema. Editors with a YAML language server complete and check a recipe that
begins with `# yaml-language-server: $schema=PATH/TO/recipe.schema.json`.
";

/// Ways in which rows become ids and labels that are not those of Axolotl 0.19. `scripts/compare_axolotl.py` compares the
/// two and knows these by their first words.
const ROWS: &[&str] = &[
    "Tool calls and their arguments are read as JSON text or as values, and a template gets the form that it renders; \
     Axolotl hands on values, on which some templates fail. Text that is no JSON is refused.",
    "A call without `function` around it is one all the same; templates fail on it in Axolotl.",
    "An empty list of calls is no list of calls; in Axolotl a template sees it.",
    "A tool's result that is an object is written as JSON; Axolotl hands on the object, which templates print as Python's \
     text or not at all.",
    "`field_thinking` names the key of a message's reasoning; Axolotl fills `message_property_mappings` first and then does \
     not read it.",
    "Strings among the parts of a content are text; Axolotl leaves them out.",
    "A message without content is an empty one; templates that read the content fail on it in Axolotl.",
    "The end of an empty turn is never trained; Axolotl trains it where it is among the first three tokens of the row.",
    "The place of a part is that in the row; Axolotl takes that in the content by itself, which is off by a token where \
     the tokenizer begins a text otherwise.",
];

/// The reference of all keys, in Markdown.
pub fn reference() -> String {
    let rows = Recipe::rows();
    let mut page = HEAD.to_owned();
    let mut described: Vec<Vec<&str>> = Vec::new();
    for group in groups(&rows) {
        let inside: Vec<&Row> = rows.iter().filter(|row| row.key.group == group).collect();
        let _ = write!(page, "\n## {group}\n\n{}", table(&inside));
        for row in inside {
            let Some(inner) = &row.inner else { continue };
            let names: Vec<&str> = inner.rows.iter().map(|row| row.key.name).collect();
            if described.contains(&names) {
                continue;
            }
            let kind = if inner.is_list { "each entry of " } else { "" };
            let keys: Vec<&Row> = inner.rows.iter().collect();
            let _ = write!(page, "\n### Keys of {kind}`{}`\n\n{}", row.key.name, table(&keys));
            described.push(names);
            for key in keys {
                let Some(below) = &key.inner else { continue };
                let rows: Vec<&Row> = below.rows.iter().collect();
                let name = format!("{}[].{}", row.key.name, key.key.name);
                let _ = write!(page, "\n### Keys of `{name}` where it is a mapping\n\n{}", table(&rows));
            }
        }
    }
    page.push_str("\n## Rows otherwise than in Axolotl\n\nRows become the token ids and labels that Axolotl 0.19 makes of them, except:\n\n");
    ROWS.iter().for_each(|sentence| page.push_str(&format!("- {sentence}\n")));
    page.push_str("\n## Accepted without effect\n\nThese keys choose among kernels or placements and cannot change the result. They are listed in the plan.\n\n");
    page.push_str("| key | accepted | why it has no effect |\n|---|---|---|\n");
    no_effect(&mut page, "", Recipe::NO_EFFECT);
    each_section(&rows, |prefix, row| no_effect(&mut page, prefix, row.no_effect));
    page.push_str("\n## Refused with advice\n\nThese are real keys, of Axolotl 0.19 or of recipes in circulation, that are not implemented. They pass while they are blank, or at the value named here.\n\n");
    page.push_str("| keys | passes at | instead |\n|---|---|---|\n");
    refused(&mut page, "", Recipe::REFUSED);
    for row in Recipe::NO_EFFECT {
        if let Accepts::Section(_, inside) = row.accepts {
            refused(&mut page, &format!("{}.", row.key), inside);
        }
    }
    each_section(&rows, |prefix, row| refused(&mut page, prefix, row.refused));
    page
}

/// The groups in order.
fn groups(rows: &[Row]) -> Vec<&'static str> {
    let mut groups: Vec<&str> = rows.iter().map(|row| row.key.group).collect();
    groups.dedup();
    groups
}

/// Calls `write` with the prefix of every section's keys; sections of the same keys count once.
fn each_section(rows: &[Row], mut write: impl FnMut(&str, &super::Inner)) {
    for row in rows.iter().filter(|row| row.key.name != "test_datasets") {
        if let Some(inner) = &row.inner {
            write(&format!("{}{}", row.key.name, if inner.is_list { "[]." } else { "." }), inner);
        }
    }
}

fn table(rows: &[&Row]) -> String {
    let mut table = "| key | accepted | default | meaning | on resume |\n|---|---|---|---|---|\n".to_owned();
    for row in rows {
        let key = &row.key;
        let resume = match key.resume {
            OnResume::Fixed => "",
            OnResume::Changeable => "may change",
            OnResume::NotCompared => "not compared",
        };
        let accepted = cell(&row.accepts);
        let _ = writeln!(
            table,
            "| `{}` | {accepted} | {} | {} | {resume} |",
            key.name,
            cell(&default(key)),
            cell(&meaning(key))
        );
    }
    table
}

fn default(key: &Key) -> String {
    match key.default {
        _ if key.is_required => "required".to_owned(),
        Some(default) => format!("`{default}`"),
        None => key.otherwise.to_owned(),
    }
}

fn meaning(key: &Key) -> String {
    let mut text = key.meaning.trim().to_owned();
    if !key.axolotl.is_empty() {
        text.push_str(&format!(" *Differs from Axolotl:* {}", key.axolotl));
    }
    if key.since != FIRST_VERSION {
        text.push_str(&format!(" Since {}.", key.since));
    }
    text
}

/// A text that a cell of a table can hold.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

/// Rows of keys without effect; those with the same reason share one.
fn no_effect(page: &mut String, prefix: &str, rows: &[NoEffect]) {
    let mut lines: Vec<(String, &str, &str)> = Vec::new();
    for row in rows {
        let accepted = match row.accepts {
            Accepts::Flag => "true or false",
            Accepts::FlagOrAuto => "true, false or auto",
            Accepts::Attention => "names of exact attention",
            Accepts::Plugins => "plugins that only switch kernels on",
            Accepts::Any => "anything",
            Accepts::Section(inside, _) => {
                no_effect(page, &format!("{prefix}{}.", row.key), inside);
                continue;
            }
        };
        let name = format!("`{prefix}{}`", row.key);
        match lines.iter_mut().find(|line| line.1 == accepted && line.2 == row.why) {
            Some(line) => line.0.push_str(&format!(", {name}")),
            None => lines.push((name, accepted, row.why)),
        }
    }
    for (names, accepted, why) in lines {
        let _ = writeln!(page, "| {names} | {accepted} | {} |", cell(why));
    }
}

fn refused(page: &mut String, prefix: &str, groups: &[Refused]) {
    for group in groups {
        let names: Vec<String> = group.keys.split_whitespace().map(|name| format!("`{prefix}{name}`")).collect();
        let passes = match group.off {
            Off::Never => "",
            Off::False => "`false`",
            Off::FalseOrZero => "`false`, `0`",
            Off::True => "`true`",
            Off::Boolean => "`true`, `false`",
            Off::Word(word) => &format!("`{word}`, `false`"),
        };
        let _ = writeln!(page, "| {} | {passes} | {} |", names.join(", "), cell(group.advice));
    }
}
