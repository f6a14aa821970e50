//! Names, operand slots and attributes of the operators, in one table: what the text form, the builder and the planner
//! know an operator by.

use super::op::{Activation, BinaryKind, Op, ReduceKind, UnaryKind};
use std::fmt;

/// An attribute's value as the text form writes it.
#[derive(Clone, Debug, PartialEq)]
pub enum Attribute {
    /// A whole number.
    Int(usize),
    /// A real number.
    Float(f32),
    /// A word, quoted when it is not an identifier.
    Word(String),
    /// Whole numbers in brackets.
    List(Vec<usize>),
}

impl fmt::Display for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Attribute::Int(v) => write!(f, "{v}"),
            Attribute::Float(v) => write!(f, "{v:?}"),
            Attribute::Word(w) if w.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') => {
                f.write_str(w)
            }
            Attribute::Word(w) => write!(f, "{w:?}"),
            Attribute::List(v) => write!(f, "{v:?}"),
        }
    }
}

/// A Rust type that an attribute may have.
trait Field: Sized {
    fn write(&self) -> Attribute;
    fn read(attribute: &Attribute) -> Option<Self>;
    /// The value that an attribute has which is not written.
    fn unwritten() -> Option<Self> {
        None
    }
}

/// A flag that is not set is not written.
impl Field for bool {
    fn write(&self) -> Attribute {
        Attribute::Word(self.to_string())
    }
    fn read(attribute: &Attribute) -> Option<Self> {
        match attribute {
            Attribute::Word(w) => w.parse().ok(),
            _ => None,
        }
    }
    fn unwritten() -> Option<Self> {
        Some(false)
    }
}

impl Field for usize {
    fn write(&self) -> Attribute {
        Attribute::Int(*self)
    }
    fn read(attribute: &Attribute) -> Option<Self> {
        match attribute {
            Attribute::Int(v) => Some(*v),
            _ => None,
        }
    }
}

impl Field for f32 {
    fn write(&self) -> Attribute {
        Attribute::Float(*self)
    }
    fn read(attribute: &Attribute) -> Option<Self> {
        match attribute {
            Attribute::Int(v) => Some(*v as f32),
            Attribute::Float(v) => Some(*v),
            _ => None,
        }
    }
}

impl Field for String {
    fn write(&self) -> Attribute {
        Attribute::Word(self.clone())
    }
    fn read(attribute: &Attribute) -> Option<Self> {
        match attribute {
            Attribute::Word(w) => Some(w.clone()),
            _ => None,
        }
    }
}

impl Field for Vec<usize> {
    fn write(&self) -> Attribute {
        Attribute::List(self.clone())
    }
    fn read(attribute: &Attribute) -> Option<Self> {
        match attribute {
            Attribute::List(v) => Some(v.clone()),
            _ => None,
        }
    }
}

impl<const N: usize> Field for [usize; N] {
    fn write(&self) -> Attribute {
        Attribute::List(self.to_vec())
    }
    fn read(attribute: &Attribute) -> Option<Self> {
        match attribute {
            Attribute::List(v) => v.as_slice().try_into().ok(),
            _ => None,
        }
    }
}

impl Field for Option<[usize; 2]> {
    fn write(&self) -> Attribute {
        self.map_or(Attribute::Word("none".into()), |v| {
            Attribute::List(v.to_vec())
        })
    }
    fn read(attribute: &Attribute) -> Option<Self> {
        match attribute {
            Attribute::Word(w) if w == "none" => Some(None),
            other => Field::read(other).map(Some),
        }
    }
}

macro_rules! words {
    ($($type:ty { $($word:literal $value:expr,)* })*) => {
        $(impl Field for $type {
            fn write(&self) -> Attribute {
                let words: &[($type, &str)] = &[$(($value, $word)),*];
                let word = words.iter().find(|w| w.0 == *self).map_or("?", |w| w.1);
                Attribute::Word(word.into())
            }
            fn read(attribute: &Attribute) -> Option<Self> {
                match attribute {
                    Attribute::Word(w) => match w.as_str() { $($word => Some($value),)* _ => None },
                    _ => None,
                }
            }
        })*
    };
}

words! {
    Activation {
        "none" Activation::None, "silu" Activation::Silu, "gelu" Activation::Gelu, "quick_gelu" Activation::QuickGelu,
        "geglu" Activation::Geglu, "relu" Activation::Relu, "tanh" Activation::Tanh,
    }
    BinaryKind { "add" BinaryKind::Add, "sub" BinaryKind::Sub, "mul" BinaryKind::Mul, "div" BinaryKind::Div, }
    UnaryKind {
        "sigmoid" UnaryKind::Sigmoid, "erf" UnaryKind::Erf, "sin" UnaryKind::Sin, "cos" UnaryKind::Cos, "exp" UnaryKind::Exp,
        "sqrt" UnaryKind::Sqrt, "rsqrt" UnaryKind::Rsqrt, "recip" UnaryKind::Recip, "neg" UnaryKind::Neg,
        "square" UnaryKind::Square, "cast" UnaryKind::Cast,
    }
    ReduceKind { "sum" ReduceKind::Sum, "mean" ReduceKind::Mean, "mean_of_squares" ReduceKind::MeanOfSquares, }
}

macro_rules! required {
    (!) => {
        true
    };
    (?) => {
        false
    };
}

macro_rules! table {
    ($($group:ident $op:ident $name:literal { $($field:ident),* } [$($slot:ident $mark:tt),*];)*) => {
        impl Op {
            /// The operator's name in the text form.
            pub fn name(&self) -> &'static str {
                match self { $(Op::$op { .. } => $name,)* }
            }

            /// The operand slots, in order. `source_concat` takes any number of operands: its one slot repeats.
            pub fn slots(&self) -> &'static [&'static str] {
                match self { $(Op::$op { .. } => &[$(stringify!($slot)),*],)* }
            }

            /// Whether the slot of that index must be filled.
            pub fn is_required(&self, slot: usize) -> bool {
                let required: &[bool] = match self { $(Op::$op { .. } => &[$(required!($mark)),*],)* };
                required.get(slot).copied().unwrap_or(true)
            }

            /// Whether a program can hold the operator.
            pub fn is_kiln(&self) -> bool {
                match self { $(Op::$op { .. } => stringify!($group) == "kiln",)* }
            }

            /// The attributes' names and values, in order, but for flags that are not set.
            pub fn attributes(&self) -> Vec<(&'static str, Attribute)> {
                match self { $(Op::$op { $($field),* } => {
                    #[allow(unused_mut)]
                    let mut attributes = Vec::new();
                    $(if Field::unwritten().as_ref() != Some($field) {
                        attributes.push((stringify!($field), Field::write($field)));
                    })*
                    attributes
                })* }
            }

            /// The operator of that name; `get` gives the attributes. The error names what is unknown, missing or wrong.
            pub(crate) fn from_attributes(name: &str, get: &dyn Fn(&str) -> Option<Attribute>) -> Result<Op, String> {
                match name {
                    $($name => Ok(Op::$op {
                        $($field: {
                            let field = stringify!($field);
                            match get(field) {
                                Some(value) => Field::read(&value)
                                    .ok_or_else(|| format!("{name}'s {field} cannot be {value}"))?,
                                None => Field::unwritten()
                                    .ok_or_else(|| format!("{name} needs the attribute {field}"))?,
                            }
                        }),*
                    }),)*
                    _ => Err(format!("no operator is called {name:?}")),
                }
            }
        }
    };
}

table! {
    kiln Conv2d "conv2d" { stride, pad, up, activation } [x!, weight!, bias?, shift?, residual?];
    kiln Linear "linear" { activation } [x!, x2?, weight!, bias?, shift?, residual?];
    kiln GroupNorm "group_norm" { groups, eps, activation, quantized } [x!, x2?, gamma?, beta?];
    kiln LayerNorm "layer_norm" { eps, quantized } [x!, gamma?, beta?];
    kiln Attention "attention" { heads, scale, causal, integers } [q!, k!, v!, mask?];
    kiln Quantize "quantize" { per_row } [x!, x2?];
    kiln Unary "unary" { activation } [x!];
    kiln Affine "affine" { scale, offset } [x!];
    kiln Binary "binary" { kind } [a!, b!];
    kiln Concat "concat" { } [x!, x2!];
    kiln Upsample "upsample" { size } [x!];
    kiln Embed "embed" { quantized } [ids!, table!, positions?];
    kiln TimestepEmbedding "timestep_embedding" { cos_first } [timestep!, frequencies!];
    kiln Softmax "softmax" { } [x!];
    kiln Copy "copy" { shape, strides, offset } [x!];
    source SourceConv "source_conv" { stride, pad } [x!, weight!, bias?];
    source Einsum "einsum" { equation } [a!, b!];
    source SourceBinary "source_binary" { kind } [a!, b!];
    source SourceUnary "source_unary" { kind } [x!];
    source Reduce "reduce" { kind, axes } [x!];
    source RmsNorm "rms_norm" { axis, eps } [x!];
    source SourceSoftmax "source_softmax" { axis } [x!];
    source Reshape "reshape" { shape } [x!];
    source Transpose "transpose" { perm } [x!];
    source Slice "slice" { axis, start, end } [x!];
    source SourceConcat "source_concat" { axis } [x!];
    source Expand "expand" { shape } [x!];
    source SourceUpsample "source_upsample" { scale } [x!];
    source Gather "gather" { } [table!, ids!];
    source SourceGroupNorm "source_group_norm" { groups, eps, activation } [x!, gamma?, beta?];
}
