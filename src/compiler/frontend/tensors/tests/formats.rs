//! Files that PyTorch and safetensors wrote, against what PyTorch says is in them.

use super::*;

/// Compares the tensors of a fixture, bit for bit, with those of `<expected>.expected.safetensors`.
fn compare(file: &str, expected: &str) -> Tensors {
    let found = open(&fixture(file), read_file).unwrap();
    let expected = fixture(&format!("{expected}.expected.safetensors"));
    let expected = open(&expected, read_file).unwrap();
    let names = |tensors: &Tensors| tensors.by_name.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&found), names(&expected));
    for name in names(&found) {
        let bits = |tensors| {
            let (shape, values) = values(tensors, &name);
            (
                shape,
                values.iter().map(|x| x.to_bits()).collect::<Vec<_>>(),
            )
        };
        assert_eq!(bits(&found), bits(&expected), "{file}: {name}");
    }
    assert_eq!(found.files, [fixture(file)]);
    found
}

#[test]
fn every_type_is_read_exactly() {
    let safetensors = compare("dtypes.safetensors", "dtypes");
    assert_eq!(safetensors.metadata["ss_network_module"], "networks.lora");
    compare("dtypes.pt", "dtypes");
}

#[test]
fn views_are_what_pytorch_means() {
    compare("views.pt", "views");
    compare("protocol5.pt", "views");
}

/// What lies beside the state dict gives no tensors, only texts and numbers.
#[test]
fn a_training_is_read_for_its_weights() {
    let found = compare("lightning.ckpt", "lightning");
    assert!(found.unread.is_empty());
    let texts: Vec<_> = found.metadata.iter().map(|(k, v)| (&**k, &**v)).collect();
    let expected = [
        ("epoch", "3"),
        ("global_step", "470000"),
        ("hparams_name", "kwargs"),
        ("pytorch-lightning_version", "1.4.2"),
    ];
    assert_eq!(texts, expected);
}

#[test]
fn a_textual_inversion_is_read_through_its_module() {
    let found = compare("module.pt", "module");
    assert_eq!(found.metadata["name"], "red-apple");
    assert_eq!(found.metadata["step"], "2999");
}

/// The file is read, and only who wants the tensor gets an error.
#[test]
fn types_that_are_not_read_are_named_to_who_asks() {
    for (file, element) in [
        ("float8.safetensors", "F8_E4M3"),
        ("float8.pt", "float8_e4m3fn"),
    ] {
        let found = open(&fixture(file), read_file).unwrap();
        assert_eq!(values(&found, "plain"), (vec![2], vec![1.0, 2.0]));
        assert_eq!(found.unread["small"].element, element);
        assert!(found.check_read(|name| name == "plain").is_ok());
        let error = found.check_read(|_| true).unwrap_err().to_string();
        let expected =
            format!("{file}: tensor \"small\" is of type {element}, which kiln does not read");
        assert!(error.contains(&expected), "{error}");
    }
}

#[test]
fn files_of_other_kinds_are_called_by_their_names() {
    let mut tar = vec![b'a'; 600];
    tar[257..262].copy_from_slice(b"ustar");
    let first_bytes = b"<!DOCTYPE html>\n<html>404</html>".to_vec();
    for (bytes, expected) in [
        (
            Vec::new(),
            "is empty, not a checkpoint that kiln reads; download",
        ),
        (
            fixture_bytes("legacy.pt"),
            "is a file of PyTorch's format before 1.6, not a checkpoint that kiln reads; load it",
        ),
        (fixture_bytes("script.pt"), "is a TorchScript program"),
        (tar, "is a tar archive"),
        (first_bytes, "is an HTML or XML page"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00".to_vec(),
            "git lfs pull",
        ),
        (b"GGUF\x03\0\0\0".to_vec(), "is a GGUF model"),
        (b"\x08\x0a\x12\x07pytorch".to_vec(), "is an ONNX model"),
        (b"\x1f\x8b\x08\0".to_vec(), "is a gzip archive"),
        (
            b"\x80\x02}q\0.".to_vec(),
            "is a pickle that is not in a zip archive",
        ),
        (
            b"{\"error\": \"not found\"}".to_vec(),
            "is JSON, but no index of a checkpoint (missing field `weight_map`",
        ),
        (
            vec![1, 2, 3],
            "is of an unknown kind (its first bytes are 01 02 03)",
        ),
        (
            archive::archive(&[archive::Entry::new("model.safetensors", "")], false),
            "is a zip archive without a data.pkl",
        ),
        (
            archive::torch(b"\x80\x02].", &[]),
            "holds no dictionary of tensors",
        ),
    ] {
        let error = error(bytes);
        assert!(error.contains(expected), "{error}, expected {expected}");
    }
}

/// A header whose length looks like the first bytes of a gzip archive.
#[test]
fn no_length_is_taken_for_another_format() {
    let mut header = b"{}".to_vec();
    header.resize(0x8b1f, b' ');
    let bytes = [&0x8b1fu64.to_le_bytes()[..], &header].concat();
    assert!(open_bytes(bytes).unwrap().by_name.is_empty());
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = match open(Path::new("no/such.ckpt"), read_file) {
        Ok(_) => panic!("read"),
        Err(error) => error.to_string(),
    };
    assert!(error.starts_with("no/such.ckpt: "), "{error}");
}
