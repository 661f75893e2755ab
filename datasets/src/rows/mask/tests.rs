//! The claims of training masks, on a tokenizer of single bytes.

use serde_json::{Map, json};

use super::*;
use crate::test_tokenizer::{byte_tokenizer, chatml_tokenizer};
use crate::text::{Message, TemplateChoice};

fn chat(messages: &[(&str, &str)]) -> Sample {
    Sample::Chat(Conversation {
        messages: messages.iter().map(|(role, text)| Message::new(*role, *text)).collect(),
        ..Conversation::default()
    })
}

fn training(change: impl FnOnce(&mut SourceSettings)) -> Training {
    let mut source = SourceSettings::default();
    change(&mut source);
    Training::of(&source, false)
}

fn jinja(source: &str) -> Tokenizer {
    byte_tokenizer(&TemplateChoice::Jinja(source.to_owned()))
}

/// The runs of trained tokens as text.
fn trained_parts(tokenizer: &Tokenizer, masked: &Masked) -> Vec<String> {
    let mut runs = Vec::new();
    let mut end = 0;
    for run in masked.trained.chunk_by(|left, right| left == right) {
        let start = end;
        end += run.len();
        if run[0] {
            runs.push(tokenizer.decode(&masked.tokens[start..end]).unwrap());
        }
    }
    runs
}

fn trained_from(tokenizer: &Tokenizer, sample: &Sample, training: &Training) -> Vec<String> {
    trained_parts(tokenizer, &mask(tokenizer, sample, training).unwrap())
}

const TURNS: [(&str, &str); 5] = [
    ("system", "Be kind."),
    ("user", "Größe?"),
    ("assistant", " 日本語 🙂\n"),
    ("user", " 日本語 🙂\n"),
    ("assistant", ""),
];

#[test]
fn every_trained_span_is_the_source_content_and_its_end() {
    let tokenizer = chatml_tokenizer();
    let masked = mask(&tokenizer, &chat(&TURNS), &training(|_| ())).unwrap();
    assert_eq!(trained_parts(&tokenizer, &masked), [" 日本語 🙂\n<|im_end|>"]);
    // Of an empty turn nothing is trained, not even its end.
    assert!(masked.oddities.empty_answer && !masked.oddities.without_end_of_turn);
}

#[test]
fn roles_and_messages_choose_what_is_trained() {
    let tokenizer = chatml_tokenizer();
    let users = training(|source| source.roles_to_train = Some(vec!["user".to_owned()]));
    assert_eq!(trained_from(&tokenizer, &chat(&TURNS), &users), ["Größe?<|im_end|>", " 日本語 🙂\n<|im_end|>"]);
    let aliased = training(|source| source.roles_to_train = Some(vec!["gpt".to_owned()]));
    assert_eq!(trained_from(&tokenizer, &chat(&TURNS), &aliased), [" 日本語 🙂\n<|im_end|>"]);
    let Sample::Chat(mut conversation) = chat(&TURNS) else { panic!("a conversation") };
    conversation.messages[1].trained = Some(true);
    conversation.messages[2].trained = Some(false);
    let chosen = trained_from(&tokenizer, &Sample::Chat(conversation), &training(|_| ()));
    assert_eq!(chosen, ["Größe?<|im_end|>"]);
}

#[test]
fn end_of_turn_tokens_follow_their_rule() {
    let tokenizer = chatml_tokenizer();
    let sample = chat(&[("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")]);
    let with = |rule| trained_from(&tokenizer, &sample, &training(|source| source.train_on_eos = Some(rule)));
    assert_eq!(with(TrainOnEnd::Turn), ["b<|im_end|>", "d<|im_end|>"]);
    assert_eq!(with(TrainOnEnd::Last), ["b", "d<|im_end|>"]);
    assert_eq!(with(TrainOnEnd::None), ["b", "d"]);
    assert_eq!(with(TrainOnEnd::All), ["<|im_end|>", "b<|im_end|>", "<|im_end|>", "d<|im_end|>"]);
}

#[test]
fn what_a_template_inserts_is_prompt_and_what_the_row_says_is_trained() {
    let tokenizer = jinja(
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}\
         {% set why = m.reasoning_content or '' %}\
         {% if m.role == 'assistant' and loop.last %}{{ '<think>\n' + why + '\n</think>\n\n' }}{% endif %}\
         {{ m.content.split('</think>')[-1] + '<|im_end|>\n' }}{% endfor %}\
         {% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    );
    let sample = chat(&[("user", "a"), ("assistant", "<think>x</think>b"), ("user", "c"), ("assistant", "d")]);
    let masked = mask(&tokenizer, &sample, &training(|_| ())).unwrap();
    assert_eq!(trained_parts(&tokenizer, &masked), ["b<|im_end|>", "d<|im_end|>"]);
    assert!(masked.oddities.altered);
    let Sample::Chat(mut conversation) = sample else { panic!("a conversation") };
    conversation.messages[3].extra.insert("reasoning_content".to_owned(), json!("why"));
    let trained = trained_from(&tokenizer, &Sample::Chat(conversation), &training(|_| ()));
    assert_eq!(trained, ["b<|im_end|>", "why\n</think>\n\nd<|im_end|>"]);
    let emptied = chat(&[("user", "a"), ("assistant", "<think>x</think>")]);
    assert!(mask(&tokenizer, &emptied, &training(|_| ())).unwrap().oddities.empty_answer);
}

/// A template in which results and the answers to them have headers of their own.
#[test]
fn a_result_and_the_answer_to_it_begin_after_their_headers() {
    let tokenizer = jinja(
        "{% for m in messages %}{% if m.role == 'tool' %}{{ '[result of ' + m.name + ']' + m.content + '[/result]' }}\
         {% elif m.role == 'assistant' %}\
         {{ '' if messages[loop.index0 - 1].role == 'tool' else '<|im_start|>assistant\n' }}{{ m.content or '' }}\
         {% for call in m.tool_calls or [] %}{{ '[call]' + call.function.name }}{% endfor %}{{ '<|im_end|>' }}\
         {% else %}{{ '<|im_start|>user\n' + m.content + '<|im_end|>' }}{% endif %}{% endfor %}\
         {% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    );
    let mut call = Message { content: serde_json::Value::Null, ..Message::new("assistant", "") };
    call.extra.insert("tool_calls".to_owned(), json!([{"function": {"name": "sum"}}]));
    let mut result = Message::new("tool", "3");
    result.extra.insert("name".to_owned(), json!("sum"));
    let messages = vec![Message::new("user", "a"), call, result, Message::new("assistant", "b")];
    let sample = Sample::Chat(Conversation { messages, ..Conversation::default() });
    assert_eq!(trained_from(&tokenizer, &sample, &training(|_| ())), ["[call]sum<|im_end|>", "b<|im_end|>"]);
    let results = training(|source| source.roles_to_train = Some(vec!["tool".to_owned()]));
    assert_eq!(trained_from(&tokenizer, &sample, &results), ["3"]);
}

#[test]
fn a_template_that_wants_whole_tool_calls_gets_them() {
    // It refuses results without calls, as Mistral's do.
    let tokenizer = jinja(
        "{% set ns = namespace(calls=0) %}{% for m in messages %}\
         {% if m.role == 'tool' %}{% if not ns.calls %}{{ raise_exception('no call') }}{% endif %}{{ '[R]' + m.content }}\
         {% elif m.tool_calls %}{% set ns.calls = 1 %}{{ '[C][{' + m.tool_calls[0].function.name + '}]<|im_end|>' }}\
         {% elif m.role == 'assistant' %}{{ m.content + '<|im_end|>' }}{% else %}{{ '[Q]' + m.content + '[/Q]' }}\
         {% endif %}{% endfor %}",
    );
    let mut call = Message { content: serde_json::Value::Null, ..Message::new("assistant", "") };
    call.extra.insert("tool_calls".to_owned(), json!([{"function": {"name": "sum"}}]));
    let messages = vec![Message::new("user", "a"), call, Message::new("tool", "3"), Message::new("assistant", "b")];
    let sample = Sample::Chat(Conversation { messages, ..Conversation::default() });
    assert_eq!(trained_from(&tokenizer, &sample, &training(|_| ())), ["[C][{sum}]<|im_end|>", "b<|im_end|>"]);
}

#[test]
fn a_template_that_wants_parts_gets_them() {
    let tokenizer = jinja(
        "{% for m in messages %}{{ m.role + ':' }}{% for part in m.content %}{{ part.text }}{% endfor %}\
         {{ '<|im_end|>' }}{% endfor %}",
    );
    assert_eq!(
        trained_from(&tokenizer, &chat(&[("user", "a"), ("assistant", "b")]), &training(|_| ())),
        ["b<|im_end|>"]
    );
}

#[test]
fn generation_tags_decide_where_a_template_has_them() {
    let tokenizer = jinja(
        "{% for m in messages %}{{ m.role }}:{% if m.role == 'assistant' %}{% generation %}{{ '[' + m.content + ']<|im_end|>' }}\
         {% endgeneration %}{% else %}{{ m.content }}{% endif %}{% endfor %}",
    );
    let sample = chat(&[("user", "a"), ("assistant", "b")]);
    assert_eq!(trained_from(&tokenizer, &sample, &training(|_| ())), ["[b]<|im_end|>"]);
    let users = training(|source| source.roles_to_train = Some(vec!["user".to_owned()]));
    let masked = mask(&tokenizer, &sample, &users).unwrap();
    assert_eq!(trained_parts(&tokenizer, &masked), ["a"]);
    assert!(masked.oddities.without_end_of_turn);
}

#[test]
fn a_turn_whose_end_is_plain_text_is_noted() {
    let tokenizer = jinja("{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}");
    let masked = mask(&tokenizer, &chat(&[("user", "a"), ("assistant", "b")]), &training(|_| ())).unwrap();
    assert!(masked.oddities.without_end_of_turn);
    assert_eq!(trained_parts(&tokenizer, &masked), ["b"]);
}

#[test]
fn tool_calls_are_trained_on_up_to_the_end_of_their_turn() {
    let tokenizer = jinja(
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}\
         {% if m.tool_calls %}{{ '<call>' + m.tool_calls[0].function.name }}{% else %}{{ m.content }}{% endif %}\
         {{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    );
    let mut call = Message::new("assistant", "");
    call.content = serde_json::Value::Null;
    call.extra = Map::from_iter([("tool_calls".to_owned(), json!([{"function": {"name": "sum"}}]))]);
    let messages = vec![Message::new("user", "a"), call, Message::new("tool", "3"), Message::new("assistant", "b")];
    let sample = Sample::Chat(Conversation { messages, ..Conversation::default() });
    assert_eq!(trained_from(&tokenizer, &sample, &training(|_| ())), ["<call>sum<|im_end|>", "b<|im_end|>"]);
}

#[test]
fn odd_tool_calls_do_no_harm() {
    let tokenizer = chatml_tokenizer();
    for calls in [json!(["x"]), json!([3]), json!([{"function": "f"}]), json!([null])] {
        let mut message = Message::new("assistant", "b");
        message.extra = Map::from_iter([("tool_calls".to_owned(), calls)]);
        let sample = Sample::Chat(Conversation { messages: vec![message], ..Conversation::default() });
        assert_eq!(trained_from(&tokenizer, &sample, &training(|_| ())), ["b<|im_end|>"]);
    }
}

#[test]
fn plain_answers_begin_where_the_prompt_ends() {
    let tokenizer = chatml_tokenizer();
    let sample =
        Sample::Answer { prompt: "1+1=".to_owned(), completion: "2é".to_owned(), shown: String::new(), apart: false };
    let masked = mask(&tokenizer, &sample, &training(|_| ())).unwrap();
    assert_eq!(tokenizer.decode(&masked.tokens).unwrap(), "<s>1+1=2é<|im_end|>");
    assert_eq!(trained_parts(&tokenizer, &masked), ["2é<|im_end|>"]);
    let masked = mask(&tokenizer, &Sample::Text("all".to_owned()), &training(|_| ())).unwrap();
    assert_eq!(trained_parts(&tokenizer, &masked), ["all<|im_end|>"]);
    let masked = mask(&tokenizer, &Sample::Text("all<|im_end|>".to_owned()), &training(|_| ())).unwrap();
    assert_eq!(trained_parts(&tokenizer, &masked), ["all<|im_end|>"]);
    let sample = Sample::Answer {
        prompt: "1".to_owned(),
        completion: "2<|im_end|>".to_owned(),
        shown: String::new(),
        apart: false,
    };
    assert_eq!(trained_from(&tokenizer, &sample, &training(|_| ())), ["2<|im_end|>"]);
    let untrained = training(|source| source.train_on_eos = Some(TrainOnEnd::None));
    assert_eq!(trained_from(&tokenizer, &sample, &untrained), ["2"]);
}

#[test]
fn empty_answers_get_no_end() {
    let tokenizer = chatml_tokenizer();
    for prompt in ["1+1=", "1+1=<|im_end|>"] {
        let sample =
            Sample::Answer { prompt: prompt.to_owned(), completion: String::new(), shown: String::new(), apart: false };
        let masked = mask(&tokenizer, &sample, &training(|_| ())).unwrap();
        assert_eq!(tokenizer.decode(&masked.tokens).unwrap(), format!("<s>{prompt}"));
        assert!(!masked.trained.contains(&true) && masked.oddities.empty_answer);
    }
    let masked = mask(&tokenizer, &Sample::Text(String::new()), &training(|_| ())).unwrap();
    assert!(!masked.trained.contains(&true) && masked.oddities.empty_answer);
}

#[test]
fn training_on_inputs_trains_what_the_row_says() {
    let tokenizer = chatml_tokenizer();
    let everything = Training::of(&SourceSettings::default(), true);
    let sample =
        Sample::Answer { prompt: "1".to_owned(), completion: "2".to_owned(), shown: String::new(), apart: false };
    let masked = mask(&tokenizer, &sample, &everything).unwrap();
    assert_eq!(masked.trained, [false, true, true, true]);
    // Of a conversation the contents and their ends, not the markers and roles that the template writes.
    assert_eq!(
        trained_from(&tokenizer, &chat(&TURNS), &everything),
        ["Be kind.<|im_end|>", "Größe?<|im_end|>", " 日本語 🙂\n<|im_end|>", " 日本語 🙂\n<|im_end|>"]
    );
}

#[test]
fn a_doubled_bos_is_noted() {
    let tokenizer = chatml_tokenizer();
    let masked = mask(&tokenizer, &Sample::Text("<s>x".to_owned()), &training(|_| ())).unwrap();
    assert!(masked.oddities.doubled_bos);
    let masked = mask(&tokenizer, &Sample::Text("x".to_owned()), &training(|_| ())).unwrap();
    assert!(!masked.oddities.doubled_bos);
}

#[test]
fn a_template_whose_turns_cannot_be_told_apart_is_refused() {
    let tokenizer = jinja("{% for m in messages %}{{ m.content | length }}{{ m.content + '<|im_end|>' }}{% endfor %}");
    let problem = mask(&tokenizer, &chat(&[("user", "a"), ("assistant", "b")]), &training(|_| ())).unwrap_err();
    assert!(problem.problem.contains("the turn cannot be located"), "{}", problem.problem);
}

#[test]
fn a_format_is_trainable_if_its_rows_become_examples() {
    let tokenizer = chatml_tokenizer();
    let rows = [
        ("preference", serde_json::json!({"prompt": "a", "chosen": "b", "rejected": "c"})),
        ("preference_label", serde_json::json!({"prompt": "a", "completion": "b", "label": true})),
        (
            "chat",
            serde_json::json!({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}),
        ),
        (
            "sharegpt",
            serde_json::json!({"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}),
        ),
        ("alpaca", serde_json::json!({"instruction": "a", "output": "b"})),
        ("prompt_completion", serde_json::json!({"prompt": "a", "completion": "b"})),
        ("input_output", serde_json::json!({"segments": [{"text": "a", "label": true}]})),
        ("pretokenized", serde_json::json!({"input_ids": [5, 6]})),
        ("completion", serde_json::json!({"text": "a"})),
    ];
    let source = SourceSettings::default();
    for known in super::super::formats::dataset_types() {
        let (_, row) = rows.iter().find(|(name, _)| *name == known.format).unwrap();
        let row = crate::reading::Row { columns: row.as_object().unwrap().clone() };
        let format = super::super::formats::by_name(known.format).unwrap();
        let sample = (format.read)(&row, &source).unwrap();
        let masked = mask(&tokenizer, &sample, &Training::of(&source, false));
        assert_eq!(masked.is_ok(), known.trainable, "{}", known.name);
    }
}

#[test]
fn parts_of_a_content_that_the_template_changes_cannot_be_trained_apart() {
    let parts = |template: &str| {
        let mut answer = Message::new("assistant", " a b ");
        let detail = |first, last, trained| crate::text::TrainingDetail { first, last, trained };
        answer.content_details = Some(vec![detail(0, 1, false), detail(2, 4, true)]);
        let messages = vec![Message::new("user", "q"), answer];
        let sample = Sample::Chat(Conversation { messages, ..Conversation::default() });
        let tokenizer = jinja(&format!("{{% for m in messages %}}{{{{ {template} + '<|im_end|>' }}}}{{% endfor %}}"));
        mask(&tokenizer, &sample, &training(|_| ())).map(|masked| trained_parts(&tokenizer, &masked))
    };
    assert_eq!(parts("m.content").unwrap(), [" b <|im_end|>"]);
    assert_eq!(parts("m.content | trim").unwrap(), [" b<|im_end|>"]);
    let problem = parts("m.content | upper").unwrap_err().problem;
    assert!(problem.contains("it changes the content of a message of the assistant"), "{problem}");
}
