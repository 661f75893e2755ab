//! Properties of any input: packing, orders, batches, masks, and readers that never panic.

use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed};
use serde_json::json;

use crate::batches::{MicroBatch, pack};
use crate::foundation::{BatchSettings, DatasetSettings, Purpose, SourceSettings, in_turn, shuffled};
use crate::loading::Dataset;
use crate::reading::{Kind, container};
use crate::rows::{Example, Training, mask};
use crate::test_tokenizer::{Folder, byte_tokenizer, chatml_tokenizer};
use crate::{Conversation, Message, Sample, TemplateChoice};

fn fixed(cases: u32) -> Config {
    Config { cases, rng_seed: RngSeed::Fixed(20), failure_persistence: None, ..Config::default() }
}

fn examples(lengths: &[usize]) -> Vec<Example> {
    let example = |(index, length): (usize, &usize)| {
        let id = u32::try_from(index).unwrap();
        let trained = (0..*length).map(|token| (token + index) % 3 != 0).collect();
        Example { tokens: vec![id; *length], trained, file: 0, line: index + 1 }
    };
    lengths.iter().enumerate().map(example).collect()
}

fn settings(seed: u64, batching: BatchSettings) -> DatasetSettings {
    DatasetSettings { seed, sequence_len: 64, batching, ..DatasetSettings::default() }
}

fn batching() -> impl Strategy<Value = BatchSettings> {
    (1_usize..5, 1_usize..4, any::<bool>(), 1_usize..9).prop_map(|(size, accumulation, packing, multiple)| {
        BatchSettings {
            micro_batch_size: size,
            accumulation,
            packing,
            width_multiple: multiple,
            ..BatchSettings::default()
        }
    })
}

/// Text in which no special token of the test's tokenizer can be.
fn text() -> impl Strategy<Value = String> {
    proptest::string::string_regex("[a-zA-Z0-9 äß€🙂日本{}%\n\"'.,:;!?-]{1,24}").unwrap()
}

proptest! {
    #![proptest_config(fixed(200))]

    #[test]
    fn packing_holds_every_document_once_and_overflows_no_row(
        lengths in proptest::collection::vec(1_u32..100, 0..300),
        capacity in 1_usize..200,
        seed in any::<u64>(),
    ) {
        let order = shuffled(lengths.len(), seed, Purpose::Packing);
        let rows = pack(&lengths, &order, capacity);
        let mut seen: Vec<u32> = rows.iter().flatten().copied().collect();
        seen.sort_unstable();
        prop_assert_eq!(seen, in_turn(lengths.len()));
        let used = |row: &[u32]| row.iter().map(|document| lengths[*document as usize] as usize).sum::<usize>();
        for row in rows.iter() {
            prop_assert!(used(row) <= capacity || row.len() == 1);
        }
        // Of two rows that are half empty, first-fit would have made one.
        let half = rows.iter().filter(|row| used(row) * 2 <= capacity);
        prop_assert!(half.count() <= 1);
    }

    #[test]
    fn an_epoch_gives_every_example_once_from_wherever_it_is_resumed(
        lengths in proptest::collection::vec(2_usize..60, 1..80),
        batching in batching(),
        seed in any::<u64>(),
        epoch in 0_usize..4,
    ) {
        let examples = examples(&lengths);
        let trained: usize = examples.iter().map(Example::trained_tokens).sum();
        let dataset = Dataset::from_examples(examples.clone(), Vec::new(), &settings(seed, batching.clone()));
        let again = Dataset::from_examples(examples, Vec::new(), &settings(seed, batching));
        let steps = dataset.steps_per_epoch();
        let mut seen = vec![0; lengths.len()];
        let (mut tokens, mut trained_tokens) = (0, 0);
        for step in (epoch * steps..(epoch + 1) * steps).rev() {
            let batch = dataset.batch_at(step);
            prop_assert_eq!(&batch, &again.batch_at(step));
            let in_row = |row: &[i32]| row.iter().filter(|document| **document >= 0).count();
            let in_rows = |micro: &MicroBatch| micro.documents.chunks(micro.width).map(in_row).collect::<Vec<usize>>();
            let lengths: Vec<Vec<usize>> = batch.micro_batches.iter().map(in_rows).collect();
            prop_assert_eq!(lengths, dataset.row_lengths_at(step), "the index alone knows the rows' lengths");
            tokens += batch.tokens;
            trained_tokens += batch.trained_tokens;
            for micro in &batch.micro_batches {
                for cell in 0..micro.tokens.len() {
                    if micro.positions[cell] == 0 && micro.documents[cell] >= 0 {
                        seen[micro.tokens[cell] as usize] += 1;
                    }
                    let next = micro.documents.get(cell + 1).copied().filter(|_| (cell + 1) % micro.width != 0);
                    prop_assert!(!micro.trained[cell] || next == Some(micro.documents[cell]), "a target is of the same document");
                }
            }
        }
        prop_assert!(seen.iter().all(|count| *count == 1), "{:?}", seen);
        prop_assert_eq!((tokens, trained_tokens), (lengths.iter().sum::<usize>(), trained));
    }

    #[test]
    fn the_assistants_words_and_their_end_are_trained_on(
        turns in proptest::collection::vec((text(), text()), 1..4),
        tagged in any::<bool>(),
    ) {
        let messages = turns.iter().flat_map(|(question, answer)| [Message::new("user", question), Message::new("assistant", answer)]);
        let conversation = Conversation { messages: messages.collect(), ..Conversation::default() };
        let tags = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% if m.role == 'assistant' %}\
                    {% generation %}{{ m.content + '<|im_end|>' }}{% endgeneration %}{% else %}\
                    {{ m.content + '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor %}";
        let tokenizer = if tagged { byte_tokenizer(&TemplateChoice::Jinja(tags.to_owned())) } else { chatml_tokenizer() };
        let training = Training::of(&SourceSettings::default(), false);
        let masked = mask(&tokenizer, &Sample::Chat(conversation), &training).unwrap();
        let trained: Vec<u32> =
            masked.tokens.iter().zip(&masked.trained).filter(|(_, trained)| **trained).map(|(id, _)| *id).collect();
        let wanted: String = turns.iter().map(|(_, answer)| format!("{answer}<|im_end|>")).collect();
        prop_assert_eq!(tokenizer.decode(&trained).unwrap(), wanted);
        prop_assert!(!masked.oddities.without_end_of_turn);
    }

    #[test]
    fn any_bytes_are_rows_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..400), kind in 0_usize..10) {
        let folder = Folder::new();
        let names = ["a.json", "a.jsonl.gz", "a.jsonl.zst", "a.csv", "a.tsv", "a.txt", "a.parquet", "a.arrow", "b.arrow", "b.parquet"];
        let magic: [&[u8]; 10] = [b"[{", b"\x1f\x8b\x08\0", b"\x28\xb5\x2f\xfd", b"a,b\n", b"", b"", b"PAR1", b"ARROW1\0\0", b"\xff\xff\xff\xff", b""];
        let end: &[u8] = match kind { 6 => b"\x10\0\0\0PAR1", 7 => b"\x10\0\0\0ARROW1", _ => b"" };
        let path = folder.path().join(names[kind]);
        std::fs::write(&path, [magic[kind], &bytes, end].concat()).unwrap();
        read_all(&path);
    }

    #[test]
    fn almost_json_is_rows_or_an_error(text in "[\\[\\]{}\",:\\\\ \na1-]{0,60}") {
        let folder = Folder::new();
        read_all(&folder.write("a.json", &text));
        read_all(&folder.write("a.json", &json!([{"a": text}]).to_string()));
    }

    #[test]
    fn any_template_renders_or_fails(template in "(\\{\\{|\\}\\}|\\{%|%\\}|[a-z]{1,8}|[ .'|\\[\\]()+-]|messages|for|in|if|endif|endfor|generation|endgeneration){0,30}") {
        let folder = crate::test_tokenizer::byte_tokenizer_folder();
        let choice = TemplateChoice::Jinja(template);
        if let Ok(tokenizer) = crate::Tokenizer::open(folder.path(), &choice, &Default::default(), &[], &[]) {
            let conversation = Conversation { messages: vec![Message::new("assistant", "a")], ..Conversation::default() };
            let training = Training::of(&SourceSettings::default(), false);
            let _ = mask(&tokenizer, &Sample::Chat(conversation), &training);
        }
    }
}

/// Reads a file to its end or its first error.
fn read_all(path: &std::path::Path) {
    let Ok(opened) = container::open(path, Kind::of_name(path).unwrap()) else { return };
    for row in opened.rows {
        match row {
            Ok(row) => drop(row.parse()),
            Err(_) => return,
        }
    }
}
