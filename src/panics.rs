//! Messages of panics. A worker thread of a library may panic unseen by the waiting thread, or seen only in what follows.

use std::sync::{Mutex, PoisonError};

/// The first panic since the last [`take`]; others follow from it.
static FIRST: Mutex<Option<String>> = Mutex::new(None);

/// Keeps the messages of panics in any thread, and prints nothing.
pub(crate) fn listen() {
    std::panic::set_hook(Box::new(|panic| {
        FIRST.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| panic.to_string());
    }));
}

/// Returns the message of the first panic since the last call.
pub(crate) fn take() -> Option<String> {
    FIRST.lock().unwrap_or_else(PoisonError::into_inner).take()
}
