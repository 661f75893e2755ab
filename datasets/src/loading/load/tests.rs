//! The claims of loading: counts, splits, questions, and the error of each kind of bad input.

use serde_json::json;

use super::*;
use crate::foundation::{Defect, Excess};
use crate::loading::dataset::Dataset;
use crate::test_tokenizer::{Folder, byte_tokenizer, chatml_tokenizer};
use crate::text::TemplateChoice;

fn settings(folder: &Folder, names: &[&str]) -> DatasetSettings {
    DatasetSettings {
        sources: names.iter().map(|name| SourceSettings::new(folder.path().join(name), "recipe.yaml:3:5")).collect(),
        seed: 1,
        sequence_len: 200,
        ..DatasetSettings::default()
    }
}

fn load_with(settings: &DatasetSettings, tokenizer: &Tokenizer) -> Result<Dataset, String> {
    Dataset::load(settings, tokenizer, &mut |_| {}).map_err(|error| error.shown())
}

fn load_rows(rows: &[serde_json::Value], change: impl FnOnce(&mut DatasetSettings)) -> Result<Dataset, String> {
    let folder = Folder::new();
    let lines: Vec<String> = rows.iter().map(serde_json::Value::to_string).collect();
    folder.write("train.jsonl", &lines.join("\n"));
    let mut settings = settings(&folder, &["train.jsonl"]);
    change(&mut settings);
    load_with(&settings, &chatml_tokenizer())
        .map_err(|error| error.replace(&format!("{}/", folder.path().display()), ""))
}

fn turn(question: &str, answer: &str) -> serde_json::Value {
    json!({"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]})
}

#[test]
fn sources_of_several_formats_become_one_data_set() {
    let folder = Folder::new();
    folder.write("a.jsonl", &turn("Hi", "Yo").to_string());
    folder.write("b.json", r#"[{"instruction": "Do", "output": "Ok"}, {"instruction": "Do", "output": "No"}]"#);
    folder.write("c.jsonl", "{\"text\": \"plain\"}");
    let mut settings = settings(&folder, &["a.jsonl", "b.json", "c.jsonl"]);
    settings.sequence_len = 1000;
    let mut reports = Vec::new();
    let loaded = Dataset::load(&settings, &chatml_tokenizer(), &mut |report| reports.push(report));
    let dataset = loaded.unwrap();
    let counts = &dataset.counts;
    assert_eq!((counts.rows, counts.train_rows, counts.dropped), (4, 4, 0));
    assert_eq!(counts.tokens, dataset.train.iter().map(|example| example.tokens.len()).sum::<usize>());
    assert_eq!(counts.trained_tokens, "Yo".len() + "Ok".len() + "No".len() + "plain".len() + 4);
    let formats: Vec<_> = counts.sources.iter().map(|source| (source.format, source.recognised, source.rows)).collect();
    assert_eq!(formats, [("chat", true, 1), ("alpaca", true, 2), ("completion", true, 1)]);
    assert!(dataset.location(&dataset.train.get(2).unwrap()).ends_with("b.json: row 2"));
    assert!(reports.contains(&LoadProgress::Tokenised { done: 2, total: 2 }));
}

#[test]
fn held_out_rows_are_stable_and_ask_their_questions() {
    let rows: Vec<_> = (0..20).map(|index| turn(&format!("Q{index}?"), &format!("A{index}"))).collect();
    let load = || load_rows(&rows, |settings| settings.held_out = Some(HeldOut::Fraction(0.21))).unwrap();
    let dataset = load();
    assert_eq!((dataset.train.len(), dataset.held_out.len(), dataset.questions.len()), (15, 5, 5));
    assert_eq!(dataset.held_out, load().held_out);
    assert!(dataset.held_out.iter().all(|held_out| dataset.train.iter().all(|row| row.line != held_out.line)));
    let tokenizer = chatml_tokenizer();
    for (question, example) in dataset.questions.iter().zip(dataset.held_out.iter()) {
        let number = example.line - 1;
        assert_eq!(
            (question.prompt_text.clone(), question.answer.clone()),
            (format!("Q{number}?"), format!("A{number}"))
        );
        assert_eq!(question.expected, question.answer);
        assert_eq!(question.answer_tokens, question.answer.len() + 1);
        assert!(example.tokens.starts_with(&question.prompt));
        assert!(tokenizer.decode(&question.prompt).unwrap().ends_with("<|im_start|>assistant\n"));
    }
}

#[test]
fn a_question_begins_its_answer_where_training_does() {
    const TEMPLATE: &str = "{% for message in messages %}<|im_start|>{{ message.role }}\n{% if message.role == 'assistant' \
        %}<think>\n{{ message.reasoning_content }}\n</think>\n\n{% endif %}{{ message.content }}<|im_end|>\n{% endfor %}\
        {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
    let tokenizer = byte_tokenizer(&TemplateChoice::Jinja(TEMPLATE.to_owned()));
    let folder = Folder::new();
    let mut reasoned = turn("b", "no");
    reasoned["messages"][1]["reasoning_content"] = json!("why");
    let mut masked = turn("c", "maybe");
    masked["messages"][1]["content"] = json!([{"type": "text", "text": "maybe", "train": false}]);
    // The last rows are held out.
    let rows = [turn("z", "z"), masked, reasoned, turn("a", "yes")];
    folder.write("train.jsonl", &rows.map(|row| row.to_string()).join("\n"));
    let mut settings = settings(&folder, &["train.jsonl"]);
    (settings.held_out, settings.shuffle) = (Some(HeldOut::Count(3)), false);
    let dataset = load_with(&settings, &tokenizer).unwrap();
    let asked = dataset.questions.iter().map(|question| {
        let prompt = tokenizer.decode(&question.prompt).unwrap();
        (prompt.rsplit_once("assistant\n").unwrap().1.to_owned(), question.expected.clone())
    });
    let wanted = [
        ("", "<think>\n\n</think>\n\nmaybe"),
        ("<think>\n", "why\n</think>\n\nno"),
        ("<think>\n\n</think>\n\n", "yes"),
    ];
    assert_eq!(asked.collect::<Vec<_>>(), wanted.map(|(begin, answer)| (begin.to_owned(), answer.to_owned())));
}

#[test]
fn rows_that_share_a_line_ask_their_own_questions() {
    let folder = Folder::new();
    let rows: Vec<_> = (0..20).map(|index| turn(&format!("Q{index}?"), &format!("A{index}"))).collect();
    for text in [json!(rows).to_string(), json!(rows).to_string().replacen('[', "[\n", 1)] {
        folder.write("train.json", &text);
        let mut settings = settings(&folder, &["train.json"]);
        settings.held_out = Some(HeldOut::Count(7));
        let dataset = load_with(&settings, &chatml_tokenizer()).unwrap();
        assert_eq!(dataset.questions.len(), 7);
        for (question, example) in dataset.questions.iter().zip(dataset.held_out.iter()) {
            assert!(example.tokens.starts_with(&question.prompt));
            assert_eq!(question.answer.trim_start_matches('A'), question.prompt_text.trim_matches(['Q', '?']));
        }
    }
}

#[test]
fn rows_of_their_own_can_be_held_out() {
    let folder = Folder::new();
    folder.write("train.jsonl", &turn("a", "b").to_string());
    folder
        .write("test.jsonl", "{\"prompt\": \"c\", \"completion\": \"d\"}\n{\"prompt\": \"e\", \"completion\": \"f\"}");
    let mut settings = settings(&folder, &["train.jsonl"]);
    settings.test_sources = vec![SourceSettings::new(folder.path().join("test.jsonl"), "recipe.yaml:8:5")];
    let dataset = load_with(&settings, &chatml_tokenizer()).unwrap();
    assert_eq!((dataset.counts.train_rows, dataset.counts.held_out_rows), (1, 2));
    assert_eq!(dataset.questions[1].prompt_text, "e");
    assert_eq!(
        dataset.location(&dataset.held_out.get(1).unwrap()),
        format!("{}:2", folder.path().join("test.jsonl").display())
    );
}

#[test]
fn a_split_that_leaves_nothing_is_refused() {
    for held_out in [HeldOut::Count(2), HeldOut::Fraction(0.9), HeldOut::Fraction(1.5)] {
        let error =
            load_rows(&[turn("a", "b"), turn("a", "b")], |settings| settings.held_out = Some(held_out)).unwrap_err();
        assert!(error.starts_with("val_set_size: `") && error.contains("\nhint: "), "{error}");
    }
}

#[test]
fn long_rows_are_dropped_truncated_or_refused() {
    let rows = [turn("a", "b"), turn("a", &"long ".repeat(50)), turn(&"long ".repeat(60), "b")];
    let dropped = load_rows(&rows, |_| ()).unwrap();
    assert_eq!((dropped.counts.dropped, dropped.counts.train_rows), (2, 1));
    let truncated = load_rows(&rows, |settings| settings.excess = Excess::Truncate).unwrap().counts;
    assert_eq!((truncated.truncated, truncated.truncated_answers), (2, 2));
    assert_eq!((truncated.no_trained_tokens, truncated.train_rows, truncated.longest), (1, 2, 200));
    let error = load_rows(&rows, |settings| settings.excess = Excess::Raise).unwrap_err();
    assert!(error.starts_with("train.jsonl:2: the row has "), "{error}");
    assert!(error.contains("`sequence_len` is 200 (and 1 more longer row)\nhint: "), "{error}");
}

#[test]
fn a_long_plain_text_becomes_several_examples() {
    let dataset = load_rows(&[json!({"text": "x".repeat(450)})], |_| ()).unwrap();
    let lengths: Vec<usize> = dataset.train.iter().map(|example| example.tokens.len()).collect();
    assert_eq!(lengths, [200, 200, 52]);
    assert_eq!((dataset.counts.rows, dataset.counts.split_texts), (1, 1));
}

#[test]
fn rows_that_teach_nothing_are_left_out_until_they_are_the_rule() {
    let empty = json!({"messages": [{"role": "user", "content": "a"}]});
    let dataset = load_rows(&[turn("a", "b"), empty.clone()], |_| ()).unwrap();
    assert_eq!((dataset.counts.no_trained_tokens, dataset.counts.train_rows), (1, 1));
    assert!(dataset.counts.first[&Defect::NoTrainedTokens].ends_with("train.jsonl:2"));
    let error = load_rows(&[turn("a", "b"), empty.clone(), empty], |_| ()).unwrap_err();
    assert!(
        error.starts_with("train.jsonl:2: this row has no token to train on; the same holds for 2 of 3 rows\nhint: "),
        "{error}"
    );
}

#[test]
fn a_doubled_bos_is_refused_when_it_is_the_rule() {
    let error = load_rows(&[json!({"text": "<s>a"})], |_| ()).unwrap_err();
    assert!(error.starts_with("train.jsonl:1: this row begins with two BOS tokens"), "{error}");
    let rows = [json!({"text": "<s>a"}), json!({"text": "a"})];
    assert_eq!(load_rows(&rows, |_| ()).unwrap().counts.doubled_bos, 1);
}

#[test]
fn turns_that_never_end_are_refused_when_they_are_the_rule() {
    let folder = Folder::new();
    folder.write("train.jsonl", &turn("a", "b").to_string());
    let template = "{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}";
    let tokenizer = byte_tokenizer(&TemplateChoice::Jinja(template.to_owned()));
    let error = load_with(&settings(&folder, &["train.jsonl"]), &tokenizer).unwrap_err();
    assert!(error.contains("train.jsonl:1: a trained turn of this row is not closed"), "{error}");
    assert!(error.contains("\nhint: name the token that closes a turn in `eot_tokens`"), "{error}");
}

#[test]
fn a_wrong_field_is_named_with_its_line_and_the_others_are_counted() {
    let wrong = json!({"messages": [{"role": "user"}]});
    let error = load_rows(&[turn("a", "b"), wrong.clone(), wrong], |_| ()).unwrap_err();
    assert_eq!(
        error,
        "train.jsonl:2: the field `messages[0].content` is missing; the message has `role` (and 1 more bad row)\n\
         hint: name the key that holds it: `message_property_mappings: {content: ...}`"
    );
}

#[test]
fn a_template_that_raises_names_the_row_and_its_words() {
    let folder = Folder::new();
    folder.write("train.jsonl", &format!("{}\n{}", turn("a", "b"), turn("bad", "b")));
    let template = "{% for m in messages %}{% if m.content == 'bad' %}{{ raise_exception('No bad words') }}{% endif %}\
                    {{ m.content + '<|im_end|>' }}{% endfor %}";
    let tokenizer = byte_tokenizer(&TemplateChoice::Jinja(template.to_owned()));
    let error = load_with(&settings(&folder, &["train.jsonl"]), &tokenizer).unwrap_err();
    assert!(error.contains("train.jsonl:2: the chat template refuses it: `No bad words`\nhint: "), "{error}");
}

#[test]
fn chats_need_a_template_and_plain_rows_do_not() {
    let tokenizer = byte_tokenizer(&TemplateChoice::TokenizerDefault);
    let folder = Folder::new();
    folder.write("train.jsonl", &turn("a", "b").to_string());
    let error = load_with(&settings(&folder, &["train.jsonl"]), &tokenizer).unwrap_err();
    assert!(
        error.contains("train.jsonl:1: the base model has no chat template\nhint: set `chat_template: chatml`"),
        "{error}"
    );
    folder.write("train.jsonl", "{\"text\": \"a\"}");
    assert!(load_with(&settings(&folder, &["train.jsonl"]), &tokenizer).is_ok());
}

#[test]
fn no_rows_at_all_is_an_error_with_the_reason() {
    let error = load_rows(&[turn("a", &"long ".repeat(99))], |_| ()).unwrap_err();
    assert!(error.starts_with("recipe.yaml:3:5: no rows are left to train on: 1 of 1 are longer"), "{error}");
    let error = load_rows(&[], |_| ()).unwrap_err();
    assert!(error.starts_with("train.jsonl: the file holds no rows"), "{error}");
}

#[test]
fn a_defect_that_is_the_rule_can_be_allowed_by_name() {
    let rows = [turn("a", ""), turn("b", ""), turn("c", "d")];
    let error = load_rows(&rows, |_| ()).unwrap_err();
    assert!(error.starts_with("train.jsonl:1: a turn of this row that is trained on is empty"), "{error}");
    assert!(error.contains("the same holds for 2 of 3 rows\nhint: "), "{error}");
    let allow = |settings: &mut DatasetSettings| settings.allowed = vec![Defect::EmptyAnswers];
    // As in Axolotl, an empty answer is not trained, and neither is its end.
    let allowed = load_rows(&rows, allow).unwrap().counts;
    assert_eq!((allowed.empty_answers, allowed.no_trained_tokens, allowed.train_rows), (2, 0, 1));
    let error = load_rows(&rows[..2], allow).unwrap_err();
    assert!(error.contains("no rows are left to train on: 2 of 2 have an empty answer"), "{error}");
    assert_eq!(Defect::ALL.map(Defect::name)[3], "empty_answers");
}

#[test]
fn unknown_roles_are_counted_and_refused_where_they_are_the_rule() {
    let odd = json!({"messages": [{"role": "narrator", "content": "a"}, {"role": "assistant", "content": "b"}]});
    let rows = [turn("a", "b"), odd.clone(), odd];
    let error = load_rows(&rows, |_| ()).unwrap_err();
    let problem =
        "train.jsonl:2: this row has the unknown role `narrator`, which is not trained; the same holds for 2 of 3 rows";
    assert!(error.starts_with(problem), "{error}");
    let counts = load_rows(&rows[..2], |_| ()).unwrap().counts;
    assert_eq!((counts.unknown_roles, counts.unknown_role.as_deref()), (1, Some("narrator")));
    let counts = load_rows(&rows, |settings| settings.allowed = vec![Defect::UnknownRoles]).unwrap().counts;
    assert_eq!((counts.unknown_roles, counts.train_rows), (2, 3));
}

#[test]
fn duplicates_lengths_and_what_is_too_long_are_counted() {
    let long = turn("a", &"long ".repeat(50));
    let rows = [turn("a", "b"), turn("a", "b"), turn("a", "c"), turn("a", "b"), long];
    let counts = load_rows(&rows, |_| ()).unwrap().counts;
    assert_eq!((counts.duplicates, counts.held_out_duplicates), (2, 0));
    let longest = *counts.lengths.keys().last().unwrap();
    assert_eq!((counts.over_length, counts.over_length_tokens), (1, longest - 200));
    assert_eq!(counts.lengths.values().sum::<usize>(), 5);
    assert!(counts.length_histogram(5).lines().count() <= 5);
    let split = load_rows(&rows, |settings| settings.held_out = Some(HeldOut::Count(2))).unwrap().counts;
    assert_eq!(split.duplicates + split.held_out_duplicates, 2);
    let packed = load_rows(&rows, |settings| settings.batching.packing = true).unwrap().counts;
    let used = packed.tokens as f64 / (packed.packed_rows * 200) as f64;
    assert!((packed.packing_efficiency() - used).abs() < 1e-9 && packed.packed_rows < 4);
}

#[test]
fn rows_of_every_container_and_compression_load_as_one_data_set() {
    use std::io::Write;
    let folder = Folder::new();
    folder.write("a.csv", "prompt,completion\nQ,\"A\n1\"\n");
    folder.write("b.txt", "plain text\n");
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(turn("Hi", "Yo").to_string().as_bytes()).unwrap();
    std::fs::write(folder.path().join("c.jsonl.gz"), gz.finish().unwrap()).unwrap();
    folder.write(
        "d.json",
        &json!({"segments": [{"text": "a", "label": false}, {"text": "b<|im_end|>", "label": true}]}).to_string(),
    );
    folder.write("e.jsonl", &json!({"input_ids": [5, 6, 258], "labels": [-100, 6, 258]}).to_string());
    let names = ["a.csv", "b.txt", "c.jsonl.gz", "d.json", "e.jsonl"];
    let dataset = load_with(&settings(&folder, &names), &chatml_tokenizer()).unwrap();
    let formats: Vec<_> = dataset.counts.sources.iter().map(|source| source.format).collect();
    assert_eq!(formats, ["prompt_completion", "completion", "chat", "input_output", "pretokenized"]);
    let trained: Vec<usize> = dataset.train.iter().map(|example| example.trained_tokens()).collect();
    assert_eq!(trained, [4, 11, 3, 2, 2]);
    let bad = json!({"input_ids": [5, 9999]}).to_string();
    folder.write("e.jsonl", &bad);
    let error = load_with(&settings(&folder, &names), &chatml_tokenizer()).unwrap_err();
    assert!(error.contains("e.jsonl:1: the id `9999` is not in the vocabulary, which ends at `258`"), "{error}");
}

#[test]
fn rows_that_compare_answers_are_not_taken_for_answers() {
    for row in [
        json!({"prompt": "a", "chosen": "b", "rejected": "c"}),
        json!({"prompt": "a", "completion": "b", "label": false}),
    ] {
        let error = load_rows(&[row], |_| ()).unwrap_err();
        assert!(error.starts_with("train.jsonl:1: the row compares answers, which no objective"), "{error}");
    }
    let mut pair = turn("a", "b");
    pair["chosen"] = json!({"role": "assistant", "content": "c"});
    pair["rejected"] = pair["chosen"].clone();
    let named = |settings: &mut DatasetSettings| settings.sources[0].format = Some("chat_template.default".into());
    assert!(load_rows(&[pair], named).unwrap_err().contains("the row compares answers"));
    assert_eq!(load_rows(&[turn("a", "b")], named).unwrap().counts.train_rows, 1);
    let row = json!({"prompt": "a", "chosen": "b", "rejected": "c"});
    let chosen = |settings: &mut DatasetSettings| {
        settings.sources[0].format = Some("prompt_completion".into());
        settings.sources[0].field_output = Some("chosen".to_owned());
    };
    assert_eq!(load_rows(&[row], chosen).unwrap().counts.train_rows, 1);
}

#[test]
fn what_the_template_does_not_show_is_counted_and_refused_where_it_is_the_rule() {
    let tools = json!([{"type": "function", "function": {"name": "weather"}}]);
    let call = json!({"type": "function", "function": {"name": "weather", "arguments": {}}});
    let answered = json!({"role": "assistant", "content": "b"});
    let user = json!({"role": "user", "content": "a"});
    let reasoned = json!({"messages": [user, {"role": "assistant", "content": "b", "reasoning_content": "why"}]});
    let calling = json!({"messages": [user, {"role": "assistant", "content": "b", "tool_calls": [call]}]});
    let defining = json!({"messages": [user, answered], "tools": tools});
    let plain = turn("a", "c");
    let counts = |odd: &serde_json::Value| {
        let counts = load_rows(&[plain.clone(), odd.clone()], |_| ()).unwrap().counts;
        (counts.hidden_tools, counts.hidden_calls, counts.hidden_reasoning)
    };
    assert_eq!(counts(&defining), (1, 0, 0));
    assert_eq!(counts(&calling), (0, 1, 0));
    assert_eq!(counts(&reasoned), (0, 0, 1));
    // What the text says anyway is shown.
    let system = json!({"role": "system", "content": "You may call weather."});
    let written = json!({"messages": [system, user, answered], "tools": tools});
    assert_eq!(counts(&written), (0, 0, 0));
    let error = load_rows(std::slice::from_ref(&defining), |_| ()).unwrap_err();
    assert!(error.starts_with("train.jsonl:1: the chat template does not show the tools of this row"), "{error}");
    let error = load_rows(&[reasoned], |_| ()).unwrap_err();
    assert!(error.contains("does not show the reasoning") && error.contains("`field_thinking`"), "{error}");
    let counts = load_rows(&[defining], |settings| settings.allowed = vec![Defect::HiddenTools]).unwrap().counts;
    assert_eq!((counts.hidden_tools, counts.train_rows), (1, 1));
}

#[test]
fn flags_and_columns_that_are_not_read_are_counted() {
    let turns = json!([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "train": true}]);
    let counts = load_rows(&[json!({"messages": turns, "images": ["x"]}), turn("a", "b")], |_| ()).unwrap().counts;
    assert_eq!((counts.flagged, counts.unread), (1, [("images".to_owned(), 1)].into()));
}
