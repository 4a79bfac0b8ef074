//! Variables of the original host that still mean what they meant, and those whose feature is not here yet.

use crate::{
    environment::{Environment, get as variable},
    flags::word,
    found::Found,
    kind::Refusal,
};

/// Port to listen on, as `listen = "127.0.0.1:<PORT>"`.
pub const PORT: &str = "PORT";
/// Base path of the API, as `api_root`.
pub const API_ROOT: &str = "API_ROOT";
/// `true`: one worker per core, `false`: one worker; as `workers.count`.
pub const CLUSTER_ENABLED: &str = "CLUSTER_ENABLED";
/// `Memory` or `File`, in any case, with or without `DataSource` in front; as `datasource`.
pub const DATASOURCE_ADAPTER: &str = "DATASOURCE_ADAPTER";

/// `true`: every request to the API needs a token, `false`: none does; as `auth.enabled`.
pub const AUTH_ENABLED: &str = "AUTH_ENABLED";

/// Variables of features that this version does not have, each with what it would have done.
pub const UNAVAILABLE: [(&str, &str); 7] = [
    ("SSL_PORT", "TLS is not available, connections are not encrypted"),
    ("SSL_ENABLED", "TLS is not available, connections are not encrypted"),
    ("DOMAIN", "certificates are not obtained for a domain"),
    ("MONGODB_URL", "MongoDB is not available as a datasource"),
    ("KAFKA_BROKERS", "Kafka is not available, events stay on this host"),
    ("KAFKA_GROUP_ID", "Kafka is not available, events stay on this host"),
    ("ENCRYPTION_PWD", "encryption of fields is not available, documents are stored as they are"),
];

/// What an alias says about a setting, in the words of that setting.
pub(crate) struct Alias {
    /// Its name.
    pub(crate) name: &'static str,
    /// The value, or why there is none.
    pub(crate) value: Result<Found, Refusal>,
    /// What the operator should know when the value is used.
    pub(crate) warning: Option<String>,
}

/// The alias of a setting, if it is set.
pub(crate) fn get(environment: &Environment, key: &str) -> Option<Alias> {
    let (name, translate, expected): (_, fn(&str) -> Option<String>, _) = match key {
        "listen" => (PORT, port, "a port from 0 to 65535"),
        "api_root" => (API_ROOT, |path| Some(path.to_owned()), "text"),
        "workers.count" => (CLUSTER_ENABLED, cluster, "true or false"),
        "datasource" => (DATASOURCE_ADAPTER, datasource, "Memory or File, the datasources of this version"),
        "auth.enabled" => (AUTH_ENABLED, switch, "true or false"),
        _ => return None,
    };
    let found = word(variable(environment, name)?.to_owned());
    let value = match found.text().and_then(translate) {
        Some(text) => Ok(Found::Word(text)),
        None => Err(Refusal { found: found.to_string(), expected: expected.to_owned() }),
    };
    let warning = match (name, &value) {
        (PORT, Ok(address)) => Some(format!(
            "{PORT}: listening on {address}, which other machines cannot reach; set AEGIS_LISTEN to name the address"
        )),
        _ => None,
    };
    Some(Alias { name, value, warning })
}

/// One warning per variable that asks for something this version cannot do.
pub(crate) fn unavailable_features(environment: &Environment) -> Vec<String> {
    let asked = UNAVAILABLE.iter().filter(|(name, _)| variable(environment, name).is_some_and(is_truthy));
    asked.map(|(name, consequence)| format!("{name} is set, but {consequence}")).collect()
}

fn is_truthy(value: &std::ffi::OsStr) -> bool {
    let value = value.to_string_lossy().trim().to_ascii_lowercase();
    !matches!(value.as_str(), "" | "false" | "0" | "no" | "off")
}

fn port(text: &str) -> Option<String> {
    text.parse::<u16>().ok().map(|port| format!("127.0.0.1:{port}"))
}

fn cluster(text: &str) -> Option<String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Some("auto".to_owned()),
        "false" | "0" | "no" | "off" => Some("1".to_owned()),
        _ => None,
    }
}

fn switch(text: &str) -> Option<String> {
    cluster(text).map(|count| (count == "auto").to_string())
}

fn datasource(text: &str) -> Option<String> {
    let name = text.to_ascii_lowercase();
    let name = name.strip_prefix("datasource").unwrap_or(&name);
    matches!(name, "memory" | "file").then(|| name.to_owned())
}
