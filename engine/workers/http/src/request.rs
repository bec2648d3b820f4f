//! What a function is told of a request: iii's object as JSON text, written in one pass without building a tree, with more
//! beside what iii says. It must not know what is done with it.

mod content;

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::IpAddr;

use hyper::HeaderMap;
use hyper::header::COOKIE;
use ringway_worker_kit::text::check_name;
use serde_json::{Map, Value};

use crate::auth::Identity;
use crate::problem::{Code, Problem};
use crate::route::Route;
use crate::routes::decoded;

pub(crate) use content::{Content, read, wants_multipart};

/// The most parameters of a query, and fields of a form.
pub(crate) const FIELDS_MAX: usize = 4096;

/// A request without its body.
#[derive(Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) route: &'a Route,
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    pub(crate) query: Option<&'a str>,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) params: &'a [&'a str],
    pub(crate) client: IpAddr,
    /// The SHA-256 of the certificate that the client showed, in hex.
    pub(crate) certificate: Option<&'a str>,
    pub(crate) request_id: &'a str,
}

/// Text of JSON as it grows.
#[derive(Debug, Default)]
pub(crate) struct Text(Vec<u8>);

impl Text {
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    pub(crate) fn raw(&mut self, text: &str) -> &mut Self {
        self.0.extend_from_slice(text.as_bytes());
        self
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// A text as JSON writes it.
    pub(crate) fn text(&mut self, text: &str) -> &mut Self {
        let plain = |byte: u8| byte >= 0x20 && byte != b'"' && byte != b'\\';
        if text.bytes().all(plain) { self.raw("\"").raw(text).raw("\"") } else { self.value(&text) }
    }

    pub(crate) fn value<T: serde::Serialize + ?Sized>(&mut self, value: &T) -> &mut Self {
        // Writing into memory does not fail, and what is written here has texts as keys.
        let _written = serde_json::to_writer(&mut self.0, value);
        self
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

impl Asked<'_> {
    /// The fields that come before the body, without a brace at either end.
    ///
    /// # Errors
    /// The query has too many parameters.
    pub(crate) fn write(&self, text: &mut Text) -> Result<(), Box<Problem>> {
        text.raw("\"query_params\":");
        let repeated = match self.query {
            None | Some("") => {
                text.raw("{}");
                None
            }
            Some(query) => {
                let fields = Fields::read(query.as_bytes())?;
                fields.write_last(text);
                fields.repeated().then_some(fields)
            }
        };
        if let Some(fields) = repeated {
            text.raw(",\"query_values\":");
            fields.write_all(text);
        }
        text.raw(",\"path_params\":{");
        for (at, (name, value)) in self.route.names.iter().zip(self.params).enumerate() {
            text.raw(if at == 0 { "" } else { "," }).raw(name).raw(":").text(&decoded(value));
        }
        text.raw("},\"headers\":");
        write_headers(text, self.headers);
        text.raw(",\"path\":").raw(&self.route.path_json).raw(",\"method\":\"").raw(self.method);
        text.raw("\",\"trigger\":").raw(&self.route.trigger).raw("\"").raw(self.method).raw("\"}");
        text.raw(",\"request_path\":").text(self.path);
        text.raw(",\"request_id\":").text(self.request_id);
        text.raw(",\"client\":{\"address\":\"").raw(&self.client.to_string()).raw("\"");
        if let Some(certificate) = self.certificate {
            text.raw(",\"certificate\":\"").raw(certificate).raw("\"");
        }
        text.raw("}");
        Ok(())
    }

    /// The whole object.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub(crate) fn object(
        &self,
        content: &Content,
        identity: Option<&Identity>,
        context: &Map<String, Value>,
    ) -> Result<Vec<u8>, Box<Problem>> {
        let mut text = Text::with_capacity(768 + content.bytes_about());
        text.raw("{");
        self.write(&mut text)?;
        if let Some(identity) = identity {
            text.raw(",\"auth\":").value(&identity.told());
        }
        if !context.is_empty() {
            text.raw(",\"context\":").value(context);
        }
        text.raw(",");
        content.write(&mut text);
        text.raw("}");
        Ok(text.into_bytes())
    }
}

/// Headers as an object of texts; what came several times is joined as RFC 9110 says.
fn write_headers(text: &mut Text, headers: &HeaderMap) {
    text.raw("{");
    for (at, name) in headers.keys().enumerate() {
        text.raw(if at == 0 { "\"" } else { ",\"" }).raw(name.as_str()).raw("\":");
        let mut values = headers.get_all(name).iter();
        let (first, second) = (values.next(), values.next());
        let readable =
            |value: &hyper::header::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        match (first, second) {
            (Some(value), None) => match std::str::from_utf8(value.as_bytes()) {
                Ok(value) => text.text(value),
                Err(_) => text.text(&readable(value)),
            },
            _ => {
                let between = if name == COOKIE { "; " } else { ", " };
                let all: Vec<String> = headers.get_all(name).iter().map(readable).collect();
                text.text(&all.join(between))
            }
        };
    }
    text.raw("}");
}

/// Names and values of a query or a form, in their order.
#[derive(Debug)]
pub(crate) struct Fields<'a> {
    /// Names in the order of their first coming, each with its values.
    by_name: Vec<(Cow<'a, str>, Vec<Cow<'a, str>>)>,
}

impl<'a> Fields<'a> {
    pub(crate) fn read(text: &'a [u8]) -> Result<Self, Box<Problem>> {
        let mut by_name: Vec<(Cow<'a, str>, Vec<Cow<'a, str>>)> = Vec::new();
        let mut places: HashMap<Cow<'a, str>, usize> = HashMap::new();
        for (count, (name, value)) in form_urlencoded::parse(text).enumerate() {
            if count == FIELDS_MAX {
                let text = format!("there are more than {FIELDS_MAX} parameters or fields");
                return Err(Problem::new(Code::InvalidBody, text));
            }
            check_name(&name).map_err(|text| Problem::new(Code::InvalidBody, text))?;
            let known = if by_name.len() < 8 {
                by_name.iter().position(|(known, _)| *known == name)
            } else {
                if places.is_empty() {
                    places = by_name.iter().enumerate().map(|(at, (name, _))| (name.clone(), at)).collect();
                }
                places.get(&name).copied()
            };
            if let Some(at) = known {
                by_name[at].1.push(value);
            } else {
                if !places.is_empty() {
                    places.insert(name.clone(), by_name.len());
                }
                by_name.push((name, vec![value]));
            }
        }
        Ok(Self { by_name })
    }

    fn repeated(&self) -> bool {
        self.by_name.iter().any(|(_, values)| values.len() > 1)
    }

    /// As iii does: of several values of a name the last.
    fn write_last(&self, text: &mut Text) {
        self.write_with(text, |text, values| {
            text.text(values.last().map_or("", |value| value));
        });
    }

    /// Every name with the list of its values.
    fn write_all(&self, text: &mut Text) {
        self.write_with(text, |text, values| {
            text.value(values);
        });
    }

    /// As a form is read: a text, or a list where a name came several times.
    pub(crate) fn write_form(&self, text: &mut Text) {
        self.write_with(text, |text, values| {
            match values {
                [value] => text.text(value),
                values => text.value(values),
            };
        });
    }

    fn write_with(&self, text: &mut Text, write: impl Fn(&mut Text, &[Cow<'a, str>])) {
        text.raw("{");
        for (at, (name, values)) in self.by_name.iter().enumerate() {
            text.raw(if at == 0 { "" } else { "," }).text(name).raw(":");
            write(text, values);
        }
        text.raw("}");
    }
}

#[cfg(test)]
mod tests;
