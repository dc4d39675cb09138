//! Names for the keys of records. A decoder calls columns by the keys of its records; here they get the names that the
//! table has for them, and new keys get names that it can carry. docs/configuration.md says the rules.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use adapters::contract::columns::{caseless, column_name, keyed, keys_of, with_key};
use arrow::array::{Array, ArrayRef, AsArray, GenericListArray, RecordBatch, RecordBatchOptions, StructArray};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef};
use arrow::error::ArrowError;

use super::generate::without_generated;
use crate::settings::Generated;

/// Columns of a table are the runtime's from here on, whether it has them today or not.
const RESERVED_PREFIX: &str = "_lf_";

/// The columns of a table as a decoder is to know them: those that hold keys, called by these.
pub(crate) fn keys_known(table: Option<&SchemaRef>, generated: &[Generated]) -> Option<SchemaRef> {
    without_generated(table, generated).map(|schema| keyed(&schema))
}

/// `found`, called by keys, with the names of `table`: a key that it has a column for gets that one's, in structs and
/// lists too. Another key gets its own where it can be one and is free; else what can be of it, with the first of `_2`,
/// `_3`, … behind it that makes it differ from all others without regard to case. The order of columns stays.
pub(crate) fn named(table: Option<&SchemaRef>, generated: &[Generated], found: &SchemaRef) -> SchemaRef {
    if table == Some(found) && generated.is_empty() {
        return Arc::clone(found);
    }
    let none = Fields::empty();
    let known = table.map_or(&none, |table| table.fields());
    let holds = without_generated(table, generated);
    let fields = name_fields(known, holds.as_ref().map_or(&none, |holds| holds.fields()), found.fields(), true);
    if fields == *found.fields() { Arc::clone(found) } else { Arc::new(Schema::new(fields)) }
}

/// `known` are all columns of the table, or fields of a struct, whose names are taken; `holds` those among them that
/// records fill.
fn name_fields(known: &Fields, holds: &Fields, found: &Fields, top: bool) -> Fields {
    let keys = keys_of(holds);
    let by_key: HashMap<&str, &FieldRef> = keys.iter().zip(holds).filter_map(|(key, f)| Some(((*key)?, f))).collect();
    let mut taken: HashSet<String> = known.iter().map(|field| caseless(field.name())).collect();
    let reserved = |name: &str| top && caseless(name).starts_with(RESERVED_PREFIX);
    // Keys that are names already come first, so that of one record's new keys none loses its own to another.
    let mut names: Vec<Option<String>> = found
        .iter()
        .map(|field| {
            let key = field.name();
            if let Some(mine) = by_key.get(key.as_str()) {
                return Some(mine.name().clone());
            }
            let own = column_name(key) == *key && !reserved(key) && taken.insert(caseless(key));
            own.then(|| key.clone())
        })
        .collect();
    for (name, field) in names.iter_mut().zip(found).filter(|(name, _)| name.is_none()) {
        *name = Some(free_name(field.name(), &mut taken, reserved));
    }
    let name = |(field, name): (&FieldRef, Option<String>)| {
        let name = name.unwrap_or_default();
        let mine = by_key.get(field.name().as_str()).map(|mine| mine.data_type());
        let data_type = name_type(mine, field.data_type());
        Arc::new(with_key(Field::new(name, data_type, field.is_nullable()), field.name()))
    };
    found.iter().zip(names).map(name).collect()
}

/// The first name for `key` that is not taken, which takes it.
fn free_name(key: &str, taken: &mut HashSet<String>, reserved: impl Fn(&str) -> bool) -> String {
    let base = column_name(key);
    if !reserved(&base) && taken.insert(caseless(&base)) {
        return base;
    }
    // Among one more names than are taken one is free.
    let mut number = 2;
    loop {
        let name = format!("{base}_{number}");
        if taken.insert(caseless(&name)) {
            return name;
        }
        number += 1;
    }
}

fn name_type(known: Option<&DataType>, found: &DataType) -> DataType {
    let item_of = |known: &DataType| match known {
        DataType::List(item) | DataType::LargeList(item) => Some(Arc::clone(item)),
        _ => None,
    };
    let item = |item: &FieldRef| {
        let known = known.and_then(item_of);
        let data_type = name_type(known.as_ref().map(|item| item.data_type()), item.data_type());
        Arc::new(item.as_ref().clone().with_data_type(data_type))
    };
    match found {
        DataType::Struct(fields) => {
            let none = Fields::empty();
            let known = if let Some(DataType::Struct(known)) = known { known } else { &none };
            DataType::Struct(name_fields(known, known, fields, false))
        }
        DataType::List(of) => DataType::List(item(of)),
        DataType::LargeList(of) => DataType::LargeList(item(of)),
        other => other.clone(),
    }
}

/// `batch` with the names of `schema`, whose columns are its own but for names.
pub(crate) fn rename(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    if batch.schema() == *schema {
        return Ok(batch.clone());
    }
    let columns = batch.columns().iter().zip(schema.fields()).map(|(column, field)| relabel(column, field.data_type()));
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns.collect::<Result<_, _>>()?, &options)
}

fn relabel(array: &ArrayRef, data_type: &DataType) -> Result<ArrayRef, ArrowError> {
    if array.data_type() == data_type {
        return Ok(Arc::clone(array));
    }
    match data_type {
        DataType::Struct(fields) => {
            let parent = array.as_struct();
            let children = parent.columns().iter().zip(fields).map(|(child, field)| relabel(child, field.data_type()));
            let (children, nulls) = (children.collect::<Result<_, _>>()?, parent.nulls().cloned());
            Ok(Arc::new(StructArray::try_new_with_length(fields.clone(), children, nulls, parent.len())?))
        }
        DataType::List(item) => relabel_list::<i32>(array, item),
        DataType::LargeList(item) => relabel_list::<i64>(array, item),
        _ => Err(ArrowError::SchemaError("a column changed by more than its name".to_owned())),
    }
}

fn relabel_list<O: arrow::array::OffsetSizeTrait>(array: &ArrayRef, item: &FieldRef) -> Result<ArrayRef, ArrowError> {
    let list = array.as_list::<O>();
    let values = relabel(list.values(), item.data_type())?;
    let (offsets, nulls) = (list.offsets().clone(), list.nulls().cloned());
    Ok(Arc::new(GenericListArray::<O>::try_new(Arc::clone(item), offsets, values, nulls)?))
}

#[cfg(test)]
mod tests {
    use adapters::contract::columns::{is_column_name, key_of};
    use proptest::prelude::*;
    use proptest::sample::subsequence;

    use super::super::columns::table_columns;
    use super::super::evolve::merge_columns;
    use super::*;
    use crate::settings::DateOf;

    fn longs(keys: &[&str]) -> SchemaRef {
        Arc::new(Schema::new(keys.iter().map(|key| Field::new(*key, DataType::Int64, true)).collect::<Vec<_>>()))
    }

    /// The table after records with these keys.
    fn grown(table: Option<SchemaRef>, keys: &[&str]) -> SchemaRef {
        let (merged, unfit) = merge_columns(table.as_ref(), &named(table.as_ref(), &[], &longs(keys)));
        assert_eq!(unfit, []);
        merged
    }

    fn names(schema: &SchemaRef) -> Vec<&str> {
        schema.fields().iter().map(|field| field.name().as_str()).collect()
    }

    #[test]
    fn test_keys_get_names_that_differ_and_keep_them() {
        let first = grown(None, &["Wind speed (m/s)", "a b", "a_b", "", "_", "x", "X", "_lf_epoch", "_LF_new"]);
        let expected = ["Wind_speed__m/s_", "a_b_2", "a_b", "__2", "_", "x", "X_2", "_lf_epoch_2", "_LF_new_2"];
        assert_eq!(names(&first), expected);
        let second = grown(Some(Arc::clone(&first)), &["a,b", "A B", "a b", "x_2", "X"]);
        assert_eq!(names(&second)[..9], expected);
        assert_eq!(names(&second)[9..], ["a_b_3", "A_B_4", "x_2_2"]);
        assert!(keys_of(second.fields()).iter().all(Option::is_some));
        assert_eq!(key_of(second.field(1)), "a b");
        assert_eq!(second.field(2).metadata().len(), 0);
    }

    #[test]
    fn test_a_generated_column_leaves_its_name_to_no_key() {
        let generated = [Generated { column: "day".to_owned(), of: DateOf::EventTime }];
        let table = Arc::new(Schema::new(vec![Field::new("day", DataType::Date32, true)]));
        assert_eq!(names(&named(Some(&table), &generated, &longs(&["Day", "day"]))), ["Day_2", "day_3"]);
        assert_eq!(keys_known(Some(&table), &generated), None);
    }

    #[test]
    fn test_foreign_columns_are_found_by_their_names_unless_another_says_it_holds_the_key() {
        let plain = longs(&["a_b", "x"]);
        assert_eq!(names(&named(Some(&plain), &[], &longs(&["x", "a b"]))), ["x", "a_b_2"]);
        // Renamed by somebody who kept what we wrote: the values follow.
        let wind = with_key(Field::new("wind", DataType::Int64, true), "x");
        let renamed: SchemaRef = Arc::new(Schema::new(vec![Field::new("x", DataType::Int64, true), wind]));
        assert_eq!(names(&named(Some(&renamed), &[], &longs(&["x"]))), ["wind"]);
        assert_eq!(names(&keys_known(Some(&renamed), &[]).unwrap()), ["x"]);
    }

    /// Nasty and near to one another.
    fn any_key() -> impl Strategy<Value = String> {
        prop_oneof![
            "[aAbB ,;{}()\n\t=_\u{0}\u{7f}\r]{0,3}",
            "(_lf_|_LF_)(epoch|x)?(_2)?",
            "[ßsSıiIİςσΣkK\u{212a}]{1,2}(_2)?",
            ".{0,4}",
            (190usize..230, "[ a]").prop_map(|(n, end)| "x".repeat(n) + &end),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        /// Each key has one column and each column one key, by names that a table can carry; and whatever comes later,
        /// in whatever order, the first names stay.
        #[test]
        fn test_naming_is_injective_sound_and_stable(
            keys in prop::collection::btree_set(any_key(), 0..24),
            seed in any::<proptest::sample::Index>(),
            later in prop::collection::btree_set(any_key(), 0..24),
        ) {
            let mut keys: Vec<&str> = keys.iter().map(String::as_str).collect();
            let turn = if keys.is_empty() { 0 } else { seed.index(keys.len()) };
            keys.rotate_left(turn);
            let table = grown(None, &keys);
            let all = table_columns(Some(&table));
            let distinct: HashSet<String> = all.fields().iter().map(|field| caseless(field.name())).collect();
            prop_assert_eq!(distinct.len(), all.fields().len());
            for (field, key) in table.fields().iter().zip(&keys) {
                prop_assert!(is_column_name(field.name()) && !field.name().chars().any(char::is_control));
                prop_assert!(field.name().len() < 255);
                prop_assert_eq!(&key_of(field), key);
            }
            let mut more: Vec<&str> = later.iter().map(String::as_str).chain(keys.iter().copied().rev()).collect();
            let mut seen = HashSet::new();
            more.retain(|key| seen.insert(*key));
            let known = named(Some(&table), &[], &longs(&more));
            for (field, key) in known.fields().iter().zip(&more) {
                if let Some(at) = keys.iter().position(|mine| mine == key) {
                    prop_assert_eq!(field.name(), table.field(at).name());
                }
            }
            prop_assert_eq!(grown(Some(Arc::clone(&table)), &more).fields()[..keys.len()].to_vec(), table.fields().to_vec());
        }

        /// What the log says of a table is enough: any part of its keys finds the same columns, within structs too.
        #[test]
        fn test_any_part_of_the_keys_finds_its_columns_within_structs(
            (keys, part) in prop::collection::btree_set(any_key(), 1..12).prop_flat_map(|keys| {
                let keys: Vec<String> = keys.into_iter().collect();
                (Just(keys.clone()), subsequence(keys.clone(), 1..=keys.len()))
            }),
        ) {
            let wrap = |keys: &[String]| -> SchemaRef {
                let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
                let inner = DataType::Struct(longs(&keys).fields().clone());
                let list = DataType::List(Arc::new(Field::new("item", inner.clone(), true)));
                Arc::new(Schema::new(vec![Field::new("s s", inner, true), Field::new("l", list, true)]))
            };
            let (table, unfit) = merge_columns(None, &named(None, &[], &wrap(&keys)));
            prop_assert_eq!(unfit, []);
            let found = named(Some(&table), &[], &wrap(&part));
            let (again, unfit) = merge_columns(Some(&table), &found);
            prop_assert_eq!(unfit, []);
            prop_assert_eq!(&again, &table);
            prop_assert_eq!(keyed(&found), wrap(&part));
        }
    }
}
