//! The body of a request as a function is told of it: JSON as it came, a form as an object, a text, files and bytes in
//! base64. It must not know how it came.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::stream;
use ringway_worker_kit::text::{check, check_name};
use serde_json::{Map, Value, json};

use super::{FIELDS_MAX, Fields, Text};
use crate::config::route::BodyMode;
use crate::problem::{Code, Problem};

/// A body that was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Content {
    /// None, or one that comes as a stream.
    #[default]
    Nothing,
    /// JSON as it came, checked.
    Json(Bytes),
    /// Something that was made JSON of.
    Made(Vec<u8>),
    /// Bytes.
    Bytes(Bytes),
    /// Fields and files.
    Parts { fields: Map<String, Value>, files: Vec<Value> },
}

impl Content {
    /// About how much it takes as JSON.
    pub(crate) fn bytes_about(&self) -> usize {
        match self {
            Self::Nothing | Self::Parts { .. } => 16,
            Self::Json(text) => text.len(),
            Self::Made(text) => text.len(),
            Self::Bytes(bytes) => bytes.len() / 3 * 4 + 32,
        }
    }

    /// The field `body`, and what stands beside it.
    pub(crate) fn write(&self, text: &mut Text) {
        match self {
            Self::Nothing => text.raw("\"body\":null"),
            Self::Json(json) => text.raw("\"body\":").bytes(json),
            Self::Made(json) => text.raw("\"body\":").bytes(json),
            Self::Bytes(bytes) => {
                text.raw("\"body\":null,\"body_base64\":\"").raw(&STANDARD.encode(bytes)).raw("\"")
            }
            Self::Parts { fields, files } => {
                text.raw("\"body\":").value(fields).raw(",\"files\":").value(files)
            }
        };
    }
}

/// The type of a body, without its parameters, in small letters.
fn essence(content_type: &str) -> String {
    content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Whether this is the type of a form with files.
pub(crate) fn wants_multipart(content_type: Option<&str>) -> bool {
    content_type.is_some_and(|content_type| essence(content_type) == "multipart/form-data")
}

/// Reads a body as its type says, or as the route wants it.
///
/// # Errors
/// It is none of that type.
pub(crate) async fn read(
    mode: BodyMode,
    content_type: Option<&str>,
    body: &Bytes,
) -> Result<Content, Box<Problem>> {
    if body.is_empty() {
        return Ok(Content::Nothing);
    }
    let kind = content_type.map(essence).unwrap_or_default();
    match (mode, kind.as_str()) {
        (BodyMode::Stream, _) => Ok(Content::Nothing),
        (BodyMode::Bytes, _) => Ok(Content::Bytes(body.clone())),
        (BodyMode::Text, _) => text(body),
        (BodyMode::Json, _) => json(body),
        (BodyMode::Auto, "application/json") => json(body),
        (BodyMode::Auto, kind) if kind.starts_with("application/") && kind.ends_with("+json") => json(body),
        (BodyMode::Auto, "application/x-www-form-urlencoded") => {
            let mut text = Text::default();
            Fields::read(body)?.write_form(&mut text);
            Ok(Content::Made(text.into_bytes()))
        }
        (BodyMode::Auto, "multipart/form-data") => {
            Box::pin(parts(content_type.unwrap_or_default(), body)).await
        }
        (BodyMode::Auto, kind) if kind.starts_with("text/") => text(body),
        (BodyMode::Auto, _) => Ok(Content::Bytes(body.clone())),
    }
}

fn wrong(text: String) -> Box<Problem> {
    Problem::new(Code::InvalidBody, text)
}

fn json(body: &Bytes) -> Result<Content, Box<Problem>> {
    check(body).map_err(|error| wrong(format!("the body cannot be read as JSON: {error}")))?;
    Ok(Content::Json(body.slice_ref(body.trim_ascii())))
}

fn text(body: &Bytes) -> Result<Content, Box<Problem>> {
    let read =
        std::str::from_utf8(body).map_err(|error| wrong(format!("the body is no text of UTF-8: {error}")))?;
    let mut text = Text::with_capacity(read.len() + 2);
    text.text(read);
    Ok(Content::Made(text.into_bytes()))
}

async fn parts(content_type: &str, body: &Bytes) -> Result<Content, Box<Problem>> {
    let unreadable = |error: multer::Error| wrong(format!("the parts of the body cannot be read: {error}"));
    let boundary = multer::parse_boundary(content_type).map_err(unreadable)?;
    let whole = stream::once(std::future::ready(Ok::<_, std::convert::Infallible>(body.clone())));
    let mut parts = multer::Multipart::new(whole, boundary);
    let (mut fields, mut files, mut count) = (Map::new(), Vec::new(), 0);
    while let Some(part) = parts.next_field().await.map_err(unreadable)? {
        count += 1;
        if count > FIELDS_MAX {
            return Err(wrong(format!("the body has more than {FIELDS_MAX} parts")));
        }
        let name = part.name().unwrap_or_default().to_owned();
        check_name(&name).map_err(wrong)?;
        let file_name = part.file_name().map(str::to_owned);
        let content_type = part.content_type().map(ToString::to_string);
        let bytes = part.bytes().await.map_err(unreadable)?;
        let text = if file_name.is_none() { std::str::from_utf8(&bytes).ok() } else { None };
        if let Some(text) = text {
            add(&mut fields, name, text.into());
        } else {
            files.push(json!({
                "name": name,
                "file_name": file_name,
                "content_type": content_type,
                "bytes": bytes.len(),
                "base64": STANDARD.encode(&bytes),
            }));
        }
    }
    Ok(Content::Parts { fields, files })
}

/// Adds a field; one that is there becomes a list.
fn add(fields: &mut Map<String, Value>, name: String, value: Value) {
    match fields.get_mut(&name) {
        None => {
            fields.insert(name, value);
        }
        Some(Value::Array(all)) => all.push(value),
        Some(one) => *one = Value::Array(vec![one.take(), value]),
    }
}
