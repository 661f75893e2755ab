//! Access to the Hugging Face hub: its address, the token, or none when offline.
//!
//! The environment decides, by the variables that other programs read too: `HF_ENDPOINT`, `HF_TOKEN` or the
//! token file, `HF_HUB_OFFLINE`, and the cache's own. The token is never shown.

use std::env;
use std::fmt;
use std::path::PathBuf;

use super::access_error::AccessError;
use super::cache::HubCache;

/// The public hub.
const PUBLIC: &str = "https://huggingface.co";

/// The hub and the local cache of what came from it.
#[derive(Debug, Clone)]
pub struct Hub {
    pub(super) cache: HubCache,
    /// Scheme and host, without a slash at the end.
    pub(super) endpoint: String,
    pub(super) token: Option<Token>,
    /// The reason for not using the network, if there is one.
    pub(super) offline: Option<&'static str>,
}

/// A secret that identifies an account of the hub.
#[derive(Clone)]
pub(super) struct Token(String);

impl Token {
    /// The value of the `Authorization` header.
    pub(super) fn header(&self) -> String {
        format!("Bearer {}", self.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Token(..)")
    }
}

impl Hub {
    /// The hub that the environment names; `offline` keeps to the cache whatever it says.
    ///
    /// # Errors
    /// If `HF_ENDPOINT` is not an address, or the token has characters that no token has.
    pub fn from_environment(offline: bool) -> Result<Hub, AccessError> {
        let endpoint = match text("HF_ENDPOINT") {
            Some(address) => endpoint_of(&address)?,
            None => PUBLIC.to_owned(),
        };
        let offline = match offline {
            true => Some("`--offline` is set"),
            false if switched_on("HF_HUB_OFFLINE") => Some("`HF_HUB_OFFLINE` is set"),
            false => None,
        };
        Ok(Hub { cache: HubCache::from_environment(), endpoint, token: token()?, offline })
    }

    /// The folder beside the cache that is this program's own, for results that later runs use again.
    pub fn own_folder() -> Option<std::path::PathBuf> {
        HubCache::home().map(|home| home.join("tune"))
    }

    /// The local cache.
    pub fn cache(&self) -> &HubCache {
        &self.cache
    }
}

/// The address without the slash at its end, if it is one.
fn endpoint_of(address: &str) -> Result<String, AccessError> {
    let trimmed = address.trim_end_matches('/');
    let host = trimmed.strip_prefix("https://").or(trimmed.strip_prefix("http://"));
    match host {
        Some(host) if !host.is_empty() && host.chars().all(|letter| letter.is_ascii_graphic()) => {
            Ok(trimmed.to_owned())
        }
        _ => Err(AccessError::Endpoint { address: address.to_owned() }),
    }
}

/// `HF_TOKEN`, its older name, or the file that logging in with `hf auth login` leaves.
fn token() -> Result<Option<Token>, AccessError> {
    for variable in ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"] {
        if let Some(token) = text(variable) {
            return usable(&token, variable.to_owned());
        }
    }
    let path = text("HF_TOKEN_PATH").map(PathBuf::from).or_else(|| HubCache::home().map(|home| home.join("token")));
    match path.and_then(|path| Some((std::fs::read_to_string(&path).ok()?, path))) {
        Some((token, path)) => usable(&token, path.display().to_string()),
        None => Ok(None),
    }
}

/// A token as a header can carry it; `source` is named where it cannot.
fn usable(token: &str, source: String) -> Result<Option<Token>, AccessError> {
    let token = token.trim();
    match token.chars().all(|letter| letter.is_ascii_graphic()) {
        true if token.is_empty() => Ok(None),
        true => Ok(Some(Token(token.to_owned()))),
        false => Err(AccessError::Token { variable: source }),
    }
}

/// The value of a variable that is set and not blank.
fn text(variable: &str) -> Option<String> {
    env::var(variable).ok().map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
}

fn switched_on(variable: &str) -> bool {
    text(variable).is_some_and(|value| ["1", "true", "yes", "on"].contains(&value.to_lowercase().as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_an_address_of_a_host() {
        assert_eq!(endpoint_of("http://127.0.0.1:80/").expect("an address"), "http://127.0.0.1:80");
        for wrong in ["huggingface.co", "ftp://hub", "https://", "https://a b"] {
            assert!(endpoint_of(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_token_is_trimmed_and_never_shown() {
        let token = usable(" hf_secret\n", "HF_TOKEN".to_owned()).expect("a token").expect("not empty");
        assert_eq!(token.header(), "Bearer hf_secret");
        assert!(!format!("{token:?}").contains("secret"));
        let error = usable("hf_se\ncret", "HF_TOKEN".to_owned()).expect_err("a line break");
        assert!(error.to_string().starts_with("HF_TOKEN: ") && !error.to_string().contains("cret"));
        assert!(usable("\n", String::new()).expect("nothing").is_none());
    }
}
