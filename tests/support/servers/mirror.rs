//! What lies in a store, as files that the oracle can read.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use futures::TryStreamExt;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};

/// Below this the lakes of tests are.
pub(crate) const PREFIX: &str = "prefix/";

/// Copies a bucket, whose server does not keep objects as files, into a folder.
pub(crate) struct Mirror {
    /// A client lives on the runtime on which it is first used, so there is a new one each time.
    open: Box<dyn Fn() -> Arc<dyn ObjectStore> + Send + Sync>,
}

impl Mirror {
    pub(crate) fn new(open: impl Fn() -> Arc<dyn ObjectStore> + Send + Sync + 'static) -> Self {
        Self { open: Box::new(open) }
    }

    /// Brings `folder` up to what is there now. Keeps what was there already: objects do not change but for pointers,
    /// whose size or time does.
    pub(crate) fn refresh(&self, folder: &Path) {
        let fetch = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(self.fetch(folder));
        };
        // The caller may be on a runtime, which none can be started on.
        std::thread::scope(|scope| scope.spawn(fetch).join().unwrap());
    }

    async fn fetch(&self, folder: &Path) {
        let store = (self.open)();
        // The log first: what its entries name was there before them.
        let is_log = |meta: &&ObjectMeta| meta.location.as_ref().contains("_delta_log/");
        let entries = listed(&store).await;
        let rest = listed(&store).await;
        for meta in rest.iter().filter(|meta| !is_log(meta)).chain(entries.iter().filter(is_log)) {
            let path = folder.join(meta.location.as_ref().strip_prefix(PREFIX).unwrap_or_default());
            let same = fs::metadata(&path).is_ok_and(|there| there.len() == meta.size);
            if same && !meta.location.as_ref().ends_with("_last_checkpoint") {
                continue;
            }
            let bytes = store.get(&meta.location).await.unwrap().bytes().await.unwrap();
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
    }
}

async fn listed(store: &Arc<dyn ObjectStore>) -> Vec<ObjectMeta> {
    store.list(None).try_collect().await.unwrap()
}
