//! What web pages make browsers ask. A listener on a loopback address lets in whoever is on this machine, and so is every
//! browser that somebody has open there: it sends what any page tells it to, also where the page may not read the answer.
//! Over a Unix socket no browser asks.

use std::net::IpAddr;

use http::{HeaderValue, header, request::Parts, uri::Authority};

/// Says which page a request comes from, as far as browsers tell (Fetch Metadata).
const SEC_FETCH_SITE: &str = "sec-fetch-site";
/// Values of it where no other page is behind the request.
const NO_OTHER_SITE: [&str; 2] = ["none", "same-origin"];

/// What shows that a page may be behind a request that came to this `address` of the host, and what is expected instead.
/// Where programs ask, nothing does.
pub(crate) fn sign_of_page(parts: &Parts, address: IpAddr) -> Option<String> {
    let headers = &parts.headers;
    if let Some(origin) = headers.get(header::ORIGIN) {
        return Some(format!("Origin: found {origin:?}, expected no such field on the admin listener"));
    }
    let crosses = |site: &&HeaderValue| !NO_OTHER_SITE.iter().any(|known| *site == known);
    if let Some(site) = headers.get_all(SEC_FETCH_SITE).iter().find(crosses) {
        let [none, same] = NO_OTHER_SITE;
        return Some(format!(
            "Sec-Fetch-Site: found {site:?}, expected {none} or {same} on the admin listener"
        ));
    }
    // A name of a stranger's can be made to lead here, and then its page may read the answers. Browsers tell the name.
    let authority = parts.uri.authority().map(|authority| authority.as_str().as_bytes());
    let mut named =
        authority.into_iter().chain(headers.get_all(header::HOST).iter().map(HeaderValue::as_bytes));
    let stranger = named.find(|host| !is_ours(host, address))?;
    let found = String::from_utf8_lossy(stranger);
    Some(format!(
        "Host: found {found:?}, expected localhost, a loopback address or {address} on the admin listener"
    ))
}

/// Whether a host, with or without a port, is this one by a name that nobody can have given to it.
fn is_ours(host: &[u8], address: IpAddr) -> bool {
    let Ok(authority) = Authority::try_from(host) else { return false };
    let host = authority.host();
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    let named = bare.parse().ok().map(|named: IpAddr| named.to_canonical());
    host.eq_ignore_ascii_case("localhost")
        || named.is_some_and(|named| named.is_loopback() || named == address.to_canonical())
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn sign(target: &str, fields: &[(&str, &str)]) -> Option<String> {
        let mut request = Request::builder().uri(target);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        sign_of_page(&request.body(()).unwrap().into_parts().0, "192.0.2.7".parse().unwrap())
    }

    #[test]
    fn what_programs_ask_shows_no_page() {
        for host in [
            "localhost",
            "LocalHost:9090",
            "127.0.0.1:9090",
            "127.9.9.9",
            "[::1]:9090",
            "[::ffff:127.0.0.1]",
            "192.0.2.7:9090",
        ] {
            assert_eq!(sign("/metrics", &[("host", host)]), None);
            assert_eq!(sign(&format!("http://{host}/metrics"), &[]), None, "over HTTP/2");
        }
        assert_eq!(sign("/metrics", &[]), None, "over HTTP/1.0");
        for site in NO_OTHER_SITE {
            assert_eq!(sign("/metrics", &[("host", "localhost"), ("sec-fetch-site", site)]), None);
        }
    }

    #[test]
    fn what_a_page_has_asked_is_told() {
        let mut told = Vec::new();
        for host in ["evil.example", "localhost.evil.example", "192.0.2.8", "0.0.0.0:9090", "", "[::2]"] {
            told.push(sign("/metrics", &[("host", host)]).expect(host));
        }
        told.push(sign("http://evil.example/metrics", &[]).unwrap());
        told.push(sign("http://evil.example/metrics", &[("host", "localhost")]).unwrap());
        told.push(sign("/metrics", &[("host", "localhost"), ("host", "evil.example")]).unwrap());
        for origin in ["https://evil.example", "null", "http://localhost:9090"] {
            told.push(sign("/metrics", &[("host", "localhost"), ("origin", origin)]).unwrap());
        }
        for site in ["cross-site", "same-site", "None"] {
            told.push(sign("/metrics", &[("host", "localhost"), ("sec-fetch-site", site)]).unwrap());
        }
        insta::assert_snapshot!(told.join("\n"), @r#"
        Host: found "evil.example", expected localhost, a loopback address or 192.0.2.7 on the admin listener
        Host: found "localhost.evil.example", expected localhost, a loopback address or 192.0.2.7 on the admin listener
        Host: found "192.0.2.8", expected localhost, a loopback address or 192.0.2.7 on the admin listener
        Host: found "0.0.0.0:9090", expected localhost, a loopback address or 192.0.2.7 on the admin listener
        Host: found "", expected localhost, a loopback address or 192.0.2.7 on the admin listener
        Host: found "[::2]", expected localhost, a loopback address or 192.0.2.7 on the admin listener
        Host: found "evil.example", expected localhost, a loopback address or 192.0.2.7 on the admin listener
        Host: found "evil.example", expected localhost, a loopback address or 192.0.2.7 on the admin listener
        Host: found "evil.example", expected localhost, a loopback address or 192.0.2.7 on the admin listener
        Origin: found "https://evil.example", expected no such field on the admin listener
        Origin: found "null", expected no such field on the admin listener
        Origin: found "http://localhost:9090", expected no such field on the admin listener
        Sec-Fetch-Site: found "cross-site", expected none or same-origin on the admin listener
        Sec-Fetch-Site: found "same-site", expected none or same-origin on the admin listener
        Sec-Fetch-Site: found "None", expected none or same-origin on the admin listener
        "#);
    }
}
