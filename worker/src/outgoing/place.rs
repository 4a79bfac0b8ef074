//! What an address means: where it leads, and what is asked there.

use std::net::IpAddr;

use aegis_domain::outgoing::{Host, Target};
use aegis_wasm::OutgoingError;
use http::{HeaderValue, Uri};
use url::Url;

/// Longest address, bytes.
const URL_BYTES_MAX: usize = 8 * 1024;

/// An address as it is understood once, for the decision and for the request alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    url: Url,
    pub(super) target: Target,
}

impl Place {
    pub(super) fn parse(text: &str) -> Result<Self, OutgoingError> {
        if text.len() > URL_BYTES_MAX {
            let message =
                format!("found an address of {} bytes, expected at most {URL_BYTES_MAX}", text.len());
            return Err(OutgoingError::Invalid(message));
        }
        let url = Url::parse(text).map_err(|error| {
            OutgoingError::Invalid(format!("found no address ({error}), expected an absolute one"))
        })?;
        Self::of(url)
    }

    fn of(mut url: Url) -> Result<Self, OutgoingError> {
        let invalid = |message: &str| OutgoingError::Invalid(message.to_owned());
        let is_secure = match url.scheme() {
            "https" => true,
            "http" => false,
            _ => return Err(invalid("found another scheme, expected http: or https:")),
        };
        // Whatever stands in front of an @ is there to be taken for the host.
        if !url.username().is_empty() || url.password().is_some() {
            let message =
                "found a user in the address, expected a header field with what authorizes the request";
            return Err(OutgoingError::Denied(message.to_owned()));
        }
        let host = match url.host() {
            Some(url::Host::Domain(name)) => Host::Name(name.trim_end_matches('.').to_ascii_lowercase()),
            Some(url::Host::Ipv4(address)) => Host::Address(address.into()),
            Some(url::Host::Ipv6(address)) => Host::Address(IpAddr::V6(address).to_canonical()),
            None => return Err(invalid("found an address without a host")),
        };
        let port = url.port_or_known_default().filter(|port| *port > 0);
        let port = port.ok_or_else(|| invalid("found port 0, expected another"))?;
        url.set_fragment(None);
        Ok(Self { url, target: Target { host, port, is_secure } })
    }

    /// Where a redirect leads to.
    pub(super) fn join(&self, location: &str) -> Result<Self, OutgoingError> {
        let bad = || OutgoingError::Broken(format!("{} redirects to no address", self.target));
        if location.len() > URL_BYTES_MAX {
            return Err(bad());
        }
        let next = Self::of(self.url.join(location).map_err(|_| bad())?)?;
        if self.target.is_secure && !next.target.is_secure {
            let message = format!("{} redirects to {}, which is not secure", self.target, next.target);
            return Err(OutgoingError::Denied(message));
        }
        Ok(next)
    }

    /// As the first line of a request has it.
    pub(super) fn path_and_query(&self) -> Result<Uri, OutgoingError> {
        let (path, query) = (self.url.path(), self.url.query());
        let whole = query.map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
        whole.parse().map_err(|_| OutgoingError::Invalid("found a path that HTTP does not know".to_owned()))
    }

    /// The value of `Host`.
    pub(super) fn authority(&self) -> Result<HeaderValue, OutgoingError> {
        let whole = self.target.to_string();
        let authority = whole.split_once("//").map_or("", |(_, authority)| authority);
        authority
            .parse()
            .map_err(|_| OutgoingError::Invalid("found a host that HTTP does not know".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> String {
        match Place::parse(text) {
            Ok(place) => {
                let (uri, host) = (place.path_and_query().unwrap(), place.authority().unwrap());
                format!("{} {uri} {}", place.target, host.to_str().unwrap())
            }
            Err(error) => format!("{error}"),
        }
    }

    #[test]
    fn what_is_decided_about_is_what_is_asked() {
        for (text, meant) in [
            ("https://API.example.com/a?b=c#d", "https://api.example.com /a?b=c api.example.com"),
            ("http://a.example:8080", "http://a.example:8080 / a.example:8080"),
            ("http://a.example.:80/", "http://a.example / a.example"),
            ("http://[::ffff:127.0.0.1]:9/", "http://127.0.0.1:9 / 127.0.0.1:9"),
            ("http://[::1]/", "http://[::1] / [::1]"),
            ("http://2130706433/", "http://127.0.0.1 / 127.0.0.1"),
            ("http://0x7f.1/", "http://127.0.0.1 / 127.0.0.1"),
            ("http://127%2e0.0.1/", "http://127.0.0.1 / 127.0.0.1"),
            ("http://good.example\\@evil.example/", "http://good.example /@evil.example/ good.example"),
            ("http://evil.example#@good.example/", "http://evil.example / evil.example"),
            ("http://ｅvil.example/", "http://evil.example / evil.example"),
        ] {
            assert_eq!(told(text), meant, "{text}");
        }
    }

    #[test]
    fn what_is_no_address_or_pretends_to_be_another_is_refused() {
        let long = format!("http://a.example/{}", "a".repeat(URL_BYTES_MAX));
        let texts = [
            "a.example",
            "/path",
            "ftp://a.example",
            "file:///etc/passwd",
            "http://",
            "http://a.example:0",
            "http://a.example:65536",
            "http://good.example@evil.example/",
            "http://u:p@a.example",
            "http://[::1",
            &long,
        ];
        insta::assert_snapshot!(texts.map(told).join("\n"), @"
        found no address (relative URL without a base), expected an absolute one
        found no address (relative URL without a base), expected an absolute one
        found another scheme, expected http: or https:
        found another scheme, expected http: or https:
        found no address (empty host), expected an absolute one
        found port 0, expected another
        found no address (invalid port number), expected an absolute one
        found a user in the address, expected a header field with what authorizes the request
        found a user in the address, expected a header field with what authorizes the request
        found no address (invalid IPv6 address), expected an absolute one
        found an address of 8209 bytes, expected at most 8192
        ");
    }

    #[test]
    fn a_redirect_is_relative_to_where_it_was_said_and_never_less_secure() {
        let place = Place::parse("https://a.example/b/c?d").unwrap();
        let joined = |location: &str| place.join(location).map(|next| next.url.to_string());
        assert_eq!(joined("e").unwrap(), "https://a.example/b/e");
        assert_eq!(joined("/e?f").unwrap(), "https://a.example/e?f");
        assert_eq!(joined("//b.example").unwrap(), "https://b.example/");
        insta::assert_snapshot!(joined("http://a.example/").unwrap_err(), @"https://a.example redirects to http://a.example, which is not secure");
        insta::assert_snapshot!(joined("https://a@b.example/").unwrap_err(), @"found a user in the address, expected a header field with what authorizes the request");
        insta::assert_snapshot!(joined("http://[").unwrap_err(), @"https://a.example redirects to no address");
    }
}
