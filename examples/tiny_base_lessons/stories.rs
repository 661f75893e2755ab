//! Very short stories from the offices and shops of the sample tickets' customers.
//!
//! In: a random source. Out: two to four sentences in which one thing leads to another.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use crate::ticket_world::wording::{CITIES, DAYS, DEVICES, PEOPLE, fill, pick};

const BEGINNINGS: &[&str] = &[
    "On {day} morning {name} walked to the office in {place}.",
    "{name} opened the small shop in {place} at eight.",
    "It was raining in {place} when {name} came home.",
    "{name} and {friend} were looking for the old {thing}.",
    "Last {day} {name} bought a {thing} for {friend}.",
    "{name} lives in {place} and likes to repair things.",
];

const MIDDLES: &[&str] = &[
    "The {thing} was on the table, but nobody had seen it.",
    "{friend} was already there and made coffee.",
    "First the lights went out, then it became very quiet.",
    "The train was late, so {name} had time to read a letter.",
    "\"Can you help me?\" asked {friend}. \"Of course,\" said {name}.",
    "{name} looked for the {thing} in every room.",
    "There were {count} people waiting at the door.",
];

const ENDINGS: &[&str] = &[
    "In the end everybody was happy.",
    "After an hour the {thing} worked again.",
    "{friend} smiled and said thank you.",
    "Then they went home together.",
    "The next day {name} told the story to {friend}.",
    "So {name} learned to be patient.",
];

/// One story.
pub(super) fn story(random: &mut ChaCha8Rng) -> String {
    let mut sentences = vec![pick(random, BEGINNINGS)];
    for _ in 0..random.random_range(1..=2) {
        let middle = pick(random, MIDDLES);
        if !sentences.contains(&middle) {
            sentences.push(middle);
        }
    }
    sentences.push(pick(random, ENDINGS));
    let name = pick(random, PEOPLE);
    let friend = loop {
        let friend = pick(random, PEOPLE);
        if friend != name {
            break friend;
        }
    };
    let story = sentences
        .join(" ")
        .replace("{name}", name)
        .replace("{friend}", friend)
        .replace("{place}", pick(random, CITIES))
        .replace("{thing}", pick(random, DEVICES))
        .replace("{day}", pick(random, DAYS));
    fill(random, &story)
}
