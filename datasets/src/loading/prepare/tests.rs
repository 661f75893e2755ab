//! The claims of preparing: slices and shards, the cache, and the same result however threads fall.

use std::path::PathBuf;

use serde_json::json;

use super::*;
use crate::loading::dataset::Dataset;
use crate::store::Column;
use crate::test_tokenizer::{Folder, chatml_tokenizer};

fn row(index: usize) -> String {
    json!({"prompt": format!("Question {index}?"), "completion": format!("Answer {index}")}).to_string()
}

/// A folder with rows in two files, and settings that read them.
fn two_files(rows: usize) -> (Folder, DatasetSettings) {
    let folder = Folder::new();
    let lines: Vec<String> = (0..rows).map(row).collect();
    folder.write("train-0.jsonl", &lines[..rows / 2].join("\n"));
    folder.write("train-1.json", &format!("[{}]", lines[rows / 2..].join(",\n")));
    let source = SourceSettings::new(folder.path(), "recipe.yaml:3:5");
    let settings = DatasetSettings { sources: vec![source], shuffle: false, ..DatasetSettings::default() };
    (folder, settings)
}

fn load(settings: &DatasetSettings) -> Result<Dataset, String> {
    Dataset::load(settings, &chatml_tokenizer(), &mut |_| {}).map_err(|error| error.shown())
}

/// The numbers of the rows that are trained on.
fn numbers(dataset: &Dataset) -> Vec<usize> {
    let tokenizer = chatml_tokenizer();
    let number = |text: &str| text.split_once("Answer ").unwrap().1.trim_end_matches("<|im_end|>").parse().unwrap();
    dataset.train.iter().map(|example| number(&tokenizer.decode(&example.tokens).unwrap())).collect()
}

#[test]
fn slices_are_of_all_files_of_a_split() {
    let (_folder, mut settings) = two_files(100);
    for (split, wanted) in [
        ("train", (0..100).collect::<Vec<_>>()),
        ("train[:10%]", (0..10).collect()),
        ("train[45:55]", (45..55).collect()),
        ("train[-3:]+train[:2]", vec![97, 98, 99, 0, 1]),
    ] {
        settings.sources[0].split = Some(split.to_owned());
        assert_eq!(numbers(&load(&settings).unwrap()), wanted, "{split}");
    }
    settings.sources[0].split = Some("train[50:50]".to_owned());
    assert!(load(&settings).unwrap_err().contains("no rows are left to train on"));
}

#[test]
fn shards_share_the_rows_out_by_the_seed() {
    let (_folder, mut settings) = two_files(100);
    settings.sources[0].shards = Some(3);
    let mut all = Vec::new();
    for shard in 0..3 {
        settings.sources[0].shard = shard;
        let numbers = numbers(&load(&settings).unwrap());
        assert!(numbers.len() >= 33 && numbers.is_sorted(), "{numbers:?}");
        all.extend(numbers);
    }
    all.sort_unstable();
    assert_eq!(all, (0..100).collect::<Vec<_>>());
    settings.sources[0].shard = 3;
    assert!(load(&settings).unwrap_err().starts_with("recipe.yaml:3:5: shard `3` of `3` does not exist"));
}

#[test]
fn one_thread_and_many_prepare_the_same() {
    let (_folder, settings) = two_files(3000);
    let with = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| load(&settings)).unwrap()
    };
    let (one, many) = (with(1), with(7));
    assert_eq!(one.train, many.train);
    assert_eq!(one.counts, many.counts);
    assert_eq!(one.batch_at(3), many.batch_at(3));
    assert_eq!(numbers(&one), (0..3000).collect::<Vec<_>>());
}

#[test]
fn an_error_ends_the_reading_of_a_long_file() {
    let folder = Folder::new();
    let lines: Vec<String> = (0..100_000).map(|index| format!("{{\"question\": {index}}}")).collect();
    let path = folder.write("train.jsonl", &lines.join("\n"));
    let source = SourceSettings::new(path, "recipe.yaml:3:5");
    let error = load(&DatasetSettings { sources: vec![source], ..DatasetSettings::default() }).unwrap_err();
    assert!(error.contains("train.jsonl:1: no format fits the columns `question`"), "{error}");
}

fn prepared_files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn what_was_prepared_is_found_again_until_a_byte_changes() {
    let (folder, mut settings) = two_files(40);
    let prepared = folder.path().join("prepared");
    settings.prepared_path = Some(prepared.clone());
    let cached = |settings: &DatasetSettings| load(settings).unwrap().counts.sources[0].cached;
    let first = load(&settings).unwrap();
    assert!(!first.counts.sources[0].cached);
    let second = load(&settings).unwrap();
    assert!(second.counts.sources[0].cached);
    assert_eq!(first.train, second.train);
    assert_eq!(first.location(&first.train.get(39).unwrap()), second.location(&second.train.get(39).unwrap()));
    let (mut one, mut other) = (first.counts.clone(), second.counts.clone());
    one.sources.clear();
    other.sources.clear();
    assert_eq!(one, other);
    assert_eq!(prepared_files(&prepared).len(), 1);

    let longer = DatasetSettings { sequence_len: 600, ..settings.clone() };
    assert!(!cached(&longer));
    let on_inputs = DatasetSettings { train_on_inputs: true, ..settings.clone() };
    assert!(!cached(&on_inputs));
    let seeded = DatasetSettings { seed: 7, ..settings.clone() };
    assert!(cached(&seeded), "the seed shapes no tokens");
    folder.write("train-0.jsonl", &row(1000));
    assert!(!cached(&settings));
    let renamed = folder.path().join("train-2.json");
    std::fs::rename(folder.path().join("train-1.json"), &renamed).unwrap();
    assert!(cached(&settings), "names shape no tokens");
}

#[test]
fn a_damaged_file_is_made_again() {
    let (folder, mut settings) = two_files(40);
    let prepared = folder.path().join("prepared");
    settings.prepared_path = Some(prepared.clone());
    let whole = load(&settings).unwrap();
    let file = prepared_files(&prepared).remove(0);
    let bytes = std::fs::read(&file).unwrap();
    for step in 0..20 {
        let mut scratched = bytes.clone();
        scratched[step * bytes.len() / 20] ^= 1;
        let damaged = if step % 2 == 0 { &scratched[..] } else { &bytes[..step * bytes.len() / 20] };
        std::fs::write(&file, damaged).unwrap();
        let again = load(&settings).unwrap();
        assert!(!again.counts.sources[0].cached, "step {step}");
        assert_eq!(whole.train, again.train);
        assert_eq!(std::fs::read(&file).unwrap(), bytes, "the same bytes under the same name");
    }
}

#[test]
fn runs_side_by_side_leave_one_whole_file() {
    let (folder, mut settings) = two_files(400);
    let prepared = folder.path().join("prepared");
    settings.prepared_path = Some(prepared.clone());
    let runs: Vec<Vec<usize>> = std::thread::scope(|scope| {
        let runs: Vec<_> = (0..6).map(|_| scope.spawn(|| numbers(&load(&settings).unwrap()))).collect();
        runs.into_iter().map(|run| run.join().unwrap()).collect()
    });
    assert!(runs.iter().all(|numbers| *numbers == (0..400).collect::<Vec<_>>()));
    assert_eq!(prepared_files(&prepared).len(), 1);
    assert!(load(&settings).unwrap().counts.sources[0].cached);
}

#[test]
fn a_file_that_changes_while_it_is_read_is_refused_and_nothing_of_it_kept() {
    use std::io::Write;
    for cached in [false, true] {
        let (folder, mut settings) = two_files(40);
        let prepared = folder.path().join("prepared");
        settings.prepared_path = cached.then(|| prepared.clone());
        settings.held_out = Some(crate::foundation::HeldOut::Count(3));
        let path = folder.path().join("train-0.jsonl");
        // The row comes when the file has been read as far as it was.
        let mut grow = |progress: LoadProgress| {
            if let LoadProgress::Read { path: read, .. } = progress
                && read == path
            {
                let mut file = std::fs::File::options().append(true).open(&path).unwrap();
                writeln!(file, "\n{}", row(1000)).unwrap();
            }
        };
        let error = Dataset::load(&settings, &chatml_tokenizer(), &mut grow).unwrap_err().shown();
        assert!(error.contains("train-0.jsonl: the file changed while it was being read\nhint: "), "{error}");
        assert!(!cached || std::fs::read_dir(&prepared).unwrap().next().is_none(), "nothing is kept");
        assert_eq!(load(&settings).unwrap().counts.rows, 41);
    }
}

#[test]
fn a_cache_that_cannot_be_written_names_the_setting() {
    let (folder, mut settings) = two_files(4);
    settings.prepared_path = Some(folder.write("a-file", ""));
    let error = load(&settings).unwrap_err();
    assert!(error.starts_with("dataset_prepared_path: prepared examples cannot be written to"), "{error}");
}

#[test]
fn more_than_fits_in_memory_goes_to_a_file_that_does_not_stay() {
    let folder = Folder::new();
    let path = folder.path().join("own.arrow");
    let mut writer = StoreWriter::new(path.clone()).unwrap();
    let long = crate::Example { tokens: vec![7; 1 << 20], trained: vec![true; 1 << 20], file: 3, line: 9 };
    for _ in 0..18 {
        writer.push(&long, 8).unwrap();
    }
    let segment = writer.finish("words".to_owned()).unwrap();
    assert!(path.is_file());
    assert_eq!((segment.len(), segment.meta.as_str(), segment.example(17)), (18, "words", long));
    let value = |column| segment.values(column).at(4);
    assert_eq!((value(Column::Length), value(Column::TrainedTokens)), (1 << 20, (1 << 20) - 1));
    assert_eq!((value(Column::File), value(Column::Line), value(Column::Row)), (3, 9, 8));
    drop(segment);
    assert!(!path.exists());
}

#[test]
fn what_a_killed_run_was_writing_is_removed_and_what_another_is_writing_stays() {
    let (folder, mut settings) = two_files(10);
    let prepared = folder.path().join("prepared");
    std::fs::create_dir_all(&prepared).unwrap();
    settings.prepared_path = Some(prepared.clone());
    let (left, written) = (prepared.join("1.2-0.part"), prepared.join("1.3-0.part"));
    std::fs::write(&left, "half").unwrap();
    let other = std::fs::File::create(&written).unwrap();
    other.lock().unwrap();
    assert_eq!(numbers(&load(&settings).unwrap()).len(), 10);
    assert!(!left.exists() && written.exists());
}

#[test]
fn prepared_examples_of_earlier_versions_are_found() {
    let folder = Folder::new();
    folder.write("rows.jsonl", &[row(0), row(1)].join("\n"));
    let tokenizer = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/tokenizers/qwen3");
    let template = crate::text::TemplateChoice::Named("chatml".to_owned());
    let tokenizer = Tokenizer::open(&tokenizer, &template, &Default::default(), &[], &[]).unwrap();
    let source = SourceSettings {
        split: Some("train[:1]".to_owned()),
        train_on_eos: Some(crate::foundation::TrainOnEnd::Last),
        ..SourceSettings::new(folder.path().join("rows.jsonl"), "recipe.yaml:3:5")
    };
    let prepared = folder.path().join("prepared");
    let settings =
        DatasetSettings { sources: vec![source], prepared_path: Some(prepared.clone()), ..DatasetSettings::default() };
    Dataset::load(&settings, &tokenizer, &mut |_| {}).unwrap();
    let name = prepared_files(&prepared)[0].file_name().unwrap().to_string_lossy().into_owned();
    // A key that changes makes every prepared file useless: raise `VERSION` of the cache with it.
    assert!(name.starts_with("7b4a218b303d705b4a2bf676f0d7ec8a-"), "{name}");
}
