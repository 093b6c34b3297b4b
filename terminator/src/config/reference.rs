//! The configuration reference as Markdown, made from the schema: `docs/CONFIGURATION.md`.

use std::fmt::Write;

use serde_json::Value;

use super::shape::{expected, schema, strings, words};

/// The text of `docs/CONFIGURATION.md`.
pub fn reference() -> String {
    let schema = schema();
    let mut page = String::from(HEAD);
    push(&mut page, &format!("\n{}\n", paragraphs(&schema)));
    push(&mut page, EXAMPLE);
    push(&mut page, "\n## Top level\n\n");
    let mut sections = Vec::new();
    for (key, value) in properties(&schema) {
        match section(key, value) {
            Some(table) => sections.push((key, table)),
            None => entry(&mut page, key, value, &schema),
        }
    }
    let rank = |key: &str| ORDER.iter().position(|known| *known == key);
    sections.sort_by_key(|(key, _)| rank(key).unwrap_or(ORDER.len()));
    for (_, (title, table, text)) in sections {
        table_section(&mut page, &title, table, &text);
    }
    page
}

fn table_section(page: &mut String, title: &str, table: &Value, text: &str) {
    push(page, &format!("\n## `{title}`\n\n{text}\n\n"));
    let mut inner = Vec::new();
    for (key, value) in properties(table) {
        entry(page, key, value, table);
        if value["items"]["properties"].is_object() {
            let name = title.trim_matches(['[', ']']);
            let text = paragraphs(&value["items"]);
            inner.push((format!("[[{name}.{key}]]"), &value["items"], text));
        }
    }
    for (title, table, text) in inner {
        table_section(page, &title, table, &text);
    }
}

/// Title, schema and text of a key that is a table of its own, in one of TOML's forms.
fn section<'s>(key: &str, value: &'s Value) -> Option<(String, &'s Value, String)> {
    let text = paragraphs(value);
    if value["properties"].is_object() {
        Some((format!("[{key}]"), value, text))
    } else if value["additionalProperties"]["properties"].is_object() {
        Some((
            format!("[{key}.NAME]"),
            &value["additionalProperties"],
            text,
        ))
    } else if value["items"]["properties"].is_object() {
        Some((format!("[[{key}]]"), &value["items"], text))
    } else {
        None
    }
}

fn entry(page: &mut String, key: &str, value: &Value, table: &Value) {
    let mut facts = vec![takes(value)];
    if let Some(range) = range(value) {
        facts.push(range);
    }
    if strings(&table["required"]).any(|required| required == key) {
        facts.push("required".to_owned());
    } else if let Some(default) = value.get("default") {
        facts.push(format!("default `{default}`"));
    }
    let facts = facts.join("; ");
    push(
        page,
        &format!("- **`{key}`** ({facts}). {}\n", paragraphs(value)),
    );
}

fn takes(value: &Value) -> String {
    let of_list = words(&value["items"]);
    let own = words(value);
    let quoted = |words: &[String]| {
        let words: Vec<String> = words.iter().map(|word| format!("`\"{word}\"`")).collect();
        words.join(", ")
    };
    if !own.is_empty() {
        format!("one of {}", quoted(&own))
    } else if !of_list.is_empty() {
        format!("a list of {}", quoted(&of_list))
    } else if value.get("x-minimum").is_some() {
        "a duration".to_owned()
    } else {
        expected(value)
    }
}

fn range(value: &Value) -> Option<String> {
    let (from, to) = match (value.get("x-minimum"), value.get("x-maximum")) {
        (Some(from), Some(to)) => (from, to),
        _ => (value.get("minimum")?, value.get("maximum")?),
    };
    Some(format!("`{from}` to `{to}`"))
}

/// A description with its lines joined; paragraphs stay apart.
fn paragraphs(value: &Value) -> String {
    let text = value["description"].as_str().unwrap_or_default();
    let joined: Vec<String> = text.split("\n\n").map(|p| p.replace('\n', " ")).collect();
    joined.join("\n\n")
}

fn properties(table: &Value) -> impl Iterator<Item = (&String, &Value)> {
    table["properties"].as_object().into_iter().flatten()
}

fn push(page: &mut String, text: &str) {
    page.write_str(text).expect("a string takes every text");
}

const HEAD: &str = "\
# Configuration

<!-- Made by `clinch schema --markdown` from terminator/src/config/raw.rs. Edit there. -->
";

const EXAMPLE: &str = r#"
```toml
user = "clinch"

[listen.public]
address = ["0.0.0.0:443", "[::]:443"]

[[site]]
names   = ["example.com", "*.example.com"]
cert    = "/etc/clinch/example.com.pem"      # leaf first, then issuer
key     = "/etc/clinch/example.com.key"      # mode 600
backend = ["10.0.0.5:8080", "unix:/run/app.sock"]
proxy_protocol = "v2"
```
"#;

/// Tables in the order in which they are explained; others follow.
const ORDER: [&str; 8] = [
    "listen", "site", "ocsp", "timeouts", "limits", "admin", "log", "egress",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_is_a_valid_configuration() {
        let toml = EXAMPLE
            .trim()
            .trim_start_matches("```toml")
            .trim_end_matches("```");
        crate::config::Config::parse(toml).expect("valid");
    }

    #[test]
    fn the_kept_page_is_the_generated_one() {
        let kept = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/CONFIGURATION.md");
        let kept = std::fs::read_to_string(kept).expect("docs/CONFIGURATION.md is there");
        assert!(
            kept == reference(),
            "docs/CONFIGURATION.md is stale: clinch schema --markdown > docs/CONFIGURATION.md"
        );
    }
}
