use clap::{CommandFactory, error::ErrorKind};

use super::*;

fn parse(line: &str) -> Result<Arguments, clap::Error> {
    Arguments::try_parse_from(line.split_whitespace())
}

fn complaint(line: &str) -> String {
    parse(line).unwrap_err().render().to_string()
}

fn help(path: &[&str]) -> String {
    let mut command = Arguments::command().term_width(100);
    command.build();
    let found = path.iter().fold(&mut command, |command, name| command.find_subcommand_mut(name).unwrap());
    let help = found.render_long_help().to_string();
    help.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_command_line_is_well_formed() {
    Arguments::command().debug_assert();
}

#[test]
fn help_shows_what_a_person_may_do() {
    insta::assert_snapshot!(help(&[]), @"
    A federation host: many services in one small cluster of processes

    Usage: aegis [OPTIONS] <COMMAND>

    Commands:
      run          Run the app in DIR until it is stopped
      dev          Run the app in DIR while it is worked on: what changes is built and brought into
                   force at once
      check        Report every mistake in the configuration and modules of the app in DIR, without
                   running it; DIR may also be a component, a *.wasm file
      new          Begin something new
      key          Make keys that modules are signed with
      sign         Sign the manifest of a module, so that hosts know who publishes it
      run-command  Call one command or hook of the component in FILE once, without a host
      status       Show the state of the host
      reload       Bring what has changed into force, or one module of it, and wait for the verdict
      deploy       Bring another version of one module into force, and nothing else
      rollback     Go back to before the last change, and stay there until a reload
      scale        Change the number of workers until a reload brings something new
      drain        Let all workers finish and leave; connections wait for a reload, scale or upgrade
      restart      Replace workers one by one, or the one in SLOT
      upgrade      Replace the running executable without losing a connection
      logs         What becomes of log lines
      stop         End the host; what is in flight is finished within the drain timeout, unless said
                   otherwise
      data         Look after the documents of an app whose host is stopped

    Options:
          --json
              Print results as JSON, one object per line

      -h, --help
              Print help

      -V, --version
              Print version

    Exit status:
      0  done                            65  the imported data are wrong
      1  the called code refused         70  a defect of aegis, or of the called code
      3  rejected, nothing was touched   71  the operating system refused something
      4  rolled back                     75  it may work when tried again (no host is running, for one)
      5  superseded by a newer request   78  configuration, modules or data are wrong
      64 the command line is wrong
    ");
}

#[test]
fn help_of_run_shows_every_override() {
    insta::assert_snapshot!(help(&["run"]), @"
    Run the app in DIR until it is stopped

    Usage: aegis run [OPTIONS] [DIR]

    Arguments:
      [DIR]
              The app folder, with `aegis.toml` and `modules/`

              [default: .]

    Options:
          --json
              Print results as JSON, one object per line

          --listen <ADDR:PORT>
              Serve the API on this address; may be given several times, port 0 picks one

          --workers <N>
              Number of worker processes, or `auto`

          --data <DIR>
              Folder with everything durable

          --control <SOCKET>
              Unix socket for commands

      -h, --help
              Print help
    ");
}

#[test]
fn help_of_stop_and_upgrade_tells_the_choices() {
    insta::assert_snapshot!(help(&["stop"]), @"
    End the host; what is in flight is finished within the drain timeout, unless said otherwise

    Usage: aegis stop [OPTIONS] [DIR]

    Arguments:
      [DIR]
              The app folder of the host

              [default: .]

    Options:
          --dir <DIR>
              The same, as with the other commands

          --json
              Print results as JSON, one object per line

          --control <SOCKET>
              The host's socket for commands, instead of looking it up

          --patient
              Finish what is in flight however long it takes

          --now
              Finish nothing: end at once

      -h, --help
              Print help
    ");
    insta::assert_snapshot!(help(&["upgrade"]), @"
    Replace the running executable without losing a connection

    Usage: aegis upgrade [OPTIONS] [PATH]

    Arguments:
      [PATH]
              The new executable; by default the path the host was started from

    Options:
          --dir <DIR>
              The app folder of the host

              [default: .]

          --json
              Print results as JSON, one object per line

          --control <SOCKET>
              The host's socket for commands, instead of looking it up

      -h, --help
              Print help
    ");
}

#[test]
fn mistakes_on_the_command_line_are_explained() {
    insta::assert_snapshot!(complaint("aegis relaod"), @"
    error: unrecognized subcommand 'relaod'

      tip: a similar subcommand exists: 'reload'

    Usage: aegis [OPTIONS] <COMMAND>

    For more information, try '--help'.
    ");
    insta::assert_snapshot!(complaint("aegis scale 0"), @"
    error: invalid value '0' for '<WORKERS>': 0 is not in 1..=112

    For more information, try '--help'.
    ");
    insta::assert_snapshot!(complaint("aegis scale"), @"
    error: the following required arguments were not provided:
      <WORKERS>

    Usage: aegis scale <WORKERS>

    For more information, try '--help'.
    ");
    insta::assert_snapshot!(complaint("aegis stop --now --patient"), @"
    error: the argument '--now' cannot be used with '--patient'

    Usage: aegis stop --now [DIR]

    For more information, try '--help'.
    ");
    insta::assert_snapshot!(complaint("aegis run --worker 3"), @"
    error: unexpected argument '--worker' found

      tip: a similar argument exists: '--workers'

    Usage: aegis run --workers <N> [DIR]

    For more information, try '--help'.
    ");
}

#[test]
fn a_missing_command_shows_the_help() {
    assert_eq!(parse("aegis").unwrap_err().kind(), ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand);
}

#[test]
fn flags_may_stand_anywhere() {
    for line in ["aegis --json status /app --control /c", "aegis status --control /c /app --json"] {
        let arguments = parse(line).unwrap();
        assert!(arguments.json);
        let Command::Status { host, watch: false } = arguments.command else { panic!("{line}") };
        assert_eq!((host.folder, host.control), (PathBuf::from("/app"), Some(PathBuf::from("/c"))));
    }
}

#[test]
fn the_app_folder_is_named_in_both_ways() {
    for line in ["stop", "logs reopen", "status", "drain", "rollback"] {
        for folder in ["/app", "--dir /app"] {
            let host = match parse(&format!("aegis {line} {folder}")).unwrap().command {
                Command::Stop { host, .. } | Command::Status { host, .. } => host,
                Command::Logs(LogsCommand::Reopen(host)) | Command::Drain(host) | Command::Rollback(host) => {
                    host
                }
                other => panic!("{other:?}"),
            };
            assert_eq!(Host::from(host).dir, PathBuf::from("/app"), "{line} {folder}");
        }
    }
    assert_eq!(parse("aegis stop a --dir b").unwrap_err().kind(), ErrorKind::ArgumentConflict);
    insta::assert_snapshot!(complaint("aegis restart app"), @"
    error: invalid value 'app' for '[SLOT]': expected the number of a slot; the app folder is named with --dir

    For more information, try '--help'.
    ");
}

#[test]
fn the_helper_reads_the_app_with_the_same_overrides() {
    let line = "aegis run /app --listen 127.0.0.1:0 --listen [::1]:0 --workers 3 --data -weird --control /c";
    let words: Vec<_> =
        line.replace("--data -weird", "--data=-weird").split_whitespace().map(str::to_owned).collect();
    let Command::Run(run) = Arguments::try_parse_from(words).unwrap().command else { panic!("not run") };
    let app = run.app.absolute();
    let words =
        [OsString::from("aegis"), OsString::from("compile")].into_iter().chain(app.compile_arguments());
    let Command::Compile(again) = Arguments::try_parse_from(words).unwrap().command else {
        panic!("not compile")
    };
    assert_eq!(again, app);
    assert!(again.data.unwrap().is_absolute());
}

#[test]
fn a_folder_that_looks_like_a_flag_survives_the_way_to_the_helper() {
    let app = AppArguments { folder: PathBuf::from("--odd"), ..AppArguments::default() };
    let words =
        [OsString::from("aegis"), OsString::from("compile")].into_iter().chain(app.compile_arguments());
    let Command::Compile(again) = Arguments::try_parse_from(words).unwrap().command else {
        panic!("not compile")
    };
    assert_eq!(again, app);
}

#[test]
fn a_language_that_is_not_there_is_told_with_those_that_are() {
    let refused = complaint("aegis new model note --lang cobol");
    assert!(
        refused.contains("'cobol' for '--lang <LANGUAGE>': expected toml, js, rust or python"),
        "{refused}"
    );
    assert!(
        complaint("aegis run-command m.wasm x --arguments {} --input {}").contains("cannot be used with")
    );
}

fn parsed(words: &[&str]) -> Command {
    let words = std::iter::once("aegis").chain(words.iter().copied());
    Arguments::try_parse_from(words).unwrap().command
}

#[test]
fn a_reload_is_of_an_app_folder_or_of_a_module() {
    let folder = tempfile::tempdir().unwrap();
    let there = folder.path().to_str().unwrap();
    let resolved = |words: &[&str]| match parsed(words) {
        Command::Reload(arguments) => {
            let (module, host) = arguments.resolve();
            (module, host.dir)
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(resolved(&["reload"]), (None, PathBuf::from(".")));
    assert_eq!(resolved(&["reload", there]), (None, folder.path().to_owned()));
    assert_eq!(resolved(&["reload", "apps/shop"]), (None, PathBuf::from("apps/shop")));
    assert_eq!(resolved(&["reload", ".."]), (None, PathBuf::from("..")));
    let order = Some("order".to_owned());
    assert_eq!(resolved(&["reload", "order"]), (order.clone(), PathBuf::from(".")));
    assert_eq!(resolved(&["reload", "order", "--dir", there]), (order, folder.path().to_owned()));
}

#[test]
fn a_deployment_names_one_place_at_most() {
    let order = |words: &[&str]| match parsed(words) {
        Command::Deploy(arguments) => arguments.order().0,
        other => panic!("{other:?}"),
    };
    assert_eq!(order(&["deploy", "a"]).supply, Supply::App);
    assert_eq!(order(&["deploy", "a", "--reset"]).supply, Supply::Reset);
    assert_eq!(order(&["deploy", "a", "--source", "x"]).supply, Supply::Source("x".to_owned()));
    let Supply::File(path) = order(&["deploy", "a", "--file", "x.wasm"]).supply else { panic!("no file") };
    assert!(path.is_absolute() && path.ends_with("x.wasm"), "{path:?}");
    assert_eq!(order(&["deploy", "a"]).mode, None);
    assert_eq!(order(&["deploy", "a", "--mode", "rolling"]).mode, Some(ReloadMode::Rolling));
    let digest = "AB".repeat(32);
    assert_eq!(order(&["deploy", "a", "--sha256", &digest]).sha256, Some(digest.to_lowercase()));
    for words in [&["--source", "x", "--file", "y"][..], &["--file", "y", "--reset"], &["--sha256", "x"], &[]]
    {
        let name = if words.is_empty() { &["aegis", "deploy"][..] } else { &["aegis", "deploy", "a"] };
        assert!(Arguments::try_parse_from(name.iter().chain(words)).is_err(), "{words:?}");
    }
}
