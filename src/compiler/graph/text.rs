//! The text form: what `--dump` prints and what the tests of the passes are written in.
//!
//! ```text
//! graph "unet" {
//!   input %0 "sample" [1, 4, 8, 8]
//!   %1 = weight "conv_in.weight" [16, 4, 3, 3]
//!   %2 = weight "conv_in.bias" [2] = [0.5, -1.0]
//!   %3 = source_conv "conv_in" (x: %0, weight: %1) {stride: 1, pad: [1, 1, 1, 1]} [1, 16, 8, 8]
//!   %5 = source_binary "" (a: %3, b: 2.0) {kind: mul} [1, 16, 8, 8]
//!   output %5 "y"
//! }
//! ```
//!
//! An empty slot is left out; a constant of rank 0 stands where it is read (and has a number that is not seen). A weight whose elements are not written has,
//! once parsed, pseudo-random ones that depend on its name and shape alone. A node's shape may be left out: it is inferred.

use super::table::Attribute;
use super::{Graph, Literal, Node, Op, ValueId, Weight};
use std::collections::HashMap;
use std::fmt::{self, Write as _};

impl fmt::Display for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "graph {:?} {{", self.name)?;
        self.write_body(f, true)?;
        writeln!(f, "}}")
    }
}

/// Elements as the text form writes them.
fn elements(values: &[f32]) -> String {
    let values: Vec<String> = values.iter().map(|v| format!("{v:?}")).collect();
    format!("[{}]", values.join(", "))
}

impl Graph {
    /// The text form without names: operators, attributes, shapes and who reads whom. Graphs of the same structure run the
    /// same program on their own weights.
    pub fn structure(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = self.write_body(&mut text, false);
        text
    }

    fn write_body(&self, f: &mut dyn fmt::Write, names: bool) -> fmt::Result {
        let name = |name: &str| {
            if names {
                format!("{name:?} ")
            } else {
                String::new()
            }
        };
        for id in &self.inputs {
            let value = self.value(*id);
            writeln!(f, "  input {id} {:?} {:?}", value.name, value.shape)?;
        }
        let mut written = vec![false; self.value_count()];
        for (_, node) in self.iter_nodes() {
            for operand in node.operands() {
                let value = self.value(operand);
                let Some(weight) = value.weight() else {
                    continue;
                };
                if value.shape.is_empty() || std::mem::replace(&mut written[operand.index()], true)
                {
                    continue;
                }
                write!(
                    f,
                    "  {operand} = weight {}{:?}",
                    name(&value.name),
                    value.shape
                )?;
                if weight.is_literal() && names {
                    write!(f, " = {}", elements(&weight.read()))?;
                }
                writeln!(f)?;
            }
            write!(
                f,
                "  {} = {} {}(",
                node.output,
                node.op.name(),
                name(&node.name)
            )?;
            self.write_operands(f, node)?;
            write!(f, ")")?;
            let attributes: Vec<String> = node
                .op
                .attributes()
                .iter()
                .map(|(n, a)| format!("{n}: {a}"))
                .collect();
            if !attributes.is_empty() {
                write!(f, " {{{}}}", attributes.join(", "))?;
            }
            writeln!(f, " {:?}", self.shape(node.output))?;
        }
        for id in &self.outputs {
            writeln!(
                f,
                "  output {id} {}",
                name(&self.value(*id).name).trim_end()
            )?;
        }
        Ok(())
    }

    fn write_operands(&self, f: &mut dyn fmt::Write, node: &Node) -> fmt::Result {
        let slots = node.op.slots();
        let mut separator = "";
        for (i, operand) in node.inputs.iter().enumerate() {
            let Some(operand) = operand else { continue };
            let slot = slots.get(i).unwrap_or(&slots[slots.len() - 1]);
            let value = self.value(*operand);
            match value
                .weight()
                .filter(|_| value.shape.is_empty())
                .and_then(Weight::scalar)
            {
                Some(scalar) => write!(f, "{separator}{slot}: {scalar:?}")?,
                None => write!(f, "{separator}{slot}: {operand}")?,
            }
            separator = ", ";
        }
        Ok(())
    }

    /// Reads the text form. The error names the line.
    pub fn parse(text: &str) -> Result<Graph, ParseError> {
        let mut parser = Parser {
            graph: Graph::default(),
            values: HashMap::new(),
        };
        for (i, line) in text.lines().enumerate() {
            let line = line.split("//").next().unwrap_or_default().trim();
            if !line.is_empty() {
                parser
                    .line(line)
                    .map_err(|rule| ParseError { line: i + 1, rule })?;
            }
        }
        Ok(parser.graph)
    }
}

/// A line of the text form that cannot be read.
#[derive(Clone, Debug, thiserror::Error)]
#[error("line {line}: {rule}")]
pub struct ParseError {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong.
    pub rule: String,
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    Text(String),
    Value(u32),
    Number(String),
    Mark(char),
}

fn tokens(line: &str) -> Result<Vec<Token>, String> {
    let mut found = Vec::new();
    let mut chars = line.chars().peekable();
    let take = |chars: &mut std::iter::Peekable<std::str::Chars<'_>>, f: &dyn Fn(char) -> bool| {
        let mut text = String::new();
        while let Some(c) = chars.next_if(|c| f(*c)) {
            text.push(c);
        }
        text
    };
    while let Some(c) = chars.peek().copied() {
        match c {
            ' ' => {
                chars.next();
            }
            '"' => {
                chars.next();
                let text = take(&mut chars, &|c| c != '"');
                chars.next().ok_or("a quoted name does not end")?;
                found.push(Token::Text(text));
            }
            '%' => {
                chars.next();
                let digits = take(&mut chars, &|c| c.is_ascii_digit());
                found.push(Token::Value(
                    digits
                        .parse()
                        .map_err(|_| format!("%{digits} is no value"))?,
                ));
            }
            c if c.is_ascii_digit() || c == '-' => {
                let number = take(&mut chars, &|c| {
                    c.is_ascii_alphanumeric() || "+-.".contains(c)
                });
                found.push(Token::Number(number));
            }
            c if c.is_ascii_alphabetic() => {
                found.push(Token::Word(take(&mut chars, &|c| {
                    c.is_ascii_alphanumeric() || c == '_'
                })));
            }
            c => {
                chars.next();
                found.push(Token::Mark(c));
            }
        }
    }
    found.reverse();
    Ok(found)
}

struct Parser {
    graph: Graph,
    values: HashMap<u32, ValueId>,
}

/// The rest of a line, the next token last.
struct Line(Vec<Token>);

impl Line {
    fn is(&mut self, mark: char) -> bool {
        let found = self.0.last() == Some(&Token::Mark(mark));
        if found {
            self.0.pop();
        }
        found
    }
    fn expect(&mut self, mark: char) -> Result<(), String> {
        if self.is(mark) {
            Ok(())
        } else {
            Err(format!("expected {mark:?}, found {:?}", self.0.last()))
        }
    }
    fn word(&mut self) -> Result<String, String> {
        match self.0.pop() {
            Some(Token::Word(word)) => Ok(word),
            other => Err(format!("expected a word, found {other:?}")),
        }
    }
    fn text(&mut self) -> String {
        match self.0.pop() {
            Some(Token::Text(text)) => text,
            other => {
                self.0.extend(other);
                String::new()
            }
        }
    }
    fn id(&mut self) -> Result<u32, String> {
        match self.0.pop() {
            Some(Token::Value(id)) => Ok(id),
            other => Err(format!("expected a value, found {other:?}")),
        }
    }
    fn float(&mut self) -> Result<f32, String> {
        match self.0.pop() {
            Some(Token::Number(n) | Token::Word(n)) => {
                n.parse().map_err(|_| format!("{n:?} is no number"))
            }
            other => Err(format!("expected a number, found {other:?}")),
        }
    }
    fn list<T>(
        &mut self,
        mut element: impl FnMut(&mut Self) -> Result<T, String>,
    ) -> Result<Vec<T>, String> {
        self.expect('[')?;
        let mut list = Vec::new();
        while !self.is(']') {
            list.push(element(self)?);
            if !self.is(',') && self.0.last() != Some(&Token::Mark(']')) {
                return Err("a list does not end".into());
            }
        }
        Ok(list)
    }
    fn size(&mut self) -> Result<usize, String> {
        match self.0.pop() {
            Some(Token::Number(n)) => n.parse().map_err(|_| format!("{n:?} is no size")),
            other => Err(format!("expected a size, found {other:?}")),
        }
    }
    fn attribute(&mut self) -> Result<Attribute, String> {
        match self.0.pop() {
            Some(Token::Number(n)) => match n.parse() {
                Ok(int) => Ok(Attribute::Int(int)),
                Err(_) => n
                    .parse()
                    .map(Attribute::Float)
                    .map_err(|_| format!("{n:?} is no number")),
            },
            Some(Token::Word(w) | Token::Text(w)) => Ok(Attribute::Word(w)),
            Some(mark @ Token::Mark('[')) => {
                self.0.push(mark);
                self.list(Self::size).map(Attribute::List)
            }
            other => Err(format!("expected an attribute, found {other:?}")),
        }
    }
}

impl Parser {
    fn line(&mut self, text: &str) -> Result<(), String> {
        let mut line = Line(tokens(text)?);
        if let Some(Token::Value(id)) = line.0.last() {
            let id = *id;
            line.0.pop();
            line.expect('=')?;
            let value = self.definition(&mut line)?;
            if self.values.insert(id, value).is_some() {
                return Err(format!("%{id} is defined twice"));
            }
        } else if line.is('}') {
            return Ok(());
        } else {
            match line.word()?.as_str() {
                "graph" => {
                    self.graph.name = line.text();
                    line.expect('{')?;
                }
                "input" => {
                    let (id, name) = (line.id()?, line.text());
                    let shape = line.list(Line::size)?;
                    let value = self.graph.add_input(name, &shape);
                    self.values.insert(id, value);
                }
                "output" => {
                    let value = self.known(line.id()?)?;
                    let name = line.text();
                    if !name.is_empty() {
                        self.graph.value_mut(value).name = name;
                    }
                    self.graph.outputs.push(value);
                }
                other => return Err(format!("{other:?} begins no line")),
            }
        }
        if line.0.is_empty() {
            Ok(())
        } else {
            Err(format!("did not expect {:?}", line.0.last()))
        }
    }

    fn known(&self, id: u32) -> Result<ValueId, String> {
        self.values
            .get(&id)
            .copied()
            .ok_or_else(|| format!("%{id} is not defined"))
    }

    fn definition(&mut self, line: &mut Line) -> Result<ValueId, String> {
        let op = line.word()?;
        let name = line.text();
        if op == "weight" {
            let shape = line.list(Line::size)?;
            let weight = if line.is('=') {
                let values = line.list(Line::float)?;
                if values.len() != shape.iter().product::<usize>() {
                    return Err(format!("{} elements for {shape:?}", values.len()));
                }
                Weight::new(Literal { shape, values })
            } else {
                Weight::new(Random::new(&name, shape))
            };
            return Ok(self.graph.add_weight(name, weight));
        }
        line.expect('(')?;
        let mut operands = Vec::new();
        while !line.is(')') {
            let slot = line.word()?;
            line.expect(':')?;
            let value = match line.0.last() {
                Some(Token::Value(_)) => {
                    let id = line.id()?;
                    self.known(id)?
                }
                _ => {
                    let scalar = line.float()?;
                    self.graph.add_scalar(scalar)
                }
            };
            operands.push((slot, value));
            line.is(',');
        }
        let mut attributes = HashMap::new();
        if line.is('{') {
            while !line.is('}') {
                let name = line.word()?;
                line.expect(':')?;
                attributes.insert(name, line.attribute()?);
                line.is(',');
            }
        }
        let op = Op::from_attributes(&op, &|name| attributes.get(name).cloned())?;
        let slots = op.slots();
        let mut inputs = vec![None; slots.len()];
        for (slot, value) in operands {
            let index = slots
                .iter()
                .position(|s| *s == slot)
                .ok_or_else(|| format!("{} has no slot {slot}", op.name()))?;
            match inputs[index] {
                None => inputs[index] = Some(value),
                Some(_) => inputs.push(Some(value)),
            }
        }
        let value = self
            .graph
            .add(op, &inputs, name)
            .map_err(|e| e.to_string())?;
        if !line.0.is_empty() {
            let shape = line.list(Line::size)?;
            if shape != self.graph.shape(value) {
                return Err(format!(
                    "the shape is {:?}, not {shape:?}",
                    self.graph.shape(value)
                ));
            }
        }
        Ok(value)
    }
}

/// Pseudo-random elements between -1 and 1.
struct Random {
    shape: Vec<usize>,
    seed: u64,
}

impl Random {
    fn new(name: &str, shape: Vec<usize>) -> Self {
        // FNV-1a
        let bytes = name
            .bytes()
            .chain(shape.iter().flat_map(|n| n.to_le_bytes()));
        let seed = bytes.fold(0xcbf2_9ce4_8422_2325u64, |h, b| {
            (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)
        });
        Random { shape, seed }
    }
}

/// `len` pseudo-random elements between -1 and 1 (splitmix64).
pub(crate) fn random(seed: u64, len: usize) -> Vec<f32> {
    let mut state = seed;
    (0..len)
        .map(|_| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((z ^ (z >> 31)) >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        })
        .collect()
}

impl super::WeightData for Random {
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn read(&self) -> std::borrow::Cow<'_, [f32]> {
        random(self.seed, self.shape.iter().product()).into()
    }
}

impl Graph {
    /// How many nodes there are of each operator, as `attention 4, conv2d 31`.
    pub fn summary(&self) -> String {
        let mut counts = std::collections::BTreeMap::new();
        for (_, node) in self.iter_nodes() {
            *counts.entry(node.op.name()).or_insert(0usize) += 1;
        }
        let mut text = String::new();
        for (name, count) in counts {
            let separator = if text.is_empty() { "" } else { ", " };
            let _ = write!(text, "{separator}{name} {count}");
        }
        text
    }
}
