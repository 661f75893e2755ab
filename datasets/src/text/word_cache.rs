//! A cache of words for byte-level BPE: words that were met before are not merged again.
//!
//! Such tokenizers cut a text at special tokens, then into words by patterns, and then merge each word by
//! itself, so that a word's tokens can be cached. Texts are cut by the tokenizer's own parts and patterns;
//! tokenizers built otherwise, and texts that normalising changes, are left to the library.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use tokenizers::models::ModelWrapper;
use tokenizers::models::bpe::BPE;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::utils::SysRegex;
use tokenizers::{Model, OffsetReferential, OffsetType, SplitDelimiterBehavior, Tokenizer};

/// Longest word that is cached, in bytes.
const KEPT_BYTES: usize = 64;

/// Most words in the cache of a thread.
const KEPT_WORDS: usize = 1 << 17;

/// Tokens of a word: the id of each, and its end in the word, in bytes.
type Word = Box<[(u32, u32)]>;

thread_local! {
    /// The words of the tokenizer that this thread used last.
    static KEPT: RefCell<(u64, HashMap<Box<str>, Word>)> = RefCell::new((0, HashMap::new()));
}

/// Tokens of a text, each with the bytes of the text that it covers.
#[derive(Debug)]
pub(crate) struct Encoded {
    pub(crate) ids: Vec<u32>,
    /// Start and end byte; tokens that share a character may share its bytes, and normalising may leave gaps.
    pub(crate) offsets: Vec<(usize, usize)>,
}

/// The part of a tokenizer's work that goes through the cache.
#[derive(Debug)]
pub(crate) struct WordCache {
    /// The number of this tokenizer, which no other has.
    number: u64,
    /// The letter that stands for each byte.
    letters: [char; 256],
}

impl WordCache {
    /// The cache of a tokenizer; `None` for one of another kind.
    pub(crate) fn of(tokenizer: &Tokenizer) -> Option<WordCache> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        parts(tokenizer)?;
        Some(WordCache { number: NEXT.fetch_add(1, Ordering::Relaxed), letters: letters() })
    }

    /// Ids with the bytes that each covers; `None` if the library must encode this text.
    pub(crate) fn encode(&self, tokenizer: &Tokenizer, text: &str) -> Option<Encoded> {
        let (patterns, model) = parts(tokenizer)?;
        let pieces = tokenizer.get_added_vocabulary().extract_and_normalize(tokenizer.get_normalizer(), text);
        let (mut ids, mut offsets) = (Vec::with_capacity(text.len() / 3), Vec::with_capacity(text.len() / 3));
        for (piece, (start, end), special) in pieces.get_splits(OffsetReferential::Original, OffsetType::Byte) {
            if let Some(special) = special {
                ids.extend(special.iter().map(|token| token.id));
                offsets.extend(special.iter().map(|_| (start, end)));
                continue;
            }
            if text.get(start..end) != Some(piece) {
                return None;
            }
            let mut words = vec![(0, piece.len())];
            for pattern in &patterns {
                words = words.iter().flat_map(|word| cut(pattern, piece, *word)).collect();
            }
            for (from, to) in words {
                self.word(model, &piece[from..to], |id, word_start, word_end| {
                    ids.push(id);
                    offsets.push((start + from + word_start, start + from + word_end));
                })?;
            }
        }
        Some(Encoded { ids, offsets })
    }

    /// The tokens of a word, each with its begin and end in it.
    fn word(&self, model: &BPE, word: &str, mut token: impl FnMut(u32, usize, usize)) -> Option<()> {
        let mut emit = |tokens: &[(u32, u32)]| {
            let mut start = 0;
            for (id, end) in tokens {
                token(*id, start, *end as usize);
                start = *end as usize;
            }
        };
        KEPT.with_borrow_mut(|(number, kept)| {
            if *number != self.number {
                kept.clear();
                *number = self.number;
            }
            if let Some(tokens) = kept.get(word) {
                emit(tokens);
                return Some(());
            }
            let tokens = self.merge(model, word)?;
            emit(&tokens);
            if word.len() <= KEPT_BYTES && kept.len() < KEPT_WORDS {
                kept.insert(word.into(), tokens);
            }
            Some(())
        })
    }

    fn merge(&self, model: &BPE, word: &str) -> Option<Word> {
        let spelt: String = word.bytes().map(|byte| self.letters[usize::from(byte)]).collect();
        let tokens = model.tokenize(&spelt).ok()?;
        let mut end = 0;
        let tokens: Word = tokens
            .iter()
            .map(|token| {
                end += token.value.chars().count();
                (token.id, u32::try_from(end).unwrap_or(u32::MAX))
            })
            .collect();
        // A byte that the vocabulary lacks would be missing here.
        (end == word.len()).then_some(tokens)
    }
}

/// The patterns that cut words, and the model, of a tokenizer whose words can be cached.
fn parts(tokenizer: &Tokenizer) -> Option<(Vec<&SysRegex>, &BPE)> {
    let ModelWrapper::BPE(model) = tokenizer.get_model() else { return None };
    let plain = model.dropout.is_none()
        && model.unk_token.is_none()
        && model.continuing_subword_prefix.is_none()
        && model.end_of_word_suffix.is_none()
        && !model.byte_fallback;
    let Some(PreTokenizerWrapper::Sequence(sequence)) = tokenizer.get_pre_tokenizer() else { return None };
    let (PreTokenizerWrapper::ByteLevel(last), cuts) = sequence.as_ref().split_last()? else { return None };
    if !plain || last.add_prefix_space || last.use_regex {
        return None;
    }
    let pattern = |part: &'_ PreTokenizerWrapper| match part {
        PreTokenizerWrapper::Split(split) => !split.invert && split.behavior == SplitDelimiterBehavior::Isolated,
        _ => false,
    };
    if !cuts.iter().all(pattern) {
        return None;
    }
    let patterns = cuts.iter().filter_map(|part| match part {
        PreTokenizerWrapper::Split(split) => Some(&split.regex),
        _ => None,
    });
    Some((patterns.collect(), model))
}

/// A piece of a text cut where the pattern matches, matches being pieces themselves.
fn cut(pattern: &SysRegex, text: &str, (from, to): (usize, usize)) -> Vec<(usize, usize)> {
    let mut pieces = Vec::new();
    let mut reached = from;
    for (start, end) in pattern.find_iter(&text[from..to]) {
        let (start, end) = (from + start, from + end);
        if start > reached {
            pieces.push((reached, start));
        }
        if end > start {
            pieces.push((start, end));
        }
        reached = end.max(reached);
    }
    if to > reached {
        pieces.push((reached, to));
    }
    pieces
}

/// GPT-2's letters for bytes: printable Latin-1 stands for itself, the others follow from U+0100 on.
fn letters() -> [char; 256] {
    let mut letters = ['\0'; 256];
    let mut next = 0x100;
    for (byte, letter) in (0..=u8::MAX).zip(&mut letters) {
        *letter = match byte {
            b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF => char::from(byte),
            _ => {
                next += 1;
                char::from_u32(next - 1).unwrap_or('\0')
            }
        };
    }
    letters
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;
    use proptest::test_runner::{Config, RngSeed};

    use super::*;

    fn tokenizers() -> Vec<(String, Tokenizer)> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/tokenizers");
        let mut found = Vec::new();
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            found.push((name, Tokenizer::from_file(path.join("tokenizer.json")).unwrap()));
        }
        found
    }

    /// True if the cache encodes the text; its ids must be the library's, and its bytes without gaps.
    fn check(name: &str, tokenizer: &Tokenizer, text: &str) -> bool {
        let words = WordCache::of(tokenizer).unwrap();
        // The second time from the cache.
        for _ in 0..2 {
            let Some(Encoded { ids, offsets }) = words.encode(tokenizer, text) else {
                return false;
            };
            assert_eq!(ids, tokenizer.encode(text, false).unwrap().get_ids(), "{name}: {text:?}");
            let mut reached = 0;
            for (start, end) in offsets {
                assert!(start == reached && end > start, "{name}: {text:?}");
                reached = end;
            }
            assert_eq!(reached, text.len(), "{name}: {text:?}");
        }
        true
    }

    #[test]
    fn byte_level_tokenizers_are_recognised() {
        let kept: Vec<String> = tokenizers()
            .into_iter()
            .filter(|(_, tokenizer)| WordCache::of(tokenizer).is_some())
            .map(|(name, _)| name)
            .collect();
        for name in ["llama3", "qwen3", "deepseek", "tekken"] {
            assert!(kept.iter().any(|kept| kept == name), "{name}: {kept:?}");
        }
        assert!(!kept.iter().any(|kept| kept == "gemma" || kept == "mistral_v1"), "{kept:?}");
    }

    #[test]
    fn letters_are_those_of_the_library() {
        let letters: std::collections::BTreeSet<char> = letters().into_iter().collect();
        let theirs = tokenizers::pre_tokenizers::byte_level::ByteLevel::alphabet().into_iter().collect();
        assert_eq!(letters, theirs);
    }

    #[test]
    fn words_give_the_ids_of_the_whole_text() {
        let fast: Vec<(String, Tokenizer)> =
            tokenizers().into_iter().filter(|(_, tokenizer)| WordCache::of(tokenizer).is_some()).collect();
        let config = Config { cases: 300, rng_seed: RngSeed::Fixed(3), failure_persistence: None, ..Config::default() };
        let mut runner = proptest::test_runner::TestRunner::new(config);
        let any =
            "(\\PC{0,12}|[a-zA-Z' ]{0,12}|[ \t\r\n]{0,4}|[0-9]{0,7}|<\\|im_end\\|>|<\\|eot_id\\|>|</s>|[äé日本🙂'’ſ])";
        let texts = proptest::collection::vec(proptest::string::string_regex(any).unwrap(), 0..8);
        runner
            .run(&texts, |parts| {
                let text = parts.concat();
                for (name, tokenizer) in &fast {
                    let by_words = check(name, tokenizer, &text);
                    prop_assert!(by_words || name.starts_with("qwen"), "only normalising sends a text to the library");
                }
                Ok(())
            })
            .unwrap();
    }
}
