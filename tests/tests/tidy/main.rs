//! The rules of the house that a compiler does not check, held against every file of the
//! repository. The rules themselves are in [`rules`], with tests that they can be broken.

mod rules;
mod source;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use rules::{Floors, Module};
use source::Source;

/// The repository's root.
fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().expect("tests/ has a parent").to_owned()
}

fn architecture() -> String {
    fs::read_to_string(root().join("docs/ARCHITECTURE.md")).expect("docs/ARCHITECTURE.md")
}

/// Every Rust file under the named folders, with its path from the root.
fn sources(folders: &[&str]) -> Vec<(PathBuf, Source)> {
    let mut found = Vec::new();
    for folder in folders {
        visit(&root().join(folder), &mut |path| {
            if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(path).expect("a source file is text");
                let path = path.strip_prefix(root()).expect("under the root");
                found.push((path.to_owned(), Source::new(&text)));
            }
        });
    }
    assert!(!found.is_empty(), "no source under {folders:?}");
    found
}

fn visit(folder: &Path, file: &mut impl FnMut(&Path)) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries {
        let path = entry.expect("a readable folder").path();
        match path.is_dir() {
            true if path.ends_with("target") => {}
            true => visit(&path, file),
            false => file(&path),
        }
    }
}

/// Every page of documentation, with its path from the root.
fn pages() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    visit(&root(), &mut |path| {
        if path.extension().is_some_and(|extension| extension == "md") {
            let text = fs::read_to_string(path).expect("a page is text");
            found.push((path.to_owned(), text));
        }
    });
    assert!(found.len() > 5, "pages are found");
    found
}

/// Fails with everything that is wrong, not with the first of it.
fn assert_none(rule: &str, broken: Vec<String>) {
    assert!(broken.is_empty(), "{rule}:\n  {}\n", broken.join("\n  "));
}

const CODE: [&str; 5] = ["terminator", "ebpf", "bench", "tests", "appliance-image"];

#[test]
fn no_module_imports_from_a_floor_above_its_own() {
    let floors = Floors::parse(&architecture());
    let mut broken = Vec::new();
    for (path, source) in sources(&["terminator/src"]) {
        let inside = path.strip_prefix("terminator/src").expect("under it");
        let Some(module) = Module::of(inside) else {
            continue;
        };
        for fault in floors.faults(&module, &source) {
            broken.push(format!("{}: {fault}", path.display()));
        }
    }
    assert_none(
        "an import that the floors in docs/ARCHITECTURE.md forbid",
        broken,
    );
}

#[test]
fn every_top_level_module_has_a_floor() {
    let floors = Floors::parse(&architecture());
    let mut broken = Vec::new();
    for (path, _) in sources(&["terminator/src"]) {
        let inside = path.strip_prefix("terminator/src").expect("under it");
        if let Some(module) = Module::of(inside)
            && floors.floor(module.top()).is_none()
        {
            broken.push(path.display().to_string());
        }
    }
    assert_none("a module without a floor in docs/ARCHITECTURE.md", broken);
}

#[test]
fn unsafe_code_stands_in_sys_alone() {
    let may = |path: &Path| {
        let may = ["terminator/src/sys", "ebpf/programs", "ebpf/abi"];
        may.iter().any(|folder| path.starts_with(folder))
    };
    let broken = sources(&CODE)
        .into_iter()
        .filter(|(path, source)| !may(path) && source.has_word("unsafe"))
        .map(|(path, _)| path.display().to_string())
        .collect();
    assert_none("unsafe outside terminator/src/sys", broken);
}

#[test]
fn every_source_file_opens_with_what_it_is() {
    let broken = sources(&CODE)
        .into_iter()
        .filter(|(_, source)| !source.opens_with_docs())
        .map(|(path, _)| path.display().to_string())
        .collect();
    assert_none("a file that does not open with //! and a sentence", broken);
}

#[test]
fn every_log_event_is_on_the_operations_page() {
    let page = fs::read_to_string(root().join("docs/OPERATIONS.md")).expect("a page");
    let mut events = BTreeSet::new();
    visit(&root().join("terminator/src"), &mut |path| {
        let text = fs::read_to_string(path).unwrap_or_default();
        let named = text.split("event = \"").skip(1);
        events.extend(named.filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())));
    });
    assert!(
        events.contains("ocsp_cached"),
        "events are found: {events:?}"
    );
    let unknown = |event: &String| !page.contains(&format!("`{event}`"));
    let broken = events.into_iter().filter(unknown).collect();
    assert_none(
        "a log event that docs/OPERATIONS.md does not explain",
        broken,
    );
}

#[test]
fn every_folder_of_source_is_on_the_architecture_page() {
    let page = architecture();
    let mut folders = BTreeSet::new();
    for (path, _) in sources(&CODE) {
        let parent = path.parent().expect("a file has a folder");
        for folder in parent.ancestors() {
            folders.insert(folder.display().to_string());
        }
    }
    let broken = folders
        .into_iter()
        .filter(|folder| !rules::is_listed(&page, folder))
        .collect();
    assert_none("a folder that docs/ARCHITECTURE.md does not name", broken);
}

#[test]
fn no_source_file_is_over_600_lines() {
    let broken = sources(&CODE)
        .into_iter()
        .filter(|(_, source)| source.lines() > 600)
        .map(|(path, source)| format!("{}: {} lines", path.display(), source.lines()))
        .collect();
    assert_none("a file that is too long to be read in one go", broken);
}

#[test]
fn no_module_has_a_name_that_says_nothing() {
    let broken = sources(&CODE)
        .into_iter()
        .filter(|(path, _)| rules::says_nothing(path))
        .map(|(path, _)| path.display().to_string())
        .collect();
    assert_none("a module named util, common, misc or helpers", broken);
}

#[test]
fn nothing_is_left_for_later() {
    let broken = sources(&CODE)
        .into_iter()
        .flat_map(|(path, source)| {
            let calls = ["todo", "unimplemented"].into_iter();
            let found = calls.filter(move |name| source.calls_macro(name));
            found.map(move |name| format!("{}: {name}!", path.display()))
        })
        .collect();
    assert_none("a body that is not written yet", broken);
}

#[test]
fn every_link_between_pages_leads_somewhere() {
    let mut broken = Vec::new();
    for (path, text) in pages() {
        let folder = path.parent().expect("a file has a folder");
        for link in rules::local_links(&text) {
            if !folder.join(link).exists() {
                broken.push(format!("{}: {link}", path.display()));
            }
        }
    }
    assert_none("a link to nothing", broken);
}

#[test]
fn the_top_level_folders_are_those_of_the_plan() {
    let entries = fs::read_dir(root()).expect("the root is readable");
    let folders: Vec<String> = entries
        .map(|entry| entry.expect("a readable entry"))
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    assert_none("top-level folders", rules::wrong_folders(&folders));
}
