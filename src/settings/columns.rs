//! `table` of an adapter: what its columns are, which are computed, and which it is partitioned by.

use adapters::contract::Mount;
use adapters::contract::config::{Reader, nearest_hint};
use adapters::json::schema_from_config;
use arrow::datatypes::{DataType, SchemaRef};

use super::{DateOf, Generated};

/// `table`, read.
#[derive(Debug, Default)]
pub(super) struct Columns {
    /// `partition_by`.
    pub(super) partition_by: Vec<String>,
    /// `schema` where declared.
    pub(super) schema: Option<SchemaRef>,
    /// `generated`.
    pub(super) generated: Vec<Generated>,
}

impl Columns {
    /// `None` where the schema is wrong.
    pub(super) fn read(reader: Option<Reader<'_>>) -> Option<Self> {
        let Some(reader) = reader else { return Some(Self::default()) };
        let partition_by = reader.strings("partition_by").unwrap_or_default();
        for (index, column) in partition_by.iter().enumerate() {
            if partition_by[..index].contains(column) {
                let what = format!("{} names {column} twice", reader.path_of("partition_by"));
                reader.wrong("partition_by", "INVALID_VALUE", what, "expected each column once", "remove one of them");
            }
        }
        let schema = schema_from_config(&reader, "schema");
        let generated = reader.section("generated").map(|section| generated(&section)).unwrap_or_default();
        reader.finish();
        Some(Self { partition_by, schema: schema?, generated })
    }

    /// Holds it against what the kind fixes.
    pub(super) fn check(&self, adapter: &Reader<'_>, mount: &dyn Mount) {
        let fixed = mount.schema();
        // A kind that takes declared columns gives them as its own.
        let declares = fixed == self.schema;
        if !declares && fixed.is_some() && adapter.has("on_schema_change") {
            let what = format!("{} is set, but this kind has fixed columns", adapter.path_of("on_schema_change"));
            adapter.wrong("on_schema_change", "NOT_APPLICABLE", what, "expected no such key", "remove it");
        }
        let Some(section) = adapter.section("table") else { return };
        if self.schema.is_some() && !declares && fixed.is_some() {
            let what = format!("{} is declared, but this kind has fixed columns", section.path_of("schema"));
            section.wrong("schema", "NOT_APPLICABLE", what, "expected no schema", "remove it");
        }
        let schema = fixed.as_ref().or(self.schema.as_ref());
        if let Some(section) = section.section("generated") {
            for date in &self.generated {
                check_generated(&section, date, schema);
            }
        }
        for column in &self.partition_by {
            self.check_partition(&section, column, schema);
        }
    }

    fn check_partition(&self, section: &Reader<'_>, column: &str, schema: Option<&SchemaRef>) {
        if self.generated.iter().any(|date| date.column == column) {
            return;
        }
        let path = section.path_of("partition_by");
        let own = schema.iter().flat_map(|schema| schema.fields().iter()).map(|field| field.name().as_str());
        let names: Vec<&str> = own.chain(self.generated.iter().map(|date| date.column.as_str())).collect();
        match schema.and_then(|schema| schema.field_with_name(column).ok()) {
            None => {
                let what = format!("{path} names {column:?}, which is not a column");
                if names.is_empty() {
                    let what = format!("{what} that is declared or generated");
                    let expected = "expected a column that is there before the first record";
                    let remedy = "declare it in table.schema, or generate a date in table.generated";
                    return section.wrong("partition_by", "UNKNOWN_COLUMN", what, expected, remedy);
                }
                let expected = format!("expected some of {}", names.join(", "));
                let remedy = nearest_hint(column, names.into_iter());
                section.wrong("partition_by", "UNKNOWN_COLUMN", what, expected, remedy);
            }
            Some(field) if !partitions_well(field.data_type()) => {
                let what = format!("{path} names {column}, whose values make poor folders");
                let expected = "expected columns of type string, integer, long, boolean or date";
                section.wrong("partition_by", "INVALID_VALUE", what, expected, "choose another column");
            }
            Some(_) => {}
        }
    }
}

/// Each key a column, each value `date(…)`.
fn generated(section: &Reader<'_>) -> Vec<Generated> {
    let mut all = Vec::new();
    for column in section.entries().map(|entry| entry.key.clone()) {
        let Some(text) = section.string(&column) else { continue };
        let inner = text.strip_prefix("date(").and_then(|rest| rest.strip_suffix(')')).map(str::trim);
        let of = match inner {
            Some("event_time") => DateOf::EventTime,
            Some("received_at") => DateOf::ReceivedAt,
            Some(name) if !name.is_empty() => DateOf::Column(name.to_owned()),
            _ => {
                let what = format!("{} is {}", section.path_of(&column), section.shown(&column, &text));
                let expected = "expected date(event_time), date(received_at) or date(COLUMN)";
                section.wrong(&column, "INVALID_VALUE", what, expected, "write day = \"date(event_time)\"");
                continue;
            }
        };
        all.push(Generated { column, of });
    }
    all
}

fn check_generated(section: &Reader<'_>, date: &Generated, schema: Option<&SchemaRef>) {
    let column = date.column.as_str();
    let declared = |name: &str| schema.and_then(|schema| schema.field_with_name(name).ok());
    let clash = schema.is_some_and(|schema| schema.fields().iter().any(|f| f.name().eq_ignore_ascii_case(column)));
    if clash
        || column.to_ascii_lowercase().starts_with("_lf_")
        || !column.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    {
        let what = format!("{} cannot be a generated column", section.path_of(column));
        let expected = "expected a name that no other column has, of letters, digits and _, not beginning with _lf_";
        section.wrong(column, "INVALID_VALUE", what, expected, "choose another name");
    }
    if let DateOf::Column(of) = &date.of
        && !declared(of).is_some_and(|field| matches!(field.data_type(), DataType::Timestamp(..)))
    {
        let what =
            format!("{} is the date of {of:?}, which is not a declared timestamp column", section.path_of(column));
        let expected = "expected date(event_time), date(received_at), or a column declared as timestamp";
        section.wrong(column, "UNKNOWN_COLUMN", what, expected, "write date(event_time)");
    }
}

fn partitions_well(data_type: &DataType) -> bool {
    data_type.is_integer() || matches!(data_type, DataType::Utf8 | DataType::Boolean | DataType::Date32)
}
