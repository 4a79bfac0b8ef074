//! The compiled rules of one field, and what a value must be to follow them.

use serde_json::{Number, Value};

use super::pattern::Pattern;
use crate::{
    json::{self, Decimal, describe, pointer, shorten},
    spec::{FieldKind, FieldSpec},
    timestamp,
};

/// What a field's specification says, ready to be applied.
#[derive(Debug)]
pub(crate) struct Rule {
    /// JSON pointer to the field.
    pub(crate) pointer: String,
    pattern: Option<Pattern>,
}

impl Rule {
    /// Compiles the rules of one field. Mistakes are reported as (key of the field, message).
    pub(super) fn compile(name: &str, field: &FieldSpec, report: &mut dyn FnMut(&str, String)) -> Self {
        let pattern = field.pattern.as_deref().and_then(|pattern| {
            Pattern::compile(pattern)
                .map_err(|reason| {
                    let found = shorten(pattern);
                    report("pattern", format!("found {found:?}, expected a regular expression: {reason}"));
                })
                .ok()
        });
        let rule = Self { pointer: pointer::of(name), pattern };
        rule.check_spec(field, report);
        rule
    }

    fn check_spec(&self, field: &FieldSpec, report: &mut dyn FnMut(&str, String)) {
        let kind = kind_name(field.kind);
        if field.pattern.is_some() && !matches!(field.kind, FieldKind::Text | FieldKind::Any) {
            report("pattern", format!("found a pattern for the kind {kind}, expected it for text only"));
        }
        if matches!(field.kind, FieldKind::Object | FieldKind::Array) && field.unique {
            report("unique", format!("found true for the kind {kind}, expected it for plain values only"));
        }
        for (key, bound) in [("min", &field.min), ("max", &field.max)] {
            let takes_none =
                matches!(field.kind, FieldKind::Boolean | FieldKind::Timestamp | FieldKind::Object);
            if bound.is_some() && takes_none {
                report(
                    key,
                    format!("found a bound for the kind {kind}, expected it for numbers, text and arrays"),
                );
            }
        }
        if let (Some(min), Some(max)) = (&field.min, &field.max)
            && Decimal::of(min).cmp(&Decimal::of(max)).is_gt()
        {
            report("min", format!("found {min}, expected at most max = {max}"));
        }
        if let Some(values) = &field.values {
            if values.is_empty() {
                report("values", "found no value, expected at least one".to_owned());
            }
            for value in values {
                if let Some(mistake) = kind_mistake(field.kind, value) {
                    report("values", mistake);
                }
            }
        }
        if let Some(default) = &field.default {
            // The document around it is one level more, and has to be read again.
            let levels = json::depth(default);
            if levels >= json::DEPTH_MAX {
                report("default", format!("found level {levels}, expected at most {}", json::DEPTH_MAX - 1));
            }
            self.check(field, default, &mut |message| report("default", message));
        }
    }

    /// Reports every rule that a value of the field breaks. Null is no value and breaks none.
    pub(crate) fn check(&self, field: &FieldSpec, value: &Value, report: &mut dyn FnMut(String)) {
        if value.is_null() {
            return;
        }
        if let Some(mistake) = kind_mistake(field.kind, value) {
            report(mistake);
            return;
        }
        if let Some(allowed) = &field.values
            && !allowed.iter().any(|allowed| json::same(allowed, value))
        {
            report(format!("found {}, expected one of {}", describe(value), list(allowed)));
        }
        check_range(field, value, report);
        // The text is not repeated: what does not look like a card number may still be one.
        if let (Some(pattern), Value::String(text)) = (&self.pattern, value)
            && !pattern.matches(text)
        {
            report(format!("found a text of another form, expected {pattern}"));
        }
    }
}

/// Reports the bounds that a number, or the length of a text or array, is beyond. All are compared exactly.
fn check_range(field: &FieldSpec, value: &Value, report: &mut dyn FnMut(String)) {
    if field.min.is_none() && field.max.is_none() {
        return;
    }
    let length;
    let (number, what) = match value {
        Value::Number(number) => (number, ""),
        Value::String(text) => {
            length = Number::from(text.chars().count());
            (&length, "length ")
        }
        Value::Array(items) => {
            length = Number::from(items.len());
            (&length, "length ")
        }
        Value::Null | Value::Bool(_) | Value::Object(_) => return,
    };
    let found = || shorten(number.as_str());
    let decimal = Decimal::of(number);
    if let Some(min) = &field.min
        && decimal.cmp(&Decimal::of(min)).is_lt()
    {
        report(format!("found {what}{}, expected at least {}", found(), shorten(min.as_str())));
    }
    if let Some(max) = &field.max
        && decimal.cmp(&Decimal::of(max)).is_gt()
    {
        report(format!("found {what}{}, expected at most {}", found(), shorten(max.as_str())));
    }
}

/// The name of a kind as `module.toml` spells it.
pub(crate) fn kind_name(kind: FieldKind) -> &'static str {
    match kind {
        FieldKind::Text => "text",
        FieldKind::Integer => "integer",
        FieldKind::Decimal => "decimal",
        FieldKind::Boolean => "boolean",
        FieldKind::Timestamp => "timestamp",
        FieldKind::Object => "object",
        FieldKind::Array => "array",
        FieldKind::Any => "any",
    }
}

fn kind_mistake(kind: FieldKind, value: &Value) -> Option<String> {
    let expected = match (kind, value) {
        (FieldKind::Any, _)
        | (FieldKind::Text, Value::String(_))
        | (FieldKind::Decimal, Value::Number(_))
        | (FieldKind::Boolean, Value::Bool(_))
        | (FieldKind::Object, Value::Object(_))
        | (FieldKind::Array, Value::Array(_)) => return None,
        (FieldKind::Integer, Value::Number(number)) => {
            if number.as_str().bytes().all(|byte| byte == b'-' || byte.is_ascii_digit()) {
                return None;
            }
            "a whole number without fraction or exponent"
        }
        (FieldKind::Timestamp, Value::String(text)) if timestamp::is_valid(text) => return None,
        (FieldKind::Text, _) => "a text",
        (FieldKind::Integer, _) => "a whole number",
        (FieldKind::Decimal, _) => "a number",
        (FieldKind::Boolean, _) => "true or false",
        (FieldKind::Timestamp, _) => "an RFC 3339 time such as 2026-01-31T09:30:00Z",
        (FieldKind::Object, _) => "an object",
        (FieldKind::Array, _) => "an array",
    };
    Some(format!("found {}, expected {expected}", describe(value)))
}

fn list(values: &[Value]) -> String {
    const SHOWN_MAX: usize = 10;
    let mut shown: Vec<String> =
        values.iter().take(SHOWN_MAX).map(|value| shorten(&value.to_string())).collect();
    if values.len() > SHOWN_MAX {
        shown.push(format!("… ({} in all)", values.len()));
    }
    shown.join(", ")
}
