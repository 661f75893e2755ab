//! Tasks that have nothing to do with tickets: repeating, counting, opposites, facts of a sentence as JSON.
//!
//! In: a random source. Out: conversations with short, certain answers.

use rand::RngExt;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde_json::json;

use super::Chat;
use crate::ticket_world::wording::{CITIES, DAYS, DEVICES, MONTHS, PEOPLE, pick, upper_case_first};

const WORDS: &[&str] = &[
    "apple", "river", "stone", "window", "garden", "paper", "train", "yellow", "bread", "music", "winter", "table",
    "house", "cloud", "horse", "letter", "summer", "bridge", "coffee", "school", "team", "priority", "high", "low",
];

const OPPOSITES: &[(&str, &str)] = &[
    ("big", "small"),
    ("hot", "cold"),
    ("fast", "slow"),
    ("old", "new"),
    ("open", "closed"),
    ("high", "low"),
    ("early", "late"),
    ("full", "empty"),
    ("light", "dark"),
    ("loud", "quiet"),
];

const COLOURS: &[(&str, &str)] = &[
    ("grass", "green"),
    ("snow", "white"),
    ("the sky", "blue"),
    ("coal", "black"),
    ("a lemon", "yellow"),
    ("a tomato", "red"),
];

/// A random task.
pub(super) fn task(random: &mut ChaCha8Rng) -> Chat {
    match random.random_range(0..10) {
        0 => repeated_word(random),
        1 => say_again(random),
        2 => opposite(random),
        3 => next_in_order(random),
        4 => sum(random),
        5 | 6 => person_as_json(random),
        7 => order_as_json(random),
        8 => greeting(random),
        _ => colour(random),
    }
}

fn repeated_word(random: &mut ChaCha8Rng) -> Chat {
    let mut words = WORDS.to_vec();
    words.shuffle(random);
    words.truncate(4);
    let word = pick(random, &words);
    words.push(word);
    words.shuffle(random);
    Chat::about(random, "Which word is there twice?", &words.join(" "), word.to_owned())
}

fn say_again(random: &mut ChaCha8Rng) -> Chat {
    let words = [pick(random, WORDS), pick(random, WORDS), pick(random, WORDS)].join(" ");
    match random.random_range(0..3) {
        0 => Chat::about(random, "Say it again.", &words, words.clone()),
        1 => Chat::about(random, "Say the first word.", &words, words.split(' ').next().unwrap_or_default().to_owned()),
        _ => Chat::about(random, "Say the last word.", &words, words.rsplit(' ').next().unwrap_or_default().to_owned()),
    }
}

fn opposite(random: &mut ChaCha8Rng) -> Chat {
    let (mut word, mut other) = pick(random, OPPOSITES);
    if random.random_bool(0.5) {
        (word, other) = (other, word);
    }
    let question = if random.random_bool(0.5) {
        format!("What is the opposite of {word}?")
    } else {
        format!("Which word is the opposite of \"{word}\"?")
    };
    Chat::question(random, question, upper_case_first(&format!("{other}.")))
}

fn next_in_order(random: &mut ChaCha8Rng) -> Chat {
    let (kind, row) = if random.random_bool(0.5) { ("day", DAYS) } else { ("month", MONTHS) };
    let at = random.random_range(0..row.len());
    let (now, next) = (row[at], row[(at + 1) % row.len()]);
    if random.random_bool(0.5) {
        Chat::question(random, format!("Which {kind} comes after {now}?"), format!("After {now} comes {next}."))
    } else {
        Chat::question(random, format!("Which {kind} comes before {next}?"), format!("Before {next} comes {now}."))
    }
}

fn sum(random: &mut ChaCha8Rng) -> Chat {
    let (a, b) = (random.random_range(1..=9), random.random_range(1..=9));
    Chat::question(random, format!("How much is {a} plus {b}?"), format!("{a} plus {b} is {}.", a + b))
}

fn person_as_json(random: &mut ChaCha8Rng) -> Chat {
    let (name, city, day) = (pick(random, PEOPLE), pick(random, CITIES), pick(random, DAYS));
    let sentence = match random.random_range(0..3) {
        0 => format!("{name} lives in {city} and comes on {day}."),
        1 => format!("On {day} we will meet {name} from {city}."),
        _ => format!("My name is {name}, I work in {city} and I am free on {day}."),
    };
    match random.random_range(0..3) {
        0 => {
            let answer = format!(r#"{{"name": "{name}", "city": "{city}"}}"#);
            Chat::about(random, "Answer with the name and the city as JSON.", &sentence, answer)
        }
        1 => {
            let answer = format!(r#"{{"city": "{city}", "day": "{day}"}}"#);
            Chat::about(random, "Answer with the city and the day as JSON.", &sentence, answer)
        }
        _ => Chat::about(random, "Who is it?", &sentence, format!("It is {name}.")),
    }
}

fn order_as_json(random: &mut ChaCha8Rng) -> Chat {
    let (count, device, city) = (random.random_range(2..=40), pick(random, DEVICES), pick(random, CITIES));
    let sentence = format!("Please bring {count} pieces of the {device} to {city}.");
    let answer = format!(r#"{{"device": "{device}", "count": {count}}}"#);
    Chat::about(random, "Answer with the device and the count as JSON.", &sentence, answer)
}

fn greeting(random: &mut ChaCha8Rng) -> Chat {
    let name = pick(random, PEOPLE);
    let (user, assistant) = match random.random_range(0..4) {
        0 => (format!("Hello, I am {name}."), format!("Hello {name}, how can I help you?")),
        1 => ("Good morning!".to_owned(), "Good morning! What can I do for you?".to_owned()),
        2 => (format!("Thank you, that is all. {name}"), format!("You are welcome, {name}. Have a nice day!")),
        _ => ("Who are you?".to_owned(), "I am a very small language model.".to_owned()),
    };
    Chat::question(random, user, assistant)
}

fn colour(random: &mut ChaCha8Rng) -> Chat {
    let (thing, colour) = pick(random, COLOURS);
    if random.random_bool(0.5) {
        Chat::question(random, format!("What colour is {thing}?"), upper_case_first(&format!("{thing} is {colour}.")))
    } else {
        let answer = json!({"colour": colour}).to_string().replace(':', ": ");
        Chat::about(random, "Give the colour as JSON.", thing, answer)
    }
}
