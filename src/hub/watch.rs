//! The error of a process that reads a mapped file which another one has cut short.
//!
//! Reading such a page raises SIGBUS, which nothing can return from. Files that are mapped are entered here with
//! their names, and the handler writes which of them it was and ends the process; a SIGBUS that is none of theirs
//! ends it as if there were no handler.

use std::path::Path;
use std::sync::Once;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use crate::hint::with_hint;

/// Files that can be entered at a time; more are mapped all the same, without an error message of their own.
const MAX_FILES: usize = 1024;

/// A mapped file: the addresses from `start` to below `end`, and the error message for it, with its length.
struct MappedFile {
    start: AtomicUsize,
    end: AtomicUsize,
    text: AtomicPtr<u8>,
    text_len: AtomicUsize,
}

static MAPPED: [MappedFile; MAX_FILES] = [const {
    MappedFile {
        start: AtomicUsize::new(0),
        end: AtomicUsize::new(0),
        text: AtomicPtr::new(std::ptr::null_mut()),
        text_len: AtomicUsize::new(0),
    }
}; MAX_FILES];

/// An entry, taken back when it is dropped.
#[derive(Debug)]
pub(super) struct Watched(Option<usize>);

/// Enters the file at `path`, which is mapped to `bytes`.
pub(super) fn watch(path: &Path, bytes: &[u8]) -> Watched {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(install);
    let start = bytes.as_ptr().addr();
    let free =
        |file: &MappedFile| file.end.compare_exchange(0, usize::MAX, Ordering::AcqRel, Ordering::Relaxed).is_ok();
    let Some(index) = MAPPED.iter().position(free) else { return Watched(None) };
    let file = &MAPPED[index];
    let message = format!("error: {}: the file became shorter while it was being read", plain(path));
    let text = with_hint(&message, "let nothing write to a base model that is in use; download it again") + "\n";
    // The handler may read it at any time: it is never freed, and a few hundred bytes for each mapped file.
    let text: &'static mut [u8] = text.into_bytes().leak();
    file.text_len.store(text.len(), Ordering::Relaxed);
    file.text.store(text.as_mut_ptr(), Ordering::Relaxed);
    file.start.store(start, Ordering::Relaxed);
    file.end.store(start + bytes.len(), Ordering::Release);
    Watched(Some(index))
}

/// The path without characters that steer a terminal.
fn plain(path: &Path) -> String {
    path.display().to_string().chars().filter(|character| !character.is_control()).collect()
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let Some(index) = self.0 {
            MAPPED[index].start.store(usize::MAX, Ordering::Relaxed);
            MAPPED[index].end.store(0, Ordering::Release);
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn install() {}

#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "a signal's handler is set by a call of the system's library")]
fn install() {
    // SAFETY: all zeros is a valid `sigaction`; the handler does only what POSIX allows in one (see there), and has the
    // signature that SA_SIGINFO asks for.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = explain as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut());
    }
}

#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "what may be called in a signal's handler are functions of the system's library")]
extern "C" fn explain(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: with SA_SIGINFO the system hands over a valid `siginfo_t`, which for SIGBUS has an address.
    let address = unsafe { (*info).si_addr() }.addr();
    for file in &MAPPED {
        let end = file.end.load(Ordering::Acquire);
        if end != usize::MAX && (file.start.load(Ordering::Relaxed)..end).contains(&address) {
            // SAFETY: the text is leaked and its length was stored before the end was; write and _exit are
            // async-signal-safe.
            unsafe {
                libc::write(2, file.text.load(Ordering::Relaxed).cast(), file.text_len.load(Ordering::Relaxed));
                libc::_exit(2);
            }
        }
    }
    // SAFETY: signal is async-signal-safe; with the default action the same instruction raises the signal again.
    unsafe {
        libc::signal(libc::SIGBUS, libc::SIG_DFL);
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::process::Command;

    use super::super::fixtures::{Scratch, safetensors};
    use super::super::weights::Weights;

    /// The variable that makes this test the process that is to die.
    const FOLDER: &str = "TUNE_TEST_CUT_FOLDER";

    #[test]
    fn a_file_that_is_cut_while_it_is_mapped_is_named() {
        if let Some(folder) = std::env::var_os(FOLDER) {
            let weights = Weights::open(folder.as_ref()).expect("a sound file").expect("weights");
            let file = std::fs::File::options().write(true).open(weights.folder().join("model.safetensors"));
            file.and_then(|file| file.set_len(100)).expect("own file");
            let sum: f32 = weights.to_f32("a").expect("the page is gone before").iter().sum();
            panic!("read {sum} from a file that was cut");
        }
        let folder = Scratch::new("watch");
        let header = r#"{"a":{"dtype":"F32","shape":[65536],"data_offsets":[0,262144]}}"#;
        folder.write("model.safetensors", safetensors(header, 262_144));
        let mut child = Command::new(std::env::current_exe().expect("this test"));
        child.args(["--exact", "--nocapture", "hub::watch::tests::a_file_that_is_cut_while_it_is_mapped_is_named"]);
        let output = child.env(FOLDER, folder.path()).output().expect("this test runs");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(
            stderr.contains("model.safetensors: the file became shorter while it was being read\nhint: "),
            "{stderr}"
        );
    }
}
