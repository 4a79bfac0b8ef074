//! Whom the code of a module may reach over the network: what the operator grants, and whether a request and the address
//! that it would go to are within that.
//!
//! A name is granted, but it is an address that is connected to. So there are two questions: whether the *target* is
//! granted, asked before its name is looked up, and whether the *address* may be reached, asked about what the name
//! stands for at that moment and about the very address that is connected to. Addresses of this machine, of the
//! networks around it and of nobody in particular are reached only if a grant is that address, letter by letter: a name
//! is in the hands of whoever runs its DNS.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use serde::{Deserialize, Serialize};

/// Longest name of a host, bytes (RFC 1035, 2.3.4, as text).
const NAME_BYTES_MAX: usize = 253;
/// Longest part of a name between dots, bytes.
const LABEL_BYTES_MAX: usize = 63;
/// What a grant looks like.
const EXPECTED: &str =
    "a host such as \"api.example.com\", \"*.example.com:8443\", \"10.0.0.7:9000\" or \"[fd00::7]\"";

/// One entry of the list of hosts that code may send requests to. As text: `HOST` or `HOST:PORT`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostGrant {
    /// Which host.
    pub host: GrantedHost,
    /// The port; without one those that are usual, 80 for `http:` and 443 for `https:`.
    pub port: Option<u16>,
}

/// Hosts that are granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GrantedHost {
    /// The one of this name, lower case.
    Name(String),
    /// All whose names end in `.` and this, lower case; not the one of this name.
    Below(String),
    /// The one at this address. An IPv4 address never comes as an IPv6 one.
    Address(IpAddr),
}

/// Where a request is to go.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Target {
    /// Which host.
    pub host: Host,
    /// Which port.
    pub port: u16,
    /// Over TLS.
    pub is_secure: bool,
}

/// The host of a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Host {
    /// A name, lower case, without a dot at the end.
    Name(String),
    /// An address. An IPv4 address never comes as an IPv6 one.
    Address(IpAddr),
}

/// Why a request does not go out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// No grant is about its target.
    #[error("{0} is not granted to this module")]
    NotGranted(Target),
    /// The name is granted, and stands for an address that is not.
    #[error("{target} is at {address}, a {kind} address, which only a grant of this very address allows")]
    Special {
        /// Where it was to go.
        target: Target,
        /// Where it would have gone.
        address: IpAddr,
        /// What kind of address that is.
        kind: &'static str,
    },
}

/// Whether a grant is about the target of a request. Its name has not been looked up yet.
///
/// # Errors
/// When none is.
pub fn may_ask(grants: &[HostGrant], target: &Target) -> Result<(), Denial> {
    if grants.iter().any(|grant| grant.covers(target)) {
        Ok(())
    } else {
        Err(Denial::NotGranted(target.clone()))
    }
}

/// Whether a request to `target` may go to `address`, which its name stands for.
///
/// # Errors
/// When the target is not granted, or the address is none of the open internet and not granted as such.
pub fn may_reach(grants: &[HostGrant], target: &Target, address: IpAddr) -> Result<(), Denial> {
    may_ask(grants, target)?;
    let address = address.to_canonical();
    if is_granted_as_such(grants, target, address) {
        return Ok(());
    }
    match (&target.host, special(address)) {
        (Host::Address(meant), _) if *meant != address => Err(Denial::NotGranted(target.clone())),
        (_, Some(kind)) => Err(Denial::Special { target: target.clone(), address, kind }),
        (_, None) => Ok(()),
    }
}

/// Whether a grant is this very address, with the port of the target.
#[must_use]
pub fn is_granted_as_such(grants: &[HostGrant], target: &Target, address: IpAddr) -> bool {
    let at = Target { host: Host::Address(address.to_canonical()), ..target.clone() };
    let is_there = matches!(target.host, Host::Name(_)) || target.host == at.host;
    is_there && grants.iter().any(|grant| grant.covers(&at))
}

impl HostGrant {
    fn covers(&self, target: &Target) -> bool {
        let port = match self.port {
            Some(port) => target.port == port,
            None => target.port == usual_port(target.is_secure),
        };
        port && match (&self.host, &target.host) {
            (GrantedHost::Name(name), Host::Name(asked)) => name == asked,
            (GrantedHost::Below(domain), Host::Name(asked)) => asked
                .strip_suffix(domain.as_str())
                .and_then(|rest| rest.strip_suffix('.'))
                .is_some_and(|rest| !rest.is_empty()),
            (GrantedHost::Address(address), Host::Address(asked)) => address == asked,
            (GrantedHost::Name(_) | GrantedHost::Below(_), Host::Address(_))
            | (GrantedHost::Address(_), Host::Name(_)) => false,
        }
    }

    /// Reads a grant.
    ///
    /// # Errors
    /// What was found and what is expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let refuse = || format!("found {:?}, expected {EXPECTED}", shortened(text));
        let (host, port) = split_port(text).ok_or_else(refuse)?;
        let port = match port.map(str::parse::<u16>) {
            None => None,
            Some(Ok(port)) if port > 0 => Some(port),
            Some(_) => return Err(refuse()),
        };
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(Self { host: GrantedHost::Address(address.to_canonical()), port });
        }
        let (name, is_below) = match host.strip_prefix("*.") {
            Some(domain) => (domain, true),
            None => (host, false),
        };
        let name = name.to_ascii_lowercase();
        if name == "localhost" || name.ends_with(".localhost") {
            return Err(format!(
                "found {:?}, expected the address that is meant, such as \"127.0.0.1:9000\"",
                shortened(text)
            ));
        }
        if !is_name(&name) || is_below && !name.contains('.') {
            return Err(refuse());
        }
        Ok(Self { host: if is_below { GrantedHost::Below(name) } else { GrantedHost::Name(name) }, port })
    }
}

impl TryFrom<String> for HostGrant {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

impl From<HostGrant> for String {
    fn from(grant: HostGrant) -> Self {
        grant.to_string()
    }
}

impl fmt::Display for HostGrant {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            GrantedHost::Name(name) => formatter.write_str(name)?,
            GrantedHost::Below(domain) => write!(formatter, "*.{domain}")?,
            GrantedHost::Address(IpAddr::V4(address)) => write!(formatter, "{address}")?,
            GrantedHost::Address(IpAddr::V6(address)) => write!(formatter, "[{address}]")?,
        }
        self.port.map_or(Ok(()), |port| write!(formatter, ":{port}"))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(if self.is_secure { "https://" } else { "http://" })?;
        match &self.host {
            Host::Name(name) => formatter.write_str(name)?,
            Host::Address(IpAddr::V4(address)) => write!(formatter, "{address}")?,
            Host::Address(IpAddr::V6(address)) => write!(formatter, "[{address}]")?,
        }
        if self.port == usual_port(self.is_secure) { Ok(()) } else { write!(formatter, ":{}", self.port) }
    }
}

fn usual_port(is_secure: bool) -> u16 {
    if is_secure { 443 } else { 80 }
}

/// The host without brackets, and what stands behind it.
fn split_port(text: &str) -> Option<(&str, Option<&str>)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (address, rest) = rest.split_once(']')?;
        address.parse::<Ipv6Addr>().ok()?;
        return if rest.is_empty() {
            Some((address, None))
        } else {
            Some((address, Some(rest.strip_prefix(':')?)))
        };
    }
    match text.split_once(':') {
        None => Some((text, None)),
        Some((host, port)) => Some((host, Some(port))),
    }
}

/// Whether a text, lower case, is a name and nothing that some resolver takes for an address, as `127.1` or `0x7f.1`.
fn is_name(name: &str) -> bool {
    let is_label = |label: &str| {
        (1..=LABEL_BYTES_MAX).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte))
    };
    let last = name.rsplit('.').next().unwrap_or_default();
    name.len() <= NAME_BYTES_MAX
        && name.split('.').all(is_label)
        && !last.starts_with(|first: char| first.is_ascii_digit())
}

fn shortened(text: &str) -> String {
    text.chars().take(NAME_BYTES_MAX).collect()
}

/// What kind of address it is, if it is none of the open internet (the registries of RFC 6890, and where clouds tell
/// machines about themselves).
fn special(address: IpAddr) -> Option<&'static str> {
    match address.to_canonical() {
        IpAddr::V4(address) => special_v4(address),
        IpAddr::V6(address) => special_v6(address),
    }
}

fn special_v4(address: Ipv4Addr) -> Option<&'static str> {
    Some(match address.octets() {
        [127, ..] => "loopback",
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => "private",
        [169, 254, ..] => "link-local",
        [0, ..] => "local",
        [100, 64..=127, ..] => "shared",
        [192, 0, 0, _] | [192, 31 | 52 | 175, 196 | 193 | 48, _] | [192, 88, 99, _] => "reserved",
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => "documentation",
        [198, 18..=19, ..] => "benchmarking",
        [168, 63, 129, 16] => "metadata",
        [224..=239, ..] => "multicast",
        [240..=255, ..] => "reserved",
        _ => return None,
    })
}

fn special_v6(address: Ipv6Addr) -> Option<&'static str> {
    let embedded = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        special_v4(Ipv4Addr::new(a, b, c, d))
    };
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 1] => Some("loopback"),
        // Translated and tunnelled: what matters is where it comes out.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => embedded(high, low),
        [0x2002, high, low, ..] => embedded(high, low),
        [0x2001, 0..=0x1ff, ..] => Some("reserved"),
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => Some("documentation"),
        [0x2000..=0x3fff, ..] => None,
        [0xfc00..=0xfdff, ..] => Some("private"),
        [0xfe80..=0xfebf, ..] => Some("link-local"),
        [0xff00..=0xffff, ..] => Some("multicast"),
        _ => Some("reserved"),
    }
}

#[cfg(test)]
mod tests;
