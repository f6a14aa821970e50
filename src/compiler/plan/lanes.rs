//! What two lanes share of an arena.
//!
//! Guidance runs a UNet in two lanes, step by step in both, so that each weight is read once. Where most is in use at a
//! step that is twice as much. So there the lanes take turns, several steps in a row: a *turn*. What is in use during one
//! turn only need be there once.
//!
//! ```text
//!             both    |      turn      |      turn      |    both
//!  lane 1    --------- ################ ................ ---------
//!  lane 2    --------- ................ ################ ---------
//!            . holds only what is older than the turn, or outlives it
//! ```
//! In the arena what each lane has for itself comes first, then what they share.
//!
//! The weights of a turn must be resident while it lasts, since the second lane reads them again. No turn reads more of
//! them than the step that reads most, so that the least memory in which a program runs does not grow.

use kiln_package::{DType, GraphKind, Stage};

use super::buffers::{Buffers, Location};
use super::memory::{self, Arena, Fit, Lifetime};
use super::program::Lowered;
use super::{Part, PlanError};

/// When two lanes share a part of an arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lanes {
    /// The least bytes of an arena for which it is tried.
    pub least_arena: u64,
}

impl Lanes {
    /// Never.
    pub const NONE: Lanes = Lanes {
        least_arena: u64::MAX,
    };
}

impl Default for Lanes {
    fn default() -> Self {
        Lanes {
            least_arena: 8 << 20,
        }
    }
}

/// An arena of which a part is there once for all lanes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shared {
    /// One lane's, what is shared being at its end.
    pub arena: Arena,
    /// What each lane has for itself.
    pub own: u64,
    /// Whether a step is of one turn with the next.
    pub joined: Vec<bool>,
}

impl Shared {
    /// An arena of which nothing is shared.
    pub(super) fn nothing(arena: Arena, steps: usize) -> Self {
        Shared {
            own: arena.bytes,
            arena,
            joined: vec![false; steps],
        }
    }

    /// Bytes of two lanes.
    fn two(&self) -> u64 {
        self.own + self.arena.bytes
    }
}

/// The weights that a step reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reads {
    /// Their bytes.
    pub bytes: u64,
    /// The last step before that has read them too, as the bands of a picture do.
    pub before: Option<usize>,
}

/// The arena of a part's program: shared, if guidance runs it in two lanes and that is worth it.
pub fn assign(
    part: &Part,
    steps: &[Lowered],
    buffers: &Buffers,
    activation: DType,
    lanes: Lanes,
) -> Result<Shared, PlanError> {
    let arena = memory::assign(&buffers.lifetimes);
    let guided = part.kind == GraphKind::Unet && matches!(part.stage, Stage::Step | Stage::Whole);
    if !guided || arena.bytes < lanes.least_arena {
        return Ok(Shared::nothing(arena, steps.len()));
    }
    let graph = &part.graph;
    let mut ports = vec![false; buffers.lifetimes.len()];
    for value in graph.inputs.iter().chain(&graph.outputs) {
        if let Some(Location::Buffer(buffer)) = buffers.of_tensor[value.index()] {
            ports[buffer] = true;
        }
    }
    let mut reads = Vec::with_capacity(steps.len());
    let mut last: Vec<Option<usize>> = vec![None; graph.value_count()];
    for (step, lowered) in steps.iter().enumerate() {
        let weight = lowered.node.input("weight");
        reads.push(
            match weight.filter(|id| graph.value(*id).weight().is_some()) {
                Some(weight) => Reads {
                    bytes: lowered
                        .required(graph, "weight")?
                        .bytes(activation)
                        .unwrap_or(u64::MAX),
                    before: last[weight.index()].replace(step),
                },
                None => Reads::default(),
            },
        );
    }
    Ok(share(&buffers.lifetimes, &ports, &reads, arena))
}

/// How many levels of fullness are tried.
const LEVELS: usize = 16;

/// The arena that takes the fewest bytes for two lanes, `arena` being the one that does for one. That is what there is if no
/// sixteenth is saved, or if a single lane would take more by a twelfth.
///
/// A buffer may be shared if it is in use at full steps only, and is none of the `ports`. Which steps are full: so many
/// levels are tried. Turns that would read too many weights are cut where the fewest bytes cross. What each lane has for
/// itself is placed first, then the rest above it, or below in a gap.
pub fn share(lifetimes: &[Lifetime], ports: &[bool], reads: &[Reads], arena: Arena) -> Shared {
    let usage = memory::usage(lifetimes);
    let mut levels = usage.clone();
    levels.sort_unstable();
    levels.dedup();
    let stride = levels.len().div_ceil(LEVELS).max(1);
    let mut tried: Vec<Vec<bool>> = Vec::new();
    let mut best = Shared::nothing(arena, reads.len());
    let (alone, worth) = (best.arena.bytes, best.two() - best.two() / 16);
    for level in levels.into_iter().step_by(stride) {
        let full = |step: usize| usage[step] > level;
        let within = |i: usize| {
            let Lifetime { first, last, .. } = lifetimes[i];
            // What is an output is in use past the last step.
            !ports[i] && last < reads.len() && (first..=last).all(full)
        };
        let mut may: Vec<bool> = (0..lifetimes.len()).map(within).collect();
        cut(lifetimes, &mut may, reads);
        if !may.contains(&true) || tried.contains(&may) {
            continue;
        }
        let (arena, own) = place_shared(lifetimes, &may, best.arena.bound);
        let two = arena.bytes + own;
        if two <= worth && two < best.two() && arena.bytes <= alone + alone / 12 {
            let joined = joined(lifetimes, &arena, own, reads.len());
            best = Shared { arena, own, joined };
        }
        tried.push(may);
    }
    best
}

/// Whether a step and the next are of one turn: what the lanes share is in use at both.
fn joined(lifetimes: &[Lifetime], arena: &Arena, own: u64, steps: usize) -> Vec<bool> {
    let mut joined = vec![false; steps];
    let shared = lifetimes.iter().zip(&arena.offsets);
    for (life, _) in shared.filter(|(_, offset)| **offset >= own) {
        joined[life.first..life.last].fill(true);
    }
    joined
}

/// Takes from the buffers that `may` be shared those that make turns too long.
fn cut(lifetimes: &[Lifetime], may: &mut [bool], reads: &[Reads]) {
    let most = reads.iter().map(|reads| reads.bytes).max().unwrap_or(0);
    // Bytes that may be shared and are in use at a step and at the next.
    let mut across = vec![0; reads.len()];
    for (life, _) in lifetimes.iter().zip(&*may).filter(|(_, may)| **may) {
        let sums = across[life.first..life.last].iter_mut();
        sums.for_each(|bytes| *bytes += life.padded());
    }
    let (mut begin, mut sum) = (0, 0u64);
    let mut step = 0;
    while step < reads.len() {
        if reads[step].before.is_none_or(|before| before < begin) {
            sum = sum.saturating_add(reads[step].bytes);
        }
        if sum > most && step > begin {
            let at = (begin..step).min_by_key(|at| (across[*at], usize::MAX - *at));
            let at = at.unwrap_or(begin);
            for (life, may) in lifetimes.iter().zip(may.iter_mut()) {
                if *may && life.first <= at && at < life.last {
                    *may = false;
                    let sums = across[life.first..life.last].iter_mut();
                    sums.for_each(|bytes| *bytes -= life.padded());
                }
            }
            (begin, step, sum) = (at + 1, at + 1, 0);
            continue;
        }
        if across[step] == 0 {
            (begin, sum) = (step + 1, 0);
        }
        step += 1;
    }
}

/// An arena in which the buffers that `may` be shared lie above all others, or in their gaps, and where what is shared
/// begins. Where gaps are depends on the order in which the others were placed, so all orders are tried that waste little.
fn place_shared(lifetimes: &[Lifetime], may: &[bool], bound: u64) -> (Arena, u64) {
    let others: Vec<usize> = (0..lifetimes.len()).filter(|i| !may[*i]).collect();
    let own: Vec<Lifetime> = others.iter().map(|i| lifetimes[*i]).collect();
    let best = memory::assign(&own);
    let mut placed = vec![(best.bytes, best.offsets)];
    for order in memory::orders(&own) {
        placed.extend([Fit::First, Fit::Best].map(|fit| memory::place(&own, &order, fit)));
    }
    let least = placed.iter().map(|(bytes, _)| *bytes).min().unwrap_or(0);
    placed.retain(|(bytes, _)| *bytes <= least + least / 32);
    placed.sort_unstable();
    placed.dedup();
    let orders = memory::orders(lifetimes);
    let mut best = (u64::MAX, 0, Vec::new());
    for (border, of_others) in placed {
        let mut fixed = vec![None; lifetimes.len()];
        for (i, offset) in others.iter().zip(of_others) {
            fixed[*i] = Some(offset);
        }
        for border in borders(lifetimes, &fixed, border, &orders) {
            for order in &orders {
                let (bytes, offsets) = place_above(lifetimes, &fixed, border, order);
                if bytes.saturating_add(border) < best.0.saturating_add(best.1) {
                    best = (bytes, border, offsets);
                }
            }
        }
    }
    let (bytes, border, offsets) = best;
    let arena = Arena {
        offsets,
        bytes,
        bound,
    };
    (arena, border)
}

/// Where what is shared may begin: above all that has a place, or a little higher, so that a buffer that would reach across
/// has room in a gap below.
fn borders(
    lifetimes: &[Lifetime],
    fixed: &[Option<u64>],
    lowest: u64,
    orders: &[Vec<usize>],
) -> Vec<u64> {
    let mut borders = vec![lowest];
    for order in orders {
        let (_, offsets) = place_above(lifetimes, fixed, 0, order);
        let ends = lifetimes.iter().zip(offsets).filter_map(|(life, offset)| {
            let end = offset + life.padded();
            (offset < lowest && end > lowest).then_some(end)
        });
        borders.extend(ends);
    }
    borders.sort_unstable();
    borders.dedup();
    borders
}

/// Places the buffers without a place, in that order, each at the lowest gap, none across the border. Returns the size of
/// the arena and the offsets.
fn place_above(
    lifetimes: &[Lifetime],
    fixed: &[Option<u64>],
    border: u64,
    order: &[usize],
) -> (u64, Vec<u64>) {
    let mut offsets = fixed.to_vec();
    let mut top = border;
    for i in order.iter().copied().filter(|i| fixed[*i].is_none()) {
        let buffer = &lifetimes[i];
        let bytes = buffer.padded();
        let mut taken: Vec<(u64, u64)> = (0..lifetimes.len())
            .filter(|j| lifetimes[*j].meets(buffer))
            .filter_map(|j| {
                let offset = offsets[j]?;
                Some((offset, offset + lifetimes[j].padded()))
            })
            .collect();
        taken.sort_unstable();
        // What would reach across the border begins at it.
        let beside = |at: u64| {
            if at < border && at + bytes > border {
                border
            } else {
                at
            }
        };
        let mut at = beside(0);
        for (start, end) in taken {
            if at + bytes <= start {
                break;
            }
            at = beside(at.max(end));
        }
        offsets[i] = Some(at);
        top = top.max(at + bytes);
    }
    let offsets = offsets.into_iter().map(|offset| offset.unwrap_or(0));
    (top, offsets.collect())
}
