//! The tree as serde sees it, so that each section is read by its worker's own type. Errors carry the place of the key
//! or value that they are about. It must not know any type.

use std::fmt::{self, Display};

use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Expected, IntoDeserializer, MapAccess,
    SeqAccess, Unexpected, VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;

use crate::problem::{Fault, Position, known};
use crate::scalar::Scalar;
use crate::tree::{Entry, Kind, Node};

/// Reads a value of a type.
pub(crate) fn read<T: DeserializeOwned>(node: &Node) -> Result<T, Fault> {
    T::deserialize(node).map_err(|error| error.or_at(node.at).0)
}

/// What serde says, with a place as soon as one is known.
#[derive(Debug)]
pub(crate) struct ReadError(Fault);

impl ReadError {
    fn said(message: String, hint: Option<String>) -> Self {
        Self(Fault { at: None, message, hint })
    }

    /// The innermost place is the one that helps.
    fn or_at(mut self, at: Position) -> Self {
        self.0.at.get_or_insert(at);
        self
    }
}

impl Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl std::error::Error for ReadError {}

impl de::Error for ReadError {
    fn custom<T: Display>(message: T) -> Self {
        Self::said(message.to_string(), None)
    }

    fn invalid_type(found: Unexpected<'_>, wanted: &dyn Expected) -> Self {
        let found = match found {
            Unexpected::Unit => "nothing".to_owned(),
            Unexpected::Map => "a map".to_owned(),
            Unexpected::Seq => "a list".to_owned(),
            other => other.to_string(),
        };
        Self::said(format!("wanted {wanted}, found {found}"), None)
    }

    fn invalid_value(found: Unexpected<'_>, wanted: &dyn Expected) -> Self {
        Self::said(format!("wanted {wanted}, found {found}"), None)
    }

    fn unknown_field(field: &str, wanted: &'static [&'static str]) -> Self {
        Self::said(format!("unknown key `{field}`"), Some(known(field, wanted.iter().copied())))
    }

    fn unknown_variant(variant: &str, wanted: &'static [&'static str]) -> Self {
        Self::said(format!("unknown word `{variant}`"), Some(known(variant, wanted.iter().copied())))
    }

    fn missing_field(field: &'static str) -> Self {
        Self::said(format!("the key `{field}` is missing"), None)
    }
}

fn visit_scalar<'de, V: Visitor<'de>>(scalar: &'de Scalar, visitor: V) -> Result<V::Value, ReadError> {
    match scalar {
        Scalar::Null => visitor.visit_unit(),
        Scalar::Bool(value) => visitor.visit_bool(*value),
        Scalar::Text(text) => visitor.visit_borrowed_str(text),
        Scalar::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
            (Some(value), _, _) => visitor.visit_u64(value),
            (None, Some(value), _) => visitor.visit_i64(value),
            (None, None, value) => visitor.visit_f64(value.unwrap_or_default()),
        },
    }
}

impl<'de> Deserializer<'de> for &'de Node {
    type Error = ReadError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        let read = match &self.kind {
            Kind::Scalar(scalar) | Kind::Variable { means: scalar, .. } => visit_scalar(scalar, visitor),
            Kind::List(items) => visitor.visit_seq(Items(items.iter())),
            Kind::Map(entries) => visitor.visit_map(Entries { rest: entries.iter(), value: None }),
        };
        read.map_err(|error| error.or_at(self.at))
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match &self.kind {
            Kind::Variable { text, .. } => {
                visitor.visit_borrowed_str(text).map_err(|error: ReadError| error.or_at(self.at))
            }
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        if self.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        visitor.visit_newtype_struct(self)
    }

    /// A section that is there and empty is one in which everything is left out.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        if self.is_null() {
            let nothing = Entries { rest: [].iter(), value: None };
            return visitor.visit_map(nothing).map_err(|error: ReadError| error.or_at(self.at));
        }
        if let Kind::Map(_) = self.kind {
            return self.deserialize_any(visitor);
        }
        Err(ReadError::said(format!("wanted a map, found {}", self.word()), None).or_at(self.at))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        let read = match &self.kind {
            Kind::Scalar(Scalar::Text(text)) | Kind::Variable { text, .. } => {
                visitor.visit_enum(IntoDeserializer::<ReadError>::into_deserializer(text.as_str()))
            }
            Kind::Map(entries) => match entries.as_slice() {
                [entry] => visitor.visit_enum(Variant(entry)),
                _ => {
                    Err(ReadError::said(format!("wanted a map with one key, found {}", entries.len()), None))
                }
            },
            _ => Err(ReadError::said(
                format!("wanted a word or a map with one key, found {}", self.word()),
                None,
            )),
        };
        read.map_err(|error| error.or_at(self.at))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct seq tuple
        tuple_struct map identifier ignored_any
    }
}

struct Items<'de>(std::slice::Iter<'de, Node>);

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = ReadError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, ReadError> {
        self.0.next().map(|node| seed.deserialize(node).map_err(|error| error.or_at(node.at))).transpose()
    }
}

struct Entries<'de> {
    rest: std::slice::Iter<'de, Entry>,
    value: Option<&'de Node>,
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = ReadError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, ReadError> {
        let Some(entry) = self.rest.next() else { return Ok(None) };
        self.value = Some(&entry.value);
        let key: StrDeserializer<'de, ReadError> = entry.key.as_str().into_deserializer();
        seed.deserialize(key).map(Some).map_err(|error| error.or_at(entry.key_at))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, ReadError> {
        let value =
            self.value.take().ok_or_else(|| de::Error::custom("a value was asked for before its key"))?;
        seed.deserialize(value).map_err(|error: ReadError| error.or_at(value.at))
    }
}

struct Variant<'de>(&'de Entry);

impl<'de> EnumAccess<'de> for Variant<'de> {
    type Error = ReadError;
    type Variant = &'de Node;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, &'de Node), ReadError> {
        let key: StrDeserializer<'de, ReadError> = self.0.key.as_str().into_deserializer();
        let variant = seed.deserialize(key).map_err(|error| error.or_at(self.0.key_at))?;
        Ok((variant, &self.0.value))
    }
}

impl<'de> VariantAccess<'de> for &'de Node {
    type Error = ReadError;

    fn unit_variant(self) -> Result<(), ReadError> {
        if self.is_null() {
            return Ok(());
        }
        Err(ReadError::said(format!("wanted nothing after this word, found {}", self.word()), None)
            .or_at(self.at))
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, ReadError> {
        seed.deserialize(self)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _length: usize, visitor: V) -> Result<V::Value, ReadError> {
        self.deserialize_any(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        self.deserialize_struct("", fields, visitor)
    }
}
