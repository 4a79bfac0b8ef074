//! The name that the executable of this process was called by.
//!
//! It may be a link, such as `current`, that leads to another version one day. An upgrade from "where the host was started from"
//! means that version, and the kernel tells only where the link led at the start.

use std::{
    env,
    ffi::OsStr,
    fs::{self, File, Metadata},
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
};

/// Names in these folders are about the process that asks, and mean nothing to the next image.
const OF_THE_PROCESS: [&str; 2] = ["/proc", "/dev"];

/// The absolute name by which the image behind `running` was called. Nothing unless it leads to that very file: the first word of
/// a command line can be anything.
pub(super) fn of(running: &File) -> Option<PathBuf> {
    let called = env::args_os().next()?;
    let folder = env::current_dir().unwrap_or_default();
    meant(&called, &folder, env::var_os("PATH").as_deref()).filter(|path| leads_to(path, running))
}

fn leads_to(path: &Path, file: &File) -> bool {
    let identity = |about: Metadata| (about.dev(), about.ino());
    let (named, open) = (fs::metadata(path).map(identity), file.metadata().map(identity));
    matches!((named, open), (Ok(named), Ok(open)) if named == open)
}

/// What a shell in `folder` takes `called` for, when it searches these places.
fn meant(called: &OsStr, folder: &Path, search: Option<&OsStr>) -> Option<PathBuf> {
    let found = if called.as_bytes().contains(&b'/') {
        folder.join(called)
    } else {
        let mut places = env::split_paths(search?).map(|place| folder.join(place).join(called));
        places.find(|path| path.is_file())?
    };
    let path: PathBuf = found.components().collect(); // without what says nothing, such as `./`
    let is_lasting = path.is_absolute() && !OF_THE_PROCESS.iter().any(|place| path.starts_with(place));
    is_lasting.then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_made_absolute_as_a_shell_understands_it() {
        let folder = tempfile::tempdir().unwrap();
        for place in ["first/aegis", "second", "third"] {
            fs::create_dir_all(folder.path().join(place)).unwrap();
        }
        for place in ["second/aegis", "third/aegis"] {
            fs::write(folder.path().join(place), "").unwrap();
        }
        let search = format!("first:{}:third", folder.path().join("second").display());
        let found = |called: &str, search: Option<&str>| {
            meant(OsStr::new(called), folder.path(), search.map(OsStr::new))
        };
        assert_eq!(found("/opt/current/aegis", None), Some("/opt/current/aegis".into()));
        assert_eq!(found("./bin/current/aegis", None), Some(folder.path().join("bin/current/aegis")));
        assert_eq!(found("aegis", Some(&search)), Some(folder.path().join("second/aegis")));
        assert_eq!(found("aegis", Some("third")), Some(folder.path().join("third/aegis")));
        assert_eq!(found("aegis", Some("first")), None, "a folder cannot run");
        assert_eq!(found("aegis", None), None);
        assert_eq!(found("", Some(&search)), None);
        assert_eq!(found("/proc/self/exe", None), None);
        assert_eq!(found("/dev/fd/7", None), None);
        assert_eq!(meant(OsStr::new("./aegis"), Path::new(""), None), None, "nobody knows where that was");
    }

    #[test]
    fn a_name_that_leads_elsewhere_is_not_taken() {
        let folder = tempfile::tempdir().unwrap();
        let [version, next, link] = ["v1", "v2", "current"].map(|name| folder.path().join(name));
        fs::write(&version, "").unwrap();
        fs::write(&next, "").unwrap();
        std::os::unix::fs::symlink(&version, &link).unwrap();
        let running = File::open(&version).unwrap();
        assert_eq!([&version, &next, &link].map(|path| leads_to(path, &running)), [true, false, true]);
        fs::remove_file(&link).unwrap();
        assert!(!leads_to(&link, &running));
        std::os::unix::fs::symlink(&next, &link).unwrap();
        assert!(!leads_to(&link, &running));
    }
}
