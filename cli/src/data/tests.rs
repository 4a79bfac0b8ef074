use super::*;

fn app() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("aegis.toml"), "").unwrap();
    folder
}

fn silent() -> Progress<io::Stderr> {
    Progress::new(Form::Json)
}

const NOTHING: Declared<'static> =
    Declared { models: &[], datasource: aegis_config::settings::Datasource::File };

const EXPORT: &str = concat!(
    "{\"format\":\"aegis-documents\",\"version\":1,\"documents\":1,\"sequence\":1}\n",
    "{\"model\":\"TODO\",\"id\":\"a\",\"revision\":1,\"sequence\":1,",
    "\"document\":{\"text\":\"x\",\"id\":\"a\",\"modelName\":\"TODO\",\"createTime\":\"2026-01-01T00:00:00.000Z\",",
    "\"updateTime\":\"2026-01-01T00:00:00.000Z\",\"revision\":1}}\n"
);

#[test]
fn what_was_imported_is_exported_and_whole() {
    let app = app();
    let (data_dir, dump, copy) = (app.path().join("data"), app.path().join("in"), app.path().join("out"));
    fs::write(&dump, EXPORT).unwrap();
    assert_eq!(import(&data_dir, &NOTHING, Some(&dump), &mut silent(), Form::Json).unwrap(), exit::FINE);
    assert_eq!(export(&data_dir, &NOTHING, Some(&copy), &mut silent(), Form::Json).unwrap(), exit::FINE);
    let copied = fs::read_to_string(&copy).unwrap();
    assert_eq!(copied.lines().count(), 2);
    assert!(copied.contains("\"text\":\"x\""));
    assert_eq!(verify(&data_dir, &mut silent(), Form::Json).unwrap(), exit::FINE);
}

#[test]
fn what_an_export_leaves_out_is_told() {
    let left_out = LeftOut { model: "NOTE".to_owned(), documents: 2 };
    insta::assert_snapshot!(note(&left_out), @"note: left out 2 documents of model NOTE, which keeps its documents in memory by now: no import would take them; they stay in the store");
}

#[test]
fn a_failed_export_leaves_no_file_and_keeps_the_old_one() {
    let app = app();
    let copy = app.path().join("out");
    fs::write(&copy, "old").unwrap();
    let failure =
        export(&app.path().join("data"), &NOTHING, Some(&copy), &mut silent(), Form::Json).unwrap_err();
    assert!(matches!(failure, Failure::Data(DataError::NoStore { .. })), "{failure:?}");
    assert_eq!(fs::read_to_string(&copy).unwrap(), "old");
    assert!(!app.path().join("out.part").exists());
}

#[test]
fn an_export_goes_where_a_link_leads_and_replaces_no_device() {
    use std::os::unix::fs::symlink;

    let app = app();
    let (data_dir, dump) = (app.path().join("data"), app.path().join("in"));
    fs::write(&dump, EXPORT).unwrap();
    import(&data_dir, &NOTHING, Some(&dump), &mut silent(), Form::Json).unwrap();
    let (device, link, file) = (app.path().join("device"), app.path().join("link"), app.path().join("file"));
    fs::write(&file, "old").unwrap();
    symlink("/dev/null", &device).unwrap();
    symlink(&file, &link).unwrap();
    for output in [&device, &link] {
        assert_eq!(export(&data_dir, &NOTHING, Some(output), &mut silent(), Form::Json).unwrap(), exit::FINE);
        assert!(fs::symlink_metadata(output).unwrap().is_symlink(), "{}", output.display());
    }
    assert_eq!(fs::read_to_string(&file).unwrap().lines().count(), 2);
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let app = app();
    let missing = app.path().join("missing/file");
    let told = |failure: Failure| {
        assert_eq!(failure.exit_code(), exit::OS);
        explained(&failure).replace(&app.path().display().to_string(), "APP")
    };
    let data_dir = app.path().join("data");
    let import = import(&data_dir, &NOTHING, Some(&missing), &mut silent(), Form::Json).unwrap_err();
    insta::assert_snapshot!(told(import), @"opening APP/missing/file failed: No such file or directory (os error 2)");
    let export = export(&data_dir, &NOTHING, Some(&missing), &mut silent(), Form::Json).unwrap_err();
    insta::assert_snapshot!(told(export), @"creating APP/missing/file.part failed: No such file or directory (os error 2)");
}

#[test]
fn root_imports_nothing_into_the_data_of_somebody_else() {
    const ROOT: u32 = 0;
    let called = |_| Some("deploy".to_owned());
    let nameless = |_| None;
    assert_eq!(instead_of(ROOT, 1001, called), Some("deploy".to_owned()));
    assert_eq!(instead_of(ROOT, 1001, nameless), Some("'#1001'".to_owned()));
    assert_eq!(instead_of(ROOT, ROOT, called), None);
    assert_eq!(instead_of(1001, 1001, called), None);
    assert_eq!(instead_of(1001, 1002, called), None, "the system says what such a user may do");
    let refused = Failure::NotOfRoot { folder: "/srv/app/data".into(), user: "deploy".to_owned() };
    insta::assert_snapshot!(explained(&refused), @"the host of /srv/app/data runs as another user and could not open what root makes there; run it as that user: sudo -u deploy aegis data import …");
    assert_eq!(refused.exit_code(), exit::USAGE);
}

#[test]
fn data_are_of_whoever_the_host_has_made_them_as() {
    let app = app();
    let us = geteuid().as_raw();
    let data_dir = app.path().join("var/data");
    fs::create_dir_all(&data_dir).unwrap();
    assert_eq!(whose(&data_dir), None, "no host was there yet");
    fs::write(data_dir.join("LOCK"), "").unwrap();
    assert_eq!(whose(&data_dir), Some((data_dir.clone(), us)));
}

/// Runs `aegis data import` of [`EXPORT`] beside an app.
fn import_beside(app: &Path) -> u8 {
    let dump = app.join("in");
    fs::write(&dump, EXPORT).unwrap();
    let arguments = DataArguments { folder: app.to_owned(), data: None };
    let command = DataCommand::Import { app: arguments, input: Some(dump) };
    run(&command, &Environment::new(), Form::Json)
}

#[test]
fn a_model_that_the_configuration_keeps_in_memory_takes_no_documents() {
    let app = app();
    fs::create_dir_all(app.path().join("modules/todo")).unwrap();
    fs::write(app.path().join("modules/todo/module.toml"), "name = \"todo\"").unwrap();
    fs::write(app.path().join("aegis.toml"), "datasource = \"memory\"").unwrap();
    assert_eq!(import_beside(app.path()), 65);
    fs::write(app.path().join("modules/todo/module.toml"), "name = \"todo\"\ndatasource = \"file\"").unwrap();
    assert_eq!(import_beside(app.path()), exit::FINE);
    fs::write(app.path().join("aegis.toml"), "").unwrap();
    fs::write(app.path().join("modules/todo/module.toml"), "name = \"todo\"").unwrap();
    assert_eq!(import_beside(app.path()), exit::FINE);
}

#[test]
fn nothing_is_imported_while_a_module_cannot_be_read() {
    let app = app();
    let told = |app: &Path| match declared(&configuration_of(app)) {
        Ok(models) => models.into_iter().map(|model| model.name.as_str().to_owned()).collect(),
        Err(mistakes) => mistakes.lines.join("\n"),
    };
    // Without modules, as ever.
    assert_eq!(told(app.path()), "");
    for (name, text) in [("todo", "name = \"todo\""), ("user", "name = \"user\"\nfields = 3\n")] {
        fs::create_dir_all(app.path().join("modules").join(name)).unwrap();
        fs::write(app.path().join("modules").join(name).join("module.toml"), text).unwrap();
    }
    insta::assert_snapshot!(told(app.path()), @"modules/user/module.toml:2: fields: found the number 3, expected a table of fields");
    assert_eq!(import_beside(app.path()), exit::CONFIGURATION);
    assert!(!app.path().join("data").exists(), "nothing was taken");
    // Components, and what is no module, say nothing here.
    fs::remove_file(app.path().join("modules/user/module.toml")).unwrap();
    fs::write(app.path().join("modules/README"), "").unwrap();
    assert_eq!(told(app.path()), "TODO");
    assert_eq!(import_beside(app.path()), exit::FINE);
    std::os::unix::fs::symlink("gone", app.path().join("modules/user/module.toml")).unwrap();
    insta::assert_snapshot!(told(app.path()), @"modules/user/module.toml: found a symbolic link to gone, which does not exist, expected one that leads somewhere");
    fs::write(app.path().join("aegis.toml"), "modules_dir = \"mod\"").unwrap();
    insta::assert_snapshot!(told(app.path()), @"mod: found nothing, expected a folder with modules");
}

fn configuration_of(app: &Path) -> Config {
    configuration(&DataArguments { folder: app.to_owned(), data: None }, &Environment::new()).unwrap()
}

#[test]
fn the_data_folder_is_the_one_of_the_configuration() {
    let app = app();
    fs::write(app.path().join("aegis.toml"), "data_dir = \"d\"").unwrap();
    let arguments =
        |data: Option<&str>| DataArguments { folder: app.path().to_owned(), data: data.map(PathBuf::from) };
    let found = |data| configuration(&arguments(data), &Environment::new()).map(|config| config.data_dir);
    assert_eq!(found(None).unwrap(), app.path().join("d"));
    assert_eq!(found(Some("/elsewhere")).unwrap(), PathBuf::from("/elsewhere"));
    fs::write(app.path().join("aegis.toml"), "data_dir = 3").unwrap();
    assert_eq!(found(None).unwrap_err().lines.len(), 1);
}

#[test]
fn a_verification_is_told_in_full() {
    let whole = Verified {
        documents: 1,
        changes: 2,
        notes: vec!["the models are not known yet".to_owned()],
        uncompared: true,
        ..Verified::default()
    };
    insta::assert_snapshot!(verdict(&whole), @"
    read 1 document, 2 changes, 0 unique values, 0 kept responses
    note: the models are not known yet
    everything is whole, but not all of it was compared with the models
    ");
    let compared = Verified { notes: Vec::new(), uncompared: false, ..whole };
    assert!(verdict(&compared).ends_with("\neverything is whole\n"));
    let damaged = Verified {
        findings: vec!["row 1".to_owned(), "row 2".to_owned()],
        findings_count: 5,
        ..Verified::default()
    };
    insta::assert_snapshot!(verdict(&damaged), @"read 0 documents, 0 changes, 0 unique values, 0 kept responses");
    insta::assert_snapshot!(findings(&damaged), @"
    5 findings, nothing was changed
      row 1
      row 2
      and 3 more
    ");
}

#[test]
fn steps_tell_how_far_it_is() {
    assert_eq!(steps("exported", Step { done: 3, total: Some(9) }), "exported 3 of 9");
    assert_eq!(steps("verified", Step { done: 3, total: None }), "verified 3");
}

#[test]
fn an_export_goes_into_a_folder_that_may_not_be_read() {
    use std::os::unix::fs::PermissionsExt;

    use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};

    let (app, inbox) = (app(), tempfile::tempdir().unwrap());
    let (data_dir, dump, copy) = (app.path().join("data"), app.path().join("in"), inbox.path().join("out"));
    fs::write(&dump, EXPORT).unwrap();
    import(&data_dir, &NOTHING, Some(&dump), &mut silent(), Form::Json).unwrap();
    fs::set_permissions(inbox.path(), fs::Permissions::from_mode(0o300)).unwrap();
    // Permissions count for root, too, once it has no capabilities.
    let none = CapabilitySet::empty();
    let none = CapabilitySets { effective: none, permitted: none, inheritable: none };
    let export = || {
        set_capabilities(None, none).unwrap();
        assert!(fs::read_dir(inbox.path()).is_err());
        export(&data_dir, &NOTHING, Some(&copy), &mut silent(), Form::Json)
    };
    let exported = std::thread::scope(|scope| scope.spawn(export).join().unwrap());
    fs::set_permissions(inbox.path(), fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(exported.unwrap(), exit::FINE);
    assert_eq!(fs::read_to_string(&copy).unwrap().lines().count(), 2);
}
