//! `If-Match` and `If-None-Match` (RFC 9110 section 13). They are looked at only once the document is known to exist:
//! a missing one is answered with 404 whatever the conditions (section 13.2.1).

use aegis_domain::{Problem, ProblemCode, catalog::Model, spec::IfMatch};

use crate::operation::{Precondition, Revisions};

/// What a read may answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReadVerdict {
    /// The document.
    Show,
    /// The client has it.
    NotModified,
}

/// May a document of this revision be shown?
pub(super) fn check_read(precondition: &Precondition, revision: u64) -> Result<ReadVerdict, Problem> {
    check_if_match(precondition, revision)?;
    let known = precondition.if_none_match.as_ref().is_some_and(|known| includes(known, revision));
    Ok(if known { ReadVerdict::NotModified } else { ReadVerdict::Show })
}

/// May a document of this revision be changed?
pub(super) fn check_write(precondition: &Precondition, model: &Model, revision: u64) -> Result<(), Problem> {
    check_if_match(precondition, revision)?;
    if precondition.if_none_match.as_ref().is_some_and(|unwanted| includes(unwanted, revision)) {
        let detail = format!("the document exists and has revision {revision}, which If-None-Match excludes");
        return Err(Problem::new(ProblemCode::RevisionMismatch, detail));
    }
    if precondition.if_match.is_none() && model.spec().if_match == IfMatch::Required {
        let detail = format!(
            "documents of {} change only with If-Match, which names the revision that the client has seen",
            model.name()
        );
        return Err(Problem::new(ProblemCode::RevisionRequired, detail));
    }
    Ok(())
}

/// Does the client ask for a document to be made where there is none?
pub(super) fn wants_absent(precondition: &Precondition) -> bool {
    precondition.if_match.is_none() && precondition.if_none_match == Some(Revisions::Any)
}

/// Does the client say anything about the revision it wants to change?
pub(super) fn is_conditional(precondition: &Precondition) -> bool {
    *precondition != Precondition::default()
}

fn check_if_match(precondition: &Precondition, revision: u64) -> Result<(), Problem> {
    let Some(wanted) = &precondition.if_match else { return Ok(()) };
    if includes(wanted, revision) {
        return Ok(());
    }
    let named = match wanted {
        Revisions::Any => "*".to_owned(),
        Revisions::Of(revisions) if revisions.is_empty() => "no revision of this host".to_owned(),
        Revisions::Of(revisions) => revisions.iter().map(u64::to_string).collect::<Vec<_>>().join(", "),
    };
    let detail = format!("the document has revision {revision}, If-Match names {named}");
    Err(Problem::new(ProblemCode::RevisionMismatch, detail))
}

fn includes(revisions: &Revisions, revision: u64) -> bool {
    match revisions {
        Revisions::Any => true,
        Revisions::Of(revisions) => revisions.contains(&revision),
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;
    use crate::execute::tests::model;

    fn conditions(if_match: Option<Revisions>, if_none_match: Option<Revisions>) -> Precondition {
        Precondition { if_match, if_none_match }
    }

    fn of(revisions: &[u64]) -> Option<Revisions> {
        Some(Revisions::Of(revisions.to_vec()))
    }

    #[test]
    fn a_read_is_not_answered_twice() {
        let show = |precondition| check_read(&precondition, 3);
        assert_eq!(show(conditions(None, None)), Ok(ReadVerdict::Show));
        assert_eq!(show(conditions(None, of(&[2, 3]))), Ok(ReadVerdict::NotModified));
        assert_eq!(show(conditions(None, of(&[2]))), Ok(ReadVerdict::Show));
        assert_eq!(show(conditions(None, Some(Revisions::Any))), Ok(ReadVerdict::NotModified));
        assert_eq!(show(conditions(of(&[3]), of(&[3]))), Ok(ReadVerdict::NotModified));
        assert!(show(conditions(of(&[2]), of(&[3]))).is_err(), "If-Match comes first");
    }

    #[test]
    fn a_write_needs_the_revision_it_names() {
        let free = model("");
        let write = |precondition| check_write(&precondition, &free, 3);
        assert_eq!(write(conditions(None, None)), Ok(()));
        assert_eq!(write(conditions(Some(Revisions::Any), None)), Ok(()));
        assert_eq!(write(conditions(of(&[1, 3]), of(&[2]))), Ok(()));
        assert_snapshot!(write(conditions(of(&[1, 2]), None)).unwrap_err(), @"revision-mismatch: the document has revision 3, If-Match names 1, 2");
        assert_snapshot!(write(conditions(of(&[]), None)).unwrap_err(), @"revision-mismatch: the document has revision 3, If-Match names no revision of this host");
        assert_snapshot!(write(conditions(None, Some(Revisions::Any))).unwrap_err(), @"revision-mismatch: the document exists and has revision 3, which If-None-Match excludes");
    }

    #[test]
    fn a_model_can_demand_if_match() {
        let strict = model("if-match = \"required\"\n");
        assert_eq!(check_write(&conditions(of(&[3]), None), &strict, 3), Ok(()));
        assert_snapshot!(check_write(&conditions(None, None), &strict, 3).unwrap_err(), @"revision-required: documents of TODO change only with If-Match, which names the revision that the client has seen");
    }

    #[test]
    fn only_a_lone_star_asks_for_a_new_document() {
        assert!(wants_absent(&conditions(None, Some(Revisions::Any))));
        assert!(!wants_absent(&conditions(None, of(&[1]))));
        assert!(!wants_absent(&conditions(of(&[1]), Some(Revisions::Any))));
        assert!(!is_conditional(&conditions(None, None)));
    }
}
