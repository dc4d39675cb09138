//! Columns from what records hold: the slow path that only records with something new take.

use std::collections::HashSet;
use std::fmt;

use arrow::datatypes::DataType;
use serde::Deserializer;
use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};

use super::not_json;
use super::shape::{Member, Shape, Slot, Type};
use crate::contract::DeadMark;

/// How deep objects and arrays may stand in one another: deeper is no record but a mistake, and every level costs stack
/// in all readers of the table.
pub const DEPTH_MAX: usize = 32;

/// How many columns, structs taken apart, a table may come to have: names that are really values would otherwise add
/// columns for ever.
pub const COLUMNS_MAX: usize = 2000;

/// How many bytes a key may have that a column is made for: each is kept in the table's schema, which every change of
/// columns writes anew.
pub const KEY_BYTES_MAX: usize = 1024;

/// What one value was seen to be.
#[derive(Debug)]
enum Seen {
    Blank,
    Bool,
    /// The least and the greatest.
    Int(i64, i64),
    Float,
    Text,
    Object(Vec<(String, Seen)>),
    List(Box<Seen>),
}

/// Appends to `shape` what the record `text` brings, and widens what this batch brought. Changes nothing on error.
pub(super) fn learn(shape: &mut Shape, text: &str) -> Result<(), DeadMark> {
    let mut dead = None;
    let mut parser = serde_json::Deserializer::from_str(text);
    let seen = Look { depth: 0, dead: &mut dead }
        .deserialize(&mut parser)
        .and_then(|seen| parser.end().map(|()| seen))
        .map_err(|error| dead.unwrap_or_else(|| not_json(&error)))?;
    let Seen::Object(members) = seen else {
        return Err(mark("not_an_object", "the record is not an object".to_owned()));
    };
    let mut path = Vec::new();
    let added = plan_members(shape, &members, &mut path)?;
    if added > 0 && shape.leaves() + added > COLUMNS_MAX {
        let message = format!("the record would give the table more than {COLUMNS_MAX} columns");
        return Err(mark("too_many_columns", message));
    }
    apply_members(shape, members);
    Ok(())
}

fn mark(code: &'static str, message: String) -> DeadMark {
    DeadMark { code, message }
}

/// How many columns `members` add, or why they do not fit.
fn plan_members<'n>(shape: &Shape, members: &'n [(String, Seen)], path: &mut Vec<&'n str>) -> Result<usize, DeadMark> {
    let mut added = 0;
    let mut new: HashSet<&str> = HashSet::new();
    for (hint, (name, seen)) in members.iter().enumerate() {
        path.push(name);
        if let Some(index) = shape.find(name, hint) {
            added += plan(&shape.members[index].slot, seen, path)?;
        } else {
            added += plan_new(seen, path)?;
            if leaves(seen) > 0 && !new.insert(name) {
                return Err(mark("ambiguous_field", format!("the field {} stands twice", path.join("."))));
            }
        }
        path.pop();
    }
    let missing = |member: &&Member| member.slot.required && !members.iter().any(|(name, _)| *name == member.name);
    if let Some(member) = shape.members.iter().filter(|_| shape.any_required).find(missing) {
        return Err(mark("missing_field", format!("{} is missing", member.name)));
    }
    Ok(added)
}

/// How many columns a field adds that there is none for, its own fields included.
fn plan_new<'n>(seen: &'n Seen, path: &mut Vec<&'n str>) -> Result<usize, DeadMark> {
    if path.last().is_some_and(|name| name.len() > KEY_BYTES_MAX) && leaves(seen) > 0 {
        let message = format!("a field's name has more than {KEY_BYTES_MAX} bytes");
        return Err(mark("key_too_long", message));
    }
    match seen {
        Seen::Object(members) => plan_members(&Shape::default(), members, path),
        Seen::List(item) => plan_new(item, path),
        _ => Ok(leaves(seen)),
    }
}

fn plan<'n>(slot: &Slot, seen: &'n Seen, path: &mut Vec<&'n str>) -> Result<usize, DeadMark> {
    match (&slot.kind, seen) {
        (Type::Bool, Seen::Bool)
        | (Type::Float | Type::Decimal, Seen::Int(..) | Seen::Float)
        | (Type::Text | Type::Moment | Type::Decimal, Seen::Text)
        | (Type::Other, _) => Ok(0),
        (Type::Int { min, max }, Seen::Int(least, greatest)) if min <= least && greatest <= max => Ok(0),
        (_, Seen::Blank) if !slot.required => Ok(0),
        // Up to 32 bits a whole number is the same as a double.
        (Type::Int { max, .. }, Seen::Float) if slot.known.is_none() || *max <= i32::MAX.into() => Ok(0),
        (Type::Int { .. }, Seen::Int(..)) => Ok(0),
        (Type::Struct(shape), Seen::Object(members)) => plan_members(shape, members, path),
        (Type::List(item), Seen::List(seen)) => plan(item, seen, path),
        (kind, _) => Err(mark("type_mismatch", format!("{} is not {}", path.join("."), kind.expected()))),
    }
}

/// The columns that a value makes; none while its type is not known.
fn leaves(seen: &Seen) -> usize {
    match seen {
        Seen::Blank => 0,
        Seen::Object(members) => members.iter().map(|(_, seen)| leaves(seen)).sum(),
        Seen::List(item) => leaves(item),
        _ => 1,
    }
}

fn apply_members(shape: &mut Shape, members: Vec<(String, Seen)>) {
    for (hint, (name, seen)) in members.into_iter().enumerate() {
        if let Some(index) = shape.find(&name, hint) {
            apply(&mut shape.members[index].slot, seen);
        } else if let Some(kind) = kind_of(seen) {
            shape.push(Member { name, slot: Slot::new(kind) });
        }
    }
}

fn apply(slot: &mut Slot, seen: Seen) {
    match (&mut slot.kind, seen) {
        (Type::Int { .. }, Seen::Float) => slot.widen(Type::Float, DataType::Float64),
        (Type::Int { min, max }, Seen::Int(least, greatest)) if least < *min || greatest > *max => {
            slot.widen(Type::Int { min: i64::MIN, max: i64::MAX }, DataType::Int64);
        }
        (Type::Struct(shape), Seen::Object(members)) => apply_members(shape, members),
        (Type::List(item), Seen::List(seen)) => apply(item, *seen),
        _ => {}
    }
}

fn kind_of(seen: Seen) -> Option<Type> {
    Some(match seen {
        Seen::Blank => return None,
        Seen::Bool => Type::Bool,
        Seen::Int(..) => Type::Int { min: i64::MIN, max: i64::MAX },
        Seen::Float => Type::Float,
        Seen::Text => Type::Text,
        Seen::List(item) => Type::List(Box::new(Slot::new(kind_of(*item)?))),
        Seen::Object(members) => {
            let mut shape = Shape::default();
            apply_members(&mut shape, members);
            if shape.members.is_empty() {
                return None;
            }
            Type::Struct(shape)
        }
    })
}

/// Joins what two elements of one list were seen to be.
fn join(a: Seen, b: Seen) -> Option<Seen> {
    Some(match (a, b) {
        (Seen::Blank, other) | (other, Seen::Blank) => other,
        (Seen::Bool, Seen::Bool) => Seen::Bool,
        (Seen::Text, Seen::Text) => Seen::Text,
        (Seen::Int(a, b), Seen::Int(c, d)) => Seen::Int(a.min(c), b.max(d)),
        (Seen::Int(..) | Seen::Float, Seen::Int(..) | Seen::Float) => Seen::Float,
        (Seen::List(a), Seen::List(b)) => Seen::List(Box::new(join(*a, *b)?)),
        (Seen::Object(a), Seen::Object(b)) => Seen::Object(join_members(a, b)?),
        _ => return None,
    })
}

fn join_members(mut a: Vec<(String, Seen)>, b: Vec<(String, Seen)>) -> Option<Vec<(String, Seen)>> {
    for (hint, (name, seen)) in b.into_iter().enumerate() {
        let at = match a.get(hint) {
            Some((other, _)) if *other == name => Some(hint),
            _ => a.iter().position(|(other, _)| *other == name),
        };
        if let Some(at) = at {
            let old = std::mem::replace(&mut a[at].1, Seen::Blank);
            a[at].1 = join(old, seen)?;
        } else {
            a.push((name, seen));
        }
    }
    Some(a)
}

struct Look<'d> {
    depth: usize,
    dead: &'d mut Option<DeadMark>,
}

impl Look<'_> {
    fn below<E: serde::de::Error>(&mut self) -> Result<Look<'_>, E> {
        if self.depth >= DEPTH_MAX {
            let message = format!("the record's objects and arrays stand deeper than {DEPTH_MAX}");
            return Err(self.fail("too_deep", message));
        }
        Ok(Look { depth: self.depth + 1, dead: self.dead })
    }

    fn fail<E: serde::de::Error>(&mut self, code: &'static str, message: String) -> E {
        *self.dead = Some(mark(code, message));
        E::custom(code)
    }
}

impl<'de> DeserializeSeed<'de> for Look<'_> {
    type Value = Seen;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Seen, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Look<'_> {
    type Value = Seen;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Seen, E> {
        Ok(Seen::Blank)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Seen, E> {
        Ok(Seen::Bool)
    }

    fn visit_i64<E>(self, value: i64) -> Result<Seen, E> {
        Ok(Seen::Int(value, value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Seen, E> {
        Ok(i64::try_from(value).map_or(Seen::Float, |value| Seen::Int(value, value)))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Seen, E> {
        Ok(Seen::Float)
    }

    fn visit_str<E>(self, _: &str) -> Result<Seen, E> {
        Ok(Seen::Text)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<Seen, A::Error> {
        let mut item = Seen::Blank;
        while let Some(next) = seq.next_element_seed(self.below()?)? {
            item = match join(item, next) {
                Some(item) => item,
                None => {
                    let message = "a list of the record holds values of different types".to_owned();
                    return Err(self.fail("type_mismatch", message));
                }
            };
        }
        Ok(Seen::List(Box::new(item)))
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Seen, A::Error> {
        let mut members: Vec<(String, Seen)> = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            if members.len() >= COLUMNS_MAX {
                let message = format!("an object of the record has more than {COLUMNS_MAX} members");
                return Err(self.fail("too_many_columns", message));
            }
            let seen = map.next_value_seed(self.below()?)?;
            members.push((name, seen));
        }
        Ok(Seen::Object(members))
    }
}

impl fmt::Debug for Look<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Look").field("depth", &self.depth).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(records: &[&str]) -> (Vec<String>, Vec<&'static str>) {
        let mut shape = Shape::default();
        let dead = records.iter().filter_map(|text| learn(&mut shape, text).err()).map(|dead| dead.code).collect();
        let fields = shape.schema().fields().iter().map(|f| format!("{} {}", f.name(), f.data_type())).collect();
        (fields, dead)
    }

    #[test]
    fn test_columns_wait_for_a_type() {
        let (fields, dead) = after(&[r#"{"a":null,"b":[],"c":{},"d":[{"x":null}],"e":1}"#, r#"{"b":["s"],"a":true}"#]);
        assert_eq!(fields.iter().map(|f| f.split(' ').next().expect("a name")).collect::<Vec<_>>(), ["e", "b", "a"]);
        assert!(dead.is_empty());
    }

    #[test]
    fn test_ints_and_floats_of_one_batch_become_floats_whatever_comes_first() {
        assert_eq!(after(&[r#"{"a":1}"#, r#"{"a":1.5}"#]).0, ["a Float64"]);
        assert_eq!(after(&[r#"{"a":1.5}"#, r#"{"a":1}"#]).0, ["a Float64"]);
        assert_eq!(after(&[r#"{"a":1}"#, r#"{"a":18446744073709551615}"#]).0, ["a Float64"]);
    }

    #[test]
    fn test_a_refused_record_adds_no_column() {
        let (fields, dead) = after(&[r#"{"a":1}"#, r#"{"new":1,"a":"text"}"#, r#"{"new":1,"new":2}"#]);
        assert_eq!((fields, dead), (vec!["a Int64".to_owned()], vec!["type_mismatch", "ambiguous_field"]));
        assert_eq!(after(&[r#"{"a":[1,"x"]}"#]).1, ["type_mismatch"]);
    }

    #[test]
    fn test_any_key_is_a_column() {
        let (fields, dead) = after(&[r#"{"":1,"a":1,"A":2,"_lf_epoch":3,"x y":{"_LF_x":1,"":2}}"#]);
        assert!(dead.is_empty());
        assert_eq!(fields.len(), 5);
    }

    #[test]
    fn test_depth_columns_and_keys_are_bounded() {
        let deep = |n: usize| format!("{}1{}", r#"{"a":"#.repeat(n), "}".repeat(n));
        assert_eq!(after(&[&deep(DEPTH_MAX), &deep(DEPTH_MAX + 1)]).1, ["too_deep"]);
        assert_eq!(after(&[&format!(r#"{{"a":{}}}"#, "[".repeat(100_000))]).1, ["too_deep"]);
        let wide = |from: usize, to: usize| {
            let members: Vec<_> = (from..to).map(|i| format!(r#""c{i}":1"#)).collect();
            format!("{{{}}}", members.join(","))
        };
        assert_eq!(after(&[&wide(0, COLUMNS_MAX), &wide(0, 3)]).1, Vec::<&str>::new());
        assert_eq!(after(&[&wide(0, COLUMNS_MAX), &wide(COLUMNS_MAX, COLUMNS_MAX + 1)]).1, ["too_many_columns"]);
        assert_eq!(after(&[&wide(0, COLUMNS_MAX + 1)]).1, ["too_many_columns"]);
        let long = |n: usize| "k".repeat(n);
        assert_eq!(after(&[&format!(r#"{{"{}":1}}"#, long(KEY_BYTES_MAX))]).1, Vec::<&str>::new());
        for text in [r#"{"KEY":1}"#, r#"{"a":{"KEY":1}}"#, r#"{"a":[{"b":1,"KEY":1}]}"#] {
            let text = text.replace("KEY", &long(KEY_BYTES_MAX + 1));
            assert_eq!(after(&[&text]), (vec![], vec!["key_too_long"]));
        }
    }
}
