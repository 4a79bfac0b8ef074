use std::{
    ffi::OsStr,
    fs,
    os::unix::{ffi::OsStrExt, fs::symlink},
};

use aegis_domain::{module, spec::ModelName};
use aegis_supervisor::last_good::{LastGood, Progress};

use super::{modules::MODULES_MAX, *};
use crate::check;

mod components;
mod deploying;
mod trials;

fn load(folder: &Path, overrides: &Overrides) -> Result<App, Mistakes> {
    Compilation::quiet(Keep::InDataFolder, |compilation| {
        load_app(folder, overrides, &Environment::new(), compilation)
    })
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        fs::create_dir(folder.path().join("modules")).unwrap();
        folder
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, path: &str, content: impl AsRef<[u8]>) -> &Self {
        let path = self.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        self
    }

    fn load(&self) -> Result<App, Mistakes> {
        load(self.path(), &Overrides::default())
    }

    fn mistakes(&self) -> String {
        let mistakes = self.load().unwrap_err();
        assert_eq!(mistakes.blame, Blame::App);
        mistakes.lines.join("\n").replace(&self.path().display().to_string(), "APP")
    }
}

const TODO: &str = "name = \"todo\"\n[fields]\ntext = \"text\"\n";
const NOTE: &str = "name = \"note\"\n[fields]\ntext = \"text\"\n";

#[test]
fn the_example_app_is_valid() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/todo");
    let app = load(&folder, &Overrides::default()).unwrap();
    assert_eq!(app.models[0].name, ModelName::new("todo").unwrap());
    assert_eq!(app.models[0].endpoint, "todo");
    assert_eq!(app.warnings, [] as [&str; 0]);
}

#[test]
fn a_summary_tells_what_would_be_served() {
    let folder = Folder::new();
    folder.write("aegis.toml", "workers = { count = 3, threads = 2 }\n").write("modules/a/module.toml", TODO);
    folder
        .write("modules/b/module.toml", format!("datasource = \"memory\"\n{NOTE}"))
        .write("modules/README", "");
    let app = folder.load().unwrap();
    let text = check::summary(&app).replace(&folder.path().display().to_string(), "APP");
    insta::assert_snapshot!(text.replace(&app.bundle.digest, "DIGEST"), @"
    app      APP
    digest   DIGEST
    listen   127.0.0.1:8080
    workers  3 with 2 threads each
    data     APP/data
    models   2
      TODO  /aegis/api/models/todos  file, 1 field
      NOTE  /aegis/api/models/notes  memory, 1 field
    warning: modules/README: not a folder, so no module; ignored
    ");
}

#[test]
fn the_digest_is_that_of_configuration_and_models() {
    let folder = Folder::new();
    folder.write("modules/a/module.toml", TODO).write("modules/b/module.toml", NOTE);
    let first = folder.load().unwrap().bundle;
    assert_eq!(folder.load().unwrap().bundle, first);
    folder.write("modules/a/other.txt", "x").write("modules/.hidden/module.toml", "x");
    folder.write("modules/a/module.toml", format!("# a remark\n{TODO}"));
    assert_eq!(folder.load().unwrap().bundle, first, "what means the same is the same");
    folder.write("modules/a/module.toml", format!("description = \"x\"\n{TODO}"));
    let second = folder.load().unwrap().bundle;
    assert_ne!(second.digest, first.digest);
    folder.write("aegis.toml", "query.scan_max = 5");
    assert_ne!(folder.load().unwrap().bundle.digest, second.digest);
    assert_eq!(first.digest.len(), 64);
}

#[test]
fn the_bundle_carries_configuration_and_models() {
    let folder = Folder::new();
    folder.write("modules/a/module.toml", TODO);
    let app = folder.load().unwrap();
    assert_eq!(codec::decode::<Config>(&app.bundle.config).unwrap(), app.config);
    assert_eq!(catalog::decode(&app.bundle.catalog).unwrap(), app.models);
}

#[test]
fn models_come_in_the_order_of_their_folders() {
    let folder = Folder::new();
    for name in ["b", "a", "B", "ab"] {
        folder.write(
            &format!("modules/{name}/module.toml"),
            format!("name = \"m-{name}\"\n").replace("m-B", "upper"),
        );
    }
    let names: Vec<_> = folder.load().unwrap().models.iter().map(|model| model.name.to_string()).collect();
    assert_eq!(names, ["UPPER", "M-A", "M-AB", "M-B"]);
}

#[test]
fn an_app_without_modules_is_valid_with_a_warning() {
    let folder = Folder::new();
    let warnings = folder.load().unwrap().warnings;
    insta::assert_snapshot!(warnings.join("\n"), @"modules: no modules in it, so no models are served");
    fs::remove_dir(folder.path().join("modules")).unwrap();
    folder.write("aegis.toml", "");
    insta::assert_snapshot!(folder.load().unwrap().warnings.join("\n"), @"modules: no such folder, so no models are served");
    folder.write("aegis.toml", "modules_dir = \"elsewhere\"");
    insta::assert_snapshot!(folder.mistakes(), @"elsewhere: found nothing, expected a folder with modules");
}

#[test]
fn a_folder_that_is_gone_does_not_take_what_is_served_out_of_service() {
    let folder = Folder::new();
    folder.write("aegis.toml", "").write("modules/todo/module.toml", TODO);
    let app = folder.load().unwrap();
    let mut writing = LastGood::of(&app.config.data_dir).begin(&app.bundle.seal().unwrap()).unwrap();
    while writing.advance().unwrap() == Progress::Some {}
    fs::rename(folder.path().join("modules"), folder.path().join("elsewhere")).unwrap();
    insta::assert_snapshot!(folder.mistakes(), @"modules: no such folder, and the last good generation serves TODO as well; an empty folder takes out of service what came from it");
    fs::create_dir(folder.path().join("modules")).unwrap();
    insta::assert_snapshot!(folder.load().unwrap().warnings.join("\n"), @"modules: no modules in it, so no models are served");
}

#[test]
fn mistakes_of_configuration_and_modules_come_together() {
    let folder = Folder::new();
    folder.write("aegis.toml", "workers = \"many\"\nmodules_dir = \"parts\"\n");
    folder
        .write("parts/a/module.toml", "name = \"a\"\n[fields]\nx = \"number\"\n")
        .write("parts/b/other", "");
    insta::assert_snapshot!(folder.mistakes(), @r#"
    aegis.toml:1: workers: found "many", expected "auto" or a whole number from 1 to 112
    parts/a/module.toml:3: fields.x: found the text "number", expected one of text, integer, decimal, boolean, timestamp, object, array, any (did you mean "decimal"?)
    parts/b/module.toml: found nothing, expected a file
    "#);
}

#[test]
fn mistakes_between_modules_are_found() {
    let folder = Folder::new();
    folder.write("modules/a/module.toml", TODO).write("modules/b/module.toml", TODO);
    folder.write("modules/c/module.toml", TODO);
    folder.write("modules/d/module.toml", "name = \"note\"\nendpoint = \"todos\"\n");
    insta::assert_snapshot!(folder.mistakes(), @r#"
    model TODO: name: found it in modules/a and in modules/b, expected one of its own for each
    model TODO: name: found it in modules/a and in modules/c, expected one of its own for each
    model NOTE: endpoint: found "todos", which model TODO has, expected another
    "#);
}

#[test]
fn everything_that_is_no_module_is_told_apart() {
    let folder = Folder::new();
    let modules = folder.path().join("modules");
    folder.write("modules/bytes/module.toml", b"name = \"x\"\n\xff").write("modules/lonely.toml", TODO);
    folder.write("modules/large/module.toml", "#".repeat(module::MODULE_BYTES_MAX + 1));
    fs::create_dir_all(modules.join("empty")).unwrap();
    fs::create_dir_all(modules.join("folder/module.toml")).unwrap();
    symlink("nowhere", modules.join("link")).unwrap();
    fs::create_dir(modules.join("inner")).unwrap();
    symlink("/nowhere", modules.join("inner/module.toml")).unwrap();
    symlink("circle", modules.join("circle")).unwrap();
    nix::unistd::mkfifo(&modules.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    fs::create_dir(modules.join("fifo")).unwrap();
    nix::unistd::mkfifo(&modules.join("fifo/module.toml"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    fs::create_dir(modules.join(OsStr::from_bytes(b"bad\xff"))).unwrap();
    insta::assert_snapshot!(folder.mistakes(), @"
    modules/bad�: found a name that is not UTF-8, expected one that is
    modules/bytes/module.toml: found bytes in line 2 that are not UTF-8, expected UTF-8 text
    modules/circle: cannot be read: Too many levels of symbolic links (os error 40)
    modules/empty/module.toml: found nothing, expected a file
    modules/fifo/module.toml: found no regular file, expected a text file
    modules/folder/module.toml: found no regular file, expected a text file
    modules/inner/module.toml: found a symbolic link to /nowhere, which does not exist, expected one that leads somewhere
    modules/large/module.toml: found more than 1048576 bytes, expected at most that
    modules/link: found a symbolic link to nowhere, which does not exist, expected one that leads somewhere
    modules/lonely.toml: found a file, expected a folder: a module is modules/lonely/module.toml
    ");
}

#[test]
fn links_to_modules_are_followed() {
    let folder = Folder::new();
    folder.write("shared/module.toml", TODO);
    symlink("../shared", folder.path().join("modules/todo")).unwrap();
    assert_eq!(folder.load().unwrap().models.len(), 1);
}

#[test]
fn a_wrong_flag_alone_is_a_mistake_of_the_command_line() {
    let folder = Folder::new();
    folder.write("modules/a/module.toml", TODO);
    let overrides = Overrides { workers: Some("many".to_owned()), ..Overrides::default() };
    let blame = || load(folder.path(), &overrides).unwrap_err().blame;
    assert_eq!(blame(), Blame::CommandLine);
    folder.write("modules/a/module.toml", "name = ");
    assert_eq!(blame(), Blame::App);
}

#[test]
fn a_flood_of_modules_is_refused() {
    let folder = Folder::new();
    for number in 0..=MODULES_MAX {
        fs::create_dir(folder.path().join(format!("modules/m{number}"))).unwrap();
    }
    insta::assert_snapshot!(folder.mistakes(), @"modules: found 1001 entries, expected at most 1000");
}

#[test]
fn the_secret_of_webhooks_is_read_from_its_file_without_its_final_newline() {
    let folder = Folder::new();
    folder
        .write("modules/a/module.toml", TODO)
        .write("aegis.toml", "reload.webhook-secret-file = \"s/hook\"\n");
    let secret = |content: &str| {
        let app = folder.write("s/hook", content).load().unwrap();
        let config: Config = codec::decode(&app.bundle.config).unwrap();
        (config.reload.webhook_secret.unwrap().reveal().to_vec(), app.bundle.digest)
    };
    let (bare, digest) = secret("sixteen bytes...");
    assert_eq!(bare, b"sixteen bytes...");
    assert_eq!(secret("sixteen bytes...\n"), (bare.clone(), digest.clone()));
    assert_eq!(secret("sixteen bytes...\r\n"), (bare, digest.clone()));
    assert_eq!(secret("sixteen bytes...\n\n").0, b"sixteen bytes...\n");
    assert_ne!(secret("another sixteen.").1, digest, "a new secret is a new generation");
    assert_eq!(secret(&"x".repeat(4096)).0.len(), 4096);
}

#[test]
fn a_secret_of_webhooks_that_is_not_there_or_of_a_wrong_length_is_a_mistake_that_does_not_show_it() {
    let folder = Folder::new();
    folder
        .write("modules/a/module.toml", TODO)
        .write("aegis.toml", "reload.webhook-secret-file = \"hook\"\n");
    let mut told = vec![folder.mistakes()];
    for content in ["", "fifteen bytes..\n", &"x".repeat(4097), &"x".repeat(5000)] {
        told.push(folder.write("hook", content).mistakes());
    }
    fs::remove_file(folder.path().join("hook")).unwrap();
    fs::create_dir(folder.path().join("hook")).unwrap();
    told.push(folder.mistakes());
    insta::assert_snapshot!(told.join("\n"), @"
    reload.webhook_secret_file: APP/hook: found nothing, expected a file
    reload.webhook_secret_file: APP/hook: found a secret of 0 bytes, expected 16 to 4096
    reload.webhook_secret_file: APP/hook: found a secret of 15 bytes, expected 16 to 4096
    reload.webhook_secret_file: APP/hook: found a secret of 4097 bytes, expected 16 to 4096
    reload.webhook_secret_file: APP/hook: found more than 4098 bytes, expected at most that
    reload.webhook_secret_file: APP/hook: found no regular file, expected a file with the secret of webhooks
    ");
}
