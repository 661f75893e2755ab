//! Golden prompts: conversations with the text and the ids that training would give them.
//!
//! They travel with an export, so that whoever serves it can check that the server renders and tokenises the same.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::conversation::Message;
use super::tokenizer::Tokenizer;
use crate::foundation::Error;

/// The date that a template which shows one is told, so that its prompts stay the same.
const DATE: &str = "26 Jul 2024";

/// A prompt up to where the model answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GoldenPrompt {
    /// The messages; empty for a plain text of a tokenizer without a chat template.
    pub messages: Vec<Value>,
    /// Whether the text ends with the beginning of an answer.
    pub add_generation_prompt: bool,
    /// What the template is told beside the messages.
    pub template_variables: Map<String, Value>,
    /// What the model reads.
    pub text: String,
    /// Its token ids, special tokens included.
    pub input_ids: Vec<u32>,
}

/// Prompts that show what a template does: one turn, two turns, a system message where the template takes one.
///
/// # Errors
/// When the tokenizer cannot process them.
pub fn golden_prompts(tokenizer: &Tokenizer) -> Result<Vec<GoldenPrompt>, Error> {
    let question = "What is the capital of France?";
    let Some(template) = tokenizer.template_source() else {
        let input_ids = tokenizer.encode(question, true)?;
        let (messages, template_variables) = (Vec::new(), Map::new());
        let text = question.to_owned();
        return Ok(vec![GoldenPrompt { messages, add_generation_prompt: false, template_variables, text, input_ids }]);
    };
    let mut variables = Map::new();
    if template.contains("date_string") {
        variables.insert("date_string".to_owned(), json!(DATE));
    }
    let one = vec![Message::new("user", question)];
    let more = [Message::new("assistant", "Paris."), Message::new("user", "  Naïve “quotes”, 数 and\n\ttabs?  ")];
    let two = [one.clone(), more.to_vec()].concat();
    let guided = [vec![Message::new("system", "Answer briefly.")], one.clone()].concat();
    let mut prompts = Vec::new();
    for messages in [one, two, guided] {
        // What a template refuses to render cannot be asked of a server either.
        if let Ok(text) = tokenizer.render(&messages, None, true, &variables) {
            let input_ids = tokenizer.encode(&text, false)?;
            let messages = messages.iter().map(|message| message.to_value(false)).collect();
            let template_variables = variables.clone();
            prompts.push(GoldenPrompt { messages, add_generation_prompt: true, template_variables, text, input_ids });
        }
    }
    Ok(prompts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_tokenizer::chatml_tokenizer;

    #[test]
    fn a_prompt_is_what_the_template_renders_up_to_the_answer() {
        let tokenizer = chatml_tokenizer();
        let prompts = golden_prompts(&tokenizer).unwrap();
        assert_eq!(prompts.len(), 3);
        for prompt in &prompts {
            assert!(prompt.text.ends_with("<|im_start|>assistant\n"), "{}", prompt.text);
            assert_eq!(tokenizer.decode(&prompt.input_ids).unwrap(), prompt.text);
        }
        assert_eq!(prompts[2].messages[0]["role"], "system");
    }
}
