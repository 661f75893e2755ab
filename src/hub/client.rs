//! Requests to the hub: redirects, retries, waiting when it asks for that, and answers turned into errors.
//!
//! The token goes to the hub's own address and nowhere else, so that redirects are followed here: files lie on
//! other hosts. A connection is given up when nothing arrives for a minute.

use std::time::Duration;

use ureq::http::Response;
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body};

use super::access::Hub;
use super::access_error::AccessError;
use super::repository::Repository;

/// Redirects that are followed.
const REDIRECTS: usize = 10;
/// Consecutive requests for one file that may fail.
pub(super) const ATTEMPTS: u32 = 5;
/// Longest that the hub may ask to wait.
const LONGEST_WAIT: Duration = Duration::from_secs(300);
/// Without a byte for so long a connection is given up.
const SILENCE: Duration = Duration::from_secs(60);

/// Waits for so long, as the hub asks; returns `false` if the answer is no longer needed.
pub(super) type Waiting<'a> = dyn Fn(Duration) -> bool + 'a;

/// Makes requests to one hub.
pub(super) struct Client<'h> {
    hub: &'h Hub,
    agent: Agent,
}

/// A request without a usable answer.
pub(super) enum RequestError {
    /// The connection broke: it may succeed when tried again.
    Transient(AccessError),
    /// It fails when tried again, too.
    Final(AccessError),
    /// The hub is busy, for the time that it reports, if it does.
    Busy(Option<Duration>, AccessError),
}

impl RequestError {
    pub(super) fn error(self) -> AccessError {
        match self {
            RequestError::Transient(error) | RequestError::Final(error) | RequestError::Busy(_, error) => error,
        }
    }
}

impl<'h> Client<'h> {
    pub(super) fn of(hub: &'h Hub) -> Client<'h> {
        let tls = TlsConfig::builder().root_certs(roots()).build();
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .user_agent(concat!("tune/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity")
            .timeout_connect(Some(Duration::from_secs(20)))
            .timeout_recv_response(Some(SILENCE))
            .timeout_per_read(Some(SILENCE))
            .tls_config(tls)
            .build();
        Client { hub, agent: config.into() }
    }

    /// The text of a small answer, tried again when the hub is busy.
    pub(super) fn text(
        &self,
        repository: &Repository,
        path: &str,
        revision: &str,
        limit: u64,
        waiting: &Waiting<'_>,
    ) -> Result<String, AccessError> {
        let response = self.get(repository, path, revision, None, waiting).map_err(RequestError::error)?;
        response.into_body().into_with_config().limit(limit).read_to_string().map_err(|error| AccessError::Answer {
            address: self.hub.endpoint.clone(),
            answer: format!("something that cannot be read ({error})"),
            file: format!("`{path}`"),
        })
    }

    /// A request that waits when the hub asks for it; `from` asks for the bytes from there on.
    pub(super) fn get(
        &self,
        repository: &Repository,
        path: &str,
        revision: &str,
        from: Option<u64>,
        waiting: &Waiting<'_>,
    ) -> Result<Response<Body>, RequestError> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let (wait, error) = match self.once(repository, path, revision, from) {
                Err(RequestError::Busy(wait, error)) => (wait, error),
                answered => return answered,
            };
            let wait = wait.unwrap_or(Duration::from_millis(500) * 2_u32.pow(attempt));
            if attempt >= ATTEMPTS || wait > LONGEST_WAIT || !waiting(wait) {
                return Err(RequestError::Final(error));
            }
        }
    }

    /// One request, redirects followed.
    fn once(
        &self,
        repository: &Repository,
        path: &str,
        revision: &str,
        from: Option<u64>,
    ) -> Result<Response<Body>, RequestError> {
        let mut address = format!("{}{path}", self.hub.endpoint);
        for _ in 0..REDIRECTS {
            let mut request = self.agent.get(&address);
            let own = origin(&address) == origin(&self.hub.endpoint);
            if let Some(token) = self.hub.token.as_ref().filter(|_| own) {
                request = request.header("Authorization", token.header());
            }
            if let Some(from) = from {
                request = request.header("Range", format!("bytes={from}-"));
            }
            let response = request.call().map_err(|error| {
                let reason = match error {
                    ureq::Error::HostNotFound => "there is no host of that name, or no network".to_owned(),
                    error => error.to_string(),
                };
                let address = origin(&address).to_owned();
                RequestError::Transient(AccessError::Unreachable { address, reason })
            })?;
            let status = response.status().as_u16();
            let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
            let answer = |answer: String| AccessError::Answer {
                address: origin(&address).to_owned(),
                answer,
                file: format!("`{path}`"),
            };
            match status {
                200 | 206 | 416 => return Ok(response),
                301 | 302 | 303 | 307 | 308 => match header("Location").and_then(|to| redirected(&address, to)) {
                    Some(next) => address = next,
                    None => {
                        let error = answer(format!("{status} with a redirect that is not followed"));
                        return Err(RequestError::Final(error));
                    }
                },
                429 => {
                    let wait = header("Retry-After").and_then(|text| text.trim().parse().ok()).map(Duration::from_secs);
                    let error = AccessError::TooMany { address: origin(&address).to_owned() };
                    return Err(RequestError::Busy(wait, error));
                }
                408 | 500 | 502..=504 => return Err(RequestError::Busy(None, answer(status.to_string()))),
                401 | 403 | 404 => {
                    let error = self.refusal(repository, path, revision, status, header("X-Error-Code"));
                    return Err(RequestError::Final(error));
                }
                _ => return Err(RequestError::Final(answer(status.to_string()))),
            }
        }
        let error = AccessError::Answer {
            address: self.hub.endpoint.clone(),
            answer: "redirects without end".to_owned(),
            file: format!("`{path}`"),
        };
        Err(RequestError::Final(error))
    }

    /// The error of a status 401, 403 or 404, by the hub's own code for it where it sends one.
    fn refusal(
        &self,
        repository: &Repository,
        path: &str,
        revision: &str,
        status: u16,
        code: Option<&str>,
    ) -> AccessError {
        let what = repository.words();
        let has_token = self.hub.token.is_some();
        match code {
            Some("RevisionNotFound") => AccessError::NoRevision { what, revision: revision.to_owned() },
            Some("EntryNotFound") => {
                let hint = "the revision changed while it was read, or a mirror is incomplete: try again".to_owned();
                AccessError::NoFile { what, file: format!("`{path}`"), hint }
            }
            Some("GatedRepo") => self.gated(repository, status),
            _ if status == 403 => self.gated(repository, status),
            _ => AccessError::NoRepository {
                what,
                endpoint: self.hub.endpoint.clone(),
                tried: String::new(),
                hint: match has_token {
                    true => "check the name; if it is private, the token's account needs access to it",
                    false => "check the name; if it is private or gated, set HF_TOKEN to a token with access",
                },
            },
        }
    }

    fn gated(&self, repository: &Repository, status: u16) -> AccessError {
        let page = format!("{}/{}", self.hub.endpoint, repository.page());
        let (who, hint) = match self.hub.token {
            Some(_) => (
                "the token that is set",
                format!(
                    "ask for access at {page} with the account of the token, and let the token read gated repositories"
                ),
            ),
            None => (
                "a request without a token",
                format!(
                    "ask for access at {page}, make a token in the settings of that account, and set HF_TOKEN to it"
                ),
            ),
        };
        AccessError::Gated { what: repository.words(), status, who, hint }
    }
}

/// The certificates in the file that `SSL_CERT_FILE` names, else Mozilla's.
fn roots() -> RootCerts {
    let file = std::env::var_os("SSL_CERT_FILE").and_then(|path| std::fs::read(path).ok()).unwrap_or_default();
    let certificates = parse_pem(&file).filter_map(|item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(certificate),
        _ => None,
    });
    let certificates: Vec<_> = certificates.collect();
    match certificates.is_empty() {
        true => RootCerts::WebPki,
        false => RootCerts::new_with_certs(&certificates),
    }
}

/// Scheme, host and port of an address.
fn origin(address: &str) -> &str {
    let host = address.find("://").map_or(0, |at| at + 3);
    let end = address[host..].find(['/', '?', '#']).map_or(address.len(), |at| host + at);
    &address[..end]
}

/// The address that a redirect leads to; `None` for one without the encryption of the first, or for another scheme.
fn redirected(from: &str, to: &str) -> Option<String> {
    if to.starts_with('/') && !to.starts_with("//") {
        return Some(format!("{}{to}", origin(from)));
    }
    let encrypted = to.starts_with("https://");
    (encrypted || (to.starts_with("http://") && from.starts_with("http://"))).then(|| to.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_origin_is_what_a_token_is_for() {
        assert_eq!(origin("https://hub.co/a/b?c"), "https://hub.co");
        assert_eq!(origin("http://127.0.0.1:8080"), "http://127.0.0.1:8080");
        assert_ne!(origin("https://hub.co@evil.co/x"), origin("https://hub.co"));
        assert_ne!(origin("https://hub.co.evil.co/x"), origin("https://hub.co"));
    }

    #[test]
    fn redirects_stay_encrypted() {
        assert_eq!(redirected("https://hub.co/a", "/b"), Some("https://hub.co/b".to_owned()));
        assert_eq!(redirected("http://hub.co/a", "https://cdn/b"), Some("https://cdn/b".to_owned()));
        assert_eq!(redirected("https://hub.co/a", "http://cdn/b"), None);
        assert_eq!(redirected("https://hub.co/a", "file:///etc/passwd"), None);
        assert_eq!(redirected("https://hub.co/a", "//cdn/b"), None);
    }
}
