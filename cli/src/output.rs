//! Words for the person, or the program, in front of the command.

use std::io::{self, Write};

use aegis_ipc::operator::Reply;
use serde::Serialize;

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

impl Form {
    /// As the flag says.
    pub(crate) fn from_flag(json: bool) -> Self {
        if json { Self::Json } else { Self::Text }
    }
}

/// Prints a result. Whoever closes the pipe has seen enough, which is no error.
pub(crate) fn result(text: &str) {
    let mut stdout = io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

/// Prints a result as one line of JSON.
pub(crate) fn json(value: &impl Serialize) {
    match serde_json::to_string(value) {
        Ok(line) => result(&(line + "\n")),
        Err(error) => complain(&format!("the result cannot be written as JSON: {error}")),
    }
}

/// Prints what went wrong.
pub(crate) fn complain(text: &str) {
    let mut stderr = io::stderr().lock();
    // When even standard error is gone, the exit status has to do.
    let _ = writeln!(stderr, "aegis: {text}");
}

/// Prints why nothing came of a command: for a program, in place of the result.
pub(crate) fn refuse(message: &str, form: Form) {
    match form {
        Form::Text => complain(message),
        Form::Json => json(&Reply::Error { message: message.to_owned() }),
    }
}

/// Prints what is worth knowing beside the result.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}"); // the result does not depend on it
}

/// Several lines under a heading.
pub(crate) fn listed(heading: &str, lines: &[String]) -> String {
    let mut text = heading.to_owned();
    for line in lines {
        text.push_str("\n  ");
        text.push_str(&line.replace('\n', "\n    "));
    }
    text
}

/// `1 mistake`, `2 mistakes`.
pub(crate) fn counted(count: usize, one: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {one}s") }
}
