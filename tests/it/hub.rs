//! Models of the hub through the binary, from a hub on loopback: what is downloaded, checked, resumed and refused.

mod data;
mod server;

use std::fs;
use std::path::{Path, PathBuf};

use self::server::{Asked, COMMIT, Fault, Server};
use crate::harness::{Finished, Scratch, model, read_json};

const MODEL: &str = "models/org/tiny";
const TOKEN: &str = "hf_thisIsNotToBeSeen";

/// A scratch folder, a hub that has the sharded fixture as `org/tiny`, and a recipe that names it.
fn with_model(name: &str) -> (Scratch, Server, PathBuf) {
    let (scratch, server) = (Scratch::new(name), Server::start());
    server.folder(MODEL, &model("qwen3_sharded"));
    server.file(MODEL, "pytorch_model.bin", "pickled");
    server.file(MODEL, "onnx/model.onnx", "not asked for");
    let recipe = scratch.recipe("recipe.yaml", Path::new("org/tiny"), &[("max_steps", "1")]);
    (scratch, server, recipe)
}

/// Runs `tune` with the server as its hub.
fn online(scratch: &Scratch, server: &Server, more: &[(&str, &str)], arguments: &[&str]) -> Finished {
    let variables = [&[("HF_ENDPOINT", server.address.as_str()), ("HF_HUB_OFFLINE", "0")], more].concat();
    scratch.tune_with(&variables, arguments)
}

fn check(scratch: &Scratch, server: &Server) -> Finished {
    online(scratch, server, &[], &["check", "recipe.yaml"])
}

/// The folder of a repository in the scratch folder's cache.
fn cached(scratch: &Scratch, repository: &str) -> PathBuf {
    scratch.join("hf/hub").join(repository)
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn asked_for<'a>(asked: &'a [Asked], part: &str) -> Vec<&'a Asked> {
    asked.iter().filter(|asked| asked.path.contains(part)).collect()
}

#[test]
fn a_check_downloads_what_a_plan_needs_and_a_run_the_weights() {
    let (scratch, server, recipe) = with_model("hub-run");
    let finished = check(&scratch, &server);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert!(finished.stdout.contains(&format!("revision        {COMMIT}\n")), "{}", finished.stdout);
    assert!(finished.stdout.contains("weights to be downloaded"), "{}", finished.stdout);
    assert!(finished.stderr.contains("downloading model `org/tiny`: 6 files"), "{}", finished.stderr);
    let folder = cached(&scratch, "models--org--tiny");
    let snapshot = folder.join("snapshots").join(COMMIT);
    assert!(snapshot.join("model.safetensors.index.json").is_file());
    assert!(!snapshot.join("model-00001-of-00002.safetensors").exists());
    server.asked();

    let finished = online(&scratch, &server, &[], &["run", recipe.to_str().unwrap()]);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    let asked = server.asked();
    assert_eq!(asked_for(&asked, ".safetensors").len(), 2, "{asked:?}");
    assert_eq!(asked_for(&asked, "tokenizer").len(), 0, "what is there is not asked for again");
    assert_eq!(asked_for(&asked, ".bin").len() + asked_for(&asked, "onnx").len(), 0, "{asked:?}");
    assert!(fs::read_to_string(scratch.join("out/plan.txt")).unwrap().contains(COMMIT));
    assert_eq!(read_json(&scratch.join("out/adapter/adapter_config.json"))["revision"], COMMIT);

    // The layout of huggingface_hub: relative links to blobs that are named by their hashes, and nothing half.
    assert_eq!(fs::read_to_string(folder.join("refs/main")).unwrap(), COMMIT);
    let link = fs::read_link(snapshot.join("config.json")).unwrap();
    assert!(link.starts_with("../../blobs"), "{}", link.display());
    for blob in names(&folder.join("blobs")) {
        assert!([40, 64].contains(&blob.len()) && blob.chars().all(|letter| letter.is_ascii_hexdigit()), "{blob}");
    }
    assert!(names(&snapshot).iter().all(|name| !name.starts_with('.')));

    // What is in the cache is enough, without network.
    fs::remove_dir_all(scratch.join("out")).unwrap();
    let finished = scratch.tune(&["--offline", "run", "recipe.yaml"]);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert!(server.asked().is_empty());
}

#[test]
fn inspect_generate_and_merge_take_names_of_the_hub() {
    let (scratch, server) = (Scratch::new("hub-commands"), Server::start());
    server.folder(MODEL, &model("qwen3"));
    let finished = online(&scratch, &server, &[], &["inspect", "org/tiny"]);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert!(finished.stdout.contains("to be downloaded: 1 file"), "{}", finished.stdout);
    let finished = online(&scratch, &server, &[], &["generate", "org/tiny", "--prompt", "Hi", "--max-tokens", "2"]);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    let recipe = scratch.recipe("recipe.yaml", Path::new("org/tiny"), &[("max_steps", "2")]);
    let finished = online(&scratch, &server, &[], &["run", recipe.to_str().unwrap()]);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    fs::remove_dir_all(scratch.join("hf")).unwrap();
    let finished = online(&scratch, &server, &[], &["merge", "out/adapter", "--out", "merged"]);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert!(scratch.join("merged/model.safetensors").is_file());
}

#[test]
fn a_cut_connection_is_resumed_where_it_broke() {
    let (scratch, server, _) = with_model("hub-cut");
    let shard = "model-00001-of-00002.safetensors";
    server.fault(shard, Fault::Cut(100_000), 2);
    let finished = online(&scratch, &server, &[], &["run", "recipe.yaml"]);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    let asked = server.asked();
    let ranges: Vec<Option<&String>> =
        asked_for(&asked, shard).iter().map(|asked| asked.headers.get("range")).collect();
    assert_eq!(ranges, [None, Some(&"bytes=100000-".to_owned()), Some(&"bytes=200000-".to_owned())]);
}

#[test]
fn several_files_are_downloaded_at_once() {
    let (scratch, server, _) = with_model("hub-several");
    server.fault("/resolve/", Fault::Slow(300), 4);
    let finished = check(&scratch, &server);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert!(server.most_at_once() > 1);
}

#[test]
fn what_an_ended_run_left_is_taken_up_by_the_next() {
    let (scratch, server, _) = with_model("hub-resume");
    let shard = "model-00001-of-00002.safetensors";
    server.fault(shard, Fault::Cut(100_000), 1);
    server.fault(shard, Fault::Status(403, Vec::new()), 1);
    let finished = online(&scratch, &server, &[], &["run", "recipe.yaml"]);
    assert_eq!(finished.code, Some(2), "{}", finished.stderr);
    let folder = cached(&scratch, "models--org--tiny");
    let left = |folder: &Path| names(&folder.join("blobs")).into_iter().filter(|name| name.ends_with(".incomplete"));
    assert!(left(&folder).count() >= 1);
    assert!(!folder.join("snapshots").join(COMMIT).join(shard).exists());
    server.asked();
    let finished = online(&scratch, &server, &[], &["run", "recipe.yaml"]);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert!(finished.stderr.contains("from an earlier attempt"), "{}", finished.stderr);
    let asked = server.asked();
    assert_eq!(asked_for(&asked, shard)[0].headers.get("range"), Some(&"bytes=100000-".to_owned()));
    assert_eq!(left(&folder).count(), 0);
}

#[test]
fn content_that_is_not_what_was_announced_never_gets_its_name() {
    let (scratch, server, _) = with_model("hub-hash");
    server.fault("tokenizer.json", Fault::Wrong, 1);
    let finished = check(&scratch, &server);
    assert_eq!(finished.code, Some(1), "{}", finished.stderr);
    let said = "`tokenizer.json` of model `org/tiny` arrived damaged: its hash is `";
    assert!(finished.stderr.contains(said) && finished.stderr.contains("\nhint: "), "{}", finished.stderr);
    let folder = cached(&scratch, "models--org--tiny");
    assert!(!folder.join("snapshots").exists(), "nothing is linked before all is there");
    assert_eq!(check(&scratch, &server).code, Some(0));
    // Bytes that an earlier try left and that are of another file: found by the hash, and the file is fetched anew.
    let blob = fs::read_link(folder.join("snapshots").join(COMMIT).join("config.json")).unwrap();
    let blob = folder.join("blobs").join(blob.file_name().unwrap());
    fs::remove_file(&blob).unwrap();
    fs::write(blob.with_extension("incomplete"), "other").unwrap();
    assert_eq!(check(&scratch, &server).code, Some(0));
    assert_eq!(fs::read(&blob).unwrap(), fs::read(model("qwen3_sharded").join("config.json")).unwrap());
}

#[test]
fn a_model_that_is_gated_missing_or_private_says_what_to_do() {
    let (scratch, server, _) = with_model("hub-refused");
    let gated = |status: u16| Fault::Status(status, vec![("X-Error-Code", "GatedRepo".to_owned())]);
    let token = [("HF_TOKEN", TOKEN)];
    let run = |more: &[(&str, &str)]| online(&scratch, &server, more, &["check", "recipe.yaml"]);
    for (fault, more, words) in [
        (
            gated(401),
            &[][..],
            ["is gated: the hub answers 401 to a request without a token", "/org/tiny, make a token"],
        ),
        (
            gated(403),
            &token[..],
            ["is gated: the hub answers 403 to the token that is set", "with the account of the token"],
        ),
        (
            Fault::Status(401, Vec::new()),
            &[][..],
            ["model `org/tiny` is not on the hub", "set HF_TOKEN to a token with access"],
        ),
        (
            Fault::Status(404, Vec::new()),
            &token[..],
            ["or is private; nor is there a folder `", "the token's account needs access"],
        ),
    ] {
        server.fault("/", fault, 1);
        let finished = run(more);
        assert_eq!(finished.code, Some(2), "{}", finished.stderr);
        assert!(finished.stderr.contains("recipe.yaml:1:13: "), "{}", finished.stderr);
        assert!(words.iter().all(|word| finished.stderr.contains(word)), "{}", finished.stderr);
        assert!(!finished.stderr.contains(TOKEN));
    }
    let recipe = [("revision_of_model", "v9"), ("max_steps", "1")];
    scratch.recipe("recipe.yaml", Path::new("org/tiny"), &recipe);
    let finished = run(&[]);
    assert!(finished.code == Some(2) && finished.stderr.contains("has no revision `v9`"), "{}", finished.stderr);
}

#[test]
fn a_busy_hub_is_waited_for_and_a_broken_one_reported() {
    let (scratch, server, _) = with_model("hub-busy");
    server.fault("config.json", Fault::Status(429, vec![("Retry-After", "1".to_owned())]), 1);
    let finished = check(&scratch, &server);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert!(finished.stderr.contains("retrying in 1.0 s"), "{}", finished.stderr);
    fs::remove_dir_all(scratch.join("hf")).unwrap();
    server.fault("/api/", Fault::Status(429, vec![("Retry-After", "100000".to_owned())]), 1);
    let finished = check(&scratch, &server);
    assert!(finished.code == Some(1) && finished.stderr.contains("429, too many requests"), "{}", finished.stderr);
    server.fault("/api/", Fault::Status(418, Vec::new()), 1);
    let finished = check(&scratch, &server);
    assert!(finished.code == Some(1) && finished.stderr.contains("answers 418 for"), "{}", finished.stderr);
    server.heal();
    server.file(MODEL, "../../evil", "x");
    let finished = check(&scratch, &server);
    assert!(finished.code == Some(1) && finished.stderr.contains("a file without a path"), "{}", finished.stderr);
}

#[test]
fn the_token_goes_to_the_hub_and_nowhere_else() {
    let (scratch, server, _) = with_model("hub-token");
    let elsewhere = Server::start();
    elsewhere.folder(MODEL, &model("qwen3_sharded"));
    server.fault("tokenizer.json", Fault::Redirect(elsewhere.address.clone()), 1);
    scratch.write("hf/token", format!("{TOKEN}\n"));
    let finished = online(&scratch, &server, &[], &["run", "recipe.yaml"]);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    let asked = server.asked();
    let authorised = format!("Bearer {TOKEN}");
    assert!(asked.iter().all(|asked| asked.headers.get("authorization") == Some(&authorised)), "{asked:?}");
    let asked = elsewhere.asked();
    assert!(asked.len() == 1 && !asked[0].headers.contains_key("authorization"), "{asked:?}");
    assert!(![&finished.stdout, &finished.stderr].iter().any(|text| text.contains(TOKEN)));
    for file in ["plan.txt", "recipe.yaml", "summary.json", "README.md"] {
        assert!(!fs::read_to_string(scratch.join("out").join(file)).unwrap().contains(TOKEN), "{file}");
    }
}

#[test]
fn without_network_the_cache_is_what_there_is() {
    let (scratch, server, _) = with_model("hub-offline");
    for variables in [&[("HF_HUB_OFFLINE", "1")][..], &[]] {
        let arguments =
            if variables.is_empty() { &["--offline", "check", "recipe.yaml"][..] } else { &["check", "recipe.yaml"] };
        let finished = online(&scratch, &server, variables, arguments);
        assert_eq!(finished.code, Some(2), "{}", finished.stderr);
        assert!(finished.stderr.contains("nor in the local Hugging Face cache"), "{}", finished.stderr);
    }
    assert!(server.asked().is_empty());
    // A port that nobody listens at.
    let finished =
        scratch.tune_with(&[("HF_ENDPOINT", "http://127.0.0.1:1"), ("HF_HUB_OFFLINE", "0")], &["check", "recipe.yaml"]);
    assert_eq!(finished.code, Some(1), "{}", finished.stderr);
    assert!(finished.stderr.contains("`http://127.0.0.1:1` cannot be reached: "), "{}", finished.stderr);
    let finished = scratch.tune_with(&[("HF_ENDPOINT", "hub")], &["check", "recipe.yaml"]);
    assert!(finished.code == Some(2) && finished.stderr.contains("HF_ENDPOINT: `hub`"), "{}", finished.stderr);
}

#[test]
fn a_disk_without_room_is_found_before_anything_is_downloaded() {
    let (scratch, server, _) = with_model("hub-space");
    server.announce("tokenizer.json", 1 << 60);
    let finished = check(&scratch, &server);
    assert_eq!(finished.code, Some(1), "{}", finished.stderr);
    assert!(finished.stderr.contains("model `org/tiny` needs 1073741824.0 GiB, but only "), "{}", finished.stderr);
    assert!(asked_for(&server.asked(), "resolve").is_empty());
}

#[test]
fn pickled_weights_and_adapters_are_refused_by_name() {
    let (scratch, server) = (Scratch::new("hub-pickled"), Server::start());
    server.file("models/org/pickled", "config.json", "{}");
    server.file("models/org/pickled", "pytorch_model.bin", "x");
    server.file("models/org/adapter", "adapter_config.json", "{}");
    for (name, words) in [("org/pickled", "its weights are pickled"), ("org/adapter", "it holds an adapter")] {
        let finished = online(&scratch, &server, &[], &["inspect", name]);
        assert!(finished.code == Some(2) && finished.stderr.contains(words), "{}", finished.stderr);
    }
    assert!(asked_for(&server.asked(), "resolve").is_empty());
}
