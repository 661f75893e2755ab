//! The small world that the sample tickets and the tiny base model's text come from: a company that sells
//! devices and an application, its six support teams, and the customers who write to them.
//!
//! In: a seeded random source. Out: [`Ticket`]s, each with its text and with what a reader can tell from
//! it. The generators beside this folder decide what to write about them.

pub(crate) mod issues;
mod urgency;
pub(crate) mod wording;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use issues::{ISSUES, Issue};
use urgency::URGENCIES;
use wording::{fill, pick};

/// The teams of the support desk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Team {
    Billing,
    Accounts,
    Delivery,
    Hardware,
    Software,
    Sales,
}

impl Team {
    /// Every team, in the order of the issue table.
    pub(crate) const ALL: [Team; 6] =
        [Team::Billing, Team::Accounts, Team::Delivery, Team::Hardware, Team::Software, Team::Sales];
}

/// How soon a ticket must be answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Priority {
    High,
    Medium,
    Low,
}

impl Priority {
    /// Every priority, most urgent first.
    pub(crate) const ALL: [Priority; 3] = [Priority::High, Priority::Medium, Priority::Low];
}

/// Which combinations of an issue's wording and an urgency's wording a ticket may be made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Combinations {
    /// Six of seven: what models learn from.
    Training,
    /// The seventh: what they are tested on.
    HeldOut,
}

/// A ticket, and what a reader can tell from it.
pub(crate) struct Ticket {
    /// What the customer wrote.
    pub(crate) text: String,
    /// The team that solves the issue.
    pub(crate) team: Team,
    /// How urgent the customer says it is.
    pub(crate) priority: Priority,
    /// The issue in a few words.
    pub(crate) subject: &'static str,
}

/// A random ticket for `team` with `priority`, 15 to 50 words long.
pub(crate) fn ticket(random: &mut ChaCha8Rng, team: Team, priority: Priority, combinations: Combinations) -> Ticket {
    loop {
        let (issue, saying, place) = issue_wording(random, team);
        let (urgency, urgency_place) = urgency_wording(random, priority);
        let held_out = (place * 3 + urgency_place * 2) % 7 == 0;
        if held_out != (combinations == Combinations::HeldOut) {
            continue;
        }
        let text = compose(random, saying, urgency);
        if (15..=50).contains(&text.split_whitespace().count()) {
            return Ticket { text, team, priority, subject: issue.subject };
        }
    }
}

/// A random ticket of any team and priority.
pub(crate) fn any_ticket(random: &mut ChaCha8Rng, combinations: Combinations) -> Ticket {
    let (team, priority) = (pick(random, &Team::ALL), pick(random, &Priority::ALL));
    ticket(random, team, priority, combinations)
}

/// A wording of one of `team`'s issues, with its place among all wordings of the team.
fn issue_wording(random: &mut ChaCha8Rng, team: Team) -> (&'static Issue, &'static str, usize) {
    let mut all = Vec::new();
    for issue in ISSUES.iter().filter(|issue| issue.team == team) {
        all.extend(issue.wordings.iter().map(|saying| (issue, *saying)));
    }
    let place = random.random_range(0..all.len());
    (all[place].0, all[place].1, place)
}

/// A wording of `priority`, with its place among the wordings of that priority.
fn urgency_wording(random: &mut ChaCha8Rng, priority: Priority) -> (&'static str, usize) {
    let all: Vec<&'static str> = URGENCIES
        .iter()
        .filter(|urgency| urgency.priority == priority)
        .flat_map(|urgency| urgency.wordings.iter().copied())
        .collect();
    let place = random.random_range(0..all.len());
    (all[place], place)
}

/// The issue and the urgency put into a letter: greeting, background, order, closing, and a hasty writer's slips.
fn compose(random: &mut ChaCha8Rng, issue: &str, urgency: &str) -> String {
    let mut sentences = vec![fill(random, issue), fill(random, urgency)];
    if random.random_bool(0.25) {
        sentences.swap(0, 1);
    }
    if random.random_bool(0.35) {
        let at = random.random_range(0..=1);
        let background = pick(random, wording::BACKGROUNDS);
        sentences.insert(at, fill(random, background));
    }
    if random.random_bool(0.5) {
        sentences[0] = wording::after_a_comma(&sentences[0]);
        sentences.insert(0, pick(random, wording::GREETINGS).to_owned());
    }
    if random.random_bool(0.5) {
        let closing = pick(random, wording::CLOSINGS);
        sentences.push(fill(random, closing));
    }
    wording::in_a_hurry(random, sentences.join(" "))
}
