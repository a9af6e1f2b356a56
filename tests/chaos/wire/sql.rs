//! As much of SQL as tells which statements end a transaction.

/// What a statement does to the transaction that it stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Opens one.
    Begins,
    /// Ends it and keeps what it did.
    Commits,
    /// Ends it and takes everything back.
    RollsBack,
    /// Anything else: commits by itself where no transaction is open.
    Works,
}

/// The effects of the statements of a text, in order.
pub(super) fn effects(text: &str) -> Vec<Effect> {
    let mut effects = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let end = end_of_statement(rest);
        let statement = without_comments(&rest[..end]);
        if !statement.is_empty() {
            effects.push(effect(statement));
        }
        rest = rest.get(end + 1..).unwrap_or("");
    }
    effects
}

fn effect(statement: &str) -> Effect {
    let mut words = statement.split(|c: char| !c.is_ascii_alphabetic()).filter(|w| !w.is_empty());
    let mut word = || words.next().unwrap_or("").to_ascii_lowercase();
    match word().as_str() {
        "begin" | "start" => Effect::Begins,
        "commit" | "end" => Effect::Commits,
        "prepare" if word() == "transaction" => Effect::Commits,
        // Back to a savepoint the transaction goes on.
        "rollback" if statement.to_ascii_lowercase().contains(" to ") => Effect::Works,
        "rollback" | "abort" => Effect::RollsBack,
        _ => Effect::Works,
    }
}

fn without_comments(mut statement: &str) -> &str {
    loop {
        statement = statement.trim_start();
        let (start, end) = match statement.get(..2) {
            Some("--") => ("--", "\n"),
            Some("/*") => ("/*", "*/"),
            _ => return statement,
        };
        let body = &statement[start.len()..];
        statement = body.find(end).map_or("", |at| &body[at + end.len()..]);
    }
}

/// Where the first `;` outside of quotes and comments stands, or the end.
fn end_of_statement(text: &str) -> usize {
    let mut at = 0;
    while let Some(next) = text[at..].find([';', '\'', '"', '$', '-', '/']) {
        at += next;
        let rest = &text[at..];
        at += match rest.as_bytes()[0] {
            b';' => return at,
            b'\'' => quoted(rest, "'"),
            b'"' => quoted(rest, "\""),
            b'$' => dollars(rest).map_or(1, |tag| quoted(rest, tag)),
            b'-' if rest.starts_with("--") => rest.find('\n').unwrap_or(rest.len()),
            b'/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
            _ => 1,
        };
    }
    text.len()
}

/// How long what begins with this quote is; a doubled quote is two of them in a row.
fn quoted(text: &str, quote: &str) -> usize {
    let body = &text[quote.len()..];
    body.find(quote).map_or(text.len(), |end| end + 2 * quote.len())
}

/// `$tag$`, if the text begins so.
fn dollars(text: &str) -> Option<&str> {
    let end = 1 + text[1..].find('$')?;
    let tag = &text[1..end];
    let is_tag = tag.chars().all(|c| c.is_alphanumeric() || c == '_')
        && !tag.starts_with(|c: char| c.is_ascii_digit());
    is_tag.then(|| &text[..=end])
}

#[cfg(test)]
mod tests {
    use super::Effect::{Begins, Commits, RollsBack, Works};
    use super::effects;

    #[test]
    fn statements_are_told_by_their_first_word() {
        assert_eq!(
            effects("BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL a = 'b;'"),
            [Begins, Works]
        );
        assert_eq!(effects("begin;select 1;commit"), [Begins, Works, Commits]);
        assert_eq!(effects("rollback to savepoint a; ROLLBACK;"), [Works, RollsBack]);
        assert_eq!(effects("prepare transaction 'a'; prepare b as select 1"), [Commits, Works]);
        assert_eq!(effects(" -- commit;\n/* ; */ start transaction"), [Begins]);
        assert_eq!(effects(""), []);
    }

    #[test]
    fn what_is_quoted_ends_no_statement() {
        assert_eq!(effects("select 'it''s; commit', \"a;b\" -- ; rollback"), [Works]);
        assert_eq!(effects("do $x$ begin; commit; end $x$; end"), [Works, Commits]);
        assert_eq!(effects("do $$ begin; end $$"), [Works]);
        assert_eq!(effects("select $1; commit"), [Works, Commits]);
    }
}
