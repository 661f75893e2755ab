//! Ctrl-C, SIGTERM and SIGHUP: what a signal does while a run lasts.
//!
//! While there is something to save, the first one is for the run to see, which saves and ends; a second one ends the
//! program at once. While there is nothing to save, the first one does. Ending at once does no harm: what is written
//! gets its name when it is whole.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use thiserror::Error;

/// The exit code of a run that a signal ended.
pub const EXIT_CODE: u8 = 130;

/// A signal came.
static REQUESTED: AtomicBool = AtomicBool::new(false);
/// What is said when a signal ends the program at once; none while the run has something to save.
static LAST_WORDS: Mutex<Option<String>> = Mutex::new(None);

/// A signal asks the run to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("interrupted")]
pub struct Interrupted;

/// An error once a signal has come while there was something to save.
///
/// # Errors
/// As it says.
pub fn check() -> Result<(), Interrupted> {
    match REQUESTED.load(Ordering::Relaxed) {
        true => Err(Interrupted),
        false => Ok(()),
    }
}

/// From now on there is nothing to save: a signal ends the program, which says `words`.
pub fn end_at_once(words: impl Into<String>) {
    *LAST_WORDS.lock().unwrap_or_else(PoisonError::into_inner) = Some(words.into());
}

/// From now on there is something to save.
pub fn save_first() {
    *LAST_WORDS.lock().unwrap_or_else(PoisonError::into_inner) = None;
}

/// Begins to listen, with nothing to save. A signal that is ignored stays so, as `nohup` and shells have it.
#[cfg(unix)]
pub fn listen(say: impl Fn(&str) + Send + 'static) -> std::io::Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

    end_at_once("interrupted before the first step: nothing is lost, run it again");
    let ignored = ignored_signals();
    let heard = [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|signal| ignored & (1 << (signal - 1)) == 0);
    let mut signals = signal_hook::iterator::Signals::new(heard)?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for _ in signals.forever() {
            let words = LAST_WORDS.lock().unwrap_or_else(PoisonError::into_inner).take();
            match words {
                Some(words) => say(&words),
                None if !REQUESTED.swap(true, Ordering::Relaxed) => {
                    say("interrupted: what was learnt is being saved; once more ends at once");
                    continue;
                }
                None => {}
            }
            signal_hook::low_level::exit(i32::from(EXIT_CODE));
        }
    })?;
    Ok(())
}

/// Other systems end the program at once by themselves.
#[cfg(not(unix))]
pub fn listen(_: impl Fn(&str) + Send + 'static) -> std::io::Result<()> {
    Ok(())
}

/// The signals that this process was started to ignore, a bit each; none where the system has no `/proc` to say it.
#[cfg(unix)]
fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}
