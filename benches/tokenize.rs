//! Prepares a data set and says how long that took and how much memory: what `benches/tokenize.sh` runs.
//!
//! `tokenize TOKENIZER_FOLDER DATA [PREPARED_FOLDER]` prints one line of JSON. The peak of resident memory counts
//! pages of mapped files too; the peak of anonymous memory, what the program itself holds, is sampled while it works.
//! Both are Linux's figures and missing elsewhere.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use datasets::{
    BatchSettings, Dataset, DatasetSettings, SourceSettings, SpecialTokenOverrides, TemplateChoice, Tokenizer,
};
use serde_json::json;

#[expect(clippy::print_stdout, reason = "the figures are what this program is for")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    tune::allocator::share_heap();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, data, prepared @ ..] = arguments.as_slice() else {
        return Err("usage: tokenize TOKENIZER_FOLDER DATA [PREPARED_FOLDER]".into());
    };
    let choice = TemplateChoice::Named("chatml".to_owned());
    let tokenizer = Tokenizer::open(Path::new(folder), &choice, &SpecialTokenOverrides::default(), &[], &[])?;
    let settings = DatasetSettings {
        sources: vec![SourceSettings::new(data, "the command line")],
        sequence_len: 2048,
        prepared_path: prepared.first().map(PathBuf::from),
        batching: BatchSettings { packing: true, ..BatchSettings::default() },
        ..DatasetSettings::default()
    };
    let began = Instant::now();
    let done = AtomicBool::new(false);
    let (dataset, anonymous_peak_mib) = std::thread::scope(|scope| {
        let peak = scope.spawn(|| sampled_peak(&done));
        let dataset = Dataset::load(&settings, &tokenizer, &mut |_| {});
        done.store(true, Ordering::Relaxed);
        (dataset, peak.join().ok().flatten())
    });
    let dataset = dataset?;
    let seconds = began.elapsed().as_secs_f64();
    let counts = &dataset.counts;
    let line = json!({
        "rows": counts.rows,
        "tokens": counts.tokens,
        "trained_tokens": counts.trained_tokens,
        "seconds": seconds,
        "tokens_per_second": (counts.tokens as f64 / seconds).round(),
        "cached": counts.sources.iter().all(|source| source.cached),
        "packing_efficiency": counts.packing_efficiency(),
        "duplicates": counts.duplicates,
        "peak_mib": memory_mib("VmHWM:"),
        "anonymous_peak_mib": anonymous_peak_mib,
        "anonymous_mib_at_the_end": memory_mib("RssAnon:"),
    });
    println!("{line}");
    Ok(())
}

/// The most anonymous memory that was seen in a look every 5 ms until `done`.
fn sampled_peak(done: &AtomicBool) -> Option<u64> {
    let mut peak = None;
    while !done.load(Ordering::Relaxed) {
        peak = peak.max(memory_mib("RssAnon:"));
        std::thread::sleep(Duration::from_millis(5));
    }
    peak.max(memory_mib("RssAnon:"))
}

/// A line of `/proc/self/status` in MiB; `None` where there is no such file.
fn memory_mib(name: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? / 1024)
}
