//! The README and the pages of `docs`: links lead somewhere, commands and recipes are accepted, files that are named exist,
//! and the tables say what the code says.

mod commands;
mod tables;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::harness::{Scratch, project};

/// The most lines of the README.
const README_LINES: usize = 130;

/// Folders of the repository, by which a path in backticks is recognised.
const FOLDERS: [&str; 10] =
    ["src/", "datasets/", "adapters/", "kernels/", "tests/", "scripts/", "benches/", "recipes/", "examples/", "docs/"];

/// The keys of a recipe that fragments on the pages leave out.
const ESSENTIALS: [(&str, &str); 6] = [
    ("base_model", "base_model: org/name\n"),
    ("adapter", "adapter: lora\n"),
    ("lora_r", "lora_r: 8\n"),
    ("lora_target_modules", "lora_target_modules: all-linear\n"),
    ("datasets", "datasets:\n  - path: rows.jsonl\n"),
    ("learning_rate", "learning_rate: 2e-4\n"),
];

/// A page of documentation.
struct Page {
    /// Relative to the project.
    path: PathBuf,
    text: String,
}

/// A fenced block of a page.
struct Block {
    /// The word after the opening fence, such as `sh`.
    language: String,
    /// The number of its first line.
    line: usize,
    text: String,
}

/// The README, CONTRIBUTING and every page of `docs`.
fn pages() -> Vec<Page> {
    let entries = fs::read_dir(project().join("docs")).unwrap();
    let names = entries.map(|entry| format!("docs/{}", entry.unwrap().file_name().into_string().unwrap()));
    let mut names: Vec<String> = names.filter(|name| name.ends_with(".md")).collect();
    names.extend(["README.md".to_owned(), "CONTRIBUTING.md".to_owned()]);
    names.sort();
    assert!(names.len() > 10, "the pages are there: {names:?}");
    names
        .into_iter()
        .map(|name| Page { text: fs::read_to_string(project().join(&name)).unwrap(), path: name.into() })
        .collect()
}

impl Page {
    /// A place in the page, for messages.
    fn at(&self, line: usize) -> String {
        format!("{}:{line}", self.path.display())
    }

    /// The fenced blocks.
    fn blocks(&self) -> Vec<Block> {
        let (mut blocks, mut open): (Vec<Block>, Option<Block>) = (Vec::new(), None);
        for (index, line) in self.text.lines().enumerate() {
            match (line.strip_prefix("```"), &mut open) {
                (Some(_), Some(_)) => blocks.extend(open.take()),
                (Some(language), None) => {
                    open = Some(Block { language: language.to_owned(), line: index + 2, text: String::new() });
                }
                (None, Some(block)) => block.text += &format!("{line}\n"),
                (None, None) => {}
            }
        }
        assert!(open.is_none(), "{}: a fence is left open", self.path.display());
        blocks
    }

    /// The lines outside of fenced blocks, with their numbers.
    fn prose(&self) -> Vec<(usize, &str)> {
        let mut fenced = false;
        let mut outside = |line: &str| {
            let fence = line.starts_with("```");
            fenced ^= fence;
            !fenced && !fence
        };
        self.text.lines().enumerate().filter(|(_, line)| outside(line)).map(|(index, line)| (index + 1, line)).collect()
    }

    /// The anchors of the headings, as GitHub makes them.
    fn anchors(&self) -> BTreeSet<String> {
        let headings = self.prose().into_iter().filter(|(_, line)| line.starts_with('#'));
        let slug = |heading: &str| -> String {
            let letters = heading.trim_start_matches('#').trim().chars().flat_map(char::to_lowercase);
            let kept = letters.filter(|letter| letter.is_alphanumeric() || matches!(letter, ' ' | '-' | '_'));
            kept.map(|letter| if letter == ' ' { '-' } else { letter }).collect()
        };
        headings.map(|(_, heading)| slug(heading)).collect()
    }
}

/// The targets of the links in a line.
fn links(line: &str) -> Vec<&str> {
    let ends = line.match_indices("](").map(|(at, _)| &line[at + 2..]);
    ends.filter_map(|rest| rest.split_once(')')).map(|(target, _)| target).collect()
}

/// The texts in backticks of a line.
fn code_spans(line: &str) -> Vec<&str> {
    line.split('`').skip(1).step_by(2).collect()
}

/// Fails with every complaint.
fn settle(wrong: &[String]) {
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn the_readme_is_short() {
    let lines = fs::read_to_string(project().join("README.md")).unwrap().lines().count();
    assert!(lines <= README_LINES, "the README has {lines} lines; details belong in docs/");
}

#[test]
fn relative_links_and_anchors_lead_somewhere() {
    let (pages, mut wrong, mut seen) = (pages(), Vec::new(), 0);
    for page in &pages {
        for (number, line) in page.prose() {
            for target in links(line).into_iter().filter(|target| !target.starts_with("https://")) {
                seen += 1;
                let (path, anchor) =
                    target.split_once('#').map_or((target, None), |(path, anchor)| (path, Some(anchor)));
                let folder = page.path.parent().unwrap_or(Path::new(""));
                let to = if path.is_empty() { page.path.clone() } else { normal(&folder.join(path)) };
                if !project().join(&to).exists() {
                    wrong.push(format!("{}: `{target}`: there is no {}", page.at(number), to.display()));
                } else if let Some(anchor) = anchor {
                    let headings = pages.iter().find(|page| page.path == to).map(Page::anchors);
                    if !headings.is_some_and(|headings| headings.contains(anchor)) {
                        wrong.push(format!("{}: `{target}`: no heading has this anchor", page.at(number)));
                    }
                }
            }
        }
    }
    assert!(seen > 30, "{seen} links were found");
    settle(&wrong);
}

/// A path without `..` in it.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        if part.as_os_str() == ".." {
            assert!(normal.pop(), "{} leaves the project", path.display());
        } else {
            normal.push(part);
        }
    }
    normal
}

#[test]
fn files_that_the_pages_name_exist() {
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for page in pages() {
        for (number, line) in page.prose() {
            for span in code_spans(line) {
                let word = span.split_whitespace().next().unwrap_or_default();
                // `x.rs`, `NAME` and `*` stand for names of the reader's choice.
                let placeholder = |part: &str| {
                    let stem = part.split('.').next().unwrap_or_default();
                    stem == "x"
                        || part.contains(['*', '{', '<'])
                        || (stem.len() > 2 && stem.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
                };
                if !FOLDERS.iter().any(|folder| word.starts_with(folder)) || word.split('/').any(placeholder) {
                    continue;
                }
                seen += 1;
                // A worked example begins with the file that the reader is to write.
                let to_write = line.starts_with("**1.");
                let path = Path::new(word.trim_end_matches('/'));
                let there = if to_write { path.parent().unwrap() } else { path };
                if !project().join(there).exists() {
                    wrong.push(format!("{}: there is no `{word}`", page.at(number)));
                }
            }
        }
    }
    assert!(seen > 60, "{seen} paths were found");
    settle(&wrong);
}

#[test]
fn recipes_on_the_pages_are_accepted() {
    let scratch = Scratch::new("pages-recipes");
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for page in pages() {
        for block in page.blocks().into_iter().filter(|block| block.language == "yaml") {
            seen += 1;
            let keys: BTreeSet<&str> =
                block.text.lines().filter_map(|line| line.split_once(':')).map(|(key, _)| key).collect();
            let mut recipe = block.text.clone();
            if !keys.contains("base_model") {
                let missing = ESSENTIALS.iter().filter(|(key, _)| !keys.contains(key));
                recipe.extend(missing.map(|(_, text)| *text));
            }
            let path = scratch.write("recipe.yaml", &recipe);
            let finished = scratch.tune(&["check".as_ref(), "--recipe-only".as_ref(), path.as_os_str()]);
            if finished.code != Some(0) {
                wrong.push(format!("{}: {}", page.at(block.line), finished.stderr));
            }
        }
    }
    assert!(seen >= 6, "{seen} recipes were found");
    settle(&wrong);
}

#[test]
fn the_csv_of_the_readme_becomes_an_adapter() {
    let scratch = Scratch::new("readme-csv");
    let page = pages().into_iter().find(|page| page.path == Path::new("README.md")).unwrap();
    let block = |language: &str| page.blocks().into_iter().find(|block| block.language == language).unwrap().text;
    scratch.write("tickets.csv", block("csv"));
    scratch.write("tickets.yaml", block("yaml"));
    let base = format!("base_model={}", project().join("examples/tiny-base").display());
    let run = ["run", "tickets.yaml", "--set", &base, "--set", "learning_rate=2e-3", "--set", "device=cpu"];
    let finished = scratch.tune(&run);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    let ask =
        ["generate", "runs/tickets/adapter", "--raw", "--device", "cpu", "--max-tokens", "4", "--prompt", "The fan"];
    let finished = scratch.tune(&ask);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
}
