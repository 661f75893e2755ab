//! A hub on loopback: the routes that models and data sets are read by, with faults on demand.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use serde_json::json;
use sha1::Sha1;
use sha2::{Digest, Sha256};

/// The commit that `main` of every repository is at.
pub(crate) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What goes wrong with requests whose path contains a text, so many times.
#[derive(Clone)]
pub(crate) enum Fault {
    /// The connection breaks after so many bytes of the content.
    Cut(usize),
    /// An answer after so many milliseconds.
    Slow(u64),
    /// Other bytes than announced.
    Wrong,
    /// This status, with these headers.
    Status(u16, Vec<(&'static str, String)>),
    /// A redirect to the same path at another address.
    Redirect(String),
}

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) path: String,
    pub(crate) headers: BTreeMap<String, String>,
}

#[derive(Default)]
struct State {
    /// From `models/org/name` to the files.
    repositories: BTreeMap<String, BTreeMap<String, Vec<u8>>>,
    /// Sizes that the listing says in place of the true ones.
    announced: BTreeMap<String, u64>,
    faults: Vec<(String, Fault, usize)>,
    asked: Vec<Asked>,
    /// Requests that are being answered, and the most there were.
    now: usize,
    most: usize,
}

/// A server that lives as long as the test's process.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) address: String,
    state: Arc<Mutex<State>>,
}

impl Server {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let server = Self { address, state: Arc::default() };
        let answering = server.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let server = answering.clone();
                {
                    let mut state = server.state();
                    state.now += 1;
                    state.most = state.most.max(state.now);
                }
                // A client that goes away in the middle is what some tests are about.
                std::thread::spawn(move || {
                    server.answer(stream).unwrap_or_default();
                    server.state().now -= 1;
                });
            }
        });
        server
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Serves a file; `repository` is `models/org/name` or `datasets/org/name`.
    pub(crate) fn file(&self, repository: &str, path: &str, content: impl Into<Vec<u8>>) {
        self.state().repositories.entry(repository.to_owned()).or_default().insert(path.to_owned(), content.into());
    }

    /// Serves the files of a folder.
    pub(crate) fn folder(&self, repository: &str, folder: &Path) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            self.file(repository, &name, std::fs::read(&path).unwrap());
        }
    }

    /// Announces another size than a file has.
    pub(crate) fn announce(&self, path: &str, size: u64) {
        self.state().announced.insert(path.to_owned(), size);
    }

    /// The next `times` requests whose path contains `part` go wrong.
    pub(crate) fn fault(&self, part: &str, fault: Fault, times: usize) {
        self.state().faults.push((part.to_owned(), fault, times));
    }

    /// Nothing goes wrong any more.
    pub(crate) fn heal(&self) {
        self.state().faults.clear();
    }

    /// The most requests that were answered at the same time.
    pub(crate) fn most_at_once(&self) -> usize {
        self.state().most
    }

    /// The requests since this was asked last.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.state().asked)
    }

    fn answer(&self, stream: TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let path = line.split_whitespace().nth(1).unwrap_or_default().to_owned();
        let mut headers = BTreeMap::new();
        loop {
            line.clear();
            reader.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            headers.insert(name.to_lowercase(), value.trim().to_owned());
        }
        let range: Option<usize> =
            headers.get("range").and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
        let (fault, content) = {
            let mut state = self.state();
            state.asked.push(Asked { path: path.clone(), headers });
            let fault = state.faults.iter_mut().find(|(part, _, times)| path.contains(part.as_str()) && *times > 0);
            let fault = fault.map(|(_, fault, times)| {
                *times -= 1;
                fault.clone()
            });
            (fault, state.content(&path))
        };
        let head = |status: u16, headers: &[(&str, String)], length: usize| {
            let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
            format!("HTTP/1.1 {status} .\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n")
        };
        let mut stream = stream;
        if let Some(Fault::Slow(milliseconds)) = fault {
            std::thread::sleep(std::time::Duration::from_millis(milliseconds));
        }
        let content = match (&fault, content) {
            (Some(Fault::Status(status, headers)), _) => return stream.write_all(head(*status, headers, 0).as_bytes()),
            (Some(Fault::Redirect(address)), _) => {
                let to = [("Location", format!("{address}{path}"))];
                return stream.write_all(head(302, &to, 0).as_bytes());
            }
            (_, Err(code)) => {
                let code = [("X-Error-Code", code.to_owned())];
                return stream.write_all(head(404, &code, 0).as_bytes());
            }
            (Some(Fault::Wrong), Ok(content)) => content.iter().map(|byte| byte ^ 1).collect(),
            (_, Ok(content)) => content,
        };
        let from = range.unwrap_or(0).min(content.len());
        let part = &content[from..];
        let range = match range {
            Some(_) => vec![("Content-Range", format!("bytes {from}-{}/{}", content.len() - 1, content.len()))],
            None => Vec::new(),
        };
        stream.write_all(head(if range.is_empty() { 200 } else { 206 }, &range, part.len()).as_bytes())?;
        match fault {
            Some(Fault::Cut(bytes)) => stream.write_all(&part[..bytes.min(part.len())]),
            _ => stream.write_all(part),
        }
    }
}

impl State {
    /// What a route answers, or the hub's word for why it does not.
    fn content(&self, path: &str) -> Result<Vec<u8>, &'static str> {
        let path = path.split('?').next().unwrap();
        if let Some(rest) = path.strip_prefix("/api/") {
            let (repository, revision) = rest.split_once("/revision/").ok_or("RepoNotFound")?;
            let files = self.repositories.get(repository).ok_or("RepoNotFound")?;
            if revision != "main" && revision != COMMIT {
                return Err("RevisionNotFound");
            }
            return Ok(self.listing(files).into_bytes());
        }
        let (page, rest) = path[1..].split_once("/resolve/").ok_or("RepoNotFound")?;
        let repository = if page.starts_with("datasets/") { page.to_owned() } else { format!("models/{page}") };
        let files = self.repositories.get(&repository).ok_or("RepoNotFound")?;
        let (commit, file) = rest.split_once('/').ok_or("EntryNotFound")?;
        assert_eq!(commit, COMMIT, "files are asked for at a commit");
        files.get(file).cloned().ok_or("EntryNotFound")
    }

    fn listing(&self, files: &BTreeMap<String, Vec<u8>>) -> String {
        let one = |(path, content): (&String, &Vec<u8>)| {
            let size = self.announced.get(path).copied().unwrap_or(content.len() as u64);
            let blob = Sha1::new().chain_update(format!("blob {}\0", content.len())).chain_update(content).finalize();
            let mut file = json!({"rfilename": path, "size": size, "blobId": format!("{blob:x}")});
            if path.ends_with(".safetensors") || path.ends_with(".parquet") {
                file["lfs"] =
                    json!({"size": size, "sha256": format!("{:x}", Sha256::digest(content)), "pointerSize": 130});
            }
            file
        };
        json!({"sha": COMMIT, "siblings": files.iter().map(one).collect::<Vec<_>>()}).to_string()
    }
}
