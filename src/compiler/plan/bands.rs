//! Large pictures in bands of rows.
//!
//! A GroupNorm needs the statistics of the whole picture before the first pixel is treated, but the convolution that
//! follows it reads only a few rows at a time. So what the norm writes need never be whole:
//!
//! ```text
//! x -> GroupNorm -> Conv2d -> h
//! ```
//! becomes
//! ```text
//! x -> GroupNormBlocks -> GroupNormMerge -> moments
//! for each band of h's rows:  x's rows and one more above and below -> GroupNormApply -> Conv2d -> the rows of h
//! ```
//! Where `x` is itself a convolution of a picture of half its size, and a quarter of its bytes, it need not be stored
//! either: it is computed in bands twice, once for the statistics (and for a shortcut around the block), once for the
//! convolution. Rows are contiguous, so a band is a range of a buffer, and every element is computed as in the whole
//! picture.
//!
//! ```text
//! a band of x:      r0-1  r0  r0+1 .. r1        the first two rows are the last two of the band before
//!                   [copied]  [computed]
//! ```
//! Computed bands begin at odd rows: there a kernel of three rows begins at the first of two equal rows of the enlarged
//! picture, which is where a smaller picture begins too.
//!
//! The rows of a transformer block's widest layers are treated likewise (`feed`).
//!
//! Bands are made where the arena is fullest, one group of steps after the other, while that makes it smaller.

mod feed;

use kiln_package::{self as package, DType, Holds, codes_bytes};

use super::buffers::{self, Buffers};
use super::memory;
use super::pinned::Pinned;
use super::program::Lowered;
use super::{Part, PlanError};
use crate::graph::{Graph, Node, ValueId};
use feed::Feed;

/// When pictures are treated in bands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bands {
    /// The least bytes of a picture for which bands are tried.
    pub least_picture: u64,
    /// What a band's own buffers may take, if they hold more than the fewest rows or a 24th of all.
    pub band: u64,
}

impl Bands {
    /// No bands at all.
    pub const NONE: Bands = Bands {
        least_picture: u64::MAX,
        band: 0,
    };

    /// Whether a band may be of so many rows of that size, of all that there are.
    fn may_have(&self, rows: u32, row_bytes: u64, all: u32) -> bool {
        let fits = u64::from(rows) * row_bytes <= self.band;
        rows < all && (fits || u64::from(rows) * u64::from(PARTS) <= u64::from(all))
    }
}

impl Default for Bands {
    fn default() -> Self {
        Bands {
            least_picture: 8 << 20,
            band: 6 << 20,
        }
    }
}

/// The fewest rows of a band. Bands of as many rows as this, or a multiple, of as many columns begin where a block of
/// a norm's statistics does.
const ROWS: u32 = 8;

/// Bands are not made smaller than this part of a picture, whatever they take: each is steps of the program.
const PARTS: u32 = 24;

/// An arena that is not smaller by this part of it is not worth the steps.
const WORTH: u64 = 64;

/// A tensor of the arena or a part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// A value by its index, or one more than all values and temporary tensors before.
    pub tensor: usize,
    /// Offset and size in bytes; `None` for all of it.
    pub part: Option<(u64, u64)>,
}

impl View {
    pub fn whole(value: ValueId) -> Self {
        View {
            tensor: value.index(),
            part: None,
        }
    }
}

/// A tensor that is no value of the graph.
#[derive(Clone, Copy, Debug)]
pub struct Temporary {
    pub holds: Holds,
    pub bytes: u64,
}

/// The steps of a program before their operands have places.
#[derive(Clone)]
pub struct Lowering<'a> {
    pub steps: Vec<Lowered<'a>>,
    pub temporaries: Vec<Temporary>,
}

/// Steps that can be treated in bands.
enum Candidate {
    Picture(Group),
    Feed(Feed),
}

/// A norm and the convolution that alone reads it, by their steps, and what may be computed twice.
struct Group {
    norm: usize,
    conv: usize,
    source: Option<Source>,
}

/// The convolution that gives the norm's picture, and the shortcut that reads the same, by their steps.
struct Source {
    conv: usize,
    quantize: Option<usize>,
    linear: Option<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fired {
    No,
    /// All but the source.
    Yes,
    Source,
}

impl Candidate {
    /// Whether a step is one of the candidate's or between them.
    fn covers(&self, step: usize) -> bool {
        match self {
            Candidate::Feed(feed) => feed.covers(step),
            Candidate::Picture(group) => {
                let source = group.source.as_ref();
                let first = source.map_or(group.norm, |source| source.conv.min(group.norm));
                let last = source.and_then(|source| source.linear).unwrap_or(0);
                (first..=group.conv.max(last)).contains(&step)
            }
        }
    }

    /// What of it may be treated in bands next.
    fn next(&self, fired: Fired) -> Option<Fired> {
        match (fired, self) {
            (Fired::No, _) => Some(Fired::Yes),
            (Fired::Yes, Candidate::Picture(group)) if group.source.is_some() => {
                Some(Fired::Source)
            }
            _ => None,
        }
    }

    /// The steps that bands stand for.
    fn steps(&self, fired: Fired) -> Vec<usize> {
        match (self, fired) {
            (_, Fired::No) => Vec::new(),
            (Candidate::Feed(feed), _) => feed.steps().collect(),
            (Candidate::Picture(group), _) => {
                let source = group.source.as_ref().filter(|_| fired == Fired::Source);
                let more = source.map_or([None; 3], |source| {
                    [Some(source.conv), source.quantize, source.linear]
                });
                let own = [Some(group.norm), Some(group.conv)];
                own.into_iter().chain(more).flatten().collect()
            }
        }
    }

    /// The step in whose place the bands stand.
    fn place(&self) -> usize {
        match self {
            Candidate::Feed(feed) => feed.last,
            Candidate::Picture(group) => group.conv,
        }
    }
}

/// The steps with as many bands as make the arena smaller, and its buffers.
pub fn choose<'a>(
    part: &Part,
    plain: Vec<Lowered<'a>>,
    pinned: &Pinned,
    activation: DType,
    bands: Bands,
) -> Result<(Lowering<'a>, Buffers), PlanError> {
    let groups = Find {
        graph: &part.graph,
        steps: &plain,
        size: activation.size() as u64,
        bands,
    }
    .candidates();
    let mut fired = vec![Fired::No; groups.len()];
    let plan = |fired: &[Fired]| -> Result<_, PlanError> {
        let lowering = expand(&part.graph, &plain, &groups, fired, activation, bands);
        let buffers = buffers::of(part, &lowering, pinned, activation)?;
        Ok((lowering, buffers))
    };
    let (mut lowering, mut buffers) = plan(&fired)?;
    let mut best = (lowering.clone(), buffers.clone());
    loop {
        let usage = memory::usage(&buffers.lifetimes);
        let bytes = |step: &usize| usage.get(*step).copied().unwrap_or(0);
        let Some(fullest) = (0..lowering.steps.len()).max_by_key(|step| (bytes(step), *step))
        else {
            return Ok(best);
        };
        let origin = lowering.steps[fullest].origin;
        let next = |(group, fired): (&Candidate, &Fired)| match group.covers(origin) {
            true => group.next(*fired),
            false => None,
        };
        let found = groups.iter().zip(&fired).map(next).enumerate();
        let found = found
            .filter_map(|(index, next)| Some((index, next?)))
            .next();
        let Some((index, next)) = found else {
            return Ok(best);
        };
        fired[index] = next;
        (lowering, buffers) = plan(&fired)?;
        let least = memory::bound(&best.1.lifetimes);
        if memory::bound(&buffers.lifetimes) < least - least / WORTH {
            best = (lowering.clone(), buffers.clone());
        }
    }
}

struct Find<'f, 'a> {
    graph: &'f Graph,
    steps: &'f [Lowered<'a>],
    /// Bytes of an element.
    size: u64,
    bands: Bands,
}

impl Find<'_, '_> {
    /// The steps that read a value; `None` if others than steps do.
    fn readers(&self, value: ValueId) -> Option<Vec<usize>> {
        let reads = |node: &Node| node.operands().any(|operand| operand == value);
        let steps = (0..self.steps.len()).filter(|step| reads(self.steps[*step].node));
        (!self.graph.outputs.contains(&value)).then(|| steps.collect())
    }

    fn only_reader(&self, value: ValueId) -> Option<usize> {
        match self.readers(value)?.as_slice() {
            [reader] => Some(*reader),
            _ => None,
        }
    }

    /// Whether each row of `columns` elements begins where an operand may.
    fn aligned(&self, columns: u64) -> bool {
        (columns * self.size).is_multiple_of(package::format::ALIGNMENT)
    }

    fn candidates(&self) -> Vec<Candidate> {
        let of = |step| {
            let picture = self.group(step).map(Candidate::Picture);
            picture.or_else(|| Feed::find(self, step).map(Candidate::Feed))
        };
        (0..self.steps.len()).filter_map(of).collect()
    }

    fn group(&self, norm: usize) -> Option<Group> {
        let step = &self.steps[norm];
        let package::Op::GroupNorm(op) = step.op else {
            return None;
        };
        let conv = self.only_reader(step.node.output)?;
        let package::Op::Conv2d(p) = self.steps[conv].op else {
            return None;
        };
        let (h, w) = (u64::from(p.in_h), u64::from(p.in_w));
        let (c, out_c) = (u64::from(p.in_c), u64::from(p.out_c));
        let like = is_three(&p)
            && (p.up_h, p.up_w) == (p.in_h, p.in_w)
            && u64::from(op.rows) == h * w
            && op.c2 == 0
            && self.steps[conv].node.input("x") == Some(step.node.output);
        let picture = h * w * c.max(out_c) * self.size;
        let fits = p.in_h > 2 * ROWS
            && p.in_w.is_multiple_of(ROWS)
            && self.aligned(w * c)
            && self.aligned(w * out_c);
        (like && fits && picture >= self.bands.least_picture).then(|| Group {
            norm,
            conv,
            source: self.source(norm, conv),
        })
    }

    fn source(&self, norm: usize, conv: usize) -> Option<Source> {
        let x = self.steps[norm].node.input("x")?;
        let (_, producer) = self.graph.producer(x)?;
        let source = self
            .steps
            .iter()
            .position(|step| step.node.output == producer.output)?;
        let step = &self.steps[source];
        let package::Op::Conv2d(p) = step.op else {
            return None;
        };
        let doubled = |n: u32| n.checked_mul(2);
        let fits = is_three(&p)
            && (Some(p.up_h), Some(p.up_w)) == (doubled(p.in_h), doubled(p.in_w))
            && step.node.input("residual").is_none()
            && (step.codes || self.aligned(u64::from(p.in_w) * u64::from(p.in_c)));
        if !fits {
            return None;
        }
        let (mut quantize, mut linear) = (None, None);
        for reader in self.readers(x)?.into_iter().filter(|step| *step != norm) {
            if linear.is_some() {
                return None;
            }
            let shortcut = match self.steps[reader].op {
                package::Op::Quantize(op) if op.per_row && op.c2 == 0 => {
                    quantize = Some(reader);
                    self.only_reader(self.steps[reader].node.output)?
                }
                _ => reader,
            };
            let package::Op::Linear(op) = self.steps[shortcut].op else {
                return None;
            };
            let node = self.steps[shortcut].node;
            let alone = ["residual", "shift", "x2"]
                .iter()
                .all(|slot| node.input(slot).is_none());
            let later = self.readers(node.output)?.iter().all(|step| *step > conv);
            if !alone || !later || !self.aligned(u64::from(p.out_w) * u64::from(op.n)) {
                return None;
            }
            linear = Some(shortcut);
        }
        Some(Source {
            conv: source,
            quantize,
            linear,
        })
    }
}

/// Whether a convolution is of three by three pixels and keeps the size of the picture that it enlarges.
fn is_three(p: &package::Conv2d) -> bool {
    (p.kernel_h, p.kernel_w, p.stride) == (3, 3, 1)
        && (p.pad_top, p.pad_left) == (1, 1)
        && (p.out_h, p.out_w) == (p.up_h, p.up_w)
}

/// The steps, those of candidates that have fired in bands.
fn expand<'a>(
    graph: &Graph,
    plain: &[Lowered<'a>],
    groups: &[Candidate],
    fired: &[Fired],
    activation: DType,
    bands: Bands,
) -> Lowering<'a> {
    let mut emit = Emit {
        plain,
        values: graph.value_count(),
        activation,
        bands,
        lowering: Lowering {
            steps: Vec::with_capacity(plain.len()),
            temporaries: Vec::new(),
        },
    };
    let mut of_step: Vec<Option<usize>> = vec![None; plain.len()];
    for (index, group) in groups.iter().enumerate() {
        for step in group.steps(fired[index]) {
            of_step[step] = Some(index);
        }
    }
    for (step, lowered) in plain.iter().enumerate() {
        match of_step[step] {
            None => emit.lowering.steps.push(lowered.clone()),
            Some(index) if groups[index].place() == step => match &groups[index] {
                Candidate::Feed(feed) => feed.emit(&mut emit),
                Candidate::Picture(group) => {
                    let source = group.source.as_ref();
                    emit.group(group, source.filter(|_| fired[index] == Fired::Source));
                }
            },
            Some(_) => (),
        }
    }
    emit.lowering
}

struct Emit<'e, 'a> {
    plain: &'e [Lowered<'a>],
    values: usize,
    activation: DType,
    bands: Bands,
    lowering: Lowering<'a>,
}

/// Rows of the convolution's output, and the rows of its input that they need.
#[derive(Clone, Copy)]
struct Band {
    begin: u32,
    end: u32,
    /// The first row of the input.
    from: u32,
    /// The end of the input's rows.
    to: u32,
}

impl Band {
    /// All bands of `height` rows, `rows` each.
    fn all(height: u32, rows: u32) -> impl Iterator<Item = Band> {
        (0..height).step_by(rows as usize).map(move |begin| {
            let end = height.min(begin + rows);
            Band {
                begin,
                end,
                from: begin.saturating_sub(1),
                to: height.min(end + 1),
            }
        })
    }

    fn rows(&self) -> u32 {
        self.end - self.begin
    }

    fn input_rows(&self) -> u32 {
        self.to - self.from
    }
}

/// A picture in memory: the first of its rows that is held, and its bytes a row.
#[derive(Clone, Copy)]
struct Rows {
    tensor: usize,
    first: u32,
    bytes: u64,
}

impl Rows {
    fn view(&self, begin: u32, end: u32) -> View {
        View {
            tensor: self.tensor,
            part: Some((
                u64::from(begin - self.first) * self.bytes,
                u64::from(end - begin) * self.bytes,
            )),
        }
    }
}

impl<'a> Emit<'_, 'a> {
    fn temporary(&mut self, holds: Holds, bytes: u64) -> View {
        self.lowering.temporaries.push(Temporary { holds, bytes });
        View {
            tensor: self.values + self.lowering.temporaries.len() - 1,
            part: None,
        }
    }

    /// A step of the operator of another, with these views instead of its node's values.
    fn step(&mut self, origin: usize, op: package::Op, views: &[(&'static str, View)]) {
        self.lowering.steps.push(Lowered {
            op,
            views: views.to_vec(),
            ..self.plain[origin].clone()
        });
    }

    fn group(&mut self, group: &Group, source: Option<&Source>) {
        let plain = self.plain;
        let (norm, conv) = (&plain[group.norm], &plain[group.conv]);
        let (package::Op::GroupNorm(norm_op), package::Op::Conv2d(p)) = (norm.op, conv.op) else {
            return;
        };
        let Some(x) = norm.node.input("x") else {
            return;
        };
        let size = self.activation.size() as u64;
        let (c, width) = (u64::from(p.in_c), u64::from(p.in_w));
        let row = width * c;
        let code_size = if norm_op.quantized { 1 } else { size };
        let row_bytes = row * (code_size + if source.is_some() { size } else { 0 });
        let mut rows = ROWS;
        while self.bands.may_have(2 * rows, row_bytes, p.in_h) {
            rows *= 2;
        }

        // The statistics.
        let numbers = if norm_op.quantized { 4 } else { 2 };
        let record = c * numbers * 4;
        let blocks = u64::from(norm_op.rows).div_ceil(package::NORM_BLOCK as u64);
        let records = self.temporary(Holds::F32, blocks * record);
        let moments = self.temporary(Holds::F32, record);
        let blocks_of = |rows: u32| {
            package::Op::GroupNormBlocks(package::GroupNormBlocks {
                rows: rows * p.in_w,
                c: p.in_c,
                ranges: norm_op.quantized,
            })
        };
        let whole = Rows {
            tensor: x.index(),
            first: 0,
            bytes: row * size,
        };
        let held = source.map(|_| {
            let bytes = u64::from(rows + 2) * row * size;
            self.temporary(Holds::Activation, bytes).tensor
        });
        if let (Some(source), Some(tensor)) = (source, held) {
            for band in Band::all(p.in_h, rows) {
                let x = self.fill(source, band, tensor, rows);
                let x = x.view(band.begin, band.end);
                let first = u64::from(band.begin) * width / package::NORM_BLOCK as u64;
                let pixels = u64::from(band.rows()) * width;
                let count = pixels.div_ceil(package::NORM_BLOCK as u64);
                let out = View {
                    part: Some((first * record, count * record)),
                    ..records
                };
                self.step(
                    group.norm,
                    blocks_of(band.rows()),
                    &[("x", x), ("out", out)],
                );
                self.shortcut(source, band, x, width);
            }
        } else {
            let views = [("x", View::whole(x)), ("out", records)];
            self.step(group.norm, blocks_of(p.in_h), &views);
        }
        let merge = package::Op::GroupNormMerge(package::GroupNormMerge {
            rows: norm_op.rows,
            c: p.in_c,
            groups: norm_op.groups,
            eps: norm_op.eps,
            activation: norm_op.activation,
            quantized: norm_op.quantized,
        });
        self.step(group.norm, merge, &[("x", records), ("out", moments)]);

        // The bands.
        let out = Rows {
            tensor: conv.node.output.index(),
            first: 0,
            bytes: width * u64::from(p.out_c) * size,
        };
        for band in Band::all(p.in_h, rows) {
            let x = match (source, held) {
                (Some(source), Some(tensor)) => self.fill(source, band, tensor, rows),
                _ => whole,
            };
            let pixels = u64::from(band.input_rows()) * width;
            let normed = if norm_op.quantized {
                self.temporary(Holds::U8, codes_bytes(pixels, c, false))
            } else {
                self.temporary(Holds::Activation, pixels * c * size)
            };
            let apply = package::Op::GroupNormApply(package::GroupNormApply {
                rows: band.input_rows() * p.in_w,
                c: p.in_c,
                groups: norm_op.groups,
                activation: norm_op.activation,
                quantized: norm_op.quantized,
            });
            let views = [
                ("x", x.view(band.from, band.to)),
                ("moments", moments),
                ("out", normed),
            ];
            self.step(group.norm, apply, &views);
            let op = package::Op::Conv2d(package::Conv2d {
                in_h: band.input_rows(),
                up_h: band.input_rows(),
                out_h: band.rows(),
                // What is above a later band's rows is there.
                pad_top: u32::from(band.begin == 0),
                ..p
            });
            let mut views = vec![("x", normed), ("out", out.view(band.begin, band.end))];
            if let Some(residual) = conv.node.input("residual") {
                let residual = Rows {
                    tensor: residual.index(),
                    ..out
                };
                views.push(("residual", residual.view(band.begin, band.end)));
            }
            self.step(group.conv, op, &views);
        }
    }

    /// Makes the rows that a band needs of the picture that is not stored. `tensor` has room for two rows more than a
    /// band's `rows`.
    fn fill(&mut self, source: &Source, band: Band, tensor: usize, rows: u32) -> Rows {
        let step = &self.plain[source.conv];
        let package::Op::Conv2d(p) = step.op else {
            return Rows {
                tensor,
                first: band.from,
                bytes: 0,
            };
        };
        let size = self.activation.size() as u64;
        let row = p.out_w * p.out_c;
        let held = Rows {
            tensor,
            first: band.from,
            bytes: u64::from(row) * size,
        };
        let mut begin = 0;
        if band.begin > 0 {
            // The band before began a row before its own, but for the first.
            let before = Rows {
                first: (band.begin - rows).saturating_sub(1),
                ..held
            };
            let copy = package::Op::Copy(package::Copy {
                d0: 1,
                d1: 1,
                d2: 2,
                d3: row,
                s0: 0,
                s1: 0,
                s2: row,
                s3: 1,
                offset: 0,
            });
            begin = band.begin + 1;
            let views = [
                ("x", before.view(band.from, begin)),
                ("out", held.view(band.from, begin)),
            ];
            self.step(source.conv, copy, &views);
        }
        // Rows of the smaller picture.
        let from = begin.saturating_sub(1) / 2;
        let to = p.in_h.min(band.to / 2 + 1);
        let Some(x) = step.node.input("x") else {
            return held;
        };
        let x = if step.codes {
            let (first, count) = (from * p.in_w, (to - from) * p.in_w);
            let bytes = codes_bytes(count.into(), p.in_c.into(), false);
            let part = self.temporary(Holds::U8, bytes);
            let op = package::Op::CodesRows(package::CodesRows {
                rows: p.in_h * p.in_w,
                c: p.in_c,
                first,
                count,
            });
            self.step(source.conv, op, &[("x", View::whole(x)), ("out", part)]);
            part
        } else {
            let x = Rows {
                tensor: x.index(),
                first: 0,
                bytes: u64::from(p.in_w * p.in_c) * size,
            };
            x.view(from, to)
        };
        let op = package::Op::Conv2d(package::Conv2d {
            in_h: to - from,
            up_h: 2 * (to - from),
            out_h: band.to - begin,
            pad_top: u32::from(begin == 0),
            ..p
        });
        let out = held.view(begin, band.to);
        self.step(source.conv, op, &[("x", x), ("out", out)]);
        held
    }

    /// The shortcut's rows of a band.
    fn shortcut(&mut self, source: &Source, band: Band, mut x: View, width: u64) {
        let Some(linear) = source.linear else {
            return;
        };
        let package::Op::Linear(op) = self.plain[linear].op else {
            return;
        };
        let pixels = u64::from(band.rows()) * width;
        let rows = pixels as u32;
        if let Some(quantize) = source.quantize
            && let package::Op::Quantize(op) = self.plain[quantize].op
        {
            let codes = self.temporary(Holds::U8, codes_bytes(pixels, op.c.into(), true));
            let op = package::Op::Quantize(package::Quantize { rows, ..op });
            self.step(quantize, op, &[("x", x), ("out", codes)]);
            x = codes;
        }
        let out = Rows {
            tensor: self.plain[linear].node.output.index(),
            first: 0,
            bytes: width * u64::from(op.n) * self.activation.size() as u64,
        };
        let views = [("x", x), ("out", out.view(band.begin, band.end))];
        let op = package::Op::Linear(package::Linear { rows, ..op });
        self.step(linear, op, &views);
    }
}
