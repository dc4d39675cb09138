//! How fast flat JSON decodes on one core, beside Arrow's own reader on the same bytes:
//! `cargo run --release -p adapters --example decode_speed`.
#![allow(clippy::print_stdout, reason = "a tool that prints figures")]
use std::collections::BTreeMap;
use std::time::Instant;

use adapters::contract::{Decode, Payload};
use adapters::json::{JsonDecoder, JsonSpec, timestamp_type};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::json::ReaderBuilder;

const RECORDS: usize = 4096;
const ROUNDS: usize = 200;

fn main() {
    let schema = std::sync::Arc::new(Schema::new(vec![
        Field::new("partition", DataType::Int64, true),
        Field::new("seq", DataType::Int64, true),
        Field::new("ts", timestamp_type(), true),
        Field::new("check", DataType::Utf8, true),
        Field::new("pad", DataType::Utf8, true),
    ]));
    let payloads: Vec<Payload> = (0..RECORDS)
        .map(|seq| {
            let text = format!(
                r#"{{"partition":3,"seq":{seq},"ts":"2026-01-01T00:00:00.123Z","check":"0123456789abcdef","pad":"{}"}}"#,
                "kX3".repeat(49)
            );
            Payload { position: None, received_at_us: 0, meta: BTreeMap::new(), bytes: text.into(), dead: None }
        })
        .collect();
    let bytes = payloads.iter().map(|payload| payload.bytes.len()).sum::<usize>() * ROUNDS;
    let speed = |what: &str, run: &dyn Fn()| {
        let start = Instant::now();
        (0..ROUNDS).for_each(|_| run());
        println!("{what}: {:.0} MB/s", bytes as f64 / 1e6 / start.elapsed().as_secs_f64());
    };
    for _ in 0..3 {
        speed("Arrow's reader alone", &|| {
            let mut decoder =
                ReaderBuilder::new(schema.clone()).with_batch_size(RECORDS).build_decoder().expect("a decoder");
            for payload in &payloads {
                decoder.decode(&payload.bytes).expect("JSON");
            }
            assert!(decoder.flush().expect("rows").is_some());
        });
        for (what, schema) in [("declared", Some(schema.clone())), ("inferred, known", None)] {
            let decoder = JsonDecoder::new(JsonSpec { schema, ..JsonSpec::default() });
            let known = decoder.decode(&payloads[..1], None).batch.schema();
            speed(what, &|| {
                assert_eq!(decoder.decode(&payloads, Some(&known)).batch.num_rows(), RECORDS);
            });
        }
    }
}
