//! How much of a file the kernel has in memory only: what a power cut would take, and what no kill can.

use std::{path::Path, process::Command};

/// Prints pages in memory, dirty and under writeback for each file; or that the kernel does not know the call. Perl, because a
/// call that no crate wraps would be unsafe code here.
const ASK: &str = r#"
for my $path (@ARGV) {
    open(my $file, '<', $path) or die "$path: $!\n";
    my ($range, $found) = (pack('QQ', 0, 0), "\0" x 40);
    if (syscall(451, fileno($file), $range, $found, 0) != 0) { die "cachestat: $!\n" }
    printf "%d %d %d\n", (unpack('Q5', $found))[0, 1, 2];
}
"#;

/// Pages of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pages {
    /// In memory.
    pub cached: u64,
    /// Of those, not on the disk, or not known to be.
    pub unsynced: u64,
}

/// What the kernel has of these files, in their order.
///
/// # Errors
/// Why it is not known: `cachestat` came with Linux 6.5.
pub fn pages<P: AsRef<Path>>(files: &[P]) -> Result<Vec<Pages>, String> {
    let mut command = Command::new("perl");
    command.args(["-e", ASK]).args(files.iter().map(AsRef::as_ref));
    let output = command.output().map_err(|error| format!("perl: {error}"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let numbers: Vec<u64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let pages = |three: &[u64]| Pages { cached: three[0], unsynced: three[1] + three[2] };
    Ok(numbers.chunks_exact(3).map(pages).collect())
}
