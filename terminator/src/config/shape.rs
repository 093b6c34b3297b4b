//! Checks a document against the JSON Schema that `clinch schema` prints: keys, types, accepted
//! words, ranges. So the schema never promises what the parser does not keep, and all mistakes of
//! this kind are found at once. Knows the part of JSON Schema that schemars writes for
//! [`super::raw`], plus `x-minimum` and `x-maximum` for durations.

use schemars::generate::SchemaSettings;
use schemars::transform::{RecursiveTransform, Transform};
use serde_json::Value;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::document::{Document, Path};
use super::problem::{Fault, Problem, nearest};
use super::raw::File;

/// The JSON Schema of the configuration file, without references.
pub fn schema() -> Value {
    let mut settings = SchemaSettings::draft2020_12();
    settings.inline_subschemas = true;
    let mut schema = settings.into_generator().into_root_schema_for::<File>();
    RecursiveTransform(without_null as fn(&mut schemars::Schema)).transform(&mut schema);
    schema.insert("title".to_owned(), "clinch configuration".into());
    schema.to_value()
}

/// Everything in the document that does not fit the schema.
pub(super) fn check(document: &Document<'_>) -> Vec<Problem> {
    let schema = schema();
    let mut checker = Checker {
        document,
        problems: Vec::new(),
    };
    checker.table(&Path::default(), document.root().get_ref(), &schema);
    checker.problems
}

/// TOML has no null: a key is there or it is not.
fn without_null(schema: &mut schemars::Schema) {
    let Some(object) = schema.as_object_mut() else {
        return;
    };
    match object.get_mut("default") {
        Some(Value::Null) => drop(object.remove("default")),
        Some(Value::Object(table)) => table.retain(|_, value| !value.is_null()),
        _ => {}
    }
    if let Some(Value::Array(types)) = object.get_mut("type") {
        types.retain(|kind| kind != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            object.insert("type".to_owned(), only);
        }
    }
    if let Some(Value::Array(forms)) = object.get_mut("anyOf") {
        forms.retain(|form| form["type"] != "null");
        if let [Value::Object(only)] = forms.as_slice() {
            let only = only.clone();
            object.remove("anyOf");
            // What is said about the key stands before what is said about the type.
            for (key, value) in only {
                object.entry(key).or_insert(value);
            }
        }
    }
}

struct Checker<'d, 't> {
    document: &'d Document<'t>,
    problems: Vec<Problem>,
}

impl Checker<'_, '_> {
    fn report(&mut self, path: &Path, fault: Fault) {
        self.problems.push(self.document.problem(path, fault));
    }

    fn value(&mut self, path: &Path, value: &Spanned<DeValue<'_>>, schema: &Value) {
        let Some(schema) = form_for(value.get_ref(), schema) else {
            let fault = Fault::WrongType {
                found: describe(value.get_ref()),
                expected: expected(schema),
            };
            return self.report(path, fault);
        };
        match value.get_ref() {
            DeValue::Table(table) => self.table(path, table, schema),
            DeValue::Array(list) => self.list(path, list, schema),
            DeValue::String(text) => self.text(path, text, schema),
            DeValue::Integer(number) => {
                let parsed = i64::from_str_radix(number.as_str(), number.radix());
                self.number(path, parsed.map_or(f64::INFINITY, |n| n as f64), schema);
            }
            DeValue::Float(number) => {
                let parsed = number.as_str().parse().unwrap_or(f64::NAN);
                self.number(path, parsed, schema);
            }
            DeValue::Boolean(_) | DeValue::Datetime(_) => {}
        }
    }

    fn table(&mut self, path: &Path, table: &DeTable<'_>, schema: &Value) {
        let known = &schema["properties"];
        let any = schema.get("additionalProperties").filter(|s| s.is_object());
        for (key, value) in table.iter() {
            let name = key.get_ref().as_ref();
            match known.get(name).or(any) {
                Some(schema) => self.value(&path.key(name), value, schema),
                None => {
                    let known = keys(known);
                    let fault = Fault::UnknownKey {
                        key: name.to_owned(),
                        table: path.header(),
                        nearest: nearest(name, &known),
                        known,
                    };
                    self.report(&path.key(name), fault);
                }
            }
        }
        for required in strings(&schema["required"]) {
            if !table.contains_key(required) {
                let fault = Fault::MissingKey {
                    key: required.to_owned(),
                    table: path.header(),
                };
                self.report(path, fault);
            }
        }
    }

    fn list(&mut self, path: &Path, list: &[Spanned<DeValue<'_>>], schema: &Value) {
        if (list.len() as u64) < schema["minItems"].as_u64().unwrap_or(0) {
            let fault = Fault::OutOfRange {
                value: "an empty list".to_owned(),
                range: "at least one entry, or leave the key out".to_owned(),
            };
            self.report(path, fault);
        }
        for (index, value) in list.iter().enumerate() {
            self.value(&path.index(index), value, &schema["items"]);
        }
    }

    fn text(&mut self, path: &Path, text: &str, schema: &Value) {
        if let (Some(min), Some(max)) = (schema["x-minimum"].as_str(), schema["x-maximum"].as_str())
        {
            return self.duration(path, text, min, max);
        }
        let accepted = words(schema);
        if !accepted.is_empty() && !accepted.iter().any(|word| word == text) {
            let fault = Fault::NotAccepted {
                value: text.to_owned(),
                nearest: nearest(text, &accepted),
                accepted,
            };
            self.report(path, fault);
        } else if text.is_empty() && schema["minLength"].as_u64().is_some_and(|n| n > 0) {
            let fault = Fault::OutOfRange {
                value: "an empty string".to_owned(),
                range: "at least one character, or leave the key out".to_owned(),
            };
            self.report(path, fault);
        }
    }

    fn duration(&mut self, path: &Path, text: &str, min: &str, max: &str) {
        let bound =
            |text| humantime::parse_duration(text).expect("a bound in raw.rs is a duration");
        match humantime::parse_duration(text) {
            Err(_) => self.report(path, Fault::NotADuration(text.to_owned())),
            Ok(duration) if (bound(min)..=bound(max)).contains(&duration) => {}
            Ok(_) => {
                let fault = Fault::OutOfRange {
                    value: format!("\"{text}\""),
                    range: format!("a duration from \"{min}\" to \"{max}\""),
                };
                self.report(path, fault);
            }
        }
    }

    fn number(&mut self, path: &Path, number: f64, schema: &Value) {
        let min = schema["minimum"].as_f64().unwrap_or(f64::NEG_INFINITY);
        let max = schema["maximum"].as_f64().unwrap_or(f64::INFINITY);
        // Written so that NaN is out of range as well.
        if number.is_finite() && number >= min && number <= max {
            return;
        }
        let fault = Fault::OutOfRange {
            value: number.to_string(),
            range: format!("a number from {min} to {max}"),
        };
        self.report(path, fault);
    }
}

/// The form of the schema that a value is in; `None` where it is in none of them.
fn form_for<'s>(value: &DeValue<'_>, schema: &'s Value) -> Option<&'s Value> {
    match schema["anyOf"].as_array() {
        Some(forms) => forms.iter().find(|form| accepts(form, value)),
        None => accepts(schema, value).then_some(schema),
    }
}

fn accepts(schema: &Value, value: &DeValue<'_>) -> bool {
    if let Some(only) = schema.get("const").and_then(Value::as_bool) {
        return value.as_bool() == Some(only);
    }
    let kind = match value {
        DeValue::String(_) => "string",
        DeValue::Integer(_) => "integer",
        DeValue::Float(_) => "number",
        DeValue::Boolean(_) => "boolean",
        DeValue::Array(_) => "array",
        DeValue::Table(_) => "object",
        DeValue::Datetime(_) => return false,
    };
    let wanted = schema["type"].as_str().unwrap_or_else(|| {
        // An enumeration of documented words has its type in each of them.
        schema["oneOf"][0]["type"].as_str().unwrap_or_default()
    });
    wanted == kind || (wanted == "number" && kind == "integer")
}

/// What a schema takes, in words.
pub(super) fn expected(schema: &Value) -> String {
    if let Some(forms) = schema["anyOf"].as_array() {
        let forms: Vec<String> = forms.iter().map(expected).collect();
        return forms.join(" or ");
    }
    if let Some(only) = schema.get("const") {
        return only.to_string();
    }
    if schema.get("x-minimum").is_some() {
        return "a duration such as \"5s\"".to_owned();
    }
    match schema["type"].as_str() {
        Some("integer") => "a whole number",
        Some("number") => "a number",
        Some("boolean") => "true or false",
        Some("array") if schema["items"]["type"] == "object" => "an array of tables",
        Some("array") => "a list such as [\"…\"]",
        Some("object") => "a table",
        _ => "a string",
    }
    .to_owned()
}

fn describe(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(true) => "true",
        DeValue::Boolean(false) => "false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// The words that a schema of strings accepts; empty where any will do.
pub(super) fn words(schema: &Value) -> Vec<String> {
    let plain = strings(&schema["enum"]);
    let documented = schema["oneOf"].as_array().into_iter().flatten();
    let documented = documented.flat_map(|form| {
        form["const"]
            .as_str()
            .into_iter()
            .chain(strings(&form["enum"]))
    });
    plain.chain(documented).map(str::to_owned).collect()
}

pub(super) fn strings(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
}

fn keys(properties: &Value) -> Vec<String> {
    let properties = properties.as_object().into_iter().flatten();
    properties.map(|(key, _)| key.clone()).collect()
}
