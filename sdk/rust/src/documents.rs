//! Documents of models: the module's own, and those that the operator grants. What the host refuses is a [`Refusal`].

use serde_json::{Value, json};

use crate::{
    Document, Entity, Refusal,
    bindings::aegis::module::models::{self, WriteOp},
};

/// Which documents, and how many.
#[derive(Debug, Clone)]
pub struct Query {
    /// A filter in the REST query language, such as `{"total":{"gt":100}}`.
    pub filter: Value,
    /// Fields to sort by; a leading `-` turns the order round.
    pub sort: Vec<String>,
    /// Most documents of one page.
    pub limit: u32,
    /// Where the page before ended.
    pub cursor: Option<String>,
    /// The fields that are wanted; all when empty.
    pub fields: Vec<String>,
}

impl Default for Query {
    fn default() -> Self {
        Self { filter: json!({}), sort: Vec::new(), limit: 100, cursor: None, fields: Vec::new() }
    }
}

/// Some documents.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// The documents.
    pub items: Vec<Entity>,
    /// Where the next page begins; nothing when there is none.
    pub cursor: Option<String>,
}

/// One document.
///
/// # Errors
/// When the host refuses, because the operator has not granted it for one.
pub fn find(model: &str, id: &str) -> Result<Option<Entity>, Refusal> {
    models::find(model, id)?.map(Entity::try_from).transpose()
}

/// One page of documents.
///
/// # Errors
/// When the host refuses.
pub fn search(model: &str, query: &Query) -> Result<Page, Refusal> {
    let asked = models::Query {
        filter: query.filter.to_string(),
        sort: query.sort.clone(),
        limit: query.limit,
        cursor: query.cursor.clone(),
        fields: query.fields.clone(),
    };
    let page = models::search(model, &asked)?;
    let items = page.items.into_iter().map(Entity::try_from).collect::<Result<_, _>>()?;
    Ok(Page { items, cursor: page.cursor })
}

/// Makes a document.
///
/// # Errors
/// When the host refuses, or the model's rules or its code do.
pub fn create(model: &str, data: &Document) -> Result<Entity, Refusal> {
    write(model, WriteOp::Create(data.to_string()))
}

/// Merges changes (RFC 7396) into a document; with a revision, only if it still has that.
///
/// # Errors
/// As of [`create`].
pub fn patch(model: &str, id: &str, changes: &Document, revision: Option<u64>) -> Result<Entity, Refusal> {
    write(model, WriteOp::Patch((id.to_owned(), changes.to_string(), revision)))
}

/// Replaces what is in a document; with a revision, only if it still has that.
///
/// # Errors
/// As of [`create`].
pub fn replace(model: &str, id: &str, data: &Document, revision: Option<u64>) -> Result<Entity, Refusal> {
    write(model, WriteOp::Replace((id.to_owned(), data.to_string(), revision)))
}

/// Removes a document; with a revision, only if it still has that. What it was.
///
/// # Errors
/// As of [`create`].
pub fn remove(model: &str, id: &str, revision: Option<u64>) -> Result<Entity, Refusal> {
    write(model, WriteOp::Delete((id.to_owned(), revision)))
}

fn write(model: &str, operation: WriteOp) -> Result<Entity, Refusal> {
    models::write(model, &operation)?.try_into()
}
