//! Jinja's filters, tests and globals, where minijinja lacks one or does otherwise.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use fancy_regex::Regex;
use minijinja::formatting::FormatStyle;
use minijinja::functions::dict;
use minijinja::value::{Kwargs, Object, ObjectRepr, Rest, StringInput, ValueKind, ValueOrKwargs, from_args};
use minijinja::{Environment, Error, ErrorKind, State, Value};

use super::counted::{Shape, counted, is_tuple, printable, shape, shaped};
use super::json::{JsonStyle, key_of, to_json};
use super::methods::formatted;
use super::python::{Repr, as_float, parse_float, parse_int};

/// Adds them to an environment.
pub(super) fn add_to(environment: &mut Environment<'static>) {
    environment.add_filter("printable", printable);
    environment.add_filter("modulo", modulo);
    environment.add_filter("tojson", tojson);
    environment.add_filter("string", |value: Value| match printable(value) {
        text if text.as_str().is_some() => text,
        other => Value::from(other.to_string()),
    });
    environment.add_filter("join", join);
    environment.add_filter("int", int);
    environment.add_filter("float", float);
    environment.add_filter("attr", attr);
    for name in ["default", "d"] {
        environment.add_filter(name, default);
    }
    for name in ["escape", "e"] {
        environment.add_filter(name, |value: Value| if value.is_safe() { value } else { escaped(&value) });
    }
    environment.add_filter("forceescape", |value: Value| escaped(&value));
    environment.add_filter("wordcount", wordcount);
    environment.add_filter("truncate", truncate);
    environment.add_filter("center", center);
    environment.add_filter("urlencode", urlencode);
    environment.add_filter("filesizeformat", filesizeformat);
    environment.add_filter("indent", indent);
    environment.add_filter("pprint", pprint);
    environment.add_test("callable", |value: &Value| value.kind() == ValueKind::Plain && value.as_object().is_some());
    environment.add_test("sequence", is_sequence);
    environment.add_function("dict", python_dict);
    environment.add_function("range", |start: isize, end: Option<isize>, step: Option<isize>| {
        let listed = minijinja::functions::range(start, end, step)?;
        let text = match (end, step) {
            (None, _) => format!("range(0, {start})"),
            (Some(end), None | Some(1)) => format!("range({start}, {end})"),
            (Some(end), Some(step)) => format!("range({start}, {end}, {step})"),
        };
        Ok::<Value, Error>(shaped(listed, Shape::Text(text.into())))
    });
    environment.add_function("cycler", |items: Rest<Value>| {
        if items.is_empty() {
            return Err(wrong("cycler takes at least one value"));
        }
        Ok(Value::from_object(Cycler { items: items.0, place: AtomicUsize::new(0) }))
    });
    environment.add_function("joiner", |separator: Option<Value>| {
        let separator = separator.unwrap_or_else(|| Value::from(", "));
        Value::from_object(Joiner { separator, is_used: AtomicBool::new(false) })
    });
}

/// The remainder as Python's `%` gives it, or a text with values for its `%s`.
fn modulo(state: &State, left: &Value, right: &Value) -> Result<Value, Error> {
    if let Some(text) = left.as_str() {
        let values: Vec<Value> = if is_tuple(right) { right.try_iter()?.collect() } else { vec![right.clone()] };
        return formatted(state, FormatStyle::Printf, text, &values).map(Value::from);
    }
    let whole = |value: &Value| match value.kind() {
        ValueKind::Bool => Some(i128::from(value.is_true())),
        _ if value.is_integer() => i128::try_from(value.clone()).ok(),
        _ => None,
    };
    let any = |value: &Value| whole(value).map(|whole| whole as f64).or_else(|| as_float(value));
    match (whole(left), whole(right), any(left), any(right)) {
        (_, Some(0), ..) => Err(wrong("division by zero")),
        (_, _, _, Some(0.0)) => Err(wrong("division by zero")),
        (Some(left), Some(right), ..) => {
            let rest = left.checked_rem(right).unwrap_or(0);
            let rest = if rest != 0 && (rest < 0) != (right < 0) { rest + right } else { rest };
            Ok(i64::try_from(rest).map_or_else(|_| Value::from(rest), Value::from))
        }
        (_, _, Some(left), Some(right)) => {
            let rest = left % right;
            Ok(Value::from(if rest != 0.0 && (rest < 0.0) != (right < 0.0) { rest + right } else { rest }))
        }
        _ => Err(wrong(format!("tried to use % operator on unsupported types {} and {}", left.kind(), right.kind()))),
    }
}

/// `tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False)`.
fn tojson(value: &Value, options: Kwargs) -> Result<String, Error> {
    if value.is_undefined() {
        return Err(wrong("an undefined value is not JSON serializable"));
    }
    let json = json_of(value)?;
    let style = JsonStyle {
        ascii: options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
        indent: options.get::<Option<usize>>("indent")?,
        separators: options.get::<Option<Vec<String>>>("separators")?,
        sorted: options.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
    };
    options.assert_all_used()?;
    to_json(&json, &style).ok_or_else(|| Error::from(ErrorKind::OutOfFuel))
}

fn json_of(value: &Value) -> Result<serde_json::Value, Error> {
    let plain = |value: &Value| {
        serde_json::to_value(value).map_err(|error| Error::new(ErrorKind::BadSerialization, error.to_string()))
    };
    let Some(object) = value.as_object() else { return plain(value) };
    match value.kind() {
        ValueKind::Map => {
            let pairs = object.try_iter_pairs().into_iter().flatten();
            let entry = |(key, value): (Value, Value)| {
                let key = match key.as_str() {
                    Some(key) => key.to_owned(),
                    None => key_of(&plain(&key)?)
                        .ok_or_else(|| wrong("a key is not a text, a number, a boolean or none"))?,
                };
                Ok((key, json_of(&value)?))
            };
            Ok(serde_json::Value::Object(pairs.map(entry).collect::<Result<_, Error>>()?))
        }
        ValueKind::Seq | ValueKind::Iterable => {
            let items = object.try_iter().into_iter().flatten();
            Ok(serde_json::Value::Array(items.map(|item| json_of(&item)).collect::<Result<_, Error>>()?))
        }
        _ => plain(value),
    }
}

fn join(
    state: &mut State,
    value: &Value,
    separator: Option<StringInput<'_>>,
    attribute: Option<&str>,
    named: Kwargs,
) -> Result<Value, Error> {
    let is_list = matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable);
    if attribute.is_none() && !named.has("attribute") && is_list {
        let items: Vec<Value> = value.try_iter()?.map(printable).collect();
        return minijinja::filters::join(state, &Value::from(items), separator, attribute, named);
    }
    minijinja::filters::join(state, value, separator, attribute, named)
}

fn int(value: &Value, default: Option<Value>, base: Option<u32>, named: Kwargs) -> Result<Value, Error> {
    let default = default.or(named.get::<Option<Value>>("default")?).unwrap_or_else(|| Value::from(0));
    let base = base.or(named.get::<Option<u32>>("base")?).unwrap_or(10);
    named.assert_all_used()?;
    let of_float = |float: f64| if float.is_finite() { Some(Value::from(float.trunc() as i128)) } else { None };
    let read = match value.kind() {
        ValueKind::Undefined => return Err(wrong("int of an undefined value")),
        ValueKind::Bool => Some(Value::from(i64::from(value.is_true()))),
        ValueKind::Number => as_float(value).map_or_else(|| Some(value.clone()), of_float),
        ValueKind::String => {
            let text = value.as_str().unwrap_or_default();
            let whole = parse_int(text, base)
                .map(|whole| i64::try_from(whole).map_or_else(|_| Value::from(whole), Value::from));
            whole.or_else(|| parse_float(text).and_then(of_float))
        }
        _ => None,
    };
    // As small a number as fits, so that it is equal to others of its value.
    let read = read.map(|number| i64::try_from(number.clone()).map_or(number, Value::from));
    Ok(read.unwrap_or(default))
}

fn float(value: &Value, default: Option<Value>, named: Kwargs) -> Result<Value, Error> {
    let default = default.or(named.get::<Option<Value>>("default")?).unwrap_or_else(|| Value::from(0.0));
    named.assert_all_used()?;
    let read = match value.kind() {
        ValueKind::Undefined => return Err(wrong("float of an undefined value")),
        ValueKind::Bool => Some(f64::from(u8::from(value.is_true()))),
        ValueKind::Number => f64::try_from(value.clone()).ok(),
        ValueKind::String => value.as_str().and_then(parse_float),
        _ => None,
    };
    Ok(read.map_or(default, Value::from))
}

/// An attribute, not an item: maps have none.
fn attr(value: &Value, name: &str) -> Result<Value, Error> {
    if value.kind() == ValueKind::Map { Ok(Value::UNDEFINED) } else { value.get_attr(name) }
}

fn default(value: Value, other: Option<Value>, lax: Option<bool>, named: Kwargs) -> Result<Value, Error> {
    let other = other.or(named.get::<Option<Value>>("default_value")?).unwrap_or_else(|| Value::from(""));
    let lax = lax.or(named.get::<Option<bool>>("boolean")?).unwrap_or(false);
    named.assert_all_used()?;
    Ok(if value.is_undefined() || (lax && !value.is_true()) { other } else { value })
}

fn escaped(value: &Value) -> Value {
    let mut text = String::new();
    for letter in printable(value.clone()).to_string().chars() {
        match letter {
            '&' => text.push_str("&amp;"),
            '<' => text.push_str("&lt;"),
            '>' => text.push_str("&gt;"),
            '\'' => text.push_str("&#39;"),
            '"' => text.push_str("&#34;"),
            other => text.push(other),
        }
    }
    Value::from_safe_string(text)
}

fn wordcount(value: Value) -> usize {
    static WORD: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\w+").expect("the pattern is constant and valid"));
    WORD.find_iter(&printable(value).to_string()).count()
}

fn truncate(text: &str, arguments: Rest<ValueOrKwargs>) -> Result<String, Error> {
    type Arguments<'a> = (Option<usize>, Option<bool>, Option<&'a str>, Option<usize>, Kwargs);
    let arguments = arguments.into_values();
    let (length, kill_words, end, leeway, named): Arguments<'_> = from_args(&arguments)?;
    let length = length.or(named.get::<Option<usize>>("length")?).unwrap_or(255);
    let kill_words = kill_words.or(named.get::<Option<bool>>("killwords")?).unwrap_or(false);
    let end = end.map(str::to_owned).or(named.get::<Option<String>>("end")?).unwrap_or_else(|| "...".to_owned());
    let leeway = leeway.or(named.get::<Option<usize>>("leeway")?).unwrap_or(5);
    named.assert_all_used()?;
    let ending = end.chars().count();
    if length < ending {
        return Err(wrong(format!("truncate takes a length of at least {ending}, that of its end")));
    }
    if text.chars().count() <= length.saturating_add(leeway) {
        return Ok(text.to_owned());
    }
    let kept: String = text.chars().take(length - ending).collect();
    let kept = if kill_words { kept.as_str() } else { kept.rsplit_once(' ').map_or(kept.as_str(), |(kept, _)| kept) };
    Ok(format!("{kept}{end}"))
}

fn center(state: &mut State, value: Value, width: Option<usize>) -> Result<Value, Error> {
    let text = Value::from(printable(value).to_string());
    super::methods::python_method(state, &text, "center", &[Value::from(width.unwrap_or(80))])
}

fn urlencode(value: &Value) -> Result<String, Error> {
    let quoted = |value: &Value, in_query: bool| {
        let mut quoted = String::new();
        for byte in printable(value.clone()).to_string().bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'.' | b'-' | b'~' => quoted.push(char::from(byte)),
                b'/' if !in_query => quoted.push('/'),
                b' ' if in_query => quoted.push('+'),
                _ => write!(quoted, "%{byte:02X}").expect("writing to a string cannot fail"),
            }
        }
        quoted
    };
    let pairs: Vec<(Value, Value)> = match (value.kind(), value.as_object()) {
        (ValueKind::Map, Some(object)) => object.try_iter_pairs().into_iter().flatten().collect(),
        (ValueKind::Seq | ValueKind::Iterable, _) => {
            let pair = |pair: Value| Ok((pair.get_item_by_index(0)?, pair.get_item_by_index(1)?));
            value.try_iter()?.map(pair).collect::<Result<_, Error>>()?
        }
        _ => return Ok(quoted(value, false)),
    };
    let pairs: Vec<String> =
        pairs.iter().map(|(key, value)| format!("{}={}", quoted(key, true), quoted(value, true))).collect();
    Ok(pairs.join("&"))
}

fn filesizeformat(value: &Value, binary: Option<bool>) -> Result<String, Error> {
    let number = value.as_str().map_or_else(|| f64::try_from(value.clone()).ok(), parse_float);
    let bytes = number.ok_or_else(|| wrong("filesizeformat takes a number"))?;
    let (base, prefixes): (f64, [&str; 8]) = match binary.unwrap_or(false) {
        true => (1024.0, ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"]),
        false => (1000.0, ["kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"]),
    };
    if bytes == 1.0 {
        return Ok("1 Byte".to_owned());
    }
    if bytes < base {
        return Ok(format!("{} Bytes", bytes.trunc() as i64));
    }
    let units = prefixes.iter().zip(2..).map(|(prefix, power)| (prefix, base.powi(power)));
    let fitting = units.clone().find(|(_, unit)| bytes < *unit).or_else(|| units.last());
    let (prefix, unit) = fitting.ok_or_else(|| wrong("filesizeformat has no unit"))?;
    Ok(format!("{:.1} {prefix}", base * bytes / unit))
}

fn indent(state: &State, text: &str, arguments: Rest<ValueOrKwargs>) -> Result<String, Error> {
    let arguments = arguments.into_values();
    let (width, first, blank, named): (Option<Value>, Option<bool>, Option<bool>, Kwargs) = from_args(&arguments)?;
    let width = width.or(named.get::<Option<Value>>("width")?).unwrap_or_else(|| Value::from(4));
    let first = first.or(named.get::<Option<bool>>("first")?).unwrap_or(false);
    let blank = blank.or(named.get::<Option<bool>>("blank")?).unwrap_or(false);
    named.assert_all_used()?;
    let count = usize::try_from(width.clone()).unwrap_or(0);
    let indent_bytes = width.as_str().map_or(count, str::len);
    // The text gets a line break at its end, which the last line loses again.
    let text = format!("{text}\n");
    let lines: Vec<&str> = text.lines().collect();
    state.consume_fuel(lines.len().saturating_mul(indent_bytes) as u64 / 64)?;
    let indent = width.as_str().map_or_else(|| " ".repeat(count), str::to_owned);
    let indented = |(index, line): (usize, &&str)| {
        let is_indented = if index == 0 { first } else { blank || !line.is_empty() };
        format!("{}{line}", if is_indented { indent.as_str() } else { "" })
    };
    Ok(lines.iter().enumerate().map(indented).collect::<Vec<_>>().join("\n"))
}

/// Values that fit one line, with the keys of maps sorted.
fn pprint(value: Value) -> Result<String, Error> {
    let sorted = match (value.kind(), value.as_object()) {
        (ValueKind::Map, Some(object)) => {
            let mut pairs: Vec<(Value, Value)> = object.try_iter_pairs().into_iter().flatten().collect();
            pairs.sort_by(|(left, _), (right, _)| left.cmp(right));
            counted(Value::from_pairs(pairs))
        }
        _ => value,
    };
    let text = format!("{:?}", Repr(&sorted));
    if text.len() > 80 { Err(wrong("pprint of a value longer than a line is not supported")) } else { Ok(text) }
}

/// What Python can index: texts, lists, maps and ranges.
fn is_sequence(value: &Value) -> bool {
    match value.kind() {
        ValueKind::Seq => !matches!(shape(value), Some(Shape::Items | Shape::Keys | Shape::Values)),
        kind => matches!(kind, ValueKind::String | ValueKind::Map | ValueKind::Undefined),
    }
}

/// `dict` of a map or of pairs.
fn python_dict(value: Option<Value>, more: Kwargs) -> Result<Value, Error> {
    let value = match value {
        Some(pairs) if matches!(pairs.kind(), ValueKind::Seq | ValueKind::Iterable) => {
            let pair = |pair: Value| Ok((pair.get_item_by_index(0)?, pair.get_item_by_index(1)?));
            Some(Value::from_pairs(pairs.try_iter()?.map(pair).collect::<Result<Vec<_>, Error>>()?))
        }
        other => other,
    };
    dict(value, more).map(counted)
}

/// Values in turn, again and again.
#[derive(Debug)]
struct Cycler {
    items: Vec<Value>,
    place: AtomicUsize,
}

impl Object for Cycler {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        (key == "current").then(|| self.items[self.place.load(Ordering::Relaxed)].clone())
    }

    fn call_method(self: &Arc<Self>, _: &mut State<'_, '_>, method: &str, arguments: &[Value]) -> Result<Value, Error> {
        let () = from_args(arguments)?;
        match method {
            "next" => {
                let place = self.place.load(Ordering::Relaxed);
                self.place.store((place + 1) % self.items.len(), Ordering::Relaxed);
                Ok(self.items[place].clone())
            }
            "reset" => {
                self.place.store(0, Ordering::Relaxed);
                Ok(Value::from(()))
            }
            _ => Err(Error::from(ErrorKind::UnknownMethod)),
        }
    }
}

/// Nothing at first, then a separator.
#[derive(Debug)]
struct Joiner {
    separator: Value,
    is_used: AtomicBool,
}

impl Object for Joiner {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn call(self: &Arc<Self>, _: &mut State<'_, '_>, arguments: &[Value]) -> Result<Value, Error> {
        let () = from_args(arguments)?;
        Ok(if self.is_used.swap(true, Ordering::Relaxed) { self.separator.clone() } else { Value::from("") })
    }
}

fn wrong(problem: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, problem.into())
}
