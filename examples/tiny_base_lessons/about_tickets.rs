//! Tasks about tickets: what is it about, how much does it press, a reply to it, facts in it.
//!
//! In: a random source. Out: conversations and descriptions. They speak of a ticket in words of their own,
//! never in those that the sample data set answers with.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use serde_json::json;

use super::Chat;
use crate::ticket_world::issues::ISSUES;
use crate::ticket_world::wording::{fill, pick};
use crate::ticket_world::{Combinations, Priority, Team, Ticket, any_ticket};

/// What a ticket of a team is about, in one word.
fn topic(team: Team) -> &'static str {
    match team {
        Team::Billing => "money",
        Team::Accounts => "access",
        Team::Delivery => "parcels",
        Team::Hardware => "devices",
        Team::Software => "programs",
        Team::Sales => "buying",
    }
}

/// How much a ticket presses, in one word.
fn pressure(priority: Priority) -> &'static str {
    match priority {
        Priority::High => "now",
        Priority::Medium => "soon",
        Priority::Low => "someday",
    }
}

/// When to answer, said politely.
fn promise(random: &mut ChaCha8Rng, priority: Priority) -> &'static str {
    let promises = match priority {
        Priority::High => ["We start on it at once.", "Somebody calls you back in a minute."],
        Priority::Medium => ["We look at it in the coming days.", "You will hear from us before the weekend."],
        Priority::Low => ["We come back to it when it is quiet.", "We keep it on our list for later."],
    };
    pick(random, &promises)
}

/// A task about a random ticket.
pub(super) fn task(random: &mut ChaCha8Rng) -> Chat {
    let ticket = any_ticket(random, Combinations::Training);
    let (instruction, answer) = match random.random_range(0..12) {
        0 | 1 => subject(random, &ticket),
        2 | 3 => one_word(random, &ticket),
        4 | 5 => time(random, &ticket),
        6..=8 => fields(random, &ticket),
        9 => both(random, &ticket),
        10 => reply(random, &ticket),
        _ => same_subject(random, &ticket),
    };
    Chat::about(random, &instruction, &ticket.text, answer)
}

fn subject(random: &mut ChaCha8Rng, ticket: &Ticket) -> (String, String) {
    const QUESTIONS: &[&str] = &[
        "What is this ticket about?",
        "Say in a few words what the customer writes about.",
        "Name the subject of the ticket.",
        "Sum up the ticket.",
    ];
    (pick(random, QUESTIONS).to_owned(), format!("It is about {}.", ticket.subject))
}

fn one_word(random: &mut ChaCha8Rng, ticket: &Ticket) -> (String, String) {
    const QUESTIONS: &[&str] = &[
        "Is it about money, access, parcels, devices, programs or buying?",
        "Name the topic of the ticket in one word.",
        "Which topic is it?",
    ];
    (pick(random, QUESTIONS).to_owned(), topic(ticket.team).to_owned())
}

fn time(random: &mut ChaCha8Rng, ticket: &Ticket) -> (String, String) {
    const QUESTIONS: &[&str] = &[
        "When does the customer need an answer: now, soon or someday?",
        "How much does it press? Answer in one word.",
        "How long can this ticket wait?",
    ];
    (pick(random, QUESTIONS).to_owned(), pressure(ticket.priority).to_owned())
}

fn fields(random: &mut ChaCha8Rng, ticket: &Ticket) -> (String, String) {
    const QUESTIONS: &[&str] =
        &["Describe the ticket as JSON with", "Answer in JSON with", "Read the ticket and give as JSON"];
    let question = pick(random, QUESTIONS);
    let (topic, when) = (topic(ticket.team), pressure(ticket.priority));
    let (keys, answer) = match random.random_range(0..5) {
        0 | 1 => ("its topic and when to answer", format!(r#"{{"topic": "{topic}", "when": "{when}"}}"#)),
        2 => ("when to answer and its topic", format!(r#"{{"when": "{when}", "topic": "{topic}"}}"#)),
        3 => ("its subject and when to answer", format!(r#"{{"subject": "{}", "when": "{when}"}}"#, ticket.subject)),
        _ => ("its topic and its subject", format!(r#"{{"topic": "{topic}", "subject": "{}"}}"#, ticket.subject)),
    };
    (format!("{question} {keys}."), answer)
}

fn both(random: &mut ChaCha8Rng, ticket: &Ticket) -> (String, String) {
    const QUESTIONS: &[&str] = &["Which topic is it, and when do we answer?", "Topic and time?"];
    let answer = format!("The topic is {}, the answer is needed {}.", topic(ticket.team), pressure(ticket.priority));
    (pick(random, QUESTIONS).to_owned(), answer)
}

fn reply(random: &mut ChaCha8Rng, ticket: &Ticket) -> (String, String) {
    const QUESTIONS: &[&str] = &["Write a short reply.", "Answer the customer.", "Reply politely to this message."];
    const THANKS: &[&str] = &["Thank you for writing.", "Thank you for your message.", "We are sorry for the trouble."];
    let answer =
        format!("{} You wrote about {}. {}", pick(random, THANKS), ticket.subject, promise(random, ticket.priority));
    (pick(random, QUESTIONS).to_owned(), answer)
}

fn same_subject(random: &mut ChaCha8Rng, ticket: &Ticket) -> (String, String) {
    let other =
        if random.random_bool(0.5) { ticket.subject } else { ISSUES[random.random_range(0..ISSUES.len())].subject };
    let answer =
        if other == ticket.subject { "Yes.".to_owned() } else { format!("No, it is about {}.", ticket.subject) };
    (format!("Is the customer writing about {other}?"), answer)
}

/// A few sentences about the support desk and what customers write to it.
pub(super) fn description(random: &mut ChaCha8Rng) -> String {
    const DUTIES: &[(&str, &str)] = &[
        ("billing", "invoices, charges, refunds and receipts"),
        ("accounts", "passwords, logins, sign-in codes and user rights"),
        ("delivery", "parcels, couriers, customs and addresses"),
        ("hardware", "broken devices, batteries, screens and repairs"),
        ("software", "crashes, errors, exports and slow pages"),
        ("sales", "quotes, prices, discounts and new plans"),
    ];
    let (desk, duty) = pick(random, DUTIES);
    let issue = &ISSUES[random.random_range(0..ISSUES.len())];
    let wording = pick(random, issue.wordings);
    let saying = fill(random, wording);
    match random.random_range(0..5) {
        0 => format!("The people at the {desk} desk know about {duty}."),
        1 => format!("Today a customer wrote about {}: \"{saying}\"", issue.subject),
        2 => format!("{saying} So the customer was writing about {}.", issue.subject),
        3 => fill(
            random,
            &format!(
                "{{person}} works at the {desk} desk in {{city}}. On {{day}} {{person}} had many questions about {duty}."
            ),
        ),
        _ => json!({"subject": issue.subject, "message": saying}).to_string(),
    }
}
