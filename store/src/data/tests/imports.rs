//! What an import takes, by what is declared and by what is there.

use super::*;

#[test]
fn while_no_host_has_used_a_store_an_import_goes_by_what_the_app_declares_then() {
    let (strict, plain) = ([TODO, NOTE], [PLAIN_TODO, NOTE]);
    let twice = dump(&[("a", 1, "x"), ("b", 1, "x")]);
    let both = Imported { created: 2, replaced: 0, unchanged: 0 };

    let loosened = tempfile::tempdir().unwrap();
    assert_eq!(imported_with(loosened.path(), &strict, &twice).unwrap_err().exit_code(), 65);
    assert_eq!(imported_with(loosened.path(), &plain, &twice).unwrap(), both);

    let tightened = tempfile::tempdir().unwrap();
    let typo = twice.replace("\"id\":\"b\",\"revision\"", "\"id\":\"\",\"revision\"");
    assert!(
        imported_with(tightened.path(), &plain, &typo).unwrap_err().to_string().starts_with("line 3: id")
    );
    let refused = imported_with(tightened.path(), &strict, &twice).unwrap_err();
    insta::assert_snapshot!(refused, @r#"line 3: unique field code of model TODO: document "a" has the same value; 0 documents were imported"#);
    let verified = verify(tightened.path(), &mut |_| ()).unwrap();
    assert_eq!((verified.documents, verified.uncompared, verified.findings), (0, false, Vec::new()));
}

#[test]
fn what_is_unique_by_now_is_looked_for_in_what_earlier_imports_have_written() {
    let (strict, plain) = ([TODO, NOTE], [PLAIN_TODO, NOTE]);
    let folder = tempfile::tempdir().unwrap();
    let many: Vec<String> = (0..1200).map(|number| number.to_string()).collect();
    let many: Vec<(&str, u64, &str)> = many.iter().map(|id| (id.as_str(), 1, id.as_str())).collect();
    assert_eq!(imported_with(folder.path(), &plain, &dump(&many)).unwrap().created, 1200);
    let taken = imported_with(folder.path(), &strict, &dump(&[("new", 1, "1000")])).unwrap_err();
    insta::assert_snapshot!(taken, @r#"line 2: unique field code of model TODO: document "1000" has the same value; 0 documents were imported"#);
    let verified = verify(folder.path(), &mut |_| ()).unwrap();
    assert_eq!((verified.unique_values, verified.uncompared, verified.findings), (1200, false, Vec::new()));

    assert_eq!(imported_with(folder.path(), &plain, &dump(&[("new", 1, "1000")])).unwrap().created, 1);
    let misfit = imported_with(folder.path(), &strict, &dump(&[])).unwrap_err();
    assert_eq!(misfit.exit_code(), crate::error::EXIT_CONFIGURATION);
    insta::assert_snapshot!(misfit, @r#"documents of an earlier import do not fit the models of the app: unique field code of model TODO: documents "1000" and "new" have the same value; no host has used this store yet, so it can be removed and made anew by an import"#);

    // From here on the host knows better.
    let engine = options(folder.path()).open().unwrap().engine;
    let meta = vec![MetaEdit::Catalog(catalog::encode(&specs(&plain)))];
    engine.apply(&Batch { meta, ..Batch::default() }).unwrap();
    drop(engine);
    assert_eq!(imported_with(folder.path(), &strict, &dump(&[("new", 2, "1001")])).unwrap().replaced, 1);
}

#[test]
fn models_that_do_not_fit_together_are_told_while_no_host_has_used_the_store() {
    let folder = tempfile::tempdir().unwrap();
    let error = imported_with(folder.path(), &[TODO, TODO], &dump(&[])).unwrap_err();
    insta::assert_snapshot!(error, @r#"the models of the app cannot be used: model TODO: name: found the name of another model, expected one of its own; model TODO: endpoint: found "todos", which model TODO has, expected another"#);
    fill(folder.path());
    assert_eq!(imported_with(folder.path(), &[TODO, TODO], &dump(&[])).unwrap(), Imported::default());
}

#[test]
fn a_model_that_does_not_say_is_kept_where_the_configuration_says() {
    let models = specs(&[TODO]);
    let declared = Declared { models: &models, datasource: Datasource::Memory };
    let import = |folder: &Path| {
        import(folder, &declared, &mut dump(&[("a", 3, "x")]).as_bytes(), &mut |_| ())
            .unwrap_err()
            .to_string()
    };
    let (fresh, used) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fill(used.path());
    insta::assert_snapshot!(import(fresh.path()), @"line 2: model TODO keeps its documents in memory, so they cannot be imported; 0 documents were imported");
    assert_eq!(import(used.path()), import(fresh.path()));
    let recovered = options(fresh.path()).open().unwrap().engine.recover().unwrap();
    assert_eq!(recovered.indexes, Vec::new());
}

#[test]
fn what_is_exported_can_be_imported_after_a_model_has_moved_into_memory() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fill(from.path());
    let engine = options(from.path()).open().unwrap().engine;
    let ChangeKind::Put { id, revision, body, .. } = put(6, "a", 1, "").kind else { panic!("a put") };
    let body = Bytes::from(String::from_utf8(body.to_vec()).unwrap().replace("TODO", "OTHER"));
    let kind = ChangeKind::Put { id, revision, body, changes: None };
    let other = Change { kind, model: "OTHER".into(), ..put(6, "a", 1, "") };
    engine.apply(&Batch { changes: vec![&other], ..Batch::default() }).unwrap();
    drop(engine);
    // One is in memory because it says so, as the app declares it now; the other because the configuration does.
    for (modules, datasource, left_out) in [
        (["name = \"todo\"\ndatasource = \"memory\"", "name = \"other\""], Datasource::File, ("TODO", 2)),
        (["name = \"todo\"\ndatasource = \"file\"", "name = \"other\""], Datasource::Memory, ("OTHER", 1)),
    ] {
        let models = specs(&modules);
        let declared = Declared { models: &models, datasource };
        let mut text = Vec::new();
        let written = export(from.path(), &declared, &mut text, &mut |_| ()).unwrap();
        let expected = LeftOut { model: left_out.0.to_owned(), documents: left_out.1 };
        assert_eq!((written.documents, written.left_out), (3 - left_out.1, vec![expected]));
        import(to.path(), &declared, &mut &text[..], &mut |_| ()).unwrap();
    }
    assert_eq!(exported(from.path()).lines().count(), 4, "nothing is left out that is on disk");
}

#[test]
fn unique_values_may_have_moved_between_documents_that_are_there() {
    let moves: [&[(&str, u64, &str)]; 5] = [
        // What b has is given up in the next line.
        &[("a", 2, "y"), ("b", 2, "w")],
        &[("a", 2, "y"), ("b", 2, "x")],
        &[("a", 2, "y"), ("b", 2, "z"), ("c", 2, "x")],
        &[("new", 1, "y"), ("a", 2, "z"), ("b", 2, "x"), ("c", 2, "u")],
        // Nobody has it any more.
        &[("a", 2, "y"), ("new", 1, "x"), ("b", 2, "v")],
    ];
    for documents in moves {
        let folder = tempfile::tempdir().unwrap();
        fill(folder.path());
        let first = dump(&[("a", 1, "x"), ("b", 1, "y"), ("c", 1, "z")]);
        imported(folder.path(), &first).unwrap();
        let taken = imported(folder.path(), &dump(documents)).unwrap();
        assert_eq!(taken.created + taken.replaced, documents.len() as u64, "{documents:?}");
        assert_eq!(findings(folder.path()), Vec::<String>::new(), "{documents:?}");
        let again = imported(folder.path(), &dump(documents)).unwrap();
        assert_eq!(again.unchanged, documents.len() as u64, "{documents:?}");
    }
}

#[test]
fn values_that_are_still_there_twice_at_the_end_are_refused_with_their_line() {
    let cases: [&[(&str, u64, &str)]; 5] = [
        &[("a", 2, "y"), ("c", 2, "u")],
        &[("a", 2, "y"), ("c", 2, "y"), ("b", 2, "w")],
        &[("b", 1, "y"), ("a", 2, "y")],
        &[("a", 2, "y"), ("c", 2, "x"), ("b", 2, "v"), ("new", 1, "v")],
        &[("a", 2, "y"), ("a", 3, "w"), ("b", 2, "v")],
    ];
    let mut told = Vec::new();
    for documents in cases {
        let folder = tempfile::tempdir().unwrap();
        fill(folder.path());
        imported(folder.path(), &dump(&[("a", 1, "x"), ("b", 1, "y"), ("c", 1, "z")])).unwrap();
        let before = exported(folder.path());
        let error = imported(folder.path(), &dump(documents)).unwrap_err();
        assert_eq!(error.exit_code(), 65);
        told.push(error.to_string());
        assert_eq!(exported(folder.path()), before, "the chunk was not taken");
    }
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path());
    imported(folder.path(), &dump(&[("a", 1, "x"), ("b", 1, "y")])).unwrap();
    let cut = dump(&[("a", 2, "y"), ("c", 1, "z"), ("b", 2, "w")]);
    let cut = cut.lines().take(3).collect::<Vec<_>>().join("\n");
    told.push(imported(folder.path(), &cut).unwrap_err().to_string());
    insta::assert_snapshot!(told.join("\n"), @r#"
    line 2: unique field code of model TODO: document "b" has the same value; 0 documents were imported
    line 3: unique field code of model TODO: document "a" has the same value; 0 documents were imported
    line 3: unique field code of model TODO: document "b" has the same value; 0 documents were imported
    line 5: unique field code of model TODO: document "b" has the same value; 0 documents were imported
    line 3: document "a" of model TODO is there for the second time, and the first one has to wait for a value that another document has; 0 documents were imported
    the export is cut short: its header announces 3 documents, found 2; 1 documents were imported
    "#);
    assert_eq!(findings(folder.path()), Vec::<String>::new());
}

#[test]
fn lines_wait_for_values_until_all_chunks_are_there_but_not_more_of_them_than_there_is_room_for() {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path());
    let names: Vec<String> = (0..1500).map(|number| format!("{number:04}")).collect();
    let shifted = |by: usize, revision| {
        let of = |at: usize| (names[at].as_str(), revision, names[(at + by) % names.len()].as_str());
        dump(&(0..names.len()).map(of).collect::<Vec<_>>())
    };
    imported(folder.path(), &shifted(0, 1)).unwrap();
    assert_eq!(imported(folder.path(), &shifted(1, 2)).unwrap().replaced, 1500);
    assert_eq!(findings(folder.path()), Vec::<String>::new());
    assert!(exported(folder.path()).contains("\"document\":{\"code\":\"0000\",\"id\":\"1499\""));

    let padding = " ".repeat(15 << 20);
    let large = shifted(0, 3).lines().take(4).collect::<Vec<_>>().join("\n");
    let large = large.replace("\"document\":{", &format!("\"document\":{{{padding}"));
    let error = imported(folder.path(), &large).unwrap_err().to_string();
    insta::assert_snapshot!(error, @r#"line 4: unique field code of model TODO: document "0001" has the same value, and more than 33554432 bytes of lines would have to wait for such values; 0 documents were imported"#);
}
