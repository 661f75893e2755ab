//! Files to rows: the files of a source, the rows of it that are selected, and their columns.

pub(crate) mod container;
mod file_stamps;
pub(crate) mod files;
mod listing;
mod row;
pub(crate) mod selection;
mod split;

#[cfg(test)]
pub(crate) use self::container::Kind;
pub use self::container::file_types;
pub(crate) use self::container::{RawRow, Unit};
pub(crate) use self::file_stamps::Stamps;
pub(crate) use self::files::{DataFile, PartFiles};
pub use self::files::{SUFFIXES, check_files, nearest_path};
pub use self::listing::{SplitFiles, is_data_file, matching_paths, split_names, splits_of};
pub(crate) use self::row::{Row, RowProblem, described, not_a_number, wrong_type};
pub(crate) use self::selection::{ReaderMessage, Selection};
pub use self::split::find_split;
