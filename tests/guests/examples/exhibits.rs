//! Writes guests that are made without a toolchain into a folder, as a release of the contract keeps them in its museum:
//! `cargo run --example exhibits -- FOLDER`. Together they use every interface of the contract that the host serves.

use std::{env, fs, io, path::PathBuf, process::ExitCode};

use aegis_guests::{Guest, entry, heir, held_todo, journal, label, outgrown, todo};

/// Names of the files and what is in them.
fn exhibits() -> [(&'static str, Guest); 7] {
    [
        ("todo-texts", todo()),
        ("todo-documents", held_todo()),
        ("outgrown", outgrown()),
        ("label", label()),
        ("journal", journal(&["CREATETODO"])),
        ("entry", entry()),
        ("counter", heir("1.0.0")),
    ]
}

fn write(folder: &PathBuf) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    for (name, guest) in exhibits() {
        fs::write(folder.join(format!("{name}.wasm")), guest.build())?;
    }
    Ok(())
}

#[expect(clippy::print_stderr, reason = "a program for people")]
fn main() -> ExitCode {
    let Some(folder) = env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("expected a folder");
        return ExitCode::from(64);
    };
    match write(&folder) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}: {error}", folder.display());
            ExitCode::FAILURE
        }
    }
}
