use proptest::prelude::*;

use super::*;

fn word(text: &str) -> Found {
    Found::Word(text.to_owned())
}

/// What is written back must be read as the same value, from the file and from a variable.
fn reads_back<K: Kind>(kind: &K, value: &K::Value)
where
    K::Value: PartialEq + fmt::Debug,
{
    let written = kind.write(value);
    let as_word = match &written {
        toml::Value::String(text) => text.clone(),
        toml::Value::Array(items) => {
            let items: Vec<_> = items.iter().filter_map(toml::Value::as_str).collect();
            items.join(",")
        }
        other => other.to_string(),
    };
    for found in [Found::Typed(written), Found::Word(as_word)] {
        assert_eq!(kind.read(&found), Ok(Reading::Value(value.clone())), "{found:?}");
    }
}

proptest! {
    #[test]
    fn every_kind_reads_back_what_it_writes(
        count in 1_u64..1 << 40,
        milliseconds in 0_u64..1 << 40,
        share in 0.0..1.0_f64,
        on in any::<bool>(),
        host in any::<[u8; 4]>(),
        segments in any::<[u16; 8]>(),
        port in 1_u16..,
    ) {
        reads_back(&Count(1..=u64::MAX), &count);
        reads_back(&Size(1..=u64::MAX), &count);
        reads_back(&Time(Duration::ZERO..=Duration::MAX), &Duration::from_millis(milliseconds));
        reads_back(&Number(0.0..=1.0), &share);
        reads_back(&Switch, &on);
        let addresses = vec![SocketAddr::from((host, port)), SocketAddr::from((segments, port))];
        reads_back(&Addresses { count_max: 2 }, &addresses);
        reads_back(&Optional(Size(1..=u64::MAX)), &Some(count));
        reads_back(&Optional(Size(1..=u64::MAX)), &None);
    }

    #[test]
    fn any_word_is_read_or_refused_by_every_kind_without_panic(text in ".{0,40}") {
        let found = word(&text);
        let _ = Count(1..=9_u32).read(&found);
        let _ = Size(1..=9).read(&found);
        let _ = Time(Duration::ZERO..=Duration::MAX).read(&found);
        let _ = Number(0.0..=1.0).read(&found);
        let _ = Switch.read(&found);
        let _ = Addresses { count_max: 2 }.read(&found);
        let _ = Loopback.read(&found);
        let _ = BasePath { reserved: &["/livez"] }.read(&found);
        let _ = LogFilter.read(&found);
    }
}

fn refusals<K: Kind>(kind: &K, words: &[&str]) -> String {
    let say = |text: &&str| match kind.read(&word(text)) {
        Ok(_) => format!("{text:?} is accepted"),
        Err(refusal) => format!("found {}, expected {}", refusal.found, refusal.expected),
    };
    words.iter().map(say).collect::<Vec<_>>().join("\n")
}

#[test]
fn refusals_say_what_was_found_and_what_is_expected() {
    let long = "x".repeat(70);
    insta::assert_snapshot!(refusals(&Count(1..=8_u32), &["0", "9", "-1", "many", &long]), @r#"
    found "0", expected a whole number from 1 to 8
    found "9", expected a whole number from 1 to 8
    found "-1", expected a whole number from 1 to 8
    found "many", expected a whole number from 1 to 8
    found "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"… (70 bytes), expected a whole number from 1 to 8
    "#);
    insta::assert_snapshot!(refusals(&Size(1024..=1 << 20), &["10", "2MiB", "1M"]), @r#"
    found "10", expected a size from 1KiB to 1MiB, such as "64KiB" or "2MiB"
    found "2MiB", expected a size from 1KiB to 1MiB, such as "64KiB" or "2MiB"
    found "1M", expected a size from 1KiB to 1MiB, such as "64KiB" or "2MiB"
    "#);
    insta::assert_snapshot!(refusals(&Time(Duration::from_secs(1)..=Duration::from_secs(90)), &["5", "1ms", "2m"]), @r#"
    found "5", expected a time from 1s to 90s, such as "250ms" or "30s"
    found "1ms", expected a time from 1s to 90s, such as "250ms" or "30s"
    found "2m", expected a time from 1s to 90s, such as "250ms" or "30s"
    "#);
    insta::assert_snapshot!(refusals(&Number(0.0..=1.0), &["2", "NaN", "inf", "-0.1"]), @r#"
    found "2", expected a number from 0 to 1
    found "NaN", expected a number from 0 to 1
    found "inf", expected a number from 0 to 1
    found "-0.1", expected a number from 0 to 1
    "#);
    insta::assert_snapshot!(refusals(&Optional(Switch), &["maybe"]), @r#"found "maybe", expected true or false, or "none""#);
    insta::assert_snapshot!(refusals(&Auto(Count(1..=8_u32)), &["maybe"]), @r#"found "maybe", expected "auto" or a whole number from 1 to 8"#);
}

#[test]
fn addresses_must_be_numbers_once_each_and_not_too_many() {
    let kind = Addresses { count_max: 3 };
    let words = [
        "8080",
        "localhost:8080",
        "127.0.0.1:80,127.0.0.1:80",
        "[::]:1,[::]:2,[::]:3,[::]:4",
        "127.0.0.1:80,",
        "127.0.0.1:0, 127.0.0.1:0",
    ];
    insta::assert_snapshot!(refusals(&kind, &words), @r#"
    found "8080", expected an IP address and a port, such as "127.0.0.1:8080" or "[::]:8080"
    found "localhost:8080", expected an IP address and a port, such as "127.0.0.1:8080" or "[::]:8080"
    found "127.0.0.1:80" twice, expected each address once
    found 4 addresses, expected 1 to 3 addresses
    found "", expected an IP address and a port, such as "127.0.0.1:8080" or "[::]:8080"
    "127.0.0.1:0, 127.0.0.1:0" is accepted
    "#);
    let empty = Found::Typed(toml::Value::Array(Vec::new()));
    assert_eq!(kind.read(&empty).unwrap_err().found, "0 addresses");
    let number = Found::Typed(toml::Value::Integer(8080));
    assert_eq!(kind.read(&number).unwrap_err().found, "8080");
}

#[test]
fn only_addresses_of_this_machine_are_loopback() {
    let words = [
        "0.0.0.0:1",
        "192.168.1.1:1",
        "[::]:1",
        "127.0.0.1:1",
        "127.8.8.8:1",
        "[::1]:1",
        "[::ffff:127.0.0.1]:1",
    ];
    insta::assert_snapshot!(refusals(&Loopback, &words), @r#"
    found "0.0.0.0:1", expected a loopback address and a port, such as "127.0.0.1:9090"
    found "192.168.1.1:1", expected a loopback address and a port, such as "127.0.0.1:9090"
    found "[::]:1", expected a loopback address and a port, such as "127.0.0.1:9090"
    "127.0.0.1:1" is accepted
    "127.8.8.8:1" is accepted
    "[::1]:1" is accepted
    "[::ffff:127.0.0.1]:1" is accepted
    "#);
}

#[test]
fn a_base_path_is_a_plain_path_that_is_not_the_hosts_own() {
    let kind = BasePath { reserved: &["/livez", "/metrics"] };
    let words = [
        "",
        "/",
        "api",
        "/api/",
        "//api",
        "/a/../b",
        "/a b",
        "/a?b",
        "/livez",
        "/metrics/x",
        "/livezzz",
        "/aegis/api-1.0",
    ];
    insta::assert_snapshot!(refusals(&kind, &words), @r#"
    found "", expected a path such as "/aegis/api" of letters, digits and -._~, with no slash at its end, not under /livez, /metrics
    found "/", expected a path such as "/aegis/api" of letters, digits and -._~, with no slash at its end, not under /livez, /metrics
    found "api", expected a path such as "/aegis/api" of letters, digits and -._~, with no slash at its end, not under /livez, /metrics
    found "/api/", expected a path such as "/aegis/api" of letters, digits and -._~, with no slash at its end, not under /livez, /metrics
    found "//api", expected a path such as "/aegis/api" of letters, digits and -._~, with no slash at its end, not under /livez, /metrics
    found "/a/../b", expected a path such as "/aegis/api" of letters, digits and -._~, with no slash at its end, not under /livez, /metrics
    found "/a b", expected a path such as "/aegis/api" of letters, digits and -._~, with no slash at its end, not under /livez, /metrics
    found "/a?b", expected a path such as "/aegis/api" of letters, digits and -._~, with no slash at its end, not under /livez, /metrics
    found "/livez", expected a path such as "/aegis/api" of letters, digits and -._~, with no slash at its end, not under /livez, /metrics
    found "/metrics/x", expected a path such as "/aegis/api" of letters, digits and -._~, with no slash at its end, not under /livez, /metrics
    "/livezzz" is accepted
    "/aegis/api-1.0" is accepted
    "#);
}

#[test]
fn a_log_filter_is_levels_per_target() {
    let words = [
        "loud",
        "",
        "info,",
        "=info",
        "a=loud",
        "a b=info",
        "warn",
        "info,aegis_store=debug,aegis_worker::http=trace",
        "off",
    ];
    insta::assert_snapshot!(refusals(&LogFilter, &words), @r#"
    found "loud", expected error, warn, info, debug, trace or off, also per target such as "info,aegis_store=debug"
    found "", expected error, warn, info, debug, trace or off, also per target such as "info,aegis_store=debug"
    found "info,", expected error, warn, info, debug, trace or off, also per target such as "info,aegis_store=debug"
    found "=info", expected error, warn, info, debug, trace or off, also per target such as "info,aegis_store=debug"
    found "a=loud", expected error, warn, info, debug, trace or off, also per target such as "info,aegis_store=debug"
    found "a b=info", expected error, warn, info, debug, trace or off, also per target such as "info,aegis_store=debug"
    "warn" is accepted
    "info,aegis_store=debug,aegis_worker::http=trace" is accepted
    "off" is accepted
    "#);
}

#[test]
fn a_file_distinguishes_texts_numbers_and_booleans() {
    let text = |text: &str| Found::Typed(toml::Value::String(text.to_owned()));
    assert!(Count(1..=9_u32).read(&text("4")).is_err());
    assert!(Switch.read(&text("true")).is_err());
    assert!(Time(Duration::ZERO..=Duration::MAX).read(&Found::Typed(toml::Value::Integer(30))).is_err());
    assert_eq!(Number(0.0..=9.0).read(&Found::Typed(toml::Value::Integer(3))), Ok(Reading::Value(3.0)));
    assert!(Path.read(&text("")).is_err());
}

#[test]
fn a_variable_that_is_not_utf_8_is_refused_by_name() {
    let refusal = Path.read(&Found::NotText("data\u{fffd}".to_owned())).unwrap_err();
    assert_eq!(refusal.found, "\"data\u{fffd}\" (not UTF-8)");
}
