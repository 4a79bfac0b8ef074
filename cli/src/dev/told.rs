//! What `aegis dev` tells on standard output: one line for each thing that happened.

use std::{process::ExitStatus, time::Duration};

use aegis_ipc::operator::Verdict;
use aegis_supervisor::with_causes;
use serde_json::json;

use crate::{client::ClientError, output::Form};

/// What came of a build.
pub(super) fn build(form: Form, module: &str, status: Option<ExitStatus>, took: Duration) -> String {
    let (outcome, words) = match status {
        Some(status) if status.success() => ("done", "done in".to_owned()),
        Some(status) => ("failed", format!("failed ({status}) after")),
        None => ("given-up", "given up after".to_owned()),
    };
    match form {
        Form::Json => line(&json!({ "build": module, "outcome": outcome, "took_ms": took.as_millis() })),
        Form::Text => format!("build {module}: {words} {:.1} s\n", took.as_secs_f32()),
    }
}

/// That it is not noticed when what a module is built from changes.
pub(super) fn unwatched(form: Form, module: &str, error: &str) -> String {
    match form {
        Form::Json => line(&json!({ "build": module, "outcome": "unwatched", "error": error })),
        Form::Text => format!("build {module}: its sources are not watched: {error}\n"),
    }
}

/// What came of a reload, if anything.
pub(super) fn reload(form: Form, outcome: &Result<Option<Verdict>, ClientError>, took: Duration) -> String {
    let took_ms = took.as_millis();
    if form == Form::Json {
        return line(&match outcome {
            Ok(verdict) => json!({ "reload": verdict, "took_ms": took_ms }),
            Err(error) => json!({ "reload": null, "error": with_causes(error), "took_ms": took_ms }),
        });
    }
    let words = match outcome {
        Ok(Some(Verdict::Done)) => format!("in force after {took_ms} ms"),
        Ok(Some(Verdict::Unchanged)) => "nothing has changed".to_owned(),
        Ok(Some(Verdict::Rejected { reasons } | Verdict::Incompatible { reasons })) => {
            format!("rejected: {}", reasons.join("; "))
        }
        Ok(Some(Verdict::RolledBack { reason })) => format!("rolled back: {reason}"),
        Ok(Some(Verdict::Superseded)) => "superseded by another".to_owned(),
        Ok(None) => "no verdict".to_owned(),
        Err(error) => with_causes(error),
    };
    format!("reload: {}\n", words.replace('\n', " "))
}

/// Whether these words of the host say that it serves. In JSON, the first ones may be what is wrong with the app.
pub(super) fn serves(form: Form, words: &str) -> bool {
    match form {
        Form::Json => words.starts_with("{\"listening\":"),
        Form::Text => true,
    }
}

fn line(value: &serde_json::Value) -> String {
    format!("{value}\n")
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn every_outcome_is_one_line_for_people_and_for_programs() {
        let took = Duration::from_millis(2_149);
        let reasons = || vec!["aegis.toml:1: x".to_owned(), "two\nlines".to_owned()];
        let mut told = String::new();
        for form in [Form::Text, Form::Json] {
            for status in [Some(0), Some(256), None] {
                told += &build(form, "order", status.map(ExitStatus::from_raw), took);
            }
            told += &unwatched(form, "order", "there is no such folder");
            for verdict in [
                Verdict::Done,
                Verdict::Unchanged,
                Verdict::Rejected { reasons: reasons() },
                Verdict::Incompatible { reasons: reasons() },
                Verdict::RolledBack { reason: "it crashed".to_owned() },
                Verdict::Superseded,
            ] {
                told += &reload(form, &Ok(Some(verdict)), took);
            }
            told += &reload(form, &Ok(None), took);
            told += &reload(form, &Err(ClientError::NoHost { path: "control.sock".into() }), took);
        }
        insta::assert_snapshot!(told, @r#"
        build order: done in 2.1 s
        build order: failed (exit status: 1) after 2.1 s
        build order: given up after 2.1 s
        build order: its sources are not watched: there is no such folder
        reload: in force after 2149 ms
        reload: nothing has changed
        reload: rejected: aegis.toml:1: x; two lines
        reload: rejected: aegis.toml:1: x; two lines
        reload: rolled back: it crashed
        reload: superseded by another
        reload: no verdict
        reload: no host listens on control.sock; is `aegis run` running?
        {"build":"order","outcome":"done","took_ms":2149}
        {"build":"order","outcome":"failed","took_ms":2149}
        {"build":"order","outcome":"given-up","took_ms":2149}
        {"build":"order","outcome":"unwatched","error":"there is no such folder"}
        {"reload":{"outcome":"done"},"took_ms":2149}
        {"reload":{"outcome":"unchanged"},"took_ms":2149}
        {"reload":{"outcome":"rejected","reasons":["aegis.toml:1: x","two\nlines"]},"took_ms":2149}
        {"reload":{"outcome":"incompatible","reasons":["aegis.toml:1: x","two\nlines"]},"took_ms":2149}
        {"reload":{"outcome":"rolled-back","reason":"it crashed"},"took_ms":2149}
        {"reload":{"outcome":"superseded"},"took_ms":2149}
        {"reload":null,"took_ms":2149}
        {"reload":null,"error":"no host listens on control.sock; is `aegis run` running?","took_ms":2149}
        "#);
    }

    #[test]
    fn a_host_that_tells_mistakes_does_not_serve() {
        assert!(serves(Form::Json, "{\"listening\":\"http://127.0.0.1:1\"}\n"));
        assert!(!serves(Form::Json, "{\"valid\":false}\n"));
        assert!(serves(Form::Text, "listening on http://127.0.0.1:1\n"));
    }
}
