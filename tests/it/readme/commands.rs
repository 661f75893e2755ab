//! The commands on the pages: `tune` accepts its arguments, and what `cargo` and the shell are asked for exists.

use std::fs;

use super::{Page, pages, settle};
use crate::harness::project;

/// Programs that are not part of this project.
const OTHERS: [&str; 6] = ["cd", "cp", "git", "hf", "mkdir", "rm"];

/// Subcommands of cargo that the pages may name.
const CARGO: [&str; 7] = ["bench", "build", "clippy", "fmt", "install", "run", "test"];

#[test]
fn commands_on_the_pages_are_accepted() {
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for page in pages() {
        for (number, line) in lines(&page) {
            seen += 1;
            if let Err(reason) = check(&words(&line)) {
                wrong.push(format!("{}: {line}\n  {reason}", page.at(number)));
            }
        }
    }
    assert!(seen > 25, "{seen} commands were found");
    settle(&wrong);
}

/// The commands of a page's `sh` blocks, one a line unless a backslash continues it.
fn lines(page: &Page) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for block in page.blocks().iter().filter(|block| block.language == "sh") {
        let mut begun: Option<(usize, String)> = None;
        for (index, line) in block.text.lines().enumerate() {
            let (number, mut command) = begun.take().unwrap_or((block.line + index, String::new()));
            command += line.trim_end_matches('\\');
            if line.ends_with('\\') {
                begun = Some((number, command));
            } else if !words(&command).is_empty() {
                found.push((number, command));
            }
        }
    }
    found
}

/// The words of a command as a shell reads them; a comment is left out.
fn words(command: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for letter in command.chars() {
        match (quote, letter) {
            (Some(open), _) if open == letter => quote = None,
            (None, '\'' | '"') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (None, '#') if word.is_none() => break,
            (None, ' ') => words.extend(word.take()),
            _ => word.get_or_insert_default().push(letter),
        }
    }
    assert!(quote.is_none(), "a quote is left open: {command}");
    words.extend(word);
    words
}

fn check(words: &[String]) -> Result<(), String> {
    let is_setting = |word: &String| {
        word.split_once('=').is_some_and(|(name, _)| name.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
    };
    let words = &words[words.iter().take_while(|word| is_setting(word)).count()..];
    // A redirection ends the arguments.
    let words = words.split(|word| word == ">").next().unwrap_or_default();
    let Some((program, arguments)) = words.split_first() else { return Ok(()) };
    match program.as_str() {
        "tune" => tune(words),
        "cargo" => cargo(arguments),
        "python3" | "$(scripts/reference-python.sh)" => exists(arguments.first().map_or("", String::as_str)),
        name if OTHERS.contains(&name) => Ok(()),
        path => exists(path),
    }
}

fn exists(path: &str) -> Result<(), String> {
    if project().join(path).is_file() { Ok(()) } else { Err(format!("there is no file `{path}`")) }
}

fn tune(words: &[String]) -> Result<(), String> {
    if let Some(recipe) = words.iter().find(|word| word.starts_with("recipes/")) {
        exists(recipe)?;
    }
    tune::cli::command().try_get_matches_from(words).map(|_| ()).map_err(|error| error.to_string())
}

fn cargo(arguments: &[String]) -> Result<(), String> {
    let program = arguments.iter().position(|word| word == "--").unwrap_or(arguments.len());
    let (own, rest) = (&arguments[..program], arguments.get(program + 1..).unwrap_or_default());
    let Some(command) = own.first().filter(|name| CARGO.contains(&name.as_str())) else {
        return Err(format!("cargo's command is one of {CARGO:?}"));
    };
    let manifest = fs::read_to_string(project().join("Cargo.toml")).unwrap();
    let has = |line: &str| manifest.lines().any(|known| known.starts_with(line));
    let mut pairs = own.windows(2).map(|pair| (pair[0].as_str(), pair[1].as_str()));
    let unknown = pairs.find(|(option, value)| match *option {
        "--features" => !value.split(',').all(|feature| has(&format!("{feature} = ["))),
        "--example" => {
            !project().join(format!("examples/{value}.rs")).is_file() && !has(&format!("name = \"{value}\""))
        }
        "--test" | "--bench" | "--bin" => !has(&format!("name = \"{value}\"")),
        "-p" => **value != *"tune" && !project().join(value).join("Cargo.toml").is_file(),
        _ => false,
    });
    if let Some((option, value)) = unknown {
        return Err(format!("there is no `{value}` for {option}"));
    }
    if command == "run" && !own.iter().any(|word| word == "--example") {
        return tune(&[&["tune".to_owned()], rest].concat());
    }
    Ok(())
}
