//! A file as `torch.save` writes it: a zip of a pickle and of the tensors' bytes.

use super::layouts::Element;
use super::model::Tensor;

/// `{"epoch": 3, "state_dict": {...}}` in PyTorch's format since 1.6.
pub fn save(tensors: &[Tensor], element: Element) -> Vec<u8> {
    let mut zip = Zip::default();
    zip.add("archive/data.pkl", &pickle(tensors, element));
    for (number, tensor) in tensors.iter().enumerate() {
        let bytes = element.bytes(&tensor.values);
        zip.add(&format!("archive/data/{number}"), &bytes);
    }
    zip.add("archive/version", b"3\n");
    zip.finish()
}

/// Pickle's protocol 2, written with as few of its operations as will do.
fn pickle(tensors: &[Tensor], element: Element) -> Vec<u8> {
    let storage = match element {
        Element::F32 => "FloatStorage",
        Element::F16 => "HalfStorage",
        Element::Bf16 => "BFloat16Storage",
    };
    let mut p = Pickle(vec![0x80, 2]);
    p.op(b"}("); // EMPTY_DICT, MARK
    p.text("epoch");
    p.int(3);
    p.text("state_dict");
    p.op(b"}(");
    for (number, tensor) in tensors.iter().enumerate() {
        p.text(&tensor.name);
        p.global("torch._utils", "_rebuild_tensor_v2");
        p.op(b"((");
        p.text("storage");
        p.global("torch", storage);
        p.text(&number.to_string());
        p.text("cpu");
        p.int(tensor.values.len());
        p.op(b"tQ"); // TUPLE, BINPERSID
        p.int(0);
        p.op(b"(");
        tensor.shape.iter().for_each(|size| p.int(*size));
        p.op(b"t(");
        for axis in 0..tensor.shape.len() {
            p.int(tensor.shape[axis + 1..].iter().product());
        }
        p.op(b"t\x89"); // NEWFALSE
        p.global("collections", "OrderedDict");
        p.op(b")RtR"); // EMPTY_TUPLE, REDUCE, TUPLE, REDUCE
    }
    p.op(b"uu."); // SETITEMS twice, STOP
    p.0
}

struct Pickle(Vec<u8>);

impl Pickle {
    fn op(&mut self, bytes: &[u8]) {
        self.0.extend(bytes);
    }

    fn text(&mut self, text: &str) {
        self.op(b"X");
        self.op(&(text.len() as u32).to_le_bytes());
        self.op(text.as_bytes());
    }

    fn int(&mut self, value: usize) {
        self.op(b"J");
        self.op(&(value as u32).to_le_bytes());
    }

    fn global(&mut self, module: &str, name: &str) {
        self.op(format!("c{module}\n{name}\n").as_bytes());
    }
}

/// A zip of stored entries.
#[derive(Default)]
struct Zip {
    bytes: Vec<u8>,
    directory: Vec<u8>,
    entries: u16,
}

impl Zip {
    fn add(&mut self, name: &str, data: &[u8]) {
        let offset = self.bytes.len() as u32;
        let mut common = Vec::new();
        // Flags, method, time, date.
        common.extend([0; 8]);
        common.extend(crc32(data).to_le_bytes());
        common.extend((data.len() as u32).to_le_bytes());
        common.extend((data.len() as u32).to_le_bytes());
        common.extend((name.len() as u16).to_le_bytes());
        // PyTorch pads with an extra field so that data begins at a multiple of 64.
        let start = self.bytes.len() + 30 + name.len() + 4;
        let padding = (64 - start % 64) % 64;
        let extra = [
            &b"FB"[..],
            &(padding as u16).to_le_bytes(),
            &vec![b'Z'; padding],
        ]
        .concat();
        self.bytes.extend(b"PK\x03\x04\x14\0");
        self.bytes.extend(&common);
        self.bytes.extend((extra.len() as u16).to_le_bytes());
        self.bytes.extend(name.as_bytes());
        self.bytes.extend(extra);
        self.bytes.extend(data);

        self.directory.extend(b"PK\x01\x02\x14\0\x14\0");
        self.directory.extend(&common);
        // Lengths of extra field and comment, disk, attributes.
        self.directory.extend([0; 12]);
        self.directory.extend(offset.to_le_bytes());
        self.directory.extend(name.as_bytes());
        self.entries += 1;
    }

    fn finish(mut self) -> Vec<u8> {
        let offset = self.bytes.len() as u32;
        self.bytes.extend(&self.directory);
        self.bytes.extend(b"PK\x05\x06\0\0\0\0");
        self.bytes.extend(self.entries.to_le_bytes());
        self.bytes.extend(self.entries.to_le_bytes());
        self.bytes
            .extend((self.directory.len() as u32).to_le_bytes());
        self.bytes.extend(offset.to_le_bytes());
        self.bytes.extend([0; 2]);
        self.bytes
    }
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 }
        })
    })
}
