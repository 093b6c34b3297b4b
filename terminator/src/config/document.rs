//! A configuration file's text as a tree whose nodes know their lines, and paths into it.

use std::fmt;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue, Deserializer};

use super::problem::{Fault, Problem};

/// A file that is TOML; nothing is known about its keys yet.
pub(super) struct Document<'t> {
    root: Spanned<DeTable<'t>>,
    lines: Lines,
}

/// Byte offsets of the line ends of a text, so that a line is found without reading it again: a
/// file may hold very many sites, and each is asked for its line.
struct Lines(Vec<usize>);

/// A place in a document.
#[derive(Clone, Debug, Default)]
pub(super) struct Path(Vec<Step>);

#[derive(Clone, Debug)]
enum Step {
    Key(String),
    Index(usize),
}

impl<'t> Document<'t> {
    /// Reads the text, or says everything that keeps it from being TOML.
    pub(super) fn parse(text: &'t str) -> Result<Self, Vec<Problem>> {
        let (root, errors) = DeTable::parse_recoverable(text);
        let lines = Lines::of(text);
        if errors.is_empty() {
            return Ok(Self { root, lines });
        }
        let problem = |error: &toml::de::Error| Problem {
            line: error.span().map_or(1, |span| lines.at(span.start)),
            key: String::new(),
            fault: Fault::Syntax(error.message().trim().replace('\n', ", ")),
        };
        Err(errors.iter().map(problem).collect())
    }

    /// The top-level table.
    pub(super) fn root(&self) -> &Spanned<DeTable<'t>> {
        &self.root
    }

    /// The raw tables. A document that fits the schema can be read; what the two do not agree on is
    /// reported all the same.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<T, Vec<Problem>> {
        T::deserialize(Deserializer::from(self.root.clone())).map_err(|error| {
            vec![Problem {
                line: error.span().map_or(1, |span| self.line_of(span.start)),
                key: String::new(),
                fault: Fault::Unreadable(error.message().to_owned()),
            }]
        })
    }

    /// A problem at a path.
    pub(super) fn problem(&self, path: &Path, fault: Fault) -> Problem {
        Problem {
            line: self.line(path),
            key: path.to_string(),
            fault,
        }
    }

    /// The line of a path, or of the innermost part of it that exists.
    pub(super) fn line(&self, path: &Path) -> usize {
        self.line_of(self.start(path).unwrap_or(0))
    }

    /// The line of a byte offset.
    pub(super) fn line_of(&self, offset: usize) -> usize {
        self.lines.at(offset)
    }

    fn start(&self, path: &Path) -> Option<usize> {
        let mut steps = path.0.iter();
        let Some(Step::Key(first)) = steps.next() else {
            return None;
        };
        let (key, mut value) = self.root.get_ref().get_key_value(first.as_str())?;
        let mut start = key.span().start;
        for step in steps {
            match (step, value.get_ref()) {
                (Step::Key(key), DeValue::Table(table)) => {
                    let Some((key, inner)) = table.get_key_value(key.as_str()) else {
                        break;
                    };
                    start = key.span().start;
                    value = inner;
                }
                (Step::Index(index), DeValue::Array(array)) => {
                    let Some(inner) = array.get(*index) else {
                        break;
                    };
                    start = inner.span().start;
                    value = inner;
                }
                _ => break,
            }
        }
        Some(start)
    }
}

impl Path {
    /// The path of a key in this place.
    pub(super) fn key(&self, key: &str) -> Self {
        self.step(Step::Key(key.to_owned()))
    }

    /// The path of an element of the list in this place.
    pub(super) fn index(&self, index: usize) -> Self {
        self.step(Step::Index(index))
    }

    /// The table in this place as its header is written.
    pub(super) fn header(&self) -> String {
        let keys: Vec<&str> = self
            .0
            .iter()
            .filter_map(|step| match step {
                Step::Key(key) => Some(key.as_str()),
                Step::Index(_) => None,
            })
            .collect();
        match self.0.last() {
            None => "the file's top level".to_owned(),
            Some(Step::Key(_)) => format!("[{}]", keys.join(".")),
            Some(Step::Index(_)) => format!("[[{}]]", keys.join(".")),
        }
    }

    fn step(&self, step: Step) -> Self {
        let mut steps = self.0.clone();
        steps.push(step);
        Self(steps)
    }
}

impl fmt::Display for Path {
    /// As in `site[0].backend`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(key) if position == 0 => f.write_str(key)?,
                Step::Key(key) => write!(f, ".{key}")?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

impl Lines {
    fn of(text: &str) -> Self {
        Self(text.match_indices('\n').map(|(at, _)| at).collect())
    }

    /// The line of a byte offset, from 1.
    fn at(&self, offset: usize) -> usize {
        1 + self.0.partition_point(|&end| end < offset)
    }
}
