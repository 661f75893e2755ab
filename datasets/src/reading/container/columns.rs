//! Arrow columns to JSON values, row by row.
//!
//! Fields of a type that no format can use (bytes, dates, decimals ...) are left out of the row, on their own: what lies
//! beside them in a column or a struct stays. Null fields of structs are left out too: Arrow fills in what other rows
//! have, JSON does not.

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type,
    UInt32Type, UInt64Type,
};
use arrow_array::{Array, RecordBatch, downcast_dictionary_array};
use arrow_schema::{DataType, FieldRef, Fields};
use serde_json::{Map, Value};

use crate::reading::row::RowProblem;

/// Deepest nesting of Arrow types that is followed.
const MAX_DEPTH: usize = 32;

/// The row `index` of a batch.
pub(super) fn row(batch: &RecordBatch, index: usize) -> Result<Map<String, Value>, RowProblem> {
    let schema = batch.schema_ref();
    let mut columns = Map::new();
    for (field, array) in schema.fields().iter().zip(batch.columns()) {
        if is_known(array.data_type(), 0) {
            columns.insert(field.name().clone(), value(array.as_ref(), index, 0)?);
        }
    }
    Ok(columns)
}

/// The fields that are left out, with their types: `` `messages[].sent` (timestamp) ``.
pub(super) fn unread(fields: &Fields) -> Vec<String> {
    let mut names = Vec::new();
    unread_below(fields, "", 0, &mut names);
    names
}

/// Adds the fields left out of a struct that is called `prefix` and lies in `depth` others.
fn unread_below(fields: &Fields, prefix: &str, depth: usize, names: &mut Vec<String>) {
    for field in fields {
        let mut name = format!("{prefix}{}", field.name());
        let (mut data_type, mut depth) = (field.data_type(), depth);
        loop {
            data_type = match data_type {
                DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
                    name.push_str("[]");
                    item.data_type()
                }
                DataType::Dictionary(_, values) => values,
                DataType::Map(entries, _) => match entries.data_type() {
                    DataType::Struct(pair) if pair.len() == 2 && is_key(pair[0].data_type()) => {
                        name.push_str("{}");
                        pair[1].data_type()
                    }
                    _ => break,
                },
                _ => break,
            };
            depth += 1;
        }
        match data_type {
            DataType::Struct(below) if depth <= MAX_DEPTH => {
                unread_below(below, &format!("{name}."), depth + 1, names);
            }
            other if !is_known(other, depth) => names.push(format!("`{name}` ({})", described(other))),
            _ => {}
        }
    }
}

/// A type in a word or two.
fn described(data_type: &DataType) -> String {
    match data_type {
        DataType::Timestamp(..) => "timestamp".to_owned(),
        DataType::Date32 | DataType::Date64 => "date".to_owned(),
        DataType::Time32(_) | DataType::Time64(_) => "time".to_owned(),
        DataType::Duration(_) | DataType::Interval(_) => "duration".to_owned(),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            "bytes".to_owned()
        }
        DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal128(..) | DataType::Decimal256(..) => {
            "decimal".to_owned()
        }
        DataType::Union(..) => "union".to_owned(),
        DataType::ListView(_) | DataType::LargeListView(_) => "list view".to_owned(),
        DataType::RunEndEncoded(..) => "run-end encoded".to_owned(),
        DataType::Map(..) => "map".to_owned(),
        DataType::Struct(_) => "nested too deeply".to_owned(),
        other => other.to_string(),
    }
}

/// True if values of this type can be the keys of an object.
fn is_key(data_type: &DataType) -> bool {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Dictionary(_, values) => is_key(values),
        other => other.is_integer(),
    }
}

/// True if values of this type can be written as JSON; of structs the fields that can.
fn is_known(data_type: &DataType, depth: usize) -> bool {
    match data_type {
        _ if depth > MAX_DEPTH => false,
        DataType::Null | DataType::Boolean | DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Float16 | DataType::Float32 | DataType::Float64 | DataType::Struct(_) => true,
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            is_known(item.data_type(), depth + 1)
        }
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(pair) => {
                pair.len() == 2 && is_key(pair[0].data_type()) && is_known(pair[1].data_type(), depth + 1)
            }
            _ => false,
        },
        DataType::Dictionary(_, values) => is_known(values, depth + 1),
        other => other.is_integer(),
    }
}

/// The value `index` of an array that lies in `depth` others.
fn value(array: &dyn Array, index: usize, depth: usize) -> Result<Value, RowProblem> {
    if index >= array.len() {
        return Err(RowProblem::new("a column is shorter than the others", "make the file again"));
    }
    if array.is_null(index) {
        return Ok(Value::Null);
    }
    macro_rules! number {
        ($type:ty) => {
            Value::from(array.as_primitive::<$type>().value(index))
        };
    }
    Ok(match array.data_type() {
        DataType::Boolean => Value::Bool(array.as_boolean().value(index)),
        DataType::Int8 => number!(Int8Type),
        DataType::Int16 => number!(Int16Type),
        DataType::Int32 => number!(Int32Type),
        DataType::Int64 => number!(Int64Type),
        DataType::UInt8 => number!(UInt8Type),
        DataType::UInt16 => number!(UInt16Type),
        DataType::UInt32 => number!(UInt32Type),
        DataType::UInt64 => number!(UInt64Type),
        DataType::Float16 => Value::from(array.as_primitive::<Float16Type>().value(index).to_f64()),
        DataType::Float32 => number!(Float32Type),
        DataType::Float64 => number!(Float64Type),
        DataType::Utf8 => Value::from(array.as_string::<i32>().value(index)),
        DataType::LargeUtf8 => Value::from(array.as_string::<i64>().value(index)),
        DataType::Utf8View => Value::from(array.as_string_view().value(index)),
        DataType::List(_) => list(array.as_list::<i32>().value(index).as_ref(), depth + 1)?,
        DataType::LargeList(_) => list(array.as_list::<i64>().value(index).as_ref(), depth + 1)?,
        DataType::FixedSizeList(..) => list(array.as_fixed_size_list().value(index).as_ref(), depth + 1)?,
        DataType::Struct(fields) => {
            let structure = array.as_struct();
            let mut object = Map::new();
            let known = |(field, _): &(&FieldRef, _)| is_known(field.data_type(), depth + 1);
            for (field, column) in fields.iter().zip(structure.columns()).filter(known) {
                let value = value(column.as_ref(), index, depth + 1)?;
                if !value.is_null() {
                    object.insert(field.name().clone(), value);
                }
            }
            Value::Object(object)
        }
        DataType::Map(..) => {
            let entries = array.as_map().value(index);
            let mut object = Map::new();
            for entry in 0..entries.len() {
                let key = match value(entries.column(0).as_ref(), entry, depth + 1)? {
                    Value::String(key) => key,
                    other => other.to_string(),
                };
                object.insert(key, value(entries.column(1).as_ref(), entry, depth + 1)?);
            }
            Value::Object(object)
        }
        DataType::Dictionary(..) => downcast_dictionary_array! {
            array => match array.key(index) {
                Some(key) => value(array.values().as_ref(), key, depth + 1)?,
                None => Value::Null,
            },
            _ => Value::Null
        },
        _ => Value::Null,
    })
}

fn list(items: &dyn Array, depth: usize) -> Result<Value, RowProblem> {
    (0..items.len()).map(|item| value(items, item, depth)).collect::<Result<Vec<_>, _>>().map(Value::Array)
}
