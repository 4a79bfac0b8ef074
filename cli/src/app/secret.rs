//! Secrets, from where they are into the configuration that a generation is made of: that of webhooks, what tokens are
//! signed with, and those that modules can be granted. A mistake tells about the place, and of what is there only the length.

use std::path::Path;

use aegis_config::{Auth, AuthKey, Certain, Config, Environment, Reload, Secret, SecretSource};

use super::files::{length_of, read_bytes};

/// Shortest secret of webhooks, bytes: what is shorter can be found by trying.
const SECRET_BYTES_MIN: usize = 16;
/// Longest secret, bytes.
const SECRET_BYTES_MAX: usize = 4096;
/// A secret and the newline that editors put behind it, bytes.
const FILE_BYTES_MAX: usize = SECRET_BYTES_MAX + 2;
/// Shortest secret that tokens are signed with, bytes (RFC 7518 section 3.2).
const SHARED_BYTES_MIN: usize = 32;
/// Most bytes of public keys.
const KEYS_FILE_BYTES_MAX: usize = 256 * 1024;
/// Shortest secret of modules, bytes: what is shorter stands in too many texts to be kept out of the log.
const GRANTED_BYTES_MIN: usize = 8;

/// Puts the secret in place if there is to be one.
pub(super) fn read(reload: &mut Reload) -> Result<(), String> {
    if let Some(path) = &reload.webhook_secret_file {
        reload.webhook_secret = Some(read_webhook(path)?);
    }
    Ok(())
}

fn read_webhook(path: &Path) -> Result<Secret, String> {
    let refuse = |what: String| format!("reload.webhook_secret_file: {}: {what}", path.display());
    length_of(path, "a file with the secret of webhooks").map_err(refuse)?;
    let bytes = read_bytes(path, FILE_BYTES_MAX).map_err(refuse)?;
    let secret = bounded(without_final_newline(&bytes), SECRET_BYTES_MIN).map_err(refuse)?;
    Ok(Secret::new(secret.to_vec()))
}

/// What is wrong with secrets that a configuration names which has other mistakes.
pub(super) fn look(certain: &Certain, environment: &Environment) -> Vec<String> {
    let webhook = certain.webhook_secret_file.as_deref().and_then(|path| read_webhook(path).err());
    let auth = certain.auth.clone().and_then(|mut auth| read_auth(&mut auth).err());
    let of_modules = certain.secrets.iter().filter_map(|(name, secret)| {
        let what = read_source(&secret.source, environment).err()?;
        Some(format!("secrets.{name}: {what}"))
    });
    webhook.into_iter().chain(auth).chain(of_modules).collect()
}

/// Puts what tokens are signed with in place if tokens are asked for. A file that is there is looked at in any case.
pub(super) fn read_auth(auth: &mut Auth) -> Result<(), String> {
    let (key, path, bytes_max) = match (&auth.secret_file, &auth.keys_file) {
        (Some(path), _) => ("auth.secret_file", path, FILE_BYTES_MAX),
        (None, Some(path)) => ("auth.keys_file", path, KEYS_FILE_BYTES_MAX),
        (None, None) => return Ok(()),
    };
    let refuse = |what: String| format!("{key}: {}: {what}", path.display());
    length_of(path, "a file with what tokens are signed with").map_err(refuse)?;
    let bytes = read_bytes(path, bytes_max).map_err(refuse)?;
    let found = if auth.secret_file.is_some() {
        let secret = bounded(without_final_newline(&bytes), SHARED_BYTES_MIN).map_err(refuse)?;
        AuthKey::Shared(Secret::new(secret.to_vec()))
    } else {
        AuthKey::Public(Secret::new(bytes))
    };
    aegis_worker::check_key(&found).map_err(refuse)?;
    auth.key = auth.enabled.then_some(found);
    Ok(())
}

/// Puts the secrets of modules in place, and tells all that is wrong with them and with who is granted them.
pub(super) fn read_granted(config: &mut Config, environment: &Environment) -> Vec<String> {
    let mut mistakes = Vec::new();
    for (name, secret) in &mut config.secrets {
        match read_source(&secret.source, environment) {
            Ok(value) => secret.value = Some(value),
            Err(what) => mistakes.push(format!("secrets.{name}: {what}")),
        }
    }
    for (module, terms) in &config.modules {
        let granted = [("secrets", &terms.grants.secrets), ("secrets.reveal", &terms.grants.reveal)];
        for (grant, name) in
            granted.into_iter().flat_map(|(grant, names)| names.iter().map(move |name| (grant, name)))
        {
            if !config.secrets.contains_key(name) {
                let known: Vec<&str> = config.secrets.keys().map(String::as_str).collect();
                let expected =
                    if known.is_empty() { "one that [secrets] names".to_owned() } else { known.join(" or ") };
                mistakes
                    .push(format!("modules.{module}.grants.{grant}: found {name:?}, expected {expected}"));
            }
        }
    }
    mistakes
}

fn read_source(source: &SecretSource, environment: &Environment) -> Result<Secret, String> {
    let (place, bytes) = match source {
        SecretSource::File(path) => {
            let place = path.display().to_string();
            let read = length_of(path, "a file with a secret").and_then(|_| read_bytes(path, FILE_BYTES_MAX));
            (place.clone(), read.map_err(|what| format!("{place}: {what}"))?)
        }
        SecretSource::Variable(name) => {
            let value = environment.get(name).ok_or_else(|| {
                format!("{name}: found no such variable, expected one in the environment of the host")
            })?;
            (name.clone(), value.as_encoded_bytes().to_vec())
        }
    };
    let refuse = |what: String| format!("{place}: {what}");
    let secret = bounded(without_final_newline(&bytes), GRANTED_BYTES_MIN).map_err(refuse)?;
    if std::str::from_utf8(secret).is_err() {
        return Err(refuse("found bytes that are not UTF-8, expected a text".to_owned()));
    }
    Ok(Secret::new(secret.to_vec()))
}

fn bounded(secret: &[u8], bytes_min: usize) -> Result<&[u8], String> {
    if (bytes_min..=SECRET_BYTES_MAX).contains(&secret.len()) {
        return Ok(secret);
    }
    Err(format!("found a secret of {} bytes, expected {bytes_min} to {SECRET_BYTES_MAX}", secret.len()))
}

fn without_final_newline(bytes: &[u8]) -> &[u8] {
    bytes.strip_suffix(b"\r\n").or_else(|| bytes.strip_suffix(b"\n")).unwrap_or(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use aegis_config::{Loaded, Overrides};

    use super::*;

    fn read_app(folder: &Path, environment: &[(&str, &str)]) -> (Config, String) {
        let environment: Environment =
            environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect();
        let Loaded { mut config, .. } = Config::load(folder, &Overrides::default(), &environment).unwrap();
        let mistakes = read_granted(&mut config, &environment).join("\n");
        (config, mistakes.replace(&folder.display().to_string(), "APP"))
    }

    #[test]
    fn secrets_are_read_from_files_and_variables_and_shown_nowhere() {
        let app = tempfile::tempdir().unwrap();
        let settings = "[secrets]\nstripe = { file = \"stripe\" }\nmail = { env = \"MAIL_KEY\" }\n\
                        [modules.order]\ngrants = { secrets = [\"stripe\"], \"secrets.reveal\" = [\"mail\"] }\n";
        fs::write(app.path().join("aegis.toml"), settings).unwrap();
        fs::write(app.path().join("stripe"), "sk_live_hush\n").unwrap();
        let (config, mistakes) = read_app(app.path(), &[("MAIL_KEY", "post_hush")]);
        assert_eq!(mistakes, "");
        let value = |name: &str| config.secrets[name].value.as_ref().unwrap().reveal();
        assert_eq!((value("stripe"), value("mail")), (&b"sk_live_hush"[..], &b"post_hush"[..]));
        let shown = [
            format!("{config:?}"),
            serde_json::to_string(&config.public_view()).unwrap(),
            serde_json::to_string(&config.operator_view()).unwrap(),
        ];
        assert!(shown.iter().all(|shown| !shown.contains("hush")), "{shown:?}");
    }

    #[test]
    fn what_is_wrong_with_secrets_is_told_without_them() {
        let app = tempfile::tempdir().unwrap();
        let settings = "[secrets]\na = { file = \"none\" }\nb = { file = \".\" }\nc = { file = \"short\" }\nd = { env = \"NONE\" }\n\
                        e = { env = \"LONG\" }\nf = { file = \"binary\" }\n\
                        [modules.order]\ngrants = { secrets = [\"a\", \"g\"], \"secrets.reveal\" = [\"h\"] }\n";
        fs::write(app.path().join("aegis.toml"), settings).unwrap();
        fs::write(app.path().join("short"), "hush\n").unwrap();
        fs::write(app.path().join("binary"), [0xff; 20]).unwrap();
        let long = "hush".repeat(2000);
        let (_, mistakes) = read_app(app.path(), &[("LONG", &long)]);
        insta::assert_snapshot!(mistakes, @r#"
        secrets.a: APP/none: found nothing, expected a file
        secrets.b: APP: found no regular file, expected a file with a secret
        secrets.c: APP/short: found a secret of 4 bytes, expected 8 to 4096
        secrets.d: NONE: found no such variable, expected one in the environment of the host
        secrets.e: LONG: found a secret of 8000 bytes, expected 8 to 4096
        secrets.f: APP/binary: found bytes that are not UTF-8, expected a text
        modules.order.grants.secrets: found "g", expected a or b or c or d or e or f
        modules.order.grants.secrets.reveal: found "h", expected a or b or c or d or e or f
        "#);
    }

    #[test]
    fn secrets_are_looked_at_although_something_else_is_wrong() {
        let app = tempfile::tempdir().unwrap();
        let settings = "bogus = 1\n[secrets]\na = { file = \"none\" }\n[reload]\nwebhook_secret_file = \"gone\"\n\
                        [auth]\nsecret_file = \"short\"\n";
        fs::write(app.path().join("aegis.toml"), settings).unwrap();
        fs::write(app.path().join("short"), "hush\n").unwrap();
        let environment = Environment::new();
        let errors = Config::load(app.path(), &Overrides::default(), &environment).unwrap_err();
        let told = look(errors.certain(), &environment).join("\n");
        insta::assert_snapshot!(told.replace(&app.path().display().to_string(), "APP"), @r"
        reload.webhook_secret_file: APP/gone: found nothing, expected a file
        auth.secret_file: APP/short: found a secret of 4 bytes, expected 32 to 4096
        secrets.a: APP/none: found nothing, expected a file
        ");
    }

    fn read_key(folder: &Path, settings: &str) -> (Auth, String) {
        fs::write(folder.join("aegis.toml"), settings).unwrap();
        let loaded = Config::load(folder, &Overrides::default(), &Environment::new()).unwrap();
        let mut auth = loaded.config.auth;
        let mistake = read_auth(&mut auth).err().unwrap_or_default();
        (auth, mistake.replace(&folder.display().to_string(), "APP"))
    }

    #[test]
    fn what_tokens_are_signed_with_is_read_when_tokens_are_asked_for_and_shown_nowhere() {
        let app = tempfile::tempdir().unwrap();
        let secret = "hush, thirty-two bytes at least!!";
        fs::write(app.path().join("key"), format!("{secret}\n")).unwrap();
        let (auth, mistake) = read_key(app.path(), "[auth]\nsecret-file = \"key\"\n");
        assert_eq!(mistake, "");
        assert_eq!(auth.key, Some(AuthKey::Shared(Secret::new(secret.as_bytes().to_vec()))));
        assert!(!format!("{auth:?}").contains("hush"), "{auth:?}");
        let (auth, mistake) = read_key(app.path(), "[auth]\nsecret-file = \"key\"\nenabled = false\n");
        assert_eq!((auth.key, mistake.as_str()), (None, ""));
    }

    #[test]
    fn one_newline_at_the_end_of_a_file_does_not_belong_to_the_secret() {
        let app = tempfile::tempdir().unwrap();
        for (written, expected) in [
            ("the secret of host and issuer, hush", "the secret of host and issuer, hush"),
            ("the secret of host and issuer, hush\n", "the secret of host and issuer, hush"),
            ("the secret of host and issuer, hush\r\n", "the secret of host and issuer, hush"),
            ("the secret of host and issuer, hush\n\n", "the secret of host and issuer, hush\n"),
            (" the secret of host and issuer, hush ", " the secret of host and issuer, hush "),
        ] {
            fs::write(app.path().join("key"), written).unwrap();
            let (auth, mistake) = read_key(app.path(), "[auth]\nsecret-file = \"key\"\n");
            assert_eq!(mistake, "");
            assert_eq!(
                auth.key,
                Some(AuthKey::Shared(Secret::new(expected.as_bytes().to_vec()))),
                "{written:?}"
            );
            let loaded = Config::load(app.path(), &Overrides::default(), &Environment::new()).unwrap();
            let mut reload = loaded.config.reload;
            reload.webhook_secret_file = Some(app.path().join("key"));
            read(&mut reload).unwrap();
            assert_eq!(reload.webhook_secret.unwrap().reveal(), expected.as_bytes());
        }
    }

    #[test]
    fn what_is_wrong_with_keys_of_tokens_is_told_without_them() {
        let app = tempfile::tempdir().unwrap();
        fs::write(app.path().join("short"), "hush").unwrap();
        fs::write(app.path().join("text"), "hush").unwrap();
        fs::write(app.path().join("large"), vec![b' '; KEYS_FILE_BYTES_MAX + 1]).unwrap();
        let told = [
            "secret-file = \"none here\"",
            "secret-file = \".\"",
            "secret-file = \"short\"",
            "keys-file = \"text\"",
            "keys-file = \"large\"",
            "enabled = false\nkeys-file = \"text\"",
        ]
        .map(|settings| read_key(app.path(), &format!("[auth]\n{settings}\n")).1);
        insta::assert_snapshot!(told.join("\n"));
    }
}
