//! Command lines that cannot be parsed: what is wrong, and the command that was probably meant.

use clap::error::{ContextKind, ErrorKind};

use crate::hint::with_hint;
use crate::recipe::key_called;
use crate::report::printable;
use crate::text::{nearest, shell_word};

/// Commands of other programs and of earlier habits, with what to do here.
const COMMANDS: &[(&str, &str)] = &[
    (
        "train finetune fine-tune fine_tune sft fit start launch pretrain dpo grpo",
        "`tune run RECIPE` trains: `tune run recipe.yaml`",
    ),
    (
        "chat infer inference predict ask complete sample cli",
        "`tune generate MODEL --prompt TEXT` answers a prompt with a model or an adapter",
    ),
    (
        "serve server api webui webchat deploy",
        "nothing is served here: export `formats: [merged]`, or run `tune merge`, and load the folder with vLLM or transformers",
    ),
    (
        "eval evaluate test benchmark bench lm-eval",
        "`tune run` evaluates the rows that `val_set_size` or `test_datasets` hold out, before and after training",
    ),
    (
        "init new create quickstart config configure wizard template",
        "copy one of the recipes in `recipes/`, and see `tune schema --markdown` for every key",
    ),
    (
        "preprocess tokenize prepare data dataset show",
        "`tune preview RECIPE` shows the examples as they are trained on",
    ),
    (
        "merge-lora merge_lora merge-adapter fuse",
        "`tune merge ADAPTER --out FOLDER` merges an adapter into its base model",
    ),
    (
        "export convert quantize save push upload",
        "formats are chosen in the recipe, `export: {formats: [adapter, merged]}`; `tune merge` merges an adapter afterwards",
    ),
    (
        "download fetch pull get",
        "`tune run` and `tune check` download what a recipe names as `org/name`; there is no command for it alone",
    ),
    (
        "validate lint plan verify dry-run dryrun estimate memory",
        "`tune check RECIPE` checks a recipe and prints its plan",
    ),
    ("info describe model summary", "`tune inspect MODEL` shows a base model"),
    ("list ls gpus gpu device env doctor", "`tune devices` lists the devices of this machine"),
    ("continue restart", "`tune resume FOLDER` resumes the run in a folder"),
    ("keys docs reference options", "`tune schema --markdown` prints every key of recipes"),
    ("version", "`tune --version` prints it"),
];

/// Options of other programs that are no keys of recipes.
const OPTIONS: &[(&str, &str)] = &[
    ("dry-run dryrun dry_run plan", "`tune check RECIPE` prints the plan without training"),
    ("config", "name the recipe without an option: `tune run recipe.yaml`"),
    ("resume resume-from resume_from", "use `tune resume FOLDER`"),
    ("debug verbose v", "`tune preview RECIPE` shows the examples, and `tune check RECIPE` every decision"),
    ("help-all", "use `tune COMMAND --help`"),
];

/// The text of an error of the command line: message and hint; `None` for one that clap explains well.
pub(super) fn explain(error: &clap::Error, command: &clap::Command, arguments: &[String]) -> Option<String> {
    let context = |kind| error.get(kind).map(ToString::to_string);
    match error.kind() {
        ErrorKind::InvalidSubcommand => {
            let given = context(ContextKind::InvalidSubcommand)?;
            let names: Vec<&str> = command.get_subcommands().map(clap::Command::get_name).collect();
            let hint = match (listed(COMMANDS, &given), nearest(&given, names.iter().copied())) {
                (Some(advice), _) => advice.to_owned(),
                _ if given.ends_with(".yaml") || given.ends_with(".yml") => {
                    format!("`tune run {given}` trains, `tune check {given}` prints the plan")
                }
                (None, Some(name)) => format!("did you mean `tune {name}`?"),
                (None, None) => format!("accepted: {}, help", names.join(", ")),
            };
            Some(shown(&format!("`{given}` is not a command"), &hint))
        }
        ErrorKind::UnknownArgument => {
            let given = context(ContextKind::InvalidArg)?;
            let name = given.split('=').next().unwrap_or(&given).trim_start_matches('-');
            let hint = match (key_called(name), listed(OPTIONS, name)) {
                (_, Some(advice)) if given.starts_with('-') => advice.to_owned(),
                (Some(key), _) if given.starts_with('-') || given.contains('=') => {
                    let set = format!("--set {key}={}", value_of(&given, arguments));
                    format!("keys of the recipe are overridden with `{set}`")
                }
                _ => accepted_options(&given, command, arguments)?,
            };
            Some(shown(&format!("unexpected argument `{given}`"), &hint))
        }
        _ => None,
    }
}

/// The value that follows an option on the command line.
fn value_of(option: &str, arguments: &[String]) -> String {
    if let Some((_, value)) = option.split_once('=') {
        return shell_word(value).into_owned();
    }
    let at = arguments.iter().position(|argument| argument.split('=').next() == Some(option));
    let value = at.and_then(|at| match arguments[at].split_once('=') {
        Some((_, value)) => Some(value),
        None => arguments.get(at + 1).map(String::as_str).filter(|next| !next.starts_with("--")),
    });
    value.map_or("VALUE".to_owned(), |value| shell_word(value).into_owned())
}

/// The options of the command that was given, the nearest of them first; `None` for a command without any.
fn accepted_options(given: &str, command: &clap::Command, arguments: &[String]) -> Option<String> {
    let command = arguments.iter().find_map(|argument| command.find_subcommand(argument))?;
    let long = |argument: &clap::Arg| argument.get_long().map(|long| format!("--{long}"));
    let everywhere = ["--offline".to_owned(), "--help".to_owned()];
    let options: Vec<String> = command.get_arguments().filter_map(long).chain(everywhere).collect();
    Some(match nearest(given, options.iter().map(String::as_str)) {
        Some(name) => format!("did you mean `{name}`?"),
        None if given.starts_with('-') => format!("accepted: {}", options.join(", ")),
        None => format!("one at a time; `tune {} --help` shows what it takes", command.get_name()),
    })
}

/// The advice on `given` in a table.
fn listed(table: &[(&'static str, &'static str)], given: &str) -> Option<&'static str> {
    let named = |names: &str| names.split(' ').any(|name| name == given);
    table.iter().find(|(names, _)| named(names)).map(|(_, advice)| *advice)
}

fn shown(message: &str, hint: &str) -> String {
    printable(&format!("error: {}\n", with_hint(message, hint))).into_owned()
}
