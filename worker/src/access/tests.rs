mod known;

use aegis_config::Secret;
use data_encoding::{BASE64, BASE64URL_NOPAD};
use http::{HeaderMap, HeaderValue};
use ring::{
    hmac,
    rand::SystemRandom,
    rsa,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
    },
};
use serde_json::{Value, json};

use super::*;

const SECRET: &[u8] = b"a secret of more than 32 bytes, known to host and issuer";
const NOW_S: i64 = 1_700_000_000;

type Sign<'a> = &'a dyn Fn(&[u8]) -> Vec<u8>;

/// The RSA key of RFC 7515 appendix A.2.1, which everybody knows.
const RSA: [(&str, &str); 7] = [
    (
        "n",
        "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ",
    ),
    ("e", "AQAB"),
    (
        "d",
        "Eq5xpGnNCivDflJsRQBXHx1hdR1k6Ulwe2JZD50LpXyWPEAeP88vLNO97IjlA7_GQ5sLKMgvfTeXZx9SE-7YwVol2NXOoAJe46sui395IW_GO-pWJ1O0BkTGoVEn2bKVRUCgu-GjBVaYLU6f3l9kJfFNS3E0QbVdxzubSu3Mkqzjkn439X0M_V51gfpRLI9JYanrC4D4qAdGcopV_0ZHHzQlBjudU2QvXt4ehNYTCBr6XCLQUShb1juUO1ZdiYoFaFQT5Tw8bGUl_x_jTj3ccPDVZFD9pIuhLhBOneufuBiB4cS98l2SR_RQyGWSeWjnczT0QU91p1DhOVRuOopznQ",
    ),
    (
        "p",
        "4BzEEOtIpmVdVEZNCqS7baC4crd0pqnRH_5IB3jw3bcxGn6QLvnEtfdUdiYrqBdss1l58BQ3KhooKeQTa9AB0Hw_Py5PJdTJNPY8cQn7ouZ2KKDcmnPGBY5t7yLc1QlQ5xHdwW1VhvKn-nXqhJTBgIPgtldC-KDV5z-y2XDwGUc",
    ),
    (
        "q",
        "uQPEfgmVtjL0Uyyx88GZFF1fOunH3-7cepKmtH4pxhtCoHqpWmT8YAmZxaewHgHAjLYsp1ZSe7zFYHj7C6ul7TjeLQeZD_YwD66t62wDmpe_HlB-TnBA-njbglfIsRLtXlnDzQkv5dTltRJ11BKBBypeeF6689rjcJIDEz9RWdc",
    ),
    (
        "dp",
        "BwKfV3Akq5_MFZDFZCnW-wzl-CCo83WoZvnLQwCTeDv8uzluRSnm71I3QCLdhrqE2e9YkxvuxdBfpT_PI7Yz-FOKnu1R6HsJeDCjn12Sk3vmAktV2zb34MCdy7cpdTh_YVr7tss2u6vneTwrA86rZtu5Mbr1C1XsmvkxHQAdYo0",
    ),
    (
        "dq",
        "h_96-mK1R_7glhsum81dZxjTnYynPbZpHziZjeeHcXYsXaaMwkOlODsWa7I9xXDoRwbKgB719rrmI2oKr6N3Do9U0ajaHF-NKJnwgjMd2w9cjz3_-kyNlxAr2v4IKhGNpmM5iIgOS1VZnOZ68m6_pbLBSp3nssTdlqvd0tIiTHU",
    ),
];
const RSA_QI: &str = "IYd7DHOhrWvxkwPQsRM2tOgrjbcrfvtQJipd-DlcxyVuuM9sQLdgjVk2oy26F0EmpScGLq2MowX7fhd_QJQ3ydy5cY7YIBi87w93IKLEdfnbJtoOPLUW0ITrJReOgo1cq9SbsxYawBgfp_gh6A5603k2-ZQwVK0JKSHuLFkuQ3U";

fn rsa_part(name: &str) -> Vec<u8> {
    let text = RSA.iter().find(|(known, _)| *known == name).map_or(RSA_QI, |(_, text)| text);
    BASE64URL_NOPAD.decode(text.as_bytes()).unwrap()
}

fn rsa_pair() -> RsaKeyPair {
    RsaKeyPair::from_components(&rsa::KeyPairComponents {
        public_key: rsa::PublicKeyComponents { n: rsa_part("n"), e: rsa_part("e") },
        d: rsa_part("d"),
        p: rsa_part("p"),
        q: rsa_part("q"),
        dP: rsa_part("dp"),
        dQ: rsa_part("dq"),
        qInv: rsa_part("qi"),
    })
    .unwrap()
}

fn rs256(message: &[u8]) -> Vec<u8> {
    let pair = rsa_pair();
    let mut signature = vec![0; pair.public().modulus_len()];
    pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature).unwrap();
    signature
}

fn hs256(secret: &[u8]) -> impl Fn(&[u8]) -> Vec<u8> {
    move |message| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message).as_ref().to_vec()
}

fn ed25519() -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap()
}

fn shared() -> Keys {
    Keys::read(&AuthKey::Shared(Secret::new(SECRET.to_vec()))).unwrap()
}

fn public(text: &str) -> Result<Keys, String> {
    Keys::read(&AuthKey::Public(Secret::new(text.as_bytes().to_vec())))
}

fn terms() -> Terms {
    Terms { issuer: None, audience: None, leeway_s: 30, roles_claim: "roles".to_owned() }
}

fn claims(more: &Value) -> Value {
    let mut claims = json!({"sub": "ada", "exp": NOW_S + 60, "roles": ["reader", "editor"]});
    for (name, value) in more.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims
}

fn token(header: &Value, claims: &str, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
    let message = format!(
        "{}.{}",
        BASE64URL_NOPAD.encode(header.to_string().as_bytes()),
        BASE64URL_NOPAD.encode(claims.as_bytes())
    );
    let signature = sign(message.as_bytes());
    format!("{message}.{}", BASE64URL_NOPAD.encode(&signature))
}

fn of(claims: &Value) -> String {
    token(&json!({"alg": "HS256"}), &claims.to_string(), hs256(SECRET))
}

fn read(token: &str) -> Result<Principal, Mistake> {
    token::read(token, &shared(), &terms(), NOW_S)
}

/// How a key is written in PEM.
fn pem(der: &[u8]) -> String {
    format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", BASE64.encode(der))
}

fn tagged(tag: u8, contents: &[u8]) -> Vec<u8> {
    let length = contents.len();
    let mut der = vec![tag];
    match length {
        0..=0x7f => der.push(u8::try_from(length).unwrap()),
        0x80..=0xff => der.extend([0x81, u8::try_from(length).unwrap()]),
        _ => der.extend([&[0x82][..], &u16::try_from(length).unwrap().to_be_bytes()].concat()),
    }
    der.extend(contents);
    der
}

fn key_info(oid: &[u8], parameters: &[u8], key: &[u8]) -> Vec<u8> {
    let algorithm = tagged(0x30, &[tagged(6, oid), parameters.to_vec()].concat());
    tagged(0x30, &[algorithm, tagged(3, &[&[0], key].concat())].concat())
}

fn rsa_info() -> Vec<u8> {
    let numbers = [tagged(2, &[&[0], &rsa_part("n")[..]].concat()), tagged(2, &rsa_part("e"))].concat();
    key_info(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1], &[5, 0], &tagged(0x30, &numbers))
}

fn ed25519_info(key: &[u8]) -> Vec<u8> {
    key_info(&[0x2b, 0x65, 0x70], &[], key)
}

#[test]
fn a_token_names_its_subject_and_roles() {
    let principal = read(&of(&claims(&json!({"department": "sales"})))).unwrap();
    assert_eq!((principal.subject.as_str(), principal.roles.len()), ("ada", 2));
    assert!(principal.has_role("editor") && !principal.has_role("sales"));
    assert_eq!(principal.claims["department"], "sales");
    let scope = Terms { roles_claim: "scope".to_owned(), ..terms() };
    let scoped = of(&claims(&json!({"scope": "read:orders  write:orders"})));
    let principal = token::read(&scoped, &shared(), &scope, NOW_S).unwrap();
    assert_eq!(principal.roles, ["read:orders", "write:orders"]);
    for other in [json!({"roles": 7}), json!({"roles": {"a": 1}}), json!({"roles": [1, null]})] {
        assert!(read(&of(&claims(&other))).unwrap().roles.is_empty(), "{other}");
    }
}

#[test]
fn the_algorithm_is_that_of_the_key_and_never_that_of_the_token() {
    let claims = claims(&json!({})).to_string();
    let unsigned = |algorithm: &str| token(&json!({"alg": algorithm}), &claims, |_| Vec::new());
    for algorithm in ["none", "None", "HS256", "HS384", "RS256", ""] {
        assert_eq!(read(&unsigned(algorithm)), Err(Mistake::Signature), "{algorithm}");
    }
    // A public key is no secret: it must not be taken for one (RFC 8725 section 2.1).
    let file = pem(&rsa_info());
    let keys = public(&file).unwrap();
    let good = token(&json!({"alg": "RS256"}), &claims, rs256);
    assert_eq!(token::read(&good, &keys, &terms(), NOW_S).unwrap().subject, "ada");
    for secret in [file.as_bytes(), &rsa_info(), &rsa_part("n"), b""] {
        for algorithm in ["HS256", "RS256"] {
            let forged = token(&json!({"alg": algorithm}), &claims, hs256(secret));
            assert_eq!(token::read(&forged, &keys, &terms(), NOW_S), Err(Mistake::Signature), "{algorithm}");
        }
    }
    let stripped = good.rsplit_once('.').unwrap().0.to_owned() + ".";
    assert_eq!(token::read(&stripped, &keys, &terms(), NOW_S), Err(Mistake::Signature));
    assert_eq!(read(&good), Err(Mistake::Signature), "the same token at a host with a secret");
    // A key that the token brings along is nobody's key.
    let jwk =
        json!({"kty": "OKP", "crv": "Ed25519", "x": BASE64URL_NOPAD.encode(ed25519().public_key().as_ref())});
    let brought =
        token(&json!({"alg": "EdDSA", "jwk": jwk}), &claims, |text| ed25519().sign(text).as_ref().to_vec());
    assert_eq!(token::read(&brought, &keys, &terms(), NOW_S), Err(Mistake::Signature));
}

#[test]
fn every_kind_of_public_key_is_read_from_pem_and_from_a_key_set() {
    let random = SystemRandom::new();
    let curve = &ECDSA_P256_SHA256_FIXED_SIGNING;
    let document = EcdsaKeyPair::generate_pkcs8(curve, &random).unwrap();
    let p256 = EcdsaKeyPair::from_pkcs8(curve, document.as_ref(), &random).unwrap();
    let point = p256.public_key().as_ref();
    let p256_oid = tagged(6, &[0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7]);
    let file = [
        pem(&rsa_info()),
        pem(&key_info(&[0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1], &p256_oid, point)),
        pem(&ed25519_info(ed25519().public_key().as_ref())),
    ];
    let text = |bytes: &[u8]| BASE64URL_NOPAD.encode(bytes);
    let set = json!({"keys": [
        {"kty": "RSA", "kid": "r", "use": "sig", "alg": "RS256", "n": text(&rsa_part("n")), "e": "AQAB"},
        {"kty": "EC", "crv": "P-256", "kid": "e", "x": text(&point[1..33]), "y": text(&point[33..])},
        {"kty": "OKP", "crv": "Ed25519", "kid": "o", "x": text(ed25519().public_key().as_ref())},
        {"kty": "oct", "k": text(SECRET)},
        {"kty": "EC", "crv": "P-521", "x": "AA", "y": "AA"},
    ]});
    let claims = claims(&json!({})).to_string();
    let es256 = |message: &[u8]| p256.sign(&random, message).unwrap().as_ref().to_vec();
    let eddsa = |message: &[u8]| ed25519().sign(message).as_ref().to_vec();
    for keys in [public(&file.concat()).unwrap(), public(&set.to_string()).unwrap()] {
        let signers: [(&str, &str, Sign<'_>); 3] =
            [("RS256", "r", &rs256), ("ES256", "e", &es256), ("EdDSA", "o", &eddsa)];
        for (algorithm, id, sign) in signers {
            for header in [json!({"alg": algorithm}), json!({"alg": algorithm, "kid": id})] {
                let token = token(&header, &claims, sign);
                assert!(token::read(&token, &keys, &terms(), NOW_S).is_ok(), "{header}");
            }
        }
        let forged = token(&json!({"alg": "HS256"}), &claims, hs256(SECRET));
        assert!(
            token::read(&forged, &keys, &terms(), NOW_S).is_err(),
            "a secret has no place among public keys"
        );
    }
    let keys = public(&set.to_string()).unwrap();
    let other = token(&json!({"alg": "EdDSA", "kid": "r"}), &claims, eddsa);
    assert_eq!(token::read(&other, &keys, &terms(), NOW_S), Err(Mistake::Signature), "the key of another id");
}

#[test]
fn what_is_no_key_is_refused_by_what_it_is() {
    let small = key_info(
        &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1],
        &[5, 0],
        &tagged(0x30, &[tagged(2, &[0x7f; 128]), tagged(2, &[1, 0, 1])].concat()),
    );
    let cut = ed25519_info(&[1; 31]);
    let private = "-----BEGIN PRIVATE KEY-----\nhush\n-----END PRIVATE KEY-----\n";
    let told: Vec<String> = [
        String::new(),
        "{}".to_owned(),
        "{\"keys\":[{\"kty\":\"oct\",\"k\":\"hush\"}]}".to_owned(),
        "{\"keys\"".to_owned(),
        private.to_owned(),
        pem(&small),
        pem(&cut),
        "-----BEGIN PUBLIC KEY-----\nAAAA".to_owned(),
        pem(&ed25519_info(&[1; 32])).repeat(33),
    ]
    .iter()
    .map(|text| public(text).err().unwrap_or_else(|| panic!("{text}")))
    .collect();
    insta::assert_snapshot!(told.join("\n"));
    assert!(!told.join("\n").contains("hush"));
    assert!(Keys::read(&AuthKey::Shared(Secret::new(vec![1; 31]))).is_err());
}

#[test]
fn while_one_secret_follows_another_both_count() {
    let text = |bytes: &[u8]| BASE64URL_NOPAD.encode(bytes);
    let (old, new) = ([1; 32], [2; 40]);
    let set = json!({"keys": [
        {"kty": "oct", "kid": "old", "k": text(&old)},
        {"kty": "oct", "kid": "new", "alg": "HS256", "k": text(&new)},
        {"kty": "oct", "kid": "other", "alg": "HS512", "k": text(&[3; 64])},
        {"kty": "oct", "kid": "short", "k": text(&[4; 31])},
        {"kty": "OKP", "crv": "Ed25519", "kid": "public", "x": text(ed25519().public_key().as_ref())},
    ]});
    let keys = Keys::read(&AuthKey::Shared(Secret::new(set.to_string().into_bytes()))).unwrap();
    let claims = claims(&json!({})).to_string();
    let read = |header: Value, secret: &[u8]| {
        token::read(&token(&header, &claims, hs256(secret)), &keys, &terms(), NOW_S).map(|_| ())
    };
    for (id, secret) in [("old", &old[..]), ("new", &new)] {
        assert_eq!(read(json!({"alg": "HS256"}), secret), Ok(()));
        assert_eq!(read(json!({"alg": "HS256", "kid": id}), secret), Ok(()));
    }
    assert_eq!(read(json!({"alg": "HS256", "kid": "new"}), &old), Err(Mistake::Signature));
    for secret in [&[3; 64][..], &[4; 31], ed25519().public_key().as_ref(), set.to_string().as_bytes()] {
        assert_eq!(read(json!({"alg": "HS256"}), secret), Err(Mistake::Signature));
    }
    let signed = token(&json!({"alg": "EdDSA"}), &claims, |text| ed25519().sign(text).as_ref().to_vec());
    assert_eq!(
        token::read(&signed, &keys, &terms(), NOW_S),
        Err(Mistake::Signature),
        "no public key among secrets"
    );
    let told = ["{\"keys\":[]}", "{hush", "{\"keys\":[{\"kty\":\"oct\",\"k\":\"hush\"}]}"]
        .map(|text| Keys::read(&AuthKey::Shared(Secret::new(text.into()))).err().unwrap());
    insta::assert_snapshot!(told.join("\n"));
}

#[test]
fn a_token_is_valid_from_when_until_when_for_whom_and_from_whom_it_says() {
    let at = |more: Value| read(&of(&claims(&more))).map(|_| ());
    assert_eq!(at(json!({"exp": NOW_S - 29})), Ok(()), "clocks may differ");
    assert_eq!(at(json!({"exp": NOW_S - 30})), Err(Mistake::Expired));
    assert_eq!(at(json!({"exp": 0})), Err(Mistake::Expired));
    assert_eq!(at(json!({"exp": -1e300})), Err(Mistake::Expired));
    assert_eq!(at(json!({"exp": 1e300, "nbf": 1.5})), Ok(()));
    for other in [json!({"exp": null}), json!({"exp": "never"}), json!({"exp": [1]})] {
        assert_eq!(at(other.clone()), Err(Mistake::NoExpiry), "{other}");
    }
    assert_eq!(at(json!({"nbf": NOW_S + 30})), Ok(()));
    assert_eq!(at(json!({"nbf": NOW_S + 31})), Err(Mistake::NotYet));
    assert_eq!(at(json!({"nbf": "soon"})), Err(Mistake::Claims));
    for other in
        [json!({"sub": ""}), json!({"sub": null}), json!({"sub": 7}), json!({"sub": "x".repeat(257)})]
    {
        assert_eq!(at(other.clone()), Err(Mistake::Subject), "{other}");
    }
    assert_eq!(at(json!({"roles": vec!["r"; 257]})), Err(Mistake::Roles));
    let strict =
        Terms { issuer: Some("https://id".to_owned()), audience: Some("shop".to_owned()), ..terms() };
    let at = |more: Value| token::read(&of(&claims(&more)), &shared(), &strict, NOW_S).map(|_| ());
    assert_eq!(at(json!({"iss": "https://id", "aud": "shop"})), Ok(()));
    assert_eq!(at(json!({"iss": "https://id", "aud": ["other", "shop"]})), Ok(()));
    assert_eq!(at(json!({"aud": "shop"})), Err(Mistake::Issuer));
    assert_eq!(at(json!({"iss": "https://id/", "aud": "shop"})), Err(Mistake::Issuer));
    for aud in [json!(null), json!("shop2"), json!(["other"]), json!({"shop": 1}), json!([["shop"]])] {
        assert_eq!(at(json!({"iss": "https://id", "aud": aud.clone()})), Err(Mistake::Audience), "{aud}");
    }
}

#[test]
fn what_was_changed_after_it_was_signed_is_refused() {
    let good = of(&claims(&json!({})));
    assert!(read(&good).is_ok());
    for position in (0..good.len()).filter(|position| good.as_bytes()[*position] != b'.') {
        let mut changed = good.clone().into_bytes();
        changed[position] = if changed[position] == b'A' { b'B' } else { b'A' };
        assert!(read(std::str::from_utf8(&changed).unwrap()).is_err(), "{position}");
    }
    let wrong = token(&json!({"alg": "HS256"}), &claims(&json!({})).to_string(), hs256(b"another secret"));
    assert_eq!(read(&wrong), Err(Mistake::Signature));
}

#[test]
fn what_is_no_token_is_refused_before_anything_is_calculated() {
    for shape in ["", ".", "..", "...", "a", "a.b", "a.b.c", "e30.e30.e30", "e30=.e30.e30", "bnVsbA.e30."] {
        assert_eq!(read(shape).map(|_| ()), Err(Mistake::Shape), "{shape}");
    }
    let long = of(&claims(&json!({"more": "x".repeat(8 * 1024)})));
    assert_eq!(read(&long), Err(Mistake::TooLong));
    let critical = token(&json!({"alg": "HS256", "crit": ["b64"], "b64": false}), "{}", hs256(SECRET));
    assert_eq!(read(&critical), Err(Mistake::Critical));
    let twice = r#"{"sub":"ada","sub":"bob","exp":1e300}"#;
    assert_eq!(read(&token(&json!({"alg": "HS256"}), twice, hs256(SECRET))), Err(Mistake::Claims));
    assert_eq!(read(&token(&json!({"alg": "HS256"}), "[]", hs256(SECRET))), Err(Mistake::Claims));
}

#[test]
fn a_request_has_one_token_or_none() {
    let headers = |values: &[&str]| {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        }
        headers
    };
    assert_eq!(token::find(&headers(&["Bearer abc"])), Ok("abc"));
    assert_eq!(token::find(&headers(&["bEARER  abc "])), Ok("abc"));
    assert_eq!(token::find(&headers(&[])), Err(Mistake::Missing));
    for other in ["Basic YTpi", "Bearerabc", "abc", ""] {
        assert_eq!(token::find(&headers(&[other])), Err(Mistake::Missing), "{other:?}");
    }
    assert_eq!(token::find(&headers(&["Bearer abc", "Bearer abc"])), Err(Mistake::Several));
    assert_eq!(token::find(&headers(&["Bearer abc", "Basic YTpi"])), Err(Mistake::Several));
}
