//! Golden prompts: conversations with the text and the ids that training gives them.
//!
//! They travel with an export, so that a server can be checked to render and tokenise them the same.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::conversation::Message;
use super::forms::Forms;
use super::tokenizer::Tokenizer;
use crate::foundation::Error;

/// The date for templates that show one, so that the prompts stay the same.
const DATE: &str = "26 Jul 2024";

/// A prompt up to where the model answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GoldenPrompt {
    /// The messages; empty for a plain text of a tokenizer without a chat template.
    pub messages: Vec<Value>,
    /// If set, the text ends with the beginning of an answer.
    pub add_generation_prompt: bool,
    /// Further variables of the template.
    pub template_variables: Map<String, Value>,
    /// The text that the model reads.
    pub text: String,
    /// Its token ids, special tokens included.
    pub input_ids: Vec<u32>,
}

/// Prompts that exercise a template: one turn, two turns, and a system message if the template takes one.
///
/// # Errors
/// If the tokenizer cannot process them.
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
        // A prompt that the template refuses cannot be rendered by a server either.
        if let Ok(text) = tokenizer.render(&messages, None, true, &variables) {
            let input_ids = tokenizer.encode(&text, false)?;
            let messages = messages.iter().map(|message| Forms::default().message(message)).collect();
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
