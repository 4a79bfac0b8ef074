//! What of a process is in memory although it is not used.
//!
//! All processes of a host run the same image, and the kernel maps a piece of it around every page that is touched. What
//! is needed once, while a process starts, stays mapped for as long as it lives.

use std::{ffi::c_void, fs, ptr};

use rustix::mm::Advice;

use crate::IpcError;

/// Where the kernel lists the mappings of the process and what is in them.
const MAPPINGS: &str = "/proc/self/smaps";
/// What the kernel calls pages of a mapping that are not those of its file: somebody wrote to them.
const WRITTEN: &str = "Anonymous:";

/// A mapping, as the kernel lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mapping {
    start: usize,
    end: usize,
}

/// Lets go of all pages of the image and its libraries that are as they are in the files. Those that are needed again
/// are mapped again, from the memory that the kernel keeps for the files and for the other processes that use them.
/// Returns how many bytes of addresses that was. For processes with one thread.
///
/// # Errors
/// When the mappings cannot be listed, or the kernel refuses.
pub fn let_go_of_code() -> Result<usize, IpcError> {
    let text =
        fs::read_to_string(MAPPINGS).map_err(|error| IpcError::os(format!("reading {MAPPINGS}"), error))?;
    let mut bytes = 0;
    for Mapping { start, end } in untouched(&text) {
        advise(start, end - start).map_err(|error| IpcError::os("letting go of code pages", error))?;
        bytes += end - start;
    }
    Ok(bytes)
}

#[expect(unsafe_code, reason = "telling the kernel about a range of addresses is only possible so")]
fn advise(start: usize, length: usize) -> rustix::io::Result<()> {
    let start = ptr::with_exposed_provenance_mut::<c_void>(start);
    // SAFETY: the range is a whole private mapping of a file that cannot be written, and of which the kernel said just
    // now that no page was ever written to. So all its pages are the file's, and whoever reads or runs one afterwards
    // gets the same bytes again. Our only thread is here, so nobody has changed the mapping since.
    unsafe { rustix::mm::madvise(start, length, Advice::LinuxDontNeed) }
}

/// Private mappings of files that cannot be written and never were (proc_pid_smaps(5)).
fn untouched(text: &str) -> Vec<Mapping> {
    let mut found = Vec::new();
    let mut current = None;
    for line in text.lines() {
        if let Some(written) = line.strip_prefix(WRITTEN) {
            let is_untouched = written.trim() == "0 kB";
            found.extend(current.take().filter(|_| is_untouched));
        } else if line.split_ascii_whitespace().next().is_some_and(|word| !word.ends_with(':')) {
            current = of_file(line);
        }
    }
    found
}

/// The mapping that a heading is about, if it is a private one of a file that cannot be written.
fn of_file(heading: &str) -> Option<Mapping> {
    let mut words = heading.split_ascii_whitespace();
    let (range, permissions) = (words.next()?, words.next()?);
    let inode = words.nth(2)?;
    if !matches!(permissions, "r-xp" | "r--p") || inode == "0" {
        return None;
    }
    let (start, end) = range.split_once('-')?;
    let address = |text| usize::from_str_radix(text, 16).ok();
    let (start, end) = (address(start)?, address(end)?);
    (start < end).then_some(Mapping { start, end })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_as_in_the_file_is_let_go_of() {
        let mappings = [
            ("55d0c0900000-55d0c0a00000 r--p 00000000 fe:00 131 /usr/bin/aegis", 0),
            ("55d0c0a00000-55d0c0b00000 r-xp 0047a000 fe:00 131 /usr/bin/aegis", 0),
            ("55d0c0b00000-55d0c0c00000 r--p 011c4000 fe:00 131 /usr/bin/aegis", 528),
            ("55d0c0c00000-55d0c0d00000 rw-p 0124f000 fe:00 131 /usr/bin/aegis", 0),
            ("7f0000000000-7f0000001000 r-xp 00000000 00:00 0 [vdso]", 0),
            ("7f0000001000-7f0000002000 r-xs 00000000 00:01 9 /memfd:code", 0),
        ];
        let text: String = mappings
            .iter()
            .map(|(heading, written)| {
                format!("{heading}\nSize:  1024 kB\nRss:  900 kB\nAnonymous:  {written} kB\nVmFlags: rd mr\n")
            })
            .collect();
        let ranges: Vec<_> = untouched(&text).iter().map(|mapping| (mapping.start, mapping.end)).collect();
        assert_eq!(ranges, [(0x55d0_c090_0000, 0x55d0_c0a0_0000), (0x55d0_c0a0_0000, 0x55d0_c0b0_0000)]);
    }

    #[test]
    fn a_process_runs_on_without_its_code_pages() {
        let text = fs::read_to_string(MAPPINGS).unwrap();
        let code: Vec<_> = text.lines().filter_map(of_file).collect();
        assert!(!code.is_empty() && untouched(&text).len() <= code.len());
        assert!(let_go_of_code().unwrap() > 0);
        let again: String = (0..100).map(|number| format!("{number:03}")).collect();
        assert_eq!(again.len(), 300);
    }
}
