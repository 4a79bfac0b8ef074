//! Files that are there as a whole: written beside, synced, renamed, and the folder synced. Whoever reads meanwhile, and whoever
//! reads after a power cut, finds what was there or what is there now.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

/// What it means that the folder of a file cannot be synced, so that a power cut may still take the file away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FolderSync {
    /// A failure.
    Required,
    /// Nothing, where this folder cannot be synced at all: it may be written but not read, or its file system does not know
    /// that.
    WherePossible,
}

/// Puts `bytes` in the place of what is at `path`, if anything. A file that is made gets `mode`, less the umask.
///
/// # Errors
/// Of the file system; what was there is still there then, unless only the last sync has failed.
pub fn replace(path: &Path, mode: u32, bytes: &[u8], sync: FolderSync) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = Path::new(&beside);
    let mut file = File::options().write(true).create(true).truncate(true).mode(mode).open(beside)?;
    file.write_all(bytes)?;
    put_in_place(&file, beside, path, sync)
}

/// Puts `file`, which was written `beside`, in the place of what is at `path`.
///
/// # Errors
/// Of the file system.
pub fn put_in_place(file: &File, beside: &Path, path: &Path, sync: FolderSync) -> io::Result<()> {
    file.sync_all()?;
    fs::rename(beside, path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let synced = File::open(folder.unwrap_or(Path::new("."))).and_then(|folder| folder.sync_all());
    match synced {
        Err(error) if sync == FolderSync::WherePossible && is_impossible(&error) => Ok(()),
        synced => synced,
    }
}

/// Whether a folder of which this was said cannot be synced, rather than that it went wrong.
fn is_impossible(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let known = error.raw_os_error().map(Errno::from_raw_os_error);
    known.is_some_and(|errno| [Errno::ACCESS, Errno::INVAL, Errno::OPNOTSUPP].contains(&errno))
}

#[cfg(test)]
mod tests {
    use std::{fs::Permissions, os::unix::fs::PermissionsExt, thread};

    use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};

    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole_and_nothing_is_left_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("note.json");
        fs::write(folder.path().join("note.json.new"), "what an earlier one left when it was killed")
            .unwrap();
        replace(&path, 0o600, b"one", FolderSync::Required).unwrap();
        replace(&path, 0o600, b"2", FolderSync::Required).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"2");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o077, 0);
    }

    #[test]
    fn what_cannot_be_written_leaves_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("note");
        fs::create_dir(folder.path().join("note.new")).unwrap();
        fs::write(&path, "before").unwrap();
        assert!(replace(&path, 0o600, b"after", FolderSync::Required).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"before");
    }

    #[test]
    fn a_file_in_the_present_folder_is_replaced_too() {
        let path = Path::new("replaced-in-the-present-folder");
        let replaced = replace(path, 0o600, b"here", FolderSync::Required);
        let removed = fs::remove_file(path);
        assert!(replaced.is_ok() && removed.is_ok(), "{replaced:?} {removed:?}");
    }

    #[test]
    fn a_folder_that_may_not_be_read_is_a_failure_only_where_the_sync_is_required() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("note");
        fs::set_permissions(folder.path(), Permissions::from_mode(0o300)).unwrap();
        // Permissions count for root, too, once it has no capabilities.
        let replaced = |bytes: &'static [u8], sync| {
            let none = CapabilitySet::empty();
            let none = CapabilitySets { effective: none, permitted: none, inheritable: none };
            let act = || {
                set_capabilities(None, none).unwrap();
                replace(&path, 0o600, bytes, sync)
            };
            thread::scope(|scope| scope.spawn(act).join().unwrap())
        };
        let required = replaced(b"one", FolderSync::Required).map_err(|error| error.kind());
        let where_possible = replaced(b"2", FolderSync::WherePossible);
        fs::set_permissions(folder.path(), Permissions::from_mode(0o700)).unwrap();
        assert_eq!(required, Err(io::ErrorKind::PermissionDenied));
        where_possible.unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"2");
    }

    #[test]
    fn a_folder_that_could_be_synced_and_was_not_is_a_failure_everywhere() {
        let impossible = |code| is_impossible(&io::Error::from_raw_os_error(code));
        assert!([nix::libc::EINVAL, nix::libc::ENOTSUP, nix::libc::EACCES].into_iter().all(impossible));
        assert!(![nix::libc::EIO, nix::libc::ENOSPC, nix::libc::ENOENT].into_iter().any(impossible));
    }
}
