//! `[mixins]`: the rules of fields by the names the original gave them.

use super::{
    fields::Fields,
    reader::{Mistakes, describe},
    written::{Table, Written},
};
use crate::{catalog::key_path, spec::FieldSpec, suggest};

/// All mixins.
pub(super) const MIXINS: [&str; 6] = ["require", "freeze", "unique", "default", "range", "pattern"];

pub(super) fn read(found: Written, fields: &mut Fields<'_>, mistakes: &mut Mistakes) {
    let Some(mut table) = mistakes.table(found, "mixins", "mixins") else { return };
    for key in table.keys().filter(|key| !MIXINS.contains(&key.as_str())) {
        let hint = suggest::similar(key, MIXINS.into_iter());
        let message = format!("found an unknown mixin, expected one of {}{hint}", MIXINS.join(", "));
        mistakes.tell(&key_path(&["mixins", key]), message);
    }
    for mixin in ["require", "freeze", "unique"] {
        let Some(found) = table.shift_remove(mixin) else { continue };
        for name in mistakes.names(found, &key_path(&["mixins", mixin])) {
            let field = fields.field(&name);
            match mixin {
                "require" => field.required = true,
                "freeze" => field.frozen = true,
                _ => field.unique = true,
            }
        }
    }
    for (name, found) in named(&mut table, "default", "values by field", mistakes) {
        let key = key_path(&["mixins", "default", &name]);
        let default = mistakes.json(found, &key);
        fill(&mut fields.field(&name).default, default, &key, mistakes);
    }
    for (name, found) in named(&mut table, "pattern", "patterns by field", mistakes) {
        let key = key_path(&["mixins", "pattern", &name]);
        let pattern = mistakes.text(Some(found), &key);
        fill(&mut fields.field(&name).pattern, pattern, &key, mistakes);
    }
    for (name, found) in named(&mut table, "range", "ranges by field", mistakes) {
        read_range(&name, found, fields.field(&name), mistakes);
    }
}

fn read_range(name: &str, found: Written, field: &mut FieldSpec, mistakes: &mut Mistakes) {
    let key = key_path(&["mixins", "range", name]);
    let Written::Table(mut range) = found else {
        mistakes.tell(
            &key,
            format!("found {}, expected a table such as {{ min = 0, max = 10 }}", describe(&found)),
        );
        return;
    };
    let min = mistakes.number(range.shift_remove("min"), &format!("{key}.min"));
    let max = mistakes.number(range.shift_remove("max"), &format!("{key}.max"));
    fill(&mut field.min, min, &format!("{key}.min"), mistakes);
    fill(&mut field.max, max, &format!("{key}.max"), mistakes);
    for other in range.keys() {
        let path = format!("{key}.{}", key_path(&[other]));
        mistakes.tell(&path, "found an unknown key, expected min or max");
    }
}

/// The entries of a mixin that is a table by field.
fn named(table: &mut Table, mixin: &str, holds: &str, mistakes: &mut Mistakes) -> Table {
    let found = table.shift_remove(mixin);
    let key = key_path(&["mixins", mixin]);
    found.and_then(|found| mistakes.table(found, &key, holds)).unwrap_or_default()
}

/// Sets what has not been set by the field's own table.
fn fill<T>(target: &mut Option<T>, value: Option<T>, key: &str, mistakes: &mut Mistakes) {
    let Some(value) = value else { return };
    if target.is_some() {
        mistakes.tell(key, "found it a second time, expected it either here or in [fields]");
    } else {
        *target = Some(value);
    }
}
