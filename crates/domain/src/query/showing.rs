//! Lists whose documents are brought into another shape before they are shown: the choice of properties is made after
//! that. Filters, order, counts and cursors are about the documents as they are stored.

use bytes::Bytes;

use super::{Output, Page, Query, page::PAGE_BYTES_MAX, parameters, parse, select::Mode, select::Select};
use crate::{
    catalog::Model,
    problem::Problem,
    query::{Bounds, parameters::Mistake},
    raw,
};

/// What is shown of the documents of a list.
#[derive(Debug, Clone)]
pub struct Showing {
    select: Option<Select>,
}

impl Query {
    /// As [`Query::parse`], for pages with whole documents, and what is to be shown of them; nothing when documents are
    /// not answered but counted.
    ///
    /// # Errors
    /// As [`Query::parse`].
    pub fn parse_whole(
        model: &Model,
        raw_query: &str,
        bounds: &Bounds,
    ) -> Result<(Self, Option<Showing>), Problem> {
        let mut parts = parse::parse(model, raw_query, *bounds)?;
        let showing = match &mut parts.output {
            Output::Rows(rows) => Some(Showing { select: rows.select.take() }),
            Output::Count(_) | Output::Aggregate(_) => None,
        };
        Ok((Self(parts.into()), showing))
    }
}

impl Showing {
    /// The documents of a page.
    #[must_use]
    pub fn rows(&self, page: &Page) -> Vec<Bytes> {
        let list = list(&page.body);
        raw::items(list).map(|row| page.body.slice_ref(row)).collect()
    }

    /// The same page with these documents, of which only what was chosen is shown.
    ///
    /// # Errors
    /// The page is too large.
    pub fn show(&self, page: &Page, rows: &[Bytes]) -> Result<Page, Problem> {
        let bytes: usize = rows.iter().map(Bytes::len).sum();
        if bytes > PAGE_BYTES_MAX {
            let found = format!("{} documents of more than {} MiB", rows.len(), PAGE_BYTES_MAX >> 20);
            return Err(parameters::problem(&[Mistake::saying("__limit", found, "fewer documents")]));
        }
        let (whole, list) = (&page.body, list(&page.body));
        let head = whole.len() - list.len() - usize::from(list.len() < whole.len());
        let mut body = Vec::with_capacity(bytes + rows.len() + head + 3);
        body.extend_from_slice(&whole[..head]);
        body.push(b'[');
        for (index, row) in rows.iter().enumerate() {
            if index > 0 {
                body.push(b',');
            }
            match &self.select {
                Some(select) => select.write(Mode::Keep, row, &mut body),
                None => body.extend_from_slice(row),
            }
        }
        body.push(b']');
        body.extend_from_slice(&whole[head + list.len()..]);
        Ok(Page { body: body.into(), next_cursor: page.next_cursor.clone() })
    }
}

/// The list in a page: all of it, or its last property.
fn list(body: &Bytes) -> &[u8] {
    if body.starts_with(b"{") {
        raw::members(body).last().map_or(&[][..], |member| member.value)
    } else {
        body
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{catalog::Catalog, module};

    fn shown(query: &str, body: &str, rows: &[&str]) -> String {
        let spec = module::parse("name = \"todo\"\n[fields]\ntext = \"text\"\n", "test").unwrap();
        let catalog = Catalog::build(vec![spec]).unwrap();
        let bounds = Bounds { scan_max: 100, limit_default: 10, limit_max: 10 };
        let (_, showing) = Query::parse_whole(&catalog.models()[0], query, &bounds).unwrap();
        let page = Page { body: Bytes::copy_from_slice(body.as_bytes()), next_cursor: None };
        let showing = showing.unwrap();
        assert_eq!(showing.rows(&page).len(), rows.len());
        let rows: Vec<Bytes> = rows.iter().map(|row| Bytes::copy_from_slice(row.as_bytes())).collect();
        String::from_utf8(showing.show(&page, &rows).unwrap().body.to_vec()).unwrap()
    }

    #[test]
    fn documents_are_replaced_and_chosen_from() {
        let new = [r#"{"a":1,"b":[2],"id":"x"}"#, r#"{"b":3,"id":"y"}"#];
        let old = r#"[{"a":0,"id":"x"},{"id":"y"}]"#;
        assert_eq!(shown("", old, &new), format!("[{},{}]", new[0], new[1]));
        assert_eq!(shown("__select=b", old, &new), r#"[{"b":[2],"id":"x"},{"b":3,"id":"y"}]"#);
        let envelope = format!(r#"{{"count":2,"total":1,"page":1,"limit":10,"data":{old}}}"#);
        let expected =
            format!(r#"{{"count":2,"total":1,"page":1,"limit":10,"data":[{},{}]}}"#, new[0], new[1]);
        assert_eq!(shown("__page=1", &envelope, &new), expected);
        assert_eq!(shown("", "[]", &[]), "[]");
    }
}
