//! A model: what its documents are, and which code has a say in their lives.

use serde_json::Value;

use crate::{
    Command, Context, Document, DocumentHooks, Entity, Field, Refusal, Route,
    bindings::{
        aegis::module::spec::{DatasourceSpec, HookSet, ModelSpec},
        exports::aegis::module::identity::ModuleInfo,
    },
    event::Subscription,
    life::Life,
};

type Create = dyn Fn(Document, &Context) -> Result<Document, Refusal>;
type Validate = dyn Fn(&Document, Option<&Document>, &Context) -> Result<(), Refusal>;
type Update = dyn Fn(Entity, Document, &Context) -> Result<Document, Refusal>;
type Delete = dyn Fn(&Entity, &Context) -> Result<(), Refusal>;
type Load = dyn Fn(Entity, &Context) -> Result<Document, Refusal>;

/// A model with its code.
pub struct Model {
    pub(crate) spec: ModelSpec,
    pub(crate) info: ModuleInfo,
    pub(crate) create: Option<Box<Create>>,
    pub(crate) validate: Option<Box<Validate>>,
    pub(crate) update: Option<Box<Update>>,
    pub(crate) delete: Option<Box<Delete>>,
    pub(crate) load: Option<Box<Load>>,
    pub(crate) held: DocumentHooks,
    pub(crate) commands: Vec<Command>,
    pub(crate) routes: Vec<Route>,
    pub(crate) subscriptions: Vec<Subscription>,
    pub(crate) life: Life,
}

impl Model {
    /// A model of this name whose endpoint is the name with an "s". The version is 1.0.0 unless it says otherwise.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let spec = ModelSpec {
            name: name.to_owned(),
            endpoint: format!("{name}s"),
            version: "1.0.0".to_owned(),
            domain: None,
            description: None,
            id_field: None,
            fields: Vec::new(),
            schema: None,
            strict: false,
            hooks: HookSet::empty(),
            mixins: Vec::new(),
            ports: Vec::new(),
            relations: Vec::new(),
            commands: Vec::new(),
            acl: Vec::new(),
            serializers: Vec::new(),
            datasource: None,
            subscriptions: Vec::new(),
            routes: Vec::new(),
            preload: 0,
            extensions: Vec::new(),
        };
        let info = ModuleInfo {
            name: name.to_owned(),
            version: "1.0.0".to_owned(),
            built_with: "aegis-module (Rust)".to_owned(),
        };
        Self {
            spec,
            info,
            create: None,
            validate: None,
            update: None,
            delete: None,
            load: None,
            held: DocumentHooks::new(),
            commands: Vec::new(),
            routes: Vec::new(),
            subscriptions: Vec::new(),
            life: Life::default(),
        }
    }

    /// Where it is served: `{api}/models/ENDPOINT`.
    #[must_use]
    pub fn endpoint(mut self, endpoint: &str) -> Self {
        endpoint.clone_into(&mut self.spec.endpoint);
        self
    }

    /// Semantic version of the model and of the module.
    #[must_use]
    pub fn version(mut self, version: &str) -> Self {
        version.clone_into(&mut self.spec.version);
        version.clone_into(&mut self.info.version);
        self
    }

    /// Name and version of the module, if they are not the model's.
    #[must_use]
    pub fn module(mut self, name: &str, version: &str) -> Self {
        name.clone_into(&mut self.info.name);
        version.clone_into(&mut self.info.version);
        self
    }

    /// The domain that it belongs to.
    #[must_use]
    pub fn domain(mut self, domain: &str) -> Self {
        self.spec.domain = Some(domain.to_owned());
        self
    }

    /// For people.
    #[must_use]
    pub fn description(mut self, text: &str) -> Self {
        self.spec.description = Some(text.to_owned());
        self
    }

    /// The property that holds the id when the client says it.
    #[must_use]
    pub fn id_field(mut self, name: &str) -> Self {
        self.spec.id_field = Some(name.to_owned());
        self
    }

    /// Declares a field.
    #[must_use]
    pub fn field(mut self, name: &str, field: Field) -> Self {
        self.spec.fields.push(field.spec(name));
        self.spec.mixins.extend(field.mixins(name));
        self
    }

    /// JSON Schema of the whole document.
    #[must_use]
    pub fn schema(mut self, schema: &Value) -> Self {
        self.spec.schema = Some(schema.to_string());
        self
    }

    /// Properties that are not declared are refused.
    #[must_use]
    pub fn strict(mut self) -> Self {
        self.spec.strict = true;
        self
    }

    /// Where documents are kept, `"memory"` or `"file"`, instead of where the host keeps them.
    #[must_use]
    pub fn datasource(mut self, name: &str) -> Self {
        self.spec.datasource = Some(DatasourceSpec {
            name: name.to_owned(),
            cache_entries: None,
            cache_bytes: None,
            write_behind: false,
            options: None,
        });
        self
    }

    /// Makes the document from what the client sent.
    #[must_use]
    pub fn on_create(
        mut self,
        hook: impl Fn(Document, &Context) -> Result<Document, Refusal> + 'static,
    ) -> Self {
        self.spec.hooks |= HookSet::ON_CREATE;
        self.create = Some(Box::new(hook));
        self
    }

    /// Has the last word on a new or changed document: what it is now, and what it was before if it was.
    #[must_use]
    pub fn validate(
        mut self,
        hook: impl Fn(&Document, Option<&Document>, &Context) -> Result<(), Refusal> + 'static,
    ) -> Self {
        self.spec.hooks |= HookSet::VALIDATE;
        self.validate = Some(Box::new(hook));
        self
    }

    /// Merges changes (`null` removes) into the document.
    #[must_use]
    pub fn on_update(
        mut self,
        hook: impl Fn(Entity, Document, &Context) -> Result<Document, Refusal> + 'static,
    ) -> Self {
        self.spec.hooks |= HookSet::ON_UPDATE;
        self.update = Some(Box::new(hook));
        self
    }

    /// May forbid a removal.
    #[must_use]
    pub fn on_delete(mut self, hook: impl Fn(&Entity, &Context) -> Result<(), Refusal> + 'static) -> Self {
        self.spec.hooks |= HookSet::ON_DELETE;
        self.delete = Some(Box::new(hook));
        self
    }

    /// Brings a stored document into the shape that this code knows, whenever it is read.
    #[must_use]
    pub fn on_load(mut self, hook: impl Fn(Entity, &Context) -> Result<Document, Refusal> + 'static) -> Self {
        self.spec.hooks |= HookSet::ON_LOAD;
        self.load = Some(Box::new(hook));
        self
    }

    /// Adds a command.
    #[must_use]
    pub fn command(mut self, command: Command) -> Self {
        self.spec.commands.push(command.spec.clone());
        self.commands.push(command);
        self
    }
}
