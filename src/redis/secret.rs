//! The secret that the nodes share, as a setting.

use std::fmt;
use std::str::FromStr;

/// The shortest secret.
const MIN_BYTES: usize = 16;

/// Signs what the nodes publish to each other. Several secrets, separated by commas, let it be changed while nodes run:
/// the first one signs, and each is accepted. An empty one stands for messages without a signature. The `Debug` form
/// shows none of them.
#[derive(Clone, PartialEq, Eq)]
pub struct ClusterSecret(Vec<Option<String>>);

impl ClusterSecret {
    /// The secrets in order; `None` stands for no signature.
    pub(crate) fn secrets(&self) -> impl Iterator<Item = Option<&str>> {
        self.0.iter().map(Option::as_deref)
    }
}

impl fmt::Debug for ClusterSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterSecret(..)")
    }
}

/// A text that is no [`ClusterSecret`]. Never shows the text.
#[derive(Debug, thiserror::Error)]
#[error("must be one or more secrets of at least {MIN_BYTES} printable ASCII characters, separated by commas")]
pub struct ClusterSecretError;

impl FromStr for ClusterSecret {
    type Err = ClusterSecretError;

    fn from_str(text: &str) -> Result<Self, ClusterSecretError> {
        let good = |secret: &&str| secret.len() >= MIN_BYTES && secret.bytes().all(|byte| byte.is_ascii_graphic());
        let secrets = text.split(',').map(|secret| match Some(secret.trim()).filter(|secret| !secret.is_empty()) {
            Some(secret) => Some(secret).filter(good).map(|secret| Some(secret.to_owned())).ok_or(ClusterSecretError),
            None => Ok(None),
        });
        let secrets = secrets.collect::<Result<Vec<_>, _>>()?;
        if secrets.iter().all(Option::is_none) { Err(ClusterSecretError) } else { Ok(Self(secrets)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_at_least_one_secret_and_no_short_one() {
        let read = |text: &str| text.parse::<ClusterSecret>().ok().map(|secret| secret.0);
        let (a, b) = ("a".repeat(16), "b".repeat(40));
        assert_eq!(read(&a), Some(vec![Some(a.clone())]));
        assert_eq!(read(&format!("{a}, {b}")), Some(vec![Some(a.clone()), Some(b.clone())]));
        assert_eq!(read(&format!("{a},")), Some(vec![Some(a.clone()), None]));
        assert_eq!(read(&format!(",{a}")), Some(vec![None, Some(a.clone())]));
        for wrong in ["", ",", "short", &format!("{a},short"), &format!("{a} {b}")] {
            let error = wrong.parse::<ClusterSecret>().expect_err(wrong).to_string();
            assert!(wrong.len() < 5 || !error.contains(wrong), "{error}");
        }
        assert!(!format!("{:?}", a.parse::<ClusterSecret>()).contains("aaa"));
    }
}
