//! Errors as they are shown: the message with its causes, and below it the hint.

mod several;

use std::borrow::Cow;
use std::error::Error;

pub use several::{kept, together};

use adapters::AttachError;
use adapters::peft::PeftError;

use crate::device::DeviceError;
use crate::export::{ExportError, UnmetNeed};
use crate::hint::{Hinted, with_hint};
use crate::hub::{AccessError, HubError};
use crate::model::DeviceFailure;
use crate::model::families::ConfigError;
use crate::model::names::WeightsError;
use crate::open::OpenError;
use crate::run_dir::{RunDirError, WriteError};
use crate::train::{ObjectiveError, StateError, TrainError};

/// The hint of an error of one type; none for other errors.
type HintOf = for<'e> fn(&'e (dyn Error + 'static)) -> Option<Cow<'e, str>>;

/// The types of errors that have hints.
const HINTS: [HintOf; 18] = [
    |error| error.downcast_ref::<Hinted>().map(|error| error.hint().into()),
    |error| error.downcast_ref::<datasets::Error>().map(datasets::Error::hint),
    |error| error.downcast_ref::<AccessError>()?.hint(),
    |error| error.downcast_ref::<AttachError>()?.hint(),
    |error| error.downcast_ref::<ConfigError>()?.hint(),
    |error| error.downcast_ref::<DeviceError>()?.hint(),
    |error| error.downcast_ref::<DeviceFailure>()?.hint(),
    |error| error.downcast_ref::<ExportError>()?.hint(),
    |error| error.downcast_ref::<HubError>()?.hint(),
    |error| error.downcast_ref::<ObjectiveError>()?.hint(),
    |error| error.downcast_ref::<OpenError>()?.hint(),
    |error| error.downcast_ref::<PeftError>()?.hint(),
    |error| error.downcast_ref::<RunDirError>()?.hint(),
    |error| error.downcast_ref::<StateError>()?.hint(),
    |error| error.downcast_ref::<TrainError>()?.hint(),
    |error| error.downcast_ref::<UnmetNeed>()?.hint(),
    |error| error.downcast_ref::<WeightsError>()?.hint(),
    |error| error.downcast_ref::<WriteError>()?.hint(),
];

/// The text of an error: its message, and below it its hint.
pub fn render(error: &anyhow::Error) -> String {
    match hint(error) {
        Some(hint) => with_hint(&message(error), &hint),
        None => message(error),
    }
}

/// The message of an error, followed by the causes that it does not quote already.
pub fn message(error: &anyhow::Error) -> String {
    let messages: Vec<String> = error.chain().map(ToString::to_string).collect();
    let around = |cause: String, message: String| {
        if message.contains(&cause) { message } else { format!("{message}: {cause}") }
    };
    messages.into_iter().rev().reduce(around).unwrap_or_default()
}

/// The hint of an error: the first one from the error itself down to its last cause.
pub fn hint(error: &anyhow::Error) -> Option<Cow<'_, str>> {
    error.chain().find_map(|cause| HINTS.iter().find_map(|hint_of| hint_of(cause)))
}

#[cfg(test)]
mod tests {
    use anyhow::{Context, Error, anyhow};

    use super::*;
    use crate::hint::hinted;

    fn missing() -> HubError {
        HubError::NoTensor { folder: "base".into(), tensor: "a".to_owned() }
    }

    #[test]
    fn causes_follow_the_message_and_the_hint_ends_the_text() {
        let error = Error::from(missing()).context("recipe.yaml:1:1 (base_model)");
        let text = "recipe.yaml:1:1 (base_model): base: no tensor `a` in the weights\nhint: `tune inspect` shows what the model has";
        assert_eq!(render(&error), text);
        assert_eq!(render(&anyhow!("plain")), "plain");
    }

    #[test]
    fn the_outermost_hint_is_shown() {
        let outer = Error::from(hinted("cannot be exported", "train again").caused_by(missing()));
        assert_eq!(render(&outer), "cannot be exported: base: no tensor `a` in the weights\nhint: train again");
        let context = outer.context("step 3");
        assert_eq!(hint(&context).as_deref(), Some("train again"));
        let through = Error::from(ExportError::from(missing()));
        assert_eq!(hint(&through).as_deref(), Some("`tune inspect` shows what the model has"));
    }

    #[test]
    fn several_problems_have_their_own_hints() {
        let one = || Error::from(hinted("one", "first"));
        assert_eq!(render(&together(vec![one()])), "one\nhint: first");
        let both = together(vec![one(), anyhow!("two").context("place")]);
        assert_eq!(render(&both), "one\nhint: first\nplace: two");
    }

    #[test]
    fn a_cause_that_is_quoted_is_not_repeated() {
        let source = || std::io::Error::other("the disk is gone");
        let error = WriteError { path: "out".into(), source: source() };
        assert_eq!(message(&Error::from(error)), "out: the disk is gone");
        let context: Error = Err::<(), _>(source()).context("out cannot be opened").unwrap_err();
        assert_eq!(render(&context), "out cannot be opened: the disk is gone");
    }
}
