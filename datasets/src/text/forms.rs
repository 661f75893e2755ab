//! The forms in which a chat template wants what data sets write in several: tool calls and their arguments, results,
//! definitions, and content that is not there.
//!
//! They are found once, by rendering a probe in every form and looking at what the template makes of it. A template that
//! shows none gets values as rows have them, arguments as objects.

use minijinja::Value;
use serde_json::{Map, Value as Json, json};

use super::conversation::Message;
use super::template::{TemplateProblem, python_json, to_jinja};

/// The forms that a template wants.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Forms {
    /// True if content is shown only as a list of parts, not as a text.
    wants_parts: bool,
    calls: Shape,
    /// True if arguments are JSON text, false if they are objects.
    arguments_as_text: bool,
    /// True if a tool's result may be an object.
    results_as_objects: bool,
    tools: Shape,
    /// Content that is not there, beside tool calls and elsewhere.
    missing: (Missing, Missing),
}

/// The shape of a tool call or definition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Shape {
    /// Either: as the row has it.
    #[default]
    Any,
    /// `{"type": "function", "function": {"name": ...}}`.
    Nested,
    /// `{"name": ...}`.
    Flat,
}

/// The value for content that is not there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Missing {
    /// No key at all, as transformers and Axolotl do.
    #[default]
    Absent,
    Null,
    Empty,
}

const ALL_MISSING: [Missing; 3] = [Missing::Absent, Missing::Null, Missing::Empty];

/// Names in the probe that occur in no template.
const CALLED: &str = "tuneFunction";
const KEY: &str = "tuneKey";
const VALUE: &str = "tuneValue";
const DEFINED: &str = "tuneTool";

/// Renders messages, with tool definitions if there are any.
type Render<'a> = &'a dyn Fn(&[Value], Option<&Json>) -> Result<String, TemplateProblem>;

impl Forms {
    /// Values as rows have them, content in parts or not.
    pub(crate) fn of_content(wants_parts: bool) -> Forms {
        Forms { wants_parts, ..Forms::default() }
    }

    /// Finds the forms of a template by rendering probes.
    pub(crate) fn probe(wants_parts: bool, reads_tools: bool, render: Render<'_>) -> Forms {
        let mut forms = Forms::of_content(wants_parts);
        // A template that does not end is not asked twenty times.
        let _ = forms.probe_content(render);
        if reads_tools {
            let _ = forms.probe_tools(render);
        }
        forms
    }

    fn probe_content(&mut self, render: Render<'_>) -> Result<(), TemplateProblem> {
        let question = to_jinja(&json!({"role": "user", "content": VALUE}));
        for missing in ALL_MISSING {
            let mut answer = json!({"role": "assistant"});
            missing.put(&mut answer);
            let text = attempt(render, &[question.clone(), to_jinja(&answer)], None)?;
            Missing::Empty.put(&mut answer);
            let empty = attempt(render, &[question.clone(), to_jinja(&answer)], None)?;
            if text.is_some_and(|text| shows_nothing(&text, empty.as_deref())) {
                self.missing = (missing, missing);
                break;
            }
        }
        Ok(())
    }

    fn probe_tools(&mut self, render: Render<'_>) -> Result<(), TemplateProblem> {
        let nested = json!([definition(true)]);
        let flat = json!([definition(false)]);
        let question = to_jinja(&json!({"role": "user", "content": VALUE}));
        let defined = |tools: &Json| attempt(render, std::slice::from_ref(&question), Some(tools));
        let shown = |text: Option<String>| text.is_some_and(|text| text.contains(DEFINED));
        self.tools = Shape::of(shown(defined(&nested)?), shown(defined(&flat)?));
        let tools = if self.tools == Shape::Flat { &flat } else { &nested };
        // Some templates show calls only where tools are defined, or refuse results.
        for (tools, answered) in [(Some(tools), true), (None, true), (None, false)] {
            for missing in ALL_MISSING {
                if self.probe_calls(render, tools, answered, missing)? {
                    self.missing.0 = missing;
                    return self.probe_results(render, tools);
                }
            }
        }
        Ok(())
    }

    /// True if the template shows calls beside content that is missing like this.
    fn probe_calls(
        &mut self,
        render: Render<'_>,
        tools: Option<&Json>,
        answered: bool,
        missing: Missing,
    ) -> Result<bool, TemplateProblem> {
        let arguments = json!({KEY: VALUE});
        let raw = |nested: bool, arguments: &Json, missing: Missing| {
            attempt(render, &scene(nested, arguments, missing, json!(VALUE), answered), tools)
        };
        let with = |nested: bool, arguments: &Json| {
            let text = raw(nested, arguments, missing)?;
            let empty = raw(nested, arguments, Missing::Empty)?;
            Ok(text.filter(|text| shows_nothing(text, empty.as_deref())))
        };
        let mut shapes = [None, None];
        for (nested, found) in [true, false].into_iter().zip(&mut shapes) {
            let object = with(nested, &arguments)?;
            let text = with(nested, &json!(python_json(&arguments)))?;
            let well =
                |text: &Option<String>| text.as_deref().is_some_and(|text| text.contains(CALLED) && is_plain(text));
            *found = match (well(&object), well(&text)) {
                (true, true) if object == text => {
                    // The template writes out what it gets: right for text, a Python value for an object.
                    let written = raw(nested, &json!({KEY: null}), missing)?;
                    Some(!written.is_some_and(|text| text.contains("null")))
                }
                (true, _) => Some(false),
                (false, true) => Some(true),
                (false, false) => None,
            };
        }
        let [nested, flat] = shapes;
        let Some(as_text) = nested.or(flat) else { return Ok(false) };
        self.arguments_as_text = as_text;
        self.calls = Shape::of(nested.is_some(), flat.is_some());
        Ok(true)
    }

    fn probe_results(&mut self, render: Render<'_>, tools: Option<&Json>) -> Result<(), TemplateProblem> {
        let arguments = if self.arguments_as_text { json!("{}") } else { json!({}) };
        let result = json!({KEY: VALUE});
        let with = |result: Json| {
            let scene = scene(self.calls != Shape::Flat, &arguments, self.missing.0, result, true);
            attempt(render, &scene, tools)
        };
        let object = with(result.clone())?.filter(|text| is_plain(text));
        let text = with(json!(python_json(&result)))?.filter(|text| is_plain(text));
        self.results_as_objects = object.is_some() && text.is_none();
        Ok(())
    }

    /// A message as the template wants it.
    pub(super) fn message(&self, message: &Message) -> Json {
        let mut object = Map::new();
        object.insert("role".to_owned(), Json::String(message.role.clone()));
        let missing = if message.calls_tools() { self.missing.0 } else { self.missing.1 };
        let content = match &message.content {
            Json::Null => missing.value(),
            // Beside calls, templates that ask for null take an empty text for an answer without calls.
            Json::String(text) if text.is_empty() && message.calls_tools() && missing == Missing::Null => {
                missing.value()
            }
            Json::String(text) if self.wants_parts => Some(json!([{"type": "text", "text": text}])),
            text @ Json::String(_) => Some(text.clone()),
            parts if message.parts().is_some() && self.wants_parts => Some(parts.clone()),
            _ if message.parts().is_some() => Some(Json::String(message.text())),
            data if self.results_as_objects => Some(data.clone()),
            data => Some(Json::String(python_json(data))),
        };
        if let Some(content) = content {
            object.insert("content".to_owned(), content);
        }
        for (key, value) in &message.extra {
            let value = match value {
                Json::Array(calls) if key == "tool_calls" => calls.iter().map(|call| self.call(call)).collect(),
                other => other.clone(),
            };
            object.insert(key.clone(), value);
        }
        Json::Object(object)
    }

    /// Tool definitions as the template wants them.
    pub(super) fn tools(&self, tools: &Json) -> Json {
        match tools {
            Json::Array(tools) => tools.iter().map(|tool| shaped(tool.clone(), self.tools)).collect(),
            other => other.clone(),
        }
    }

    fn call(&self, call: &Json) -> Json {
        let mut call = shaped(call.clone(), self.calls);
        let function = if call.get("function").is_some() { call.get_mut("function") } else { Some(&mut call) };
        if let Some(arguments) = function.and_then(|function| function.get_mut("arguments")) {
            match arguments {
                Json::String(text) if !self.arguments_as_text => {
                    if let Some(parsed) = parsed_arguments(text) {
                        *arguments = parsed;
                    }
                }
                Json::Object(_) | Json::Array(_) if self.arguments_as_text => {
                    *arguments = Json::String(python_json(arguments));
                }
                _ => {}
            }
        }
        call
    }

    /// The first arguments of a message that the template wants as an object and that are no JSON: the number of the
    /// call, and the text.
    pub(crate) fn unreadable_arguments<'m>(&self, message: &'m Message) -> Option<(usize, &'m str)> {
        if self.arguments_as_text {
            return None;
        }
        message.tool_calls().iter().enumerate().find_map(|(index, call)| {
            let arguments = call.get("function").unwrap_or(call).get("arguments").and_then(Json::as_str)?;
            parsed_arguments(arguments).is_none().then_some((index, arguments))
        })
    }
}

impl Shape {
    fn of(nested: bool, flat: bool) -> Shape {
        match (nested, flat) {
            (true, false) => Shape::Nested,
            (false, true) => Shape::Flat,
            _ => Shape::Any,
        }
    }
}

impl Missing {
    fn value(self) -> Option<Json> {
        match self {
            Missing::Absent => None,
            Missing::Null => Some(Json::Null),
            Missing::Empty => Some(json!("")),
        }
    }

    fn put(self, message: &mut Json) {
        if let Some(value) = self.value() {
            message["content"] = value;
        }
    }
}

/// Arguments that are written as JSON text; those of a call without any may be an empty text.
fn parsed_arguments(text: &str) -> Option<Json> {
    if text.trim().is_empty() {
        return Some(json!({}));
    }
    match serde_json::from_str(text).ok()? {
        Json::String(inner) => serde_json::from_str(&inner).ok(),
        value => Some(value),
    }
}

/// A call or a definition in another shape.
fn shaped(value: Json, shape: Shape) -> Json {
    match (shape, value) {
        (Shape::Nested, Json::Object(mut flat)) if !flat.contains_key("function") && flat.contains_key("name") => {
            let mut nested = Map::new();
            // The id of a call is beside the function, not in it.
            if let Some(id) = flat.shift_remove("id") {
                nested.insert("id".to_owned(), id);
            }
            flat.shift_remove("type");
            nested.insert("type".to_owned(), json!("function"));
            nested.insert("function".to_owned(), Json::Object(flat));
            Json::Object(nested)
        }
        (Shape::Flat, Json::Object(mut nested)) => match nested.shift_remove("function") {
            Some(Json::Object(mut flat)) => {
                if let Some(id) = nested.shift_remove("id") {
                    flat.insert("id".to_owned(), id);
                }
                Json::Object(flat)
            }
            Some(other) => {
                nested.insert("function".to_owned(), other);
                Json::Object(nested)
            }
            None => Json::Object(nested),
        },
        (_, value) => value,
    }
}

/// The text of a probe; `None` if the template refuses it, an error if it does not end.
fn attempt(render: Render<'_>, messages: &[Value], tools: Option<&Json>) -> Result<Option<String>, TemplateProblem> {
    match render(messages, tools) {
        Ok(text) => Ok(Some(text)),
        Err(problem @ (TemplateProblem::OutOfFuel | TemplateProblem::NoThread(_))) => Err(problem),
        Err(_) => Ok(None),
    }
}

/// True if missing content left no word for nothing in a text, beside those that empty content leaves.
fn shows_nothing(text: &str, empty: Option<&str>) -> bool {
    let words = |text: &str| ["None", "none", "null"].iter().map(|word| text.matches(word).count()).sum::<usize>();
    words(text) <= empty.map_or(0, words)
}

/// True if the probe's key stands in the text in JSON or on its own, neither as a string inside a string nor as Python.
fn is_plain(text: &str) -> bool {
    text.contains(KEY)
        && text.contains(VALUE)
        && !text.contains(&format!("\\\"{KEY}"))
        && !text.contains(&format!("\\u0022{KEY}"))
        && !text.contains(&format!("'{KEY}'"))
}

/// A conversation with a tool call.
fn scene(nested: bool, arguments: &Json, missing: Missing, result: Json, answered: bool) -> Vec<Value> {
    // Nine letters and digits: Mistral's templates accept no other ids.
    let id = "tune00001";
    let function = json!({"name": CALLED, "arguments": arguments});
    let call = if nested {
        json!({"id": id, "type": "function", "function": function})
    } else {
        json!({"id": id, "name": CALLED, "arguments": arguments})
    };
    let mut calling = json!({"role": "assistant"});
    missing.put(&mut calling);
    calling["tool_calls"] = json!([call]);
    let mut messages = vec![json!({"role": "user", "content": "tuneQuestion"}), calling];
    if answered {
        messages.push(json!({"role": "tool", "name": CALLED, "tool_call_id": id, "content": result}));
        messages.push(json!({"role": "assistant", "content": "tuneAnswer"}));
    }
    messages.iter().map(to_jinja).collect()
}

fn definition(nested: bool) -> Json {
    let function = json!({
        "name": DEFINED,
        "description": "tuneDescription",
        "parameters": {"type": "object", "properties": {"tuneProperty": {"type": "string", "description": "tuneMeaning"}},
            "required": ["tuneProperty"]},
    });
    if nested { json!({"type": "function", "function": function}) } else { function }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_tokenizer::byte_tokenizer;
    use crate::text::{TemplateChoice, Tokenizer};

    fn message(role: &str, content: Json, calls: Json) -> Message {
        let mut message = Message { content, ..Message::new(role, "") };
        if !calls.is_null() {
            message.extra.insert("tool_calls".to_owned(), calls);
        }
        message
    }

    fn rendered(template: &str, messages: &[Message]) -> String {
        let tokenizer: Tokenizer = byte_tokenizer(&TemplateChoice::Jinja(template.to_owned()));
        tokenizer.render(messages, None, false, &Map::new()).unwrap()
    }

    /// How a template shows a call of `f` with arguments as an object, and as text.
    fn both(template: &str, nested: bool) -> [String; 2] {
        [json!({"city": "Rome"}), json!("{\"city\":\"Rome\"}")].map(|arguments| {
            let function = json!({"name": "f", "arguments": arguments});
            let call = if nested { json!({"type": "function", "function": function}) } else { function };
            rendered(template, &[message("assistant", Json::Null, json!([call]))])
        })
    }

    const LOOP: &str = "{% for m in messages %}{% if m.tool_calls %}{% for c in m.tool_calls %}";
    const END: &str = "{% endfor %}{% else %}{{ m.content }}{% endif %}{% endfor %}";

    #[test]
    fn arguments_have_the_form_that_the_template_reads() {
        for (call, wanted) in [
            ("{{ c.function.arguments | tojson }}", ["{\"city\": \"Rome\"}"; 2]),
            ("{{ c.function | tojson }}", ["{\"name\": \"f\", \"arguments\": {\"city\": \"Rome\"}}"; 2]),
            (
                "{{ c.function.name }}{% for k, v in c.function.arguments.items() %}({{ k }}={{ v }}){% endfor %}",
                ["f(city=Rome)"; 2],
            ),
            // Text is what the row has, an object is written as `json.dumps` does.
            ("{{ c.function.name + c.function.arguments }}", ["f{\"city\": \"Rome\"}", "f{\"city\":\"Rome\"}"]),
            ("{{ c.function.name }}{{ c.function.arguments }}", ["f{\"city\": \"Rome\"}", "f{\"city\":\"Rome\"}"]),
            // A template that takes both gets objects, as from Axolotl.
            (
                "{{ c.function.name }}{% if c.function.arguments is string %}{{ c.function.arguments }}{% else %}\
                 {{ c.function.arguments | tojson }}{% endif %}",
                ["f{\"city\": \"Rome\"}"; 2],
            ),
        ] {
            let template = format!("{LOOP}{{{{ c.function.name[:0] }}}}{call}{END}");
            assert_eq!(both(&template, true), wanted.map(str::to_owned), "{call}");
        }
    }

    #[test]
    fn calls_have_the_shape_that_the_template_reads() {
        for (call, nested, wanted) in [
            ("{{ c.name + (c.arguments | tojson) }}", true, "f{\"city\": \"Rome\"}"),
            ("{{ c.function.name + (c.function.arguments | tojson) }}", false, "f{\"city\": \"Rome\"}"),
            (
                "{% if c.function %}{% set c = c.function %}{% endif %}{{ c.name + (c.arguments | tojson) }}",
                false,
                "f{\"city\": \"Rome\"}",
            ),
        ] {
            assert_eq!(both(&format!("{LOOP}{call}{END}"), nested), [wanted, wanted].map(str::to_owned), "{call}");
        }
    }

    #[test]
    fn content_that_is_not_there_leaves_no_word() {
        let nothing = [message("assistant", Json::Null, Json::Null)];
        for (template, wanted) in [
            ("{% for m in messages %}<{{ m.content }}>{% endfor %}", "<>"),
            ("{% for m in messages %}{{ '<' + m.content + '>' }}{% endfor %}", "<>"),
            ("{% for m in messages %}{{ '<' + (m.content | trim) + '>' }}{% endfor %}", "<>"),
            (
                "{% for m in messages %}{% set c = m.content %}{% if c is not string %}{% set c = c | tojson %}{% endif %}\
                 <{{ c }}>{% endfor %}",
                "<>",
            ),
            ("{% for m in messages %}{% if m.content is defined %}<{{ m.content }}>{% endif %}{% endfor %}", ""),
        ] {
            assert_eq!(rendered(template, &nothing), wanted, "{template}");
        }
        // DeepSeek's templates ask for null beside calls.
        let template = "{% for m in messages %}{% if m.content is none %}{% for c in m.tool_calls %}\
            {{ '<' + c.function.name + c.function.arguments + '>' }}{% endfor %}{% else %}{{ '=' + m.content }}{% endif %}{% endfor %}";
        assert_eq!(both(template, true)[0], "<f{\"city\": \"Rome\"}>");
        let empty = message("assistant", json!(""), json!([{"function": {"name": "f", "arguments": "{}"}}]));
        assert_eq!(rendered(template, &[empty]), "<f{}>");
    }

    #[test]
    fn results_that_are_objects_become_json_or_stay() {
        let result = [message("tool", json!({"temp": 20, "sky": null}), Json::Null)];
        let text = "{\"temp\": 20, \"sky\": null}";
        let plain = format!("{LOOP}{{{{ c.function | tojson }}}}{END}");
        assert_eq!(rendered(&plain, &result), text);
        let mapping = "{% for m in messages %}{% if m.role == 'tool' %}{{ m.content | tojson }}{% elif m.tool_calls %}\
            {{ m.tool_calls | tojson }}{% else %}{{ m.content }}{% endif %}{% endfor %}";
        assert_eq!(rendered(mapping, &result), text);
    }

    #[test]
    fn definitions_have_the_shape_that_the_template_reads() {
        let nested = json!([{"type": "function", "function": {"name": "f"}}]);
        let flat = json!([{"name": "f"}]);
        for (template, wanted) in [
            ("{% for t in tools %}{{ t.function.name }}{% endfor %}", "f"),
            ("{% for t in tools %}{{ t.name }}{% endfor %}", "f"),
        ] {
            let tokenizer = byte_tokenizer(&TemplateChoice::Jinja(template.to_owned()));
            for tools in [&nested, &flat] {
                assert_eq!(tokenizer.render(&[], Some(tools), false, &Map::new()).unwrap(), wanted, "{template}");
            }
        }
        let as_given = byte_tokenizer(&TemplateChoice::Jinja("{{ tools | tojson }}".to_owned()));
        assert_eq!(as_given.render(&[], Some(&flat), false, &Map::new()).unwrap(), "[{\"name\": \"f\"}]");
    }
}
