//! Rows to examples: a format turns a row into a sample, that becomes tokens with a mask, and checks decide its fate.

mod example;
pub(crate) mod formats;
mod hidden;
mod mask;
mod prompt_form;
mod question;
mod row_checks;
mod sample;

pub use self::example::Example;
pub(crate) use self::formats::Format;
pub use self::formats::{DatasetType, dataset_types};
pub(crate) use self::mask::{Masked, Training, mask};
pub(crate) use self::prompt_form::prompt_form;
pub use self::question::Question;
pub(crate) use self::question::question;
pub(crate) use self::row_checks::{Content, Findings, Place, RowChecks};
pub use self::sample::{Sample, Segment};
