//! What the rules are, apart from the files they are held against.

use std::collections::HashMap;
use std::path::Path;

use crate::source::{Source, words};

/// A module of the terminator, as its path from the crate's root.
#[derive(Debug, PartialEq)]
pub(super) struct Module(Vec<String>);

impl Module {
    /// The module of a file, whose path starts in `src`; `None` for the crate's root.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let mut names: Vec<String> = path
            .with_extension("")
            .iter()
            .map(|part| part.to_string_lossy().into_owned())
            .collect();
        if names.last().is_some_and(|last| last == "mod") {
            names.pop();
        }
        match names.as_slice() {
            [] => None,
            [only] if only == "lib" => None,
            _ => Some(Self(names)),
        }
    }

    /// The module below the crate's root that it belongs to.
    pub(super) fn top(&self) -> &str {
        &self.0[0]
    }
}

/// Which top-level module is on which floor, from the table in docs/ARCHITECTURE.md.
pub(super) struct Floors(HashMap<String, u32>);

impl Floors {
    pub(super) fn parse(page: &str) -> Self {
        let rows = page.lines().filter_map(|line| {
            let mut cells = line.strip_prefix('|')?.split('|');
            let floor: u32 = cells.next()?.trim().parse().ok()?;
            Some((floor, cells.next()?))
        });
        let floors: HashMap<String, u32> = rows
            .flat_map(|(floor, modules)| {
                words(modules).map(move |(_, name)| (name.to_owned(), floor))
            })
            .collect();
        assert!(
            floors.len() > 5,
            "docs/ARCHITECTURE.md has the table of floors"
        );
        Self(floors)
    }

    pub(super) fn floor(&self, module: &str) -> Option<u32> {
        self.0.get(module).copied()
    }

    /// The imports of a module that the floors forbid.
    pub(super) fn faults(&self, module: &Module, source: &Source) -> Vec<String> {
        let from = module.top();
        let Some(floor) = self.floor(from) else {
            return Vec::new();
        };
        let mut faults = Vec::new();
        for to in imports(module, source.code()) {
            let strangers = matches!(
                (from, to.as_str()),
                ("control", "data") | ("data", "control")
            );
            match self.floor(&to) {
                Some(_) if strangers => faults.push(format!("{from} and {to} must not meet")),
                Some(above) if above > floor => faults.push(format!(
                    "{from} is on floor {floor} and imports {to} from floor {above}"
                )),
                _ => {}
            }
        }
        faults
    }
}

/// The top-level modules that the code names, through `crate::` or a chain of `super::` that ends
/// at the crate's root. The module's own is left out.
fn imports(module: &Module, code: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut supers = 0;
    for (end, word) in words(code) {
        let path = code[end..]
            .trim_start()
            .strip_prefix("::")
            .map(str::trim_start);
        match (word, path) {
            ("crate", Some(rest)) => heads(rest, &mut found),
            ("super", Some(rest)) => {
                supers += 1;
                if supers == module.0.len() {
                    heads(rest, &mut found);
                }
                if !rest.starts_with("super") {
                    supers = 0;
                }
            }
            _ => supers = 0,
        }
    }
    found.retain(|name| name != module.top());
    found.sort();
    found.dedup();
    found
}

/// The first names of what follows `::`: one, or those of a group in braces.
fn heads(rest: &str, found: &mut Vec<String>) {
    let Some(group) = rest.strip_prefix('{') else {
        found.extend(words(rest).next().map(|(_, name)| name.to_owned()));
        return;
    };
    let mut depth = 0;
    let mut start = Some(0);
    for (at, c) in group.char_indices() {
        match c {
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            '{' => depth += 1,
            ',' if depth == 0 => start = Some(at + 1),
            c if start.is_some() && (c.is_alphanumeric() || c == '_') => {
                found.extend(words(&group[at..]).next().map(|(_, name)| name.to_owned()));
                start = None;
            }
            _ => {}
        }
    }
}

/// Whether the page names a folder in code font, with or without a final slash. The root and the
/// folders that every crate has need no word.
pub(super) fn is_listed(page: &str, folder: &str) -> bool {
    let usual = matches!(folder.rsplit('/').next(), Some("" | "src"));
    let short = folder.strip_prefix("terminator/src/").unwrap_or(folder);
    let named =
        |name: &str| page.contains(&format!("`{name}`")) || page.contains(&format!("`{name}/`"));
    usual || named(short) || named(folder)
}

/// Whether a file is named after nothing that it does.
pub(super) fn says_nothing(path: &Path) -> bool {
    path.with_extension("").iter().any(|part| {
        let part = part.to_string_lossy();
        matches!(
            part.as_ref(),
            "util" | "utils" | "common" | "misc" | "helper" | "helpers"
        )
    })
}

/// Folders that should not be there, and those that should and are not.
pub(super) fn wrong_folders(found: &[String]) -> Vec<String> {
    let unexpected = found.iter().filter(|name| {
        !name.starts_with('.') && *name != "target" && !FOLDERS.contains(&name.as_str())
    });
    let missing = FOLDERS
        .iter()
        .filter(|name| !found.iter().any(|f| f == *name));
    let unexpected = unexpected.map(|name| format!("{name} has no place at the top"));
    unexpected
        .chain(missing.map(|name| format!("{name} is missing")))
        .collect()
}

/// The targets of a page's links to other files of the repository, without their fragments.
pub(super) fn local_links(page: &str) -> impl Iterator<Item = &str> {
    let targets = page
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next());
    let local = targets.filter(|target| !target.contains("://") && !target.starts_with('#'));
    local.map(|target| target.split('#').next().unwrap_or(target))
}

const FOLDERS: [&str; 6] = [
    "terminator",
    "ebpf",
    "bench",
    "appliance-image",
    "tests",
    "docs",
];

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "\
| floor | modules | rule |
|---|---|---|
| 3 | `cli`, `main` | thin |
| 2 | `data`, `control` | I/O |
| 1 | `limits`, `clock` | bounds |
";

    fn faults(path: &str, code: &str) -> Vec<String> {
        let module = Module::of(Path::new(path)).expect("not the root");
        Floors::parse(PAGE).faults(&module, &Source::new(code))
    }

    #[test]
    fn an_import_that_points_up_is_found_however_it_is_written() {
        for (path, code) in [
            ("limits.rs", "use crate::data::Worker;"),
            ("limits.rs", "use crate::{clock, data::Worker};"),
            (
                "limits.rs",
                "use crate::{\n    clock::{now, rfc3339},\n    cli,\n};",
            ),
            ("limits.rs", "fn f() { crate :: cli :: main() }"),
            ("limits.rs", "use super::data;"),
            ("clock/mod.rs", "use super::data;"),
            ("clock/wall.rs", "use super::super::{data, limits};"),
            ("data/worker/mod.rs", "pub(crate) use crate::cli::X;"),
            (
                "data/worker.rs",
                "#[cfg(test)] mod tests { use crate::cli::demo; }",
            ),
        ] {
            assert_eq!(faults(path, code).len(), 1, "{path}: {code}");
        }
    }

    #[test]
    fn imports_on_the_way_down_are_taken() {
        for (path, code) in [
            (
                "data/mod.rs",
                "use crate::{clock, limits::Limits}; use crate::data::worker;",
            ),
            ("main.rs", "use crate::cli;"),
            (
                "limits.rs",
                "// crate::data\nconst S: &str = \"crate::data\";",
            ),
            ("clock/wall.rs", "use super::data;"),
            ("clock.rs", "use crate::clock::{data, cli};"),
        ] {
            assert_eq!(faults(path, code), [""; 0], "{path}: {code}");
        }
    }

    #[test]
    fn control_and_data_never_meet_though_they_share_a_floor() {
        assert_eq!(faults("control/load.rs", "use crate::data::X;").len(), 1);
        assert_eq!(faults("data/mod.rs", "use super::control;").len(), 1);
    }

    #[test]
    fn modules_are_named_after_their_files() {
        let of = |path: &str| Module::of(Path::new(path)).map(|module| module.0.join("::"));
        assert_eq!(of("snapshot.rs").as_deref(), Some("snapshot"));
        assert_eq!(of("data/mod.rs").as_deref(), Some("data"));
        assert_eq!(of("cli/demo/mod.rs").as_deref(), Some("cli::demo"));
        assert_eq!(of("lib.rs"), None);
    }

    #[test]
    fn a_folder_is_listed_by_its_whole_path() {
        let page = "`cli/demo/` makes a CA, `data` relays";
        assert!(is_listed(page, "terminator/src/cli/demo"));
        assert!(is_listed(page, "terminator/src/data"));
        assert!(is_listed(page, "terminator/src"));
        assert!(!is_listed(page, "terminator/src/demo"));
        assert!(!is_listed(page, "terminator/src/cli/data"));
        assert!(!is_listed(page, "bench/examples"));
    }

    #[test]
    fn names_that_say_nothing_are_found_at_any_depth() {
        for path in [
            "terminator/src/util.rs",
            "bench/src/helpers/mod.rs",
            "tests/tests/common/mod.rs",
        ] {
            assert!(says_nothing(Path::new(path)), "{path}");
        }
        assert!(!says_nothing(Path::new(
            "terminator/src/data/utility_meter.rs"
        )));
    }

    #[test]
    fn links_to_files_are_told_from_the_others() {
        let page = "[a](docs/A.md) and [b](B.md#part) but [c](https://c.example/) or [d](#here)";
        let links: Vec<&str> = local_links(page).collect();
        assert_eq!(links, ["docs/A.md", "B.md"]);
    }

    #[test]
    fn folders_too_many_and_too_few_are_found() {
        let all: Vec<String> = FOLDERS.iter().map(ToString::to_string).collect();
        let dotted = [".git", ".ci", "target"].map(str::to_owned);
        assert_eq!(wrong_folders(&[&all[..], &dotted].concat()), [""; 0]);
        assert_eq!(wrong_folders(&all[1..]), ["terminator is missing"]);
        assert_eq!(
            wrong_folders(&[&all[..], &["scripts".to_owned()]].concat()),
            ["scripts has no place at the top"]
        );
    }
}
