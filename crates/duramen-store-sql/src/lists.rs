//! Lists (tags, waits) as one text. No item is empty or has the separator in it.

/// Stands between the items.
pub const SEPARATOR: char = '\u{1f}';

/// `["a", "b"]` as `a␟b`; none if the list is empty. For databases that have lists themselves, while a
/// list is on its way.
pub fn join(items: &[String]) -> Option<String> {
    (!items.is_empty()).then(|| items.join("\u{1f}"))
}

/// The inverse of [`join`].
pub fn split(text: Option<&str>) -> Vec<String> {
    text.map(|text| text.split(SEPARATOR).map(str::to_owned).collect())
        .unwrap_or_default()
}

/// `["a", "b"]` as `␟a␟b␟`, so that an item is found with its separators around it; an empty list is the
/// empty text. For databases that have no lists.
pub fn enclose(items: &[String]) -> String {
    if items.is_empty() {
        return String::new();
    }
    let length: usize = items.iter().map(|item| item.len() + 1).sum();
    let mut text = String::with_capacity(length + 1);
    text.push(SEPARATOR);
    for item in items {
        text.push_str(item);
        text.push(SEPARATOR);
    }
    text
}

/// The inverse of [`enclose`].
pub fn disclose(text: &str) -> Vec<String> {
    let inner = text
        .strip_prefix(SEPARATOR)
        .and_then(|text| text.strip_suffix(SEPARATOR));
    split(inner)
}

/// What an enclosed list with this item has in it; none if no list can have such an item.
pub fn sought(item: &str) -> Option<String> {
    (!item.is_empty() && !item.contains(SEPARATOR)).then(|| format!("{SEPARATOR}{item}{SEPARATOR}"))
}

/// Whether an enclosed list has an item.
pub fn has(text: &str, item: &str) -> bool {
    text.split(SEPARATOR)
        .any(|found| found == item && !item.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(items: &[&str]) -> Vec<String> {
        items.iter().map(|&item| item.to_owned()).collect()
    }

    #[test]
    fn lists_round_trip() {
        for items in [&[][..], &["a"], &["event:x", "event:xy", "timer"]] {
            let items = owned(items);
            assert_eq!(disclose(&enclose(&items)), items);
            assert_eq!(split(join(&items).as_deref()), items);
        }
    }

    #[test]
    fn an_item_is_found_only_whole() {
        let text = enclose(&owned(&["event:xy", "timer"]));
        for (item, there) in [("event:xy", true), ("timer", true), ("event:x", false)] {
            assert_eq!(has(&text, item), there, "{item}");
            let sought = sought(item).unwrap();
            assert_eq!(text.contains(&sought), there, "{item}");
        }
        assert!(!has(&text, ""));
        assert!(!has("", "timer"));
        assert_eq!(sought(""), None);
        assert_eq!(sought("event:xy\u{1f}timer"), None);
    }
}
