//! How a table's columns grow: new ones behind the old, new fields within structs, and types that widen without loss.

use std::collections::HashSet;
use std::sync::Arc;

use adapters::contract::columns::{KEY, caseless, is_column_name, key_of, with_key};
use arrow::array::new_null_array;
use arrow::array::{Array, ArrayRef, AsArray, ListArray, MapArray, RecordBatch, RecordBatchOptions, StructArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef};
use arrow::error::ArrowError;

use super::columns::{LF_COLUMNS, normalise};

/// Why a column could not be taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misfit {
    /// Its type is one that no table holds.
    UnsupportedType,
    /// [`join`] cannot bring its type together with the known one.
    TypeMismatch,
    /// Delta cannot carry its name, or another column has it, if in another case.
    Name,
    /// The column of this name holds another key, or another column says that it holds this one; or so do fields within.
    Key,
}

/// Columns that could not be taken over, by name.
pub(crate) type Unfit = Vec<(String, Misfit)>;

/// `known` with what `found` brings, column by column of the same name, and what of it does not fit.
#[must_use]
pub fn merge_columns(known: Option<&SchemaRef>, found: &SchemaRef) -> (SchemaRef, Vec<(String, Misfit)>) {
    let mut fields: Vec<FieldRef> = known.map(|s| s.fields().iter().cloned().collect()).unwrap_or_default();
    let mut names: HashSet<String> = fields.iter().map(|f| caseless(f.name())).collect();
    let said = |field: &FieldRef| field.metadata().get(KEY).cloned();
    let mut keys: HashSet<String> = fields.iter().filter_map(said).collect();
    let mut unfit = Unfit::new();
    for field in found.fields() {
        let name = field.name();
        let fitting = normalise(field.data_type());
        let mut misfit = |why| unfit.push((name.clone(), why));
        if let Some(mine) = fields.iter_mut().find(|f| f.name() == name) {
            match fitting.and_then(|fitting| join(mine.data_type(), &fitting)) {
                _ if key_of(mine) != key_of(field) => misfit(Misfit::Key),
                None if names_clash(mine.data_type(), field.data_type()) => misfit(Misfit::Key),
                None => misfit(Misfit::TypeMismatch),
                Some(joined) if joined == *mine.data_type() => {}
                Some(joined) => *mine = Arc::new(mine.as_ref().clone().with_data_type(joined)),
            }
        } else if !is_column_name(name) || LF_COLUMNS.contains(&name.as_str()) || names.contains(&caseless(name)) {
            misfit(Misfit::Name);
        } else if said(field).is_some_and(|key| keys.contains(&key)) {
            misfit(Misfit::Key);
        } else if let Some(fitting) = fitting {
            names.insert(caseless(name));
            keys.extend(said(field));
            fields.push(Arc::new(with_key(Field::new(name, fitting, true), key_of(field))));
        } else {
            misfit(Misfit::UnsupportedType);
        }
    }
    (Arc::new(Schema::new(fields)), unfit)
}

/// The least type that holds every value of two normalised ones unchanged, as far as Delta's type widening goes:
/// integers to wider ones, those of up to 32 bits to double, float to double, decimals to more digits; structs field by
/// field, the second one's own fields behind; lists and maps by what they hold. `None` where there is none.
#[must_use]
pub fn join(known: &DataType, found: &DataType) -> Option<DataType> {
    use DataType as T;
    if known == found {
        return Some(known.clone());
    }
    Some(match (known, found) {
        (T::Struct(known), T::Struct(found)) => T::Struct(join_fields(known, found)?),
        (T::List(known), T::List(found)) => T::List(join_field(known, found)?),
        (T::Map(known, sorted), T::Map(found, _)) => T::Map(join_entries(known, found)?, *sorted),
        (T::Decimal128(p, s), T::Decimal128(q, t)) => {
            let (scale, whole) = ((*s).max(*t), (i16::from(*p) - i16::from(*s)).max(i16::from(*q) - i16::from(*t)));
            let precision = u8::try_from(whole + i16::from(scale)).ok().filter(|precision| *precision <= 38)?;
            T::Decimal128(precision, scale)
        }
        _ => match (number(known)?, number(found)?) {
            (Number::Integer(a), Number::Integer(b)) => {
                if a >= b {
                    known.clone()
                } else {
                    found.clone()
                }
            }
            (Number::Float, Number::Float) => T::Float64,
            // A double holds 53 bits of a whole number, a float 24.
            (Number::Integer(bits), Number::Float) | (Number::Float, Number::Integer(bits)) if bits <= 32 => T::Float64,
            _ => return None,
        },
    })
}

enum Number {
    /// By its bits.
    Integer(u8),
    Float,
}

fn number(data_type: &DataType) -> Option<Number> {
    Some(match data_type {
        DataType::Int8 => Number::Integer(8),
        DataType::Int16 => Number::Integer(16),
        DataType::Int32 => Number::Integer(32),
        DataType::Int64 => Number::Integer(64),
        DataType::Float32 => Number::Float,
        DataType::Float64 => Number::Float,
        _ => return None,
    })
}

/// Whether a field within one type has the name, but for its case, or the key of another one within the other.
fn names_clash(known: &DataType, found: &DataType) -> bool {
    match (known, found) {
        (DataType::List(known), DataType::List(found)) => names_clash(known.data_type(), found.data_type()),
        (DataType::Struct(known), DataType::Struct(found)) => found.iter().any(|field| {
            let same = known.iter().find(|mine| caseless(mine.name()) == caseless(field.name()));
            same.is_some_and(|mine| {
                let (own, other) = ((mine.name(), key_of(mine)), (field.name(), key_of(field)));
                own != other || names_clash(mine.data_type(), field.data_type())
            })
        }),
        _ => false,
    }
}

fn join_field(known: &FieldRef, found: &FieldRef) -> Option<FieldRef> {
    let joined = join(known.data_type(), found.data_type())?;
    Some(Arc::new(known.as_ref().clone().with_data_type(joined)))
}

fn join_fields(known: &Fields, found: &Fields) -> Option<Fields> {
    let mut fields: Vec<FieldRef> = known.iter().cloned().collect();
    for field in found {
        if let Some(mine) = fields.iter_mut().find(|mine| mine.name() == field.name()) {
            *mine = join_field(mine, field).filter(|_| key_of(mine) == key_of(field))?;
        } else if fields.iter().any(|mine| caseless(mine.name()) == caseless(field.name())) {
            return None;
        } else {
            fields.push(Arc::clone(field));
        }
    }
    Some(fields.into())
}

/// Keys never widen: two readings of one key must stay one.
fn join_entries(known: &FieldRef, found: &FieldRef) -> Option<FieldRef> {
    let (DataType::Struct(mine), DataType::Struct(other)) = (known.data_type(), found.data_type()) else { return None };
    let ([key, value], [other_key, other_value]) = (&mine[..], &other[..]) else { return None };
    if key.data_type() != other_key.data_type() {
        return None;
    }
    let pair = vec![Arc::clone(key), join_field(value, other_value)?];
    Some(Arc::new(known.as_ref().clone().with_data_type(DataType::Struct(pair.into()))))
}

/// `batch` with exactly the columns of `schema`: cast where only the form differs, widened where the table is wider,
/// null where it has none.
pub(crate) fn align(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(schema.fields().len());
    for field in schema.fields() {
        let fits = |column: &&ArrayRef| {
            let form = normalise(column.data_type());
            form.and_then(|form| join(field.data_type(), &form)).as_ref() == Some(field.data_type())
        };
        columns.push(match batch.column_by_name(field.name()) {
            Some(column) if column.data_type() == field.data_type() => Arc::clone(column),
            Some(column) if fits(&column) => widen(column, field.data_type())?,
            _ => new_null_array(field.data_type(), batch.num_rows()),
        });
    }
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
}

/// `array` as `target`, of which it holds a part.
fn widen(array: &ArrayRef, target: &DataType) -> Result<ArrayRef, ArrowError> {
    if array.data_type() == target {
        return Ok(Arc::clone(array));
    }
    match target {
        DataType::Struct(fields) => {
            let Some(parent) = array.as_struct_opt() else { return cast(array, target) };
            let child = |field: &FieldRef| match parent.column_by_name(field.name()) {
                Some(child) => widen(child, field.data_type()),
                None => Ok(new_null_array(field.data_type(), array.len())),
            };
            let children = fields.iter().map(child).collect::<Result<Vec<_>, _>>()?;
            let nulls = parent.nulls().cloned();
            Ok(Arc::new(StructArray::try_new_with_length(fields.clone(), children, nulls, array.len())?))
        }
        DataType::List(item) => {
            // Only the item's name and the lists' own form are the cast's business.
            let (DataType::List(own) | DataType::LargeList(own) | DataType::FixedSizeList(own, _)) = array.data_type()
            else {
                return cast(array, target);
            };
            let plain = DataType::List(Arc::clone(own));
            let plain = if *array.data_type() == plain { Arc::clone(array) } else { cast(array, &plain)? };
            let lists = plain.as_list::<i32>();
            let values = widen(lists.values(), item.data_type())?;
            let offsets = lists.offsets().clone();
            Ok(Arc::new(ListArray::try_new(Arc::clone(item), offsets, values, lists.nulls().cloned())?))
        }
        DataType::Map(entries, sorted) => {
            let (Some(map), DataType::Struct(pair)) = (array.as_map_opt(), entries.data_type()) else {
                return cast(array, target);
            };
            let [key, value] = &pair[..] else { return cast(array, target) };
            let columns = vec![widen(map.keys(), key.data_type())?, widen(map.values(), value.data_type())?];
            let pairs = StructArray::try_new(pair.clone(), columns, None)?;
            let (offsets, nulls) = (map.offsets().clone(), map.nulls().cloned());
            Ok(Arc::new(MapArray::try_new(Arc::clone(entries), offsets, pairs, nulls, *sorted)?))
        }
        _ => cast(array, target),
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float64Array, Int32Array, Int64Array};
    use arrow::datatypes::TimeUnit;

    use super::*;

    fn schema(fields: &[(&str, DataType)]) -> SchemaRef {
        Arc::new(Schema::new(fields.iter().map(|(n, t)| Field::new(*n, t.clone(), false)).collect::<Vec<_>>()))
    }

    #[test]
    fn test_merge_appends_new_columns_and_keeps_the_order() {
        let (first, unfit) = merge_columns(None, &schema(&[("b", DataType::Int64), ("a", DataType::Utf8)]));
        assert!(unfit.is_empty());
        let (second, unfit) = merge_columns(Some(&first), &schema(&[("a", DataType::Utf8), ("c", DataType::Boolean)]));
        assert!(unfit.is_empty());
        assert_eq!(second.fields().iter().map(|f| f.name().as_str()).collect::<Vec<_>>(), ["b", "a", "c"]);
        assert!(second.fields().iter().all(|f| f.is_nullable()));
    }

    #[test]
    fn test_merge_names_what_a_table_cannot_take_over() {
        let column = |name: &str, key: &str| with_key(Field::new(name, DataType::Int64, true), key);
        let nested = DataType::Struct(vec![Field::new("x y", DataType::Int64, true)].into());
        let found = Arc::new(Schema::new(vec![
            column("a b", "a b"),
            column("A", "A"),
            column("a", "a"),
            column("_lf_epoch", "_lf_epoch"),
            Field::new("n", nested, true),
            Field::new("d", DataType::Duration(TimeUnit::Second), true),
            Field::new("k", DataType::Utf8, true),
            column("w", "w"),
            column("wind", "W (m/s)"),
        ]));
        let known = Arc::new(Schema::new(vec![column("k", "k"), column("w", "W (m/s)")]));
        let (merged, unfit) = merge_columns(Some(&known), &found);
        let unfit: Vec<_> = unfit.iter().map(|(name, why)| (name.as_str(), *why)).collect();
        assert_eq!(
            unfit,
            [
                ("a b", Misfit::Name),
                ("a", Misfit::Name),
                ("_lf_epoch", Misfit::Name),
                ("n", Misfit::UnsupportedType),
                ("d", Misfit::UnsupportedType),
                ("k", Misfit::TypeMismatch),
                ("w", Misfit::Key),
                ("wind", Misfit::Key),
            ]
        );
        assert_eq!(merged.fields().len(), 3);
    }

    #[test]
    fn test_types_widen_only_without_loss() {
        use DataType as T;
        let decimal = T::Decimal128;
        for (known, found, joined) in [
            (T::Int32, T::Int64, Some(T::Int64)),
            (T::Int64, T::Int8, Some(T::Int64)),
            (T::Int32, T::Float32, Some(T::Float64)),
            (T::Float32, T::Float64, Some(T::Float64)),
            (T::Int64, T::Float64, None),
            (T::Float64, T::Int64, None),
            (T::Utf8, T::Int64, None),
            (T::Date32, T::Utf8, None),
            (decimal(10, 2), decimal(12, 4), Some(decimal(12, 4))),
            (decimal(10, 2), decimal(10, 4), Some(decimal(12, 4))),
            (decimal(38, 0), decimal(38, 10), None),
        ] {
            assert_eq!(join(&known, &found), joined, "{known} and {found}");
            assert_eq!(join(&found, &known), joined, "{found} and {known}");
        }
    }

    #[test]
    fn test_structs_and_lists_grow_within_and_old_rows_get_nulls() {
        let inner = |fields: Vec<Field>| DataType::Struct(fields.into());
        let list = |of: DataType| DataType::List(Arc::new(Field::new("item", of, true)));
        let old = inner(vec![Field::new("x", DataType::Int32, true)]);
        let new = inner(vec![Field::new("y", DataType::Utf8, true), Field::new("x", DataType::Int64, true)]);
        let both = inner(vec![Field::new("x", DataType::Int64, true), Field::new("y", DataType::Utf8, true)]);
        let (known, _) = merge_columns(None, &schema(&[("s", old.clone()), ("l", list(old.clone()))]));
        let (merged, unfit) = merge_columns(Some(&known), &schema(&[("s", new.clone()), ("l", list(new))]));
        assert!(unfit.is_empty());
        assert_eq!(merged.field(0).data_type(), &both);
        assert_eq!(merged.field(1).data_type(), &list(both));

        let x: ArrayRef = Arc::new(Int32Array::from(vec![Some(7), None]));
        let DataType::Struct(fields) = old else { panic!("a struct") };
        let structs: ArrayRef = Arc::new(StructArray::try_new(fields, vec![x], None).unwrap());
        let batch = RecordBatch::try_from_iter([("s", structs)]).unwrap();
        let wide = align(&batch, &merged).unwrap();
        let s = wide.column(0).as_struct();
        assert_eq!(s.column(0).as_ref(), &Int64Array::from(vec![Some(7), None]) as &dyn Array);
        assert_eq!(s.column(1).null_count(), 2);
        assert_eq!(wide.column(1).null_count(), 2);
    }

    #[test]
    fn test_a_narrow_batch_is_widened_to_the_table() {
        let (table, _) = merge_columns(None, &schema(&[("n", DataType::Float64)]));
        let narrow: ArrayRef = Arc::new(Int32Array::from(vec![1, 2]));
        let wide = align(&RecordBatch::try_from_iter([("n", narrow)]).unwrap(), &table);
        assert_eq!(wide.unwrap().column(0).as_ref(), &Float64Array::from(vec![1.0, 2.0]) as &dyn Array);
    }
}
