//! Ctrl-C, SIGTERM and SIGHUP during a run.
//!
//! While there is something to save, the first signal asks the run to save and end, and a second one ends the program at
//! once. While there is nothing to save, the first one does. Ending at once does no harm: a file gets its name when it is
//! whole.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use thiserror::Error;

/// The exit code of a run that a signal ended.
pub const EXIT_CODE: u8 = 130;

/// Set once a signal came.
static REQUESTED: AtomicBool = AtomicBool::new(false);
/// The message when a signal ends the program at once; none while the run has something to save.
static MESSAGE: Mutex<Option<String>> = Mutex::new(None);

/// A signal asks the run to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("interrupted")]
pub struct Interrupted;

/// Returns an error once a signal has come.
///
/// # Errors
/// When a signal came while there was something to save.
pub fn check() -> Result<(), Interrupted> {
    if REQUESTED.load(Ordering::Relaxed) { Err(Interrupted) } else { Ok(()) }
}

/// Declares that there is nothing to save: from now on a signal ends the program with `message`.
pub fn end_at_once(message: impl Into<String>) {
    *MESSAGE.lock().unwrap_or_else(PoisonError::into_inner) = Some(message.into());
}

/// Declares that there is something to save.
pub fn save_first() {
    *MESSAGE.lock().unwrap_or_else(PoisonError::into_inner) = None;
}

/// Starts to handle signals, with nothing to save yet. A signal that the process was started to ignore stays ignored, as
/// `nohup` and shells expect.
///
/// # Errors
/// When the system refuses the handlers or the thread.
#[cfg(unix)]
pub fn listen(say: impl Fn(&str) + Send + 'static) -> std::io::Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

    end_at_once("interrupted before the first step: nothing is lost, run it again");
    let ignored = ignored_signals();
    let heard = [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|signal| ignored & (1 << (signal - 1)) == 0);
    let mut signals = signal_hook::iterator::Signals::new(heard)?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for _ in signals.forever() {
            let message = MESSAGE.lock().unwrap_or_else(PoisonError::into_inner).take();
            match message {
                Some(message) => say(&message),
                None if !REQUESTED.swap(true, Ordering::Relaxed) => {
                    say("interrupted: saving a checkpoint; interrupt again to end at once");
                    continue;
                }
                None => {}
            }
            signal_hook::low_level::exit(i32::from(EXIT_CODE));
        }
    })?;
    Ok(())
}

/// Does nothing: other systems end the program at once.
///
/// # Errors
/// Never.
#[cfg(not(unix))]
pub fn listen(_: impl Fn(&str) + Send + 'static) -> std::io::Result<()> {
    Ok(())
}

/// The signals that this process was started to ignore, one bit each; none on a system without `/proc`.
#[cfg(unix)]
fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}
