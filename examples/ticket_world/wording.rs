//! Words for the sample tickets: greetings, background, closings, what fills a slot, and hasty typing.
//!
//! In: a sentence with slots such as `{city}`, and a random source. Out: the sentence with every slot
//! filled and its first letter in upper case.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

/// How a ticket may begin.
pub(crate) const GREETINGS: &[&str] = &[
    "Hello,",
    "Hi,",
    "Hi there,",
    "Good morning,",
    "Good afternoon,",
    "Hello support,",
    "Dear support,",
    "Hey,",
    "Hello everybody,",
];

/// Sentences that tell neither the topic nor the urgency.
pub(crate) const BACKGROUNDS: &[&str] = &[
    "I am writing from our {city} office.",
    "We have been with you for {count} years.",
    "My colleague {person} noticed it first.",
    "I looked at the help pages and found nothing about it.",
    "I already wrote to you on {day}.",
    "Our customer number is {number}.",
    "{person} asked me to write to you.",
    "I hope this is the right place to ask.",
    "You can reach me by phone all day.",
    "I take care of this for our {city} office.",
];

/// How a ticket may end.
pub(crate) const CLOSINGS: &[&str] = &[
    "Thanks!",
    "Thank you, {person}",
    "Many thanks, {person}",
    "Best regards, {person}",
    "Kind regards, {person} from {city}",
    "Thanks for your help.",
    "Thank you in advance.",
    "Regards, {person}",
    "I hope you can help.",
    "Please let me know.",
];

/// First names of customers and colleagues.
pub(crate) const PEOPLE: &[&str] = &[
    "Maria", "Jonas", "Priya", "Omar", "Lena", "Victor", "Aiko", "Samuel", "Ingrid", "Paolo", "Chloe", "Tomas",
    "Nadia", "Erik", "Grace", "Felix", "Rosa", "Daniel", "Yara", "Peter",
];

/// Where they live and work.
pub(crate) const CITIES: &[&str] =
    &["Oslo", "Lisbon", "Berlin", "Porto", "Vienna", "Dublin", "Turin", "Ghent", "Boston", "Lyon", "Madrid", "Prague"];

/// What the company sells and repairs.
pub(crate) const DEVICES: &[&str] = &[
    "tablet",
    "label printer",
    "laptop",
    "card reader",
    "monitor",
    "scanner",
    "cash register",
    "phone",
    "projector",
    "router",
];

/// The days of the week.
pub(crate) const DAYS: &[&str] = &["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

/// The months of the year.
pub(crate) const MONTHS: &[&str] = &[
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

const PRINTERS: &[&str] = &["label printer", "receipt printer", "office printer"];
const PORTABLES: &[&str] = &["tablet", "laptop", "phone", "scanner", "card reader"];
const SCREENS: &[&str] = &["tablet", "laptop", "monitor", "cash register"];
const FANS: &[&str] = &["laptop", "projector", "router", "monitor"];
const APPLICATIONS: &[&str] = &["the mobile app", "the desktop app", "the web app", "the planning app", "your app"];
const PAGES: &[&str] = &["orders", "customers", "reports", "settings", "calendar", "stock"];
const PLANS: &[&str] = &["Starter", "Business", "Premium", "Studio"];

/// One of `choices`, which must not be empty.
pub(crate) fn pick<T: Copy>(random: &mut ChaCha8Rng, choices: &[T]) -> T {
    choices[random.random_range(0..choices.len())]
}

/// `sentence` with every slot filled; a name of a slot that is not known stays as it is.
pub(crate) fn fill(random: &mut ChaCha8Rng, sentence: &str) -> String {
    let mut filled = String::new();
    let mut rest = sentence;
    while let Some((before, after)) = rest.split_once('{') {
        filled.push_str(before);
        let Some((slot, behind)) = after.split_once('}') else {
            filled.push('{');
            rest = after;
            continue;
        };
        filled.push_str(&value(random, slot));
        rest = behind;
    }
    filled.push_str(rest);
    upper_case_first(&filled)
}

/// A random value for the slot named `slot`.
fn value(random: &mut ChaCha8Rng, slot: &str) -> String {
    match slot {
        "person" => pick(random, PEOPLE).to_owned(),
        "city" => pick(random, CITIES).to_owned(),
        "device" => pick(random, DEVICES).to_owned(),
        "printer" => pick(random, PRINTERS).to_owned(),
        "portable" => pick(random, PORTABLES).to_owned(),
        "screen" => pick(random, SCREENS).to_owned(),
        "fan" => pick(random, FANS).to_owned(),
        "day" => pick(random, DAYS).to_owned(),
        "month" => pick(random, MONTHS).to_owned(),
        "app" => pick(random, APPLICATIONS).to_owned(),
        "page" => pick(random, PAGES).to_owned(),
        "plan" => pick(random, PLANS).to_owned(),
        "count" => random.random_range(3..=40).to_string(),
        "number" => random.random_range(10_000..=99_999).to_string(),
        "code" => random.random_range(400..=599).to_string(),
        "money" => {
            let amount = random.random_range(12..=980);
            if random.random_bool(0.5) { format!("${amount}") } else { format!("{amount} euros") }
        }
        unknown => format!("{{{unknown}}}"),
    }
}

/// `text` with its first letter in upper case.
pub(crate) fn upper_case_first(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

/// `sentence` as it continues after a comma: in lower case, unless it begins with "I" or a name.
pub(crate) fn after_a_comma(sentence: &str) -> String {
    let first_word = sentence.split(' ').next().unwrap_or_default();
    if first_word == "I" || PEOPLE.contains(&first_word) {
        return sentence.to_owned();
    }
    let mut letters = sentence.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}

/// `text` as somebody in a hurry may type it: in lower case, shortened, with a slip, without a full stop.
pub(crate) fn in_a_hurry(random: &mut ChaCha8Rng, mut text: String) -> String {
    if random.random_bool(0.2) {
        text = text.to_lowercase();
    }
    if random.random_bool(0.08) {
        text = text.replace("please", "pls").replace("Please", "Pls").replace("Thanks", "Thx").replace("thanks", "thx");
    }
    if random.random_bool(0.1) {
        text = with_two_letters_swapped(random, &text);
    }
    if random.random_bool(0.12) && text.ends_with(['.', '!']) {
        text.pop();
    }
    text
}

/// `text` with two neighbouring letters inside one of its longer words swapped.
fn with_two_letters_swapped(random: &mut ChaCha8Rng, text: &str) -> String {
    let mut words: Vec<String> = text.split(' ').map(str::to_owned).collect();
    let long: Vec<usize> = (0..words.len())
        .filter(|&at| words[at].len() >= 6 && words[at].bytes().all(|byte| byte.is_ascii_lowercase()))
        .collect();
    if !long.is_empty() {
        let at = pick(random, &long);
        let mut letters: Vec<char> = words[at].chars().collect();
        let first = random.random_range(1..letters.len() - 2);
        letters.swap(first, first + 1);
        words[at] = letters.into_iter().collect();
    }
    words.join(" ")
}
