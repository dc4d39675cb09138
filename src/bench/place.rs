//! Where the lakes of a benchmark are: folders of this machine, or a place in an object store that the caller names.

use std::path::Path;
use std::sync::Arc;

use adapters::contract::SystemClock;
use adapters::contract::config::ProcessSecrets;
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};

use super::BenchError;
use crate::cli::LakeOption;
use crate::lake::Lake;
use crate::settings::Settings;

/// A store in which each run makes a lake of its own and removes it.
#[derive(Debug, Clone)]
pub struct Place {
    /// As `lake.url`, without the run's own end.
    pub url: String,
    /// As `lake.options`.
    pub options: Vec<LakeOption>,
}

impl Place {
    /// The lines of `[lake]` for a run's own lake; `None` is a folder beside the configuration.
    pub(super) fn lines(place: Option<&Self>) -> String {
        let Some(Self { url, options }) = place else { return "url = \"file:lake\"".to_owned() };
        let url = format!("{}/lakefeed-bench-{}", url.trim_end_matches('/'), uuid::Uuid::new_v4().simple());
        // A JSON string is a string of TOML, too.
        let text = |text: &str| serde_json::Value::from(text).to_string();
        let options: Vec<_> =
            options.iter().map(|option| format!("{} = {}", text(&option.key), text(&option.value))).collect();
        format!("url = {}\noptions = {{ {} }}", text(&url), options.join(", "))
    }
}

/// The store of the lake that `settings` name.
pub(super) fn store(settings: &Settings) -> Result<Arc<dyn ObjectStore>, BenchError> {
    let mut opened = None;
    let take = |store: Arc<dyn ObjectStore>| {
        opened = Some(Arc::clone(&store));
        store
    };
    Lake::open_through(&settings.lake, Arc::new(SystemClock), Arc::new(ProcessSecrets), take)
        .map_err(|e| BenchError::Bare(e.message))?;
    opened.ok_or(BenchError::Stalled("the lake's store"))
}

/// One object that was not there before.
pub(super) async fn create(store: &dyn ObjectStore, path: &str, bytes: Bytes) -> Result<(), object_store::Error> {
    let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
    store.put_opts(&path.into(), PutPayload::from_bytes(bytes), options).await.map(drop)
}

/// Moves every object of the lake to `folder`, where it can be judged as any local lake.
pub(super) async fn take_home(store: &dyn ObjectStore, folder: &Path) -> Result<(), BenchError> {
    let failed = |e: object_store::Error| BenchError::Folder(std::io::Error::other(e));
    let objects: Vec<_> = store.list(None).try_collect().await.map_err(failed)?;
    for object in objects {
        let bytes = store.get(&object.location).await.map_err(failed)?.bytes().await.map_err(failed)?;
        let path = folder.join(object.location.as_ref());
        std::fs::create_dir_all(path.parent().unwrap_or(folder)).map_err(BenchError::Folder)?;
        std::fs::write(&path, &bytes).map_err(BenchError::Folder)?;
        store.delete(&object.location).await.map_err(failed)?;
    }
    Ok(())
}
