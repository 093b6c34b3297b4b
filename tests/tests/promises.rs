//! What the pages promise: configurations and keys of docs/MIGRATING.md work, tests of docs/VERIFICATION.md exist.

use std::path::Path;

use clinch::config::{Config, schema};
use serde_json::Value;

fn page() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/MIGRATING.md");
    std::fs::read_to_string(path).expect("the page is there")
}

/// The blocks of TOML on the page.
fn blocks(page: &str) -> Vec<String> {
    let mut parts = page.split("```toml\n").skip(1);
    let mut found = Vec::new();
    for part in &mut parts {
        let (block, _) = part.split_once("```").expect("a block that ends");
        found.push(block.to_owned());
    }
    found
}

/// The keys written as `table.key`, in backquotes.
fn keys(page: &str) -> Vec<(String, String)> {
    let tables = ["ocsp", "egress", "listen", "site", "timeouts", "limits"];
    let quoted = page.split('`').skip(1).step_by(2);
    let pairs = quoted.filter_map(|text| text.split_once('.'));
    let is_key = |key: &str| key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    pairs
        .filter(|(table, key)| tables.contains(table) && is_key(key))
        .map(|(table, key)| (table.to_owned(), key.to_owned()))
        .collect()
}

/// Whether a key is anywhere in a part of the schema.
fn knows(schema: &Value, key: &str) -> bool {
    let here = schema["properties"].get(key).is_some();
    here || match schema {
        Value::Object(map) => map.values().any(|inner| knows(inner, key)),
        Value::Array(list) => list.iter().any(|inner| knows(inner, key)),
        _ => false,
    }
}

#[test]
fn every_configuration_on_the_page_is_taken() {
    let page = page();
    let blocks = blocks(&page);
    assert!(blocks.len() >= 9, "only {} configurations", blocks.len());
    for block in blocks {
        let mut whole = block.clone();
        if !block.contains("[listen.") {
            whole.push_str("\n[listen.public]\naddress = \"0.0.0.0:443\"\n");
        }
        if !block.contains("[[site]]") {
            whole.push_str("\n[[site]]\nnames = \"a.example\"\ncert = \"/a.pem\"\nkey = \"/a.key\"\nbackend = \"127.0.0.1:80\"\n");
        }
        if let Err(error) = Config::parse(&whole) {
            panic!("{error}\nin:\n{block}");
        }
    }
}

#[test]
fn every_key_on_the_page_exists() {
    let page = page();
    let keys = keys(&page);
    assert!(keys.len() > 100, "only {} keys", keys.len());
    let schema = schema();
    for (table, key) in keys {
        let part = &schema["properties"][&table];
        assert!(knows(part, &key), "there is no key {table}.{key}");
    }
}

#[test]
fn every_server_of_the_plan_is_on_the_page() {
    let page = page();
    for server in [
        "nginx", "Apache", "HAProxy", "Caddy", "Envoy", "Ferron", "Dwaar",
    ] {
        assert!(page.contains(&format!("\n## {server}")), "{server}");
    }
}

#[test]
fn every_test_named_by_the_page_on_verification_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = std::fs::read_to_string(root.join("docs/VERIFICATION.md")).expect("it is there");
    let mut sources = String::new();
    let mut folders = vec![
        root.join("terminator/tests"),
        root.join("terminator/src/ocsp"),
    ];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder of source") {
            let path = entry.expect("readable").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|kind| kind == "rs") {
                sources.push_str(&std::fs::read_to_string(path).expect("readable"));
            }
        }
    }
    let quoted = page.split('`').skip(1).step_by(2);
    let is_claim = |text: &&str| {
        text.matches('_').count() > 1
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    };
    let claims: Vec<&str> = quoted.filter(is_claim).collect();
    assert!(claims.len() > 40, "only {} tests", claims.len());
    for claim in claims {
        assert!(sources.contains(&format!("fn {claim}(")), "no test {claim}");
    }
}
