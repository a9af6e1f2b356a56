//! Entities of a text: names, terms and links, with counts. No model, no dictionary but a list of
//! words that say nothing; what it finds can be checked by eye.

use std::collections::{BTreeMap, HashSet};
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

/// The most entities of one sort that a document contributes.
const MOST_OF_A_SORT: usize = 15;

/// A term that occurs once is chance.
const TERM_MENTIONS: u32 = 2;

/// Words of Markdown and of packaging, and the commonest of English.
const SILENT_WORDS: &str = "about above after again also another because been before being below \
    between both build cargo code could crate crates default docs does doing done each either \
    enable enabled every example examples false feature features file files first following from \
    function functions have having here html http https image img into itself just latest \
    license like main make many more most much must need never none note only other otherwise \
    over package same section should since some span such support supported text than that \
    their them then there these they this those through toml true under until used user uses \
    using value values version very want were what when where whether which while will with \
    within without work would your";

static SILENT: LazyLock<HashSet<&str>> =
    LazyLock::new(|| SILENT_WORDS.split_whitespace().collect());

/// Sections that are the same everywhere.
const BOILERPLATE: [&str; 3] = ["license", "licence", "contribution"];

/// What sort of thing an entity is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Sort {
    /// Capitalised words in a row, or a word with capitals inside.
    Name,
    /// A word that comes again.
    Term,
    /// Where a URL leads: host and the first two parts of the path.
    Link,
}

impl Sort {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Sort::Name => "name",
            Sort::Term => "term",
            Sort::Link => "link",
        }
    }
}

/// Something that a document mentions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entity {
    pub(crate) sort: Sort,
    pub(crate) text: String,
    pub(crate) mentions: u32,
}

/// The entities of a text, most mentioned first within each sort.
pub(crate) fn extract(text: &str) -> Vec<Entity> {
    let mut counts: BTreeMap<(Sort, String), u32> = BTreeMap::new();
    for line in prose(text) {
        let plain = take_links(&without_labels(line), &mut counts);
        names(&plain, &mut counts);
        terms(&plain, &mut counts);
    }
    counts.retain(|(sort, _), mentions| *sort != Sort::Term || TERM_MENTIONS <= *mentions);
    [Sort::Name, Sort::Term, Sort::Link].into_iter().flat_map(|sort| top(&counts, sort)).collect()
}

fn top(counts: &BTreeMap<(Sort, String), u32>, sort: Sort) -> Vec<Entity> {
    let of_sort = counts.iter().filter(|((found, _), _)| *found == sort);
    let mut entities: Vec<Entity> = of_sort
        .map(|((sort, text), mentions)| Entity {
            sort: *sort,
            text: text.clone(),
            mentions: *mentions,
        })
        .collect();
    // Stable: equal counts stay in the order of the alphabet, the same on every run.
    entities.sort_by_key(|entity| std::cmp::Reverse(entity.mentions));
    entities.truncate(MOST_OF_A_SORT);
    entities
}

/// The lines that are neither code nor boilerplate.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut fenced = false;
    let mut boilerplate = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        if line.starts_with('#') && !fenced {
            let title = line.to_lowercase();
            boilerplate = BOILERPLATE.iter().any(|word| title.contains(word));
        }
        !fenced && !fence && !boilerplate
    })
}

/// The line without what nobody reads: the labels of links (`[text][label]`, `[label]: url`), and
/// the words that stand for pictures (`![words]`).
fn without_labels(line: &str) -> String {
    let line = without_pictures(line);
    let mut plain = String::with_capacity(line.len());
    let mut rest = line.as_str();
    if line.starts_with('[')
        && let Some(end) = line.find("]:")
    {
        rest = &line[end + 2..];
    }
    while let Some(at) = rest.find("][") {
        plain.push_str(&rest[..=at]);
        let label = &rest[at + 1..];
        rest = label.find(']').map_or("", |end| &label[end + 1..]);
    }
    plain.push_str(rest);
    plain
}

/// Counts the links of a line and gives the line without them.
fn take_links(line: &str, counts: &mut BTreeMap<(Sort, String), u32>) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.find("http") {
        let (before, url) = rest.split_at(at);
        let end = url.find(|c: char| c.is_whitespace() || "()<>[]\"'`|".contains(c));
        let (url, after) = url.split_at(end.unwrap_or(url.len()));
        plain.push_str(before);
        plain.push(' ');
        if let Some(link) = link(url) {
            *counts.entry((Sort::Link, link)).or_default() += 1;
        }
        rest = after;
    }
    plain.push_str(rest);
    plain
}

/// Host and two parts of the path; badges are pictures and lead nowhere.
fn link(url: &str) -> Option<String> {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"))?;
    let rest = rest.split(['?', '#']).next()?.trim_end_matches(['.', ',', ';', ':', '/']);
    let parts: Vec<&str> = rest.split('/').take(3).collect();
    let picture = |part: &str| part.contains("badge") || part.contains("shield");
    let valid = parts[0].contains('.') && !parts.iter().any(|part| picture(part));
    valid.then(|| parts.join("/").to_lowercase())
}

fn without_pictures(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.find("![") {
        plain.push_str(&rest[..at]);
        let words = &rest[at + 2..];
        // What follows is the label or the place of the picture.
        rest = words.find(']').map_or("", |end| &words[end..]);
    }
    plain.push_str(rest);
    plain
}

fn names(line: &str, counts: &mut BTreeMap<(Sort, String), u32>) {
    let mut run: Vec<&str> = Vec::new();
    for word in line.split_whitespace() {
        let bare = word.trim_matches(|c: char| !c.is_alphanumeric());
        if is_inner_capital(bare) {
            count_name(&mut run, counts);
            *counts.entry((Sort::Name, bare.to_owned())).or_default() += 1;
        } else if is_capitalised(bare) {
            run.push(bare);
        } else {
            count_name(&mut run, counts);
        }
        // Punctuation ends a name.
        if word.ends_with(['.', ',', ':', ';', ')', '!', '?', '|']) {
            count_name(&mut run, counts);
        }
    }
    count_name(&mut run, counts);
}

/// One capitalised word alone may only begin a sentence: a name has two to four.
fn count_name(run: &mut Vec<&str>, counts: &mut BTreeMap<(Sort, String), u32>) {
    if (2..=4).contains(&run.len()) {
        *counts.entry((Sort::Name, run.join(" "))).or_default() += 1;
    }
    run.clear();
}

fn is_capitalised(word: &str) -> bool {
    let mut letters = word.chars();
    letters.next().is_some_and(char::is_uppercase)
        && letters.next().is_some_and(char::is_lowercase)
        && word.chars().all(char::is_alphabetic)
}

/// As in `GitHub` or `WebAssembly`.
fn is_inner_capital(word: &str) -> bool {
    word.len() <= 40
        && word.chars().all(char::is_alphanumeric)
        && word.chars().next().is_some_and(char::is_uppercase)
        && word.chars().zip(word.chars().skip(1)).any(|(a, b)| a.is_lowercase() && b.is_uppercase())
}

fn terms(line: &str, counts: &mut BTreeMap<(Sort, String), u32>) {
    for word in line.split(|c: char| !c.is_alphanumeric() && c != '-' && c != '_') {
        let plain = word.chars().all(|c| c.is_lowercase() || c == '-' || c == '_');
        let word = word.trim_matches(['-', '_']);
        if plain && (4..=40).contains(&word.len()) && !SILENT.contains(word) {
            *counts.entry((Sort::Term, word.to_owned())).or_default() += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str, sort: Sort) -> Vec<(String, u32)> {
        let entities = extract(text).into_iter().filter(|entity| entity.sort == sort);
        entities.map(|entity| (entity.text, entity.mentions)).collect()
    }

    #[test]
    fn names_have_several_capitals() {
        let text = "Written by Ada Lovelace, on GitHub. The Apache License and GitHub again.";
        let names = found(text, Sort::Name);
        assert_eq!(names[0], ("GitHub".to_owned(), 2));
        assert!(names.contains(&("Ada Lovelace".to_owned(), 1)));
        assert!(names.iter().all(|(name, _)| name != "Written"));
    }

    #[test]
    fn terms_come_again_and_code_is_not_prose() {
        let text = "a parser is a parser\n```\nlexer lexer lexer\n```\nwhich which";
        assert_eq!(found(text, Sort::Term), [("parser".to_owned(), 2)]);
    }

    #[test]
    fn labels_and_licenses_are_left_out() {
        let text = "[![Build][build-image]][build-link] [![Build][build-image]][build-link]\n\
                    [build-image]: https://ci.example.org/x\n\
                    # License\nApache License\n# Use\nApache Arrow";
        assert_eq!(found(text, Sort::Term), []);
        assert_eq!(found(text, Sort::Name), [("Apache Arrow".to_owned(), 1)]);
        assert_eq!(found(text, Sort::Link), [("ci.example.org/x".to_owned(), 1)]);
    }

    #[test]
    fn links_are_hosts_with_a_place_and_badges_are_none() {
        let text = "[a](https://docs.rs/tokio/1.0/x?y#z) <https://docs.rs/tokio/2> \
                    ![b](https://img.shields.io/badge/x) http://x";
        assert_eq!(
            found(text, Sort::Link),
            [("docs.rs/tokio/1.0".to_owned(), 1), ("docs.rs/tokio/2".to_owned(), 1)]
        );
    }
}
