//! Pickles written by hand, in the words of `pickletools`.

use super::archive::torch;
use super::*;

pub const FLOATS: [u8; 8] = [0, 0, 0x80, 0x3f, 0, 0, 0, 0x40];

fn text(text: &str) -> Vec<u8> {
    let mut bytes = vec![b'X'];
    bytes.extend((text.len() as u32).to_le_bytes());
    bytes.extend(text.as_bytes());
    bytes
}

fn int(n: i64) -> Vec<u8> {
    let mut bytes = vec![0x8a, 8];
    bytes.extend(n.to_le_bytes());
    bytes
}

fn tuple(items: &[Vec<u8>]) -> Vec<u8> {
    [b"(", &items.concat()[..], b"t"].concat()
}

fn global(name: &str) -> Vec<u8> {
    let (module, name) = name.rsplit_once('.').unwrap();
    format!("c{module}\n{name}\n").into_bytes()
}

fn storage(class: &str, key: &str, len: i64) -> Vec<u8> {
    let id = [
        text("storage"),
        global(class),
        text(key),
        text("cpu"),
        int(len),
    ];
    [tuple(&id), b"Q".to_vec()].concat()
}

fn ints(all: &[i64]) -> Vec<u8> {
    tuple(&all.iter().map(|n| int(*n)).collect::<Vec<_>>())
}

/// A tensor of two floats, or what is made of its storage.
pub fn tensor(storage: Vec<u8>, offset: i64, shape: &[i64], strides: &[i64]) -> Vec<u8> {
    let args = [
        storage,
        int(offset),
        ints(shape),
        ints(strides),
        vec![0x89],
        [global("collections.OrderedDict"), b")R".to_vec()].concat(),
    ];
    [
        global("torch._utils._rebuild_tensor_v2"),
        tuple(&args),
        b"R".to_vec(),
    ]
    .concat()
}

pub fn floats(len: i64) -> Vec<u8> {
    storage("torch.FloatStorage", "0", len)
}

/// A pickle of `{"t": value}`.
pub fn pickle(value: &[u8]) -> Vec<u8> {
    [b"\x80\x02}", &text("t")[..], value, b"s."].concat()
}

/// The message for `{"t": value}` beside a storage of two floats.
pub fn failure(value: &[u8]) -> String {
    error(torch(&pickle(value), &[&FLOATS]))
}

fn read(value: &[u8]) -> Tensors {
    open_bytes(torch(&pickle(value), &[&FLOATS])).unwrap()
}

#[test]
fn two_floats_are_read() {
    let tensors = read(&tensor(floats(2), 0, &[2], &[1]));
    assert_eq!(values(&tensors, "t"), (vec![2], vec![1.0, 2.0]));
}

#[test]
fn tensors_must_fit_their_storages() {
    for (offset, shape, strides, expected) in [
        (
            0,
            &[3][..],
            &[1][..],
            "[3] with strides [1] from element 0 on does not fit its storage of 2 elements",
        ),
        (1, &[2], &[1], "does not fit its storage"),
        (i64::MAX, &[2], &[i64::MAX], "does not fit its storage"),
        (0, &[2, 2], &[2, 1], "does not fit its storage"),
        (
            0,
            &[i64::MAX, 2],
            &[0, 0],
            "its shape [9223372036854775807, 2] has more elements than can be",
        ),
        (
            0,
            &[1 << 40],
            &[0],
            "repeats the 2 elements of its storage too often",
        ),
        (
            -1,
            &[1],
            &[1],
            "of something other than a storage and sizes",
        ),
        (
            0,
            &[-1],
            &[1],
            "of something other than a storage and sizes",
        ),
        (
            1,
            &[2],
            &[-1],
            "of something other than a storage and sizes",
        ),
        (0, &[2], &[], "more sizes than strides"),
    ] {
        let error = failure(&tensor(floats(2), offset, shape, strides));
        assert!(error.contains(expected), "{error}, expected {expected}");
    }
    let nothing = read(&tensor(floats(2), 2, &[0, 5], &[5, 1]));
    assert_eq!(values(&nothing, "t"), (vec![0, 5], vec![]));
}

#[test]
fn storages_must_be_what_the_archive_holds() {
    for (storage, expected) in [
        (
            floats(3),
            "tensor \"t\": its storage has 3 elements of F32, but its entry 8 bytes",
        ),
        (
            floats(i64::MAX),
            "its storage has 9223372036854775807 elements of F32",
        ),
        (
            storage("torch.FloatStorage", "7", 2),
            "tensor \"t\": its storage data/7 is not in the archive",
        ),
        (
            storage("torch.OddStorage", "0", 2),
            "the pickle names \"torch.OddStorage\"",
        ),
        (b"N".to_vec(), "of something other than a storage and sizes"),
        (
            b"NQ".to_vec(),
            "refers to something other than a storage outside of it",
        ),
    ] {
        let error = failure(&tensor(storage, 0, &[2], &[1]));
        assert!(error.contains(expected), "{error}, expected {expected}");
    }
    let unread = read(&tensor(
        storage("torch.ComplexFloatStorage", "0", 1),
        0,
        &[1],
        &[1],
    ));
    assert_eq!(unread.unread["t"].element, "ComplexFloatStorage");
}

/// Two names of one storage, in types of different widths.
#[test]
fn storages_are_shared() {
    let as_bytes = storage("torch.ByteStorage", "0", 8);
    let bytes = tensor(as_bytes, 2, &[2], &[1]);
    let both = tuple(&[tensor(floats(2), 1, &[], &[]), bytes]);
    let tensors = read(&both);
    assert_eq!(values(&tensors, "t.0"), (vec![], vec![2.0]));
    assert_eq!(values(&tensors, "t.1"), (vec![2], vec![128.0, 63.0]));
}

/// As `torch.save` does for a tensor that has attributes, or for types newer than its storages.
#[test]
fn tensors_are_rebuilt_in_the_newer_ways_too() {
    let plain = tensor(floats(2), 0, &[2], &[1]);
    let arguments = plain
        .strip_prefix(&global("torch._utils._rebuild_tensor_v2")[..])
        .unwrap();
    let arguments = arguments.strip_suffix(b"R").unwrap().to_vec();
    let typed = [
        global("torch._utils._rebuild_tensor_v2"),
        global("torch.Tensor"),
        arguments,
        b"}".to_vec(),
    ];
    let with_state = [
        global("torch._tensor._rebuild_from_type_v2"),
        tuple(&typed),
        b"R".to_vec(),
    ]
    .concat();
    assert_eq!(values(&read(&with_state), "t").1, [1.0, 2.0]);

    let untyped = storage("torch.storage.UntypedStorage", "0", 8);
    let args = [
        untyped,
        int(0),
        ints(&[2]),
        ints(&[1]),
        vec![0x89],
        b"}".to_vec(),
        global("torch.float32"),
    ];
    let third = [
        global("torch._utils._rebuild_tensor_v3"),
        tuple(&args),
        b"R".to_vec(),
    ]
    .concat();
    assert_eq!(values(&read(&third), "t").1, [1.0, 2.0]);
}

/// Everything that Python would run, and everything that this machine has no word for.
#[test]
fn what_is_on_no_list_is_refused() {
    for name in [
        "os.system",
        "posix.system",
        "nt.system",
        "subprocess.Popen",
        "builtins.eval",
        "builtins.exec",
        "builtins.getattr",
        "__builtin__.eval",
        "builtins.__import__",
        "runpy.run_path",
        "torch.load",
        "torch.hub.load",
        "torch.jit.load",
        "numpy.load",
        "numpy.testing._private.utils.runstring",
        "pickle.loads",
        "collections.namedtuple",
        "functools.partial",
        "operator.attrgetter",
        "ldmx.x",
        "torch.optimal.x",
        "__main__.Net",
        "torch.utils._config_module.load_config",
    ] {
        let error = failure(&[global(name), text("touch x"), b"\x85R".to_vec()].concat());
        let expected = format!(
            "the pickle names {name:?}, which kiln does not know to be harmless; nothing in it was run"
        );
        assert!(error.contains(&expected), "{error}");
        let (module, last) = name.rsplit_once('.').unwrap();
        let error = failure(&[text(module), text(last), b"\x93".to_vec()].concat());
        assert!(error.contains(&expected), "{error}");
    }
    // A way through the imports of a harmless module.
    let error = failure(&[text("ldm.util"), text("os.system"), b"\x93".to_vec()].concat());
    assert!(error.contains("\"ldm.util.os.system\""), "{error}");
    for (value, expected) in [
        (
            &b"(S'x'\n"[..],
            "has the operation 0x53, which no checkpoint needs",
        ),
        (b"(i__main__\nX\n", "has the operation 0x69"),
        (b"(o", "has the operation 0x6f"),
        (b"\x82\x01", "has the operation 0x82"),
        (b"\x97", "has the operation 0x97"),
        (b"N)R", "calls what is no name"),
        (b"NNR", "calls something with what is no tuple"),
    ] {
        let error = failure(value);
        assert!(error.contains(expected), "{error}, expected {expected}");
    }
}

/// The byte that the message names is where the name stands in the file.
#[test]
fn a_refusal_says_where() {
    let bytes = fixture_bytes("system.pt");
    let name = bytes
        .windows(12)
        .position(|part| part == b"posix\nsystem")
        .unwrap();
    let expected = format!("byte {}: the pickle names \"posix.system\"", name - 1);
    let error = error(bytes);
    assert!(error.starts_with(&expected), "{error}");
}

#[test]
fn broken_pickles_say_what_is_wrong() {
    for (pickle, expected) in [
        (&b""[..], "the pickle needs 1 more bytes, there are 0"),
        (b"\x80\x02}", "the pickle needs 1 more bytes"),
        (b"\x80\x01}.", "is of protocol 1, not 2 to 5"),
        (b"\x80\x06}.", "is of protocol 6, not 2 to 5"),
        (b"\x80\x02.", "takes more from its stack than is on it"),
        (b"\x80\x02NNNs.", "sets a key of what is no dictionary"),
        (b"\x80\x02(}NN.", "holds no dictionary"),
        (b"\x80\x02}(Nu.", "sets a key without a value"),
        (b"\x80\x02}u.", "has no mark where one is needed"),
        (b"\x80\x02NNa.", "appends to what is no list"),
        (
            b"\x80\x02h\x07.",
            "recalls entry 7 of its memo, which is empty",
        ),
        (b"\x80\x02cos", "has a name that does not end"),
        (
            b"\x80\x02X\xff\xff\xff\xff",
            "needs 4294967295 more bytes, there are 0",
        ),
        (
            b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\xff",
            "needs 18446744073709551615 more bytes",
        ),
        (b"\x80\x04\x8c\x01\xff.", "holds a text that is no UTF-8"),
        (
            b"\x80\x02\x8b\xff\xff\xff\xff.",
            "needs 4294967295 more bytes",
        ),
    ] {
        let error = error(torch(pickle, &[]));
        assert!(error.contains(expected), "{error}, expected {expected}");
    }
}

/// Lists that contain each other, and lists of the same list twice, over and over.
#[test]
fn values_that_never_end_are_given_up() {
    let endless = failure(b"]q\x01h\x01a");
    assert!(
        endless.contains("containers around it: 33, the limit is 32"),
        "{endless}"
    );
    let doubled = [&b"]"[..], &b"2\x86".repeat(30)].concat();
    let doubled = failure(&doubled);
    assert!(
        doubled.contains("values in its containers: 1048577, the limit is 1048576"),
        "{doubled}"
    );
}
