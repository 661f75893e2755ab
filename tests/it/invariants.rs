//! What the code must not contain, for the layout of the project to stay true: who may import whom, and
//! which words belong to which folder. Comments and tests may say what they like.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Modules of the root crate by floor; a module imports only from floors below its own.
pub(crate) const FLOORS: [(&str, u8); 24] = [
    ("allocator", 0),
    ("exact", 0),
    ("hint", 0),
    ("interruption", 0),
    ("device", 0),
    ("run_dir", 0),
    ("panics", 0),
    ("paths", 0),
    ("text", 0),
    ("hub", 1),
    ("model", 2),
    ("open", 3),
    ("generate", 3),
    ("train", 4),
    ("export", 4),
    ("answers", 4),
    // Above those whose tables of names it reads; they never import it.
    ("errors", 5),
    ("recipe", 5),
    ("report", 6),
    ("plan", 7),
    ("run", 8),
    ("commands", 9),
    ("cli", 10),
    ("main", 11),
];

/// Folders of the package `datasets` by floor.
const DATASETS_FLOORS: [(&str, u8); 7] =
    [("foundation", 0), ("text", 1), ("reading", 1), ("rows", 2), ("store", 3), ("batches", 3), ("loading", 4)];

/// Modules of the package `adapters` by floor.
const ADAPTERS_FLOORS: [(&str, u8); 15] = [
    ("random", 0),
    ("dtype", 0),
    ("nf4", 0),
    ("frozen", 1),
    ("dropout", 1),
    ("parameter", 2),
    ("nf4_weight", 2),
    ("pass", 2),
    ("weight", 3),
    ("low_rank", 4),
    ("dora", 5),
    ("expert_stack", 5),
    ("projection", 6),
    ("attach", 7),
    ("peft", 8),
];

/// Source files that are tests, by name.
const TEST_FILES: [&str; 7] =
    ["tests.rs", "testing.rs", "fixtures.rs", "circulating.rs", "habits.rs", "test_tokenizer.rs", "properties.rs"];

/// Lines above an `unsafe` in which its reason is looked for.
const REASON_LINES: usize = 8;

/// Uses of `unsafe` that there may be; raise it with the one that needs it.
const MOST_UNSAFE: usize = 80;

/// A line of code: file relative to the project, line number, text.
#[derive(Clone)]
struct Line {
    file: String,
    number: usize,
    text: String,
}

/// The code below `folder` (or the one file), comments and test modules left out.
fn code(place: &str) -> Vec<Line> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut lines = Vec::new();
    for path in rust_files(&root.join(place)) {
        let file = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
        for (index, text) in fs::read_to_string(&path).unwrap().lines().enumerate() {
            if text.trim() == "mod tests {" {
                break;
            }
            if !text.trim_start().starts_with("//") {
                lines.push(Line { file: file.clone(), number: index + 1, text: text.to_owned() });
            }
        }
    }
    assert!(!lines.is_empty(), "there is code in {place}");
    lines
}

fn rust_files(place: &Path) -> Vec<PathBuf> {
    if place.is_file() {
        return vec![place.to_owned()];
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(place).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "tests" {
            files.extend(rust_files(&path));
        } else if name.ends_with(".rs") && !TEST_FILES.contains(&name.as_str()) {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// Fails with every line of `places` that has one of `words`, files of `except` aside.
fn absent(words: &[&str], places: &[&str], except: &[&str]) {
    let found: Vec<String> = places
        .iter()
        .flat_map(|place| code(place))
        .filter(|line| !except.iter().any(|file| line.file.starts_with(file)))
        .filter(|line| words.iter().any(|word| line.text.contains(word)))
        .map(|line| format!("{}:{}: {}", line.file, line.number, line.text.trim()))
        .collect();
    assert!(found.is_empty(), "{words:?} do not belong here:\n{}", found.join("\n"));
}

#[test]
fn data_recipe_plan_and_families_know_no_tensors() {
    let places = [
        "datasets/src",
        "src/recipe.rs",
        "src/recipe",
        "src/plan.rs",
        "src/plan",
        "src/hub.rs",
        "src/hub",
        "src/cli.rs",
        "src/model/families.rs",
        "src/model/families",
        "src/model/spec.rs",
        "src/model/names.rs",
    ];
    absent(&["burn::"], &places, &[]);
}

#[test]
fn backends_are_named_by_kernels_and_the_device_file_alone() {
    let words = ["CubeBackend", "Autodiff", "backend_extension", "into_primitive", "#[cube", "Backend>", ": Backend"];
    absent(&words, &["src", "adapters/src", "datasets/src"], &["adapters/src/frozen"]);
    let constructors =
        ["Device::flex(", "Device::cuda(", "Device::wgpu(", "Device::vulkan(", "Device::metal(", "Device::cpu("];
    absent(&constructors, &["src", "adapters/src"], &["src/device.rs"]);
}

#[test]
fn families_are_named_in_their_folder_alone() {
    let names = ["llama", "Llama", "qwen", "Qwen", "mistral", "Mistral", "gemma", "Gemma", "deepseek", "phi3"];
    let places = ["src/model", "src/train", "src/export", "src/plan", "src/run", "adapters/src"];
    absent(&names, &places, &["src/model/families"]);
}

#[test]
fn checkpoint_tensors_are_named_once() {
    let names = ["_proj", "model.layers", "lm_head", "embed_tokens", "layernorm", "q_norm"];
    // Hints that show a person what a name looks like; no code reads them.
    let hints = ["src/plan/adaptation.rs", "adapters/src/attach.rs"];
    let places = ["src/model", "src/train", "src/export", "src/plan", "src/run", "adapters/src"];
    let except = [&["src/model/families", "src/model/names"][..], &hints[..]].concat();
    absent(&names, &places, &except);
}

#[test]
fn only_the_report_and_the_command_line_print() {
    let words = ["println!", "print!", "eprint!", "dbg!"];
    let places = ["src", "adapters/src", "datasets/src", "kernels/src"];
    absent(&words, &places, &["src/report", "src/cli.rs", "src/main.rs"]);
}

#[test]
fn hints_are_apart_from_messages_and_every_type_that_has_one_is_known() {
    let places = ["src", "adapters/src", "datasets/src", "kernels/src"];
    absent(&["\\nhint:", "\"hint: "], &places, &["src/hint.rs"]);
    let table = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/errors.rs")).unwrap();
    let mut owner = String::new();
    for line in places.iter().flat_map(|place| code(place)) {
        if let Some(name) = line.text.strip_prefix("impl ") {
            owner = first_name(name).to_owned();
        }
        if line.text.starts_with("    pub fn hint(&self)") {
            let known = ["<", "::"].iter().any(|before| table.contains(&format!("{before}{owner}>()")));
            assert!(known, "{}:{}: `{owner}` has hints: add it to those of src/errors.rs", line.file, line.number);
        }
    }
}

#[test]
fn nothing_is_drawn_but_from_the_seed_and_no_clock_shapes_a_result() {
    let random = ["thread_rng", "rand::rng()", "from_entropy", "from_os_rng", "getrandom", "SystemTime"];
    let places = ["src", "adapters/src", "datasets/src", "kernels/src"];
    absent(&random, &places, &[]);
    // Time is measured for the report, and where `--measure` asks for it.
    let measuring = ["src/report", "src/train/trainer.rs", "src/commands/calibrate.rs", "src/commands/ceilings.rs"];
    absent(&["Instant::"], &places, &measuring);
}

#[test]
fn only_the_hub_reaches_a_network() {
    let words = ["ureq", "std::net", "TcpStream", "UdpSocket", "ToSocketAddrs", "UnixStream"];
    absent(&words, &["src", "adapters/src", "datasets/src", "kernels/src"], &["src/hub"]);
}

#[test]
fn every_unsafe_says_why_it_is_sound() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut count, mut wrong) = (0, Vec::new());
    for folder in ["src", "adapters/src", "datasets/src", "kernels/src"] {
        for file in rust_files(&root.join(folder)) {
            let text = fs::read_to_string(&file).unwrap();
            let lines: Vec<&str> = text.lines().collect();
            for (number, line) in lines.iter().enumerate() {
                let code = line.split("//").next().unwrap();
                if !["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern"].iter().any(|word| code.contains(word)) {
                    continue;
                }
                count += 1;
                // The reason stands above: in the comment, or in the documentation of a function that asks it of others.
                let above = &lines[number.saturating_sub(REASON_LINES)..=number];
                if !above.iter().any(|line| line.contains("SAFETY:") || line.contains("# Safety")) {
                    wrong.push(format!(
                        "{}:{}: {}",
                        file.strip_prefix(root).unwrap().display(),
                        number + 1,
                        line.trim()
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "unsafe without a `SAFETY:` comment above:\n{}", wrong.join("\n"));
    assert!((20..=MOST_UNSAFE).contains(&count), "{count} uses of unsafe: each new one is a decision");
}

/// The lines of `place` that import a module of the same floor or above.
fn imports_upward(place: &str, floors: &[(&str, u8)]) -> Vec<String> {
    let floor = |name: &str| floors.iter().find(|(known, _)| *known == name).map(|(_, floor)| *floor);
    let mut wrong = Vec::new();
    for line in code(place) {
        let inside = line.file.trim_start_matches(place).trim_start_matches('/');
        let module = inside.split(['/', '.']).next().unwrap();
        if module == "lib" {
            continue;
        }
        let own = floor(module).unwrap_or_else(|| panic!("{module} has no floor: add it to those of {place}"));
        for (at, _) in line.text.match_indices("crate::") {
            let used = first_name(&line.text[at + "crate::".len()..]);
            if used != module && floor(used).is_none_or(|used| used >= own) {
                wrong.push(format!("{}:{}: {}", line.file, line.number, line.text.trim()));
            }
        }
    }
    wrong
}

/// The name that a text begins with.
fn first_name(text: &str) -> &str {
    text.split(|letter: char| !letter.is_alphanumeric() && letter != '_').next().unwrap()
}

#[test]
fn a_recipe_knows_nothing_of_training_but_the_tables_of_what_it_can_name() {
    let of_training = |line: &Line| line.text.contains("crate::train");
    let of_tables = |line: &Line| {
        ["optimizers", "schedules"].iter().any(|table| line.text.contains(&format!("crate::train::{table}")))
    };
    let other: Vec<String> = [code("src/recipe.rs"), code("src/recipe")]
        .concat()
        .iter()
        .filter(|line| of_training(line) && !of_tables(line))
        .map(|line| format!("{}:{}: {}", line.file, line.number, line.text.trim()))
        .collect();
    assert!(other.is_empty(), "{}", other.join("\n"));
}

#[test]
fn a_module_imports_only_from_floors_below_it() {
    let wrong = [
        imports_upward("src", &FLOORS),
        imports_upward("datasets/src", &DATASETS_FLOORS),
        imports_upward("adapters/src", &ADAPTERS_FLOORS),
    ]
    .concat();
    assert!(wrong.is_empty(), "imports from the same floor or above:\n{}", wrong.join("\n"));
}

#[test]
fn files_of_a_datasets_folder_import_each_other_in_no_circle() {
    for (folder, _) in DATASETS_FLOORS {
        let place = format!("datasets/src/{folder}");
        let mut imports: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for line in code(&place) {
            let inside = line.file.trim_start_matches(&place).trim_start_matches('/').trim_end_matches(".rs");
            let used = imports.entry(inside.to_owned()).or_default();
            used.extend(line.text.match_indices("super::").map(|(at, _)| {
                let name = first_name(&line.text[at + "super::".len()..]);
                // Files of an inner folder are one room with the file that is called like it.
                match inside.split_once('/') {
                    Some((outer, _)) => format!("{outer}/{name}"),
                    None => name.to_owned(),
                }
            }));
        }
        // What imports nothing that is left is taken away until nothing is left, or a circle.
        while let Some(free) = imports.iter().find(|(_, used)| !used.iter().any(|name| imports.contains_key(name))) {
            let free = free.0.clone();
            imports.remove(&free);
        }
        assert!(imports.is_empty(), "a circle in {place}: {imports:#?}");
    }
}

#[test]
fn the_members_do_not_know_each_other() {
    absent(&["adapters::", "tune::"], &["datasets/src"], &[]);
    absent(&["datasets::", "tune::"], &["adapters/src"], &[]);
    absent(&["adapters::", "datasets::", "tune::"], &["kernels/src"], &[]);
}

#[test]
fn no_file_is_longer_than_five_hundred_lines() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for folder in ["src", "datasets/src", "adapters/src", "kernels/src", "examples", "tests/it"] {
        for file in rust_files(&root.join(folder)) {
            let lines = fs::read_to_string(&file).unwrap().lines().count();
            assert!(lines <= 500, "{} has {lines} lines", file.display());
        }
    }
}
