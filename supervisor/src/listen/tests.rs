use std::{
    net::{TcpListener, TcpStream},
    os::unix::{fs::PermissionsExt, net::UnixStream},
};

use super::*;
use crate::test_config;

/// A configuration whose folder goes away with the test. The admin socket is always the last binding but those of the
/// service manager.
fn config(folder: &tempfile::TempDir, listen: &[&str], admin: Option<&str>) -> Config {
    let mut config = test_config(folder.path());
    config.listen = listen.iter().map(|address| address.parse().unwrap()).collect();
    config.listens_by_default = false;
    config.admin_listen = admin.map(|address| address.parse().unwrap());
    config
}

fn tcp(listeners: &Listeners, binding: &Binding) -> SocketAddr {
    match &listeners.announce(std::slice::from_ref(binding))[0].address {
        ListenerAddress::Tcp(address) => *address,
        ListenerAddress::Unix(path) => panic!("{}", path.display()),
    }
}

#[test]
fn a_reload_keeps_the_sockets_of_addresses_that_stay() {
    let folder = tempfile::tempdir().unwrap();
    let mut listeners = Listeners::default();
    let first = listeners.prepare(&config(&folder, &["127.0.0.1:0", "[::1]:0"], None)).unwrap();
    let second = listeners.prepare(&config(&folder, &["[::1]:0"], Some("127.0.0.1:0"))).unwrap();
    assert_eq!(second[0].listener, first[1].listener);
    assert_eq!(second[1], Binding { listener: first[0].listener, audience: Audience::Admin });
    assert_eq!(second[2], first[2], "the Unix socket for operators");

    let address = tcp(&listeners, &first[0]);
    let inherited = listeners.descriptors(&first).next().unwrap().try_clone_to_owned().unwrap();
    TcpStream::connect(address).unwrap();
    listeners.close_unused(&[&second[..1]]);
    assert!(TcpStream::connect(address).is_err(), "closed although a worker still holds it");
    drop(inherited);
    assert_eq!(listeners.announce(&first).len(), 1);
}

#[test]
fn a_host_that_stops_is_connected_to_as_long_as_a_worker_accepts() {
    let folder = tempfile::tempdir().unwrap();
    let mut listeners = Listeners::default();
    let config = config(&folder, &["127.0.0.1:0"], None);
    let bindings = listeners.prepare(&config).unwrap();
    let address = tcp(&listeners, &bindings[0]);
    let inherited = listeners.descriptors(&bindings).next().unwrap().try_clone_to_owned().unwrap();
    listeners.let_go();
    TcpStream::connect(address).expect("a worker takes its last connections");
    drop(inherited);
    assert_eq!(TcpStream::connect(address).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    assert!(!config.admin_socket.exists());
}

#[test]
fn two_requests_for_any_port_get_two_sockets() {
    let folder = tempfile::tempdir().unwrap();
    let mut listeners = Listeners::default();
    let bindings = listeners.prepare(&config(&folder, &["127.0.0.1:0", "127.0.0.1:0"], None)).unwrap();
    assert_ne!(tcp(&listeners, &bindings[0]), tcp(&listeners, &bindings[1]));
    assert_eq!(listeners.urls(&bindings, Audience::Public).len(), 2);
    assert!(listeners.urls(&bindings, Audience::Admin)[0].starts_with("unix:/"));
}

#[test]
fn all_addresses_that_cannot_be_bound_are_told_at_once_and_the_others_are_let_go() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut listeners = Listeners::default();
    let config = config(&folder, &[&address, "192.0.2.1:1", &free.to_string()], None);
    let failures = listeners.prepare(&config).unwrap_err();
    assert_eq!(failures.len(), 2);
    assert!(failures[0].is_in_use() && !failures[1].is_in_use());
    let expected = format!("cannot listen on {address}: Address already in use (os error 98)");
    assert_eq!(failures[0].to_string(), expected);
    assert!(TcpStream::connect(free).is_err());
    assert!(!config.admin_socket.exists());
}

#[test]
fn sockets_of_the_service_manager_match_by_address_or_fill_any_port_or_serve_besides() {
    let folder = tempfile::tempdir().unwrap();
    let activated = |name: &str, audience| {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let announced = ListenerAddress::Tcp(address);
        (address, Activated { address: announced, audience, socket: socket.into(), name: name.to_owned() })
    };
    let (named_address, named) = activated("x", Audience::Public);
    let (filling_address, filling) = activated("y", Audience::Public);
    let (extra_address, extra) = activated("admin", Audience::Admin);
    let mut listeners = Listeners::default();
    for socket in [named, filling, extra] {
        listeners.add_activated(socket);
    }
    let config = config(&folder, &["127.0.0.1:0", &named_address.to_string()], None);
    let bindings = listeners.prepare(&config).unwrap();
    assert_eq!(bindings.len(), 4);
    assert_eq!(tcp(&listeners, &bindings[0]), filling_address);
    assert_eq!(tcp(&listeners, &bindings[1]), named_address);
    assert_eq!(tcp(&listeners, &bindings[3]), extra_address);
    assert_eq!(bindings[3].audience, Audience::Admin);
    listeners.close_unused(&[]);
    assert_eq!(listeners.announce(&bindings).len(), 3, "what the service manager gave stays open");
    TcpStream::connect(named_address).unwrap();
}

#[test]
fn a_socket_of_the_service_manager_takes_the_place_of_where_nobody_said_to_listen() {
    let folder = tempfile::tempdir().unwrap();
    for (audience, by_default, count) in
        [(Audience::Public, true, 1), (Audience::Public, false, 2), (Audience::Admin, true, 1)]
    {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let given = socket.local_addr().unwrap();
        let mut listeners = Listeners::default();
        let (address, name) = (ListenerAddress::Tcp(given), "socket".to_owned());
        listeners.add_activated(Activated { address, audience, socket: socket.into(), name });
        // Any other address, as the default is.
        let free = TcpListener::bind("127.0.0.2:0").unwrap().local_addr().unwrap();
        let mut config = config(&folder, &[&free.to_string()], None);
        config.listens_by_default = by_default;
        let bindings = listeners.prepare(&config).unwrap();
        let urls = listeners.urls(&bindings, Audience::Public);
        assert_eq!(urls.len(), count, "{urls:?}");
        assert_eq!(urls.contains(&format!("http://{given}")), audience == Audience::Public, "{urls:?}");
    }
}

#[test]
fn a_socket_that_operators_are_promised_is_none_for_clients_whatever_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let given = socket.local_addr().unwrap();
    let mut listeners = Listeners::default();
    // Systemd names a socket after its unit when nobody else does.
    let (address, name) = (ListenerAddress::Tcp(given), "aegis-admin.socket".to_owned());
    listeners.add_activated(Activated { address, audience: Audience::Public, socket: socket.into(), name });
    let mut config = config(&folder, &["127.0.0.1:0"], Some(&given.to_string()));
    config.listens_by_default = true;
    let bindings = listeners.prepare(&config).unwrap();
    let clients = listeners.urls(&bindings, Audience::Public);
    assert!(clients.len() == 1 && clients != [format!("http://{given}")], "{clients:?}");
    assert!(listeners.urls(&bindings, Audience::Admin).contains(&format!("http://{given}")));
}

#[test]
fn a_wildcard_socket_of_the_service_manager_covers_the_addresses_of_its_port() {
    let folder = tempfile::tempdir().unwrap();
    for (wildcard, covered) in [("0.0.0.0", ["127.0.0.1", "127.0.0.2"]), ("[::]", ["[::1]", "127.0.0.1"])] {
        let socket = TcpListener::bind(format!("{wildcard}:0")).unwrap();
        let bound = socket.local_addr().unwrap();
        let address = ListenerAddress::Tcp(bound);
        let mut listeners = Listeners::default();
        let name = "public".to_owned();
        let audience = Audience::Public;
        listeners.add_activated(Activated { address, audience, socket: socket.into(), name });
        let listen = covered.map(|host| format!("{host}:{}", bound.port()));
        let config_of = |admin| config(&folder, &[&listen[0], &listen[1]], admin);
        let bindings = listeners.prepare(&config_of(None)).unwrap();
        assert_eq!(bindings.len(), 2, "one socket for both addresses and the one for operators");
        assert_eq!(tcp(&listeners, &bindings[0]), bound);
        assert_eq!(listeners.prepare(&config_of(None)).unwrap(), bindings, "and after a reload");

        let admin = format!("127.0.0.3:{}", bound.port());
        let failures = listeners.prepare(&config_of(Some(&admin))).unwrap_err();
        assert!(failures[0].is_in_use(), "operators are not served where everybody is");
    }
}

#[test]
fn a_wildcard_socket_of_our_own_covers_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut listeners = Listeners::default();
    let first = listeners.prepare(&config(&folder, &["0.0.0.0:0"], None)).unwrap();
    let narrowed = format!("127.0.0.1:{}", tcp(&listeners, &first[0]).port());
    let failures = listeners.prepare(&config(&folder, &[&narrowed], None)).unwrap_err();
    assert!(failures[0].is_in_use(), "the others would still get in");
}

#[test]
fn an_address_that_is_widened_or_narrowed_is_told_that_the_host_itself_has_its_port() {
    let folder = tempfile::tempdir().unwrap();
    for (before, after) in [("127.0.0.1", "0.0.0.0"), ("0.0.0.0", "127.0.0.1")] {
        let mut listeners = Listeners::default();
        let first = listeners.prepare(&config(&folder, &[&format!("{before}:0")], None)).unwrap();
        let port = tcp(&listeners, &first[0]).port();
        let failures = listeners.prepare(&config(&folder, &[&format!("{after}:{port}")], None)).unwrap_err();
        let expected = format!(
            "cannot listen on {after}:{port}: the host itself listens on {before}:{port}, and a reload cannot \
             exchange two addresses of one port; name another port, or stop the host and start it anew"
        );
        assert_eq!(failures[0].to_string(), expected);
    }
}

#[test]
fn both_families_can_have_the_same_port() {
    let folder = tempfile::tempdir().unwrap();
    let mut listeners = Listeners::default();
    let first = listeners.prepare(&config(&folder, &["127.0.0.1:0"], None)).unwrap();
    let port = tcp(&listeners, &first[0]).port();
    let both = config(&folder, &[&format!("127.0.0.1:{port}"), &format!("[::]:{port}")], None);
    assert_eq!(listeners.prepare(&both).unwrap().len(), 3);
}

#[test]
fn a_restored_socket_is_found_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut listeners = Listeners::default();
    let config = config(&folder, &["127.0.0.1:0"], None);
    let bindings = listeners.prepare(&config).unwrap();
    let mut restored = Listeners::default();
    for (record, descriptor) in listeners.records() {
        restored.restore(record, descriptor.try_clone_to_owned().unwrap());
    }
    assert_eq!(restored.prepare(&config).unwrap(), bindings);
}

#[test]
fn only_a_unix_socket_that_nobody_answers_on_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("run/control.sock");
    let first = bind_unix(&path, Occupant::Ask).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let error = bind_unix(&path, Occupant::Ask).unwrap_err().to_string();
    assert!(error.ends_with("another host answers there"), "{error}");

    drop(first);
    let second = bind_unix(&path, Occupant::Ask).unwrap();
    let third = bind_unix(&path, Occupant::Replace).unwrap();
    UnixStream::connect(&path).unwrap();
    drop((second, third));

    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "").unwrap();
    let error = bind_unix(&path, Occupant::Replace).unwrap_err().to_string();
    assert!(error.ends_with("something that is not a socket is there"), "{error}");
}
