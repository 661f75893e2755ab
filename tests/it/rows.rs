//! Rows as people's files have them, through the binary: the text that training sees, with its trained parts marked.
//!
//! The right values are those of Axolotl 0.19 and transformers 5.24 on the same rows.

use std::fs;

use serde_json::{Value, json};

use crate::harness::{Finished, Scratch, model, read_json};

/// A template with tools, in the manner of Qwen 2.5's; content that is missing prints nothing.
const TOOLS: &str = "{% if tools %}{{ '<tools>' }}{% for t in tools %}{{ t | tojson }}{% endfor %}{{ '</tools>' }}{% endif %}\
    {% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}\
    {% if m.reasoning_content is defined %}{{ '<think>' + m.reasoning_content + '</think>' }}{% endif %}{{ m.content }}\
    {% if 'tool_calls' in m %}{% for c in m.tool_calls %}\
    {{ '<tool_call>{\"name\": \"' + c.function.name + '\", \"arguments\": ' + (c.function.arguments | tojson) + '}</tool_call>' }}\
    {% endfor %}{% endif %}{{ '<|im_end|>\\n' }}{% endfor %}";

/// ChatML without tools, and with a switch.
const SWITCH: &str = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}\
    {% if m.role == 'assistant' and enable_thinking is defined and not enable_thinking %}{{ '<think></think>' }}{% endif %}\
    {{ m.content + '<|im_end|>\\n' }}{% endfor %}";

/// `tune preview` on rows, with a template of its own unless `changes` name one.
fn preview(scratch: &Scratch, rows: &[Value], template: &str, changes: &[(&str, &str)]) -> Finished {
    scratch.write("template.jinja", template);
    let lines: String = rows.iter().map(|row| format!("{row}\n")).collect();
    scratch.write("rows.jsonl", lines);
    let mut all = vec![("chat_template", "jinja"), ("chat_template_jinja", "template.jinja")];
    all.extend(changes);
    let recipe = scratch.recipe("recipe.yaml", &model("qwen3"), &all);
    scratch.tune(&["preview".as_ref(), recipe.as_os_str(), "--json".as_ref()])
}

/// The texts of the examples, trained parts in `[[` and `]]`.
fn texts(finished: &Finished) -> Vec<String> {
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    let shown: Value = serde_json::from_str(&finished.stdout).unwrap();
    let text = |example: &Value| {
        let piece = |piece: &Value| {
            let text = piece["text"].as_str().unwrap();
            if piece["trained"] == true { format!("[[{text}]]") } else { text.to_owned() }
        };
        example["pieces"].as_array().unwrap().iter().map(piece).collect::<String>()
    };
    shown["examples"].as_array().unwrap().iter().map(text).collect()
}

fn turns(turns: &[(&str, &str)]) -> Value {
    turns.iter().map(|(role, content)| json!({"role": role, "content": content})).collect()
}

#[test]
fn json_that_is_text_in_rows_is_what_it_stands_for() {
    let scratch = Scratch::new("rows-json-text");
    let parameters = json!({"type": "object", "properties": {"city": {"type": "string"}}});
    let tool =
        |parameters: Value| json!([{"type": "function", "function": {"name": "weather", "parameters": parameters}}]);
    let call =
        |arguments: Value| json!([{"type": "function", "function": {"name": "weather", "arguments": arguments}}]);
    let row = |calls: Value, tools: Value, result: Value| {
        json!({"messages": [
            {"role": "user", "content": "Rome?"},
            {"role": "assistant", "content": null, "tool_calls": calls},
            {"role": "tool", "content": result},
        ], "tools": tools})
    };
    let arguments = json!({"city": "Rome", "days": 2});
    let text = |value: &Value| Value::String(value.to_string());
    let plain = row(call(arguments.clone()), tool(parameters.clone()), json!("{\"sky\": \"blue\"}"));
    let rows = [
        plain.clone(),
        row(call(text(&arguments)), tool(text(&parameters)), json!({"sky": "blue"})),
        row(text(&call(text(&arguments))), text(&tool(text(&parameters))), json!({"sky": "blue"})),
        row(
            call(arguments.clone())[0]["function"].clone(),
            tool(parameters)[0].clone(),
            json!({"sky": "blue", "sea": null}),
        ),
    ];
    let shown = texts(&preview(&scratch, &rows, TOOLS, &[]));
    let wanted = "<tools>{\"type\": \"function\", \"function\": {\"name\": \"weather\", \"parameters\": {\"type\": \"object\", \
                  \"properties\": {\"city\": {\"type\": \"string\"}}}}}</tools><|im_start|>user\nRome?<|im_end|>\n\
                  <|im_start|>assistant\n[[<tool_call>{\"name\": \"weather\", \"arguments\": {\"city\": \"Rome\", \"days\": 2}}\
                  </tool_call><|im_end|>]]\n<|im_start|>tool\n{\"sky\": \"blue\"}<|im_end|>\n";
    for (number, shown) in shown.iter().enumerate() {
        assert_eq!(shown, wanted, "row {number}");
    }
    // A template that joins the arguments to a text wants them as text, as DeepSeek's does.
    let joins = TOOLS.replace("(c.function.arguments | tojson)", "c.function.arguments");
    assert_eq!(texts(&preview(&scratch, &rows[..2], &joins, &[]))[0], wanted);

    let broken = row(call(json!("{'city': 'Rome'}")), Value::Null, json!(""));
    let refused = preview(&scratch, &[broken], TOOLS, &[]);
    assert_eq!(refused.code, Some(2), "{}", refused.stdout);
    let place = "rows.jsonl:1: the arguments of `messages[1].tool_calls[0]` are the string `{'city': 'Rome'}`, which is not JSON";
    assert!(refused.stderr.contains(place), "{}", refused.stderr);
}

#[test]
fn null_is_a_key_that_is_not_there() {
    let scratch = Scratch::new("rows-null");
    let rows = [
        json!({"messages": [
            {"role": "user", "content": "Hi", "tool_calls": null, "name": null, "reasoning_content": null},
            {"role": "assistant", "content": "Yo", "tool_calls": null, "function_call": null, "reasoning_content": null},
        ], "tools": null, "system": null}),
        json!({"messages": turns(&[("user", "Hi"), ("assistant", "Yo")])}),
    ];
    let shown = texts(&preview(&scratch, &rows, TOOLS, &[]));
    assert_eq!(shown, ["<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n[[Yo<|im_end|>]]\n"; 2]);
}

#[test]
fn a_system_column_is_the_first_turn() {
    let scratch = Scratch::new("rows-system");
    let row = |system: Value, messages: Value| json!({"system": system, "system_prompt": "no", "messages": messages});
    let question = turns(&[("user", "q"), ("assistant", "r")]);
    let own = turns(&[("system", "own"), ("user", "q"), ("assistant", "r")]);
    let rows = [row(json!("SYS"), question), row(json!("SYS"), own)];
    let finished = preview(&scratch, &rows, SWITCH, &[]);
    let rest = "<|im_end|>\n<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n[[r<|im_end|>]]\n";
    let wanted = ["SYS", "own"].map(|system| format!("<|im_start|>system\n{system}{rest}"));
    assert_eq!(texts(&finished), wanted);
    let recipe = scratch.join("recipe.yaml");
    let plan = scratch.tune(&["check".as_ref(), recipe.as_os_str()]).stdout;
    assert!(plan.contains("2 rows with a column `system_prompt`, which is not read"), "{plan}");
}

#[test]
fn sharegpt_has_calls_and_results() {
    let scratch = Scratch::new("rows-sharegpt");
    let turn = |from: &str, value: &str| json!({"from": from, "value": value});
    let row = json!({"conversations": [
        turn("human", "5 by 3?"),
        turn("function_call", "{\"name\": \"area\", \"arguments\": {\"sides\": [5, 3]}}"),
        turn("observation", "15"),
        turn("gpt", "It is 15."),
    ]});
    let wanted = "<|im_start|>user\n5 by 3?<|im_end|>\n<|im_start|>assistant\n[[<tool_call>{\"name\": \"area\", \
                  \"arguments\": {\"sides\": [5, 3]}}</tool_call><|im_end|>]]\n<|im_start|>tool\n15<|im_end|>\n\
                  <|im_start|>assistant\n[[It is 15.<|im_end|>]]\n";
    let datasets = [("datasets", "\n  - path: rows.jsonl\n    type: sharegpt")];
    assert_eq!(texts(&preview(&scratch, &[row], TOOLS, &datasets)), [wanted]);
}

#[test]
fn a_template_for_tools_renders_rows_with_tools_and_is_exported() {
    let scratch = Scratch::new("rows-tool-use");
    let folder = scratch.copy_model("qwen3");
    let config = folder.join("tokenizer_config.json");
    let mut tokenizer: Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
    tokenizer["chat_template"] =
        json!([{"name": "default", "template": SWITCH}, {"name": "tool_use", "template": TOOLS}]);
    fs::write(&config, tokenizer.to_string()).unwrap();
    let messages = turns(&[("user", "q"), ("assistant", "r")]);
    let tools = json!([{"type": "function", "function": {"name": "f"}}]);
    let rows = [json!({"messages": messages, "tools": tools}), json!({"messages": messages, "tools": []})];
    let lines: String = rows.iter().map(|row| format!("{row}\n")).collect();
    scratch.write("rows.jsonl", lines);
    let recipe = scratch.recipe("recipe.yaml", &folder, &[("max_steps", "1")]);
    let shown = || texts(&scratch.tune(&["preview".as_ref(), recipe.as_os_str(), "--json".as_ref()]));
    let plain = "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n[[r<|im_end|>]]\n";
    let definition = "<tools>{\"type\": \"function\", \"function\": {\"name\": \"f\"}}</tools>";
    let wanted = [format!("{definition}{plain}"), plain.to_owned()];
    assert_eq!(shown(), wanted);
    // Files of their own say the same.
    tokenizer.as_object_mut().unwrap().remove("chat_template");
    fs::write(&config, tokenizer.to_string()).unwrap();
    fs::write(folder.join("chat_template.jinja"), SWITCH).unwrap();
    fs::create_dir(folder.join("additional_chat_templates")).unwrap();
    fs::write(folder.join("additional_chat_templates/tool_use.jinja"), TOOLS).unwrap();
    assert_eq!(shown(), wanted);
    scratch.run(&recipe);
    let exported = scratch.join("out/adapter/additional_chat_templates/tool_use.jinja");
    assert_eq!(fs::read_to_string(exported).unwrap(), TOOLS);
}

#[test]
fn what_the_template_does_not_show_ends_the_run_where_it_is_the_rule() {
    let scratch = Scratch::new("rows-hidden");
    let user = json!({"role": "user", "content": "q"});
    let call = json!({"type": "function", "function": {"name": "f", "arguments": "{}"}});
    let tools = json!([{"type": "function", "function": {"name": "f"}}]);
    let reasoning = json!({"messages": [user, {"role": "assistant", "content": "r", "reasoning_content": "why"}]});
    let calls = json!({"messages": [user, {"role": "assistant", "content": "r", "tool_calls": [call]}]});
    let defined = json!({"messages": [user, {"role": "assistant", "content": "r"}], "tools": tools});
    for (row, what, name) in [
        (&reasoning, "does not show the reasoning of this row", "hidden_reasoning"),
        (&calls, "does not show the tool calls of this row", "hidden_calls"),
        (&defined, "does not show the tools of this row", "hidden_tools"),
    ] {
        let refused = preview(&scratch, std::slice::from_ref(row), SWITCH, &[]);
        assert_eq!(refused.code, Some(2), "{}", refused.stdout);
        assert!(
            refused.stderr.contains("rows.jsonl:1: the chat template") && refused.stderr.contains(what),
            "{}",
            refused.stderr
        );
        let allow = format!("{{allow: [{name}]}}");
        let allowed = preview(&scratch, std::slice::from_ref(row), SWITCH, &[("preflight", &allow)]);
        assert_eq!(texts(&allowed), ["<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n[[r<|im_end|>]]\n"]);
        let counts: Value = serde_json::from_str(&allowed.stdout).unwrap();
        assert_eq!(counts["counts"][name], 1);
        // With a template that shows it, nothing is amiss.
        texts(&preview(&scratch, std::slice::from_ref(row), TOOLS, &[]));
    }
}

#[test]
fn variables_of_the_template_come_from_recipe_data_set_and_row() {
    let scratch = Scratch::new("rows-variables");
    let messages = turns(&[("user", "q"), ("assistant", "r")]);
    let rows = [
        json!({"messages": messages}),
        json!({"messages": messages, "chat_template_kwargs": {"enable_thinking": false}}),
        json!({"messages": messages, "chat_template_kwargs": {"enable_thinking": true}}),
    ];
    let without = "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n[[r<|im_end|>]]\n".to_owned();
    let with = without.replace("[[r", "<think></think>[[r");
    let shown = |changes: &[(&str, &str)]| texts(&preview(&scratch, &rows, SWITCH, changes));
    assert_eq!(shown(&[]), [without.clone(), with.clone(), without.clone()]);
    let off = ("chat_template_kwargs", "{enable_thinking: false}");
    assert_eq!(shown(&[off]), [with.clone(), with.clone(), without.clone()]);
    let datasets = "\n  - path: rows.jsonl\n    chat_template_kwargs: {enable_thinking: true, style: 2}";
    assert_eq!(shown(&[off, ("datasets", datasets)]), [without.clone(), with, without]);
    let recipe = scratch.join("recipe.yaml");
    let plan = scratch.tune(&["check".as_ref(), recipe.as_os_str()]).stdout;
    assert!(plan.contains("with enable_thinking = true, style = 2"), "{plan}");
    assert!(plan.contains("the chat template does not read `style` of chat_template_kwargs"), "{plan}");
    // What training gave the template is in the prompts that a server is checked with.
    preview(&scratch, &rows, SWITCH, &[off, ("max_steps", "1")]);
    scratch.run(&recipe);
    let golden = read_json(&scratch.join("out/adapter/golden_prompts.json"));
    assert_eq!(golden[0]["template_variables"], json!({"enable_thinking": false}));
    let refused = preview(&scratch, &rows, SWITCH, &[("chat_template_kwargs", "{messages: 1}")]);
    assert!(refused.code == Some(2) && refused.stderr.contains("cannot set `messages`"), "{}", refused.stderr);
}

#[test]
fn columns_become_turns_of_the_models_template() {
    let scratch = Scratch::new("rows-columns");
    scratch.write("faq.csv", "question,answer,input,system\nWhy?,So.,,\nWhat?,\"That, yes.\",the sky,Be brief.\n");
    let entry = |more: &str| format!("\n  - path: faq.csv\n    type: chat_template{more}");
    let fields = "\n    field_instruction: question\n    field_output: answer";
    let shown = texts(&preview(&scratch, &[], SWITCH, &[("datasets", &entry(fields))]));
    let turn = |question: &str, answer: &str| {
        format!("<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n[[{answer}<|im_end|>]]\n")
    };
    let second = format!("<|im_start|>system\nBe brief.<|im_end|>\n{}", turn("What?\nthe sky", "That, yes."));
    assert_eq!(shown, [turn("Why?", "So."), second]);
    let plan = |fields: &str| {
        preview(&scratch, &[], SWITCH, &[("datasets", &entry(fields))]);
        scratch.tune(&["check".as_ref(), scratch.join("recipe.yaml").as_os_str()]).stdout
    };
    let beside = plan(&format!("{fields}\n    field_messages: turns"));
    assert!(beside.contains("`field_messages` of ") && beside.contains("is not read by the type chat"), "{beside}");
    // The first try of a new user is told the keys.
    for more in ["", "X"] {
        let datasets = entry("")
            .replace("\n    type: chat_template", if more.is_empty() { "\n    type: chat_template" } else { "" });
        let refused = preview(&scratch, &[], SWITCH, &[("datasets", &datasets)]);
        let hint = "`field_instruction: question` and `field_output: answer`";
        assert!(refused.code == Some(2) && refused.stderr.contains(hint), "{}", refused.stderr);
    }
}

/// The texts, the tokens and which of them are trained are those of Axolotl's `user_defined` strategy on these rows and
/// this tokenizer.
#[test]
fn a_mapping_as_type_is_a_custom_prompt_format() {
    let scratch = Scratch::new("rows-custom");
    let rows = [
        json!({"q": "Why?", "a": "So."}),
        json!({"q": "Add", "input": "2 and 2", "a": "four"}),
        json!({"q": "Why?", "system": "", "a": "So."}),
    ];
    let prompt = "\n      system_prompt: Be brief.\n      system_format: \"<{system}>\\n\"\n      field_instruction: q\n      \
                  field_output: a\n      format: \"Q: {instruction}\\nC: {input}\\nA: \"\n      no_input_format: \"Q: {instruction}\\nA: \"";
    let entry = |prompt: &str| format!("\n  - path: rows.jsonl\n    type:{prompt}");
    let finished = preview(&scratch, &rows, SWITCH, &[("datasets", &entry(prompt))]);
    assert_eq!(
        texts(&finished),
        [
            "<Be brief.>\nQ: Why?\nA: [[So.<|im_end|>]]",
            "<Be brief.>\nQ: Add\nC: 2 and 2\nA: [[four<|im_end|>]]",
            "Q: Why?\nA: [[So.<|im_end|>]]",
        ]
    );
    let shown: Value = serde_json::from_str(&finished.stdout).unwrap();
    let first = &shown["examples"][0];
    assert_eq!((&first["tokens"], &first["trained_tokens"]), (&json!(25), &json!(4)));
    // Axolotl's own formats, whose space at the end is a token of the prompt.
    let row = json!({"instruction": "What is 2+2?", "output": "4"});
    let usual = entry("\n      field_instruction: instruction");
    let finished = preview(&scratch, &[row], SWITCH, &[("datasets", &usual)]);
    assert_eq!(texts(&finished), ["What is 2+2? [[4<|im_end|>]]"]);
    let shown: Value = serde_json::from_str(&finished.stdout).unwrap();
    assert_eq!(shown["examples"][0]["tokens"], 11);

    let wrong = entry(&prompt.replace("Q: {instruction}\\nA: ", "Q: {question}\\nA: "));
    let refused = preview(&scratch, &rows, SWITCH, &[("datasets", &wrong)]);
    let message = "`datasets.0.type.no_input_format` has `{question}`, accepted is `{instruction}`";
    assert!(refused.code == Some(2) && refused.stderr.contains(message), "{}", refused.stderr);
    let misspelt = entry(&prompt.replace("field_output", "field_ouput"));
    let refused = preview(&scratch, &rows, SWITCH, &[("datasets", &misspelt)]);
    assert!(refused.code == Some(2) && refused.stderr.contains("did you mean `field_output`?"), "{}", refused.stderr);
}

#[test]
fn the_data_sets_template_wins_over_the_recipes() {
    let scratch = Scratch::new("rows-template");
    let rows = [json!({"messages": turns(&[("user", "q"), ("assistant", "r")])})];
    let entry = |more: &str| format!("\n  - path: rows.jsonl\n    type: chat_template{more}");
    let shown = |datasets: &str| {
        let changes = [("chat_template", "qwen_25"), ("chat_template_jinja", ""), ("datasets", datasets)];
        preview(&scratch, &rows, SWITCH, &changes)
    };
    let chatml = "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n[[r<|im_end|>]]\n";
    assert_eq!(texts(&shown(&entry("\n    chat_template: chatml"))), [chatml]);
    let qwen = &texts(&shown(&entry("\n    chat_template: tokenizer_default")))[0];
    assert!(qwen.starts_with("<|im_start|>system\nYou are Qwen"), "{qwen}");
    let refused = shown(&(entry("\n    chat_template: chatml") + &entry("")));
    assert_eq!(refused.code, Some(2), "{}", refused.stdout);
    assert!(refused.stderr.contains("another chat template than others"), "{}", refused.stderr);
    let texts_beside = entry("\n    chat_template: chatml") + "\n  - path: texts.jsonl\n    type: completion";
    scratch.write("texts.jsonl", "{\"text\": \"t\"}\n");
    assert_eq!(texts(&shown(&texts_beside))[0], chatml);
}

#[test]
fn roles_of_the_recipe_replace_the_usual_ones_and_unknown_ones_are_counted() {
    let scratch = Scratch::new("rows-roles");
    let chat = |answers: &str| json!({"messages": turns(&[("user", "q"), (answers, "r")])});
    let usual = [chat("gpt"), chat("model"), chat("assistant")];
    let finished = preview(&scratch, &usual, SWITCH, &[]);
    // A row without a trained turn is left out.
    assert_eq!(texts(&finished).len(), 2);
    let recipe = scratch.join("recipe.yaml");
    let plan = scratch.tune(&["check".as_ref(), recipe.as_os_str()]).stdout;
    assert!(plan.contains("1 row with an unknown role, such as `model`, which is not trained"), "{plan}");
    let datasets = "\n  - path: rows.jsonl\n    type: chat_template\n    roles: {assistant: [model]}";
    let rows = [chat("model"), chat("assistant"), chat("gpt")];
    let shown = texts(&preview(&scratch, &rows, SWITCH, &[("datasets", datasets)]));
    assert_eq!(shown, ["<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n[[r<|im_end|>]]\n"; 2]);
    let refused = preview(&scratch, &[chat("model")], SWITCH, &[]);
    assert_eq!(refused.code, Some(2), "{}", refused.stdout);
    assert!(
        refused.stderr.contains("unknown role `model`") && refused.stderr.contains("roles: {"),
        "{}",
        refused.stderr
    );
    let flagged =
        json!({"messages": [{"role": "user", "content": "q", "train": true}, {"role": "assistant", "content": "r"}]});
    assert_eq!(texts(&preview(&scratch, &[flagged], SWITCH, &[])).len(), 1);
    let plan = scratch.tune(&["check".as_ref(), recipe.as_os_str()]).stdout;
    assert!(plan.contains("1 row with messages that `train` or `weight` mark as trained or not"), "{plan}");
}
