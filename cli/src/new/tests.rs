use super::*;
use crate::arguments::Language;

fn arguments(name: &str, language: Language, folder: &Path) -> NewModelArguments {
    NewModelArguments { name: name.to_owned(), language, folder: Some(folder.to_owned()) }
}

/// Paths of all files below a folder, in order.
fn files(folder: &Path) -> Vec<String> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push(path.strip_prefix(folder).unwrap().display().to_string());
            }
        }
    }
    found.sort();
    found
}

#[test]
fn a_model_without_code_is_a_few_files() {
    let place = tempfile::tempdir().unwrap();
    write(&arguments("Note", Language::Toml, place.path())).unwrap();
    assert_eq!(files(place.path()), [".gitignore", "README.md", "aegis.toml", "modules/note/module.toml"]);
    let text = fs::read_to_string(place.path().join("modules/note/module.toml")).unwrap();
    assert!(text.contains("name = \"note\"\nendpoint = \"notes\""), "{text}");
}

#[test]
fn a_model_in_javascript_comes_with_what_builds_it() {
    let place = tempfile::tempdir().unwrap();
    write(&arguments("note", Language::JavaScript, place.path())).unwrap();
    let files = files(place.path());
    for path in ["sources/note.js", "modules/note/aegis.module.json", "sdk/build.mjs", "sdk/wit/types.wit"] {
        assert!(files.iter().any(|file| file == path), "{path} is missing: {files:?}");
    }
    for file in files.iter().filter(|file| !file.starts_with("sdk")) {
        let text = fs::read_to_string(place.path().join(file)).unwrap();
        assert!(!text.contains("@NAME@") && !text.contains("@ENDPOINT@"), "{file}: {text}");
    }
}

#[test]
fn a_model_in_rust_or_python_comes_with_what_builds_it() {
    for (language, source, sdk) in [
        (Language::Rust, "sources/src/lib.rs", "sdk/src/lib.rs"),
        (Language::Python, "sources/model.py", "sdk/build.py"),
    ] {
        let place = tempfile::tempdir().unwrap();
        write(&arguments("note", language, place.path())).unwrap();
        let files = files(place.path());
        for path in [source, sdk, "modules/note/aegis.module.json", "sdk/wit/types.wit"] {
            assert!(files.iter().any(|file| file == path), "{path} is missing: {files:?}");
        }
        let text = fs::read_to_string(place.path().join(source)).unwrap();
        assert!(text.contains("\"note\"") && text.contains("\"notes\""), "{source}: {text}");
        for file in files.iter().filter(|file| !file.starts_with("sdk")) {
            let text = fs::read_to_string(place.path().join(file)).unwrap();
            assert!(!text.contains("@NAME@") && !text.contains("@ENDPOINT@"), "{file}: {text}");
        }
    }
}

/// Paths below a folder of those files that lie there.
fn below(files: &[templates::File], folder: &str) -> Vec<String> {
    files.iter().filter_map(|(path, _)| path.strip_prefix(folder)).map(str::to_owned).collect()
}

#[test]
fn every_file_of_the_contract_and_of_the_languages_comes_along() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    assert_eq!(below(templates::CONTRACT, "sdk/wit/"), files(&root.join("wit")));
    assert_eq!(below(templates::RUST, "sdk/src/"), files(&root.join("sdk/rust/src")));
    let javascript: Vec<_> = files(&root.join("sdk/js"));
    let others = |file: &String| file == "README.md" || file.starts_with("node_modules/");
    let javascript: Vec<_> = javascript.into_iter().filter(|file| !others(file)).collect();
    assert_eq!(below(templates::JAVASCRIPT, "sdk/"), javascript);
    let python: Vec<_> = files(&root.join("sdk/python/aegis_module"));
    let python: Vec<_> = python.into_iter().filter(|file| file.ends_with(".py")).collect();
    assert_eq!(below(templates::PYTHON, "sdk/aegis_module/"), python);
}

#[test]
fn nothing_is_overwritten() {
    let place = tempfile::tempdir().unwrap();
    fs::write(place.path().join("aegis.toml"), "mine").unwrap();
    let failure = write(&arguments("note", Language::Toml, place.path())).unwrap_err();
    let text = failure.to_string().replace(&place.path().display().to_string(), "DIR");
    insta::assert_snapshot!(text, @"
    found files that are there already, expected a folder without them
      DIR/aegis.toml
    ");
    assert_eq!(files(place.path()), ["aegis.toml"]);
    assert_eq!(fs::read_to_string(place.path().join("aegis.toml")).unwrap(), "mine");
}

#[test]
fn a_name_that_no_model_can_have_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let refused = |name: &str| write(&arguments(name, Language::Toml, place.path())).unwrap_err().to_string();
    insta::assert_snapshot!(refused("../x"), @r#"NAME: found "../X", expected 1 to 64 letters, digits, '_' or '-', starting with a letter"#);
    insta::assert_snapshot!(refused(&"x".repeat(64)), @"NAME: found 64 bytes, expected at most 63");
    assert_eq!(files(place.path()), [] as [&str; 0]);
}
