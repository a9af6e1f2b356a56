//! What a connection string says of encryption, which the driver does not know in all its forms.

use percent_encoding::percent_decode_str;

/// The values as they stand there; of a repeated one the last.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::db) struct Params {
    /// `sslmode`
    pub(super) mode: Option<String>,
    /// `sslrootcert`
    pub(super) root_cert: Option<String>,
    /// `sslcert`
    pub(super) cert: Option<String>,
    /// `sslkey`
    pub(super) key: Option<String>,
}

impl Params {
    /// Takes them out of a connection string and leaves the rest to the driver, faults and all.
    pub(in crate::db) fn take(url: &str) -> (Params, String) {
        let mut params = Params::default();
        let is_url = ["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme));
        let rest = if is_url { params.take_query(url) } else { params.take_pairs(url) };
        (params, rest)
    }

    /// Keeps the value if it is ours.
    fn keep(&mut self, key: &str, value: impl FnOnce() -> String) -> bool {
        let slot = match key {
            "sslmode" => &mut self.mode,
            "sslrootcert" => &mut self.root_cert,
            "sslcert" => &mut self.cert,
            "sslkey" => &mut self.key,
            _ => return false,
        };
        // Empty is as if it were not there, as in libpq.
        *slot = Some(value()).filter(|value| !value.is_empty());
        true
    }

    fn take_query(&mut self, url: &str) -> String {
        // A password may hold a question mark; the driver too looks for the @ first.
        let host = url.find('@').unwrap_or(0);
        let Some(at) = url[host..].find('?') else { return url.to_owned() };
        let (before, query) = url.split_at(host + at);
        let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let others: Vec<&str> = query[1..]
            .split('&')
            .filter(|pair| {
                let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                !self.keep(&decoded(key), || decoded(value))
            })
            .collect();
        let question = if others.is_empty() { "" } else { "?" };
        format!("{before}{question}{}", others.join("&"))
    }

    fn take_pairs(&mut self, text: &str) -> String {
        let (mut rest, mut left) = (String::new(), text);
        while let Some((key, value, end)) = next_pair(left) {
            if !self.keep(key, || value) {
                rest.push_str(&left[..end]);
                rest.push(' ');
            }
            left = &left[end..];
        }
        // What is no pair is for the driver to complain of.
        rest + left
    }
}

/// The first `key = value` with its value unquoted, and where it ends.
fn next_pair(text: &str) -> Option<(&str, String, usize)> {
    let (before, after) = text.split_once('=')?;
    let key = before.trim();
    let from = text.len() - after.trim_start().len();
    let quoted = text[from..].starts_with('\'');
    let mut value = String::new();
    let mut letters = text[from..].char_indices().skip(usize::from(quoted));
    while let Some((at, letter)) = letters.next() {
        match letter {
            '\\' => value.extend(letters.next().map(|(_, letter)| letter)),
            '\'' if quoted => return Some((key, value, from + at + 1)),
            letter if !quoted && letter.is_whitespace() => return Some((key, value, from + at)),
            letter => value.push(letter),
        }
    }
    (!quoted).then_some((key, value, text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(url: &str) -> ([Option<String>; 4], String) {
        let (Params { mode, root_cert, cert, key }, rest) = Params::take(url);
        ([mode, root_cert, cert, key], rest)
    }

    fn some(values: [&str; 4]) -> [Option<String>; 4] {
        values.map(|value| Some(value.to_owned()).filter(|value| !value.is_empty()))
    }

    #[test]
    fn they_are_taken_out_of_a_url() {
        let (params, rest) = taken(
            "postgres://ann:a?b=c&sslmode=x@db/app?sslmode=verify-full&connect_timeout=3\
             &sslrootcert=%2Fca%20file.pem&sslcert=/c&sslkey=/k",
        );
        assert_eq!(params, some(["verify-full", "/ca file.pem", "/c", "/k"]));
        assert_eq!(rest, "postgres://ann:a?b=c&sslmode=x@db/app?connect_timeout=3");
        let (params, rest) = taken("postgresql://db/app?sslmode=disable&sslmode=require");
        assert_eq!(params, some(["require", "", "", ""]));
        assert_eq!(rest, "postgresql://db/app");
    }

    #[test]
    fn they_are_taken_out_of_pairs() {
        let (params, rest) = taken(
            r"host=db sslmode = 'verify-ca' password='it\'s sslmode=x' sslrootcert=/a\ b sslkey=''",
        );
        assert_eq!(params, some(["verify-ca", "/a b", "", ""]));
        assert_eq!(rest.trim_end(), r"host=db  password='it\'s sslmode=x'");
        assert!(rest.parse::<tokio_postgres::Config>().is_ok(), "{rest}");
    }

    #[test]
    fn what_is_not_ours_stays_as_it_is() {
        for url in [
            "",
            "postgres://db/app",
            "postgres://ann:p@db/app?options=-csearch_path%3Drowlock",
            "nonsense",
            "host='unfinished",
            "mysql://db?sslmode=require",
        ] {
            let (params, rest) = taken(url);
            assert_eq!(params, some([""; 4]), "{url}");
            assert_eq!(rest.trim_end(), url);
        }
    }
}
