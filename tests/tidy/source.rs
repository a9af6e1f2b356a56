//! Source files, read just well enough: code apart from comments and string literals.

use std::fs;
use std::path::{Path, PathBuf};

/// A file, and for Rust what is code in it and what is not.
pub(crate) struct File {
    /// From the root of the repository, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
    /// The text with comments and the insides of literals blanked, line by line the same.
    code: String,
    /// Line and content of every string literal.
    pub(crate) literals: Vec<(usize, String)>,
}

/// The files with this extension below these folders, in order. A folder that is not there has none.
pub(crate) fn files(folders: &[&str], extension: &str) -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    folders.iter().for_each(|folder| collect(&root.join(folder), extension, &mut paths));
    paths.sort();
    paths
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).expect("a source file is text");
            let shown = path.strip_prefix(root).expect("it was found below the root");
            File::new(shown.to_string_lossy().into_owned(), text)
        })
        .collect()
}

fn collect(folder: &Path, extension: &str, paths: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.expect("the folder can be read").path();
        let name = path.file_name().expect("an entry has a name").to_string_lossy();
        if path.is_dir() {
            // Build output, dependencies of other tools, and hidden folders are not ours.
            if !name.starts_with('.') && !matches!(&*name, "target" | "node_modules") {
                collect(&path, extension, paths);
            }
        } else if path.extension().is_some_and(|found| found == extension) {
            paths.push(path);
        }
    }
}

impl File {
    fn new(path: String, text: String) -> Self {
        let (code, literals) =
            if path.ends_with(".rs") { split(&text) } else { (text.clone(), Vec::new()) };
        File { path, text, code, literals }
    }

    /// The module of the crate's root that the file belongs to.
    pub(crate) fn module(&self) -> &str {
        let below = self.path.strip_prefix("src/").unwrap_or(&self.path);
        let end = below.find(['/', '.']).unwrap_or(below.len());
        &below[..end]
    }

    /// Lines of code, counted from 1.
    pub(crate) fn code_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code.lines().enumerate().map(|(number, line)| (number + 1, line))
    }

    /// Line and first segment of every `crate::...` path, those in `crate::{...}` too.
    pub(crate) fn crate_paths(&self) -> Vec<(usize, String)> {
        let mut found = Vec::new();
        for (at, matched) in self.code.match_indices("crate::") {
            let line = self.code[..at].matches('\n').count() + 1;
            let rest = &self.code[at + matched.len()..];
            let names = match rest.strip_prefix('{') {
                Some(group) => group_heads(group),
                None => vec![identifier(rest)],
            };
            found.extend(names.into_iter().map(|name| (line, name)));
        }
        found
    }
}

/// The first segments of `a, b::c, d::{e, f}}`.
fn group_heads(group: &str) -> Vec<String> {
    let mut heads = vec![identifier(group.trim_start())];
    let mut depth = 0;
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => heads.push(identifier(group[at + 1..].trim_start())),
            _ => {}
        }
    }
    heads.retain(|head| !head.is_empty());
    heads
}

fn identifier(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// First line and number of lines of every function with a body.
pub(crate) fn function_lengths(file: &File) -> Vec<(usize, usize)> {
    let lines: Vec<_> = file.code_lines().collect();
    let starts = lines.iter().enumerate().filter(|(_, (_, code))| is_function(code));
    starts.filter_map(|(index, (line, _))| Some((*line, length(&lines[index..])?))).collect()
}

fn is_function(code: &str) -> bool {
    let words = ["pub", "const", "async", "extern"];
    let mut rest = code.trim_start();
    loop {
        if rest.starts_with("fn ") {
            return true;
        }
        let Some((word, after)) = rest.split_once(' ') else { return false };
        if !words.contains(&word) && !word.starts_with("pub(") {
            return false;
        }
        rest = after.trim_start();
    }
}

/// Lines up to the brace that closes the body; none where a `;` comes first.
fn length(lines: &[(usize, &str)]) -> Option<usize> {
    let mut depth = 0_i32;
    let mut brackets = 0_i32;
    for (count, (_, code)) in lines.iter().enumerate() {
        for c in code.chars() {
            match c {
                '[' => brackets += 1,
                ']' => brackets -= 1,
                '{' => depth += 1,
                '}' if depth == 1 => return Some(count + 1),
                '}' => depth -= 1,
                ';' if depth == 0 && brackets == 0 => return None,
                _ => {}
            }
        }
    }
    None
}

/// Blanks comments and literals, and collects the string literals.
fn split(text: &str) -> (String, Vec<(usize, String)>) {
    let mut code = String::with_capacity(text.len());
    let mut literals = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let (skipped, inside) = token(rest, code.chars().next_back());
        if let Some(inside) = inside {
            let line = code.matches('\n').count() + 1;
            literals.push((line, inside.to_owned()));
        }
        let skipped = if skipped == 0 { first.len_utf8() } else { skipped };
        let plain = skipped == first.len_utf8();
        let blank = |c: char| if c == '\n' { '\n' } else { ' ' };
        code.extend(rest[..skipped].chars().map(|c| if plain { c } else { blank(c) }));
        rest = &rest[skipped..];
    }
    (code, literals)
}

/// The length of the comment or literal that begins here (0: none does), and a string's inside.
fn token(rest: &str, before: Option<char>) -> (usize, Option<&str>) {
    let in_word = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
    if rest.starts_with("//") {
        return (rest.find('\n').unwrap_or(rest.len()), None);
    }
    if rest.starts_with("/*") {
        return (rest.find("*/").map_or(rest.len(), |end| end + 2), None);
    }
    if rest.starts_with('\'') {
        return (character(rest), None);
    }
    if let Some(inside) = rest.strip_prefix('"') {
        let end = string_end(inside);
        return (end + 2, Some(&inside[..end]));
    }
    if !in_word && rest.starts_with('r') {
        let hashes = rest[1..].bytes().take_while(|byte| *byte == b'#').count();
        if rest[1 + hashes..].starts_with('"') {
            let inside = &rest[hashes + 2..];
            let close = format!("\"{}", "#".repeat(hashes));
            let end = inside.find(&close).unwrap_or(inside.len() - close.len());
            return (hashes + 2 + end + close.len(), Some(&inside[..end]));
        }
    }
    (0, None)
}

/// Where the string's closing quote is.
fn string_end(inside: &str) -> usize {
    let mut escaped = false;
    for (at, c) in inside.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at,
            _ => {}
        }
    }
    inside.len() - 1
}

/// The length of a character literal; 0 where the quote begins a lifetime.
fn character(rest: &str) -> usize {
    let mut chars = rest.char_indices().skip(1);
    match chars.next() {
        Some((_, '\\')) => rest[3..].find('\'').map_or(0, |end| end + 4),
        Some(_) => match chars.next() {
            Some((at, '\'')) => at + 1,
            _ => 0,
        },
        None => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> File {
        File::new("src/db/x.rs".to_owned(), text.to_owned())
    }

    #[test]
    fn literals_and_comments_are_not_code() {
        let text =
            "let a = \"{ \\\" crate::http\"; // crate::http {\nlet b = r#\"\"{\"#; '{' '\\'' 'a";
        let file = file(text);
        assert_eq!(file.crate_paths(), []);
        assert!(!file.code.contains('{'));
        assert!(file.code.ends_with("'a"));
        assert_eq!(file.literals[0], (1, "{ \\\" crate::http".to_owned()));
        assert_eq!(file.literals[1], (2, "\"{".to_owned()));
        assert_eq!(file.code.lines().count(), 2);
    }

    #[test]
    fn paths_are_found_in_groups() {
        let paths = file("use crate::{a, b::{c, d},\n e};\nlet x = crate::f::g();").crate_paths();
        let names: Vec<_> = paths.iter().map(|(_, name)| name.as_str()).collect();
        assert_eq!(names, ["a", "b", "e", "f"]);
        assert_eq!(paths[3].0, 3);
    }

    #[test]
    fn functions_are_measured_to_their_closing_brace() {
        let file = file("pub(crate) async fn a(x: [u8; 2]) {\n  {\n }\n}\nfn b();\nfn c() {}\n");
        assert_eq!(function_lengths(&file), [(1, 4), (6, 1)]);
    }

    #[test]
    fn modules_are_named_by_the_first_step() {
        assert_eq!(file("").module(), "db");
        assert_eq!(File::new("src/shutdown.rs".to_owned(), String::new()).module(), "shutdown");
    }
}
