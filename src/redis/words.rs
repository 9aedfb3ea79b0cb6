//! Redis's own words, made fit to be shown: in the log, by `/readyz` and in answers of the API.

/// The longest text of Redis that is shown.
const LONGEST: usize = 240;

/// Hexadecimal digits and hyphens in a row, from this many on, are the id of a session or the name of a script.
const SHORTEST_ID: usize = 32;

/// What an operator can do about an answer that contains one of these words. The first that fits counts.
const REMEDIES: [(&str, &str); 12] = [
    ("WRONGPASS", "correct the user and the password in redis-url"),
    ("NOAUTH", "put a user and a password into redis-url"),
    ("NOPERM", RIGHTS),
    ("can't run this command", RIGHTS),
    ("HELLO", NEWER),
    ("NOPROTO", NEWER),
    ("unknown command", RIGHTS),
    ("Unknown Redis command", RIGHTS),
    ("OOM", "raise maxmemory, or remove what else fills it"),
    ("READONLY", "name the primary in redis-url"),
    ("MISCONF", "let Redis save to its disk again"),
    ("cluster support disabled", "begin redis-url with redis:// or rediss://"),
];
const RIGHTS: &str = "docs/operations.md has the commands, keys and channels that a node needs";
const NEWER: &str = "the relay needs RESP3, which Redis has since version 6, with no older proxy in front";

/// Whether this text is an answer of Redis: it begins with a code in capitals.
pub(super) fn is_answer(text: &str) -> bool {
    let code = text.split(' ').next().unwrap_or_default();
    code.len() > 1 && code.bytes().all(|letter| letter.is_ascii_uppercase() || letter.is_ascii_digit())
}

/// Adds to an answer of Redis what the operator can do about it.
pub(super) fn with_remedy(answer: &str) -> String {
    let known = REMEDIES.iter().find(|(words, _)| answer.contains(words));
    let answer = answer.trim_end_matches('.');
    known.map_or_else(|| answer.to_owned(), |(_, remedy)| format!("{answer}; {remedy}"))
}

/// Removes from texts what nobody may read.
#[derive(Clone, Debug, Default)]
pub(super) struct Censor {
    /// The passwords that the relay sends to Redis.
    secrets: Vec<String>,
}

impl Censor {
    pub(super) fn of(secrets: impl IntoIterator<Item = String>) -> Self {
        Self { secrets: secrets.into_iter().filter(|secret| !secret.is_empty()).collect() }
    }

    /// The text in one line of bounded length, without passwords and ids, and cut before the arguments of a command and
    /// before the name of a key.
    pub(super) fn fit(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in &self.secrets {
            text = text.replace(secret, "***");
        }
        let ends = [", with args", "{", " script: "].iter().filter_map(|end| text.find(end));
        text.truncate(ends.min().unwrap_or(text.len()));
        let plain: String = text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
        without_ids(&plain).trim().chars().take(LONGEST).collect()
    }
}

fn without_ids(text: &str) -> String {
    let of_id = |letter: char| letter.is_ascii_hexdigit() || letter == '-';
    let words = text.split_inclusive(|letter| !of_id(letter));
    let shown = words.map(|word| match word.find(|letter| !of_id(letter)).unwrap_or(word.len()) {
        id if id >= SHORTEST_ID => format!("..{}", &word[id..]),
        _ => word.to_owned(),
    });
    shown.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_secret_is_shown_whatever_redis_says() {
        let censor = Censor::of(["hunter2".to_owned()]);
        let id = "0f8fad5b-d9cd-469f-a165-70867728950e";
        for text in [
            format!("ERR unknown command 'EVALSHA', with args beginning with: 'x' 'gitorial:{{{id}}}' "),
            format!("ERR unknown command `HELLO`, with args beginning with: `3`, `AUTH`, `u`, `hunter2`, `{id}`"),
            format!("ERR what is gitorial:{{{id}}} or {id}, hunter2?\r\n+{id}"),
            format!("ERR {id}{id}\u{1b}[31m"),
        ] {
            let shown = censor.fit(&text);
            assert!(!shown.contains("0f8fad5b") && !shown.contains("hunter2"), "{shown}");
            assert!(shown.starts_with("ERR ") && !shown.contains(char::is_control), "{shown}");
        }
        assert!(censor.fit(&"x ".repeat(1_000)).len() <= LONGEST);
    }

    #[test]
    fn an_answer_is_told_from_an_error_of_the_network() {
        for answer in ["ERR unknown command", "NOPERM this user", "OOM command not allowed", "WRONGPASS invalid"] {
            assert!(is_answer(answer), "{answer}");
        }
        for other in ["Request timed out.", "not connected", "Connection refused (os error 111)", "A", ""] {
            assert!(!is_answer(other), "{other}");
        }
    }

    #[test]
    fn an_answer_comes_with_its_remedy() {
        let no_auth = "NOAUTH HELLO must be called with the client already authenticated";
        assert!(with_remedy(no_auth).ends_with("put a user and a password into redis-url"));
        assert!(with_remedy("ERR unknown command 'HELLO'").contains("RESP3"));
        assert_eq!(
            with_remedy("LOADING Redis is loading the dataset in memory"),
            "LOADING Redis is loading the dataset in memory"
        );
    }
}
