//! A repository of the hub: its name, its routes, its folder in the cache, and the files of a commit.
//!
//! Names, commits and hashes come from a recipe or from the network and become paths: all are checked here.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::cache::{is_hub_name, is_plain_commit};

/// The kind of a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Model,
    Dataset,
}

/// A repository by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Repository {
    kind: Kind,
    name: String,
}

/// The files of a commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Listing {
    /// The commit.
    pub(super) commit: String,
    /// Its files, by path.
    pub(super) files: Vec<RemoteFile>,
}

/// A file as the hub announces it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RemoteFile {
    /// Its path in the repository.
    pub(super) path: String,
    /// Its length in bytes.
    pub(super) size: u64,
    /// The hash of its content, in hexadecimal; also its name among the blobs of the cache.
    pub(super) hash: String,
}

impl RemoteFile {
    /// True if the hash is the SHA-256 of the content; otherwise it is Git's SHA-1 of a blob.
    pub(super) fn is_sha256(&self) -> bool {
        self.hash.len() == 64
    }
}

impl Repository {
    /// The repository that `org/name` means; `None` for any other name.
    pub(super) fn named(kind: Kind, name: &str) -> Option<Repository> {
        (is_hub_name(name) && name.contains('/')).then(|| Repository { kind, name: name.to_owned() })
    }

    /// The repository in words.
    pub(super) fn words(&self) -> String {
        match self.kind {
            Kind::Model => format!("model `{}`", self.name),
            Kind::Dataset => format!("data set `{}`", self.name),
        }
    }

    /// Its page, below the hub's address.
    pub(super) fn page(&self) -> String {
        match self.kind {
            Kind::Model => self.name.clone(),
            Kind::Dataset => format!("datasets/{}", self.name),
        }
    }

    /// Its folder, below the cache.
    pub(super) fn folder(&self) -> PathBuf {
        let kind = match self.kind {
            Kind::Model => "models",
            Kind::Dataset => "datasets",
        };
        PathBuf::from(format!("{kind}--{}", self.name.replace('/', "--")))
    }

    /// The route that lists the files of a revision.
    pub(super) fn listing_route(&self, revision: &str) -> String {
        let kind = match self.kind {
            Kind::Model => "models",
            Kind::Dataset => "datasets",
        };
        format!("/api/{kind}/{}/revision/{}?blobs=true", self.name, escaped(revision))
    }

    /// The route of a file.
    pub(super) fn file_route(&self, commit: &str, path: &str) -> String {
        let path: Vec<String> = path.split('/').map(escaped).collect();
        format!("/{}/resolve/{commit}/{}", self.page(), path.join("/"))
    }
}

impl Listing {
    /// Reads the answer to [`Repository::listing_route`].
    ///
    /// # Errors
    /// If it is not a list of files with sizes and hashes; the text names the problem.
    pub(super) fn read(text: &str) -> Result<Listing, String> {
        let answer: Value = serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))?;
        let commit = answer["sha"].as_str().filter(|commit| is_plain_commit(commit)).ok_or("no commit")?;
        let siblings = answer["siblings"].as_array().ok_or("no list of files")?;
        let mut files = Vec::with_capacity(siblings.len());
        for sibling in siblings {
            let path = sibling["rfilename"].as_str().filter(|path| stays_below(path)).ok_or("a file without a path")?;
            let lfs = &sibling["lfs"];
            let (size, hash, digits) = match lfs.is_object() {
                true => (&lfs["size"], &lfs["sha256"], 64),
                false => (&sibling["size"], &sibling["blobId"], 40),
            };
            let is_hash = |hash: &&str| hash.len() == digits && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
            match (size.as_u64(), hash.as_str().filter(is_hash)) {
                (Some(size), Some(hash)) => {
                    files.push(RemoteFile { path: path.to_owned(), size, hash: hash.to_lowercase() });
                }
                _ => return Err(format!("no size and hash for `{path}`")),
            }
        }
        Ok(Listing { commit: commit.to_owned(), files })
    }

    /// The file at a path.
    pub(super) fn file(&self, path: &str) -> Option<&RemoteFile> {
        self.files.iter().find(|file| file.path == path)
    }
}

/// True if a path of a repository stays below the folder that it is put in.
pub(super) fn stays_below(path: &str) -> bool {
    let part = |part: &str| !matches!(part, "" | "." | "..");
    path.split('/').all(part)
        && !path.contains(['\\', '\0'])
        && Path::new(path).components().all(|part| matches!(part, std::path::Component::Normal(_)))
}

/// Text as a part of a route.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_those_of_the_hub() {
        let model = Repository::named(Kind::Model, "Qwen/Qwen3-0.6B").expect("a name");
        let data = Repository::named(Kind::Dataset, "openai/gsm8k").expect("a name");
        assert_eq!(model.listing_route("refs/pr/1"), "/api/models/Qwen/Qwen3-0.6B/revision/refs%2Fpr%2F1?blobs=true");
        assert_eq!(data.file_route("abc", "a b/c#.json"), "/datasets/openai/gsm8k/resolve/abc/a%20b/c%23.json");
        assert_eq!(data.folder(), Path::new("datasets--openai--gsm8k"));
        for wrong in ["gpt2", "../x", "a/b/c", "a/..", "a/b?c", ""] {
            assert_eq!(Repository::named(Kind::Model, wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_listing_with_paths_that_lead_elsewhere_is_refused() {
        let listing = |path: &str| {
            let file = format!(r#"{{"rfilename": {path:?}, "size": 3, "blobId": "{}"}}"#, "a".repeat(40));
            Listing::read(&format!(r#"{{"sha": "abc", "siblings": [{file}]}}"#))
        };
        assert_eq!(listing("data/a.json").expect("a listing").files[0].size, 3);
        for path in ["../a", "/etc/passwd", "a/../../b", "a//b", "a\\b", "", "a/./b"] {
            assert!(listing(path).is_err(), "{path}");
        }
        for wrong in ["", "[]", r#"{"sha": "../x", "siblings": []}"#, r#"{"sha": "abc"}"#] {
            assert!(Listing::read(wrong).is_err(), "{wrong}");
        }
        let unhashed = r#"{"sha": "abc", "siblings": [{"rfilename": "a", "size": 1, "blobId": "../../x"}]}"#;
        assert!(Listing::read(unhashed).expect_err("no hash").contains("`a`"));
    }
}
