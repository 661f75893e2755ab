//! Damage at random, over and over: of bytes, of JSON, of texts. Other packages' fuzz tests use this file too.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

/// Longest that one input may take, of two tries: a busy machine makes a first one long.
const LONGEST: Duration = Duration::from_secs(20);

/// Runs a target on input after input until the time is up: `TUNE_FUZZ_SECONDS`, without it a moment. Inputs are made
/// from numbers, the first of which is `TUNE_FUZZ_SEED`; a failure names the number, which makes the input again.
pub(crate) fn for_a_while(name: &str, target: impl Fn(&mut ChaCha8Rng)) {
    let variable = |name: &str| std::env::var(name).ok();
    let seconds = variable("TUNE_FUZZ_SECONDS").and_then(|text| text.parse().ok()).unwrap_or(1.0);
    let first: u64 = variable("TUNE_FUZZ_SEED").and_then(|text| text.parse().ok()).unwrap_or(0);
    let began = Instant::now();
    let mut inputs = 0;
    while began.elapsed().as_secs_f64() < seconds {
        let seed = first + inputs;
        let time = || {
            let started = Instant::now();
            let outcome = catch_unwind(AssertUnwindSafe(|| target(&mut ChaCha8Rng::seed_from_u64(seed))));
            assert!(outcome.is_ok(), "{name}: seed {seed} panics");
            started.elapsed()
        };
        if time() > LONGEST {
            let again = time();
            assert!(again < LONGEST, "{name}: seed {seed} takes {again:?}");
        }
        inputs += 1;
    }
    say(&format!("fuzz {name}: {inputs} inputs, 0 crashes"));
    assert!(inputs > 0);
}

#[expect(clippy::print_stderr, reason = "how many inputs there were is what a person wants to know")]
fn say(text: &str) {
    eprintln!("{text}");
}

/// A folder that is removed when the test ends.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("tune-fuzz-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Some bytes changed, left out, doubled or put in.
pub(crate) fn damage(bytes: &mut Vec<u8>, random: &mut ChaCha8Rng) {
    const PIECES: [&[u8]; 10] =
        [b"\0", b"\xff\xfe", b"{", b"[", b"\"", b"\\u", b"null", b"1e999", b"-9223372036854775809", b"\n\n"];
    for _ in 0..random.random_range(1..6) {
        let place = random.random_range(0..=bytes.len());
        let end = (place + random.random_range(0..40)).min(bytes.len());
        match random.random_range(0..6) {
            0 if place < bytes.len() => bytes[place] = random.random(),
            1 => bytes.truncate(place),
            2 => drop(bytes.drain(place..end)),
            3 => {
                let piece = bytes[place..end].to_vec();
                drop(bytes.splice(place..place, piece));
            }
            4 if place < bytes.len() => bytes[place] ^= 1 << random.random_range(0..8),
            _ => {
                let piece = PIECES[random.random_range(0..PIECES.len())];
                drop(bytes.splice(place..place, piece.iter().copied()));
            }
        }
    }
}

/// Some values of a JSON text replaced by others of it or by unexpected ones, and now and then bytes damaged.
pub(crate) fn damaged_json(sound: &Value, random: &mut ChaCha8Rng) -> Vec<u8> {
    let mut value = sound.clone();
    for _ in 0..random.random_range(1..5) {
        let count = count(&value);
        let put = match random.random_range(0..3) {
            0 => node(&mut value, random.random_range(0..count)).clone(),
            _ => unexpected(random),
        };
        let target = node(&mut value, random.random_range(0..count));
        match target {
            Value::Object(entries) if random.random() && !entries.is_empty() => {
                let key = entries.keys().nth(random.random_range(0..entries.len())).cloned().unwrap();
                if random.random() { drop(entries.remove(&key)) } else { drop(entries.insert(key + "x", put)) }
            }
            Value::Array(items) if random.random() && !items.is_empty() => {
                let place = random.random_range(0..items.len());
                if random.random() { drop(items.remove(place)) } else { items.insert(place, put) }
            }
            target => *target = put,
        }
    }
    let mut bytes = value.to_string().into_bytes();
    if random.random_range(0..4) == 0 {
        damage(&mut bytes, random);
    }
    bytes
}

fn unexpected(random: &mut ChaCha8Rng) -> Value {
    let values = [
        json!(null),
        json!(true),
        json!(0),
        json!(-1),
        json!(1),
        json!(7),
        json!(1_u64 << 31),
        json!(1_u64 << 53),
        json!(u64::MAX),
        json!(1e300),
        json!(1e-300),
        json!(0.5),
        json!(""),
        json!("x"),
        json!("../../x"),
        json!("a".repeat(10_000)),
        json!([]),
        json!({}),
        json!([[[[[[]]]]]]),
        json!([1, 2, 3]),
    ];
    values[random.random_range(0..values.len())].clone()
}

/// The values of a tree, its inner ones too.
fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(count).sum::<usize>(),
        Value::Object(entries) => entries.values().map(count).sum(),
        _ => 0,
    }
}

/// The value number `index` of a tree, which must be below its [`count`].
fn node(value: &mut Value, index: usize) -> &mut Value {
    if index == 0 {
        return value;
    }
    let mut rest = index - 1;
    let inner: Vec<&mut Value> = match value {
        Value::Array(items) => items.iter_mut().collect(),
        Value::Object(entries) => entries.values_mut().collect(),
        _ => unreachable!("a single value has no other in it"),
    };
    for inner in inner {
        let below = count(inner);
        if rest < below {
            return node(inner, rest);
        }
        rest -= below;
    }
    unreachable!("the index is below the count")
}
