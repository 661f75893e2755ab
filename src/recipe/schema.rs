//! The schema of recipes: one row per key, from which keys are read, documented and compared on resume.
//!
//! A row is written once, with the `keys!` macro: its documentation is the key's meaning, its kind reads and describes
//! the values, and its field holds the value with its place. What is accepted without effect or refused with advice
//! is in [`no_effect`](super::no_effect) and [`refused`](super::refused).

mod json;
mod markdown;
mod sections;
#[cfg(test)]
mod tests;
mod top;

use std::sync::LazyLock;

use serde_json::Value as Json;

use super::kinds::{Inner, Kind};
pub(super) use super::no_effect::NoEffect;
use super::reader::Section;
pub(super) use super::refused::Refused;

pub use json::json_schema;
pub use markdown::reference;
pub use sections::{BnbConfig, DatasetEntry, Export, Preflight};
pub use top::Recipe;

/// The treatment of a key when a run resumes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnResume {
    /// The value must be that of the interrupted run.
    Fixed,
    /// The value may change if the user allows it.
    Changeable,
    /// The value is not compared: it locates a run and does not define it.
    NotCompared,
}

/// One key: everything but the kind of its values.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    /// The name, as written in recipes.
    pub(super) name: &'static str,
    /// The group that the reference lists it in; empty inside a section.
    pub(super) group: &'static str,
    /// The meaning, in a sentence or two.
    pub(super) meaning: &'static str,
    /// The value that holds if none is written, in YAML.
    pub(super) default: Option<&'static str>,
    /// The same in words, where it depends on other keys, the model or the device.
    pub(super) otherwise: &'static str,
    /// The version of this program that reads it first.
    pub(super) since: &'static str,
    /// The difference from Axolotl; empty if there is none.
    pub(super) axolotl: &'static str,
    /// Its treatment when a run resumes; keys of a section follow their section.
    pub(super) resume: OnResume,
    /// Advice on a missing or an unsupported value.
    pub(super) hint: &'static str,
    /// Its names in other programs, with white space between them.
    pub(super) known_as: &'static str,
    /// Set if a recipe must have the key.
    pub(super) is_required: bool,
}

/// A key of which nothing but its name is special.
pub(super) const PLAIN: Key = Key {
    name: "",
    group: "",
    meaning: "",
    default: None,
    otherwise: "",
    since: FIRST_VERSION,
    axolotl: "",
    resume: OnResume::Fixed,
    hint: "",
    known_as: "",
    is_required: false,
};

/// The version in which the schema begins.
const FIRST_VERSION: &str = "0.1";

/// The [`Key::axolotl`] of keys that Axolotl does not have.
pub(super) const NOT_IN_AXOLOTL: &str = "It is not a key of Axolotl.";

/// A key with the kind of its values.
pub(super) struct Row {
    pub(super) key: Key,
    pub(super) accepts: String,
    pub(super) schema: Json,
    pub(super) inner: Option<Inner>,
}

impl Row {
    pub(super) fn new<T>(key: Key, kind: Kind<T>) -> Row {
        Row { key, accepts: kind.accepts, schema: kind.schema, inner: kind.inner }
    }
}

/// A mapping of keys: the recipe itself, or a section of it.
pub(super) trait Keys: Sized {
    /// Keys that are accepted and change nothing.
    const NO_EFFECT: &'static [NoEffect];
    /// Keys that are real and not implemented.
    const REFUSED: &'static [Refused];

    /// The keys that are honoured.
    fn rows() -> Vec<Row>;

    /// Reads every key.
    fn read(section: &mut Section<'_>) -> Self;
}

/// The keys of the top level with their treatment when a run resumes.
static ON_RESUME: LazyLock<Vec<(&str, OnResume)>> =
    LazyLock::new(|| Recipe::rows().iter().map(|row| (row.key.name, row.key.resume)).collect());

/// The treatment of `key`, a name at the top level of a recipe, when a run resumes; unknown keys are fixed.
pub fn on_resume(key: &str) -> OnResume {
    ON_RESUME.iter().find(|(name, _)| *name == key).map_or(OnResume::Fixed, |(_, resume)| *resume)
}

/// True if `name` is a key at the top level of a recipe.
pub fn is_key(name: &str) -> bool {
    ON_RESUME.iter().any(|(key, _)| *key == name)
}

/// The key that `name` stands for on a command line: the key itself, in any spelling, or its name in other programs.
pub fn key_called(name: &str) -> Option<&'static str> {
    let name = name.trim_start_matches('-').replace('-', "_");
    let means = |key: &Key| key.name == name || key.known_as.split_whitespace().any(|known| known == name);
    Recipe::rows().into_iter().map(|row| row.key).find(means).map(|key| key.name)
}

/// The keys that may change when a run resumes, if the user allows it.
pub fn changeable() -> Vec<&'static str> {
    ON_RESUME.iter().filter(|(_, resume)| *resume == OnResume::Changeable).map(|(name, _)| *name).collect()
}

/// The default of a key at the top level, as it is printed.
#[cfg(test)]
pub(super) fn default_of(name: &str) -> Option<&'static str> {
    Recipe::rows().into_iter().find(|row| row.key.name == name)?.key.default
}

/// Every key with the section that has it; the top level is "".
static HOMES: LazyLock<Vec<(&str, &str)>> = LazyLock::new(|| {
    let mut homes = Vec::new();
    let mut add = |section: &'static str, rows: &[Row], no_effect: &'static [NoEffect]| {
        homes.extend(rows.iter().map(|row| (row.key.name, section)));
        homes.extend(no_effect.iter().map(|row| (row.key, section)));
    };
    let top = Recipe::rows();
    add("", &top, Recipe::NO_EFFECT);
    for row in &top {
        if let Some(inner) = &row.inner {
            add(row.key.name, &inner.rows, inner.no_effect);
        }
    }
    homes
});

/// The section that has the key `name`, if any has: "" is the top level.
pub(super) fn home(name: &str) -> Option<&'static str> {
    HOMES.iter().find(|(key, _)| *key == name).map(|(_, section)| *section)
}

/// Defines a mapping of keys: a struct with a [`Setting`](super::Setting) per key, and its [`Keys`].
///
/// `pub struct X` makes the struct; `for X` fills one that another module owns, whose fields are plain values. A row is
/// `/// meaning`, `field: Type = kind`, and in braces whatever differs from [`PLAIN`]; `field as "name"` gives a key
/// another name than its field.
macro_rules! keys {
    (@name $field:ident) => { stringify!($field) };
    (@name $field:ident $name:literal) => { $name };
    (@key $group:literal, $field:ident $($name:literal)?, [$($meaning:literal)+] $($attribute:ident: $content:expr),*) => {
        Key {
            name: keys!(@name $field $($name)?),
            group: $group,
            meaning: concat!($($meaning),+),
            $($attribute: $content,)*
            ..PLAIN
        }
    };
    (
        $(#[$struct_meta:meta])*
        pub struct $Name:ident {
            $( $(#[$own_meta:meta])* $visible:vis $own:ident: $Own:ty, )*
        }
        $( flatten $(#[$flat_meta:meta])* $flat:ident: $Flat:ty; )?
        no_effect $no_effect:expr;
        refused $refused:expr;
        $( $group:literal {
            $(
                $(#[doc = $meaning:literal])+
                $field:ident $(as $name:literal)?: $Value:ty = $kind:expr
                    $(, { $($attribute:ident: $content:expr),* $(,)? })?;
            )*
        } )*
    ) => {
        $(#[$struct_meta])*
        #[derive(Clone, Debug, Default)]
        pub struct $Name {
            $( $(#[$own_meta])* $visible $own: $Own, )*
            $( $(#[$flat_meta])* pub $flat: $Flat, )?
            $($( $(#[doc = $meaning])+ pub $field: Setting<$Value>, )*)*
        }

        impl Keys for $Name {
            const NO_EFFECT: &'static [NoEffect] = $no_effect;
            const REFUSED: &'static [Refused] = $refused;

            fn rows() -> Vec<Row> {
                let rows = vec![$($(
                    Row::new(keys!(@key $group, $field $($name)?, [$($meaning)+] $($($attribute: $content),*)?), $kind),
                )*)*];
                $( let rows: Vec<Row> = rows.into_iter().chain(<$Flat>::rows()).collect(); )?
                rows
            }

            fn read(section: &mut Section<'_>) -> Self {
                Self {
                    $( $own: Default::default(), )*
                    $($( $field: section.read(
                        &keys!(@key $group, $field $($name)?, [$($meaning)+] $($($attribute: $content),*)?),
                        &$kind,
                    ), )*)*
                    $( $flat: <$Flat>::read(section), )?
                }
            }
        }
    };
    (
        for $Name:ty;
        no_effect $no_effect:expr;
        refused $refused:expr;
        $(
            $(#[doc = $meaning:literal])+
            $field:ident $(as $name:literal)?: $Value:ty = $kind:expr
                $(, { $($attribute:ident: $content:expr),* $(,)? })?;
        )*
    ) => {
        impl Keys for $Name {
            const NO_EFFECT: &'static [NoEffect] = $no_effect;
            const REFUSED: &'static [Refused] = $refused;

            fn rows() -> Vec<Row> {
                vec![$(
                    Row::new(keys!(@key "", $field $($name)?, [$($meaning)+] $($($attribute: $content),*)?), $kind),
                )*]
            }

            #[allow(clippy::needless_update, reason = "some structs have keys alone")]
            fn read(section: &mut Section<'_>) -> Self {
                Self {
                    $( $field: section.read::<_, $Value>(
                        &keys!(@key "", $field $($name)?, [$($meaning)+] $($($attribute: $content),*)?),
                        &$kind,
                    ).into_value(), )*
                    ..Default::default()
                }
            }
        }
    };
}
use keys;
