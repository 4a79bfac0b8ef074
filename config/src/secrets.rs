//! `[secrets]`: what modules can be granted that nobody is shown. Here is only where each one is; whoever makes a
//! generation looks there.

use std::{collections::BTreeMap, path::Path};

use crate::{
    error::{ConfigError, Place},
    found::Found,
    raw::{Raw, Written},
    settings::{HostSecret, SecretSource},
};

/// Key of the table.
const SECTION: &str = "secrets";
/// Most secrets of a host.
const SECRETS_MAX: usize = 256;
/// Longest name, bytes.
const NAME_BYTES_MAX: usize = 64;
/// What an entry looks like.
const EXPECTED: &str = "{ file = \"PATH\" } or { env = \"VARIABLE\" }";

/// Takes what is written about secrets out of the file.
pub(crate) fn take(
    raw: &mut Raw,
    app_dir: &Path,
    mistakes: &mut Vec<ConfigError>,
) -> BTreeMap<String, HostSecret> {
    let mut secrets = BTreeMap::new();
    let prefix = format!("{SECTION}.");
    let written: Vec<Written> = raw
        .extract_if(.., |key, _| key == SECTION || key.starts_with(&prefix))
        .map(|(_, written)| written)
        .filter(|written| written.key != SECTION || !is_empty_table(&written.found))
        .collect();
    for Written { key, line, found } in written {
        let mut refuse = |found: String, expected: String| {
            let place = Place::File { line, key: key.clone() };
            mistakes.push(ConfigError::Value { place, found, expected });
        };
        // Never the value: whoever writes a secret where its place belongs does not want to read it in a log.
        let Some((name, part)) = key.strip_prefix(&prefix).and_then(|path| path.rsplit_once('.')) else {
            refuse("something else".to_owned(), format!("[{SECTION}] NAME = {EXPECTED}"));
            continue;
        };
        let source = match (part, found.text()) {
            ("file", Some(path)) if !path.is_empty() => {
                Ok(SecretSource::File(app_dir.join(path).components().collect()))
            }
            ("env", Some(name)) if is_variable(name) => Ok(SecretSource::Variable(name.to_owned())),
            ("file", _) => Err("the path of a file"),
            ("env", _) => Err("the name of a variable: letters, digits and _"),
            _ => Err(EXPECTED),
        };
        match source {
            Err(expected) => refuse("something else".to_owned(), expected.to_owned()),
            Ok(_) if !is_name(name) => refuse(
                "another name".to_owned(),
                format!("a name of at most {NAME_BYTES_MAX} letters, digits, - or _"),
            ),
            Ok(_) if secrets.len() == SECRETS_MAX => {
                refuse("one more secret".to_owned(), format!("at most {SECRETS_MAX}"));
            }
            Ok(source) => {
                let secret = HostSecret { source, value: None };
                if secrets.insert(name.to_owned(), secret).is_some() {
                    refuse("a second place".to_owned(), format!("one: {EXPECTED}"));
                }
            }
        }
    }
    secrets
}

fn is_empty_table(found: &Found) -> bool {
    matches!(found, Found::Typed(toml::Value::Table(table)) if table.is_empty())
}

fn is_name(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

fn is_variable(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|first: char| first.is_ascii_digit())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::raw;

    fn secrets(text: &str) -> (BTreeMap<String, HostSecret>, String) {
        let mut raw = raw::parse(text).unwrap();
        let mut mistakes = Vec::new();
        let secrets = take(&mut raw, Path::new("/app"), &mut mistakes);
        assert!(raw.is_empty(), "{raw:?}");
        (secrets, mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    }

    #[test]
    fn a_secret_is_in_a_file_or_a_variable() {
        let (secrets, mistakes) = secrets(
            "[secrets]\nstripe-live = { file = \"./s/stripe\" }\nmail = { env = \"MAIL_KEY\" }\n\
             [secrets.root_key]\nfile = \"/run/key\"\n",
        );
        assert_eq!(mistakes, "");
        let file = |path: &str| SecretSource::File(PathBuf::from(path));
        assert_eq!(secrets["stripe-live"].source, file("/app/s/stripe"));
        assert_eq!(secrets["root_key"].source, file("/run/key"));
        assert_eq!(secrets["mail"].source, SecretSource::Variable("MAIL_KEY".to_owned()));
        assert_eq!(secrets.len(), 3);
        assert_eq!(super::tests::secrets("[secrets]\n"), (BTreeMap::new(), String::new()));
    }

    #[test]
    fn a_mistake_does_not_show_what_may_be_a_secret() {
        let (_, mistakes) = secrets(
            "[secrets]\na = \"hush\"\nb = { value = \"hush\" }\nc = { env = \"hush hush\" }\nd = { file = 7 }\n\
             \"e.f\" = { file = \"x\" }\ng = { file = \"x\", env = \"Y\" }\nh = {}\n",
        );
        assert!(!mistakes.contains("hush"));
        insta::assert_snapshot!(mistakes, @r#"
        aegis.toml:2: secrets.a: found something else, expected [secrets] NAME = { file = "PATH" } or { env = "VARIABLE" }
        aegis.toml:3: secrets.b.value: found something else, expected { file = "PATH" } or { env = "VARIABLE" }
        aegis.toml:4: secrets.c.env: found something else, expected the name of a variable: letters, digits and _
        aegis.toml:5: secrets.d.file: found something else, expected the path of a file
        aegis.toml:6: secrets.e.f.file: found another name, expected a name of at most 64 letters, digits, - or _
        aegis.toml:7: secrets.g.file: found a second place, expected one: { file = "PATH" } or { env = "VARIABLE" }
        aegis.toml:8: secrets.h: found something else, expected [secrets] NAME = { file = "PATH" } or { env = "VARIABLE" }
        "#);
    }
}
