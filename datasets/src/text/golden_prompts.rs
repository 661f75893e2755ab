//! Golden prompts: questions with the text and the ids that training gives them.
//!
//! They travel with an export, so that a server can be checked to render and tokenise them the same, and so that the
//! form of the prompts is known to whoever asks the model.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::conversation::Message;
use super::forms::Forms;
use super::tokenizer::Tokenizer;
use crate::foundation::Error;

/// The date for templates that show one, so that the prompts stay the same.
const DATE: &str = "26 Jul 2024";

/// The form in which training gives the model its prompts, which has to be that of serving.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PromptForm {
    /// Turns that the chat template renders.
    #[default]
    Chat,
    /// Plain text around the question.
    Text(TextForm),
}

/// The plain text around a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextForm {
    /// The text before the question.
    pub before: String,
    /// The text after it, up to where the model answers.
    pub after: String,
    /// True if the tokenizer adds its special tokens (mostly BOS).
    pub special_tokens: bool,
}

impl TextForm {
    /// The text of a prompt that asks `question`.
    pub fn prompt(&self, question: &str) -> String {
        format!("{}{question}{}", self.before, self.after)
    }
}

/// A prompt up to where the model answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GoldenPrompt {
    /// The messages; empty for a plain text.
    pub messages: Vec<Value>,
    /// If set, the text ends with the beginning of an answer.
    pub add_generation_prompt: bool,
    /// Further variables of the template.
    pub template_variables: Map<String, Value>,
    /// The question in a plain text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub question: Option<String>,
    /// For a plain text: true if the tokenizer adds its special tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub add_special_tokens: Option<bool>,
    /// The text that the model reads.
    pub text: String,
    /// Its token ids, special tokens included.
    pub input_ids: Vec<u32>,
}

impl GoldenPrompt {
    /// The form of a prompt that is plain text, if that is recorded.
    pub fn text_form(&self) -> Option<TextForm> {
        let (before, after) = self.text.split_once(self.question.as_ref()?.as_str())?;
        let special_tokens = self.add_special_tokens.unwrap_or(true);
        Some(TextForm { before: before.to_owned(), after: after.to_owned(), special_tokens })
    }

    /// The variables that training gave the template: all but the date that keeps the prompts the same.
    pub fn training_variables(mut self) -> Map<String, Value> {
        self.template_variables.retain(|name, value| !(name == "date_string" && *value == json!(DATE)));
        self.template_variables
    }
}

/// Prompts in the form of the training, whose template had `variables`. Of a chat: one turn, two turns, and a system
/// message if the template takes one.
///
/// # Errors
/// If the tokenizer cannot process them.
pub fn golden_prompts(
    tokenizer: &Tokenizer,
    form: &PromptForm,
    variables: &Map<String, Value>,
) -> Result<Vec<GoldenPrompt>, Error> {
    let question = "What is the capital of France?";
    let awkward = "  Naïve “quotes”, 数 and\n\ttabs?  ";
    let template = match (form, tokenizer.template_source()) {
        (PromptForm::Chat, Some(template)) => template,
        (PromptForm::Chat, None) => {
            let form = TextForm { before: String::new(), after: String::new(), special_tokens: true };
            return Ok(vec![plain(tokenizer, &form, question)?]);
        }
        (PromptForm::Text(form), _) => {
            return [question, awkward].iter().map(|question| plain(tokenizer, form, question)).collect();
        }
    };
    let mut all = Map::new();
    if template.contains("date_string") {
        all.insert("date_string".to_owned(), json!(DATE));
    }
    all.extend(variables.clone());
    let variables = all;
    let one = vec![Message::new("user", question)];
    let more = [Message::new("assistant", "Paris."), Message::new("user", awkward)];
    let two = [one.clone(), more.to_vec()].concat();
    let guided = [vec![Message::new("system", "Answer briefly.")], one.clone()].concat();
    let mut prompts = Vec::new();
    for messages in [one, two, guided] {
        // A prompt that the template refuses cannot be rendered by a server either.
        if let Ok(text) = tokenizer.render(&messages, None, true, &variables) {
            let input_ids = tokenizer.encode(&text, false)?;
            let messages = messages.iter().map(|message| Forms::default().message(message)).collect();
            let template_variables = variables.clone();
            let (question, add_special_tokens) = (None, None);
            prompts.push(GoldenPrompt {
                messages,
                add_generation_prompt: true,
                template_variables,
                question,
                add_special_tokens,
                text,
                input_ids,
            });
        }
    }
    Ok(prompts)
}

/// A question as plain text.
fn plain(tokenizer: &Tokenizer, form: &TextForm, question: &str) -> Result<GoldenPrompt, Error> {
    let text = form.prompt(question);
    Ok(GoldenPrompt {
        messages: Vec::new(),
        add_generation_prompt: false,
        template_variables: Map::new(),
        question: Some(question.to_owned()),
        add_special_tokens: Some(form.special_tokens),
        input_ids: tokenizer.encode(&text, form.special_tokens)?,
        text,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_tokenizer::chatml_tokenizer;

    #[test]
    fn a_prompt_is_what_the_template_renders_up_to_the_answer() {
        let tokenizer = chatml_tokenizer();
        let prompts = golden_prompts(&tokenizer, &PromptForm::Chat, &Map::new()).unwrap();
        assert_eq!(prompts.len(), 3);
        for prompt in &prompts {
            assert!(prompt.text.ends_with("<|im_start|>assistant\n"), "{}", prompt.text);
            assert_eq!(tokenizer.decode(&prompt.input_ids).unwrap(), prompt.text);
            assert_eq!(prompt.text_form(), None);
        }
        assert_eq!(prompts[2].messages[0]["role"], "system");
    }

    #[test]
    fn a_prompt_of_plain_text_has_the_text_around_its_question_and_the_special_tokens_of_training() {
        let tokenizer = chatml_tokenizer();
        for special_tokens in [true, false] {
            let form = TextForm { before: "Q: ".to_owned(), after: "\nA: ".to_owned(), special_tokens };
            let prompts = golden_prompts(&tokenizer, &PromptForm::Text(form.clone()), &Map::new()).unwrap();
            assert_eq!(prompts[0].text, "Q: What is the capital of France?\nA: ");
            assert_eq!(prompts[0].input_ids, tokenizer.encode(&prompts[0].text, special_tokens).unwrap());
            assert_eq!(prompts[0].input_ids[0] == tokenizer.bos_id().unwrap(), special_tokens);
            for prompt in prompts {
                let written = serde_json::to_string(&prompt).unwrap();
                let read: GoldenPrompt = serde_json::from_str(&written).unwrap();
                assert_eq!(read.text_form().as_ref(), Some(&form));
            }
        }
    }

    #[test]
    fn the_variables_of_the_training_are_in_the_prompts() {
        let template = "{{ date_string }}{% for m in messages %}{{ m.content }}{% endfor %}{{ style }}";
        let tokenizer = crate::test_tokenizer::byte_tokenizer(&crate::text::TemplateChoice::Jinja(template.to_owned()));
        let variables: Map<String, Value> = [("style".to_owned(), json!("brief"))].into_iter().collect();
        let prompt = golden_prompts(&tokenizer, &PromptForm::Chat, &variables).unwrap().swap_remove(0);
        assert!(prompt.text.starts_with(DATE) && prompt.text.ends_with("brief"), "{}", prompt.text);
        assert_eq!(prompt.training_variables(), variables);
    }
}
