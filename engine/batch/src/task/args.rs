//! Arguments as a job file gives them, for whatever type a task takes: a deserializer that knows where
//! in the file each value stands.
//!
//! A text that placeholders have made may be a number or a boolean where the type wants one, for the
//! values of a matrix are texts; any other text is a text.

use std::fmt;

use serde::de::value::{MapAccessDeserializer, MapDeserializer, SeqDeserializer, StrDeserializer};
use serde::de::{
    DeserializeOwned, Deserializer, Error, Expected, IntoDeserializer, Unexpected, Visitor,
};
use serde::forward_to_deserialize_any;

use crate::job_file::Arg;
use crate::read::nearest;
use crate::source::{Span, Spanned};

/// A text of the arguments, its placeholders replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Filled {
    pub(crate) text: String,
    /// It had placeholders.
    pub(crate) is_made: bool,
}

/// The arguments of a job, always a table.
pub(crate) type Args = Spanned<Arg<Filled>>;

/// Why a task cannot take its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ArgError {
    pub(crate) message: String,
    pub(crate) help: Option<String>,
    /// The value, or the key, that it is about.
    pub(crate) span: Option<Span>,
}

impl ArgError {
    /// The innermost place is the one to show.
    fn at(mut self, span: &Span) -> ArgError {
        self.span.get_or_insert_with(|| span.clone());
        self
    }
}

impl fmt::Display for ArgError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ArgError {}

impl Error for ArgError {
    fn custom<T: fmt::Display>(message: T) -> ArgError {
        ArgError {
            message: message.to_string(),
            help: None,
            span: None,
        }
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> ArgError {
        ArgError {
            help: Some(spelling(field, expected)),
            ..ArgError::custom(format_args!("unknown field `{field}`"))
        }
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> ArgError {
        ArgError {
            help: Some(spelling(variant, expected)),
            ..ArgError::custom(format_args!("unknown variant `{variant}`"))
        }
    }
}

fn spelling(word: &str, known: &[&str]) -> String {
    match nearest(word, known) {
        Some(near) => format!("did you mean `{near}`?"),
        None if known.is_empty() => "there are none".to_owned(),
        None => format!("there are {}", known.join(", ")),
    }
}

/// The arguments as a task's type.
pub(super) fn read<A: DeserializeOwned>(args: &Args) -> Result<A, ArgError> {
    A::deserialize(Node(args))
}

/// A value with its place.
#[derive(Clone, Copy)]
struct Node<'a>(&'a Args);

impl<'a> Node<'a> {
    fn text(self, text: &'a Filled) -> Text<'a> {
        Text {
            text: &text.text,
            is_made: text.is_made,
            span: &self.0.span,
        }
    }
}

/// A text, or a key.
#[derive(Clone, Copy)]
struct Text<'a> {
    text: &'a str,
    is_made: bool,
    span: &'a Span,
}

/// Each method parses a text that was made, where that gives a value of the type; the other one hands on
/// to it.
macro_rules! made {
    ($($method:ident $visit:ident $type:ty,)*) => {
        impl<'de> Deserializer<'de> for Text<'_> {
            type Error = ArgError;

            $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ArgError> {
                match self.text.trim().parse::<$type>() {
                    Ok(value) if self.is_made => {
                        visitor.$visit(value).map_err(|error: ArgError| error.at(self.span))
                    }
                    _ => self.deserialize_any(visitor),
                }
            })*

            fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ArgError> {
                let visited = visitor.visit_str(self.text);
                visited.map_err(|error: ArgError| error.at(self.span))
            }

            fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ArgError> {
                visitor.visit_some(self)
            }

            fn deserialize_newtype_struct<V: Visitor<'de>>(
                self,
                _: &'static str,
                visitor: V,
            ) -> Result<V::Value, ArgError> {
                visitor.visit_newtype_struct(self)
            }

            fn deserialize_enum<V: Visitor<'de>>(
                self,
                _: &'static str,
                _: &'static [&'static str],
                visitor: V,
            ) -> Result<V::Value, ArgError> {
                let variant = StrDeserializer::<ArgError>::new(self.text);
                visitor.visit_enum(variant).map_err(|error| error.at(self.span))
            }

            forward_to_deserialize_any! {
                char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map struct
                identifier ignored_any
            }
        }

        impl<'de> Deserializer<'de> for Node<'_> {
            type Error = ArgError;

            $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ArgError> {
                match &self.0.value {
                    Arg::Text(text) => self.text(text).$method(visitor),
                    _ => self.deserialize_any(visitor),
                }
            })*

            fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ArgError> {
                let visited = match &self.0.value {
                    Arg::Text(text) => visitor.visit_str(&text.text),
                    Arg::Integer(number) => visitor.visit_i64(*number),
                    Arg::Number(number) => visit_number(number, visitor),
                    Arg::Bool(value) => visitor.visit_bool(*value),
                    Arg::Null => visitor.visit_unit(),
                    Arg::List(list) => {
                        let mut items = SeqDeserializer::new(list.iter().map(Node));
                        visitor
                            .visit_seq(&mut items)
                            .and_then(|value| items.end().map(|()| value))
                    }
                    Arg::Table(table) => {
                        let mut entries = MapDeserializer::new(table.iter().map(entry));
                        visitor
                            .visit_map(&mut entries)
                            .and_then(|value| entries.end().map(|()| value))
                    }
                };
                visited.map_err(|error: ArgError| error.at(&self.0.span))
            }

            fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ArgError> {
                match &self.0.value {
                    Arg::Null => visitor.visit_none(),
                    _ => visitor.visit_some(self),
                }
            }

            fn deserialize_newtype_struct<V: Visitor<'de>>(
                self,
                _: &'static str,
                visitor: V,
            ) -> Result<V::Value, ArgError> {
                visitor.visit_newtype_struct(self)
            }

            /// No arguments are what a task without any takes.
            fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ArgError> {
                match &self.0.value {
                    Arg::Table(table) if table.is_empty() => visitor.visit_unit(),
                    _ => self.deserialize_any(visitor),
                }
            }

            fn deserialize_unit_struct<V: Visitor<'de>>(
                self,
                _: &'static str,
                visitor: V,
            ) -> Result<V::Value, ArgError> {
                self.deserialize_unit(visitor)
            }

            fn deserialize_enum<V: Visitor<'de>>(
                self,
                name: &'static str,
                variants: &'static [&'static str],
                visitor: V,
            ) -> Result<V::Value, ArgError> {
                let visited = match &self.0.value {
                    Arg::Text(text) => self.text(text).deserialize_enum(name, variants, visitor),
                    Arg::Table(table) if table.len() == 1 => {
                        let entries = MapDeserializer::new(table.iter().map(entry));
                        visitor.visit_enum(MapAccessDeserializer::new(entries))
                    }
                    _ => {
                        let wanted: &dyn Expected =
                            &"a variant: its name, or a table with its name as the only key";
                        Err(ArgError::invalid_type(self.unexpected(), wanted))
                    }
                };
                visited.map_err(|error: ArgError| error.at(&self.0.span))
            }

            forward_to_deserialize_any! {
                char str string bytes byte_buf seq tuple tuple_struct map struct identifier
                ignored_any
            }
        }
    };
}

made! {
    deserialize_bool visit_bool bool,
    deserialize_i8 visit_i8 i8,
    deserialize_i16 visit_i16 i16,
    deserialize_i32 visit_i32 i32,
    deserialize_i64 visit_i64 i64,
    deserialize_i128 visit_i128 i128,
    deserialize_u8 visit_u8 u8,
    deserialize_u16 visit_u16 u16,
    deserialize_u32 visit_u32 u32,
    deserialize_u64 visit_u64 u64,
    deserialize_u128 visit_u128 u128,
    deserialize_f32 visit_f32 f32,
    deserialize_f64 visit_f64 f64,
}

impl Node<'_> {
    fn unexpected(&self) -> Unexpected<'_> {
        match &self.0.value {
            Arg::Text(text) => Unexpected::Str(&text.text),
            Arg::Integer(number) => Unexpected::Signed(*number),
            Arg::Number(number) => Unexpected::Other(number),
            Arg::Bool(value) => Unexpected::Bool(*value),
            Arg::Null => Unexpected::Unit,
            Arg::List(_) => Unexpected::Seq,
            Arg::Table(_) => Unexpected::Map,
        }
    }
}

/// A number that 64 bits with a sign do not hold.
fn visit_number<'de, V: Visitor<'de>>(number: &str, visitor: V) -> Result<V::Value, ArgError> {
    if let Ok(whole) = number.parse::<u64>() {
        return visitor.visit_u64(whole);
    }
    match number.parse::<f64>() {
        Ok(real) => visitor.visit_f64(real),
        Err(_) => Err(ArgError::invalid_value(
            Unexpected::Other(number),
            &"a number",
        )),
    }
}

fn entry<'a>((key, value): &'a (Spanned<String>, Args)) -> (Text<'a>, Node<'a>) {
    // The keys of a table are texts, also where those of a type are numbers.
    let key = Text {
        text: &key.value,
        is_made: true,
        span: &key.span,
    };
    (key, Node(value))
}

impl<'de> IntoDeserializer<'de, ArgError> for Node<'_> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> IntoDeserializer<'de, ArgError> for Text<'_> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn node<T>(value: T, span: Span) -> Spanned<T> {
        Spanned { value, span }
    }

    fn text(text: &str, is_made: bool) -> Arg<Filled> {
        let text = text.to_owned();
        Arg::Text(Filled { text, is_made })
    }

    /// A table at 0..100; each value is at its place, ten bytes each, its key before it.
    fn table(entries: &[(&str, Arg<Filled>)]) -> Args {
        let entries = entries.iter().zip(1..).map(|((key, value), at)| {
            let key = node((*key).to_owned(), at * 10 - 5..at * 10);
            (key, node(value.clone(), at * 10..at * 10 + 5))
        });
        node(Arg::Table(entries.collect()), 0..100)
    }

    #[derive(Debug, PartialEq, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Resize {
        input: String,
        width: u32,
        #[serde(default)]
        keeps: Option<bool>,
        #[serde(default)]
        kind: Kind,
    }

    #[derive(Debug, Default, PartialEq, serde::Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Kind {
        #[default]
        Png,
        Jpeg {
            quality: f32,
        },
        Raw(u8),
    }

    #[test]
    fn a_type_gets_its_values() {
        let input = ("input", text("a.png", false));
        let args = table(&[input.clone(), ("width", Arg::Integer(640))]);
        let expected = Resize {
            input: "a.png".into(),
            width: 640,
            keeps: None,
            kind: Kind::Png,
        };
        assert_eq!(read(&args), Ok(expected));
        let quality = table(&[("quality", Arg::Number("0.5".into()))]).value;
        let args = table(&[
            input,
            ("width", text(" 12 ", true)),
            ("keeps", text("true", true)),
            ("kind", table(&[("jpeg", quality)]).value),
        ]);
        let expected = Resize {
            input: "a.png".into(),
            width: 12,
            keeps: Some(true),
            kind: Kind::Jpeg { quality: 0.5 },
        };
        assert_eq!(read(&args), Ok(expected));
        let raw = table(&[("raw", text("7", true))]);
        assert_eq!(read(&raw), Ok(Kind::Raw(7)));
    }

    #[test]
    fn a_mistake_has_the_innermost_place() {
        let place = |entries: &[(&str, Arg<Filled>)]| {
            let error = read::<Resize>(&table(entries)).expect_err("it is wrong");
            (error.message, error.span.expect("it has a place"))
        };
        let input = ("input", text("a.png", false));
        let width = ("width", Arg::Integer(640));
        assert_eq!(
            place(&[input.clone(), ("width", text("640", false))]),
            ("invalid type: string \"640\", expected u32".into(), 20..25),
            "a text that nobody made is no number"
        );
        assert_eq!(
            place(&[input.clone(), ("width", Arg::Integer(-1))]),
            ("invalid value: integer `-1`, expected u32".into(), 20..25)
        );
        assert_eq!(
            place(&[input.clone(), width.clone(), ("wdith", Arg::Null)]),
            ("unknown field `wdith`".into(), 25..30)
        );
        assert_eq!(
            place(std::slice::from_ref(&width)),
            ("missing field `input`".into(), 0..100)
        );
        assert_eq!(
            place(&[input, width, ("kind", text("gif", false))]),
            ("unknown variant `gif`".into(), 30..35)
        );
    }

    #[test]
    fn no_arguments_are_the_unit_and_an_empty_type() {
        assert_eq!(read(&table(&[])), Ok(()));
        let empty: HashMap<String, u8> = read(&table(&[])).expect("a map may be empty");
        assert!(empty.is_empty());
        assert!(read::<()>(&table(&[("x", Arg::Null)])).is_err());
    }

    #[test]
    fn numbers_of_all_sizes_and_keys_that_are_numbers() {
        let large = table(&[("7", Arg::Number(u64::MAX.to_string()))]);
        let read: HashMap<u8, u64> = super::read(&large).expect("it is one");
        assert_eq!(read, HashMap::from([(7, u64::MAX)]));
        let list = Arg::List(vec![
            node(Arg::Integer(1), 11..12),
            node(Arg::Integer(2), 12..13),
        ]);
        let error = super::read::<HashMap<String, [u8; 1]>>(&table(&[("x", list)]));
        assert_eq!(error.expect_err("it is too long").span, Some(10..15));
    }
}
