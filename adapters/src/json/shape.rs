//! Columns as the checks need them: what JSON each takes, and how to make the Arrow field again.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef};

/// The columns of a table or the members of a struct.
#[derive(Debug, Clone, Default)]
pub(super) struct Shape {
    pub(super) members: Vec<Member>,
    /// Only for shapes of many members; a few are found faster by looking at each.
    by_name: Option<HashMap<String, usize>>,
    /// Whether any member must not be null.
    pub(super) any_required: bool,
}

/// From this many members on a hash map beats looking at each.
const HASHED_FROM: usize = 12;

#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) name: String,
    pub(super) slot: Slot,
}

/// A column, a struct's member or a list's element.
#[derive(Debug, Clone)]
pub(super) struct Slot {
    pub(super) kind: Type,
    /// As the table has it; `None` for what this batch brought, which may still widen.
    pub(super) known: Option<FieldRef>,
    pub(super) required: bool,
}

#[derive(Debug, Clone)]
pub(super) enum Type {
    Bool,
    Int {
        min: i64,
        max: i64,
    },
    Float,
    Text,
    /// A string that Arrow reads as this type: timestamp, date.
    Moment,
    Decimal,
    Struct(Shape),
    List(Box<Slot>),
    /// A type that this crate does not make; Arrow judges the values.
    Other,
}

impl Shape {
    pub(super) fn of(schema: &Schema) -> Self {
        Self::of_fields(schema.fields())
    }

    fn of_fields(fields: &Fields) -> Self {
        let members = fields.iter().map(|field| Member { name: field.name().clone(), slot: Slot::of(field) }).collect();
        Self::new(members)
    }

    pub(super) fn new(members: Vec<Member>) -> Self {
        let mut shape = Self { members, by_name: None, any_required: false };
        shape.any_required = shape.members.iter().any(|member| member.slot.required);
        if shape.members.len() >= HASHED_FROM {
            let names = shape.members.iter().enumerate().map(|(index, member)| (member.name.clone(), index));
            shape.by_name = Some(names.collect());
        }
        shape
    }

    pub(super) fn push(&mut self, member: Member) {
        let mut members = std::mem::take(&mut self.members);
        members.push(member);
        *self = Self::new(members);
    }

    /// The index of `name`; `hint` is where it stood in the record before.
    pub(super) fn find(&self, name: &str, hint: usize) -> Option<usize> {
        if self.members.get(hint).is_some_and(|member| member.name == name) {
            return Some(hint);
        }
        match &self.by_name {
            Some(names) => names.get(name).copied(),
            None => self.members.iter().position(|member| member.name == name),
        }
    }

    /// Columns that hold values, structs taken apart.
    pub(super) fn leaves(&self) -> usize {
        self.members.iter().map(|member| member.slot.leaves()).sum()
    }

    pub(super) fn schema(&self) -> SchemaRef {
        Arc::new(Schema::new(self.fields()))
    }

    fn fields(&self) -> Fields {
        self.members.iter().map(|member| member.slot.field(&member.name)).collect()
    }
}

impl Slot {
    pub(super) fn new(kind: Type) -> Self {
        Self { kind, known: None, required: false }
    }

    fn of(field: &FieldRef) -> Self {
        Self { kind: Type::of(field.data_type()), known: Some(Arc::clone(field)), required: !field.is_nullable() }
    }

    /// Makes it a wider column, which still must not be null if it must not before.
    pub(super) fn widen(&mut self, kind: Type, data_type: DataType) {
        self.kind = kind;
        self.known = self.known.take().map(|field| Arc::new(field.as_ref().clone().with_data_type(data_type)));
    }

    pub(super) fn leaves(&self) -> usize {
        match &self.kind {
            Type::Struct(shape) => shape.leaves(),
            Type::List(item) => item.leaves(),
            _ => 1,
        }
    }

    fn field(&self, name: &str) -> FieldRef {
        let data_type = match (&self.kind, &self.known) {
            (Type::Struct(shape), _) => DataType::Struct(shape.fields()),
            (Type::List(item), known) => match known.as_ref().map(|field| field.data_type()) {
                Some(DataType::LargeList(old)) => DataType::LargeList(item.field(old.name())),
                Some(DataType::List(old)) => DataType::List(item.field(old.name())),
                _ => DataType::List(item.field("element")),
            },
            (_, Some(field)) => field.data_type().clone(),
            (Type::Bool, None) => DataType::Boolean,
            (Type::Int { .. }, None) => DataType::Int64,
            (Type::Float, None) => DataType::Float64,
            // Inference makes no other type.
            (_, None) => DataType::Utf8,
        };
        match &self.known {
            Some(field) if *field.data_type() == data_type => Arc::clone(field),
            Some(field) => Arc::new(field.as_ref().clone().with_data_type(data_type)),
            None => Arc::new(Field::new(name, data_type, true)),
        }
    }
}

impl Type {
    fn of(data_type: &DataType) -> Self {
        let int = |min, max| Self::Int { min, max };
        match data_type {
            DataType::Boolean => Self::Bool,
            DataType::Int8 => int(i8::MIN.into(), i8::MAX.into()),
            DataType::Int16 => int(i16::MIN.into(), i16::MAX.into()),
            DataType::Int32 => int(i32::MIN.into(), i32::MAX.into()),
            DataType::Int64 => int(i64::MIN, i64::MAX),
            DataType::Float32 | DataType::Float64 => Self::Float,
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Self::Text,
            DataType::Timestamp(..) | DataType::Date32 => Self::Moment,
            DataType::Decimal128(..) => Self::Decimal,
            DataType::Struct(fields) => Self::Struct(Shape::of_fields(fields)),
            DataType::List(item) | DataType::LargeList(item) => Self::List(Box::new(Slot::of(item))),
            _ => Self::Other,
        }
    }

    /// What a message calls it.
    pub(super) fn expected(&self) -> &'static str {
        match self {
            Self::Bool => "true or false",
            Self::Int { min, .. } if *min == i64::MIN => "a whole number of 64 bits",
            Self::Int { .. } => "a whole number in the column's range",
            Self::Float => "a number",
            Self::Text => "a string",
            Self::Moment => "a date or an RFC 3339 time as a string",
            Self::Decimal => "a number of the column's digits",
            Self::Struct(_) => "an object",
            Self::List(_) => "an array",
            Self::Other => "a value of the column's type",
        }
    }
}
