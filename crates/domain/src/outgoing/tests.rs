use proptest::prelude::*;

use super::*;

fn grants(texts: &[&str]) -> Vec<HostGrant> {
    texts.iter().map(|text| HostGrant::parse(text).unwrap()).collect()
}

/// `https://` or `http://`, a host and a port.
fn target(text: &str) -> Target {
    let (scheme, rest) = text.split_once("://").unwrap();
    let is_secure = scheme == "https";
    let (host, port) = split_port(rest).unwrap();
    let host = match host.parse::<IpAddr>() {
        Ok(address) => Host::Address(address.to_canonical()),
        Err(_) => Host::Name(host.to_owned()),
    };
    Target { host, port: port.map_or(usual_port(is_secure), |port| port.parse().unwrap()), is_secure }
}

fn reaches(granted: &[&str], asked: &str, address: &str) -> bool {
    may_reach(&grants(granted), &target(asked), address.parse().unwrap()).is_ok()
}

const PUBLIC: &str = "93.184.215.14";

#[test]
fn a_grant_reads_as_it_is_written() {
    for text in [
        "api.example.com",
        "*.pay.example.com:8443",
        "127.0.0.1:9000",
        "[fd00::7]",
        "[::1]:80",
        "db",
        "a_b.c-d",
    ] {
        assert_eq!(HostGrant::parse(text).unwrap().to_string(), text);
    }
    assert_eq!(HostGrant::parse("API.Example.COM").unwrap().to_string(), "api.example.com");
    assert_eq!(HostGrant::parse("[::ffff:10.0.0.1]:1").unwrap().to_string(), "10.0.0.1:1");
}

#[test]
fn what_is_no_host_is_refused() {
    for text in [
        "",
        "*",
        "*.com",
        "*.*.example.com",
        "a.*.com",
        "https://a.example",
        "a.example/x",
        "u@a.example",
        "a.example:0",
        "a.example:65536",
        "a.example:",
        "127.1",
        "0x7f.0.0.0x1",
        "2130706433",
        "a..b",
        "-a.example",
        "a.example.",
        "::1",
        "[::1",
        "[::1]9",
        "[a.example]",
        "ä.example",
        "a b",
        &"a.".repeat(127),
    ] {
        assert!(HostGrant::parse(text).is_err(), "{text}");
    }
    insta::assert_snapshot!(HostGrant::parse("https://a.example").unwrap_err(), @r#"found "https://a.example", expected a host such as "api.example.com", "*.example.com:8443", "10.0.0.7:9000" or "[fd00::7]""#);
    insta::assert_snapshot!(HostGrant::parse("localhost:80").unwrap_err(), @r#"found "localhost:80", expected the address that is meant, such as "127.0.0.1:9000""#);
}

#[test]
fn a_name_is_granted_with_its_usual_ports_or_the_one_it_says() {
    let usual = ["api.example.com"];
    assert!(
        reaches(&usual, "https://api.example.com", PUBLIC)
            && reaches(&usual, "http://api.example.com", PUBLIC)
    );
    assert!(!reaches(&usual, "https://api.example.com:8443", PUBLIC));
    assert!(
        !reaches(&usual, "http://api.example.com:443", PUBLIC)
            && !reaches(&usual, "https://api.example.com:80", PUBLIC)
    );
    assert!(
        !reaches(&usual, "https://a.api.example.com", PUBLIC)
            && !reaches(&usual, "https://example.com", PUBLIC)
    );
    let other = ["api.example.com:8443"];
    assert!(
        reaches(&other, "https://api.example.com:8443", PUBLIC)
            && !reaches(&other, "https://api.example.com", PUBLIC)
    );
}

#[test]
fn a_star_stands_for_everything_below_and_not_for_the_name_itself() {
    let granted = ["*.example.com"];
    assert!(
        reaches(&granted, "https://a.example.com", PUBLIC)
            && reaches(&granted, "https://a.b.example.com", PUBLIC)
    );
    for host in ["example.com", "badexample.com", ".example.com", "example.com.evil.test"] {
        assert!(!reaches(&granted, &format!("https://{host}"), PUBLIC), "{host}");
    }
}

#[test]
fn a_granted_name_does_not_lead_into_the_house() {
    for address in [
        "127.0.0.1",
        "127.9.9.9",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.100.100.200",
        "0.0.0.0",
        "255.255.255.255",
        "224.0.0.1",
        "168.63.129.16",
        "192.0.0.192",
        "::",
        "::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "::127.0.0.1",
        "fe80::1",
        "fd00:ec2::254",
        "ff02::1",
        "64:ff9b::7f00:1",
        "64:ff9b:1::7f00:1",
        "2002:7f00:1::",
        "2001:0:7f00:1::",
        "2001:db8::1",
        "100::1",
    ] {
        assert!(!reaches(&["a.example", "*.b.example"], "https://a.example", address), "{address}");
        assert!(!reaches(&["a.example", "*.b.example"], "https://a.b.example", address), "{address}");
    }
    for address in [PUBLIC, "8.8.8.8", "2606:2800:21f:cb07::1", "64:ff9b::808:808", "::ffff:8.8.8.8"] {
        assert!(reaches(&["a.example"], "https://a.example", address), "{address}");
    }
}

#[test]
fn an_address_is_reached_if_a_grant_is_that_address_with_that_port() {
    let granted = ["a.example:9000", "10.0.0.7:9000"];
    assert!(reaches(&granted, "http://10.0.0.7:9000", "10.0.0.7"));
    assert!(reaches(&granted, "http://a.example:9000", "10.0.0.7"), "the name leads to it");
    assert!(reaches(&granted, "http://a.example:9000", "::ffff:10.0.0.7"));
    assert!(!reaches(&granted, "http://a.example:9000", "10.0.0.8"));
    assert!(!reaches(&granted, "http://10.0.0.7:9001", "10.0.0.7"));
    assert!(!reaches(&["a.example:9001", "10.0.0.7:9000"], "http://a.example:9001", "10.0.0.7"));
    assert!(!reaches(&granted, "http://10.0.0.7:9000", "10.0.0.8"), "connected elsewhere than asked");
}

#[test]
fn a_denial_says_what_it_is_about() {
    let denied = |asked, address: &str| {
        may_reach(&grants(&["a.example"]), &target(asked), address.parse().unwrap()).unwrap_err().to_string()
    };
    insta::assert_snapshot!(denied("http://b.example:81", PUBLIC), @"http://b.example:81 is not granted to this module");
    insta::assert_snapshot!(denied("https://a.example", "::ffff:169.254.169.254"), @"https://a.example is at 169.254.169.254, a link-local address, which only a grant of this very address allows");
}

fn any_address() -> impl Strategy<Value = IpAddr> {
    let near =
        prop::sample::select(vec!["127.0.0.1", "10.0.0.7", "169.254.169.254", "::1", "fe80::1", "8.8.8.8"]);
    prop_oneof![
        any::<u32>().prop_map(|bits| IpAddr::V4(bits.into())),
        any::<u128>().prop_map(|bits| IpAddr::V6(bits.into())),
        any::<u32>().prop_map(|bits| IpAddr::V6(Ipv4Addr::from(bits).to_ipv6_mapped())),
        near.prop_map(|text| text.parse().unwrap()),
    ]
}

fn any_grant() -> impl Strategy<Value = HostGrant> {
    let host = prop_oneof![
        "[a-c]{1,2}(\\.[a-c]{1,2}){0,2}".prop_map(GrantedHost::Name),
        "[a-c]{1,2}(\\.[a-c]{1,2}){1,2}".prop_map(GrantedHost::Below),
        any_address().prop_map(|address| GrantedHost::Address(address.to_canonical())),
    ];
    let port = prop::option::of(prop::sample::select(vec![80, 443, 8443]));
    (host, port).prop_map(|(host, port)| HostGrant { host, port })
}

fn any_target() -> impl Strategy<Value = Target> {
    let host = prop_oneof![
        "[a-c]{1,2}(\\.[a-c]{1,2}){0,3}".prop_map(Host::Name),
        any_address().prop_map(|address| Host::Address(address.to_canonical())),
    ];
    (host, prop::sample::select(vec![80, 443, 8443]), any::<bool>())
        .prop_map(|(host, port, is_secure)| Target { host, port, is_secure })
}

proptest! {
    #[test]
    fn every_grant_reads_back(grant in any_grant()) {
        prop_assert_eq!(HostGrant::parse(&grant.to_string()).unwrap(), grant);
    }

    #[test]
    fn without_grants_nothing_is_reached(target in any_target(), address in any_address()) {
        prop_assert!(may_ask(&[], &target).is_err() && may_reach(&[], &target, address).is_err());
    }

    #[test]
    fn whatever_is_reached_is_open_to_all_or_granted_as_such(
        granted in prop::collection::vec(any_grant(), 0..4), target in any_target(), address in any_address(),
    ) {
        if may_reach(&granted, &target, address).is_ok() {
            prop_assert!(may_ask(&granted, &target).is_ok());
            let literal = granted.iter().any(|grant| grant.host == GrantedHost::Address(address.to_canonical()));
            prop_assert!(literal || special(address).is_none());
        }
    }

    #[test]
    fn an_ipv4_address_is_the_same_however_it_is_written(
        granted in prop::collection::vec(any_grant(), 0..4), target in any_target(), bits: u32,
    ) {
        let plain = Ipv4Addr::from(bits);
        let (plain, mapped) = (IpAddr::V4(plain), IpAddr::V6(plain.to_ipv6_mapped()));
        prop_assert_eq!(may_reach(&granted, &target, plain).is_ok(), may_reach(&granted, &target, mapped).is_ok());
    }

    #[test]
    fn one_more_grant_never_takes_anything_away(
        granted in prop::collection::vec(any_grant(), 0..4), more in any_grant(), target in any_target(), address in any_address(),
    ) {
        let before = may_reach(&granted, &target, address).is_ok();
        let wider: Vec<_> = granted.into_iter().chain([more]).collect();
        prop_assert!(!before || may_reach(&wider, &target, address).is_ok());
    }
}
