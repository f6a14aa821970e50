//! Readers of checkpoint files.

pub mod archive;
mod formats;
mod hostile;
mod index;
mod pickles;

use super::*;
use std::cell::RefCell;

thread_local! {
    /// What [`given`] opens.
    static GIVEN: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// An [`OpenFile`] that gives the bytes of [`open_bytes`] whatever the path.
fn given(_: &Path) -> io::Result<Bytes> {
    Ok(Arc::new(GIVEN.take()))
}

fn open_bytes(bytes: Vec<u8>) -> Result<Tensors, ReadError> {
    GIVEN.set(bytes);
    open(Path::new("some/file"), given)
}

/// The message of the error that opening `bytes` gives, without the path, which it must name.
fn error(bytes: Vec<u8>) -> String {
    let message = match open_bytes(bytes) {
        Ok(tensors) => panic!("read: {:?}", tensors.by_name),
        Err(error) => error.to_string(),
    };
    let message = message.strip_prefix("some/file: ");
    message.expect("the error names the file").to_owned()
}

fn fixture(name: &str) -> PathBuf {
    let folder = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/fixtures/checkpoint_files"
    );
    Path::new(folder).join(name)
}

fn fixture_bytes(name: &str) -> Vec<u8> {
    std::fs::read(fixture(name)).unwrap()
}

fn values(tensors: &Tensors, name: &str) -> (Vec<usize>, Vec<f32>) {
    let weight = &tensors.by_name[name];
    (weight.shape().to_vec(), weight.read().into_owned())
}
