//! The index of a checkpoint in several files: `{"metadata": {...}, "weight_map": {"<tensor>": "<file>"}}`.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use serde::Deserialize;

use super::error::{Fault, Place, ReadError, shortened};
use super::{Bytes, OpenFile, Tensors, open_tensors};

/// Bytes of an index. That of a model of a thousand tensors has 0.1 MB.
const MAX_INDEX: u64 = 16 << 20;
/// Files of a checkpoint.
const MAX_SHARDS: u64 = 1024;

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// Reads the files that the index `path` names. See [`super::open_index`].
pub(super) fn read(path: &Path, bytes: &Bytes, open_file: OpenFile) -> Result<Tensors, ReadError> {
    let index = parse((**bytes).as_ref()).map_err(|fault| fault.of(path))?;
    let mut shards: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (tensor, shard) in &index.weight_map {
        shards.entry(shard).or_default().push(tensor);
    }
    let place = || Place::Byte(0);
    Fault::limit(place, "files", shards.len() as u64, MAX_SHARDS)
        .map_err(|fault| fault.of(path))?;

    let folder = path.parent().unwrap_or(Path::new(""));
    let mut all = Tensors {
        files: vec![path.to_owned()],
        ..Tensors::default()
    };
    for (shard, names) in shards {
        if !is_inside(shard) {
            let shard = shortened(shard);
            let reason = format!("its file {shard:?} does not lie in the index's folder");
            return Err(Fault::damaged(Place::tensor(names[0]), reason).of(path));
        }
        let mut part = open_tensors(&folder.join(shard), open_file)?;
        for name in names {
            if let Some(weight) = part.by_name.remove(name) {
                all.by_name.insert(name.to_owned(), weight);
            } else if let Some(unread) = part.unread.remove(name) {
                all.unread.insert(name.to_owned(), unread);
            } else {
                let reason = format!("is not in {shard}, where the index says it is");
                return Err(Fault::damaged(Place::tensor(name), reason).of(path));
            }
        }
        for (key, value) in part.metadata {
            all.metadata.entry(key).or_insert(value);
        }
        all.files.append(&mut part.files);
    }
    Ok(all)
}

fn parse(bytes: &[u8]) -> Result<Index, Fault> {
    let place = || Place::Byte(0);
    Fault::limit(place, "bytes of the index", bytes.len() as u64, MAX_INDEX)?;
    serde_json::from_slice(bytes).map_err(|error| {
        let error = shortened(&error.to_string());
        Fault::Foreign {
            what: format!("JSON, but no index of a checkpoint ({error})"),
            advice: "an index has a weight_map of tensors and files",
        }
    })
}

/// Whether a file's name stays in the folder that it is relative to.
fn is_inside(shard: &str) -> bool {
    let path = Path::new(shard);
    let stays = |part| matches!(part, Component::Normal(_));
    // A separator or a drive of another system could mean something else there.
    !shard.is_empty() && !shard.contains(['\\', ':', '\0']) && path.components().all(stays)
}
