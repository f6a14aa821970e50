//! The names that a pickle may hold, and what is made of each. Nothing is imported: a name is compared with these lists,
//! and one that is on none of them is an error.

use super::super::ElementType;

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Global<'a> {
    /// `_rebuild_tensor` and its successors to version 3: storage, offset, sizes, strides.
    Tensor,
    /// `_rebuild_parameter`: its first argument.
    Parameter,
    /// `_rebuild_from_type_v2`: a function, a class, the function's arguments.
    FromType,
    /// A function that makes a tensor of a kind that is not read, such as a sparse one.
    UnreadTensor(&'a str),
    /// A class of storages, by the type of their elements.
    Storage(Element<'a>),
    /// A type of elements.
    Element(Element<'a>),
    /// A dictionary.
    Dict,
    /// A list, tuple or set.
    List,
    /// A module of `torch.nn`, whose state may hold parameters.
    Module,
    /// Something harmless that nothing is read from.
    Opaque,
}

/// A type of elements, or the name of one that is not read.
pub type Element<'a> = Result<ElementType, &'a str>;

/// Harmless names.
const OPAQUE: &[(&str, &[&str])] = &[
    ("_codecs", &["encode"]),
    ("argparse", &["Namespace"]),
    ("copyreg", &["_reconstructor"]),
    ("copy_reg", &["_reconstructor"]),
    (
        "datetime",
        &["datetime", "date", "time", "timedelta", "timezone"],
    ),
    ("decimal", &["Decimal"]),
    ("fractions", &["Fraction"]),
    (
        "numpy",
        &[
            "dtype", "ndarray", "bool_", "float16", "float32", "float64", "int8", "int16", "int32",
            "int64", "uint8", "uint16", "uint32", "uint64",
        ],
    ),
    ("numpy.core.multiarray", &["scalar", "_reconstruct"]),
    ("numpy._core.multiarray", &["scalar", "_reconstruct"]),
    ("numpy.core.numeric", &["_frombuffer"]),
    ("numpy._core.numeric", &["_frombuffer"]),
    (
        "numpy.dtypes",
        &[
            "BoolDType",
            "Float16DType",
            "Float32DType",
            "Float64DType",
            "Int32DType",
            "Int64DType",
        ],
    ),
    (
        "pathlib",
        &[
            "Path",
            "PosixPath",
            "WindowsPath",
            "PurePath",
            "PurePosixPath",
            "PureWindowsPath",
        ],
    ),
    (
        "torch",
        &[
            "device",
            "Generator",
            "memory_format",
            "contiguous_format",
            "strided",
            "preserve_format",
            "channels_last",
        ],
    ),
    ("torch._C", &["Generator"]),
    ("torch.serialization", &["_get_layout"]),
    (
        "typing",
        &["Any", "Dict", "List", "Optional", "Tuple", "Union"],
    ),
    ("uuid", &["UUID"]),
];

/// Packages whose classes appear among the hyper-parameters and the training state of real checkpoints.
const OPAQUE_PACKAGES: &[&str] = &[
    "pytorch_lightning",
    "lightning",
    "lightning_fabric",
    "lightning_utilities",
    "omegaconf",
    "ldm",
    "torch.optim",
];

/// Builtins that make values.
const VALUES: &[&str] = &[
    "bool",
    "bytearray",
    "bytes",
    "complex",
    "float",
    "int",
    "long",
    "object",
    "range",
    "slice",
    "str",
    "unicode",
    "xrange",
];

/// What `module` and `name` stand for; `None` if they are on no list.
pub fn lookup<'a>(module: &str, name: &'a str) -> Option<Global<'a>> {
    match (module, name) {
        ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2" | "_rebuild_tensor_v3") => {
            return Some(Global::Tensor);
        }
        ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => {
            return Some(Global::Parameter);
        }
        ("torch._tensor", "_rebuild_from_type_v2") => return Some(Global::FromType),
        (
            "torch._utils",
            "_rebuild_sparse_tensor"
            | "_rebuild_sparse_csr_tensor"
            | "_rebuild_qtensor"
            | "_rebuild_nested_tensor"
            | "_rebuild_meta_tensor_no_storage"
            | "_rebuild_device_tensor_from_numpy"
            | "_rebuild_device_tensor_from_cpu_tensor"
            | "_rebuild_wrapper_subclass",
        ) => return Some(Global::UnreadTensor(name)),
        ("collections", "OrderedDict" | "Counter" | "defaultdict")
        | ("builtins" | "__builtin__", "dict") => return Some(Global::Dict),
        ("builtins" | "__builtin__", "list" | "tuple" | "set" | "frozenset")
        | ("torch", "Size")
        | ("collections", "deque") => return Some(Global::List),
        ("builtins" | "__builtin__", name) if VALUES.contains(&name) => {
            return Some(Global::Opaque);
        }
        ("torch" | "torch.cuda", _) if name.ends_with("Storage") => {
            return storage(name).map(Global::Storage);
        }
        (
            "torch.storage",
            "UntypedStorage" | "_UntypedStorage" | "TypedStorage" | "_TypedStorage",
        ) => {
            return Some(Global::Storage(Ok(ElementType::U8)));
        }
        ("torch.nn.parameter" | "torch.nn", "Parameter" | "Buffer") | ("torch", "Tensor") => {
            return Some(Global::Opaque);
        }
        _ => {}
    }
    if module == "torch"
        && let Some(element) = dtype(name)
    {
        return Some(Global::Element(element));
    }
    if in_package(module, "torch.nn.modules") {
        return Some(Global::Module);
    }
    let listed = OPAQUE
        .iter()
        .any(|(listed, names)| *listed == module && names.contains(&name));
    let package = OPAQUE_PACKAGES
        .iter()
        .any(|package| in_package(module, package));
    // A dot in a name is a way through a module's imports: `ldm.util`, `os.system`.
    (listed || package && !name.contains('.')).then_some(Global::Opaque)
}

fn in_package(module: &str, package: &str) -> bool {
    module
        .strip_prefix(package)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

fn storage(name: &str) -> Option<Element<'_>> {
    Some(Ok(match name {
        "DoubleStorage" => ElementType::F64,
        "FloatStorage" => ElementType::F32,
        "HalfStorage" => ElementType::F16,
        "BFloat16Storage" => ElementType::BF16,
        "LongStorage" => ElementType::I64,
        "IntStorage" => ElementType::I32,
        "ShortStorage" => ElementType::I16,
        "CharStorage" => ElementType::I8,
        "ByteStorage" | "UntypedStorage" => ElementType::U8,
        "BoolStorage" => ElementType::Bool,
        "ComplexFloatStorage"
        | "ComplexDoubleStorage"
        | "QInt8Storage"
        | "QUInt8Storage"
        | "QInt32Storage"
        | "QUInt4x2Storage"
        | "QUInt2x4Storage" => return Some(Err(name)),
        _ => return None,
    }))
}

fn dtype(name: &str) -> Option<Element<'_>> {
    Some(Ok(match name {
        "float64" | "double" => ElementType::F64,
        "float32" | "float" => ElementType::F32,
        "float16" | "half" => ElementType::F16,
        "bfloat16" => ElementType::BF16,
        "int64" | "long" => ElementType::I64,
        "int32" | "int" => ElementType::I32,
        "int16" | "short" => ElementType::I16,
        "int8" => ElementType::I8,
        "uint8" => ElementType::U8,
        "bool" => ElementType::Bool,
        "uint16" | "uint32" | "uint64" | "complex32" | "complex64" | "complex128" => {
            return Some(Err(name));
        }
        _ if name.starts_with("float8_") || name.starts_with("float4_") => {
            return Some(Err(name));
        }
        _ => return None,
    }))
}
