//! `[modules.NAME]` `source`: where a module is published, instead of a folder with it.
//!
//! What is fetched becomes code of this host, so it comes over TLS, or from this machine; and it is known by its digest,
//! which either the operator names or the manifest beside the component. A folder in a repository is one more address: that
//! of the contents API of the git host.

use std::{collections::BTreeMap, net::IpAddr, path::Path};

use semver::VersionReq;

use crate::{
    error::{ConfigError, Place},
    raw::Written,
    settings::ModuleSource,
};

/// Keys of a source within the table of its module.
const PARTS: [(&str, Part); 6] = [
    ("source", Part::Address),
    ("version", Part::Version),
    ("api", Part::Api),
    ("sha256", Part::Digest),
    ("token-file", Part::TokenFile),
    ("token_file", Part::TokenFile),
];
/// What stands in front of a place in a repository.
const GITHUB: &str = "github:";
/// What stands in front of a place in a registry.
const OCI: &str = "oci://";
/// What stands in front of a digest instead of a tag.
const OCI_DIGEST: &str = "sha256:";
/// Longest tag, bytes.
const TAG_BYTES_MAX: usize = 128;
/// The API of the git host when no other is named.
const GITHUB_API: &str = "https://api.github.com/";
/// What stands in the API of a git host in front of owner and repository.
const REPOSITORIES: &str = "/repos/";
/// And what behind them.
const CONTENTS: &str = "contents";
/// Longest address, bytes.
const URL_BYTES_MAX: usize = 2048;
/// Characters of a SHA-256 in hexadecimal.
const DIGEST_CHARACTERS: usize = 64;

/// One of the keys that make a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    Address,
    Version,
    Api,
    Digest,
    TokenFile,
}

/// Module and key, if a path within `modules` leads to a part of a source.
pub(crate) fn part_of(path: &str) -> Option<(&str, Part)> {
    let (name, key) = path.rsplit_once('.')?;
    PARTS.iter().find(|(known, _)| *known == key).map(|(_, part)| (name, *part))
}

/// What is written about sources, until all of it is known.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    parts: BTreeMap<String, BTreeMap<Part, (Place, String)>>,
}

impl Sources {
    /// Notes one part.
    pub(crate) fn add(&mut self, name: &str, part: Part, written: Written, mistakes: &mut Vec<ConfigError>) {
        let place = Place::File { line: written.line, key: written.key };
        let expected = match part {
            Part::Address => address_expected(),
            Part::Version => "a range of versions such as \"^1.2\"".to_owned(),
            Part::Api => {
                "the address of a git host's API that ends in /, such as https://HOST/api/v3/".to_owned()
            }
            Part::Digest => format!("{DIGEST_CHARACTERS} hexadecimal digits"),
            Part::TokenFile => "the path of a file with a token".to_owned(),
        };
        let value = written.found.text().and_then(|text| match part {
            Part::Address => {
                let is_right = is_address(text)
                    || in_repository(text, GITHUB_API).is_some()
                    || in_registry(text).is_some();
                is_right.then(|| text.to_owned())
            }
            Part::Version => VersionReq::parse(text).is_ok().then(|| text.to_owned()),
            Part::Api => (is_address(text) && text.ends_with('/')).then(|| text.to_owned()),
            Part::Digest => digest(text),
            Part::TokenFile => (!text.is_empty()).then(|| text.to_owned()),
        });
        let Some(value) = value else {
            let found = written.found.to_string();
            return mistakes.push(ConfigError::Value { place, found, expected });
        };
        let parts = self.parts.entry(name.to_owned()).or_default();
        if let Some((_, first)) = parts.insert(part, (place.clone(), value)) {
            let (found, expected) =
                ("the key a second time".to_owned(), format!("it once: it is {first:?} already"));
            mistakes.push(ConfigError::Value { place, found, expected });
        }
    }

    /// The sources, by module.
    pub(crate) fn finish(
        self,
        app_dir: &Path,
        mistakes: &mut Vec<ConfigError>,
    ) -> BTreeMap<String, ModuleSource> {
        let mut sources = BTreeMap::new();
        for (name, mut parts) in self.parts {
            let Some((place, address)) = parts.remove(&Part::Address) else {
                // A source that was refused already explains itself.
                let is_told =
                    mistakes.iter().any(|mistake| is_about(mistake, &format!("modules.{name}.source")));
                for (place, _) in parts.into_values().filter(|_| !is_told) {
                    let (found, expected) = ("no source beside it".to_owned(), address_expected());
                    mistakes.push(ConfigError::Value { place, found, expected });
                }
                continue;
            };
            let api = parts.remove(&Part::Api);
            let asked = api.as_ref().map_or(GITHUB_API, |(_, api)| api.as_str());
            let registry = in_registry(&address);
            let is_registry = registry.is_some();
            let (url, reference) = match (in_repository(&address, asked).or(registry), &api) {
                (Some((url, reference)), api) if api.is_none() || !is_registry => (url, reference),
                (Some(_) | None, None) => (address, None),
                (_, Some((place, _))) => {
                    let (place, found) = (place.clone(), format!("the source {address:?} beside it"));
                    let expected = format!("one that begins with {GITHUB}");
                    mistakes.push(ConfigError::Value { place, found, expected });
                    continue;
                }
            };
            let sha256 = parts.remove(&Part::Digest).map(|(_, digest)| digest);
            if url.ends_with(".wasm") && sha256.is_none() {
                let expected =
                    "sha256 beside it, or the folder with its aegis.module.json, which has one".to_owned();
                mistakes.push(ConfigError::Value { place, found: format!("{url:?} alone"), expected });
                continue;
            }
            let version = match parts.remove(&Part::Version) {
                Some((place, range)) if url.ends_with(".wasm") => {
                    let found = format!("{range:?} beside the component {url:?}");
                    let expected = "it beside a folder with an aegis.index.json".to_owned();
                    mistakes.push(ConfigError::Value { place, found, expected });
                    continue;
                }
                version => version.map(|(_, range)| range),
            };
            if is_registry && reference.is_some() == version.is_some() {
                let found =
                    if version.is_some() { "a tag and a version" } else { "neither a tag nor a version" };
                let expected = format!("{OCI}HOST/NAME:TAG, or version beside {OCI}HOST/NAME");
                mistakes.push(ConfigError::Value { place, found: found.to_owned(), expected });
                continue;
            }
            let token_file =
                parts.remove(&Part::TokenFile).map(|(_, path)| app_dir.join(path).components().collect());
            sources.insert(name, ModuleSource { url, reference, is_registry, version, sha256, token_file });
        }
        sources
    }
}

impl ModuleSource {
    /// A source that is named elsewhere than in `aegis.toml`, in the same form; without a token. `beside` is what
    /// `aegis.toml` says about the module, whose git host is the one that is meant when both are folders in repositories.
    ///
    /// # Errors
    /// What was found and what is expected.
    pub fn read(address: &str, sha256: Option<&str>, beside: Option<&Self>) -> Result<Self, String> {
        let registry = in_registry(address);
        let is_registry = registry.is_some();
        let api = beside.and_then(Self::git_host_api).unwrap_or(GITHUB_API);
        let (url, reference) = match in_repository(address, api).or(registry) {
            Some(found) => found,
            None if is_address(address) => (address.to_owned(), None),
            None => return Err(format!("found {address:?}, expected {}", address_expected())),
        };
        if is_registry && reference.is_none() {
            return Err(format!("found {address:?} without a tag, expected {OCI}HOST/NAME:TAG"));
        }
        if url.ends_with(".wasm") && sha256.is_none() {
            return Err(format!("found {address:?} alone, expected its sha256 as well"));
        }
        let sha256 = sha256.map(str::to_owned);
        Ok(Self { url, reference, is_registry, sha256, token_file: None, version: None })
    }

    /// Address of the API of the git host, when this is a place in a repository.
    fn git_host_api(&self) -> Option<&str> {
        let is_repository = self.reference.is_some() && !self.is_registry;
        let is_begun_by = |rest: &str| rest.split('/').nth(2) == Some(CONTENTS);
        let mut places = self.url.match_indices(REPOSITORIES).filter(|_| is_repository);
        let (at, _) = places.find(|(at, found)| is_begun_by(&self.url[at + found.len()..]))?;
        Some(&self.url[..=at])
    }
}

fn is_about(mistake: &ConfigError, key: &str) -> bool {
    matches!(mistake, ConfigError::Value { place: Place::File { key: found, .. }, .. } if found == key)
}

fn address_expected() -> String {
    "https://HOST/PATH/ (a folder), https://HOST/PATH.wasm, github:OWNER/REPOSITORY/PATH@BRANCH or oci://HOST/NAME:TAG, without user, query and fragment; http: only with a loopback address such as 127.0.0.1"
        .to_owned()
}

fn digest(text: &str) -> Option<String> {
    let text = text.to_ascii_lowercase();
    let is_digest = text.len() == DIGEST_CHARACTERS && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_digest.then_some(text)
}

/// Address and reference of `github:OWNER/REPOSITORY/PATH@BRANCH`.
fn in_repository(text: &str, api: &str) -> Option<(String, Option<String>)> {
    let (place, reference) = text.strip_prefix(GITHUB)?.rsplit_once('@')?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    let is_path =
        |path: &str| path.split('/').all(|part| !matches!(part, "" | "." | "..") && part.bytes().all(plain));
    let mut parts = place.trim_end_matches('/').splitn(3, '/');
    let (owner, repository, path) = (parts.next()?, parts.next()?, parts.next());
    let is_right = is_path(owner) && is_path(repository) && path.is_none_or(is_path) && is_path(reference);
    let end = match path {
        Some(path) if path.ends_with(".wasm") => path.to_owned(),
        Some(path) => format!("{path}/"),
        None => String::new(),
    };
    let api = api.strip_suffix('/').unwrap_or(api);
    let url = format!("{api}{REPOSITORIES}{owner}/{repository}/{CONTENTS}/{end}");
    (is_right && text.len() <= URL_BYTES_MAX).then(|| (url, Some(reference.to_owned())))
}

/// Address and tag or digest of `oci://HOST/NAME:TAG`. A registry on this machine is spoken to without TLS.
fn in_registry(text: &str) -> Option<(String, Option<String>)> {
    let (authority, place) = text.strip_prefix(OCI)?.split_once('/')?;
    let (name, reference) = match (place.split_once('@'), place.split_once(':')) {
        (Some((name, digest)), _) => (name, Some(digest)),
        (None, Some((name, tag))) => (name, Some(tag)),
        (None, None) => (place, None),
    };
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-._".contains(&byte);
    let is_segment = |part: &str| {
        part.bytes().all(plain)
            && part.starts_with(|first: char| first.is_ascii_alphanumeric())
            && part.ends_with(|last: char| last.is_ascii_alphanumeric())
    };
    let is_tag = |tag: &str| {
        (1..=TAG_BYTES_MAX).contains(&tag.len())
            && !tag.starts_with(['.', '-'])
            && tag.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
    };
    let is_reference = |text: &str| match text.strip_prefix(OCI_DIGEST) {
        Some(hexadecimal) => digest(hexadecimal).is_some_and(|lower| lower == hexadecimal),
        None => is_tag(text) && !place.contains('@'),
    };
    let is_name = !name.is_empty() && name.split('/').all(is_segment);
    let scheme = if is_loopback(split_port(authority).0) { "http" } else { "https" };
    let url = format!("{scheme}://{authority}/v2/{name}/");
    (is_name && reference.is_none_or(is_reference) && is_address(&url))
        .then(|| (url, reference.map(str::to_owned)))
}

fn is_loopback(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    bare.unwrap_or(host).parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Nothing clever: an address that is read in two ways by two readers is none.
fn is_address(text: &str) -> bool {
    let (is_private, rest) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
        (Some(rest), _) => (true, rest),
        (None, Some(rest)) => (false, rest),
        (None, None) => return false,
    };
    let Some((authority, path)) = rest.split_once('/') else { return false };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:@/".contains(&byte);
    let is_path = path.bytes().all(plain)
        && !path.contains('@')
        && path.split('/').all(|segment| !matches!(segment, "." | ".."))
        && (path.is_empty() || path.ends_with('/') || path.ends_with(".wasm"));
    let (host, port) = split_port(authority);
    let is_port = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port != 0));
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let address = bare.unwrap_or(host).parse::<IpAddr>().ok();
    let is_host = match bare {
        Some(_) => address.is_some_and(|address| address.is_ipv6()),
        None => {
            !host.is_empty()
                && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.')
        }
    };
    let is_reached_safely = is_private || address.is_some_and(|address| address.is_loopback());
    text.len() <= URL_BYTES_MAX && is_path && is_port && is_host && is_reached_safely
}

/// Host and port; the colons of an IPv6 address are between brackets.
fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{modules, raw};

    fn sources(text: &str) -> (BTreeMap<String, Option<ModuleSource>>, String) {
        let mut raw = raw::parse(text).unwrap();
        let mut mistakes = Vec::new();
        let modules = modules::take(&mut raw, Path::new("/app"), &mut mistakes);
        assert!(raw.is_empty(), "{raw:?}");
        let mistakes = mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        (modules.into_iter().map(|(name, terms)| (name, terms.source)).collect(), mistakes)
    }

    #[test]
    fn a_source_is_a_folder_or_a_component_with_its_digest() {
        let digest = "A1".repeat(32);
        let (sources, mistakes) = sources(&format!(
            "[modules.order]\nsource = \"https://modules.example/order/\"\ntoken-file = \"secrets/token\"\n\
             [modules.\"a.b\"]\nsource = \"http://127.0.0.1:8000/x.wasm\"\nsha256 = \"{digest}\"\n\
             [modules.plain]\nsettings = {{}}\n"
        ));
        assert_eq!(mistakes, "");
        let order = sources["order"].clone().unwrap();
        assert_eq!((order.url.as_str(), order.sha256), ("https://modules.example/order/", None));
        assert_eq!(order.token_file.as_deref(), Some(Path::new("/app/secrets/token")));
        assert_eq!(sources["a.b"].clone().unwrap().sha256, Some(digest.to_ascii_lowercase()));
        assert_eq!(sources["plain"], None);
    }

    #[test]
    fn a_folder_in_a_repository_is_an_address_of_its_git_host() {
        let (sources, mistakes) = sources(
            "[modules.a]\nsource = \"github:team/modules/order@main\"\n\
             [modules.b]\nsource = \"github:team/modules@release/1.0\"\napi = \"http://127.0.0.1:1/v3/\"\n",
        );
        assert_eq!(mistakes, "");
        let (a, b) = (sources["a"].clone().unwrap(), sources["b"].clone().unwrap());
        assert_eq!(a.url, "https://api.github.com/repos/team/modules/contents/order/");
        assert_eq!(a.reference.as_deref(), Some("main"));
        assert_eq!(b.url, "http://127.0.0.1:1/v3/repos/team/modules/contents/");
        assert_eq!(b.reference.as_deref(), Some("release/1.0"));
        for address in [
            "github:team/modules/order",
            "github:team@main",
            "github:team/../order@main",
            "github:team/modules/a//b@main",
            "github:team/modules/order@",
            "github:team/modules/order@a&b",
            "github:team/modules/a?b@main",
            "gitlab:team/modules/order@main",
        ] {
            assert_eq!(in_repository(address, GITHUB_API), None, "{address}");
        }
    }

    #[test]
    fn a_source_that_is_named_elsewhere_is_read_in_the_same_way() {
        let digest = "ab".repeat(32);
        let read = ModuleSource::read("https://a.example/x.wasm", Some(&digest), None).unwrap();
        assert_eq!((read.url.as_str(), read.sha256), ("https://a.example/x.wasm", Some(digest)));
        let read = ModuleSource::read("github:team/modules/order@main", None, None).unwrap();
        assert_eq!(read.reference.as_deref(), Some("main"));
        let read = ModuleSource::read("oci://a.example/order:1.4.0", None, None).unwrap();
        assert_eq!((read.reference.as_deref(), read.is_registry), (Some("1.4.0"), true));
        for address in ["https://a.example/x.wasm", "http://a.example/", "oci://a.example/order", "order", ""]
        {
            assert!(ModuleSource::read(address, None, None).unwrap_err().starts_with("found "), "{address}");
        }
    }

    #[test]
    fn a_repository_named_elsewhere_is_on_the_git_host_of_the_module() {
        let (sources, mistakes) = sources(
            "[modules.own]\nsource = \"github:team/order@v2\"\napi = \"https://git.example/repos/v3/\"\n\
             [modules.public]\nsource = \"github:team/order@v2\"\n\
             [modules.web]\nsource = \"https://a.example/repos/team/order/contents/\"\n\
             [modules.registry]\nsource = \"oci://a.example/repos/team/order/contents/x:v2\"\n",
        );
        assert_eq!(mistakes, "");
        for (beside, expected) in [
            ("own", "https://git.example/repos/v3/repos/team/order/contents/"),
            ("public", "https://api.github.com/repos/team/order/contents/"),
            ("web", "https://api.github.com/repos/team/order/contents/"),
            ("registry", "https://api.github.com/repos/team/order/contents/"),
        ] {
            let beside = sources[beside].as_ref();
            let read = ModuleSource::read("github:team/order@v3", None, beside).unwrap();
            assert_eq!((read.url.as_str(), read.reference.as_deref()), (expected, Some("v3")));
            let read = ModuleSource::read("https://a.example/m/", None, beside).unwrap();
            assert_eq!(read.url, "https://a.example/m/");
        }
    }

    #[test]
    fn a_name_in_a_registry_is_an_address_of_its_api() {
        let digest = format!("sha256:{}", "a1".repeat(32));
        let (sources, mistakes) = sources(&format!(
            "[modules.a]\nsource = \"oci://registry.example/team/order:1.4.0\"\n\
             [modules.b]\nsource = \"oci://127.0.0.1:5000/order@{digest}\"\n\
             [modules.c]\nsource = \"oci://registry.example:8443/a/b-c/d_e\"\nversion = \"^1\"\n",
        ));
        assert_eq!(mistakes, "");
        let source = |name: &str| sources[name].clone().unwrap();
        assert_eq!(source("a").url, "https://registry.example/v2/team/order/");
        assert_eq!(source("a").reference.as_deref(), Some("1.4.0"));
        assert_eq!(source("b").url, "http://127.0.0.1:5000/v2/order/");
        assert_eq!(source("b").reference, Some(digest));
        assert_eq!(source("c").url, "https://registry.example:8443/v2/a/b-c/d_e/");
        assert_eq!((source("c").reference, source("c").version.as_deref()), (None, Some("^1")));
        assert!(sources.values().flatten().all(|source| source.is_registry));
        for address in [
            "oci://registry.example",
            "oci://registry.example/",
            "oci:///order:1",
            "oci://registry.example/Order:1",
            "oci://registry.example/a//b:1",
            "oci://registry.example/../b:1",
            "oci://registry.example/a:",
            "oci://registry.example/a:b:c",
            "oci://registry.example/a@1.0",
            "oci://registry.example/a@sha256:12",
            "oci://registry.example/a:1?x",
            "oci://user:word@registry.example/a:1",
        ] {
            assert_eq!(in_registry(address), None, "{address}");
        }
    }

    #[test]
    fn a_place_in_a_registry_has_either_a_tag_or_a_range() {
        let (_, mistakes) = sources(
            "[modules.a]\nsource = \"oci://a.example/x:1\"\nversion = \"^1\"\n\
             [modules.b]\nsource = \"oci://a.example/x\"\n\
             [modules.c]\nsource = \"oci://a.example/x:1\"\napi = \"https://b.example/\"\n",
        );
        insta::assert_snapshot!(mistakes, @r#"
        aegis.toml:2: modules.a.source: found a tag and a version, expected oci://HOST/NAME:TAG, or version beside oci://HOST/NAME
        aegis.toml:5: modules.b.source: found neither a tag nor a version, expected oci://HOST/NAME:TAG, or version beside oci://HOST/NAME
        aegis.toml:8: modules.c.api: found the source "oci://a.example/x:1" beside it, expected one that begins with github:
        "#);
    }

    #[test]
    fn a_range_of_versions_stands_beside_a_folder() {
        let (sources, mistakes) = sources(
            "[modules.a]\nsource = \"https://a.example/\"\nversion = \"^1.2\"\n\
             [modules.b]\nsource = \"https://a.example/\"\nversion = \">=1, <3\"\n\
             [modules.c]\nsource = \"https://a.example/\"\nversion = \"newest\"\n\
             [modules.d]\nsource = \"https://a.example/x.wasm\"\nsha256 = \"0000000000000000000000000000000000000000000000000000000000000000\"\nversion = \"1\"\n\
             [modules.e]\nversion = \"1\"\n",
        );
        assert_eq!(sources["a"].clone().unwrap().version.as_deref(), Some("^1.2"));
        assert_eq!(sources["b"].clone().unwrap().version.as_deref(), Some(">=1, <3"));
        insta::assert_snapshot!(mistakes, @r#"
        aegis.toml:9: modules.c.version: found "newest", expected a range of versions such as "^1.2"
        aegis.toml:13: modules.d.version: found "1" beside the component "https://a.example/x.wasm", expected it beside a folder with an aegis.index.json
        aegis.toml:15: modules.e.version: found no source beside it, expected https://HOST/PATH/ (a folder), https://HOST/PATH.wasm, github:OWNER/REPOSITORY/PATH@BRANCH or oci://HOST/NAME:TAG, without user, query and fragment; http: only with a loopback address such as 127.0.0.1
        "#);
    }

    #[test]
    fn only_tls_and_this_machine_are_safe_ways() {
        for address in [
            "https://a.example/",
            "https://a.example:8443/x/y/",
            "https://[2001:db8::1]/x/",
            "http://127.0.0.1/",
            "http://127.1.2.3:80/m/",
            "http://[::1]:8000/m/",
            "https://a.example/x.wasm",
        ] {
            assert!(is_address(address), "{address}");
        }
        for address in [
            "",
            "http://a.example/",
            "http://localhost/",
            "http://127.0.0.1.example/",
            "http://10.0.0.1/",
            "ftp://a.example/",
            "file:///x/",
            "https://a.example",
            "https://a.example/x",
            "https:///x/",
            "https://user:word@a.example/",
            "https://a.example/x/?y/",
            "https://a.example/#/",
            "https://a.example/../x/",
            "https://a.example/x y/",
            "https://a.example:0/",
            "https://a.example:x/",
            "https://[::1/",
            "https://ä.example/",
            "HTTPS://a.example/",
        ] {
            assert!(!is_address(address), "{address}");
        }
    }

    #[test]
    fn mistakes_name_the_key_and_what_was_expected() {
        let (sources, mistakes) = sources(
            "[modules.a]\nsource = \"https://a.example/x.wasm\"\n[modules.b]\nsource = \"http://a.example/\"\n\
             sha256 = \"abc\"\ntoken-file = 7\n[modules.c]\ntoken-file = \"x\"\n\
             [modules.d]\nsource = \"https://a.example/\"\ntoken-file = \"x\"\ntoken_file = \"y\"\n\
             [modules.e]\nsource = \"https://a.example/\"\napi = \"https://b.example/\"\n\
             [modules.f]\nsource = \"github:a/b@c\"\napi = \"https://b.example\"\n",
        );
        assert!(sources.values().filter(|source| source.is_some()).count() <= 2, "{sources:?}");
        insta::assert_snapshot!(mistakes, @r#"
        aegis.toml:5: modules.b.sha256: found "abc", expected 64 hexadecimal digits
        aegis.toml:4: modules.b.source: found "http://a.example/", expected https://HOST/PATH/ (a folder), https://HOST/PATH.wasm, github:OWNER/REPOSITORY/PATH@BRANCH or oci://HOST/NAME:TAG, without user, query and fragment; http: only with a loopback address such as 127.0.0.1
        aegis.toml:6: modules.b.token-file: found 7, expected the path of a file with a token
        aegis.toml:12: modules.d.token_file: found the key a second time, expected it once: it is "x" already
        aegis.toml:18: modules.f.api: found "https://b.example", expected the address of a git host's API that ends in /, such as https://HOST/api/v3/
        aegis.toml:2: modules.a.source: found "https://a.example/x.wasm" alone, expected sha256 beside it, or the folder with its aegis.module.json, which has one
        aegis.toml:8: modules.c.token-file: found no source beside it, expected https://HOST/PATH/ (a folder), https://HOST/PATH.wasm, github:OWNER/REPOSITORY/PATH@BRANCH or oci://HOST/NAME:TAG, without user, query and fragment; http: only with a loopback address such as 127.0.0.1
        aegis.toml:15: modules.e.api: found the source "https://a.example/" beside it, expected one that begins with github:
        "#);
    }
}
