//! Taking a stream over. Start-up is recovery and there is no other start-up.

use std::sync::Arc;

use adapters::contract::columns::{KEY, key_of};
use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use serde_json::{Value, json};

use super::beat::Beat;
use super::delta::{line, metadata, protocol, txn};
use super::error::{LakeError, LakeErrorClass, crash};
use super::evolution::evolution;
use super::log::{Apps, CLAIM_KEY, Log, Step, TableState};
use super::owner::Owner;
use super::recover::{Checkpoint, Found, recover};
use super::{Lake, layout};
use crate::faults;
use crate::names::StreamId;
use crate::pipeline::{self, LF_COLUMNS};

/// What a new owner wants of a stream's table.
#[derive(Debug, Clone)]
pub struct Claim {
    /// The stream.
    pub id: StreamId,
    /// The adapter's name.
    pub adapter: String,
    /// The adapter's columns where declared or fixed, without the runtime's; `None` to infer them.
    pub schema: Option<SchemaRef>,
    /// The table's partition columns; they must be among the declared ones or the runtime's.
    pub partition_by: Vec<String>,
    /// What a cache remembers. It may lag, be of another table, or be wrong; it is checked.
    pub cache: Option<Checkpoint>,
    /// Is told that something moves, by the claim and then by the owner's commits.
    pub beat: Beat,
}

impl Lake {
    /// Claims the stream: creates its table where absent, fences the owner before, finishes what he left half done, and
    /// finds the positions to go on from.
    ///
    /// # Errors
    /// `config` where columns or partitioning do not fit the table, or the store replaces what it must not; `transient` and the like from the store; `data`
    /// where the lake lacks what it must have.
    pub async fn claim(self: &Arc<Self>, claim: Claim) -> Result<Owner, LakeError> {
        let columns = declared(&claim)?;
        self.ensure_create_only().await?;
        let io = self.io.beating(claim.beat.clone());
        let apps = Apps { own: Some(layout::own_app(&claim.id)), epoch: layout::epoch_app(&claim.id) };
        let mut log = Log::open(&io, layout::table(&claim.id), apps).await?;
        let token = self.token(&claim.id);
        let now_ms = self.clock.now_us() / 1000;
        let own_app = layout::own_app(&claim.id);
        let decide = |state: Option<&TableState>| {
            let info = |operation: &str| {
                let parameters = json!({});
                info(operation, &parameters, now_ms, &[(CLAIM_KEY, token.as_str())])
            };
            let Some(state) = state else {
                let made = metadata(&token, &pipeline::table_columns(Some(&columns)), &claim.partition_by, now_ms)?;
                let created = [info("CREATE TABLE"), line("protocol", &protocol()), line("metaData", &made)];
                return Ok(Step::Write(created.concat() + &txn(&own_app, 1, now_ms)));
            };
            if state.claim.as_ref() == Some(&token) {
                return Ok(Step::Done(state.version));
            }
            let mut body = info("CLAIM");
            body += &evolve(state, &columns, &claim.partition_by)?;
            let generation = if faults::bug("keep_generation") { state.own } else { state.own + 1 };
            Ok(Step::Write(body + &txn(&own_app, generation, now_ms)))
        };
        log.append(&io, "lake.claim.sent", decide).await?;
        crash("lake.claim.after")?;
        let Some(state) = &log.state else {
            return Err(LakeError::bug("claim_state", "a claimed table has no state"));
        };
        let (checkpoint, last) = recover(&io, &claim.id, state, claim.cache).await?;
        let checkpoint =
            if faults::bug("forget_resting") { forget_resting(checkpoint, last.as_ref()) } else { checkpoint };
        let mut owner = Owner::new(Arc::clone(self), io, &claim.id, log, checkpoint);
        if let Some(last) = last.filter(|_| !faults::bug("skip_dead_at_claim")) {
            owner.finish_dead(&last.record).await?;
        }
        Ok(owner)
    }
}

/// The deliberate bug `forget_resting`: only the partitions that moved in the last epoch are remembered.
fn forget_resting(mut checkpoint: Checkpoint, last: Option<&Found>) -> Checkpoint {
    checkpoint.positions.retain(|partition, _| last.is_some_and(|last| last.record.positions.contains_key(partition)));
    checkpoint
}

/// A `commitInfo` line. Entries of `ours` are names of our own beside Delta's.
pub(crate) fn info(operation: &str, parameters: &Value, now_ms: i64, ours: &[(&str, &str)]) -> String {
    let mut info = json!({
        "timestamp": now_ms,
        "operation": operation,
        "operationParameters": parameters,
        "isBlindAppend": true,
        "engineInfo": concat!("lakefeed/", env!("CARGO_PKG_VERSION")),
    });
    for (key, value) in ours {
        info[*key] = (*value).into();
    }
    line("commitInfo", &info)
}

/// The declared columns as the lake stores them.
fn declared(claim: &Claim) -> Result<SchemaRef, LakeError> {
    let empty = Arc::new(Schema::empty());
    let (columns, unfit) = pipeline::merge_columns(None, claim.schema.as_ref().unwrap_or(&empty));
    if !unfit.is_empty() {
        let names: Vec<_> = unfit.iter().map(|(name, _)| format!("{name:?}")).collect();
        let message = format!("the lake cannot store the columns {} by name or type", names.join(", "));
        return Err(LakeError::config("invalid_column", message));
    }
    let all = pipeline::table_columns(Some(&columns));
    for name in &claim.partition_by {
        let field = all.field_with_name(name).map_err(|_| {
            let message = format!("partition_by names {name:?}, which is not a declared column");
            LakeError::config("partition_column", message)
        })?;
        if !pipeline::can_partition(field.data_type()) {
            let message = format!("a table cannot be partitioned by {name:?}: its type has no name in a path");
            return Err(LakeError::config("partition_column", message));
        }
    }
    if LF_COLUMNS.iter().all(|name| claim.partition_by.iter().any(|by| by == name)) {
        return Err(LakeError::config("partition_column", "a table needs a column that is not a partition column"));
    }
    Ok(columns)
}

/// The lines that take the declared columns in, if the table lacks some.
fn evolve(state: &TableState, columns: &SchemaRef, partition_by: &[String]) -> Result<String, LakeError> {
    if state.partition_by != partition_by {
        let message = format!(
            "the table is partitioned by [{}], not by [{}]; partitioning cannot change",
            state.partition_by.join(", "),
            partition_by.join(", ")
        );
        return Err(LakeError::config("partitioning_changed", message));
    }
    let holds = |field: &&FieldRef| field.metadata().get(KEY).is_some_and(|key| plain_column(state, columns, key));
    let new = |field: &&FieldRef| state.schema.field_with_name(field.name()).is_err();
    if let Some(field) = columns.fields().iter().filter(new).find(holds) {
        let (name, key) = (field.name(), key_of(field));
        let message = format!("column {name:?} is to hold the key {key:?}, which the table has in the column {key:?}");
        return Err(LakeError::config("schema_conflict", message));
    }
    evolution(state, &pipeline::table_columns(Some(columns)), LakeErrorClass::Config)
}

/// Whether the table has a column of this key and name that is none of the declared or generated ones.
fn plain_column(state: &TableState, declared: &SchemaRef, key: &str) -> bool {
    let own = pipeline::adapter_columns(&state.schema);
    own.field_with_name(key).is_ok_and(|field| key_of(field) == key) && declared.field_with_name(key).is_err()
}
