//! Checkpoints in several files.

use super::*;
use ::safetensors::tensor::{Dtype, TensorView, serialize};

fn shard(tensors: &[(&str, u8)]) -> Vec<u8> {
    let data: Vec<_> = tensors
        .iter()
        .map(|(name, value)| (*name, [*value]))
        .collect();
    let views = data
        .iter()
        .map(|(name, data)| (*name, TensorView::new(Dtype::U8, vec![1], data).unwrap()));
    serialize(views, None).unwrap()
}

fn folder(index: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    std::fs::create_dir(path.join("blobs")).unwrap();
    std::fs::write(path.join("blobs/one"), shard(&[("a", 1), ("b", 2)])).unwrap();
    std::fs::write(path.join("two.safetensors"), shard(&[("c", 3), ("b", 9)])).unwrap();
    std::fs::write(path.join("index.json"), index).unwrap();
    folder
}

fn failure(index: &str) -> String {
    let folder = folder(index);
    match open_index(&folder.path().join("index.json"), read_file) {
        Ok(tensors) => panic!("read: {:?}", tensors.by_name),
        Err(error) => error.to_string(),
    }
}

const INDEX: &str = r#"{"metadata": {"total_size": 3},
    "weight_map": {"a": "one.safetensors", "b": "one.safetensors", "c": "two.safetensors"}}"#;

/// As in a hub cache, where the names are links to blobs. The index says which file has a tensor that is in two.
#[cfg(unix)]
#[test]
fn shards_are_read_through_links() {
    let folder = folder(INDEX);
    let link = folder.path().join("one.safetensors");
    std::os::unix::fs::symlink("blobs/one", link).unwrap();
    for open in [open, open_index] {
        let tensors = open(&folder.path().join("index.json"), read_file).unwrap();
        let found = ["a", "b", "c"].map(|name| values(&tensors, name).1[0]);
        assert_eq!(found, [1.0, 2.0, 3.0]);
        let files = ["index.json", "one.safetensors", "two.safetensors"];
        assert_eq!(tensors.files, files.map(|name| folder.path().join(name)));
    }
}

#[test]
fn what_the_index_promises_must_be_there() {
    let missing = failure(INDEX);
    assert!(missing.contains("one.safetensors: "), "{missing}");
    let moved = failure(r#"{"weight_map": {"a": "two.safetensors"}}"#);
    assert!(
        moved.ends_with(
            "index.json: tensor \"a\": is not in two.safetensors, where the index says it is"
        ),
        "{moved}"
    );
    let again = failure(r#"{"weight_map": {"a": "index.json"}}"#);
    assert!(
        again.contains("is named where a file of tensors is expected"),
        "{again}"
    );
}

#[test]
fn shards_stay_in_the_folder() {
    for shard in [
        "../two.safetensors",
        "/two.safetensors",
        "blobs/../../x",
        "",
        "c:\\\\x",
        "a\\u0000b",
    ] {
        let error = failure(&format!(r#"{{"weight_map": {{"a": "{shard}"}}}}"#));
        assert!(
            error.contains("does not lie in the index's folder"),
            "{error}"
        );
    }
}
