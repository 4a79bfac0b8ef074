//! `aegis.index.json`: which versions of a module are published, and which one of them is wanted.

use std::collections::BTreeSet;

use semver::{Version, VersionReq};
use serde::Deserialize;

use super::super::component::MANIFEST_FILE;

/// Name of an index, in the folder that is the source.
pub(super) const INDEX_FILE: &str = "aegis.index.json";
/// Bytes of one index.
pub(super) const INDEX_BYTES_MAX: usize = 1024 * 1024;
/// Versions in one index.
pub(super) const VERSIONS_MAX: usize = 10_000;
/// The only format there is.
const SCHEMA: &str = "aegis.index/1";
/// Bytes of a path in an index.
const PATH_BYTES_MAX: usize = 500;
/// Characters of a SHA-256 in hexadecimal.
const DIGEST_CHARACTERS: usize = 64;
/// Mistakes told about one index.
const MISTAKES_MAX: usize = 20;
/// Versions that are listed when none is right.
const LISTED_MAX: usize = 20;

/// One version that is published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) version: Version,
    /// The manifest, seen from the folder that is the source.
    pub(super) manifest: String,
    /// SHA-256 of the manifest, hexadecimal, lower case, if that is said.
    pub(super) sha256: Option<String>,
    /// It should not be chosen any more.
    pub(super) is_yanked: bool,
}

/// An index as it is written.
#[derive(Deserialize)]
struct Index {
    schema: String,
    versions: Vec<Line>,
}

/// A version as it is written.
#[derive(Deserialize)]
struct Line {
    version: String,
    path: Option<String>,
    sha256: Option<String>,
    #[serde(default)]
    yanked: bool,
}

/// Reads an index.
///
/// # Errors
/// The first mistakes, each with its place.
pub(super) fn parse(bytes: &[u8]) -> Result<Vec<Entry>, Vec<String>> {
    let index: Index = serde_json::from_slice(bytes).map_err(|error| vec![error.to_string()])?;
    if index.schema != SCHEMA {
        return Err(vec![format!("schema: found {:?}, expected {SCHEMA:?}", index.schema)]);
    }
    if index.versions.len() > VERSIONS_MAX {
        let found = index.versions.len();
        return Err(vec![format!("versions: found {found}, expected at most {VERSIONS_MAX}")]);
    }
    let (mut entries, mut mistakes, mut known) = (Vec::new(), Vec::new(), BTreeSet::new());
    for (number, line) in index.versions.into_iter().enumerate() {
        match entry(line) {
            Ok(entry) if known.insert(entry.version.clone()) => entries.push(entry),
            Ok(entry) => {
                mistakes.push(format!(
                    "versions[{number}]: found {} a second time, expected it once",
                    entry.version
                ));
            }
            Err(mistake) => mistakes.push(format!("versions[{number}]{mistake}")),
        }
    }
    mistakes.truncate(MISTAKES_MAX);
    if mistakes.is_empty() { Ok(entries) } else { Err(mistakes) }
}

fn entry(line: Line) -> Result<Entry, String> {
    let Line { version, path, sha256, yanked } = line;
    let version = Version::parse(&version)
        .map_err(|_| format!(".version: found {version:?}, expected a version such as \"1.4.0\""))?;
    let path = path.unwrap_or_else(|| format!("{version}/"));
    if !is_path(&path) {
        let expected = "the path of a folder (ends in /) or of a manifest (ends in .json) below the index";
        return Err(format!(".path: found {path:?}, expected {expected}"));
    }
    let manifest = if path.ends_with('/') { format!("{path}{MANIFEST_FILE}") } else { path };
    let sha256 = sha256.map(|digest| digest.to_ascii_lowercase());
    if let Some(digest) = &sha256
        && (digest.len() != DIGEST_CHARACTERS || !digest.bytes().all(|byte| byte.is_ascii_hexdigit()))
    {
        return Err(format!(".sha256: found {digest:?}, expected {DIGEST_CHARACTERS} hexadecimal digits"));
    }
    Ok(Entry { version, manifest, sha256, is_yanked: yanked })
}

/// Reads what a folder in a repository has in it, as the contents API of its git host tells: folders that are called like
/// versions, with or without a `v` in front, are versions.
///
/// # Errors
/// What is wrong with the answer.
pub(super) fn parse_folders(bytes: &[u8]) -> Result<Vec<Entry>, String> {
    #[derive(Deserialize)]
    struct Item {
        name: String,
        r#type: String,
    }
    let items: Vec<Item> = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let folders = items.into_iter().filter(|item| item.r#type == "dir").take(VERSIONS_MAX);
    let entries = folders.filter_map(|item| {
        let version = Version::parse(item.name.strip_prefix('v').unwrap_or(&item.name)).ok()?;
        let manifest = format!("{}/{MANIFEST_FILE}", item.name);
        Some(Entry { version, manifest, sha256: None, is_yanked: false })
    });
    Ok(entries.collect())
}

/// Whether it leads to something below the folder it is seen from, and reads the same however it is read.
fn is_path(path: &str) -> bool {
    let is_segment = |segment: &str| {
        !matches!(segment, "" | "." | "..")
            && segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~+".contains(&byte))
    };
    let folder = path.strip_suffix('/');
    path.len() <= PATH_BYTES_MAX
        && (folder.is_some() || path.ends_with(".json"))
        && folder.unwrap_or(path).split('/').all(is_segment)
}

/// The greatest version that matches and should be chosen. Releases in preparation (`2.0.0-rc.1`) match only a range that
/// names one of the same release.
pub(super) fn choose<'a>(range: &VersionReq, entries: &'a [Entry]) -> Option<&'a Entry> {
    let fitting = entries.iter().filter(|entry| !entry.is_yanked && range.matches(&entry.version));
    fitting.max_by(|one, other| one.version.cmp(&other.version))
}

/// What there is instead of a version that matches, the newest first.
pub(super) fn nothing_matches(range: &VersionReq, entries: &[Entry]) -> String {
    let mut known: Vec<&Entry> = entries.iter().collect();
    known.sort_by(|one, other| other.version.cmp(&one.version));
    let mut shown: Vec<String> = known
        .iter()
        .take(LISTED_MAX)
        .map(|entry| format!("{}{}", entry.version, if entry.is_yanked { " (yanked)" } else { "" }))
        .collect();
    if known.len() > LISTED_MAX {
        shown.push(format!("{} older ones", known.len() - LISTED_MAX));
    }
    let found = if shown.is_empty() { "no versions".to_owned() } else { shown.join(", ") };
    format!("found {found}, expected one that matches {range}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn index(versions: &serde_json::Value) -> Result<Vec<Entry>, Vec<String>> {
        parse(json!({ "schema": "aegis.index/1", "versions": versions }).to_string().as_bytes())
    }

    fn chosen(range: &str, versions: &[&str]) -> Option<String> {
        let lines: Vec<_> = versions
            .iter()
            .map(|version| match version.strip_suffix('!') {
                Some(version) => json!({ "version": version, "yanked": true }),
                None => json!({ "version": version }),
            })
            .collect();
        let entries = index(&json!(lines)).unwrap();
        choose(&VersionReq::parse(range).unwrap(), &entries).map(|entry| entry.version.to_string())
    }

    #[test]
    fn the_greatest_version_that_matches_is_chosen() {
        let published = ["1.2.3", "2.0.0", "1.10.0", "1.4.0"];
        for (range, expected) in [
            ("^1.2", Some("1.10.0")),
            ("1.2", Some("1.10.0")),
            ("~1.2", Some("1.2.3")),
            ("=1.4.0", Some("1.4.0")),
            (">=1, <1.10", Some("1.4.0")),
            ("*", Some("2.0.0")),
            ("^3", None),
        ] {
            assert_eq!(chosen(range, &published).as_deref(), expected, "{range}");
        }
    }

    #[test]
    fn what_is_yanked_or_in_preparation_is_passed_over() {
        assert_eq!(chosen("^1.2", &["1.2.3", "1.4.0!"]).as_deref(), Some("1.2.3"));
        assert_eq!(chosen("^1.2", &["1.2.3", "1.3.0-rc.1"]).as_deref(), Some("1.2.3"));
        assert_eq!(
            chosen("^1.3.0-rc.1", &["1.2.3", "1.3.0-rc.1", "1.3.0-rc.2"]).as_deref(),
            Some("1.3.0-rc.2")
        );
    }

    #[test]
    fn a_version_says_where_it_is_or_lies_in_a_folder_of_its_name() {
        let entries = index(&json!([
            { "version": "1.0.0" },
            { "version": "1.1.0", "path": "old/one/" },
            { "version": "1.2.0", "path": "order-1.2.0.json", "sha256": "A".repeat(64) },
        ]))
        .unwrap();
        let places: Vec<_> = entries.iter().map(|entry| entry.manifest.as_str()).collect();
        assert_eq!(places, ["1.0.0/aegis.module.json", "old/one/aegis.module.json", "order-1.2.0.json"]);
        assert_eq!(entries[2].sha256, Some("a".repeat(64)));
    }

    #[test]
    fn mistakes_of_an_index_name_their_place() {
        let mut told = index(&json!([
            { "version": "one" },
            { "version": "1.0.0", "path": "../" },
            { "version": "1.0.1", "path": "https://elsewhere/" },
            { "version": "1.0.2", "path": "a//b/" },
            { "version": "1.0.3", "path": "a.wasm" },
            { "version": "1.0.4", "sha256": "abc" },
            { "version": "1.0.5" },
            { "version": "1.0.5" },
        ]))
        .unwrap_err();
        told.extend(parse(b"{ \"schema\": \"other\", \"versions\": [] }").unwrap_err());
        told.extend(parse(b"[").unwrap_err());
        told.extend(index(&json!(vec![json!({ "version": "1.0.0" }); VERSIONS_MAX + 1])).unwrap_err());
        insta::assert_snapshot!(told.join("\n"), @r#"
        versions[0].version: found "one", expected a version such as "1.4.0"
        versions[1].path: found "../", expected the path of a folder (ends in /) or of a manifest (ends in .json) below the index
        versions[2].path: found "https://elsewhere/", expected the path of a folder (ends in /) or of a manifest (ends in .json) below the index
        versions[3].path: found "a//b/", expected the path of a folder (ends in /) or of a manifest (ends in .json) below the index
        versions[4].path: found "a.wasm", expected the path of a folder (ends in /) or of a manifest (ends in .json) below the index
        versions[5].sha256: found "abc", expected 64 hexadecimal digits
        versions[7]: found 1.0.5 a second time, expected it once
        schema: found "other", expected "aegis.index/1"
        EOF while parsing a list at line 1 column 1
        versions: found 10001, expected at most 10000
        "#);
    }

    #[test]
    fn when_nothing_matches_it_is_told_what_there_is() {
        let range = VersionReq::parse("^3").unwrap();
        let entries =
            index(&json!([{ "version": "1.2.3" }, { "version": "2.0.0", "yanked": true }])).unwrap();
        let many: Vec<_> = (0..25).map(|n| json!({ "version": format!("1.{n}.0") })).collect();
        let many = index(&json!(many)).unwrap();
        let told = [&entries[..], &[], &many].map(|entries| nothing_matches(&range, entries));
        insta::assert_snapshot!(told.join("\n"), @"
        found 2.0.0 (yanked), 1.2.3, expected one that matches ^3
        found no versions, expected one that matches ^3
        found 1.24.0, 1.23.0, 1.22.0, 1.21.0, 1.20.0, 1.19.0, 1.18.0, 1.17.0, 1.16.0, 1.15.0, 1.14.0, 1.13.0, 1.12.0, 1.11.0, 1.10.0, 1.9.0, 1.8.0, 1.7.0, 1.6.0, 1.5.0, 5 older ones, expected one that matches ^3
        ");
    }
}
