//! `[modules.NAME] grants`: capabilities that are lists of texts. What the texts mean is for those who grant by them.

use toml::Value;

use crate::{found::Found, settings::ModuleGrants};

/// What can be granted.
pub(crate) const CAPABILITIES: &str = "models, events, http, secrets or \"secrets.reveal\"";
/// What each of the capabilities here looks like.
pub(crate) const EXPECTED: &str = "a list of texts";

/// Reads what is granted, or says what was found instead; nothing when the capability is none of those here.
pub(crate) fn read(capability: &str, value: &Value, grants: &mut ModuleGrants) -> Option<Result<(), String>> {
    let read = match capability {
        "http" => texts(value).map(|texts| grants.http = texts),
        "secrets" => texts(value).map(|texts| grants.secrets = texts.into_iter().collect()),
        "secrets.reveal" => texts(value).map(|texts| grants.reveal = texts.into_iter().collect()),
        _ => return None,
    };
    Some(read)
}

fn texts(value: &Value) -> Result<Vec<String>, String> {
    let refuse = |found: &Value| Found::Typed(found.clone()).to_string();
    let Value::Array(items) = value else { return Err(refuse(value)) };
    items.iter().map(|item| item.as_str().map(str::to_owned).ok_or_else(|| refuse(item))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_secrets_are_lists_of_texts() {
        let mut grants = ModuleGrants::default();
        let list = |texts: &[&str]| Value::from(texts.to_vec());
        for (capability, texts) in
            [("http", ["b", "a"]), ("secrets", ["stripe", "mail"]), ("secrets.reveal", ["stripe", "stripe"])]
        {
            assert_eq!(read(capability, &list(&texts), &mut grants), Some(Ok(())));
        }
        assert_eq!(grants.http, ["b", "a"]);
        assert_eq!(grants.secrets, ["mail", "stripe"].map(str::to_owned).into());
        assert_eq!(grants.reveal, ["stripe".to_owned()].into());
        assert_eq!(read("models", &list(&["a"]), &mut grants), None);
        let mixed = Value::Array(vec![Value::from("a"), Value::from(7)]);
        assert_eq!(read("http", &mixed, &mut grants), Some(Err("7".to_owned())));
    }
}
