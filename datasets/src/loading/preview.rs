//! Examples as text, for people: runs of trained and untrained tokens; and as token ids, for programs.

use super::dataset::Dataset;
use crate::foundation::Error;
use crate::rows::Example;
use crate::text::Tokenizer;

/// An example as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preview {
    /// The place of the row, e.g. `train.jsonl:310`.
    pub location: String,
    /// The text in order; neighbours differ in `trained`.
    pub pieces: Vec<Piece>,
    /// The token ids, with their mask.
    pub example: Example,
}

/// A run of tokens of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The text, special tokens included.
    pub text: String,
    /// True if these tokens are trained on.
    pub trained: bool,
}

/// The first `rows` examples to train on.
pub fn preview(dataset: &Dataset, tokenizer: &Tokenizer, rows: usize) -> Result<Vec<Preview>, Error> {
    preview_of(dataset, tokenizer, &(0..rows.min(dataset.train.len())).collect::<Vec<_>>())
}

/// Examples to train on by their index, in the order asked for; an index beyond them is left out.
///
/// [`Dataset::drawn`] and [`Dataset::on_line`] give indices.
pub fn preview_of(dataset: &Dataset, tokenizer: &Tokenizer, indices: &[usize]) -> Result<Vec<Preview>, Error> {
    indices
        .iter()
        .filter_map(|index| dataset.train.get(*index))
        .map(|example| {
            let (location, pieces) = (dataset.location(&example), pieces(&example, tokenizer)?);
            Ok(Preview { location, pieces, example })
        })
        .collect()
}

/// Runs of tokens, decoded so that the pieces together are the text of the whole.
///
/// A run is the text that decoding gains by it: decoders drop spaces at the beginning of a text, and a
/// character may take several tokens.
fn pieces(example: &Example, tokenizer: &Tokenizer) -> Result<Vec<Piece>, Error> {
    let mut pieces = Vec::new();
    let mut before = String::new();
    let mut end = 0;
    for run in example.trained.chunk_by(|left, right| left == right) {
        let start = end;
        end += run.len();
        let whole = tokenizer.decode(&example.tokens[..end])?;
        let text = match whole.strip_prefix(before.as_str()) {
            Some(gained) => gained.to_owned(),
            None => tokenizer.decode(&example.tokens[start..end])?,
        };
        pieces.push(Piece { text, trained: run[0] });
        before = whole;
    }
    Ok(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::foundation::DatasetSettings;
    use crate::test_tokenizer::chatml_tokenizer;

    #[test]
    fn examples_are_shown_by_index_by_line_and_as_drawn() {
        let tokenizer = chatml_tokenizer();
        let example = |line: usize| Example { tokens: vec![5; line + 1], trained: vec![true; line + 1], file: 0, line };
        let examples = (0..30).map(|index| example(index + 2)).collect();
        let dataset = Dataset::from_examples(examples, Vec::new(), &DatasetSettings::default());
        let tokens = |indices: &[usize]| -> Vec<usize> {
            preview_of(&dataset, &tokenizer, indices).unwrap().iter().map(|shown| shown.example.tokens.len()).collect()
        };
        assert_eq!(tokens(&[4, 0, 99]), [7, 3]);
        assert_eq!(dataset.on_line(9), [7]);
        let drawn = dataset.drawn(5);
        assert_eq!((drawn.len(), &drawn), (5, &dataset.drawn(5)));
        assert!(drawn.is_sorted() && dataset.drawn(99).len() == 30);
        assert_eq!(preview(&dataset, &tokenizer, 2).unwrap().len(), 2);
    }

    #[test]
    fn pieces_are_whole_characters_and_add_up_to_the_text() {
        let tokenizer = chatml_tokenizer();
        let text = "Größe? <|im_end|>日本語🙂";
        let tokens = tokenizer.encode(text, false).unwrap();
        let split = tokenizer.encode("Größe? <|im_end|>", false).unwrap().len();
        let trained: Vec<bool> = (0..tokens.len()).map(|token| token >= split).collect();
        let example = Example { tokens, trained, file: 0, line: 1 };
        let pieces = pieces(&example, &tokenizer).unwrap();
        assert_eq!(
            pieces,
            [
                Piece { text: "Größe? <|im_end|>".to_owned(), trained: false },
                Piece { text: "日本語🙂".to_owned(), trained: true },
            ]
        );
    }
}
