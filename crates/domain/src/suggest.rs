//! "Did you mean …?"

/// Names looked at; more would make a mistake expensive.
const CANDIDATES_MAX: usize = 512;

/// Bytes of a name that may be a misspelling of another.
const NAME_BYTES_MAX: usize = 64;

/// ` (did you mean "x"?)` if one of the names is close enough, else nothing.
#[must_use]
pub fn similar<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    if name.len() > NAME_BYTES_MAX {
        return String::new();
    }
    // A third of the letters may be wrong, and at least one.
    let distance_max = (name.chars().count() / 3).max(1);
    let distance = |known: &str| strsim::osa_distance(&fold(name), &fold(known));
    known
        .take(CANDIDATES_MAX)
        .filter(|known| known.len() <= NAME_BYTES_MAX)
        .map(|known| (distance(known), known))
        .filter(|(distance, _)| *distance <= distance_max)
        .min_by_key(|(distance, _)| *distance)
        .map_or_else(String::new, |(_, known)| format!(" (did you mean {known:?}?)"))
}

/// Case and the choice between `-` and `_` are no difference worth counting.
fn fold(name: &str) -> String {
    name.to_lowercase().replace('_', "-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_close_name_is_suggested_and_a_far_one_is_not() {
        let known = || ["required", "frozen", "unique-index", "id"].into_iter();
        assert_eq!(similar("requierd", known()), " (did you mean \"required\"?)");
        assert_eq!(similar("Unique_Index", known()), " (did you mean \"unique-index\"?)");
        assert_eq!(similar("ib", known()), " (did you mean \"id\"?)");
        assert_eq!(similar("colour", known()), "");
        assert_eq!(similar(&"required".repeat(100), known()), "");
    }
}
