//! Writes the sample data set of support tickets: which team has to answer, and how soon.
//!
//! In: `OUT_DIR [--seed N]`. Out: `support-tickets.jsonl` (600 rows to train on) and
//! `support-tickets-held-out.jsonl` (100 rows to test with) in that folder. A row is a conversation: the
//! instruction, a ticket in a customer's words, and `{"team": ..., "priority": ...}`. No ticket occurs twice,
//! and no held-out ticket puts the same two wordings together as a training ticket does.
//!
//! `cargo run --release --example support_tickets -- datasets/samples`

#[expect(dead_code, reason = "the world also serves the tiny base model's text")]
mod ticket_world;

use std::collections::HashSet;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde_json::json;
use ticket_world::{Combinations, Priority, Team, Ticket, ticket};

const TRAINING_ROWS: usize = 600;
const HELD_OUT_ROWS: usize = 100;
const INSTRUCTION: &str = "Sort the ticket: answer with its team and its priority as JSON.";

fn main() -> Result<()> {
    let (folder, seed) = arguments()?;
    fs::create_dir_all(&folder).with_context(|| format!("cannot create the folder `{}`", folder.display()))?;
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut seen = HashSet::new();
    for (name, count, combinations) in [
        ("support-tickets.jsonl", TRAINING_ROWS, Combinations::Training),
        ("support-tickets-held-out.jsonl", HELD_OUT_ROWS, Combinations::HeldOut),
    ] {
        let path = folder.join(name);
        let rows = rows(&mut random, count, combinations, &mut seen)?;
        fs::write(&path, rows).with_context(|| format!("cannot write `{}`", path.display()))?;
    }
    Ok(())
}

/// The folder to write to, and the seed.
fn arguments() -> Result<(PathBuf, u64)> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [folder] => Ok((folder.into(), 7)),
        [folder, "--seed", seed] | ["--seed", seed, folder] => {
            Ok((folder.into(), seed.parse().with_context(|| format!("`{seed}` is not a seed"))?))
        }
        _ => bail!("usage: support_tickets OUT_DIR [--seed N]"),
    }
}

/// `count` rows in random order, as JSON lines, with teams and priorities equally frequent.
fn rows(
    random: &mut ChaCha8Rng,
    count: usize,
    combinations: Combinations,
    seen: &mut HashSet<String>,
) -> Result<String> {
    let mut tickets = Vec::with_capacity(count);
    while tickets.len() < count {
        let team = Team::ALL[tickets.len() % Team::ALL.len()];
        let priority = Priority::ALL[tickets.len() / Team::ALL.len() % Priority::ALL.len()];
        let ticket = ticket(random, team, priority, combinations);
        if seen.insert(ticket.text.to_lowercase()) {
            tickets.push(ticket);
        }
    }
    tickets.shuffle(random);
    let mut lines = String::new();
    for ticket in &tickets {
        writeln!(lines, "{}", conversation(ticket))?;
    }
    Ok(lines)
}

/// The row of one ticket.
fn conversation(ticket: &Ticket) -> serde_json::Value {
    let answer = format!(r#"{{"team": "{}", "priority": "{}"}}"#, team(ticket.team), priority(ticket.priority));
    json!({"messages": [
        {"role": "system", "content": INSTRUCTION},
        {"role": "user", "content": ticket.text},
        {"role": "assistant", "content": answer},
    ]})
}

/// What the answer calls a team.
fn team(team: Team) -> &'static str {
    match team {
        Team::Billing => "billing",
        Team::Accounts => "accounts",
        Team::Delivery => "delivery",
        Team::Hardware => "hardware",
        Team::Software => "software",
        Team::Sales => "sales",
    }
}

/// What the answer calls a priority.
fn priority(priority: Priority) -> &'static str {
    match priority {
        Priority::High => "high",
        Priority::Medium => "medium",
        Priority::Low => "low",
    }
}
