//! What panics say. A library's thread may die of one that the thread that waits for it sees nothing of, or only what
//! followed from it.

use std::sync::{Mutex, PoisonError};

/// The first panic that nobody has asked about; others follow from it.
static HEARD: Mutex<Option<String>> = Mutex::new(None);

/// Keeps what panics say, of any thread, and prints nothing.
pub(crate) fn listen() {
    std::panic::set_hook(Box::new(|panic| {
        HEARD.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| panic.to_string());
    }));
}

/// What the first panic said since this was last asked.
pub(crate) fn take() -> Option<String> {
    HEARD.lock().unwrap_or_else(PoisonError::into_inner).take()
}
