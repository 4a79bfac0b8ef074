//! Which custom routes of models a path names. They go before the generated interface.

use std::{borrow::Cow, sync::Arc};

use aegis_domain::{
    catalog::{Catalog, Model},
    route::{Base, Route, Verb},
};
use http::Method;

use super::decode;

/// All methods that can be answered anywhere, in the order in which `Allow` names them.
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// The custom routes of one generation.
#[derive(Debug)]
pub(super) struct CustomRoutes {
    catalog: Arc<Catalog>,
    /// `{api_root}/models/`
    documents: String,
    /// Models with routes below their own path.
    has_below: bool,
    /// Models with routes from the root, by position.
    at_root: Vec<usize>,
}

/// A route whose pattern matches a path.
#[derive(Debug)]
pub(crate) struct Candidate<'r> {
    pub(crate) model: &'r Arc<Model>,
    pub(crate) route: &'r Route,
    /// Its parts in braces, decoded.
    pub(crate) params: Vec<(String, String)>,
}

/// All routes whose patterns match a path, the more particular ones first.
#[derive(Debug, Default)]
pub(crate) struct Candidates<'r> {
    matching: Vec<Candidate<'r>>,
}

impl Candidate<'_> {
    /// Whether the operator has taken it out of service.
    pub(crate) fn is_disabled(&self) -> bool {
        self.route.spec().disabled
    }
}

impl CustomRoutes {
    pub(super) fn new(documents: &str, catalog: Arc<Catalog>) -> Self {
        let has = |model: &Model, base| model.routes().iter().any(|route| route.pattern().base() == base);
        let models = catalog.models();
        Self {
            has_below: models.iter().any(|model| has(model, Base::Model)),
            at_root: (0..models.len()).filter(|index| has(&models[*index], Base::Root)).collect(),
            documents: documents.to_owned(),
            catalog,
        }
    }

    pub(super) fn find(&self, path: &str) -> Candidates<'_> {
        let mut found = Candidates::default();
        if self.has_below
            && let Some(below) = path.strip_prefix(self.documents.as_str())
        {
            let (endpoint, rest) =
                below.split_once('/').map_or((below, None), |(one, rest)| (one, Some(rest)));
            let model = decode(endpoint).ok().and_then(|endpoint| self.catalog.by_endpoint(&endpoint));
            if let (Some(model), Some(segments)) = (model, segments(rest)) {
                found.add(model, Base::Model, &segments);
            }
        } else if !self.at_root.is_empty()
            && let Some(segments) = segments(path.strip_prefix('/'))
        {
            for index in &self.at_root {
                found.add(&self.catalog.models()[*index], Base::Root, &segments);
            }
        }
        found
    }
}

/// The segments of a path, decoded; none when one of them is no text.
fn segments(path: Option<&str>) -> Option<Vec<Cow<'_, str>>> {
    path.map_or(Some(Vec::new()), |path| path.split('/').map(|segment| decode(segment).ok()).collect())
}

impl<'r> Candidates<'r> {
    fn add(&mut self, model: &'r Arc<Model>, base: Base, segments: &[Cow<'_, str>]) {
        for route in model.routes().iter().filter(|route| route.pattern().base() == base) {
            if let Some(params) = route.pattern().matches(segments) {
                self.matching.push(Candidate { model, route, params });
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.matching.is_empty()
    }

    /// Whether one of them is in service.
    pub(crate) fn has_served(&self) -> bool {
        !self.matching.iter().all(Candidate::is_disabled)
    }

    /// The first route of this method, disabled or not.
    fn position(&self, method: &str) -> Option<usize> {
        let of = |verb: &str| {
            self.matching.iter().position(|candidate| candidate.route.spec().method.as_str() == verb)
        };
        of(method).or_else(|| if method == "HEAD" { of(Verb::Get.as_str()) } else { None })
    }

    /// The route that answers this method, or would if it were not disabled. `GET` answers `HEAD` as well, unless there is
    /// another route for it.
    pub(crate) fn answering(mut self, method: &Method) -> Result<Candidate<'r>, Self> {
        match self.position(method.as_str()) {
            Some(index) => Ok(self.matching.swap_remove(index)),
            None => Err(self),
        }
    }

    /// The value of `Allow` where the generated interface answers these methods besides.
    pub(crate) fn allow(&self, generated: &[Method]) -> String {
        let answers = |name: &&str| match self.position(name) {
            Some(index) => !self.matching[index].is_disabled(),
            None => *name == "OPTIONS" || generated.iter().any(|method| method.as_str() == *name),
        };
        METHODS.iter().copied().filter(|name| answers(name)).collect::<Vec<_>>().join(", ")
    }
}
