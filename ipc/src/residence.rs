//! What of a process is in memory although it is not used.
//!
//! All processes of a host run the same image, and the kernel maps a piece of it around every page that is touched. What
//! runs once, while a process starts, stays mapped for as long as it lives.

use std::{ffi::c_void, fs, ptr};

use rustix::mm::Advice;

use crate::IpcError;

/// Where the kernel lists the mappings of the process.
const MAPPINGS: &str = "/proc/self/maps";

/// Lets go of all code pages. Those that are run again are mapped again, from the memory that the kernel keeps for the
/// file and for the other processes that run it. Returns how many bytes of code were let go of.
///
/// # Errors
/// When the mappings cannot be listed, or the kernel refuses.
pub fn let_go_of_code() -> Result<usize, IpcError> {
    let text =
        fs::read_to_string(MAPPINGS).map_err(|error| IpcError::os(format!("reading {MAPPINGS}"), error))?;
    let mut bytes = 0;
    for (start, end) in text.lines().filter_map(code_of_file) {
        advise(start, end - start).map_err(|error| IpcError::os("letting go of code pages", error))?;
        bytes += end - start;
    }
    Ok(bytes)
}

#[expect(unsafe_code, reason = "telling the kernel about a range of addresses is only possible so")]
fn advise(start: usize, length: usize) -> rustix::io::Result<()> {
    let start = ptr::with_exposed_provenance_mut::<c_void>(start);
    // SAFETY: the range is a whole private mapping of a file that is executable and not writable, as the kernel listed
    // it just now, and code is never unmapped in this process. Nothing has ever written to it, so its pages are the
    // file's, and whoever reads or runs one afterwards gets the same bytes again.
    unsafe { rustix::mm::madvise(start, length, Advice::LinuxDontNeed) }
}

/// First byte and the one behind the last of a line that lists code of a file (proc_pid_maps(5)).
fn code_of_file(line: &str) -> Option<(usize, usize)> {
    let mut words = line.split_ascii_whitespace();
    let (range, permissions) = (words.next()?, words.next()?);
    let inode = words.nth(2)?;
    if permissions != "r-xp" || inode == "0" {
        return None;
    }
    let (start, end) = range.split_once('-')?;
    let address = |text| usize::from_str_radix(text, 16).ok();
    address(start).zip(address(end)).filter(|(start, end)| start < end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_of_files_is_let_go_of() {
        let lines = [
            "55d0c0a00000-55d0c0b00000 r-xp 0047a000 fe:00 131 /usr/bin/aegis",
            "55d0c0b00000-55d0c0c00000 r--p 011c4000 fe:00 131 /usr/bin/aegis",
            "55d0c0c00000-55d0c0d00000 rw-p 0124f000 fe:00 131 /usr/bin/aegis",
            "7f0000000000-7f0000001000 r-xp 00000000 00:00 0 [vdso]",
            "7f0000001000-7f0000002000 r-xs 00000000 00:01 9 /memfd:code",
            "",
        ];
        let found: Vec<_> = lines.iter().filter_map(|line| code_of_file(line)).collect();
        assert_eq!(found, [(0x55d0_c0a0_0000, 0x55d0_c0b0_0000)]);
    }

    #[test]
    fn a_process_runs_on_without_its_code_pages() {
        assert!(let_go_of_code().unwrap() > 0);
        let again: String = (0..100).map(|number| format!("{number:03}")).collect();
        assert_eq!(again.len(), 300);
    }
}
