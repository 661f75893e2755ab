//! Makes everything of the tiny base model but its weights: its tokenizer, its shape and its chat template.
//!
//! In: `TEXT_DIR OUT_DIR`, the first written by the example `tiny_base_text`. Out: in the second
//! `tokenizer.json` (byte-level BPE trained on that text), `tokenizer_config.json`, `special_tokens_map.json`,
//! `config.json` and `generation_config.json`. The recipe `tiny-base` then trains the weights.
//!
//! `cargo run --release --example tiny_base_tokenizer -- runs/tiny-base-text examples/tiny-base`

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use serde_json::{Value, json};
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::normalizers::NFC;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, SplitDelimiterBehavior, Tokenizer};

const VOCABULARY: usize = 2048;
const POSITIONS: usize = 1024;
const END_OF_TEXT: &str = "<|endoftext|>";
const TURN_START: &str = "<|im_start|>";
const TURN_END: &str = "<|im_end|>";

/// How text falls into pieces before merging: the Qwen 2 pattern, which other programs know.
const PIECES: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Turns between markers, each named by its role.
const CHAT_TEMPLATE: &str = "\
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}";

fn main() -> Result<()> {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [from, to] = &arguments[..] else {
        bail!("usage: tiny_base_tokenizer TEXT_DIR OUT_DIR");
    };
    fs::create_dir_all(to).with_context(|| format!("cannot create `{}`", to.display()))?;
    let mut texts = texts(&from.join("text.jsonl"))?;
    texts.extend(self::texts(&from.join("chats.jsonl"))?);
    let tokenizer = train(&texts)?;
    let size = tokenizer.get_vocab_size(true);
    if size != VOCABULARY {
        bail!("the text gives a vocabulary of {size} instead of {VOCABULARY}: it has too few rows");
    }
    let path = to.join("tokenizer.json");
    tokenizer.save(&path, true).map_err(|error| anyhow!("cannot write `{}`: {error}", path.display()))?;
    let id = |token: &str| tokenizer.token_to_id(token).with_context(|| format!("no token `{token}`"));
    let (pad, end) = (id(END_OF_TEXT)?, id(TURN_END)?);
    write(to, "tokenizer_config.json", &tokenizer_config(&tokenizer))?;
    write(to, "special_tokens_map.json", &json!({"eos_token": TURN_END, "pad_token": END_OF_TEXT}))?;
    write(to, "config.json", &config(pad, end))?;
    let stop = json!({"do_sample": false, "eos_token_id": [end, pad], "pad_token_id": pad});
    write(to, "generation_config.json", &stop)
}

/// Every text in the JSON lines at `path`: that of `text`, or the content of each message.
fn texts(path: &Path) -> Result<Vec<String>> {
    let lines = fs::read_to_string(path).with_context(|| format!("cannot read `{}`", path.display()))?;
    let mut texts = Vec::new();
    for (at, line) in lines.lines().enumerate() {
        let row: Value =
            serde_json::from_str(line).with_context(|| format!("{}:{} is not JSON", path.display(), at + 1))?;
        let messages = row["messages"].as_array().into_iter().flatten().map(|message| &message["content"]);
        texts.extend(messages.chain([&row["text"]]).filter_map(Value::as_str).map(str::to_owned));
    }
    Ok(texts)
}

/// A byte-level BPE tokenizer of `VOCABULARY` tokens, the special ones first.
fn train(texts: &[String]) -> Result<Tokenizer> {
    let failed = |error: tokenizers::Error| anyhow!("cannot train the tokenizer: {error}");
    let pieces =
        Split::new(SplitPattern::Regex(PIECES.to_owned()), SplitDelimiterBehavior::Isolated, false).map_err(failed)?;
    let bytes = ByteLevel::new(false, false, false);
    let mut tokenizer = Tokenizer::new(BPE::default());
    tokenizer
        .with_normalizer(Some(NFC))
        .map_err(failed)?
        .with_pre_tokenizer(Some(Sequence::new(vec![
            PreTokenizerWrapper::Split(pieces),
            PreTokenizerWrapper::ByteLevel(bytes),
        ])))
        .with_post_processor(Some(bytes))
        .with_decoder(Some(bytes));
    let mut trainer: TrainerWrapper = BpeTrainerBuilder::new()
        .vocab_size(VOCABULARY)
        .min_frequency(2)
        .show_progress(false)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .special_tokens([END_OF_TEXT, TURN_START, TURN_END].map(|token| AddedToken::from(token, true)).to_vec())
        .build()
        .into();
    tokenizer.train(&mut trainer, texts.iter()).map_err(failed)?;
    Ok(tokenizer)
}

fn tokenizer_config(tokenizer: &Tokenizer) -> Value {
    let special: serde_json::Map<String, Value> = [END_OF_TEXT, TURN_START, TURN_END]
        .into_iter()
        .filter_map(|token| {
            let entry = json!({
                "content": token, "lstrip": false, "normalized": false, "rstrip": false,
                "single_word": false, "special": true,
            });
            Some((tokenizer.token_to_id(token)?.to_string(), entry))
        })
        .collect();
    json!({
        "add_bos_token": false,
        "add_prefix_space": false,
        "added_tokens_decoder": special,
        "bos_token": null,
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": false,
        "eos_token": TURN_END,
        "model_max_length": POSITIONS,
        "pad_token": END_OF_TEXT,
        "tokenizer_class": "PreTrainedTokenizerFast",
    })
}

/// The shape: 2.8 million parameters of the Qwen 3 architecture.
fn config(pad: u32, end: u32) -> Value {
    json!({
        "architectures": ["Qwen3ForCausalLM"],
        "attention_bias": false,
        "attention_dropout": 0.0,
        "bos_token_id": null,
        "eos_token_id": end,
        "head_dim": 32,
        "hidden_act": "silu",
        "hidden_size": 192,
        "initializer_range": 0.02,
        "intermediate_size": 512,
        "max_position_embeddings": POSITIONS,
        "max_window_layers": 6,
        "model_type": "qwen3",
        "num_attention_heads": 6,
        "num_hidden_layers": 6,
        "num_key_value_heads": 2,
        "pad_token_id": pad,
        "rms_norm_eps": 1e-6,
        "rope_scaling": null,
        "rope_theta": 10_000,
        "sliding_window": null,
        "tie_word_embeddings": true,
        "torch_dtype": "bfloat16",
        "use_cache": true,
        "use_sliding_window": false,
        "vocab_size": VOCABULARY,
    })
}

/// Writes `value` as indented JSON to the file `name` in `folder`.
fn write(folder: &Path, name: &str, value: &Value) -> Result<()> {
    let path = folder.join(name);
    let text = serde_json::to_string_pretty(value)? + "\n";
    fs::write(&path, text).with_context(|| format!("cannot write `{}`", path.display()))
}
