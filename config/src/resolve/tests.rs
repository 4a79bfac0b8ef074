use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

use proptest::prelude::*;

use super::*;
use crate::{Config, Datasource, Secret, raw, view};

/// The written side of a configuration; everything not said is absent.
#[derive(Default, Clone)]
struct Case {
    file: String,
    variables: Vec<(&'static str, &'static str)>,
    overrides: Overrides,
    cores: u32,
}

/// As on a disk without symbolic links.
fn unlinked(path: &Path) -> PathBuf {
    path.to_owned()
}

impl Case {
    fn file(text: &str) -> Self {
        Self { file: text.to_owned(), cores: 4, ..Self::default() }
    }

    fn variables(variables: &[(&'static str, &'static str)]) -> Self {
        Self { variables: variables.to_vec(), cores: 4, ..Self::default() }
    }

    fn resolve(&self) -> Result<Loaded, ConfigErrors> {
        let environment =
            self.variables.iter().map(|(name, value)| ((*name).to_owned(), value.into())).collect();
        let (file, mistakes) = match raw::parse(&self.file) {
            Ok(raw) => (Some(raw), Vec::new()),
            Err(mistakes) => (None, mistakes),
        };
        let app_dir = Path::new("/app");
        let overrides = &self.overrides;
        let (environment, cores, located) = (&environment, self.cores, unlinked);
        resolve(Inputs { app_dir, overrides, environment, file, cores, mistakes, located })
    }

    fn config(&self) -> Config {
        match self.resolve() {
            Ok(resolved) => resolved.config,
            Err(errors) => panic!("{errors}"),
        }
    }

    fn mistakes(&self) -> String {
        match self.resolve() {
            Ok(_) => "no mistakes".to_owned(),
            Err(errors) => errors.to_string(),
        }
    }

    fn warnings(&self) -> String {
        match self.resolve() {
            Ok(resolved) => resolved.warnings.join("\n"),
            Err(errors) => panic!("{errors}"),
        }
    }
}

#[test]
fn the_reference_file_has_every_key_with_its_default() {
    let text = include_str!("../../aegis.toml");
    let mut said = Case::file(text).config();
    assert!(!std::mem::replace(&mut said.listens_by_default, true), "it says where to listen");
    assert_eq!(said, Case::file("").config());
    let written = raw::parse(text).unwrap();
    let all = view::written(&Case::file("").config());
    let known = raw::parse(&toml::to_string(&all).unwrap()).unwrap();
    assert_eq!(written.keys().collect::<Vec<_>>(), known.keys().collect::<Vec<_>>());
}

#[test]
fn what_a_configuration_writes_resolves_to_itself() {
    let file = "workers = 3\nlisten = [\"[::1]:0\", \"127.0.0.1:0\"]\ndata_dir = \"/var/lib/x\"\nadmin_listen = \"127.0.0.1:1\"\n\
        [recycle]\nmemory_bytes_max = \"1GiB\"\n[drain]\ntimeout = \"1500ms\"\n[log]\nfile = \"log\"\nlevel = \"warn,a=trace\"\n";
    let config = Case::file(file).config();
    let written = toml::to_string(&view::written(&config)).unwrap();
    assert_eq!(Case::file(&written).config(), config);
}

#[test]
fn every_variable_is_named_after_its_key() {
    struct Names;
    impl Visit for Names {
        fn visit<K: Kind>(&mut self, setting: Setting, _kind: &K, _value: &mut K::Value) {
            let key = if setting.key == "workers.count" { "workers" } else { setting.key };
            assert_eq!(setting.variable, format!("AEGIS_{}", key.replace('.', "_").to_ascii_uppercase()));
        }
    }
    keys::walk(&mut Case::file("").config(), &mut Names);
}

#[test]
fn every_default_is_accepted_when_written_in_a_variable() {
    struct Words(BTreeMap<&'static str, String>);
    impl Visit for Words {
        fn visit<K: Kind>(&mut self, setting: Setting, kind: &K, value: &mut K::Value) {
            let word = match kind.write(value) {
                toml::Value::String(text) => text,
                toml::Value::Array(items) => {
                    items.iter().filter_map(toml::Value::as_str).collect::<Vec<_>>().join(",")
                }
                other => other.to_string(),
            };
            self.0.insert(setting.variable, word);
        }
    }
    let mut defaults = Case::file("").config();
    let mut words = Words(BTreeMap::new());
    keys::walk(&mut defaults.clone(), &mut words);
    let environment = words.0.iter().map(|(name, word)| ((*name).to_owned(), word.into())).collect();
    let inputs = Inputs {
        app_dir: Path::new("/app"),
        overrides: &Overrides::default(),
        environment: &environment,
        file: Some(Raw::new()),
        cores: 4,
        mistakes: Vec::new(),
        located: unlinked,
    };
    let resolved = resolve(inputs).unwrap();
    defaults.listens_by_default = false; // it says where to listen, too
    assert_eq!(resolved.config, defaults);
    assert!(resolved.warnings.is_empty());
}

#[test]
fn a_flag_wins_over_a_variable_over_the_file_over_the_default() {
    let default = Case::file("");
    assert_eq!(default.config().workers.count, 4);
    let file = Case::file("workers.count = 5");
    assert_eq!(file.config().workers.count, 5);
    let alias = Case { variables: vec![("CLUSTER_ENABLED", "false")], ..file };
    assert_eq!(alias.config().workers.count, 1);
    let variable = Case { variables: vec![("CLUSTER_ENABLED", "false"), ("AEGIS_WORKERS", "6")], ..alias };
    assert_eq!(variable.config().workers.count, 6);
    let flag =
        Case { overrides: Overrides { workers: Some("7".to_owned()), ..Overrides::default() }, ..variable };
    assert_eq!(flag.config().workers.count, 7);
}

#[test]
fn an_empty_variable_says_nothing() {
    let case = Case { variables: vec![("AEGIS_WORKERS", ""), ("PORT", "")], ..Case::file("workers = 5") };
    assert_eq!(case.config().workers.count, 5);
    assert_eq!(case.warnings(), "");
}

#[test]
fn auto_in_a_variable_takes_back_what_the_file_says() {
    let case = Case { variables: vec![("AEGIS_WORKERS", "auto")], ..Case::file("workers = 5") };
    assert_eq!(case.config().workers.count, 4);
}

#[test]
fn all_mistakes_of_all_sources_are_reported_at_once() {
    let case = Case {
        file: "listen = \"nowhere\"\nwrokers = 3\nadmin_listen = \"0.0.0.0:9090\"\n\n[limits]\nbody_bytes_max = \"1 pound\"\n\
               body_max = 3\nheaders_max = true\n[drain]\ntimeout = \"2s\"\nspread = \"5s\"\n[brand]\nnew = 1\n[empty]\n"
            .to_owned(),
        variables: vec![
            ("AEGIS_WORKERS", "many"),
            ("AEGIS_LOG_LEVEL", "loud"),
            ("AEGIS_QUERY_LIMIT_MAX", "10"),
            ("AEGIS_QUERY_LIMIT_DEFAULT", "20"),
            ("DATASOURCE_ADAPTER", "DataSourceMongoDb"),
        ],
        overrides: Overrides { listen: vec!["8080".to_owned()], ..Overrides::default() },
        cores: 4,
    };
    insta::assert_snapshot!(case.mistakes(), @r#"
    --listen: found "8080", expected an IP address and a port, such as "127.0.0.1:8080" or "[::]:8080"
    DATASOURCE_ADAPTER: found "DataSourceMongoDb", expected Memory or File, the datasources of this version
    AEGIS_WORKERS: found "many", expected "auto" or a whole number from 1 to 112
    AEGIS_LOG_LEVEL: found "loud", expected error, warn, info, debug, trace or off, also per target such as "info,aegis_store=debug"
    AEGIS_QUERY_LIMIT_DEFAULT: found 20, expected at most query.limit_max (10)
    aegis.toml:1: listen: found "nowhere", expected an IP address and a port, such as "127.0.0.1:8080" or "[::]:8080"
    aegis.toml:2: wrokers: unknown key, did you mean `workers`?
    aegis.toml:3: admin_listen: found "0.0.0.0:9090", expected a loopback address and a port, such as "127.0.0.1:9090", or "none"
    aegis.toml:6: limits.body_bytes_max: found "1 pound", expected a size from 1KiB to 16MiB, such as "64KiB" or "2MiB"
    aegis.toml:7: limits.body_max: unknown key, did you mean `limits.body_bytes_max`?
    aegis.toml:8: limits.headers_max: found true, expected a whole number from 16 to 1024
    aegis.toml:11: drain.spread: found 5s, expected at most drain.timeout (2s)
    aegis.toml:13: brand.new: unknown key
    aegis.toml:14: empty: unknown key
    "#);
}

#[test]
fn a_change_comes_into_force_by_new_workers_or_inside_those_that_run() {
    insta::assert_snapshot!(
        Case::file("[reload]\nmode = \"swapp\"").mistakes(),
        @r#"aegis.toml:2: reload.mode: found "swapp", expected "rolling" or "swap""#
    );
    let variable = Case { variables: vec![("AEGIS_RELOAD_MODE", "swap")], ..Case::file("") };
    assert_eq!(variable.mistakes(), "no mistakes");
    assert_eq!(Case::file("reload.mode = \"rolling\"").mistakes(), "no mistakes");
}

#[test]
fn paths_stay_certain_unless_their_own_setting_is_in_doubt() {
    let certain = |file: &str| Case::file(file).resolve().unwrap_err().certain().clone();
    let both = certain("workers = \"many\"\ndata_dir = \"/srv/x\"\n");
    assert_eq!(both.control_socket, Some(PathBuf::from("/srv/x/control.sock")));
    assert_eq!(both.modules_dir, Some(PathBuf::from("/app/modules")));
    assert_eq!(certain("data_dir = 3").control_socket, None);
    assert_eq!(certain("modules_dir = \"\"").modules_dir, None);
    assert_eq!(certain("listen = ["), crate::Certain::default());
    let named = Case { variables: vec![("AEGIS_CONTROL_SOCKET", "/x.sock")], ..Case::file("listen = [") };
    assert_eq!(named.resolve().unwrap_err().certain().control_socket, Some(PathBuf::from("/x.sock")));
    let secrets =
        "[secrets]\na = { env = \"A\" }\nb = 3\n[reload]\nwebhook_secret_file = \"w\"\n[auth]\nkeys_file = 7";
    let certain = certain(secrets);
    assert_eq!(certain.webhook_secret_file, Some(PathBuf::from("/app/w")));
    assert_eq!((certain.secrets.len(), certain.auth), (1, None));
}

#[test]
fn a_file_that_is_no_toml_does_not_hide_the_mistakes_elsewhere() {
    let case = Case {
        file: "listen = \n[limits\n".to_owned(),
        variables: vec![("AEGIS_WORKERS", "0"), ("AEGIS_DRAIN_SPREAD", "90s"), ("AEGIS_DRAIN_TIMEOUT", "1s")],
        ..Case::default()
    };
    insta::assert_snapshot!(case.mistakes(), @r#"
    AEGIS_WORKERS: found "0", expected "auto" or a whole number from 1 to 112
    AEGIS_DRAIN_SPREAD: found 90s, expected at most drain.timeout (1s)
    aegis.toml:1:10: not valid TOML: string values must be quoted, expected literal string
    aegis.toml:2:8: not valid TOML: unclosed table, expected `]`
    "#);
}

#[test]
fn a_section_must_be_a_table_except_workers() {
    insta::assert_snapshot!(Case::file("limits = 3\nworkers = \"lots\"\n[drain]\n").mistakes(), @r#"
    aegis.toml:1: limits: found 3, expected a table: [limits]
    aegis.toml:2: workers: found "lots", expected "auto" or a whole number from 1 to 112
    "#);
    assert_eq!(Case::file("workers = \"auto\"").config().workers.count, 4);
}

#[test]
fn a_key_is_named_in_messages_as_it_was_written() {
    let file = "data-dir = \"/srv/x\"\n[limits]\nbody-bytes-max = \"lots\"\nbody-bytes-maxi = 1\n";
    insta::assert_snapshot!(Case::file(file).mistakes(), @r#"
    aegis.toml:3: limits.body-bytes-max: found "lots", expected a size from 1KiB to 16MiB, such as "64KiB" or "2MiB"
    aegis.toml:4: limits.body-bytes-maxi: unknown key, did you mean `limits.body_bytes_max`?
    "#);
    assert_eq!(Case::file("data-dir = \"/srv/x\"").config().data_dir, PathBuf::from("/srv/x"));
}

#[test]
fn a_key_in_the_wrong_section_is_recognised() {
    let file = "threads = 2\nbody_bytes_max = 1\n[worker]\ncount = 2\n[log]\nnonsense = 1\n";
    insta::assert_snapshot!(Case::file(file).mistakes(), @"
    aegis.toml:1: threads: unknown key, did you mean `workers.threads`?
    aegis.toml:2: body_bytes_max: unknown key, did you mean `limits.body_bytes_max`?
    aegis.toml:4: worker.count: unknown key, did you mean `workers.count`?
    aegis.toml:6: log.nonsense: unknown key
    ");
}

#[test]
fn aliases_of_the_original_mean_what_they_meant() {
    let config = Case::variables(&[
        ("PORT", "0"),
        ("API_ROOT", "/micro/lib"),
        ("CLUSTER_ENABLED", "TRUE"),
        ("DATASOURCE_ADAPTER", "DataSourceMemory"),
    ]);
    let resolved = config.config();
    assert_eq!(resolved.listen, [SocketAddr::from(([127, 0, 0, 1], 0))]);
    assert_eq!(resolved.api_root, "/micro/lib");
    assert_eq!(resolved.workers.count, 4);
    assert_eq!(resolved.datasource, Datasource::Memory);
    assert_eq!(Case::variables(&[("DATASOURCE_ADAPTER", "fILE")]).config().datasource, Datasource::File);
    insta::assert_snapshot!(config.warnings(), @r#"PORT: listening on "127.0.0.1:0", which other machines cannot reach; set AEGIS_LISTEN to name the address"#);
}

#[test]
fn aliases_are_refused_in_their_own_words() {
    let case = Case::variables(&[
        ("PORT", "tcp://10.0.0.1:80"),
        ("API_ROOT", "aegis/"),
        ("CLUSTER_ENABLED", "4"),
        ("DATASOURCE_ADAPTER", "Etherium"),
    ]);
    insta::assert_snapshot!(case.mistakes(), @r#"
    PORT: found "tcp://10.0.0.1:80", expected a port from 0 to 65535
    API_ROOT: found "aegis/", expected a path such as "/aegis/api" of letters, digits and -._~, with no slash at its end, not under /livez, /readyz, /metrics, /aegis.config.json
    DATASOURCE_ADAPTER: found "Etherium", expected Memory or File, the datasources of this version
    CLUSTER_ENABLED: found "4", expected true or false
    "#);
}

#[test]
fn an_alias_that_does_not_count_is_not_looked_at() {
    let case = Case::variables(&[("PORT", "tcp://10.0.0.1:80"), ("AEGIS_LISTEN", "0.0.0.0:80, [::]:81")]);
    let wanted: Vec<SocketAddr> = vec!["0.0.0.0:80".parse().unwrap(), "[::]:81".parse().unwrap()];
    assert_eq!(case.config().listen, wanted);
    assert_eq!(case.warnings(), "");
}

#[test]
fn a_feature_that_is_not_here_is_warned_about_only_when_it_is_wanted() {
    let wanted = Case::variables(&[
        ("SSL_PORT", "443"),
        ("SSL_ENABLED", "false"),
        ("DOMAIN", "example.org"),
        ("MONGODB_URL", "mongodb://user:secret@host"),
        ("KAFKA_BROKERS", "0"),
        ("KAFKA_GROUP_ID", ""),
        ("ENCRYPTION_PWD", "secret"),
    ]);
    insta::assert_snapshot!(wanted.warnings(), @"
    SSL_PORT is set, but TLS is not available, connections are not encrypted
    DOMAIN is set, but certificates are not obtained for a domain
    MONGODB_URL is set, but MongoDB is not available as a datasource
    ENCRYPTION_PWD is set, but encryption of fields is not available, documents are stored as they are
    ");
}

#[test]
fn a_mistyped_variable_is_warned_about_but_one_of_the_container_platform_does_no_harm() {
    let case = Case::variables(&[
        ("AEGIS_WORKRES", "3"),
        ("AEGIS_SERVICE_HOST", "10.0.0.1"),
        ("AEGIS_HANDOFF", "{}"),
        ("HOME", "/"),
    ]);
    insta::assert_snapshot!(case.warnings(), @"
    AEGIS_SERVICE_HOST: unknown variable, it has no effect
    AEGIS_WORKRES: unknown variable, it has no effect, did you mean AEGIS_WORKERS?
    ");
}

#[test]
fn what_is_not_given_follows_what_is() {
    let many = Case { cores: 64, ..Case::file("workers = 20") }.config();
    assert_eq!((many.workers.threads, many.restart.crash_loop_count), (3, 10));
    let one = Case { cores: 1, ..Case::file("") }.config();
    assert_eq!((one.workers.count, one.workers.threads, one.restart.crash_loop_count), (2, 1, 3));
    let huge = Case { cores: 4096, ..Case::file("") }.config();
    assert_eq!((huge.workers.count, huge.workers.threads), (112, 16));
    let short = Case::file("drain.timeout = \"2s\"\nquery.limit_max = 5\nhang.kill_after = \"3s\"\nlimits.header_bytes_max = \"8KiB\"").config();
    assert_eq!((short.drain.spread, short.query.limit_default), (Duration::from_secs(2), 5));
    assert_eq!((short.hang.suspect_after, short.limits.uri_bytes_max), (Duration::from_millis(1500), 8192));
    let elsewhere = Case::file("data_dir = \"/srv/x\"").config();
    assert_eq!(elsewhere.control_socket, PathBuf::from("/srv/x/control.sock"));
    assert_eq!(elsewhere.admin_socket, PathBuf::from("/srv/x/admin.sock"));
}

#[test]
fn combinations_that_make_no_sense_are_refused_where_they_were_written() {
    let file = "listen = \"127.0.0.1:80\"\nadmin_listen = \"127.0.0.1:80\"\ncontrol_socket = \"data/x\"\nadmin_socket = \"./data/x\"\n\
        [limits]\nuri_bytes_max = \"20KiB\"\nheader_bytes_max = \"9KiB\"\n[drain]\ntimeout = \"1s\"\nspread = \"2s\"\n\
        [restart]\ndelay_min = \"2s\"\ndelay_max = \"1s\"\n[hang]\nsuspect_after = \"5s\"\nkill_after = \"5s\"\n\
        [query]\nlimit_default = 9\nlimit_max = 8\n";
    insta::assert_snapshot!(Case::file(file).mistakes(), @"
    aegis.toml:2: admin_listen: found 127.0.0.1:80, expected an address that is not in listen
    aegis.toml:4: admin_socket: found /app/data/x, expected another path than that of control_socket
    aegis.toml:6: limits.uri_bytes_max: found 20KiB, expected at most limits.header_bytes_max, which includes it (9KiB)
    aegis.toml:10: drain.spread: found 2s, expected at most drain.timeout (1s)
    aegis.toml:12: restart.delay_min: found 2s, expected at most restart.delay_max (1s)
    aegis.toml:15: hang.suspect_after: found 5s, expected less than hang.kill_after (5s)
    aegis.toml:18: query.limit_default: found 9, expected at most query.limit_max (8)
    ");
}

#[test]
fn data_are_not_kept_among_the_modules() {
    for (text, found) in [
        ("data_dir = \"modules\"", Some("modules")),
        ("data_dir = \"modules/./data\"", Some("modules/data")),
        ("modules_dir = \"services\"\ndata_dir = \"services\"", Some("services")),
        ("data_dir = \"modules/todo/data\"", None),
        ("modules_dir = \"data/modules\"", None),
    ] {
        let given = Case::file(text);
        match found {
            Some(found) => {
                let expected =
                    format!("data_dir: found /app/{found}, expected a folder outside of modules_dir");
                assert!(given.mistakes().contains(&expected), "{}", given.mistakes());
            }
            None => assert!(given.resolve().is_ok(), "{text}"),
        }
    }
}

#[test]
fn nobody_is_limited_unless_a_rate_is_given_and_a_burst_is_a_second_of_it() {
    let limits = |file: &str| {
        let limits = Case::file(file).config().limits;
        (limits.requests_per_second, limits.requests_burst)
    };
    assert_eq!(limits(""), (0, 0));
    assert_eq!(limits("limits.requests_burst = 0"), (0, 0));
    assert_eq!(limits("limits.requests_per_second = 5"), (5, 5));
    assert_eq!(limits("[limits]\nrequests-per-second = 5\nrequests-burst = \"auto\""), (5, 5));
    assert_eq!(limits("[limits]\nrequests_per_second = 5\nrequests_burst = 18_000"), (5, 18_000));
    let variables =
        Case::variables(&[("AEGIS_LIMITS_REQUESTS_PER_SECOND", "7"), ("AEGIS_LIMITS_REQUESTS_BURST", "9")]);
    let limits = variables.config().limits;
    assert_eq!((limits.requests_per_second, limits.requests_burst), (7, 9));
}

#[test]
fn a_burst_that_goes_with_no_rate_is_refused() {
    let files = [
        "limits.requests_burst = 20",
        "[limits]\nrequests_per_second = 5\nrequests_burst = 0",
        "[limits]\nrequests_per_second = 5\nrequests_burst = 18_001",
        "[limits]\nrequests_per_second = 100_001\nrequests_burst = -1",
        "[limits]\nrequests_per_second = \"5\"\nrequests_burst = 0",
    ];
    insta::assert_snapshot!(files.map(|file| Case::file(file).mistakes()).join("\n"), @r#"
    aegis.toml:1: limits.requests_burst: found 20, expected limits.requests_per_second as well
    aegis.toml:3: limits.requests_burst: found 0, expected at least 1 while there is limits.requests_per_second
    aegis.toml:3: limits.requests_burst: found 18001, expected at most as many as limits.requests_per_second lets through in an hour (18000)
    aegis.toml:2: limits.requests_per_second: found 100001, expected a whole number from 0 to 100000
    aegis.toml:3: limits.requests_burst: found -1, expected "auto" or a whole number from 0 to 360000000
    aegis.toml:2: limits.requests_per_second: found "5", expected a whole number from 0 to 100000
    "#);
}

#[test]
fn a_unix_socket_path_that_is_too_long_is_refused_by_key() {
    let folder = format!("/{}", "d".repeat(97));
    assert_eq!(Case::file(&format!("data_dir = \"{}\"", &folder[..94])).mistakes(), "no mistakes");
    insta::assert_snapshot!(Case::file(&format!("data_dir = \"{folder}\"")).mistakes(), @"
    aegis.toml:1: data_dir: found /ddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd/store.sock (109 bytes), expected a path of at most 107 bytes for a Unix socket
    default of control_socket: found /ddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd/control.sock (111 bytes), expected a path of at most 107 bytes for a Unix socket
    default of admin_socket: found /ddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd/admin.sock (109 bytes), expected a path of at most 107 bytes for a Unix socket
    ");
    let socket = format!("control_socket = \"/{}\"", "s".repeat(107));
    insta::assert_snapshot!(Case::file(&socket).mistakes(), @"aegis.toml:1: control_socket: found /sssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssss (108 bytes), expected a path of at most 107 bytes for a Unix socket");
}

#[test]
fn what_is_fetched_must_be_signed_as_soon_as_there_is_a_key_unless_somebody_says_otherwise() {
    use crate::Signatures;
    let key = "[trust.keys.team]\npublic-key = \"BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\"\nmodules = [\"*\"]\n";
    for (policy, keys, expected) in [
        ("", "", Signatures::None),
        ("", key, Signatures::Remote),
        ("trust.require = \"auto\"\n", key, Signatures::Remote),
        ("trust.require = \"none\"\n", key, Signatures::None),
        ("trust.require = \"all\"\n", key, Signatures::All),
        ("trust.require = \"remote\"\n", "", Signatures::Remote),
    ] {
        assert_eq!(Case::file(&format!("{policy}{keys}")).config().trust.require, expected, "{policy}");
    }
    insta::assert_snapshot!(Case::file("[trust]\nrequire = \"some\"\nrequre = \"all\"\n").mistakes(), @r#"
    aegis.toml:2: trust.require: found "some", expected "auto" or "none" or "remote" or "all"
    aegis.toml:3: trust.requre: unknown key, did you mean `trust.require`?
    "#);
}

#[test]
fn the_public_view_names_no_path_and_no_address_of_operators() {
    let mut config = Case::file("admin_listen = \"127.0.0.1:9\"\nreload.webhook_secret_file = \"hook\"\n[log]\nfile = \"/var/log/x\"\n").config();
    config.reload.webhook_secret = Some(Secret::new(b"hush".to_vec()));
    let json = serde_json::to_string(&config.public_view()).unwrap();
    for private in ["/app", "/var", "hush", "hook", "127.0.0.1:9\"", ".sock"] {
        assert!(!json.contains(private), "{private} in {json}");
    }
    let view: serde_json::Value = serde_json::to_value(config.public_view()).unwrap();
    assert_eq!(view["limits"]["body_bytes_max"], 1_048_576);
    assert_eq!(view["drain"]["timeout"], "30s");
    assert_eq!(view["workers"]["count"], 4);
    assert!(view["recycle"].get("requests_max").is_none());
    let all = serde_json::to_value(config.operator_view()).unwrap();
    assert_eq!(all["log"]["file"], "/var/log/x");
    assert_eq!(all["reload"]["webhook_secret_file"], "/app/hook");
    assert!(all["reload"].get("webhook_secret").is_none());
    assert!(format!("{:?}", config.reload).contains("Secret(…)"), "{:?}", config.reload);
}

proptest! {
    #[test]
    fn any_file_resolves_or_is_refused_with_a_message(text in "([a-z_.\\[\\]= \"0-9\n]{0,60}|listen = .{0,20}|\\[limits\\]\nbody_bytes_max = .{0,20})") {
        let case = Case::file(&text);
        prop_assert!(case.resolve().is_ok() || !case.mistakes().is_empty());
    }
}
