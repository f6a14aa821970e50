//! A reader of pickles that runs nothing.
//!
//! A pickle is a program for a small stack machine, which can call whatever Python can import. This machine knows the
//! values and containers of protocols 2 to 5, and of the calls only those that make tensors, dictionaries and lists (see
//! `names.rs`); it does them itself. Calls of other names on the lists give [`Value::Opaque`]; a name on no list is an
//! error. Source: CPython's `pickletools.py`, and `torch/_utils.py` for the arguments.

mod names;
mod value;

use std::collections::HashMap;

use super::error::{Fault, Place, shortened};
use names::Global;
pub(super) use value::{Id, Storage, Tensor, Value, Values};

/// Bytes of a pickle. That of Stable Diffusion with its optimizer has 1 MB.
pub(super) const MAX_PICKLE: u64 = 64 << 20;
/// Values, items of containers and memo entries of a pickle, and the depth of its stack: what it takes memory for.
pub(super) const MAX_VALUES: u64 = 1 << 20;
/// Sizes of a tensor.
const MAX_RANK: usize = 16;
/// What a tensor counts as among the values.
const TENSOR_COST: usize = 8;

/// Reads the pickle in `bytes`, which begin at `base` of the file.
pub(super) fn read(bytes: &[u8], base: usize) -> Result<Values<'_>, Fault> {
    let place = || Place::Byte(base as u64);
    Fault::limit(place, "bytes of the pickle", bytes.len() as u64, MAX_PICKLE)?;
    let mut machine = Machine {
        bytes,
        base,
        at: 0,
        op: 0,
        values: Vec::new(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        spent: 0,
    };
    loop {
        machine.op = machine.at;
        let [op] = machine.chunk()?;
        if op == b'.' {
            let root = machine.pop()?;
            return Ok(Values {
                all: machine.values,
                root,
            });
        }
        machine.step(op)?;
    }
}

struct Machine<'a> {
    bytes: &'a [u8],
    base: usize,
    /// The next byte.
    at: usize,
    /// Where the current operation began.
    op: usize,
    values: Vec<Value<'a>>,
    stack: Vec<Id>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
    /// What has been counted towards [`MAX_VALUES`].
    spent: usize,
}

impl<'a> Machine<'a> {
    fn step(&mut self, op: u8) -> Result<(), Fault> {
        match op {
            // PROTO, FRAME. A frame is only a hint for how much to read at once.
            0x80 => {
                let [version] = self.chunk()?;
                if !(2..=5).contains(&version) {
                    return self.wrong(format!("is of protocol {version}, not 2 to 5"));
                }
            }
            0x95 => drop(self.chunk::<8>()?),

            // The stack: MARK, POP, POP_MARK, DUP.
            b'(' => {
                self.spend(1)?;
                self.marks.push(self.stack.len());
            }
            b'0' => {
                // A mark on top is popped like a value.
                if self.marks.last() == Some(&self.stack.len()) {
                    self.marks.pop();
                } else {
                    self.pop()?;
                }
            }
            b'1' => drop(self.pop_mark()?),
            b'2' => {
                let top = self.top()?;
                self.push_id(top)?;
            }

            // The memo: BINGET, LONG_BINGET, BINPUT, LONG_BINPUT, MEMOIZE.
            b'h' => {
                let [n] = self.chunk()?;
                self.get(n.into())?;
            }
            b'j' => {
                let n = u32::from_le_bytes(self.chunk()?);
                self.get(n)?;
            }
            b'q' => {
                let [n] = self.chunk()?;
                self.put(n.into())?;
            }
            b'r' => {
                let n = u32::from_le_bytes(self.chunk()?);
                self.put(n)?;
            }
            0x94 => self.put(self.memo.len() as u32)?,

            // None and numbers: NONE, NEWTRUE, NEWFALSE, BININT, BININT1, BININT2, LONG1, LONG4, BINFLOAT.
            b'N' => self.push(Value::None)?,
            0x88 => self.push(Value::Bool(true))?,
            0x89 => self.push(Value::Bool(false))?,
            b'J' => {
                let n = i32::from_le_bytes(self.chunk()?);
                self.push(Value::Int(n.into()))?;
            }
            b'K' => {
                let [n] = self.chunk()?;
                self.push(Value::Int(n.into()))?;
            }
            b'M' => {
                let n = u16::from_le_bytes(self.chunk()?);
                self.push(Value::Int(n.into()))?;
            }
            0x8a => {
                let [len] = self.chunk()?;
                self.long(len.into())?;
            }
            0x8b => {
                let len = u32::from_le_bytes(self.chunk()?);
                self.long(len.into())?;
            }
            b'G' => {
                let x = f64::from_be_bytes(self.chunk()?);
                self.push(Value::Float(x))?;
            }

            // Texts: SHORT_BINUNICODE, BINUNICODE, BINUNICODE8. Texts of Python 2, which may be bytes: SHORT_BINSTRING,
            // BINSTRING. Bytes: SHORT_BINBYTES, BINBYTES, BINBYTES8, BYTEARRAY8.
            0x8c | b'X' | 0x8d => {
                let bytes = self.counted(op)?;
                match std::str::from_utf8(bytes) {
                    Ok(text) => self.push(Value::Text(text))?,
                    Err(_) => return self.wrong("holds a text that is no UTF-8"),
                }
            }
            b'U' | b'T' => {
                let bytes = self.counted(op)?;
                let text = std::str::from_utf8(bytes);
                self.push(text.map_or(Value::Opaque, Value::Text))?;
            }
            b'C' | b'B' | 0x8e | 0x96 => {
                self.counted(op)?;
                self.push(Value::Opaque)?;
            }

            // Containers: EMPTY_LIST, EMPTY_TUPLE, TUPLE, TUPLE1, TUPLE2, TUPLE3, EMPTY_DICT, EMPTY_SET, FROZENSET.
            b']' | b')' | 0x8f => self.push(Value::List(Vec::new()))?,
            b't' | 0x91 => {
                let items = self.pop_mark()?;
                self.push_items(&items)?;
            }
            0x85 => {
                let items: [Id; 1] = self.pop_array()?;
                self.push_items(&items)?;
            }
            0x86 => {
                let items: [Id; 2] = self.pop_array()?;
                self.push_items(&items)?;
            }
            0x87 => {
                let items: [Id; 3] = self.pop_array()?;
                self.push_items(&items)?;
            }
            b'}' => self.push(Value::Dict(Vec::new()))?,
            // APPEND, APPENDS, ADDITEMS.
            b'a' => {
                let items: [Id; 1] = self.pop_array()?;
                self.extend(&items)?;
            }
            b'e' | 0x90 => {
                let items = self.pop_mark()?;
                self.extend(&items)?;
            }
            // SETITEM, SETITEMS.
            b's' => {
                let items: [Id; 2] = self.pop_array()?;
                self.set(&items)?;
            }
            b'u' => {
                let items = self.pop_mark()?;
                self.set(&items)?;
            }

            // Names and calls: GLOBAL, STACK_GLOBAL, REDUCE, NEWOBJ, NEWOBJ_EX, BUILD, BINPERSID.
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.global(module, name)?;
            }
            0x93 => {
                let [module, name] = self.pop_array()?;
                match (self.value(module), self.value(name)) {
                    (&Value::Text(module), &Value::Text(name)) => self.global(module, name)?,
                    _ => return self.wrong("names something by what is no text"),
                }
            }
            b'R' => {
                let [function, args] = self.pop_array()?;
                self.call(function, args)?;
            }
            0x81 => {
                let [class, args] = self.pop_array()?;
                self.call(class, args)?;
            }
            0x92 => {
                let [class, args, _keywords] = self.pop_array()?;
                self.call(class, args)?;
            }
            b'b' => {
                let [state] = self.pop_array()?;
                let object = self.top()?;
                if let Value::Module(slot) = &mut self.values[object.0 as usize] {
                    *slot = Some(state);
                }
            }
            b'Q' => {
                let [id] = self.pop_array()?;
                self.persistent(id)?;
            }
            _ => {
                return self.wrong(format!(
                    "has the operation 0x{op:02x}, which no checkpoint needs"
                ));
            }
        }
        Ok(())
    }
}

/// The calls.
impl<'a> Machine<'a> {
    /// Puts what a name stands for on the stack.
    fn global(&mut self, module: &str, name: &'a str) -> Result<(), Fault> {
        match names::lookup(module, name) {
            Some(global) => self.push(Value::Global(global)),
            None => Err(Fault::Refused {
                offset: (self.base + self.op) as u64,
                name: shortened(&format!("{module}.{name}")),
            }),
        }
    }

    /// Puts what a call would give on the stack.
    fn call(&mut self, function: Id, args: Id) -> Result<(), Fault> {
        let Value::List(args) = self.value(args) else {
            return self.wrong("calls something with what is no tuple");
        };
        let args = args.clone();
        self.spend(args.len())?;
        match *self.value(function) {
            Value::Global(Global::FromType) => {
                // A tensor with attributes, or of a subclass.
                let [function, _, inner, ..] = args[..] else {
                    return self.wrong("rebuilds a tensor with too few arguments");
                };
                let known = [
                    Value::Global(Global::Tensor),
                    Value::Global(Global::Parameter),
                ];
                match self.value(inner) {
                    Value::List(inner) if known.contains(self.value(function)) => {
                        let inner = inner.clone();
                        self.spend(inner.len())?;
                        match self.value(function) {
                            Value::Global(Global::Tensor) => self.tensor(&inner),
                            _ => self.parameter(&inner),
                        }
                    }
                    _ => self.wrong("rebuilds a tensor by something unknown"),
                }
            }
            Value::Global(Global::Tensor) => self.tensor(&args),
            Value::Global(Global::Parameter) => self.parameter(&args),
            Value::Global(Global::UnreadTensor(kind)) => self.push(Value::UnreadTensor(kind)),
            Value::Global(Global::Dict) => self.dict(&args),
            Value::Global(Global::List) => match args.first() {
                Some(items) if matches!(self.value(*items), Value::List(_)) => self.push_id(*items),
                _ => self.push(Value::List(Vec::new())),
            },
            Value::Global(Global::Module) => self.push(Value::Module(None)),
            Value::Global(Global::Opaque | Global::Storage(_) | Global::Element(_)) => {
                self.push(Value::Opaque)
            }
            _ => self.wrong("calls what is no name"),
        }
    }

    /// A dictionary of another one's entries, or of a list of pairs.
    fn dict(&mut self, args: &[Id]) -> Result<(), Fault> {
        let entries = match args.first().map(|id| self.value(*id)) {
            Some(Value::Dict(entries)) => entries.clone(),
            Some(Value::List(pairs)) => pairs
                .iter()
                .filter_map(|pair| match self.value(*pair) {
                    Value::List(pair) => pair.first().copied().zip(pair.get(1).copied()),
                    _ => None,
                })
                .collect(),
            _ => Vec::new(),
        };
        self.spend(entries.len())?;
        self.push(Value::Dict(entries))
    }

    fn parameter(&mut self, args: &[Id]) -> Result<(), Fault> {
        match args.first() {
            Some(data)
                if matches!(self.value(*data), Value::Tensor(_) | Value::UnreadTensor(_)) =>
            {
                self.push_id(*data)
            }
            _ => self.wrong("makes a parameter of what is no tensor"),
        }
    }

    /// `_rebuild_tensor(storage, offset, size, stride)`; `_v2` adds requires_grad, hooks and metadata, `_v3` has the type
    /// of the elements before the metadata.
    fn tensor(&mut self, args: &[Id]) -> Result<(), Fault> {
        let [storage, offset, shape, strides, rest @ ..] = args else {
            return self.wrong("rebuilds a tensor with too few arguments");
        };
        let (&Value::Storage(storage), Some(offset), Some(shape), Some(strides)) = (
            self.value(*storage),
            self.size(*offset),
            self.sizes(*shape),
            self.sizes(*strides),
        ) else {
            return self.wrong("rebuilds a tensor of something other than a storage and sizes");
        };
        if shape.len() != strides.len() {
            return self.wrong("rebuilds a tensor with more sizes than strides, or fewer");
        }
        let element = match rest.get(2).map(|id| self.value(*id)) {
            Some(Value::Global(Global::Element(element))) => *element,
            _ => storage.element,
        };
        let tensor = Tensor {
            storage,
            element,
            offset,
            shape,
            strides,
        };
        self.spend(TENSOR_COST)?;
        self.push(Value::Tensor(Box::new(tensor)))
    }

    fn size(&self, id: Id) -> Option<u64> {
        match self.value(id) {
            Value::Int(n) => u64::try_from(*n).ok(),
            _ => None,
        }
    }

    fn sizes(&self, id: Id) -> Option<Vec<u64>> {
        match self.value(id) {
            Value::List(ids) if ids.len() <= MAX_RANK => {
                ids.iter().map(|id| self.size(*id)).collect()
            }
            _ => None,
        }
    }

    /// The storage of the identifier `("storage", class, key, device, length)`.
    fn persistent(&mut self, id: Id) -> Result<(), Fault> {
        let fields = match self.value(id) {
            Value::List(fields) => &fields[..],
            _ => &[],
        };
        if let [kind, class, key, _, len, ..] = fields
            && *self.value(*kind) == Value::Text("storage")
            && let Value::Global(Global::Storage(element)) = *self.value(*class)
            && let Value::Text(key) = *self.value(*key)
            && let Some(len) = self.size(*len)
        {
            return self.push(Value::Storage(Storage { key, element, len }));
        }
        self.wrong("refers to something other than a storage outside of it")
    }
}

/// Bytes, the stack and the memo, with their limits.
impl<'a> Machine<'a> {
    fn wrong<T>(&self, reason: impl AsRef<str>) -> Result<T, Fault> {
        let reason = format!("the pickle {}", reason.as_ref());
        Err(Fault::at(self.base + self.op, reason))
    }

    fn take(&mut self, len: u64) -> Result<&'a [u8], Fault> {
        let rest = &self.bytes[self.at..];
        let taken = usize::try_from(len).ok().and_then(|len| rest.get(..len));
        let Some(taken) = taken else {
            return self.wrong(format!("needs {len} more bytes, there are {}", rest.len()));
        };
        self.at += taken.len();
        Ok(taken)
    }

    fn chunk<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let mut chunk = [0; N];
        chunk.copy_from_slice(self.take(N as u64)?);
        Ok(chunk)
    }

    /// The bytes of a text or of bytes, behind their number.
    fn counted(&mut self, op: u8) -> Result<&'a [u8], Fault> {
        let len = match op {
            0x8c | b'U' | b'C' => u64::from(self.chunk::<1>()?[0]),
            b'X' | b'T' | b'B' => u32::from_le_bytes(self.chunk()?).into(),
            _ => u64::from_le_bytes(self.chunk()?),
        };
        self.take(len)
    }

    fn line(&mut self) -> Result<&'a str, Fault> {
        let rest = &self.bytes[self.at..];
        let window = &rest[..rest.len().min(1024)];
        let line = window
            .split(|byte| *byte == b'\n')
            .next()
            .unwrap_or_default();
        match std::str::from_utf8(line) {
            Ok(text) if line.len() < window.len() => {
                self.at += line.len() + 1;
                Ok(text)
            }
            _ => self.wrong("has a name that does not end"),
        }
    }

    /// A number of `len` bytes. Those that no size or count needs are not read.
    fn long(&mut self, len: u64) -> Result<(), Fault> {
        let bytes = self.take(len)?;
        let value = match bytes.len() {
            0..=8 => {
                let sign = if bytes.last().is_some_and(|b| *b >= 0x80) {
                    0xff
                } else {
                    0
                };
                let mut wide = [sign; 8];
                wide[..bytes.len()].copy_from_slice(bytes);
                Value::Int(i64::from_le_bytes(wide))
            }
            _ => Value::Opaque,
        };
        self.push(value)
    }

    fn spend(&mut self, n: usize) -> Result<(), Fault> {
        self.spent += n;
        let place = || Place::Byte((self.base + self.op) as u64);
        Fault::limit(place, "values of the pickle", self.spent as u64, MAX_VALUES).map(drop)
    }

    fn value(&self, id: Id) -> &Value<'a> {
        &self.values[id.0 as usize]
    }

    fn push(&mut self, value: Value<'a>) -> Result<(), Fault> {
        // At most `MAX_VALUES`.
        let id = Id(self.values.len() as u32);
        self.push_id(id)?;
        self.values.push(value);
        Ok(())
    }

    fn push_id(&mut self, id: Id) -> Result<(), Fault> {
        self.spend(1)?;
        self.stack.push(id);
        Ok(())
    }

    fn push_items(&mut self, items: &[Id]) -> Result<(), Fault> {
        self.spend(items.len())?;
        self.push(Value::List(items.to_vec()))
    }

    fn top(&self) -> Result<Id, Fault> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.last() {
            Some(top) if self.stack.len() > floor => Ok(*top),
            _ => self.wrong("takes more from its stack than is on it"),
        }
    }

    fn pop(&mut self) -> Result<Id, Fault> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    fn pop_array<const N: usize>(&mut self) -> Result<[Id; N], Fault> {
        let mut ids = [Id(0); N];
        for id in ids.iter_mut().rev() {
            *id = self.pop()?;
        }
        Ok(ids)
    }

    /// What lies above the last mark, which goes too.
    fn pop_mark(&mut self) -> Result<Vec<Id>, Fault> {
        match self.marks.pop() {
            Some(mark) => Ok(self.stack.split_off(mark)),
            None => self.wrong("has no mark where one is needed"),
        }
    }

    fn get(&mut self, n: u32) -> Result<(), Fault> {
        match self.memo.get(&n) {
            Some(id) => self.push_id(*id),
            None => self.wrong(format!("recalls entry {n} of its memo, which is empty")),
        }
    }

    fn put(&mut self, n: u32) -> Result<(), Fault> {
        self.spend(1)?;
        let top = self.top()?;
        self.memo.insert(n, top);
        Ok(())
    }

    /// Adds items to the list on top of the stack.
    fn extend(&mut self, items: &[Id]) -> Result<(), Fault> {
        self.spend(items.len())?;
        let list = self.top()?;
        match &mut self.values[list.0 as usize] {
            Value::List(list) => list.extend_from_slice(items),
            Value::Opaque => {}
            _ => return self.wrong("appends to what is no list"),
        }
        Ok(())
    }

    /// Sets keys and values, in turn, of the dictionary on top of the stack.
    fn set(&mut self, items: &[Id]) -> Result<(), Fault> {
        self.spend(items.len())?;
        let (pairs, rest) = items.as_chunks();
        if !rest.is_empty() {
            return self.wrong("sets a key without a value");
        }
        let dict = self.top()?;
        match &mut self.values[dict.0 as usize] {
            Value::Dict(dict) => dict.extend(pairs.iter().map(|[key, value]| (*key, *value))),
            Value::Opaque | Value::Module(_) => {}
            _ => return self.wrong("sets a key of what is no dictionary"),
        }
        Ok(())
    }
}
