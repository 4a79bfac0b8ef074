use std::path::Path;

use aegis_config::settings::Datasource;
use aegis_ipc::data::{Change, ChangeKind};
use bytes::Bytes;

use super::*;
use crate::{
    engine::{
        Batch, IndexName, IndexRow, IndexState, MetaEdit, UniqueEdit, UniqueKey,
        records::{self, FORMAT_OLDEST},
    },
    testing::specs,
};

mod imports;

const TODO: &str = "name = \"todo\"\n[fields]\ncode = { unique = true }";
/// The same before anybody wanted the codes to be unique.
const PLAIN_TODO: &str = "name = \"todo\"";
const NOTE: &str = "name = \"note\"\ndatasource = \"memory\"";
const NOTHING: Declared<'static> = Declared { models: &[], datasource: Datasource::File };

fn options(folder: &Path) -> Options {
    Options { folder: store_folder(folder), cache_bytes: 1 << 20 }
}

/// What a document ends with.
fn host_fields(id: &str, revision: u64) -> String {
    format!(
        "\"id\":\"{id}\",\"modelName\":\"TODO\",\"createTime\":\"2025-12-31T23:59:59.007Z\",\
         \"updateTime\":\"2026-01-01T00:00:00.000Z\",\"revision\":{revision}"
    )
}

fn put(sequence: u64, id: &str, revision: u64, rest: &str) -> Change {
    let body = Bytes::from(format!("{{{rest}{}}}", host_fields(id, revision)));
    let kind = ChangeKind::Put { id: id.into(), revision, body, changes: None };
    Change { sequence, model: "TODO".into(), kind, time_ms: 1 }
}

fn owner(code: &str, id: &str) -> UniqueEdit {
    UniqueEdit { key: UniqueKey::new(1, format!("\"{code}\"").as_bytes()), owner: Some(id.into()) }
}

fn index() -> MetaEdit {
    let name = IndexName { model: "TODO".into(), field: "code".into() };
    MetaEdit::Index(IndexRow { name, number: 1, state: IndexState::Complete })
}

/// A store with two documents, one of them changed once, and one removed.
fn fill(folder: &Path) {
    let engine = options(folder).open().unwrap().engine;
    let meta = vec![MetaEdit::Catalog(catalog::encode(&specs(&[TODO, NOTE]))), index()];
    engine.apply(&Batch { meta, ..Batch::default() }).unwrap();
    let gone = Change {
        sequence: 5,
        kind: ChangeKind::Remove { id: "gone".into(), revision: 1 },
        ..put(0, "", 1, "")
    };
    let changes = [
        put(1, "a", 1, "\"code\":\"x\","),
        put(2, "ü", 1, "\"price\":1.50,\n "),
        put(3, "gone", 1, ""),
        put(4, "a", 2, "\"code\":\"y\","),
        gone,
    ];
    let batch =
        Batch { changes: changes.iter().collect(), unique: vec![owner("y", "a")], ..Batch::default() };
    engine.apply(&batch).unwrap();
}

fn exported(folder: &Path) -> String {
    let mut text = Vec::new();
    export(folder, &NOTHING, &mut text, &mut |_| ()).unwrap();
    String::from_utf8(text).unwrap()
}

fn imported(folder: &Path, text: &str) -> Result<Imported, DataError> {
    imported_with(folder, &[], text)
}

/// The same beside an app with these modules.
fn imported_with(folder: &Path, modules: &[&str], text: &str) -> Result<Imported, DataError> {
    let models = specs(modules);
    let declared = Declared { models: &models, datasource: Datasource::File };
    import(folder, &declared, &mut text.as_bytes(), &mut |_| ())
}

/// An export of these documents of TODO: id, revision, code.
fn dump(documents: &[(&str, u64, &str)]) -> String {
    let header = format!(
        "{{\"format\":\"aegis-documents\",\"version\":1,\"documents\":{},\"sequence\":9}}\n",
        documents.len()
    );
    let line = |(id, revision, code): &(&str, u64, &str)| {
        format!(
            "{{\"model\":\"TODO\",\"id\":\"{id}\",\"revision\":{revision},\"sequence\":1,\
             \"document\":{{\"code\":\"{code}\",{}}}}}\n",
            host_fields(id, *revision)
        )
    };
    header + &documents.iter().map(line).collect::<String>()
}

fn findings(folder: &Path) -> Vec<String> {
    let verified = verify(folder, &mut |_| ()).unwrap();
    assert_eq!(verified.findings_count, verified.findings.len() as u64);
    verified.findings
}

#[test]
fn an_export_is_text_that_an_import_makes_the_same_store_of() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fill(from.path());
    let text = exported(from.path());
    insta::assert_snapshot!(text, @r#"
    {"format":"aegis-documents","version":1,"documents":2,"sequence":5}
    {"model":"TODO","id":"a","revision":2,"sequence":4,"document":{"code":"y","id":"a","modelName":"TODO","createTime":"2025-12-31T23:59:59.007Z","updateTime":"2026-01-01T00:00:00.000Z","revision":2}}
    {"model":"TODO","id":"ü","revision":1,"sequence":2,"document":{"price":1.50,  "id":"ü","modelName":"TODO","createTime":"2025-12-31T23:59:59.007Z","updateTime":"2026-01-01T00:00:00.000Z","revision":1}}
    "#);
    assert_eq!(imported(to.path(), &text).unwrap(), Imported { created: 2, replaced: 0, unchanged: 0 });
    let documents = |text: &str| -> Vec<String> {
        let lines = text.lines().skip(1);
        lines.map(|line| line.split_once("\"document\":").unwrap().1.to_owned()).collect()
    };
    assert_eq!(documents(&exported(to.path())), documents(&text));
    assert_eq!(findings(to.path()), Vec::<String>::new());
    assert_eq!(imported(to.path(), &text).unwrap(), Imported { created: 0, replaced: 0, unchanged: 2 });
}

#[test]
fn progress_reaches_the_announced_total() {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path());
    let mut seen = Vec::new();
    let mut text = Vec::new();
    export(folder.path(), &NOTHING, &mut text, &mut |progress| seen.push(progress)).unwrap();
    assert_eq!(seen, [Progress { done: 1, total: Some(2) }, Progress { done: 2, total: Some(2) }]);
    seen.clear();
    import(folder.path(), &NOTHING, &mut &text[..], &mut |progress| seen.push(progress)).unwrap();
    assert_eq!(seen.last(), Some(&Progress { done: 2, total: Some(2) }));
}

#[test]
fn an_import_into_a_store_with_documents_replaces_and_keeps_unique_values_unique() {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path());
    let header = "{\"format\":\"aegis-documents\",\"version\":1,\"documents\":2,\"sequence\":9}\n";
    let line = |id: &str, revision: u64, code: &str| {
        format!(
            "{{\"model\":\"TODO\",\"id\":\"{id}\",\"revision\":{revision},\"sequence\":1,\
             \"document\":{{\"code\":\"{code}\",{}}}}}\n",
            host_fields(id, revision)
        )
    };
    let taken =
        imported(folder.path(), &format!("{header}{}{}", line("b", 1, "z"), line("c", 1, "y"))).unwrap_err();
    insta::assert_snapshot!(taken, @r#"line 3: unique field code of model TODO: document "a" has the same value; 0 documents were imported"#);
    assert_eq!(taken.exit_code(), 65);
    assert_eq!(exported(folder.path()).lines().count(), 3, "the chunk was not taken");
    let moved = format!("{header}{}{}", line("a", 3, "z"), line("c", 1, "y"));
    assert_eq!(imported(folder.path(), &moved).unwrap(), Imported { created: 1, replaced: 1, unchanged: 0 });
    assert_eq!(findings(folder.path()), Vec::<String>::new());
    let twice = format!("{header}{}{}", line("d", 1, "1"), line("d", 2, "2"));
    assert_eq!(imported(folder.path(), &twice).unwrap(), Imported { created: 1, replaced: 1, unchanged: 0 });
    assert_eq!(findings(folder.path()), Vec::<String>::new());
}

#[test]
fn every_mistake_in_an_export_is_told_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path());
    let header = "{\"format\":\"aegis-documents\",\"version\":1,\"documents\":1,\"sequence\":9}";
    let document = |model: &str, id: &str, revision: u64, document: &str| {
        format!(
            "{header}\n\n{{\"model\":\"{model}\",\"id\":\"{id}\",\"revision\":{revision},\"sequence\":1,\"document\":{document}}}"
        )
    };
    let good = format!("{{{}}}", host_fields("a", 1));
    let good = good.as_str();
    let inputs = [
        String::new(),
        "no header".to_owned(),
        header.replace("version\":1", "version\":2"),
        header.to_owned(),
        format!("{header}\nnonsense"),
        document("todo", "a", 1, good),
        document("1", "a", 1, good),
        document("TODO", "", 1, good),
        document("TODO", "a/b", 1, &good.replace("\"a\"", "\"a/b\"")),
        document("TODO", &"x".repeat(257), 1, good),
        document("TODO", "a", 1, &good.replace("\"a\"", "\"..\"")),
        document("TODO", "a", 0, &good.replace("\"revision\":1", "\"revision\":0")),
        document("TODO", "a", 1, &good.replace("\"revision\":1", "\"revision\":0")),
        document("TODO", "a", 1, good) + &document("TODO", "b", 1, good)[header.len() + 1..],
        document("TODO", "b", 1, good),
        document("TODO", "a", 2, good),
        document("TODO", "a", 1, "[]"),
        document("TODO", "a", 1, "{\"id\":\"a\""),
        document("NOTE", "a", 1, &good.replace("TODO", "NOTE")),
    ];
    let messages: Vec<String> =
        inputs.iter().map(|input| imported(folder.path(), input).unwrap_err().to_string()).collect();
    insta::assert_snapshot!(messages.join("\n"), @r#"
    line 1: found nothing, expected the header of an export; 0 documents were imported
    line 1: this is not the header of an export: it begins with 'n', expected '{'; 0 documents were imported
    line 1: found format "aegis-documents" version 2, expected "aegis-documents" version 1; 0 documents were imported
    the export is cut short: its header announces 1 documents, found 0; 0 documents were imported
    line 2: this is not a document: expected ident at line 1 column 2; 0 documents were imported
    line 3: model: found "todo", expected "TODO"; 0 documents were imported
    line 3: model: found "1", expected 1 to 64 letters, digits, '_' or '-', starting with a letter; 0 documents were imported
    line 3: id: found an empty text, expected an id; 0 documents were imported
    line 3: id: found the character '/', expected an id without it; 0 documents were imported
    line 3: id: found 257 bytes, expected at most 256 for an id; 0 documents were imported
    line 3: document: its id: found "..", expected an id that is no relative path; 0 documents were imported
    line 3: revision: found 0, expected 1 or more; 0 documents were imported
    line 3: document: its revision is 0, expected 1 to 9007199254740991; 0 documents were imported
    line 4: the header announces 1 documents, and here is one more, expected the end of the export; 0 documents were imported
    line 3: found revision 1 of "b", but the document says revision 1 of "a"; 0 documents were imported
    line 3: found revision 2 of "a", but the document says revision 1 of "a"; 0 documents were imported
    line 3: document: it is no object; 0 documents were imported
    line 3: this is not a document: EOF while parsing an object at line 1 column 72; 0 documents were imported
    line 3: model NOTE keeps its documents in memory, so they cannot be imported; 0 documents were imported
    "#);
    let invalid = [header.as_bytes(), b"\n\xff\xfe\n"].concat();
    let error = import(folder.path(), &NOTHING, &mut &invalid[..], &mut |_| ()).unwrap_err();
    assert!(error.to_string().starts_with("line 2: invalid utf-8"), "{error}");
}

#[test]
fn what_the_host_could_never_change_is_not_imported_and_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let without_time = |id| host_fields(id, 1).replace("\"createTime\":\"2025-12-31T23:59:59.007Z\",", "");
    let documents = [("a", without_time("a")), ("b", format!("\"x\":1,\"x\":2,{}", host_fields("b", 1)))];
    let mut told = Vec::new();
    for (id, document) in &documents {
        let export = format!(
            "{{\"format\":\"aegis-documents\",\"version\":1,\"documents\":1,\"sequence\":9}}\n\
             {{\"model\":\"TODO\",\"id\":\"{id}\",\"revision\":1,\"sequence\":1,\"document\":{{{document}}}}}"
        );
        told.push(imported(folder.path(), &export).unwrap_err().to_string());
    }
    let engine = options(folder.path()).open().unwrap().engine;
    let mut changes: Vec<Change> = (1..=3).map(|sequence| put(sequence, "c", 1, "")).collect();
    for (change, (id, document)) in changes.iter_mut().zip(&documents) {
        let body = Bytes::from(format!("{{{document}}}"));
        change.kind = ChangeKind::Put { id: (*id).into(), revision: 1, body, changes: None };
    }
    if let ChangeKind::Put { revision, .. } = &mut changes[2].kind {
        *revision = 2;
    }
    engine.apply(&Batch { changes: changes.iter().collect(), ..Batch::default() }).unwrap();
    drop(engine);
    told.extend(findings(folder.path()));
    insta::assert_snapshot!(told.join("\n"), @r#"
    line 2: document: its createTime is no text; 0 documents were imported
    line 2: document: line 1, column 8: found the property "x" a second time, expected it once; 0 documents were imported
    document "a" of model TODO cannot be changed: its createTime is no text
    document "b" of model TODO cannot be changed: line 1, column 8: found the property "x" a second time, expected it once
    document "c" of model TODO is kept with revision 2, but says that it is revision 1 of "c"
    "#);
}

#[test]
fn a_store_that_cannot_be_looked_at_is_not_said_to_be_missing() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(store_folder(folder.path()), "a file in its place").unwrap();
    let error = export(folder.path(), &NOTHING, &mut Vec::new(), &mut |_| ()).unwrap_err();
    let told = crate::error::chain(&error).replace(&folder.path().display().to_string(), "DATA");
    insta::assert_snapshot!(told, @"opening the store failed: looking for DATA/store/engine failed: Not a directory (os error 20)");
    assert_eq!(error.exit_code(), EXIT_SYSTEM);
}

#[test]
fn a_running_host_is_not_disturbed_and_a_missing_store_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let error = export(folder.path(), &NOTHING, &mut Vec::new(), &mut |_| ()).unwrap_err();
    assert_eq!(error.to_string(), format!("{} holds no store", store_folder(folder.path()).display()));
    fill(folder.path());
    let store = StoreLock::take(&store_folder(folder.path())).unwrap();
    let error = verify(folder.path(), &mut |_| ()).unwrap_err();
    assert_eq!(error.exit_code(), crate::error::EXIT_TRANSIENT);
    drop(store);
    let host = std::fs::File::create(folder.path().join("LOCK")).unwrap();
    host.try_lock().unwrap();
    let error = imported(
        folder.path(),
        "{\"format\":\"aegis-documents\",\"version\":1,\"documents\":0,\"sequence\":0}",
    );
    assert_eq!(error.unwrap_err().exit_code(), crate::error::EXIT_TRANSIENT);
    drop(host);
    assert_eq!(findings(folder.path()), Vec::<String>::new());
}

#[test]
fn documents_log_and_indexes_that_disagree_are_found() {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path());
    let verified = verify(folder.path(), &mut |_| ()).unwrap();
    assert_eq!((verified.documents, verified.changes, verified.unique_values), (2, 5, 1));
    assert_eq!((verified.findings, verified.notes), (Vec::new(), Vec::new()));
    let engine = options(folder.path()).open().unwrap().engine;
    engine.spoil();
    drop(engine);
    let found = findings(folder.path()).join("\n").replace(&folder.path().display().to_string(), "/data");
    insta::assert_snapshot!(found, @r#"
    row \x00 of partition log in /data/store/engine is damaged: found 1 bytes, expected 8
    row \x00\x00\x00\x00\x00\x00\x00\x06 of partition log in /data/store/engine is damaged: checksum efff2f83, expected d0be07f9
    document "a" of model TODO is the one of change 1, although change 4 is later
    document "ü" of model TODO is kept under the key \x04TODOelsewhere
    document "gone" of model TODO exists, although change 5 removed it
    document "ü" of model TODO is missing, which change 2 wrote
    index 1 has a value of "a" that it does not have
    index 1 has a value of "a" that it does not have
    index 1 lacks a value of document "a"
    row kx of partition responses in /data/store/engine is damaged: found 8 bytes, expected at least 28
    "#);
}

#[test]
fn damage_that_keeps_the_store_closed_is_a_finding() {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path());
    std::fs::remove_file(store_folder(folder.path()).join("engine/keyspaces/2/current")).unwrap();
    let found = findings(folder.path());
    assert_eq!(found.len(), 1);
    assert!(found[0].ends_with("engine/keyspaces/2/current is damaged: the file is gone"), "{found:?}");
}

#[test]
fn a_table_that_is_gone_and_one_that_is_foreign_are_findings() {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path());
    let engine = options(folder.path()).open().unwrap().engine;
    engine.settle();
    drop(engine);
    let tables = store_folder(folder.path()).join("engine/keyspaces/1/tables");
    let table = std::fs::read_dir(&tables).unwrap().next().unwrap().unwrap().path();
    // What a copy is called, what an editor leaves, and what file managers make, which the engine knows.
    for (name, is_found) in [("copy-of-1", true), (".1.swp", true), (".DS_Store", false), ("._1", false)] {
        let foreign = tables.join(name);
        std::fs::copy(&table, &foreign).unwrap();
        let told = format!("{} is damaged: nothing of this name belongs here", foreign.display());
        assert_eq!(findings(folder.path()), Vec::from_iter(is_found.then_some(told)));
        std::fs::remove_file(&foreign).unwrap();
    }
    assert_eq!(findings(folder.path()), Vec::<String>::new());
    std::fs::remove_file(&table).unwrap();
    let found = findings(folder.path()).join("\n").replace(&folder.path().display().to_string(), "/data");
    insta::assert_snapshot!(found, @"/data/store/engine is damaged: opening /data/store/engine: Storage(Unrecoverable)");
}

#[test]
fn foreign_files_beside_the_engines_are_noted() {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path());
    let engine = store_folder(folder.path()).join("engine");
    for name in ["notes.txt", ".DS_Store", "keyspaces/2/copy.bak"] {
        std::fs::write(engine.join(name), "").unwrap();
    }
    let verified = verify(folder.path(), &mut |_| ()).unwrap();
    assert_eq!(verified.findings, Vec::<String>::new());
    let notes = verified.notes.join("\n").replace(&folder.path().display().to_string(), "/data");
    insta::assert_snapshot!(notes, @r"
    /data/store/engine/keyspaces/2/copy.bak is no file of the store, which takes no notice of it
    /data/store/engine/notes.txt is no file of the store, which takes no notice of it
    ");
}

#[test]
fn an_unfinished_group_is_noted() {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path());
    let journal = store_folder(folder.path()).join("engine/0.jnl");
    let mut bytes = std::fs::read(&journal).unwrap();
    let written = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes.truncate(written - 5);
    std::fs::write(&journal, bytes).unwrap();
    let verified = verify(folder.path(), &mut |_| ()).unwrap();
    assert_eq!((verified.documents, verified.findings), (0, Vec::new()));
    assert!(
        verified.notes[0].contains("nobody was told of it, and it was moved to "),
        "{:?}",
        verified.notes
    );
}

#[test]
fn an_import_without_known_models_leaves_unique_indexes_to_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let engine = options(folder.path()).open().unwrap().engine;
    engine.apply(&Batch { meta: vec![index()], ..Batch::default() }).unwrap();
    drop(engine);
    let from = tempfile::tempdir().unwrap();
    fill(from.path());
    imported(folder.path(), &exported(from.path())).unwrap();
    let recovered = options(folder.path()).open().unwrap().engine.recover().unwrap();
    assert_eq!((recovered.indexes, recovered.dropped), (Vec::new(), vec![1]));
    let notes = verify(folder.path(), &mut |_| ()).unwrap().notes;
    assert_eq!(
        notes,
        ["the models are not known yet, so unique indexes were not compared with the documents"]
    );
}

#[test]
fn an_import_leaves_an_index_that_the_models_do_not_name_to_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path());
    let header = "{\"format\":\"aegis-documents\",\"version\":1,\"documents\":1,\"sequence\":9}\n";
    let line = format!(
        "{{\"model\":\"TODO\",\"id\":\"b\",\"revision\":1,\"sequence\":1,\
         \"document\":{{\"mail\":\"m\",{}}}}}\n",
        host_fields("b", 1)
    );
    // The host was killed after the store had prepared a generation, and before that was in force.
    let engine = options(folder.path()).open().unwrap().engine;
    let name = IndexName { model: "TODO".into(), field: "mail".into() };
    let prepared = IndexRow { name, number: 2, state: IndexState::Complete };
    engine.apply(&Batch { meta: vec![MetaEdit::Index(prepared)], ..Batch::default() }).unwrap();
    drop(engine);
    imported(folder.path(), &format!("{header}{line}")).unwrap();
    let recovered = options(folder.path()).open().unwrap().engine.recover().unwrap();
    let kept: Vec<u32> = recovered.indexes.iter().map(|row| row.number).collect();
    assert_eq!((kept, recovered.dropped), (vec![1], vec![2]));
}

#[test]
fn only_an_import_raises_the_format_of_the_data() {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path());
    let pretend = || options(folder.path()).open().unwrap().engine.pretend_format(FORMAT_OLDEST);
    let format = || options(folder.path()).open_as_it_is().unwrap().engine.format().unwrap();
    pretend();
    let text = exported(folder.path());
    assert_eq!(findings(folder.path()), Vec::<String>::new());
    assert_eq!(format(), FORMAT_OLDEST, "the version before can still open it");
    imported(folder.path(), &text).unwrap();
    assert_eq!(format(), records::FORMAT);
}

#[test]
fn positions_in_the_log_are_not_exported() {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path());
    let before = exported(folder.path());
    let engine = options(folder.path()).open().unwrap().engine;
    let position = Change { model: aegis_ipc::data::POSITIONS.into(), ..put(6, "TODO", 1, "") };
    engine.apply(&Batch { changes: vec![&position], ..Batch::default() }).unwrap();
    drop(engine);
    let after = exported(folder.path());
    assert_eq!(after.replace("\"sequence\":6", "\"sequence\":5"), before);
    assert_eq!(findings(folder.path()), Vec::<String>::new());
}

#[test]
fn a_store_that_an_import_makes_knows_what_the_app_declares_to_be_unique() {
    let (from, to, fresh) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fill(from.path());
    let text = exported(from.path());
    let import = |folder: &Path, text: &str| imported_with(folder, &[TODO, NOTE], text);
    assert_eq!(import(to.path(), &text).unwrap().created, 2);
    let verified = verify(to.path(), &mut |_| ()).unwrap();
    assert_eq!((verified.unique_values, verified.uncompared, verified.findings), (1, false, Vec::new()));
    let twice = text.replace("\"price\":1.50, ", "\"code\":\"y\",");
    let refused = import(fresh.path(), &twice).unwrap_err();
    assert_eq!(refused.exit_code(), 65);
    insta::assert_snapshot!(refused, @r#"line 3: unique field code of model TODO: document "a" has the same value; 0 documents were imported"#);
    // The same for the next attempt, which finds a store that was begun.
    assert_eq!(import(fresh.path(), &twice).unwrap_err().exit_code(), 65);
    assert_eq!(import(fresh.path(), &text).unwrap().created, 2);

    let unknown = tempfile::tempdir().unwrap();
    imported(unknown.path(), &text).unwrap();
    assert!(verify(unknown.path(), &mut |_| ()).unwrap().uncompared);
    let other = tempfile::tempdir().unwrap();
    imported_with(other.path(), &["name = \"other\""], &text).unwrap();
    let verified = verify(other.path(), &mut |_| ()).unwrap();
    assert!(verified.uncompared && verified.findings.is_empty());
    insta::assert_snapshot!(verified.notes.join("\n"), @"no model is known as TODO, so documents of that name were not compared with one");
}
