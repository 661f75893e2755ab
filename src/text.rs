//! Figures and names as people read them, each in one format wherever it is printed: counts, bytes, durations, lines of
//! a table, and the name that a misspelt one stands for.

use std::borrow::Cow;
use std::fmt::{Display, Write};
use std::path::{Path, PathBuf};

pub use datasets::nearest;

/// The column in which the value of a [`line`] begins.
const VALUE_COLUMN: usize = 16;

/// An integer with its digits in groups of three: `8,030,261,248`.
pub fn grouped(number: impl Display) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number of things: `1 row`, `1,234 rows`. The plural of `noun` is formed with an s.
pub fn counted(number: usize, noun: &str) -> String {
    format!("{} {noun}{}", grouped(number), if number == 1 { "" } else { "s" })
}

/// Bytes in units of powers of two: `512 bytes`, `4.0 KiB`, `586 KiB`, `1.40 GiB`, `13.4 GiB`.
pub fn bytes(bytes: u64) -> String {
    let unit = |power: u32| bytes as f64 / (1_u64 << power) as f64;
    let shown = |value: f64, name: &str| {
        let decimals = usize::from(value < 10.0);
        format!("{value:.decimals$} {name}")
    };
    match bytes {
        0..0x400 => counted(bytes as usize, "byte"),
        0x400..0x10_0000 => shown(unit(10), "KiB"),
        0x10_0000..0x4000_0000 => shown(unit(20), "MiB"),
        // A tenth of a GiB decides whether a model fits a device.
        _ => {
            let value = unit(30);
            let decimals = if value < 10.0 { 2 } else { 1 };
            format!("{value:.decimals$} GiB")
        }
    }
}

/// Seconds in the unit that suits them: `45 ms`, `12.3 s`, `4.5 min`, `1.2 h`.
pub fn duration(seconds: f64) -> String {
    match seconds {
        ..0.01 => format!("{:.1} ms", 1e3 * seconds),
        ..1.0 => format!("{:.0} ms", 1e3 * seconds),
        ..60.0 => format!("{seconds:.1} s"),
        ..3600.0 => format!("{:.1} min", seconds / 60.0),
        _ => format!("{:.1} h", seconds / 3600.0),
    }
}

/// The text as one word of a shell.
pub fn shell_word(text: &str) -> Cow<'_, str> {
    let is_plain = |letter: char| letter.is_alphanumeric() || "_-./:=@%+,".contains(letter);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.into();
    }
    format!("'{}'", text.replace('\'', r"'\''")).into()
}

/// The path that `path`, which does not exist, was probably meant to be, with the nearest names in place of those that
/// are missing; `fits` tells if it would do.
pub fn similar_path(path: &Path, fits: impl Fn(&Path) -> bool) -> Option<PathBuf> {
    let mut found = PathBuf::new();
    for component in path.components() {
        let next = found.join(component);
        if next.exists() {
            found = next;
            continue;
        }
        let folder = if found.as_os_str().is_empty() { Path::new(".") } else { &found };
        let names: Vec<String> =
            std::fs::read_dir(folder).ok()?.flatten().map(|entry| entry.file_name().to_string_lossy().into()).collect();
        let near = nearest(component.as_os_str().to_str()?, names.iter().map(String::as_str))?;
        found.push(near);
    }
    (found != path && fits(&found)).then_some(found)
}

/// Appends a line of a table to `text`: `label`, and `value` in the column that all tables share.
pub fn line(text: &mut String, label: &str, value: &str) {
    const WIDTH: usize = VALUE_COLUMN - 1;
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{label:<WIDTH$} {value}");
}

/// Appends one line per value; only the first has the label.
pub fn lines<S: AsRef<str>>(text: &mut String, label: &str, values: impl IntoIterator<Item = S>) {
    for (index, value) in values.into_iter().enumerate() {
        line(text, if index == 0 { label } else { "" }, value.as_ref());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_grouped_by_thousands() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([0, 1, 2000].map(|number| counted(number, "row")), ["0 rows", "1 row", "2,000 rows"]);
    }

    #[test]
    fn bytes_are_given_in_powers_of_two() {
        for (number, text) in [
            (0, "0 bytes"),
            (1, "1 byte"),
            (1023, "1,023 bytes"),
            (1024, "1.0 KiB"),
            (600_000, "586 KiB"),
            (5 << 20, "5.0 MiB"),
            (448 << 20, "448 MiB"),
            (1_500_000_000, "1.40 GiB"),
            (22 << 30, "22.0 GiB"),
            (141_107_412_992, "131.4 GiB"),
        ] {
            assert_eq!(bytes(number), text);
        }
    }

    #[test]
    fn durations_are_given_in_the_unit_that_suits_them() {
        let seconds = [0.0004, 0.045, 12.34, 270.0, 4320.0];
        assert_eq!(seconds.map(duration), ["0.4 ms", "45 ms", "12.3 s", "4.5 min", "1.2 h"]);
    }

    #[test]
    fn values_stand_in_one_column_and_a_label_stands_once() {
        let mut text = String::new();
        line(&mut text, "learning rate", "0.001");
        lines(&mut text, "layers", ["0-1", "2"]);
        assert_eq!(text, "learning rate   0.001\nlayers          0-1\n                2\n");
    }

    #[test]
    fn words_of_a_shell_are_quoted_where_they_must_be() {
        for (text, word) in [
            ("runs/tickets-1", "runs/tickets-1"),
            ("my run", "'my run'"),
            ("it's", r"'it'\''s'"),
            ("$HOME", "'$HOME'"),
            ("", "''"),
            ("läufe/eins", "läufe/eins"),
        ] {
            assert_eq!(shell_word(text), word);
        }
    }

    #[test]
    fn a_path_with_a_misspelt_folder_stands_for_one_that_exists() {
        let meant = Path::new("tests/fixtures/models/qwen3");
        for path in ["tests/fixtures/models/qwn3", "tests/fixtrues/models/qwen3", "test/fixtures/modles/qwen3"] {
            assert_eq!(similar_path(Path::new(path), Path::is_dir).as_deref(), Some(meant), "{path}");
        }
        assert_eq!(similar_path(Path::new("tests/fixtures/models/qwn3"), Path::is_file), None);
        assert_eq!(similar_path(meant, Path::is_dir), None);
        assert_eq!(similar_path(Path::new("org/elsewhere"), Path::is_dir), None);
    }

    #[test]
    fn a_misspelt_name_stands_for_the_nearest_one() {
        let names = ["lora_r", "lora_alpha", "train.jsonl", "Output", "no"];
        for (given, wanted) in [
            ("lora_rr", Some("lora_r")),
            ("lora_alhpa", Some("lora_alpha")),
            ("trian.jsonl", Some("train.jsonl")),
            ("output", Some("Output")),
            ("a", None),
            ("learning_rate", None),
        ] {
            assert_eq!(nearest(given, names), wanted, "{given}");
        }
    }
}
