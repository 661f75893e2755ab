//! Writes the text that the tiny base model is trained on, all of it made up here.
//!
//! In: `OUT_DIR [--rows N] [--seed N]`. Out: in that folder `text.jsonl`, rows `{"text": ...}` of plain
//! English (tickets, descriptions, short stories), and `chats.jsonl`, rows `{"messages": [...]}` in which
//! many small tasks are done, some of them about tickets. The model learns to read tickets and to answer in
//! a conversation; how the sample data set labels a ticket is nowhere in here, nor are its held-out tickets.
//!
//! `cargo run --release --example tiny_base_text -- runs/tiny-base-text`

mod ticket_world;
mod tiny_base_lessons;

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use tiny_base_lessons::{chat, reading};

fn main() -> Result<()> {
    let arguments = Arguments::read()?;
    let folder = &arguments.folder;
    fs::create_dir_all(folder).with_context(|| format!("cannot create the folder `{}`", folder.display()))?;
    let mut random = ChaCha8Rng::seed_from_u64(arguments.seed);
    let texts = arguments.rows / 3;
    write(&folder.join("text.jsonl"), texts, || json!({"text": reading(&mut random)}))?;
    write(&folder.join("chats.jsonl"), arguments.rows - texts, || chat(&mut random).row())
}

/// Writes `count` rows to the file at `path`, one JSON object to a line.
fn write(path: &Path, count: usize, mut row: impl FnMut() -> Value) -> Result<()> {
    let cannot = || format!("cannot write `{}`", path.display());
    let mut file = BufWriter::new(File::create(path).with_context(cannot)?);
    for _ in 0..count {
        writeln!(file, "{}", row()).with_context(cannot)?;
    }
    file.flush().with_context(cannot)
}

/// What the command line says.
struct Arguments {
    folder: PathBuf,
    rows: usize,
    seed: u64,
}

impl Arguments {
    fn read() -> Result<Self> {
        let (mut folder, mut rows, mut seed) = (None, 60_000, 11);
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let mut number = || -> Result<u64> {
                let value = arguments.next().with_context(|| format!("`{argument}` needs a number"))?;
                value.parse().with_context(|| format!("`{value}` is not a number"))
            };
            match argument.as_str() {
                "--rows" => rows = usize::try_from(number()?)?,
                "--seed" => seed = number()?,
                flag if flag.starts_with('-') => bail!("unknown flag `{flag}`"),
                _ if folder.is_none() => folder = Some(PathBuf::from(argument)),
                _ => bail!("one folder is enough, `{argument}` is another"),
            }
        }
        let folder = folder.context("usage: tiny_base_text OUT_DIR [--rows N] [--seed N]")?;
        Ok(Self { folder, rows, seed })
    }
}
