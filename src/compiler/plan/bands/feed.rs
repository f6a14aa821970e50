//! The widest rows of a transformer block, a band of them at a time.
//!
//! ```text
//! x -> LayerNorm -> Linear, GEGLU -> (Quantize) -> Linear + residual -> out
//! ```
//! Each step treats rows one by one, so the whole chain runs on a band of rows before the next. Where the residual is `x`
//! and nothing reads it later, the bands are written over it.

use kiln_package::{self as package, Activation, Holds, codes_bytes};

use super::{Emit, Find, Rows, View};

/// The steps of a chain.
pub(super) struct Feed {
    norm: usize,
    gate: usize,
    quantize: Option<usize>,
    pub(super) last: usize,
}

impl Feed {
    /// The chain that begins with a LayerNorm.
    pub(super) fn find(find: &Find<'_, '_>, norm: usize) -> Option<Feed> {
        let step = &find.steps[norm];
        let package::Op::LayerNorm(op) = step.op else {
            return None;
        };
        let gate = find.only_reader(step.node.output)?;
        let package::Op::Linear(wide) = find.steps[gate].op else {
            return None;
        };
        let next = find.only_reader(find.steps[gate].node.output)?;
        let (quantize, last) = match find.steps[next].op {
            package::Op::Quantize(op) if op.per_row && op.c2 == 0 => {
                let last = find.only_reader(find.steps[next].node.output)?;
                (Some(next), last)
            }
            _ => (None, next),
        };
        let package::Op::Linear(narrow) = find.steps[last].op else {
            return None;
        };
        let reads = |reader: usize, from: usize| {
            find.steps[reader].node.input("x") == Some(find.steps[from].node.output)
        };
        let chain = reads(gate, norm) && reads(last, quantize.unwrap_or(gate));
        let plain = |step: usize, slots: &[&str]| {
            let node = find.steps[step].node;
            slots.iter().all(|slot| node.input(slot).is_none())
        };
        let x = step.node.input("x")?;
        let residual = find.steps[last].node.input("residual");
        let fits = wide.activation == Activation::Geglu
            && wide.rows.is_multiple_of(ROWS)
            && wide.rows > ROWS
            && find.graph.value(x).weight().is_none()
            && residual.is_none_or(|residual| find.graph.value(residual).weight().is_none())
            && plain(gate, &["x2", "residual", "shift"])
            && plain(last, &["x2", "shift"])
            && find.aligned(u64::from(op.c))
            && find.aligned(u64::from(narrow.n));
        let bytes = u64::from(wide.rows) * u64::from(wide.n) * find.size;
        (chain && fits && bytes >= find.bands.least_picture).then_some(Feed {
            norm,
            gate,
            quantize,
            last,
        })
    }

    pub(super) fn covers(&self, step: usize) -> bool {
        (self.norm..=self.last).contains(&step)
    }

    pub(super) fn steps(&self) -> impl Iterator<Item = usize> {
        let steps = [
            Some(self.norm),
            Some(self.gate),
            self.quantize,
            Some(self.last),
        ];
        steps.into_iter().flatten()
    }

    pub(super) fn emit(&self, emit: &mut Emit<'_, '_>) {
        let plain = emit.plain;
        let (norm, gate, last) = (&plain[self.norm], &plain[self.gate], &plain[self.last]);
        let (
            package::Op::LayerNorm(norm_op),
            package::Op::Linear(wide),
            package::Op::Linear(narrow),
        ) = (norm.op, gate.op, last.op)
        else {
            return;
        };
        let Some(x) = norm.node.input("x") else {
            return;
        };
        let size = emit.activation.size() as u64;
        let row_bytes = u64::from(wide.n) * (size + u64::from(self.quantize.is_some()));
        let mut rows = ROWS;
        while emit.bands.may_have(2 * rows, row_bytes, wide.rows) {
            rows *= 2;
        }
        let picture = |tensor: usize, columns: u32| Rows {
            tensor,
            first: 0,
            bytes: u64::from(columns) * size,
        };
        let x = picture(x.index(), norm_op.c);
        let out = picture(last.node.output.index(), narrow.n);
        for begin in (0..wide.rows).step_by(rows as usize) {
            let end = wide.rows.min(begin + rows);
            let rows = end - begin;
            let mut matrix = |columns: u32, codes: bool| match codes {
                true => emit.temporary(Holds::U8, codes_bytes(rows.into(), columns.into(), true)),
                false => emit.temporary(
                    Holds::Activation,
                    u64::from(rows) * u64::from(columns) * size,
                ),
            };
            let normed = matrix(norm_op.c, norm_op.quantized);
            let gated = matrix(wide.n, false);
            let codes = self.quantize.map(|_| matrix(wide.n, true));
            let op = package::Op::LayerNorm(package::LayerNorm { rows, ..norm_op });
            emit.step(self.norm, op, &[("x", x.view(begin, end)), ("out", normed)]);
            let op = package::Op::Linear(package::Linear { rows, ..wide });
            emit.step(self.gate, op, &[("x", normed), ("out", gated)]);
            if let (Some(quantize), Some(codes)) = (self.quantize, codes)
                && let package::Op::Quantize(op) = plain[quantize].op
            {
                let op = package::Op::Quantize(package::Quantize { rows, ..op });
                emit.step(quantize, op, &[("x", gated), ("out", codes)]);
            }
            let mut views: Vec<(&'static str, View)> =
                vec![("x", codes.unwrap_or(gated)), ("out", out.view(begin, end))];
            if let Some(residual) = last.node.input("residual") {
                let residual = picture(residual.index(), narrow.n);
                views.push(("residual", residual.view(begin, end)));
            }
            let op = package::Op::Linear(package::Linear { rows, ..narrow });
            emit.step(self.last, op, &views);
        }
    }
}

/// The fewest rows of a band; bands have a multiple of it.
const ROWS: u32 = 64;
