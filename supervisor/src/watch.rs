//! The files of the application, watched when `reload.watch` is on.
//!
//! Watched are `aegis.toml` in the app folder and everything in the modules folder, with new subfolders as they come and
//! folders that links lead to.
//! An editor or a copy makes many changes in a row, so a reload is due only when they have been quiet for a
//! moment; or have gone on for so long that whoever writes may never be done.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::{ffi::OsStrExt, fs::MetadataExt},
    },
    path::{Path, PathBuf},
};

use aegis_config::{CONFIG_FILE, Config};
use nix::{
    errno::Errno,
    sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent},
};

use crate::SupervisorError;

/// Time without a change after which a reload is due.
const QUIET_MS: u64 = 200;
/// Time from the first change on after which a reload is due although they go on: longer than one save or copy.
const BUSY_MS_MAX: u64 = 2_000;
/// Folders watched at most; the kernel's own limit is usually higher.
const FOLDERS_MAX: usize = 4096;

/// A watch on the files of one application.
#[derive(Debug)]
pub struct Watch {
    inotify: Inotify,
    folders: BTreeMap<i32, Folder>,
    app_dir: PathBuf,
    /// Device and inode of the app folder: another one may come to bear its name.
    app_identity: Option<(u64, u64)>,
    modules_dir: PathBuf,
    changes: Option<Changes>,
}

/// What has changed since a reload was last due.
#[derive(Debug, Clone, Copy)]
struct Changes {
    first_ms: u64,
    due_ms: u64,
}

#[derive(Debug, Clone)]
struct Folder {
    path: PathBuf,
    /// Which names in it matter.
    scope: Scope,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// Only the configuration file, and the modules folder when it is made anew.
    Configuration,
    /// Every name.
    Modules,
}

impl Watch {
    /// Begins to watch.
    pub fn start(config: &Config) -> Result<Self, SupervisorError> {
        let mut watch = Self::empty(config.app_dir.clone(), config.modules_dir.clone())?;
        watch.add(Folder { path: watch.app_dir.clone(), scope: Scope::Configuration })?;
        watch.add_tree(&config.modules_dir);
        Ok(watch)
    }

    /// Begins to watch folders that belong to no app, with all that is in them.
    pub fn start_on(folders: &[PathBuf]) -> Result<Self, SupervisorError> {
        let mut watch = Self::empty(PathBuf::new(), PathBuf::new())?;
        for folder in folders {
            watch.add(Folder { path: folder.clone(), scope: Scope::Modules })?;
            watch.add_tree(folder);
        }
        Ok(watch)
    }

    fn empty(app_dir: PathBuf, modules_dir: PathBuf) -> Result<Self, SupervisorError> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)
            .map_err(|error| SupervisorError::os("creating a file watch", error))?;
        let app_identity = identity(&app_dir);
        Ok(Self { inotify, folders: BTreeMap::new(), app_dir, app_identity, modules_dir, changes: None })
    }

    /// Whether it watches what `config` says, and that is still what bears the name.
    #[must_use]
    pub fn fits(&self, config: &Config) -> bool {
        self.app_dir == config.app_dir
            && self.modules_dir == config.modules_dir
            && self.app_identity == identity(&config.app_dir)
    }

    /// Takes what happened in the watched folders.
    pub fn read(&mut self, now_ms: u64) {
        loop {
            match self.inotify.read_events() {
                Ok(events) => {
                    for event in events {
                        if self.matters(&event) {
                            self.note_change(now_ms);
                        }
                    }
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return,
                Err(error) => {
                    tracing::warn!(%error, "reading the file watch failed");
                    return;
                }
            }
        }
    }

    /// Takes it that something has changed: nobody watched since the generation in force was validated.
    pub fn catch_up(&mut self, now_ms: u64) {
        self.note_change(now_ms);
    }

    fn note_change(&mut self, now_ms: u64) {
        let first_ms = self.changes.map_or(now_ms, |changes| changes.first_ms);
        let due_ms = (now_ms + QUIET_MS).min(first_ms + BUSY_MS_MAX);
        self.changes = Some(Changes { first_ms, due_ms });
    }

    /// When the present changes will have been quiet, or gone on, for long enough.
    #[must_use]
    pub fn due_ms(&self) -> Option<u64> {
        self.changes.map(|changes| changes.due_ms)
    }

    /// Whether a reload is due now; says so once.
    pub fn take_due(&mut self, now_ms: u64) -> bool {
        self.changes.take_if(|changes| changes.due_ms <= now_ms).is_some()
    }

    fn matters(&mut self, event: &InotifyEvent) -> bool {
        if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
            return true; // something was missed: better once too often
        }
        let Some(folder) = self.folders.get(&event.wd.as_raw()).cloned() else { return false };
        if event.mask.contains(AddWatchFlags::IN_IGNORED) {
            self.folders.remove(&event.wd.as_raw());
            return false;
        }
        let Some(name) = &event.name else {
            let gone = AddWatchFlags::IN_MOVE_SELF | AddWatchFlags::IN_DELETE_SELF;
            return folder.scope == Scope::Modules || event.mask.intersects(gone);
        };
        let path = folder.path.join(name);
        let arrived = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO;
        // A link to a folder is no folder to the kernel.
        if event.mask.intersects(arrived) && (event.mask.contains(AddWatchFlags::IN_ISDIR) || path.is_dir()) {
            let inside = folder.scope == Scope::Modules || path == self.modules_dir;
            if inside && !leads_up(&path) {
                self.add_tree(&path);
            }
            return inside;
        }
        match folder.scope {
            Scope::Configuration => name == CONFIG_FILE || path == self.modules_dir,
            Scope::Modules => !is_scratch(name),
        }
    }

    /// Watches a folder of modules and the folders in it.
    fn add_tree(&mut self, root: &Path) {
        let mut waiting = vec![root.to_owned()];
        let mut seen = BTreeSet::new(); // links may lead in a circle
        while let Some(path) = waiting.pop() {
            if self.folders.len() >= FOLDERS_MAX {
                tracing::warn!(folder = %path.display(), FOLDERS_MAX, "too many folders, not watched");
                return;
            }
            // A folder may be gone before we get to it; its parent's watch tells about that.
            let Ok(folder) = self.add(Folder { path: path.clone(), scope: Scope::Modules }) else { continue };
            if !seen.insert(folder) {
                continue;
            }
            let Ok(entries) = std::fs::read_dir(&path) else { continue };
            waiting.extend(
                entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir() && !leads_up(path)),
            );
        }
    }

    /// Watches a folder. The number is that of the folder itself, by whatever path it is reached.
    fn add(&mut self, folder: Folder) -> Result<i32, SupervisorError> {
        let changes = AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_MOVE
            | AddWatchFlags::IN_ONLYDIR;
        // Of a folder of modules, the folder that it is in tells.
        let own = match folder.scope {
            Scope::Configuration => AddWatchFlags::IN_MOVE_SELF | AddWatchFlags::IN_DELETE_SELF,
            Scope::Modules => AddWatchFlags::empty(),
        };
        let watch = self.inotify.add_watch(&folder.path, changes | own).map_err(|error| {
            SupervisorError::os(format!("watching the folder {}", folder.path.display()), error)
        })?;
        self.folders.insert(watch.as_raw(), folder);
        Ok(watch.as_raw())
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

fn identity(folder: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(folder).ok().map(|known| (known.dev(), known.ino()))
}

/// Whether this is a link to a folder that it is in itself. What else is in there, such as the data of the host, is no
/// business of a watch on modules.
fn leads_up(path: &Path) -> bool {
    match (path.canonicalize(), path.parent().map(Path::canonicalize)) {
        (Ok(target), Some(Ok(parent))) => parent.starts_with(target),
        _ => false,
    }
}

/// Files that editors keep beside the ones they edit.
fn is_scratch(name: &OsStr) -> bool {
    let bytes = name.as_bytes();
    bytes.starts_with(b".") || bytes.ends_with(b"~") || bytes.ends_with(b".swp") || bytes == b"4913"
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn app() -> (tempfile::TempDir, Config) {
        let directory = tempfile::tempdir().unwrap();
        let config = crate::test_config(directory.path());
        fs::create_dir_all(config.modules_dir.join("todo")).unwrap();
        (directory, config)
    }

    /// Whether `change` makes a reload due.
    fn noticed(watch: &mut Watch, change: impl FnOnce()) -> bool {
        change();
        watch.read(1000);
        watch.take_due(1000 + QUIET_MS)
    }

    #[test]
    fn folders_that_links_lead_to_are_watched_and_circles_come_to_an_end() {
        use std::os::unix::fs::symlink;

        let (_directory, config) = app();
        let elsewhere = tempfile::tempdir().unwrap();
        let (first, second) = (elsewhere.path().join("first"), elsewhere.path().join("second"));
        for folder in [&first, &second] {
            fs::create_dir(folder).unwrap();
        }
        symlink(&first, config.modules_dir.join("linked")).unwrap();
        symlink(&config.modules_dir, config.modules_dir.join("circle")).unwrap();
        symlink(&config.app_dir, config.modules_dir.join("up")).unwrap();
        symlink(&first, first.join("circle")).unwrap();
        let mut watch = Watch::start(&config).unwrap();
        assert_eq!(watch.folders.len(), 4, "{:?}", watch.folders);
        let write = |folder: &Path| {
            let path = folder.join("module.toml");
            move || fs::write(path, "x").unwrap()
        };
        assert!(noticed(&mut watch, write(&first)));
        assert!(noticed(&mut watch, || symlink(&second, config.modules_dir.join("later")).unwrap()));
        assert!(noticed(&mut watch, write(&second)));
        assert!(!noticed(&mut watch, || fs::write(config.app_dir.join("notes.txt"), "x").unwrap()));
    }

    #[test]
    fn changes_of_the_application_are_noticed_and_others_are_not() {
        let (_directory, config) = app();
        let mut watch = Watch::start(&config).unwrap();
        let write = |path: PathBuf| move || fs::write(path, "x").unwrap();
        assert!(noticed(&mut watch, write(config.app_dir.join("aegis.toml"))));
        assert!(noticed(&mut watch, write(config.modules_dir.join("todo/module.toml"))));
        assert!(noticed(&mut watch, || fs::remove_file(config.modules_dir.join("todo/module.toml")).unwrap()));
        assert!(!noticed(&mut watch, write(config.app_dir.join("notes.txt"))));
        assert!(!noticed(&mut watch, write(config.modules_dir.join("todo/.module.toml.swp"))));
        assert!(!noticed(&mut watch, || ()));
    }

    #[test]
    fn folders_that_come_later_are_watched_with_their_folders() {
        let (_directory, config) = app();
        let mut watch = Watch::start(&config).unwrap();
        let deep = config.modules_dir.join("order/parts");
        assert!(noticed(&mut watch, || fs::create_dir_all(&deep).unwrap()));
        assert!(noticed(&mut watch, || fs::write(deep.join("a"), "x").unwrap()));
        assert!(noticed(&mut watch, || fs::remove_dir_all(config.modules_dir.join("order")).unwrap()));
        assert!(noticed(&mut watch, || fs::create_dir(config.modules_dir.join("order")).unwrap()));
    }

    #[test]
    fn folders_outside_of_an_app_are_watched_too() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir_all(directory.path().join("src/deep")).unwrap();
        let mut watch = Watch::start_on(&[directory.path().join("src")]).unwrap();
        let write = |path: &str| fs::write(directory.path().join(path), "x").unwrap();
        assert!(noticed(&mut watch, || write("src/a.js")));
        assert!(noticed(&mut watch, || write("src/deep/b.js")));
        assert!(!noticed(&mut watch, || write("other")));
        assert!(Watch::start_on(&[directory.path().join("nowhere")]).is_err());
    }

    #[test]
    fn a_modules_folder_that_is_replaced_is_watched_again() {
        let (_directory, config) = app();
        let mut watch = Watch::start(&config).unwrap();
        assert!(noticed(&mut watch, || fs::remove_dir_all(&config.modules_dir).unwrap()));
        assert!(noticed(&mut watch, || fs::create_dir_all(config.modules_dir.join("todo")).unwrap()));
        assert!(noticed(&mut watch, || fs::write(config.modules_dir.join("todo/module.toml"), "x").unwrap()));
    }

    #[test]
    fn an_app_folder_that_is_replaced_is_noticed_and_does_not_fit_any_more() {
        let directory = tempfile::tempdir().unwrap();
        let (app, next) = (directory.path().join("app"), directory.path().join("next"));
        for folder in [&app, &next] {
            fs::create_dir_all(folder.join("modules")).unwrap();
        }
        let config = crate::test_config(&app);
        let mut watch = Watch::start(&config).unwrap();
        assert!(watch.fits(&config));
        assert!(noticed(&mut watch, || {
            fs::rename(&config.app_dir, directory.path().join("before")).unwrap();
            fs::rename(&next, &config.app_dir).unwrap();
        }));
        assert!(!watch.fits(&config));
    }

    #[test]
    fn a_burst_is_one_reload_after_it_was_quiet() {
        let (_directory, config) = app();
        let mut watch = Watch::start(&config).unwrap();
        for now in [1000, 1100, 1200] {
            fs::write(config.app_dir.join("aegis.toml"), "x").unwrap();
            watch.read(now);
            assert!(!watch.take_due(now + QUIET_MS - 1));
        }
        assert_eq!(watch.due_ms(), Some(1200 + QUIET_MS));
        assert!(watch.take_due(1200 + QUIET_MS));
        assert!(!watch.take_due(2000), "said once");
    }

    #[test]
    fn what_changes_without_a_pause_is_reloaded_now_and_then_all_the_same() {
        let (_directory, config) = app();
        let mut watch = Watch::start(&config).unwrap();
        let mut due_at = Vec::new();
        for now_ms in (1_000..7_000).step_by(100) {
            fs::write(config.app_dir.join("aegis.toml"), "x").unwrap();
            watch.read(now_ms);
            if watch.take_due(now_ms) {
                due_at.push(now_ms);
            }
        }
        assert_eq!(due_at, [3_000, 5_100], "counted from the first change after the last one");
        assert_eq!(watch.due_ms(), Some(6_900 + QUIET_MS), "and when it is quiet, without a wait");
    }
}
