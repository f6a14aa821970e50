//! The safetensors format: eight bytes of length, a header in JSON, the elements.
//!
//! The crate of that name reads the header and checks that the tensors cover the file, one after the other. What it would take
//! memory for is limited before, and its errors, which often name no tensor, are made out again in [`explain`].

use std::collections::BTreeMap;
use std::path::Path;

use ::safetensors::SafeTensors;
use ::safetensors::tensor::{Dtype, TensorInfo};
use serde_json::{Map, Value};

use super::error::{Fault, Place, shortened};
use super::{Bytes, ElementType, FileTensor, Tensors, Unread};
use crate::graph::Weight;

/// Bytes of a header. That of Stable Diffusion has 0.2 MB; what a LoRA says about its training can be some MB.
pub(super) const MAX_HEADER: usize = 64 << 20;
/// Brackets and commas of a header outside of strings: what the JSON reader takes memory for, whatever a string holds. A
/// tensor has about ten.
pub(super) const MAX_STRUCTURE: usize = 1 << 20;
/// The entry of the header that is no tensor.
const METADATA: &str = "__metadata__";

/// The tensors of the file `path`, whose contents are `bytes`.
pub(super) fn read(path: &Path, bytes: &Bytes) -> Result<Tensors, Fault> {
    let all = (**bytes).as_ref();
    let header = header(all)?;
    let (len, metadata) = SafeTensors::read_metadata(all)
        .map_err(|error| explain(header, all.len() - 8 - header.len(), error.to_string()))?;
    let start = 8 + len;
    let mut tensors = Tensors::default();
    for (name, info) in metadata.tensors() {
        let Some(element) = element(info.dtype) else {
            let unread = Unread {
                path: path.to_owned(),
                element: info.dtype.to_string(),
            };
            tensors.unread.insert(name, unread);
            continue;
        };
        let offset = start + info.data_offsets.0;
        let tensor = FileTensor::new(bytes.clone(), offset, element, info.shape.clone())
            .ok_or_else(|| Fault::damaged(Place::tensor(&name), "does not lie within the file"))?;
        tensors.by_name.insert(name, Weight::new(tensor));
    }
    if let Some(texts) = metadata.metadata() {
        tensors.metadata = texts.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
    }
    Ok(tensors)
}

fn element(dtype: Dtype) -> Option<ElementType> {
    Some(match dtype {
        Dtype::F64 => ElementType::F64,
        Dtype::F32 => ElementType::F32,
        Dtype::F16 => ElementType::F16,
        Dtype::BF16 => ElementType::BF16,
        Dtype::I64 => ElementType::I64,
        Dtype::I32 => ElementType::I32,
        Dtype::I16 => ElementType::I16,
        Dtype::I8 => ElementType::I8,
        Dtype::U8 => ElementType::U8,
        Dtype::BOOL => ElementType::Bool,
        _ => return None,
    })
}

/// The header's bytes, once they are known to be few enough.
fn header(all: &[u8]) -> Result<&[u8], Fault> {
    let Some((len, rest)) = all.split_first_chunk() else {
        return Err(Fault::at(0, "the file ends within the header's length"));
    };
    let len = u64::from_le_bytes(*len);
    Fault::limit(
        || Place::Byte(0),
        "bytes of the header",
        len,
        MAX_HEADER as u64,
    )?;
    let header = rest.get(..len as usize).ok_or_else(|| {
        let there = rest.len();
        Fault::at(
            0,
            format!("the header has {len} bytes, the file only {there} more: it is cut off"),
        )
    })?;
    Fault::limit(
        || Place::Byte(8),
        "brackets and commas of the header",
        structure(header),
        MAX_STRUCTURE as u64,
    )?;
    Ok(header)
}

/// How many brackets and commas of a JSON text stand outside of its strings.
fn structure(json: &[u8]) -> u64 {
    let (mut count, mut in_string, mut escaped) = (0, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' | b',' if !in_string => count += 1,
            _ => {}
        }
    }
    count
}

/// Why a header was refused: its first wrong tensor, in order of offsets, and what is wrong with it. `otherwise` is the
/// crate's own reason, `data` the number of bytes behind the header.
fn explain(header: &[u8], data: usize, otherwise: String) -> Fault {
    let text = match std::str::from_utf8(header) {
        Ok(text) => text,
        Err(error) => return Fault::at(8 + error.valid_up_to(), "the header is no UTF-8"),
    };
    let entries: Map<String, Value> = match serde_json::from_str(text) {
        Ok(entries) => entries,
        Err(error) => {
            let line = text.split_inclusive('\n').take(error.line().max(1) - 1);
            let before: usize = line.map(str::len).sum();
            let offset = 8 + before + error.column().saturating_sub(1);
            return Fault::at(offset, format!("the header is no JSON object: {error}"));
        }
    };
    if let Some(metadata) = entries.get(METADATA)
        && serde_json::from_value::<BTreeMap<String, String>>(metadata.clone()).is_err()
    {
        return Fault::at(8, format!("{METADATA} of the header holds more than texts"));
    }
    match first_wrong(entries, data) {
        Ok(()) => Fault::at(8, format!("the header is refused: {otherwise}")),
        Err(fault) => fault,
    }
}

fn first_wrong(entries: Map<String, Value>, data: usize) -> Result<(), Fault> {
    let mut tensors = Vec::new();
    for (name, entry) in entries.into_iter().filter(|(name, _)| name != METADATA) {
        let wrong = |reason: String| Fault::damaged(Place::tensor(&name), reason);
        let dtype = entry.get("dtype").unwrap_or(&Value::Null);
        if serde_json::from_value::<Dtype>(dtype.clone()).is_err() {
            let dtype = shortened(&dtype.to_string());
            return Err(wrong(format!("its type {dtype} is not known")));
        }
        let info: TensorInfo =
            serde_json::from_value(entry).map_err(|error| wrong(shortened(&error.to_string())))?;
        tensors.push((info.data_offsets, name, info));
    }
    tensors.sort_by(|(a, ..), (b, ..)| a.cmp(b));
    let mut end = 0;
    for ((from, to), name, info) in tensors {
        let wrong = |reason: String| Err(Fault::damaged(Place::tensor(&name), reason));
        let size = info
            .shape
            .iter()
            .try_fold(info.dtype.bitsize(), |bits, n| bits.checked_mul(*n));
        let Some(bits) = size else {
            let shape = shortened(&format!("{:?}", info.shape));
            return wrong(format!("its shape {shape} has more elements than can be"));
        };
        if to < from || bits % 8 != 0 || to - from != bits / 8 {
            let shape = shortened(&format!("{:?}", info.shape));
            let needed = bits.div_ceil(8);
            return wrong(format!(
                "lies in bytes {from}..{to} of the data, but {shape} of {} needs {needed} bytes",
                info.dtype
            ));
        }
        if from < end {
            return wrong(format!(
                "lies in bytes {from}..{to} of the data and overlaps the tensor before it, which ends at {end}"
            ));
        }
        if from > end {
            return wrong(format!(
                "begins at byte {from} of the data, but the tensor before it ends at {end}"
            ));
        }
        if to > data {
            return wrong(format!(
                "lies in bytes {from}..{to} of the data, but the file holds only {data}: it is cut off"
            ));
        }
        end = to;
    }
    if end < data {
        let surplus = data - end;
        return Err(Fault::at(
            8,
            format!("{surplus} bytes behind the last tensor belong to none"),
        ));
    }
    Ok(())
}
