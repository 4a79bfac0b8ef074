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

/// Documents by id, at most 1000, in the order of the ids.
///
/// # Errors
/// As of [`find`].
pub fn find_many(model: &str, ids: &[&str]) -> Result<Vec<Option<Entity>>, Refusal> {
    let ids: Vec<String> = ids.iter().map(|id| (*id).to_owned()).collect();
    let found = models::find_many(model, &ids)?.into_iter();
    found.map(|entity| entity.map(Entity::try_from).transpose()).collect()
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

/// What a pipeline, as in `__aggregate`, makes of the documents.
///
/// # Errors
/// When the host refuses.
pub fn aggregate(model: &str, pipeline: &Value) -> Result<Value, Refusal> {
    Ok(serde_json::from_str(&models::aggregate(model, &pipeline.to_string())?)?)
}

/// A write among others.
#[derive(Debug, Clone, PartialEq)]
pub enum Write {
    /// Makes a document.
    Create(Document),
    /// Merges changes (RFC 7396) into a document: its id, the changes, and the revision that it must still have.
    Patch(String, Document, Option<u64>),
    /// Replaces what is in a document: its id, what is in it then, and the revision that it must still have.
    Replace(String, Document, Option<u64>),
    /// Removes a document: its id, and the revision that it must still have.
    Remove(String, Option<u64>),
}

/// Writes documents, all of them or none; a refusal's message begins with the number of the write, from 0. What they are
/// then, or were when they are removed.
///
/// # Errors
/// As of [`create`].
pub fn write_all(model: &str, writes: &[Write]) -> Result<Vec<Entity>, Refusal> {
    let operation = |write: &Write| match write.clone() {
        Write::Create(data) => WriteOp::Create(data.to_string()),
        Write::Patch(id, changes, revision) => WriteOp::Patch((id, changes.to_string(), revision)),
        Write::Replace(id, data, revision) => WriteOp::Replace((id, data.to_string(), revision)),
        Write::Remove(id, revision) => WriteOp::Delete((id, revision)),
    };
    let operations: Vec<_> = writes.iter().map(operation).collect();
    models::write_batch(model, &operations)?.into_iter().map(Entity::try_from).collect()
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
