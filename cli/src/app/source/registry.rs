//! Modules in a registry of artifacts, as the OCI distribution specification 1.1 has it: a manifest names layers, and
//! every layer is known by its digest.
//!
//! ```text
//!   GET v2/                      whether it wants to know who asks; then GET realm for a token
//!   GET v2/NAME/tags/list        the versions, if a range is wanted
//!   GET v2/NAME/manifests/TAG    which layers belong together
//!   GET v2/NAME/blobs/DIGEST     aegis.module.json and its signatures, if there are some, and the component
//! ```

use aegis_domain::manifest::{self, ComponentClaim, MANIFEST_BYTES_MAX, Manifest};
use aegis_wasm::Code;
use semver::{Version, VersionReq};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    super::gate::Papers,
    Tools,
    fetch::{Challenge, Client, Failure, Wanted},
    fetching::{Content, Fetching, Read, wrong},
    index::{self, Entry, INDEX_BYTES_MAX, VERSIONS_MAX},
    origin_of,
};
use crate::trust::ENVELOPE_BYTES_MAX;

/// The forms of a manifest that are understood.
const MANIFEST_TYPES: &str =
    "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json";
/// Types of a layer that is a component; the second one is older.
const COMPONENT_TYPES: [&str; 2] = ["application/wasm", "application/vnd.wasm.content.layer.v1+wasm"];
/// Type of a layer that is an `aegis.module.json`.
const MODULE_TYPE: &str = "application/vnd.aegis.module.v1+json";
/// Type of a layer with the signatures of that.
const SIGNATURES_TYPE: &str = "application/vnd.dsse.envelope.v1+json";
/// What is said about a component that came alone.
const NOTHING_SAID: &[u8] = b"{\"schema\":\"aegis.module/1\"}";
/// What stands in front of a digest.
const DIGEST: &str = "sha256:";
/// Layers of one manifest.
const LAYERS_MAX: usize = 64;
/// Tags that are asked for at a time.
const PAGE_TAGS: usize = 1000;
/// Answers with tags of one module.
const PAGES_MAX: usize = 10;
/// Bytes of an answer with a token.
const TOKEN_BYTES_MAX: usize = 64 * 1024;

/// What a manifest of a registry says.
#[derive(Deserialize)]
struct Artifact {
    #[serde(default)]
    layers: Vec<Layer>,
}

/// One layer.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Layer {
    media_type: String,
    digest: String,
    size: u64,
}

impl Layer {
    /// SHA-256, hexadecimal, lower case.
    fn sha256(&self) -> Option<&str> {
        let digest = self.digest.strip_prefix(DIGEST)?;
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        (digest.len() == 64 && digest.bytes().all(is_digit)).then_some(digest)
    }
}

impl Fetching<'_> {
    /// What a registry has now.
    pub(super) fn in_registry(&mut self, tools: &Tools) -> Result<Content, Vec<Failure>> {
        self.authorize(&tools.client).map_err(|failure| vec![failure])?;
        let (reference, chosen) = match self.source().version.clone() {
            Some(range) => self.choose_tag(tools, &range).map(|(tag, version)| (tag, Some(version)))?,
            None => (self.source().reference.clone().unwrap_or_default(), None),
        };
        let file = format!("manifests/{reference}");
        let got = self
            .get_as(tools, &file, Some(MANIFEST_TYPES), MANIFEST_BYTES_MAX, Code::BadManifest)
            .map_err(|failure| vec![failure])?;
        if reference.strip_prefix(DIGEST).is_some_and(|expected| expected != got.sha256) {
            let message = format!("found a manifest with the SHA-256 {}, expected {reference}", got.sha256);
            return Err(wrong(Code::DigestDiffers, vec![message]));
        }
        let artifact: Artifact = serde_json::from_slice(&got.bytes).map_err(|error| {
            wrong(Code::BadManifest, vec![format!("the manifest of the artifact: {error}")])
        })?;
        let layers = layers(&artifact).map_err(|told| wrong(Code::BadManifest, vec![told]))?;
        let read = self.module(tools, &layers, chosen)?;
        self.component(tools, &format!("blobs/{}", layers.component.digest), read)
    }

    /// The tag with the greatest version within the range.
    fn choose_tag(&mut self, tools: &Tools, range: &str) -> Result<(String, Version), Vec<Failure>> {
        let range = VersionReq::parse(range)
            .map_err(|error| wrong(Code::NoVersion, vec![format!("version: {error}")]))?;
        let entries = self.tags(tools)?;
        match index::choose(&range, &entries) {
            Some(entry) => Ok((entry.manifest.clone(), entry.version.clone())),
            None => Err(wrong(Code::NoVersion, vec![index::nothing_matches(&range, &entries)])),
        }
    }

    /// Tags that are called like versions, with or without a `v` in front.
    fn tags(&mut self, tools: &Tools) -> Result<Vec<Entry>, Vec<Failure>> {
        #[derive(Deserialize)]
        struct Page {
            tags: Option<Vec<String>>,
        }
        let (mut entries, mut query) = (Vec::new(), format!("n={PAGE_TAGS}"));
        for _ in 0..PAGES_MAX {
            let got = self
                .get_as(tools, &format!("tags/list?{query}"), None, INDEX_BYTES_MAX, Code::BadIndex)
                .map_err(|failure| vec![failure])?;
            let page: Page = serde_json::from_slice(&got.bytes)
                .map_err(|error| wrong(Code::BadIndex, vec![format!("the list of tags: {error}")]))?;
            entries.extend(page.tags.unwrap_or_default().into_iter().filter_map(|tag| {
                let version = Version::parse(tag.strip_prefix('v').unwrap_or(&tag)).ok()?;
                Some(Entry { version, manifest: tag, sha256: None, is_yanked: false })
            }));
            match got.next.as_deref().and_then(|next| next.split_once('?')) {
                Some((_, next)) if entries.len() < VERSIONS_MAX => next.clone_into(&mut query),
                _ => return Ok(entries),
            }
        }
        let expected = format!("found more than {PAGES_MAX} answers with tags, expected at most that");
        Err(wrong(Code::BadIndex, vec![expected]))
    }

    /// The manifest of the module: what its layer says, about the component of this artifact and no other.
    fn module(
        &mut self,
        tools: &Tools,
        layers: &Layers<'_>,
        chosen: Option<Version>,
    ) -> Result<Read, Vec<Failure>> {
        let papers = match layers.module {
            None => None,
            Some(layer) => Some(self.papers(tools, layer, layers.signatures)?),
        };
        let published = papers.as_ref().map_or(NOTHING_SAID, |papers| &papers.manifest);
        let found = manifest::parse(published).map_err(|told| wrong(Code::BadManifest, told))?;
        let sha256 = layers.component.sha256().unwrap_or_default();
        if let Some(found) = found.component.sha256.filter(|found| found != sha256) {
            let message = format!(
                "found a layer with the SHA-256 {sha256}, expected {found}, the component that its manifest is about"
            );
            return Err(wrong(Code::DigestDiffers, vec![message]));
        }
        let size = Some(layers.component.size);
        let claim = ComponentClaim { path: None, sha256: Some(sha256.to_owned()), size };
        let (text, manifest) =
            manifest_of(published, &claim).map_err(|told| wrong(Code::BadManifest, told))?;
        if let (Some(chosen), Some(said)) = (&chosen, &manifest.version)
            && Version::parse(said).ok().as_ref() != Some(chosen)
        {
            let message =
                format!("found version {said:?} in its manifest, expected {chosen}, which was chosen");
            return Err(wrong(Code::VersionDiffers, vec![message]));
        }
        Ok(Read { manifest, text, folder: String::new(), chosen, papers })
    }

    /// What its author published, and the signatures of that if they are of any interest.
    fn papers(
        &mut self,
        tools: &Tools,
        module: &Layer,
        signatures: Option<&Layer>,
    ) -> Result<Papers, Vec<Failure>> {
        let manifest = self.blob(tools, module, MANIFEST_BYTES_MAX, Code::BadManifest, "manifest")?;
        let signatures = signatures.filter(|_| self.is_asking_for_signatures());
        let signatures = signatures.map(|layer| {
            self.blob(tools, layer, ENVELOPE_BYTES_MAX, Code::SignatureDiffers, "file with signatures")
        });
        Ok(Papers { manifest, signatures: signatures.transpose()? })
    }

    fn blob(
        &mut self,
        tools: &Tools,
        layer: &Layer,
        bytes_max: usize,
        too_large: Code,
        what: &str,
    ) -> Result<Vec<u8>, Vec<Failure>> {
        let file = format!("blobs/{}", layer.digest);
        let got = self.get_as(tools, &file, None, bytes_max, too_large).map_err(|failure| vec![failure])?;
        if Some(got.sha256.as_str()) != layer.sha256() {
            let message =
                format!("found the SHA-256 {} of its {what}, expected {}", got.sha256, layer.digest);
            return Err(wrong(Code::DigestDiffers, vec![message]));
        }
        Ok(got.bytes)
    }

    /// Finds out how the registry wants to be asked, and gets a token if it gives one for that.
    pub(super) fn authorize(&mut self, client: &Client) -> Result<(), Failure> {
        let source = self.source();
        let origin = origin_of(&source.url).to_owned();
        let name = source.url.strip_prefix(&format!("{origin}/v2/")).unwrap_or_default();
        let scope = format!("repository:{}:pull", name.trim_end_matches('/'));
        let credentials = self.authorization().map(str::to_owned);
        let door = format!("{origin}/v2/");
        let Some(challenge) = client.challenge(&self.wanted(&door, credentials.as_deref()))? else {
            return Ok(());
        };
        let Challenge { realm, service } = challenge;
        // Whoever is not the registry learns nothing that was meant for it.
        let told = credentials.filter(|_| origin_of(&realm) == origin);
        let separator = if realm.contains('?') { '&' } else { '?' };
        let url = format!("{realm}{separator}service={}&scope={}", escaped(&service), escaped(&scope));
        let got = client.get(&self.wanted(&url, told.as_deref()))?;
        let token = token(&got.bytes).ok_or_else(|| {
            let expected = format!("found an answer without a token, expected one from {realm}");
            wrong_one(Code::SourceAnswer, expected)
        })?;
        self.authorize_with(format!("Bearer {token}"));
        Ok(())
    }

    fn wanted<'b>(&self, url: &'b str, authorization: Option<&'b str>) -> Wanted<'b> {
        Wanted {
            url,
            authorization,
            accept: None,
            bytes_max: TOKEN_BYTES_MAX,
            too_large: Code::SourceAnswer,
            deadline: self.deadline(),
            is_known: false,
        }
    }
}

fn wrong_one(code: Code, message: String) -> Failure {
    Failure::Wrong(aegis_wasm::Diagnostic::new(code, message))
}

/// The token in an answer of a realm.
fn token(bytes: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Answer {
        token: Option<String>,
        access_token: Option<String>,
    }
    let answer: Answer = serde_json::from_slice(bytes).ok()?;
    let token = answer.token.or(answer.access_token)?;
    (!token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic())).then_some(token)
}

/// A part of a query in which nothing has a meaning.
fn escaped(text: &str) -> String {
    let one = |byte: u8| {
        if byte.is_ascii_alphanumeric() || b"-._~:/".contains(&byte) {
            char::from(byte).to_string()
        } else {
            format!("%{byte:02X}")
        }
    };
    text.bytes().map(one).collect()
}

/// What an author published, about the component of the artifact; as text and as what it says.
pub(super) fn manifest_of(
    published: &[u8],
    component: &ComponentClaim,
) -> Result<(String, Manifest), Vec<String>> {
    let mut said: Map<String, Value> =
        serde_json::from_slice(published).map_err(|error| vec![error.to_string()])?;
    said.insert("component".to_owned(), json!({ "sha256": component.sha256, "size": component.size }));
    let text = Value::Object(said).to_string();
    let manifest = manifest::parse(text.as_bytes())?;
    Ok((text, manifest))
}

/// The layers of an artifact that matter.
struct Layers<'a> {
    component: &'a Layer,
    /// The manifest of the module.
    module: Option<&'a Layer>,
    /// The signatures of that.
    signatures: Option<&'a Layer>,
}

/// The layer that is the component, and those with its manifest and the signatures of that, if there are some.
fn layers(artifact: &Artifact) -> Result<Layers<'_>, String> {
    let found = artifact.layers.len();
    if found > LAYERS_MAX {
        return Err(format!("found {found} layers, expected at most {LAYERS_MAX}"));
    }
    let of = |types: &[&str]| -> Vec<&Layer> {
        artifact.layers.iter().filter(|layer| types.contains(&layer.media_type.as_str())).collect()
    };
    let (components, modules, signatures) =
        (of(&COMPONENT_TYPES), of(&[MODULE_TYPE]), of(&[SIGNATURES_TYPE]));
    let [component] = components[..] else {
        let found = components.len();
        return Err(format!("found {found} layers of the type {}, expected one", COMPONENT_TYPES[0]));
    };
    for (media_type, layers) in [(MODULE_TYPE, &modules), (SIGNATURES_TYPE, &signatures)] {
        if layers.len() > 1 {
            let found = layers.len();
            return Err(format!("found {found} layers of the type {media_type}, expected at most one"));
        }
    }
    for layer in components.iter().chain(&modules).chain(&signatures) {
        if layer.sha256().is_none() {
            let shown: String = layer.digest.chars().take(100).collect();
            return Err(format!(
                "found the digest {shown:?} of a layer, expected {DIGEST} and 64 hexadecimal digits"
            ));
        }
    }
    Ok(Layers { component, module: modules.first().copied(), signatures: signatures.first().copied() })
}
