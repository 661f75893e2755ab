//! The command line: parse, call, print the error, exit code.

mod mistakes;

use std::io::{IsTerminal, Write, stderr, stdout};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use clap::builder::{PathBufValueParser, StringValueParser, TypedValueParser};
use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::allocator;
use crate::commands::{self, Depth, GenerateOptions, PreviewOptions};
use crate::device::{self, ACCEPTED, DeviceChoice};
use crate::errors;
use crate::generate::GenerateSettings;
use crate::hint::hinted;
use crate::hub::Hub;
use crate::interruption::{self, EXIT_CODE};
use crate::panics;
use crate::paths;
use crate::recipe::{self, Recipe};
use crate::report::{Report, bounded, printable, wrapped_help};
use crate::run::{self, Failure, Resume};

/// The exit codes of every command.
const EXIT_CODES: &str = "Exit codes: 0 done; 1 failed during the work: a disk that is full, a device, the network; \
                          2 wrong command line, recipe, model or data; 130 interrupted.";

/// Fine-tunes open-weights language models from a YAML recipe.
#[derive(Debug, Parser)]
#[command(version, about, after_help = EXIT_CODES)]
struct Cli {
    /// Do not use the network: take models and data sets of the hub from the local cache.
    #[arg(long, global = true)]
    offline: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Fine-tune a model from a recipe.
    Run {
        #[command(flatten)]
        recipe: RecipeArguments,
        #[command(flatten)]
        changes: ChangeArguments,
    },
    /// Resume an interrupted run from its newest checkpoint.
    Resume {
        /// The run's folder (`output_dir`), which holds the recipe and the arguments of its call.
        #[arg(value_parser = a_path())]
        run: PathBuf,
        /// Override a key of the recipe, in addition to the overrides that the run was called with.
        #[arg(long = "set", value_name = "KEY=VALUE")]
        overrides: Vec<String>,
        #[command(flatten)]
        changes: ChangeArguments,
    },
    /// Check a recipe and print its plan.
    Check {
        #[command(flatten)]
        recipe: RecipeArguments,
        /// Check the recipe alone, without model and data.
        #[arg(long)]
        recipe_only: bool,
        /// Load the model and measure the duration of a step.
        #[arg(long, conflicts_with = "recipe_only")]
        measure: bool,
    },
    /// Show examples with their trained parts marked.
    Preview {
        #[command(flatten)]
        recipe: RecipeArguments,
        /// Number of examples.
        #[arg(long, default_value_t = 3)]
        rows: usize,
        /// Draw them at random, with the recipe's seed.
        #[arg(long)]
        random: bool,
        /// Show the examples from this line of the file, or row of the table.
        #[arg(long, conflicts_with_all = ["rows", "random"])]
        line: Option<usize>,
        /// Print one JSON object: examples and counts.
        #[arg(long)]
        json: bool,
    },
    /// Show a base model: family, layers, sizes, files.
    Inspect {
        /// A folder in Hugging Face layout, or `org/name` on the hub.
        #[arg(value_parser = a_name())]
        model: String,
    },
    /// Merge an adapter into its base model.
    Merge {
        /// The adapter's folder.
        #[arg(value_parser = a_path())]
        adapter: PathBuf,
        /// The base model, if it is not the one that the adapter names.
        #[arg(long, value_parser = a_name())]
        base: Option<String>,
        /// The folder to write.
        #[arg(long, value_parser = a_path())]
        out: PathBuf,
    },
    /// Generate text with a model or an adapter.
    Generate(GenerateArguments),
    /// Print the JSON Schema of recipes, for editors.
    Schema {
        /// Print the reference page of all keys instead.
        #[arg(long)]
        markdown: bool,
    },
    /// List the devices of this machine.
    Devices {
        /// Measure the peak rates of this device instead: matrix products and a copy.
        #[arg(long, value_name = "DEVICE", value_parser = parse_device)]
        measure: Option<DeviceChoice>,
        /// Rows and columns of the matrices.
        #[arg(long, requires = "measure", default_value_t = 8192, value_parser = clap::value_parser!(u32).range(16..=32768))]
        size: u32,
    },
}

#[derive(Debug, Args)]
struct RecipeArguments {
    /// The recipe file.
    #[arg(value_parser = a_path())]
    recipe: PathBuf,
    /// Override a key of the recipe, dotted if nested: `--set max_steps=10`.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
}

#[derive(Debug, Args)]
struct ChangeArguments {
    /// Resume although this key of the recipe has changed since the checkpoint, where that is harmless.
    #[arg(long = "allow-change", value_name = "KEY")]
    allowed: Vec<String>,
}

#[derive(Debug, Args)]
struct GenerateArguments {
    /// A model folder, an adapter folder, or `org/name` on the hub.
    #[arg(value_parser = a_name())]
    model: String,
    /// The user's message.
    #[arg(long)]
    prompt: String,
    /// The system message.
    #[arg(long)]
    system: Option<String>,
    /// Use the prompt as it is, without the chat template.
    #[arg(long)]
    raw: bool,
    /// The base model, if it is not the one that the adapter names.
    #[arg(long, value_parser = a_name())]
    base: Option<String>,
    /// Maximum number of tokens to generate.
    #[arg(long, default_value_t = 256)]
    max_tokens: usize,
    /// Sampling temperature; 0 always takes the most likely token.
    #[arg(long, default_value_t = 0.0, value_parser = parse_temperature)]
    temperature: f32,
    /// Sample among the most likely tokens that together have this probability.
    #[arg(long, default_value_t = 1.0, value_parser = parse_top_p)]
    top_p: f32,
    /// Seed of the sampling.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Device to compute on, as in a recipe.
    #[arg(long, default_value = "auto", value_parser = parse_device)]
    device: DeviceChoice,
}

/// A path of the command line: `--out=~/merged` reaches the program as it is written.
fn a_path() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().map(|path| match path.to_str() {
        Some(text) => PathBuf::from(paths::of_argument(text)),
        None => path,
    })
}

/// A folder, or a name on the hub.
fn a_name() -> impl TypedValueParser<Value = String> {
    StringValueParser::new().map(|name| paths::of_argument(&name))
}

fn parse_temperature(text: &str) -> Result<f32, String> {
    let value = text.parse().ok().filter(|value: &f32| value.is_finite() && *value >= 0.0);
    value.ok_or_else(|| "accepted: a number of at least 0".to_owned())
}

fn parse_top_p(text: &str) -> Result<f32, String> {
    let value = text.parse().ok().filter(|value: &f32| *value > 0.0 && *value <= 1.0);
    value.ok_or_else(|| "accepted: a number above 0 and at most 1".to_owned())
}

fn parse_device(name: &str) -> Result<DeviceChoice, String> {
    DeviceChoice::parse(name).ok_or_else(|| format!("accepted: {ACCEPTED}"))
}

/// The command line as a value: the README's table of commands is made of it, and commands in the docs are tried on it.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the command line and returns the exit code: 0 done, 1 failed, 2 wrong recipe or input, 130 interrupted.
#[must_use]
pub fn main() -> u8 {
    allocator::share_heap();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(answer) => return answered(&answer),
    };
    let mut report = Report::new();
    let finished = without_panic(|| execute(cli, &mut report));
    report.finish();
    // What a command printed is its result; messages about its work are not.
    let finished = finished.and_then(|()| report.check_printed().map_err(Failure::Work));
    let (error, code) = match finished {
        Ok(()) => return 0,
        Err(Failure::Input(error)) => (error, 2),
        Err(Failure::Work(error)) => (error, 1),
        Err(Failure::Interrupted(message)) => {
            report.say(&message);
            return EXIT_CODE;
        }
    };
    report.say(&format!("error: {}", bounded(&errors::render(&error))));
    code
}

/// Prints what the parser has to say, help that was asked for or a mistake, and returns the exit code.
fn answered(answer: &clap::Error) -> u8 {
    if answer.use_stderr() {
        let arguments: Vec<String> =
            std::env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned()).collect();
        let explained = mistakes::explain(answer, &command(), &arguments);
        let text = explained.unwrap_or_else(|| wrapped_help(&styled(answer, &stderr())));
        let _ = stderr().write_all(text.as_bytes());
        return 2;
    }
    let text = wrapped_help(&styled(answer, &stdout()));
    let mut report = Report::new();
    report.print(&text);
    match report.check_printed() {
        Ok(()) => 0,
        Err(error) => {
            report.say(&format!("error: {}", errors::render(&error)));
            1
        }
    }
}

/// The text of the parser, with styles where `output` shows them.
fn styled(answer: &clap::Error, output: &impl IsTerminal) -> String {
    let text = answer.render();
    let shows = output.is_terminal() && std::env::var_os("NO_COLOR").is_none();
    if shows { text.ansi().to_string() } else { text.to_string() }
}

/// Turns a panic of a library (a device that is lost, memory that runs out) into an error with a hint.
fn without_panic(work: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
    panics::listen();
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        let panic = panics::take().unwrap_or_default();
        let hint = "if the device ran out of memory, lower micro_batch_size or sequence_len; otherwise please report this with the recipe";
        Err(Failure::Work(hinted(format!("internal error: {panic}"), hint).into()))
    })
}

fn execute(cli: Cli, report: &mut Report) -> Result<(), Failure> {
    let hub = &Hub::from_environment(cli.offline).map_err(|error| Failure::Input(error.into()))?;
    if let Some(folder) = Hub::own_folder() {
        device::keep_kernels_in(&folder.join("kernels"));
    }
    match cli.command {
        Command::Run { recipe, changes } => {
            listen();
            run::run(load(&recipe)?, &Resume { newest: false, allowed: changes.allowed }, hub, report)
        }
        Command::Resume { run, overrides, changes } => {
            listen();
            run::run(run::recall(&run, &overrides)?, &Resume { newest: true, allowed: changes.allowed }, hub, report)
        }
        Command::Check { recipe, recipe_only, measure } => {
            let depth = match (recipe_only, measure) {
                (true, _) => Depth::Recipe,
                (false, true) => Depth::Measured,
                (false, false) => Depth::Plan,
            };
            commands::check(load(&recipe)?, depth, hub, report)
        }
        Command::Preview { recipe, rows, random, line, json } => {
            let colour = stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            let options = PreviewOptions { rows, random, line, json, colour };
            commands::preview(load(&recipe)?, options, hub, report)
        }
        Command::Inspect { model } => commands::inspect(&model, hub, report),
        Command::Merge { adapter, base, out } => commands::merge(&adapter, base.as_deref(), &out, hub, report),
        Command::Generate(arguments) => {
            let options = GenerateOptions {
                model: &arguments.model,
                base: arguments.base.as_deref(),
                prompt: &arguments.prompt,
                system: arguments.system.as_deref(),
                raw: arguments.raw,
                device: arguments.device,
                settings: GenerateSettings {
                    max_tokens: arguments.max_tokens,
                    temperature: arguments.temperature,
                    top_p: arguments.top_p,
                    seed: arguments.seed,
                },
            };
            commands::generate(&options, hub, report)
        }
        Command::Schema { markdown } => {
            report.print(&if markdown { recipe::reference() } else { recipe::json_schema() });
            Ok(())
        }
        Command::Devices { measure: Some(device), size } => commands::ceilings(device, size as usize, report),
        Command::Devices { measure: None, .. } => {
            commands::devices(report);
            Ok(())
        }
    }
}

/// Makes signals end a run in order; where they cannot be handled they end it at once, which does no harm.
fn listen() {
    let _ = interruption::listen(|message| {
        // On a terminal the line holds `^C`, or a bar.
        let begin = if stderr().is_terminal() { "\n" } else { "" };
        // The report is the run's, which may hold it at any time.
        let _ = stderr().write_all(format!("{begin}{}\n", printable(message)).as_bytes());
    });
}

fn load(arguments: &RecipeArguments) -> Result<Recipe, Failure> {
    Recipe::load(&arguments.recipe, &arguments.overrides).map_err(|problems| Failure::Input(problems.into()))
}
