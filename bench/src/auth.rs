//! What it costs to ask who calls: the same read without and with a token that is verified.

use std::fs;

use aegis_harness::{App, Client, Issuer, Start};
use data_encoding::BASE64URL_NOPAD;
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use serde_json::{Value, json};

use crate::{
    Options, median,
    rows::{Row, clean, rate, row},
    subject, told,
    wrk::{self, Load},
};

/// When the tokens end, seconds since 1970: later than any measurement.
const EXPIRY_S: u64 = 4_000_000_000;
/// Connections that read at a time.
const CONNECTIONS: usize = 64;

/// A file with keys, the key of `[auth]` that names it, and the value of `Authorization` that it is for.
struct Guard {
    algorithm: &'static str,
    key: &'static str,
    file: Vec<u8>,
    bearer: String,
}

fn claims() -> Value {
    json!({
        "iss": "https://id.example.com/", "aud": "shop", "sub": "ada", "name": "Ada Lovelace", "exp": EXPIRY_S,
        "iat": 1_700_000_000, "roles": ["reader", "editor"],
    })
}

fn hs256() -> Guard {
    let issuer = Issuer::new("bench");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("secret");
    issuer.write_secret(&path);
    let file = fs::read(&path).expect("read the secret");
    Guard { algorithm: "HS256", key: "secret-file", file, bearer: issuer.sign(&claims()) }
}

fn es256() -> Guard {
    let (random, curve) = (SystemRandom::new(), &ECDSA_P256_SHA256_FIXED_SIGNING);
    let document = EcdsaKeyPair::generate_pkcs8(curve, &random).expect("a key");
    let pair = EcdsaKeyPair::from_pkcs8(curve, document.as_ref(), &random).expect("a key");
    let text = |bytes: &[u8]| BASE64URL_NOPAD.encode(bytes);
    let part = |value: Value| text(value.to_string().as_bytes());
    let message = format!("{}.{}", part(json!({"alg": "ES256", "typ": "JWT"})), part(claims()));
    let signature = pair.sign(&random, message.as_bytes()).expect("a signature");
    // The first byte says that both coordinates follow.
    let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
    let set = json!({"keys": [{"kty": "EC", "crv": "P-256", "x": text(x), "y": text(y)}]});
    let bearer = format!("Bearer {message}.{}", text(signature.as_ref()));
    Guard { algorithm: "ES256", key: "keys-file", file: set.to_string().into_bytes(), bearer }
}

/// Measures reads of one document with tokens beside those without.
pub(crate) fn all(options: &Options) -> Vec<Row> {
    [hs256(), es256()].iter().map(|guard| beside_open(options, guard)).collect()
}

fn beside_open(options: &Options, guard: &Guard) -> Row {
    let Guard { algorithm, key, file, bearer } = guard;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("key");
    fs::write(&path, file).expect("write a key");
    let settings = format!("[auth]\n{key} = \"{}\"", path.display());
    let guarded = Start::app(App::todo().settings(&settings)).workers(2).start();
    let client: Client = guarded.client().with("authorization", bearer);
    assert_eq!(client.post("todo", &subject::document("bench")).status, 201);
    assert_eq!(guarded.client().get("todo/bench").status, 401);
    let (open, _) = subject::start("");
    let (mut ours, mut beside, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=options.rounds {
        told(&format!("GET by id with a token ({algorithm}), round {round} …"));
        let ask =
            |address, load: &Load<'_>| clean(wrk::run(address, CONNECTIONS, options.duration(), load)).rate;
        let with = ask(guarded.address, &Load::GetAs(subject::PATH, bearer));
        let without = ask(open.address, &Load::Get(subject::PATH));
        ratios.push(with / without);
        ours.push(with);
        beside.push(without);
    }
    row(
        &format!("auth: get by id, {algorithm} / no auth"),
        rate(median(ours)),
        rate(median(beside)),
        format!("{:.2}", median(ratios)),
        "–",
        true,
    )
}
