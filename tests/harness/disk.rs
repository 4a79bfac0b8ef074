//! A small disk of a host's own, which a test can fill, empty and make read-only.
//!
//! It is a file system in memory, mounted in name spaces that one process holds open until the disk is dropped. Only the
//! host lives in there; the test looks in by way of `/proc`.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// What is written at once.
const PIECE_BYTES: usize = 64 * 1024;
/// File that takes the room.
const BALLAST: &str = "ballast";
/// Says that the disk is there, and waits until nobody holds its input any longer.
const HOLD: &str = "mount -t tmpfs -o size=\"$1\",mode=0700 tmpfs \"$2\" && echo mounted && exec cat";

/// A disk.
#[derive(Debug)]
pub struct Disk {
    holder: Child,
    place: PathBuf,
}

impl Disk {
    /// Mounts a disk of so many bytes, where only hosts that are started by [`within`](Self::within) see it.
    ///
    /// # Panics
    /// When this machine does not allow it.
    #[must_use]
    pub fn mount(place: &Path, bytes: u64) -> Self {
        fs::create_dir_all(place).expect("a folder to mount a disk at");
        let mut holder = Command::new("unshare")
            .args(["--user", "--map-root-user", "--mount", "sh", "-c", HOLD, "hold", &bytes.to_string()])
            .arg(place)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("run unshare, which is part of util-linux");
        let mut said = [0; b"mounted\n".len()];
        let answer = holder.stdout.as_mut().expect("its output is piped").read_exact(&mut said);
        if answer.is_err() {
            let output = holder.wait_with_output().expect("unshare ends");
            panic!(
                "this machine mounts no disks for tests (user and mount name spaces are needed): {}\
                 leave these tests out with `--skip disk::`",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Self { holder, place: place.to_owned() }
    }

    /// The same command, run where the disk is.
    #[must_use]
    pub fn within(&self, command: &Command) -> Command {
        let mut inside = Command::new("nsenter");
        inside.args([
            "--target",
            &self.holder.id().to_string(),
            "--user",
            "--mount",
            "--preserve-credentials",
        ]);
        inside.arg("--").arg(command.get_program()).args(command.get_args());
        inside
    }

    /// Where the test sees what is on it.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        let inside = self.place.strip_prefix("/").expect("places are absolute");
        Path::new("/proc").join(self.holder.id().to_string()).join("root").join(inside)
    }

    /// Leaves so many bytes free, or fewer.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn leave(&self, bytes: u64) {
        let mut ballast = File::options().create(true).append(true).open(self.path().join(BALLAST));
        let ballast = ballast.as_mut().expect("open the ballast");
        let piece = vec![0; PIECE_BYTES];
        while self.free() > bytes {
            let next = usize::try_from(self.free() - bytes).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
            match ballast.write(&piece[..next]) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::StorageFull => break,
                Err(error) => panic!("writing the ballast: {error}"),
            }
        }
    }

    /// Gives the room back.
    ///
    /// # Panics
    /// When there was no ballast.
    pub fn relieve(&self) {
        fs::remove_file(self.path().join(BALLAST)).expect("remove the ballast");
    }

    /// Free bytes.
    ///
    /// # Panics
    /// When the disk is gone.
    #[must_use]
    pub fn free(&self) -> u64 {
        let answer = nix::sys::statvfs::statvfs(&self.path()).expect("ask the disk for room");
        answer.blocks_available() * answer.fragment_size()
    }

    /// Makes a folder of the disk read-only, for whoever opens a file there from now on.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn protect(&self, folder: &str) {
        let place = self.place.join(folder);
        for options in ["bind", "remount,bind,ro"] {
            let mut mount = Command::new("mount");
            mount.args(["-o", options]).args(if options == "bind" {
                vec![&place, &place]
            } else {
                vec![&place]
            });
            self.run(&mount);
        }
    }

    /// Lets a folder that was read-only be written again.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn open(&self, folder: &str) {
        let mut unmount = Command::new("umount");
        unmount.arg("--lazy").arg(self.place.join(folder));
        self.run(&unmount);
    }

    fn run(&self, command: &Command) {
        let output = self.within(command).output().expect("run nsenter, which is part of util-linux");
        assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // It ends when its input does.
        drop(self.holder.stdin.take());
        let _ = self.holder.wait();
    }
}
