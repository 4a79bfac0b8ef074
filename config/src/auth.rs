//! `[auth]`: how clients prove who they are. Here is where the key is and what tokens must say; whoever makes a generation
//! reads the key, and workers look at tokens.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use crate::settings::Secret;

/// How clients prove who they are: with tokens (RFC 7519) that somebody else has signed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Auth {
    /// Whether every request to the API needs a token.
    pub enabled: bool,
    /// File with the secret that tokens are signed with (HS256), absolute.
    pub secret_file: Option<PathBuf>,
    /// File with the public keys of whoever signs tokens (PEM or a JWK Set), absolute.
    pub keys_file: Option<PathBuf>,
    /// What tokens must name as their issuer.
    pub issuer: Option<String>,
    /// Whom tokens must be meant for.
    pub audience: Option<String>,
    /// How far the clocks of host and issuer may be apart.
    pub leeway: Duration,
    /// The claim that holds the roles of the caller.
    pub roles_claim: String,
    /// What is in the file. Put in by whoever makes a generation: only workers need it.
    #[serde(default)]
    pub key: Option<AuthKey>,
}

/// What tokens are signed with. Which algorithms are acceptable follows from it, and never from a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AuthKey {
    /// A secret that host and issuer share.
    Shared(Secret),
    /// Public keys, as they are in the file. Kept like a secret, so that no view or log shows them by accident.
    Public(Secret),
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            enabled: false,
            secret_file: None,
            keys_file: None,
            issuer: None,
            audience: None,
            // Clocks that are kept by NTP differ by less; the issuer's queue may take the rest.
            leeway: Duration::from_secs(30),
            roles_claim: "roles".to_owned(),
            key: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::{
        ConfigErrors, Environment, Loaded, Overrides, raw,
        resolve::{Inputs, resolve},
    };

    fn read(file: &str, variables: &[(&str, &str)]) -> Result<Loaded, ConfigErrors> {
        let environment: Environment =
            variables.iter().map(|(name, value)| ((*name).to_owned(), value.into())).collect();
        let (overrides, file) = (Overrides::default(), Some(raw::parse(file).unwrap()));
        let (app_dir, mistakes) = (Path::new("/app"), Vec::new());
        resolve(Inputs {
            app_dir,
            overrides: &overrides,
            environment: &environment,
            file,
            cores: 4,
            mistakes,
            located: Path::to_owned,
        })
    }

    fn mistakes(file: &str, variables: &[(&str, &str)]) -> String {
        read(file, variables).map_or_else(|errors| errors.to_string(), |_| "no mistakes".to_owned())
    }

    #[test]
    fn whoever_has_a_key_asks_unless_told_otherwise() {
        let auth = |file: &str| read(file, &[]).unwrap().config.auth;
        assert!(!auth("").enabled);
        let on = auth("[auth]\nkeys-file = \"keys.pem\"\naudience = \"shop\"\n");
        assert!(on.enabled && on.keys_file.as_deref() == Some(Path::new("/app/keys.pem")));
        assert_eq!((on.audience.as_deref(), on.roles_claim.as_str()), (Some("shop"), "roles"));
        assert!(auth("[auth]\nsecret_file = \"/etc/secret\"\n").enabled);
        assert!(!auth("[auth]\nsecret_file = \"/etc/secret\"\nenabled = false\n").enabled);
    }

    #[test]
    fn the_variable_of_the_original_asks_too_and_cannot_do_without_a_key() {
        let file = "[auth]\nsecret_file = \"s\"\n";
        assert!(read(file, &[("AUTH_ENABLED", "true")]).unwrap().config.auth.enabled);
        assert!(!read(file, &[("AUTH_ENABLED", "FALSE")]).unwrap().config.auth.enabled);
        let both = [("AUTH_ENABLED", "false"), ("AEGIS_AUTH_ENABLED", "true")];
        assert!(read(file, &both).unwrap().config.auth.enabled);
        insta::assert_snapshot!(mistakes("", &[("AUTH_ENABLED", "true")]));
        insta::assert_snapshot!(mistakes("", &[("AUTH_ENABLED", "perhaps")]));
    }

    #[test]
    fn what_would_let_anybody_in_by_accident_is_a_mistake() {
        let told = [
            mistakes("[auth]\nenabled = true\n", &[]),
            mistakes("[auth]\nissuer = \"https://id\"\naudience = \"shop\"\n", &[]),
            mistakes("[auth]\nsecret-file = \"a\"\nkeys-file = \"b\"\n", &[]),
            mistakes("admin_on_public = true\n[auth]\nsecret-file = \"a\"\n", &[]),
            mistakes("[auth]\nsecret-file = \"a\"\nroles-claim = \"\"\nleeway = \"1h\"\nissuer = 7\n", &[]),
            mistakes("[auth]\nkey-file = \"a\"\n", &[]),
        ];
        insta::assert_snapshot!(told.join("\n"));
        assert_eq!(
            mistakes("admin_on_public = true\n[auth]\nsecret-file = \"a\"\nenabled = false\n", &[]),
            "no mistakes"
        );
    }

    #[test]
    fn clients_read_what_tokens_must_say_and_not_where_keys_are() {
        let file = "[auth]\nkeys-file = \"keys.pem\"\nissuer = \"https://id\"\n";
        let config = read(file, &[]).unwrap().config;
        let shown = serde_json::to_string(&config.public_view()).unwrap();
        assert!(shown.contains("https://id") && !shown.contains("keys.pem"), "{shown}");
    }
}
