//! `split` as Hugging Face writes it: `train`, `train[:80%]`, `train[10:20]`, `train[:5%]+test[-10:]`.
//!
//! A slice is of the rows of its split. Percentages become rows by rounding to the nearest, halves to
//! the even one; borders beyond the rows are moved to them.

use std::ops::Range;

use crate::foundation::{Error, SourceSettings};

/// Words in file names that name a split, as Hugging Face reads them; those of a line are synonyms.
const SPLITS: [&[&str]; 3] =
    [&["train", "training"], &["validation", "valid", "dev", "val"], &["test", "testing", "eval", "evaluation"]];

/// A part of a split.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SplitPart {
    /// The split's name.
    pub(crate) name: String,
    /// Its slice; `None` for all rows.
    pub(crate) slice: Option<Slice>,
}

/// `[from:to]`, each border as written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Slice {
    from: Option<Border>,
    to: Option<Border>,
}

/// The begin or end of a slice; negative counts from the end.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Border {
    Row(i64),
    Percent(i64),
}

impl Slice {
    /// The selected ones of `rows` rows.
    pub(crate) fn range(&self, rows: usize) -> Range<usize> {
        let border = |border: Option<Border>, otherwise: usize| match border {
            None => otherwise,
            Some(Border::Row(row)) => row_at(row, rows),
            Some(Border::Percent(percent)) => {
                let row = (percent as f64 * rows as f64 / 100.0).round_ties_even();
                row_at(row as i64, rows)
            }
        };
        let from = border(self.from, 0);
        from..border(self.to, rows).max(from)
    }
}

fn row_at(row: i64, rows: usize) -> usize {
    let row = if row < 0 { row.saturating_add_unsigned(rows as u64).max(0) } else { row };
    usize::try_from(row).unwrap_or(usize::MAX).min(rows)
}

/// The parts of a source's `split`; all of `train` where it names none.
pub(crate) fn parts_of(source: &SourceSettings) -> Result<Vec<SplitPart>, Error> {
    match source.split.as_deref() {
        None => Ok(vec![SplitPart { name: "train".to_owned(), slice: None }]),
        Some(text) => parse(text).map_err(|reason| Error::Setting {
            location: source.location.as_str().into(),
            problem: format!("`split: {text}` is not valid: {reason}"),
            hint: "write `train`, `train[:80%]` or `train[100:200]`".to_owned(),
        }),
    }
}

/// The files of the split `name`, or of a synonym.
pub fn find_split<'s, F>(splits: &'s [(String, F)], name: &str) -> Option<&'s F> {
    let same = |other: &str| SPLITS.iter().any(|names| names.contains(&name) && names.contains(&other));
    let exact = splits.iter().find(|(split, _)| split == name);
    exact.or_else(|| splits.iter().find(|(split, _)| same(split))).map(|(_, files)| files)
}

/// The synonyms of the split that a file's name contains, if it contains one.
pub(crate) fn split_named(name: &str) -> Option<&'static [&'static str]> {
    let words = name.split(|letter: char| !letter.is_alphanumeric());
    words
        .map(|word| word.trim_end_matches(char::is_numeric))
        .find_map(|word| SPLITS.iter().find(|names| names.contains(&word)))
        .copied()
}

/// Parses a split; the error is the reason why it is not valid.
fn parse(text: &str) -> Result<Vec<SplitPart>, String> {
    text.split('+').map(|part| parse_part(part.trim())).collect()
}

fn parse_part(part: &str) -> Result<SplitPart, String> {
    let Some((name, rest)) = part.split_once('[') else {
        return match part {
            "" => Err("a part of it is empty".to_owned()),
            name => Ok(SplitPart { name: name.to_owned(), slice: None }),
        };
    };
    let inside = rest.strip_suffix(']').ok_or("`[` is not closed")?;
    let (from, to) = inside.split_once(':').ok_or("a slice is written `[from:to]`")?;
    if name.is_empty() {
        return Err("the slice has no split before it".to_owned());
    }
    Ok(SplitPart { name: name.to_owned(), slice: Some(Slice { from: border(from)?, to: border(to)? }) })
}

fn border(text: &str) -> Result<Option<Border>, String> {
    let text = text.trim();
    let wrong = |_| format!("`{text}` is neither a row nor a percentage");
    match text.strip_suffix('%') {
        _ if text.is_empty() => Ok(None),
        None => text.parse().map(|row| Some(Border::Row(row))).map_err(wrong),
        Some(number) => match number.trim().parse::<i64>().map_err(wrong)? {
            percent if percent.abs() <= 100 => Ok(Some(Border::Percent(percent))),
            percent => Err(format!("`{percent}%` is more than 100%")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_mean_what_hugging_face_means() {
        for (text, rows, wanted) in [
            ("train", 7, None),
            ("train[:80%]", 10, Some(0..8)),
            ("train[10:20]", 15, Some(10..15)),
            ("train[-10%:]", 20, Some(18..20)),
            ("train[-3:]", 20, Some(17..20)),
            ("train[:-3]", 20, Some(0..17)),
            ("train[50%:]", 5, Some(2..5)),
            ("train[50%:]", 7, Some(4..7)),
            ("train[30:20]", 40, Some(30..30)),
        ] {
            let parts = parse(text).unwrap();
            assert_eq!(parts[0].name, "train");
            assert_eq!(parts[0].slice.map(|slice| slice.range(rows)), wanted, "{text}");
        }
        let parts = parse("train[:10%] + test").unwrap();
        assert_eq!(parts.iter().map(|part| part.name.as_str()).collect::<Vec<_>>(), ["train", "test"]);
    }

    #[test]
    fn a_split_is_found_by_any_of_its_names() {
        let splits = [("validation".to_owned(), 1), ("train".to_owned(), 2)];
        assert_eq!(find_split(&splits, "dev"), Some(&1));
        assert_eq!(find_split(&splits, "train"), Some(&2));
        assert_eq!(find_split(&splits, "test"), None);
    }

    #[test]
    fn an_invalid_slice_is_refused_with_the_reason() {
        for (text, reason) in [
            ("train[:80", "`[` is not closed"),
            ("train[5]", "`[from:to]`"),
            ("train[:x%]", "`x%` is neither"),
            ("train[:120%]", "`120%` is more"),
            ("[:1]", "no split before it"),
            ("train+", "empty"),
        ] {
            assert!(parse(text).unwrap_err().contains(reason), "{text}");
        }
    }
}
