//! The ground floor: errors, settings, seeded orders, and what guards against hostile files.

mod choice;
mod defect;
mod error;
mod order;
mod prompt_format;
mod settings;
mod temporary;
mod untrusted;

pub use self::choice::Choice;
pub use self::defect::Defect;
pub use self::error::{Error, Location, nearest};
pub(crate) use self::error::{and_more, quoted_list};
pub(crate) use self::order::{Purpose, held_out_rows, in_turn, shuffled};
pub(crate) use self::prompt_format::fill_in;
pub use self::prompt_format::{PromptFormat, check_format};
pub use self::settings::{BatchSettings, DatasetSettings, Excess, HeldOut, RowFormat, SourceSettings, TrainOnEnd};
pub(crate) use self::temporary::{temporary_file, unique_suffix};
pub(crate) use self::untrusted::{guarded, read_bounded};
