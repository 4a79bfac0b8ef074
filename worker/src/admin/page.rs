//! A table for people, from an array of JSON objects.

use std::fmt::Write;

use serde_json::Value;

/// An HTML page with one row per object. Everything that comes from data is escaped.
pub(super) fn table(title: &str, rows: &[Value]) -> String {
    let mut columns: Vec<&str> = Vec::new();
    for row in rows.iter().filter_map(Value::as_object) {
        for name in row.keys() {
            if !columns.contains(&name.as_str()) {
                columns.push(name);
            }
        }
    }
    let mut page = String::from(
        "<!doctype html>\n<meta charset=\"utf-8\">\n<style>body{font:14px sans-serif}\
         td,th{border:1px solid #ccc;padding:4px 8px;text-align:left;vertical-align:top}\
         table{border-collapse:collapse}</style>\n",
    );
    let title = escape(title);
    // Writing to a String cannot fail.
    let _ =
        write!(page, "<title>{title}</title>\n<h1>{title}</h1>\n<p>{} rows</p>\n<table>\n<tr>", rows.len());
    for column in &columns {
        let _ = write!(page, "<th>{}</th>", escape(column));
    }
    page.push_str("</tr>\n");
    for row in rows {
        page.push_str("<tr>");
        for column in &columns {
            let text = match row.get(column) {
                None => String::new(),
                Some(Value::String(text)) => text.clone(),
                Some(value) => value.to_string(),
            };
            let _ = write!(page, "<td>{}</td>", escape(&text));
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</table>\n");
    page
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn stored_markup_does_not_become_markup() {
        let rows =
            [json!({"name": "<script>alert('x')</script>", "<b>": {"deep": "<i>\"&"}}), json!({"n": 1})];
        let page = table("a < b", &rows);
        let body = page.split_once("</style>").unwrap().1.trim();
        insta::assert_snapshot!(body, @r#"
    <title>a &lt; b</title>
    <h1>a &lt; b</h1>
    <p>2 rows</p>
    <table>
    <tr><th>name</th><th>&lt;b&gt;</th><th>n</th></tr>
    <tr><td>&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;</td><td>{&quot;deep&quot;:&quot;&lt;i&gt;\&quot;&amp;&quot;}</td><td></td></tr>
    <tr><td></td><td></td><td>1</td></tr>
    </table>
    "#);
    }
}
