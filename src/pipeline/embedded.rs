//! The package that is a part of the program.

/// Begins at a page, as in a mapped file.
#[repr(C, align(4096))]
struct Aligned<T: ?Sized>(T);

static MODEL: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/model.kiln")));

/// The package's bytes.
pub(super) fn bytes() -> &'static [u8] {
    &MODEL.0
}
