//! Whether there is room on disk for a generation before anything is touched for it. The one in force needs none.
//!
//! A generation that comes into force is kept in the data folder, and the one before it as well. Where that does not fit,
//! a host that starts anew would come up on something older than what it served, or on nothing.

use std::{
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

/// Room beside the bundle itself, bytes: for what the store notes of a generation, and for the generation before it.
const BESIDE_BYTES: u64 = 16 * 1024 * 1024;

/// Why this bundle cannot be kept in the data folder, if it cannot. What the system does not tell speaks against nothing.
pub(crate) fn lack(bundle: &OwnedFd, data_dir: &Path) -> Option<String> {
    let bytes = nix::sys::stat::fstat(bundle.as_fd()).ok()?.st_size;
    let disk = nix::sys::statvfs::statvfs(data_dir).ok()?;
    let free_bytes = disk.blocks_available().saturating_mul(disk.fragment_size());
    sentence(u64::try_from(bytes).unwrap_or(0), free_bytes, data_dir)
}

fn sentence(bytes: u64, free_bytes: u64, data_dir: &Path) -> Option<String> {
    let expected = bytes.saturating_add(BESIDE_BYTES);
    (free_bytes < expected).then(|| {
        format!(
            "{}: found {free_bytes} bytes free on its disk, expected {expected}, so that the generation can be kept",
            data_dir.display()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generation_needs_room_for_itself_and_some_beside_it() {
        let place = Path::new("/data");
        assert_eq!(sentence(1000, BESIDE_BYTES + 1000, place), None);
        insta::assert_snapshot!(
            sentence(1000, BESIDE_BYTES + 999, place).unwrap(),
            @"/data: found 16778215 bytes free on its disk, expected 16778216, so that the generation can be kept"
        );
    }

    #[test]
    fn where_nothing_is_known_nothing_is_lacking() {
        let bundle = std::fs::File::open("/dev/null").unwrap().into();
        assert_eq!(lack(&bundle, Path::new("/no/such/folder")), None);
        assert_eq!(lack(&bundle, &std::env::temp_dir()), None, "there is room for nothing");
    }
}
