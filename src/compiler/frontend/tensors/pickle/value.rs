//! What a pickle holds.

use super::names::{Element, Global};

/// A value, as its place among [`Values`]. Several others may refer to it, and it may contain itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Id(pub(super) u32);

/// A value. Texts are borrowed from the pickle.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'a> {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(&'a str),
    /// A list, a tuple or a set.
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Global(Global<'a>),
    Storage(Storage<'a>),
    Tensor(Box<Tensor<'a>>),
    /// A tensor of a kind that is not read, and what the kind is called.
    UnreadTensor(&'a str),
    /// A module of `torch.nn` and its state, once that is known.
    Module(Option<Id>),
    /// Bytes, long numbers, and whatever a class on the list of harmless ones would have made.
    Opaque,
}

/// A storage of the archive: consecutive elements of one type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Storage<'a> {
    /// Its entry is `data/<key>`.
    pub key: &'a str,
    /// The type of its elements.
    pub element: Element<'a>,
    /// How many elements it has.
    pub len: u64,
}

/// A view of a storage.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor<'a> {
    pub storage: Storage<'a>,
    /// The type of its elements, where it is not that of the storage.
    pub element: Element<'a>,
    /// Its first element, counted in elements.
    pub offset: u64,
    pub shape: Vec<u64>,
    /// As many as there are sizes, counted in elements.
    pub strides: Vec<u64>,
}

/// The values of a pickle.
#[derive(Debug)]
pub struct Values<'a> {
    pub(super) all: Vec<Value<'a>>,
    pub(super) root: Id,
}

impl<'a> Values<'a> {
    /// The value that the pickle is of.
    pub fn root(&self) -> Id {
        self.root
    }

    pub fn get(&self, id: Id) -> &Value<'a> {
        &self.all[id.0 as usize]
    }

    /// The value of a text key of a dictionary.
    pub fn entry(&self, dict: &[(Id, Id)], key: &str) -> Option<Id> {
        let found = dict
            .iter()
            .rev()
            .find(|(k, _)| *self.get(*k) == Value::Text(key));
        found.map(|(_, value)| *value)
    }
}
