//! JSON that rows hold as text where it is meant as a value: tool calls, their functions, tool definitions.
//!
//! Tables force it into text, and OpenAI writes the arguments of a call so. Arguments stay as they are: which form they
//! need is known by the chat template.

use serde_json::{Map, Value, json};

use crate::reading::{RowProblem, described, wrong_type};

/// A value without what is null in its objects: tables fill in the keys that other rows have.
pub(super) fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(entries) => {
            let set = entries.iter().filter(|(_, value)| !value.is_null());
            Value::Object(set.map(|(key, value)| (key.clone(), without_nulls(value))).collect())
        }
        Value::Array(items) => items.iter().map(without_nulls).collect(),
        other => other.clone(),
    }
}

/// Takes the tool calls out of a message: `tool_calls`, or the older `function_call` of one.
pub(super) fn calls_of(extra: &mut Map<String, Value>, place: &str) -> Result<Vec<Value>, RowProblem> {
    if let Some(calls) = extra.shift_remove("tool_calls") {
        let calls = call_list(&calls, &format!("{place}.tool_calls"))?;
        if !calls.is_empty() {
            return Ok(calls);
        }
    }
    match extra.get("function_call") {
        Some(call @ Value::Object(_)) if call.get("name").is_some() => {
            let calls = vec![json!({"type": "function", "function": call})];
            extra.shift_remove("function_call");
            Ok(calls)
        }
        _ => Ok(Vec::new()),
    }
}

/// Tool calls: a list, one call, or either as JSON text.
pub(super) fn call_list(value: &Value, field: &str) -> Result<Vec<Value>, RowProblem> {
    let accepted = "a list of tool calls, each an object with `name` and `arguments`";
    let calls = match parsed(value, field, accepted)? {
        None => return Ok(Vec::new()),
        Some(Value::Array(calls)) => calls,
        Some(call @ Value::Object(_)) => vec![call],
        Some(_) => return Err(wrong_type(field, value, accepted)),
    };
    let call = |(index, call): (usize, &Value)| {
        let field = format!("{field}[{index}]");
        let mut object = match parsed(call, &field, "a tool call")? {
            Some(Value::Object(object)) => object,
            _ => return Err(wrong_type(&field, call, "a tool call")),
        };
        if let Some(function) = object.get_mut("function")
            && function.is_string()
        {
            *function = parsed(function, &format!("{field}.function"), "an object")?.unwrap_or(Value::Null);
        }
        let function = object.get("function").and_then(Value::as_object).unwrap_or(&object);
        if function.contains_key("name") {
            return Ok(Value::Object(object));
        }
        let problem = format!("the field `{field}` has no name of a function");
        Err(RowProblem::new(problem, "write a call as `{\"name\": ..., \"arguments\": {...}}`"))
    };
    calls.iter().enumerate().map(call).collect()
}

/// Tool definitions: a list, one definition, or either as JSON text; `None` for none.
pub(super) fn tools_of(value: &Value, field: &str) -> Result<Option<Value>, RowProblem> {
    let accepted = "a list of tool definitions";
    // What is JSON text was not filled up with nulls by a table.
    let cleaned = without_nulls(value);
    let mut tools = match parsed(&cleaned, field, accepted)? {
        None => return Ok(None),
        Some(Value::Array(tools)) => tools,
        Some(tool @ Value::Object(_)) => vec![tool],
        Some(_) => return Err(wrong_type(field, value, accepted)),
    };
    for (index, tool) in tools.iter_mut().enumerate() {
        let field = format!("{field}[{index}]");
        expand(tool, &field, "a tool definition")?;
        if tool.get("function").is_some() {
            expand_key(tool, "function", &field)?;
        }
        let nested = tool.get("function").is_some_and(Value::is_object);
        let (definition, field) = match tool.get_mut("function") {
            Some(function) if nested => (function, format!("{field}.function")),
            _ => (tool, field),
        };
        expand_key(definition, "parameters", &field)?;
        if let Some(parameters) = definition.get_mut("parameters") {
            expand_key(parameters, "properties", &format!("{field}.parameters"))?;
        }
    }
    Ok(Some(Value::Array(tools)).filter(|tools| tools.as_array().is_some_and(|tools| !tools.is_empty())))
}

fn expand_key(object: &mut Value, key: &str, field: &str) -> Result<(), RowProblem> {
    match object.get_mut(key) {
        Some(value) => expand(value, &format!("{field}.{key}"), "an object"),
        None => Ok(()),
    }
}

/// Replaces JSON text by its value; an empty one by an empty object.
fn expand(value: &mut Value, field: &str, accepted: &str) -> Result<(), RowProblem> {
    if value.is_string() {
        *value = match parsed(value, field, accepted)? {
            Some(value @ Value::Object(_)) => value,
            None => json!({}),
            Some(_) => return Err(wrong_type(field, value, accepted)),
        };
    }
    Ok(())
}

/// A value, of JSON text the one that it stands for; `None` for null, nothing, and empty lists.
fn parsed(value: &Value, field: &str, accepted: &str) -> Result<Option<Value>, RowProblem> {
    let value = match value {
        Value::String(text) if text.trim().is_empty() => return Ok(None),
        Value::String(text) => serde_json::from_str(text).map_err(|error| {
            RowProblem::new(
                format!(
                    "the field `{field}` is {}, which is not JSON: {error}; accepted is {accepted}",
                    described(value)
                ),
                format!("write `{field}` as {accepted}; names and texts of JSON stand in double quotes"),
            )
        })?,
        other => other.clone(),
    };
    let is_empty = value.is_null() || value.as_array().is_some_and(Vec::is_empty);
    Ok(Some(value).filter(|_| !is_empty))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_may_be_json_text_at_every_level() {
        let call = json!({"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}});
        let function = call["function"].to_string();
        for value in [
            json!([call]),
            json!(json!([call]).to_string()),
            json!([call.to_string()]),
            json!(call),
            json!([{"id": "1", "type": "function", "function": function}]),
        ] {
            assert_eq!(call_list(&value, "calls").unwrap(), std::slice::from_ref(&call), "{value}");
        }
        for nothing in [json!(null), json!(""), json!("null"), json!("[]"), json!([])] {
            assert!(call_list(&nothing, "calls").unwrap().is_empty(), "{nothing}");
        }
    }

    #[test]
    fn what_is_no_call_is_named() {
        let problem = |value: Value| call_list(&value, "messages[1].tool_calls").unwrap_err().problem;
        let text = problem(json!("[{'name': 'f'}]"));
        assert!(
            text.starts_with("the field `messages[1].tool_calls` is the string `[{'name': 'f'}]`, which is not JSON: ")
        );
        assert_eq!(problem(json!([{"id": 1}])), "the field `messages[1].tool_calls[0]` has no name of a function");
        assert!(
            problem(json!([3])).starts_with("the field `messages[1].tool_calls[0]` is `3`, accepted is a tool call")
        );
    }

    #[test]
    fn definitions_may_be_json_text_at_every_level() {
        let parameters = json!({"type": "object", "properties": {"city": {"type": "string"}}});
        let tool = |parameters: Value| json!({"type": "function", "function": {"name": "f", "parameters": parameters}});
        let wanted = json!([tool(parameters.clone())]);
        for value in [
            wanted.clone(),
            json!(wanted.to_string()),
            json!([tool(json!(parameters.to_string()))]),
            json!([wanted[0].to_string()]),
            json!([{"type": "function", "function": wanted[0]["function"].to_string()}]),
            json!([tool(json!({"type": "object", "properties": parameters["properties"].to_string()}))]),
            wanted[0].clone(),
            json!([{"type": "function", "strict": null, "function": {"name": "f", "parameters": {
                "type": "object", "properties": {"city": {"type": "string"}, "day": null}}}}]),
        ] {
            assert_eq!(tools_of(&value, "tools").unwrap(), Some(wanted.clone()), "{value}");
        }
        let flat = json!([{"name": "f", "parameters": parameters.to_string()}]);
        assert_eq!(tools_of(&flat, "tools").unwrap(), Some(json!([{"name": "f", "parameters": parameters}])));
        assert_eq!(tools_of(&json!("[]"), "tools"), Ok(None));
        assert!(tools_of(&json!("no"), "tools").unwrap_err().problem.contains("which is not JSON"));
    }
}
