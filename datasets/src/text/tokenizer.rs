//! Text to token ids and back, and messages to text: `tokenizer.json` with its chat template.
//!
//! The template is the only source of special tokens in chats: rendered text is encoded without
//! adding any. Which tokens end a turn is known before any row is read.

use std::path::Path;

use serde_json::{Map, Value};
use twox_hash::XxHash3_128;

use super::conversation::Message;
use super::normalizer_growth::{MOST_GROWTH, growth};
use super::template::{Rendered, TemplateProblem, to_jinja};
use super::template_choice::TemplateChoice;
use super::templates::Templates;
use super::tokenizer_files::{SpecialTokenOverrides, TokenizerFiles};
use super::turns::Turns;
use super::word_cache::{Encoded, WordCache};
use crate::foundation::{Error, Location, guarded, read_bounded};

/// Most bytes of `tokenizer.json`: three times those of the largest vocabularies. In memory it takes several times as
/// much.
const MOST_BYTES: u64 = 100_000_000;

/// A model's tokenizer with its special tokens and its chat template.
#[derive(Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    origin: String,
    bos: Option<u32>,
    eos: Option<u32>,
    end_of_turn: Vec<u32>,
    /// Of these, the ids that `train_on_eot` is about.
    eot: Vec<u32>,
    special_tokens: Map<String, Value>,
    templates: Templates,
    /// Of the bytes of `tokenizer.json`.
    file_hash: u128,
    vocab_size: usize,
    word_cache: Option<WordCache>,
}

impl Tokenizer {
    /// Opens `tokenizer.json` and the files beside it in `folder`.
    ///
    /// `eot_tokens` are the recipe's end-of-turn tokens, `generation_eos_ids` those of
    /// `generation_config.json`; the token with which the template itself ends an assistant turn
    /// is found by rendering one.
    ///
    /// # Errors
    /// If a file is missing or broken, the template cannot be parsed, or a token is not in the vocabulary.
    pub fn open(
        folder: &Path,
        template: &TemplateChoice,
        special: &SpecialTokenOverrides,
        eot_tokens: &[String],
        generation_eos_ids: &[u32],
    ) -> Result<Tokenizer, Error> {
        let path = folder.join("tokenizer.json");
        let origin = path.display().to_string();
        let broken =
            |problem: String, hint: &str| Error::Tokenizer { path: origin.clone(), problem, hint: hint.to_owned() };
        if !path.is_file() {
            return Err(broken(
                "the file does not exist".to_owned(),
                "a base model folder holds `tokenizer.json`; convert older tokenizers with transformers' `save_pretrained`",
            ));
        }
        let unreadable = |source| Error::Unreadable { path: origin.clone(), source };
        let bytes = read_bounded(&path, MOST_BYTES).map_err(unreadable)?;
        let read = guarded(|| tokenizers::Tokenizer::from_bytes(&bytes).map_err(|error| error.to_string()));
        let mut inner = read
            .and_then(|read| read)
            .map_err(|problem| broken(problem, "copy the file from the model's repository again"))?;
        let normalizer = serde_json::to_value(inner.get_normalizer()).unwrap_or_default();
        let growth = growth(&normalizer);
        if growth > MOST_GROWTH {
            let problem =
                format!("its normalizer makes up to {growth:.0} bytes of one byte, accepted are {MOST_GROWTH:.0}");
            return Err(broken(problem, "use the file that the model was published with"));
        }
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|error| broken(error.to_string(), "remove `truncation` from the file"))?;
        let mut files = TokenizerFiles::read(folder)?;
        files.override_tokens(special);
        let chosen = template.sources(&files)?;

        let id_of = |location: Location, token: &str| {
            inner.token_to_id(token).ok_or_else(|| Error::Setting {
                location,
                problem: format!("`{token}` is not a token of {origin}"),
                hint: "name a token of the vocabulary, which is never resized".to_owned(),
            })
        };
        let special_id = |name: &str, key: &'static str| {
            let is_set = special.set().any(|(set, _)| set == name);
            let beside = || Location::Place(format!("{}: `{name}`", folder.display()));
            let location = if is_set { Location::Key(key) } else { beside() };
            files.special_token(name).map(|token| id_of(location, token)).transpose()
        };
        let bos = special_id("bos_token", "special_tokens.bos_token")?;
        let eos = special_id("eos_token", "special_tokens.eos_token")?;
        // Batches need no padding token, but one that the vocabulary lacks is a mistake.
        special_id("pad_token", "special_tokens.pad_token")?;
        let mut end_of_turn: Vec<u32> = eos.into_iter().collect();
        for token in eot_tokens {
            end_of_turn.push(id_of(Location::Key("eot_tokens"), token)?);
        }
        end_of_turn.extend(generation_eos_ids);

        let templates = Templates::read(chosen, &files.special_tokens)?;
        let mut tokenizer = Tokenizer {
            word_cache: WordCache::of(&inner),
            inner,
            origin: origin.clone(),
            bos,
            eos,
            end_of_turn,
            eot: Vec::new(),
            special_tokens: files.special_tokens,
            templates,
            file_hash: XxHash3_128::oneshot(&bytes),
            vocab_size: 0,
        };
        let largest = tokenizer.inner.get_vocab(true).into_values().max();
        tokenizer.vocab_size = largest.map_or(0, |id| id as usize + 1);
        let closing: Vec<u32> =
            tokenizer.templates.all().filter_map(|template| tokenizer.closing_token(&template.turns)).collect();
        tokenizer.end_of_turn.extend(closing);
        tokenizer.end_of_turn.sort_unstable();
        tokenizer.end_of_turn.dedup();
        // The end-of-sequence token is one of them unless the recipe names others, as in Axolotl.
        let eos_counts =
            eot_tokens.is_empty() || eot_tokens.iter().any(|token| tokenizer.inner.token_to_id(token) == eos);
        let counts = |id: &u32| eos_counts || Some(*id) != eos;
        tokenizer.eot = tokenizer.end_of_turn.iter().copied().filter(counts).collect();
        Ok(tokenizer)
    }

    /// The ids of a text; `add_special` adds the special tokens of the tokenizer itself (mostly BOS).
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>, Error> {
        let encode = || self.inner.encode_fast(text, add_special).map(|encoding| encoding.get_ids().to_vec());
        self.run(encode)
    }

    /// The text of ids, special tokens included.
    pub fn decode(&self, ids: &[u32]) -> Result<String, Error> {
        self.run(|| self.inner.decode(ids, false))
    }

    /// The text of ids without special tokens.
    pub fn decode_without_special(&self, ids: &[u32]) -> Result<String, Error> {
        self.run(|| self.inner.decode(ids, true))
    }

    /// One more than the largest token id; a model's vocabulary may be padded beyond it.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// The texts of the tokens whose ids are `first` or larger, by their ids.
    pub fn tokens_from(&self, first: usize) -> Vec<String> {
        let mut tokens: Vec<(u32, String)> =
            self.inner.get_vocab(true).into_iter().map(|(text, id)| (id, text)).collect();
        tokens.retain(|(id, _)| *id as usize >= first);
        tokens.sort_unstable();
        tokens.into_iter().map(|(_, text)| text).collect()
    }

    /// The token that ends a sequence.
    pub fn eos_id(&self) -> Option<u32> {
        self.eos
    }

    /// The token that begins a sequence.
    pub fn bos_id(&self) -> Option<u32> {
        self.bos
    }

    /// The tokens that end a turn, ascending: end of sequence, the recipe's, the model's, the template's.
    pub fn end_of_turn_ids(&self) -> &[u32] {
        &self.end_of_turn
    }

    /// Of the tokens that end a turn, those that `train_on_eot` is about: all but an end-of-sequence token that the
    /// recipe's `eot_tokens` leave out.
    pub(crate) fn eot_ids(&self) -> &[u32] {
        &self.eot
    }

    /// The exact text of a token in the vocabulary.
    pub fn token_text(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// True if there is a chat template.
    pub fn has_template(&self) -> bool {
        self.templates.all().next().is_some()
    }

    /// True if there is a chat template for conversations with these tools.
    pub(crate) fn has_template_for(&self, tools: Option<&Value>) -> bool {
        self.templates.of(tools).is_some()
    }

    /// True if a chat template reads a variable of this name, as far as its text tells.
    pub(crate) fn template_mentions(&self, variable: &str) -> bool {
        self.templates.all().any(|template| template.parsed.source.contains(variable))
    }

    /// The chat template as written, to be shipped with the result: the one for conversations without tools.
    pub fn template_source(&self) -> Option<&str> {
        self.templates.of(None).map(|template| template.parsed.source.as_str())
    }

    /// Renders messages to the text that the model reads.
    ///
    /// `variables` are further template variables (`enable_thinking`, `date_string` ...). Errors
    /// carry the template's own message.
    pub fn render(
        &self,
        messages: &[Message],
        tools: Option<&Value>,
        add_generation_prompt: bool,
        variables: &Map<String, Value>,
    ) -> Result<String, Error> {
        let Some(template) = self.templates.of(tools) else {
            return Err(Error::Template {
                location: self.origin.as_str().into(),
                problem: NO_TEMPLATE.0.to_owned(),
                hint: NO_TEMPLATE.1.to_owned(),
            });
        };
        let messages: Vec<minijinja::Value> = messages.iter().map(|message| self.to_jinja(message, tools)).collect();
        self.render_values(&messages, tools, add_generation_prompt, variables).map(|rendered| rendered.text).map_err(
            |problem| {
                let (problem, hint) = problem.described();
                Error::Template { location: template.parsed.location.clone(), problem, hint: hint.to_owned() }
            },
        )
    }

    /// A message as the value of the template for a conversation with these tools.
    pub(crate) fn to_jinja(&self, message: &Message, tools: Option<&Value>) -> minijinja::Value {
        to_jinja(&self.turns(tools).forms.message(message))
    }

    /// Renders messages that are already the template's values.
    pub(crate) fn render_values(
        &self,
        messages: &[minijinja::Value],
        tools: Option<&Value>,
        add_generation_prompt: bool,
        variables: &Map<String, Value>,
    ) -> Result<Rendered, TemplateProblem> {
        let template = self.templates.of(tools).ok_or_else(|| TemplateProblem::Failed(NO_TEMPLATE.0.to_owned()))?;
        template.render(messages, tools, add_generation_prompt, &self.special_tokens, variables)
    }

    /// A hash of everything that shapes tokens, including the date if the template shows it.
    pub(crate) fn fingerprint(&self) -> u128 {
        let templates = self.templates.all().map(|template| (template.parsed.source.as_str(), template.parsed.now()));
        let shaping = serde_json::json!([
            self.file_hash.to_string(),
            self.bos,
            self.eos,
            self.end_of_turn,
            self.eot,
            self.special_tokens,
            templates.collect::<Vec<_>>(),
        ]);
        XxHash3_128::oneshot(shaping.to_string().as_bytes())
    }

    /// True if the template for a conversation with these tools marks with tags what the model generates.
    pub(crate) fn template_marks_generation(&self, tools: Option<&Value>) -> bool {
        self.templates.of(tools).is_some_and(|template| template.parsed.marks_generation)
    }

    /// True if the template for a conversation with these tools reads this property of messages.
    pub(crate) fn template_reads(&self, property: &str, tools: Option<&Value>) -> bool {
        self.templates.of(tools).is_some_and(|template| template.parsed.source.contains(property))
    }

    /// The text that the template for a conversation with these tools writes around turns, and the forms it wants.
    pub(crate) fn turns(&self, tools: Option<&Value>) -> &Turns {
        self.templates.turns(tools)
    }

    /// The ids of a text with the bytes each covers.
    pub(crate) fn encode_with_offsets(&self, text: &str, add_special: bool) -> Result<Encoded, Error> {
        if !add_special
            && let Some(cache) = &self.word_cache
            && let Some(encoded) = self.run(|| Ok(cache.encode(&self.inner, text)))?
        {
            return Ok(encoded);
        }
        let encoding = self.run(|| self.inner.encode(text, add_special))?;
        Ok(Encoded { ids: encoding.get_ids().to_vec(), offsets: encoding.get_offsets().to_vec() })
    }

    /// The special token that follows the last assistant turn of a conversation, if it is one token.
    fn closing_token(&self, turns: &Turns) -> Option<u32> {
        let tail = turns.tail.trim_start();
        let id = *self.encode(tail, false).ok()?.first()?;
        let text = self.inner.id_to_token(id)?;
        let special = self.inner.get_added_tokens_decoder().contains_key(&id);
        (special && tail.starts_with(&text)).then_some(id)
    }

    /// Runs the library on a text or on ids. It panics on some files, for example with a pattern that backtracks millions
    /// of times.
    fn run<T>(&self, work: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, Error> {
        let done = guarded(|| work().map_err(|error| error.to_string()));
        done.and_then(|done| done).map_err(|problem| Error::Tokenizer {
            path: self.origin.clone(),
            problem,
            hint: "the tokenizer cannot process this text; check that its files belong together".to_owned(),
        })
    }
}

/// The problem of a chat without a template, and what to try.
pub(crate) const NO_TEMPLATE: (&str, &str) = (
    "the base model has no chat template",
    "set `chat_template: chatml`, or `chat_template: jinja` with `chat_template_jinja`",
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_tokenizer::{Folder, byte_tokenizer_folder, chatml_tokenizer};

    fn open(
        folder: &Path,
        template: &str,
        special: &SpecialTokenOverrides,
        eot: &[String],
    ) -> Result<Tokenizer, String> {
        Tokenizer::open(folder, &TemplateChoice::Jinja(template.to_owned()), special, eot, &[256])
            .map_err(|error| error.shown())
    }

    #[test]
    fn the_end_of_turn_comes_from_the_template_the_recipe_and_the_model() {
        let folder = byte_tokenizer_folder();
        let special = SpecialTokenOverrides { eos_token: Some("<s>".to_owned()), ..SpecialTokenOverrides::default() };
        let template = "{% for m in messages %}{{ m.content + '<|im_end|>\n' }}{% endfor %}";
        let tokenizer = open(folder.path(), template, &special, &["a".to_owned()]).unwrap();
        let letter = tokenizer.inner.token_to_id("a").unwrap();
        assert_eq!(tokenizer.end_of_turn_ids(), [letter, 256, 258]);
        assert_eq!((tokenizer.eos_id(), tokenizer.bos_id()), (Some(256), Some(256)));
        assert_eq!(tokenizer.vocab_size(), 259);
    }

    #[test]
    fn tokens_that_are_not_in_the_vocabulary_are_refused() {
        let folder = byte_tokenizer_folder();
        let error = open(folder.path(), "", &SpecialTokenOverrides::default(), &["<|eot|>".to_owned()]).unwrap_err();
        assert!(error.starts_with("eot_tokens: `<|eot|>` is not a token of "), "{error}");
        let special = SpecialTokenOverrides { pad_token: Some("<pad>".to_owned()), ..SpecialTokenOverrides::default() };
        let error = open(folder.path(), "", &special, &[]).unwrap_err();
        assert!(error.starts_with("special_tokens.pad_token: `<pad>` is not a token of "), "{error}");
    }

    #[test]
    fn missing_and_broken_files_are_named() {
        let folder = Folder::new();
        let error = open(folder.path(), "", &SpecialTokenOverrides::default(), &[]).unwrap_err();
        assert!(error.contains("tokenizer.json: the file does not exist\nhint: "), "{error}");
        folder.write("tokenizer.json", "{");
        assert!(open(folder.path(), "", &SpecialTokenOverrides::default(), &[]).is_err());
        let folder = byte_tokenizer_folder();
        folder.write("tokenizer_config.json", "{]");
        let error = open(folder.path(), "", &SpecialTokenOverrides::default(), &[]).unwrap_err();
        assert!(error.contains("tokenizer_config.json: broken JSON"), "{error}");
        let folder = byte_tokenizer_folder();
        let error = open(folder.path(), "{% if %}", &SpecialTokenOverrides::default(), &[]).unwrap_err();
        assert!(error.starts_with("chat_template_jinja: the chat template fails: line 1 "), "{error}");
    }

    #[test]
    fn a_template_beside_the_tokenizer_wins_over_its_config() {
        let folder = byte_tokenizer_folder();
        folder.write("chat_template.jinja", "{{ messages[0].content }}!");
        let tokenizer = Tokenizer::open(
            folder.path(),
            &TemplateChoice::TokenizerDefault,
            &SpecialTokenOverrides::default(),
            &[],
            &[],
        )
        .unwrap();
        let rendered = tokenizer.render(&[Message::new("user", "Hi")], None, true, &Map::new());
        assert_eq!(rendered.unwrap(), "Hi!");
        assert_eq!(tokenizer.template_source(), Some("{{ messages[0].content }}!"));
    }

    #[test]
    fn parts_become_text_for_a_template_that_does_not_read_them() {
        let folder = byte_tokenizer_folder();
        let parts = Message {
            content: serde_json::json!([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]),
            ..Message::new("user", "")
        };
        let plain = "{% for m in messages %}[{{ m.content }}]{% endfor %}";
        let reading = "{% for m in messages %}{% if m.content is string %}[{{ m.content }}]\
                       {% else %}[{% for part in m.content %}{{ part.text }}{% endfor %}]{% endif %}{% endfor %}";
        for template in [plain, reading] {
            let tokenizer = open(folder.path(), template, &SpecialTokenOverrides::default(), &[]).unwrap();
            let rendered = tokenizer.render(std::slice::from_ref(&parts), None, false, &Map::new());
            assert_eq!(rendered.unwrap(), "[ab]");
        }
    }

    #[test]
    fn decoding_can_leave_special_tokens_out() {
        let tokenizer = chatml_tokenizer();
        let ids = tokenizer.encode("Hi<|im_end|>", true).unwrap();
        assert_eq!(tokenizer.decode(&ids).unwrap(), "<s>Hi<|im_end|>");
        assert_eq!(tokenizer.decode_without_special(&ids).unwrap(), "Hi");
        assert_eq!(tokenizer.token_text(257).as_deref(), Some("<|im_start|>"));
    }
}
