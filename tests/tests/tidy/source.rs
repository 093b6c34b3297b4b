//! A Rust file with comments and literals taken out, so that words found in it are code.

/// The text of a file and the code in it.
pub(super) struct Source {
    text: String,
    /// As long as the text, with comments, strings and character literals made blank.
    code: String,
}

impl Source {
    pub(super) fn new(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            code: code(text),
        }
    }

    pub(super) fn code(&self) -> &str {
        &self.code
    }

    pub(super) fn lines(&self) -> usize {
        self.text.lines().count()
    }

    /// The file's first words are inner documentation.
    pub(super) fn opens_with_docs(&self) -> bool {
        let first = self.text.lines().find(|line| {
            let line = line.trim();
            !line.is_empty() && !line.starts_with("#!")
        });
        first
            .and_then(|line| line.strip_prefix("//!"))
            .is_some_and(|sentence| sentence.trim().len() >= 10)
    }

    /// The code has this word, and not as part of a longer one.
    pub(super) fn has_word(&self, word: &str) -> bool {
        words(&self.code).any(|(_, found)| found == word)
    }

    /// The code calls this macro.
    pub(super) fn calls_macro(&self, name: &str) -> bool {
        words(&self.code)
            .any(|(end, found)| found == name && self.code[end..].trim_start().starts_with('!'))
    }
}

/// Identifiers and numbers with the offset behind each.
pub(super) fn words(code: &str) -> impl Iterator<Item = (usize, &str)> {
    let part_of_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = at + code[at..].find(part_of_word)?;
        let rest = &code[start..];
        let len = rest.find(|c| !part_of_word(c)).unwrap_or(rest.len());
        at = start + len;
        Some((at, &code[start..at]))
    })
}

fn code(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let skipped = skipped(rest, code.chars().next_back());
        if skipped == 0 {
            code.push(c);
            rest = &rest[c.len_utf8()..];
        } else {
            let blank = rest[..skipped].chars();
            code.extend(blank.map(|c| if c == '\n' { '\n' } else { ' ' }));
            rest = &rest[skipped..];
        }
    }
    code
}

/// Length of the comment or literal that `rest` starts with, 0 for code.
fn skipped(rest: &str, before: Option<char>) -> usize {
    let in_word = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
    let to = |end: Option<usize>, len: usize| end.map_or(rest.len(), |end| end + len);
    if rest.starts_with("//") {
        to(rest.find('\n'), 0)
    } else if rest.starts_with("/*") {
        block_comment(rest)
    } else if rest.starts_with('"') {
        string(rest, 1)
    } else if !in_word && rest.starts_with("b\"") {
        string(rest, 2)
    } else if !in_word && let Some(hashes) = raw_string(rest) {
        let open = rest.find('"').unwrap_or(0) + 1;
        let close = format!("\"{}", "#".repeat(hashes));
        open + rest[open..]
            .find(&close)
            .map_or(rest.len() - open, |end| end + close.len())
    } else if rest.starts_with('\'') {
        character(rest)
    } else {
        0
    }
}

fn block_comment(rest: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < rest.len() {
        let here = &rest.as_bytes()[at..];
        if here.starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if here.starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    rest.len()
}

fn string(rest: &str, open: usize) -> usize {
    let mut escaped = false;
    for (at, byte) in rest.bytes().enumerate().skip(open) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// Number of hashes of the raw string that `rest` starts with.
fn raw_string(rest: &str) -> Option<usize> {
    let body = rest.strip_prefix("br").or_else(|| rest.strip_prefix('r'))?;
    let hashes = body.bytes().take_while(|&byte| byte == b'#').count();
    body[hashes..].starts_with('"').then_some(hashes)
}

/// Length of a character literal, 0 for a lifetime.
fn character(rest: &str) -> usize {
    let mut chars = rest.char_indices().skip(1);
    let escaped = matches!(chars.next(), Some((_, '\\')));
    if escaped {
        chars.next();
        return rest[3.min(rest.len())..]
            .find('\'')
            .map_or(0, |end| 3 + end + 1);
    }
    match chars.next() {
        Some((at, '\'')) => at + 1,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_not_code() {
        for hidden in [
            "// unsafe",
            "/// unsafe\nfn f() {}",
            "/* a /* unsafe */ unsafe */",
            "let s = \"unsafe\";",
            "let s = \"\\\" unsafe\";",
            "let s = r#\"\" unsafe\"#;",
            "let s = br\"unsafe\";",
            "let c = ('\"', \"unsafe\", '\\'', \"unsafe\");",
            "let x = unsafe_code;",
        ] {
            assert!(!Source::new(hidden).has_word("unsafe"), "{hidden}");
        }
    }

    #[test]
    fn code_is_found_between_literals() {
        for shown in [
            "unsafe { f() }",
            "let s = \"x\"; unsafe { f() }",
            "let c = '\"'; unsafe { f() }",
            "fn f<'a>(x: &'a str) { unsafe { g(x) } }",
            "let c = '\\''; unsafe { f() }",
            "let c = '\\u{1F600}'; unsafe { f() }",
            "/* x */ unsafe { f() }",
            "let s = r\"\\\"; unsafe { f() }",
            "for x in y { 'é' } unsafe {}",
        ] {
            assert!(Source::new(shown).has_word("unsafe"), "{shown}");
        }
    }

    #[test]
    fn macros_are_told_from_other_words() {
        assert!(Source::new("fn f() { todo!() }").calls_macro("todo"));
        assert!(Source::new("fn f() { std::todo ! () }").calls_macro("todo"));
        assert!(!Source::new("let todo = 1; // todo!()").calls_macro("todo"));
    }

    #[test]
    fn a_file_must_open_with_a_sentence() {
        assert!(Source::new("//! What this file is.\n").opens_with_docs());
        assert!(Source::new("#![no_std]\n\n//! What this file is.\n").opens_with_docs());
        for wrong in [
            "",
            "//! x\n",
            "//!\n",
            "// What it is, but not as documentation\n",
            "use a;\n//! Too late to say it.\n",
        ] {
            assert!(!Source::new(wrong).opens_with_docs(), "{wrong:?}");
        }
    }
}
