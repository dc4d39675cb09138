//! The strict look at each record before Arrow builds columns of it.
//!
//! Arrow's reader forgives missing commas, cuts `1.5` to a whole number and reads `"12"` as one; a source's mistakes
//! must not become data, so each record is held against the columns first. Nothing is copied or kept.

use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::not_json;
use super::shape::{Shape, Slot, Type};
use crate::contract::DeadMark;

/// What a record is to the columns that there are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Fits,
    /// It fits, and holds values for which there is no column.
    Surplus,
    Dead(DeadMark),
}

/// Holds the record `text` against `shape`. Values without a column are looked at only with `notice`.
pub(super) fn check(shape: &Shape, text: &str, notice: bool) -> Verdict {
    let mut run = Run { path: Vec::new(), dead: None, surplus: false, notice };
    let mut parser = serde_json::Deserializer::from_str(text);
    let result = Object { shape, run: &mut run }.deserialize(&mut parser).and_then(|()| parser.end());
    match result {
        Ok(()) if run.surplus => Verdict::Surplus,
        Ok(()) => Verdict::Fits,
        Err(error) => Verdict::Dead(run.dead.unwrap_or_else(|| not_json(&error))),
    }
}

struct Run<'s> {
    path: Vec<&'s str>,
    dead: Option<DeadMark>,
    surplus: bool,
    notice: bool,
}

impl Run<'_> {
    fn fail<E: serde::de::Error>(&mut self, code: &'static str, says: fmt::Arguments<'_>) -> E {
        let field = if self.path.is_empty() { "the record".to_owned() } else { self.path.join(".") };
        self.dead = Some(DeadMark { code, message: format!("{field} {says}") });
        E::custom(code)
    }

    fn mismatch<E: serde::de::Error>(&mut self, kind: &Type) -> E {
        self.fail("type_mismatch", format_args!("is not {}", kind.expected()))
    }
}

/// A record or a struct.
struct Object<'r, 's> {
    shape: &'s Shape,
    run: &'r mut Run<'s>,
}

impl<'de> DeserializeSeed<'de> for Object<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

/// Gives the visitor's scalar methods one body.
macro_rules! scalars {
    ($self:ident => $body:expr; $($method:ident: $type:ty),+) => {
        $(fn $method<E: serde::de::Error>($self, _: $type) -> Result<Self::Value, E> { $body })+
    };
}

impl Object<'_, '_> {
    fn no_object<E: serde::de::Error>(self) -> Result<(), E> {
        Err(self.run.fail("not_an_object", format_args!("is not an object")))
    }
}

impl<'de> Visitor<'de> for Object<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { shape, run } = self;
        let mut seen = vec![false; if shape.any_required { shape.members.len() } else { 0 }];
        let mut hint = 0;
        while let Some(index) = map.next_key_seed(Key { shape, hint })? {
            let Some(index) = index else {
                if run.notice && !run.surplus {
                    run.surplus = !map.next_value_seed(Blank)?;
                } else {
                    map.next_value::<IgnoredAny>()?;
                }
                continue;
            };
            hint = index + 1;
            let member = &shape.members[index];
            run.path.push(&member.name);
            map.next_value_seed(Value { slot: &member.slot, run })?;
            run.path.pop();
            if let Some(seen) = seen.get_mut(index) {
                *seen = true;
            }
        }
        let missing = shape.members.iter().zip(&seen).find(|(member, seen)| member.slot.required && !**seen);
        if let Some((member, _)) = missing {
            run.path.push(&member.name);
            let expected = member.slot.kind.expected();
            return Err(run.fail("missing_field", format_args!("is missing and must be {expected}")));
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<(), A::Error> {
        self.no_object()
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        self.no_object()
    }

    scalars!(self => self.no_object(); visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_f64: f64, visit_str: &str);
}

/// The index of a key.
struct Key<'s> {
    shape: &'s Shape,
    hint: usize,
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<usize>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Option<usize>, E> {
        Ok(self.shape.find(key, self.hint))
    }
}

/// A value with a column.
struct Value<'r, 's> {
    slot: &'s Slot,
    run: &'r mut Run<'s>,
}

impl<'de> DeserializeSeed<'de> for Value<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Value<'_, '_> {
    fn ok_if<E: serde::de::Error>(self, good: bool) -> Result<(), E> {
        if good { Ok(()) } else { Err(self.run.mismatch(&self.slot.kind)) }
    }
}

impl<'de> Visitor<'de> for Value<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E: serde::de::Error>(self, _: bool) -> Result<(), E> {
        let good = matches!(self.slot.kind, Type::Bool | Type::Other);
        self.ok_if(good)
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<(), E> {
        let good = match self.slot.kind {
            Type::Int { min, max } => (min..=max).contains(&value),
            Type::Float | Type::Decimal | Type::Other => true,
            _ => false,
        };
        self.ok_if(good)
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<(), E> {
        match i64::try_from(value) {
            Ok(value) => self.visit_i64(value),
            Err(_) => self.visit_f64(0.0),
        }
    }

    fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<(), E> {
        let good = matches!(self.slot.kind, Type::Float | Type::Decimal | Type::Other);
        self.ok_if(good)
    }

    fn visit_str<E: serde::de::Error>(self, _: &str) -> Result<(), E> {
        let good = matches!(self.slot.kind, Type::Text | Type::Moment | Type::Decimal | Type::Other);
        self.ok_if(good)
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        if self.slot.required {
            let expected = self.slot.kind.expected();
            return Err(self.run.fail("missing_field", format_args!("is null and must be {expected}")));
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Type::List(item) = &self.slot.kind else {
            if matches!(self.slot.kind, Type::Other) {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                return Ok(());
            }
            return self.ok_if(false);
        };
        while seq.next_element_seed(Value { slot: item, run: self.run })?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        match &self.slot.kind {
            Type::Struct(shape) => Object { shape, run: self.run }.visit_map(map),
            Type::Other => {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(())
            }
            _ => self.ok_if(false),
        }
    }
}

/// Whether a value says nothing about its type: null, or made of nothing but nulls.
struct Blank;

impl<'de> DeserializeSeed<'de> for Blank {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Blank {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<bool, E> {
        Ok(true)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<bool, A::Error> {
        // What stands deeper is left to the slow path, which bounds the depth.
        Ok(seq.next_element::<IgnoredAny>()?.is_none() || {
            while seq.next_element::<IgnoredAny>()?.is_some() {}
            false
        })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
        Ok(map.next_entry::<IgnoredAny, IgnoredAny>()?.is_none() || {
            while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            false
        })
    }

    scalars!(self => Ok(false); visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_f64: f64, visit_str: &str);
}
