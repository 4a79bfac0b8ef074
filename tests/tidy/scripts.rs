//! What the scripts do where a tool is missing, and where something is broken.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output},
};

use crate::root;

/// `scripts/test` in a folder where nothing is built: modules in JavaScript end with `javascript` as exit status, and what
/// cargo is asked is printed.
fn test_script(javascript: u8, whole: bool) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    for name in ["scripts/test", "scripts/needs"] {
        write(name, &fs::read_to_string(root().join(name)).unwrap());
    }
    write("scripts/guests", &format!("#!/bin/sh\n[ \"$1\" != js ] || exit {javascript}\n"));
    write("scripts/wasmtime", "#!/bin/sh\nexit 1\n");
    write("bin/cargo", "#!/bin/sh\necho \"$@\"\n");
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new(folder.path().join("scripts/test"));
    command.env("PATH", format!("{}:{path}", folder.path().join("bin").display()));
    if whole {
        command.env("AEGIS_TEST_WHOLE", "1")
    } else {
        command.env_remove("AEGIS_TEST_WHOLE")
    };
    command.output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn tests_of_a_language_are_left_out_only_where_its_tools_are_missing() {
    let all = text(&test_script(0, false));
    assert!(all.contains("nextest run") && !all.contains("javascript"), "{all}");
    let fewer = text(&test_script(69, false));
    assert!(fewer.contains("--skip ::javascript:: --skip in_javascript"), "{fewer}");
    let broken = test_script(1, false);
    assert_eq!((broken.status.code(), text(&broken).contains("nextest run")), (Some(1), false));
    let whole = test_script(69, true);
    assert_eq!((whole.status.code(), text(&whole).contains("nextest run")), (Some(69), false));
}

#[test]
fn a_missing_tool_has_an_exit_status_of_its_own() {
    let needs = |tool: &str| Command::new(root().join("scripts/needs")).arg(tool).output().unwrap();
    assert_eq!(needs("bash").status.code(), Some(0));
    let missing = needs("no-such-tool-anywhere");
    assert_eq!(missing.status.code(), Some(69));
    assert!(String::from_utf8_lossy(&missing.stderr).starts_with("missing: no-such-tool-anywhere"));
}

/// Where root finds servers, and others do not look.
#[test]
fn servers_are_found_by_everybody() {
    let nginx = Path::new("/usr/sbin/nginx");
    if !nginx.exists() {
        return; // it would be installed
    }
    let status =
        Command::new(root().join("scripts/needs")).arg("nginx").env("PATH", "/usr/bin:/bin").status();
    assert!(status.unwrap().success());
}
