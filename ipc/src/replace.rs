//! Files that are there as a whole: written beside, synced, renamed, and the folder synced. Whoever reads meanwhile, and whoever
//! reads after a power cut, finds what was there or what is there now.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

/// Puts `bytes` in the place of what is at `path`, if anything. A file that is made gets `mode`, less the umask.
///
/// # Errors
/// Of the file system; what was there is still there then, unless only the last sync has failed.
pub fn replace(path: &Path, mode: u32, bytes: &[u8]) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = Path::new(&beside);
    let mut file = File::options().write(true).create(true).truncate(true).mode(mode).open(beside)?;
    file.write_all(bytes)?;
    put_in_place(&file, beside, path)
}

/// Puts `file`, which was written `beside`, in the place of what is at `path`.
///
/// # Errors
/// Of the file system.
pub fn put_in_place(file: &File, beside: &Path, path: &Path) -> io::Result<()> {
    file.sync_all()?;
    fs::rename(beside, path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole_and_nothing_is_left_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("note.json");
        fs::write(folder.path().join("note.json.new"), "what an earlier one left when it was killed")
            .unwrap();
        replace(&path, 0o600, b"one").unwrap();
        replace(&path, 0o600, b"2").unwrap();
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
        assert!(replace(&path, 0o600, b"after").is_err());
        assert_eq!(fs::read(&path).unwrap(), b"before");
    }

    #[test]
    fn a_file_in_the_present_folder_is_replaced_too() {
        let path = Path::new("replaced-in-the-present-folder");
        let replaced = replace(path, 0o600, b"here");
        let removed = fs::remove_file(path);
        assert!(replaced.is_ok() && removed.is_ok(), "{replaced:?} {removed:?}");
    }
}
