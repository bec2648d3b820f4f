//! Events of `text/event-stream` (the HTML standard, section 9.2.6). It must not know where they come from.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

/// An item that says what its event is called: `{"type":"sse","event":…,"id":…,"retry":…,"data":…}`.
#[derive(Debug, Deserialize)]
struct Said<'a> {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    event: Option<String>,
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    retry: Option<u64>,
    #[serde(default, borrow)]
    data: Option<&'a RawValue>,
}

/// The event of an item, which is JSON.
pub(crate) fn item(text: &[u8]) -> Bytes {
    let likely = text.starts_with(b"{") && text.windows(5).any(|bytes| bytes == b"\"sse\"");
    let said = if likely { serde_json::from_slice::<Said<'_>>(text).ok() } else { None };
    let Some(said) = said.filter(|said| said.kind == "sse") else { return event(None, None, text) };
    let data = said.data.map_or("null", RawValue::get);
    // A text is sent as it is, as those who write events by hand do.
    let plain = serde_json::from_str::<String>(data).ok();
    let mut bytes = Vec::new();
    if let Some(retry) = said.retry {
        bytes.extend_from_slice(format!("retry: {retry}\n").as_bytes());
    }
    let rest = event(said.event.as_deref(), said.id.as_deref(), plain.as_deref().unwrap_or(data).as_bytes());
    bytes.extend_from_slice(&rest);
    Bytes::from(bytes)
}

/// An event of a name and an id with some data, whose lines stay lines.
pub(crate) fn event(name: Option<&str>, id: Option<&str>, data: &[u8]) -> Bytes {
    let mut bytes = Vec::with_capacity(data.len() + 16);
    for (field, value) in [("event", name), ("id", id)] {
        // A line break would begin another field, a zero byte has no meaning there.
        if let Some(value) = value.filter(|value| !value.contains(['\n', '\r', '\0'])) {
            bytes.extend_from_slice(format!("{field}: {value}\n").as_bytes());
        }
    }
    let text = String::from_utf8_lossy(data).replace("\r\n", "\n").replace('\r', "\n");
    for line in text.split('\n') {
        bytes.extend_from_slice(b"data: ");
        bytes.extend_from_slice(line.as_bytes());
        bytes.push(b'\n');
    }
    bytes.push(b'\n');
    Bytes::from(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn items_are_events() {
        for (text, expected) in [
            (r#"{"a":1}"#, "data: {\"a\":1}\n\n"),
            ("[\n1]", "data: [\ndata: 1]\n\n"),
            (
                r#"{"type":"sse","event":"tick","id":"7","retry":10,"data":"two\nlines"}"#,
                "retry: 10\nevent: tick\nid: 7\ndata: two\ndata: lines\n\n",
            ),
            (r#"{"type":"sse","event":"x\ndata: evil","data":1}"#, "data: 1\n\n"),
            (r#"{"type":"other","data":"sse"}"#, "data: {\"type\":\"other\",\"data\":\"sse\"}\n\n"),
        ] {
            assert_eq!(String::from_utf8(item(text.as_bytes()).to_vec()).unwrap(), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_data_ends_its_event(name in "[a\\n\\r:]{0,4}", data in "[a\\n\\r:]{0,12}") {
            let bytes = event(Some(&name), None, data.as_bytes());
            let text = String::from_utf8(bytes.to_vec()).unwrap();
            prop_assert_eq!(text.matches("\n\n").count(), 1);
            prop_assert!(text.ends_with("\n\n") && !text.contains('\r'));
            prop_assert!(text.lines().all(|line| line.is_empty() || line.starts_with("data: ") || line.starts_with("event: ")));
        }
    }
}
