//! Where each buffer lies in the arena.
//!
//! A buffer is in use from the step that writes it to the last step that reads it, both included; two buffers in use at
//! one step must not share a byte. No assignment can be smaller than the most bytes in use at one step: the *bound*.
//!
//! Buffers are placed one after the other, each at the lowest gap that the buffers already placed and in use at the same
//! time leave (first fit), or at the smallest gap (best fit). What decides is the order. Several are tried: the largest
//! first; the largest product of size and duration first; the longest first; in order of time; and those of the fullest
//! step first. If none reaches the bound, the best order is improved: the buffers that reach the top of the arena are
//! placed before all others, and the rest follow as before, for a fixed number of rounds. The result depends on the
//! lifetimes alone.

use std::cmp::Reverse;

/// What buffers begin at multiples of.
pub const ALIGNMENT: u64 = kiln_package::format::ALIGNMENT;

/// A buffer's size and the steps during which it is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// Size in bytes.
    pub bytes: u64,
    /// The first step that uses it.
    pub first: usize,
    /// The last step that uses it.
    pub last: usize,
}

impl Lifetime {
    /// Whether some step uses both.
    pub fn meets(&self, other: &Lifetime) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// What it takes of an arena.
    pub fn padded(&self) -> u64 {
        self.bytes.next_multiple_of(ALIGNMENT)
    }
}

/// An arena.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arena {
    /// Where each buffer begins, in the order of the lifetimes.
    pub offsets: Vec<u64>,
    /// Size of the arena.
    pub bytes: u64,
    /// The most bytes in use at one step.
    pub bound: u64,
}

/// How often the best order is improved in vain before the search ends.
const PATIENCE: usize = 48;

/// Assigns each buffer its place.
pub fn assign(lifetimes: &[Lifetime]) -> Arena {
    let bound = bound(lifetimes);
    let mut best: Option<(u64, Vec<u64>, Vec<usize>, Fit)> = None;
    for order in orders(lifetimes) {
        for fit in [Fit::First, Fit::Best] {
            let (bytes, offsets) = place(lifetimes, &order, fit);
            if best.as_ref().is_none_or(|best| bytes < best.0) {
                best = Some((bytes, offsets, order.clone(), fit));
            }
        }
    }
    let Some((mut bytes, mut offsets, mut order, fit)) = best else {
        return Arena {
            offsets: Vec::new(),
            bytes: 0,
            bound,
        };
    };
    let (mut top, mut current) = (bytes, offsets.clone());
    let mut patience = PATIENCE;
    while bytes > bound && patience > 0 {
        // A stable sort: the rest keep their order.
        order.sort_by_key(|i| current[*i] + lifetimes[*i].padded() != top);
        (top, current) = place(lifetimes, &order, fit);
        patience -= 1;
        if top < bytes {
            (bytes, offsets) = (top, current.clone());
            patience = PATIENCE;
        }
    }
    Arena {
        offsets,
        bytes,
        bound,
    }
}

/// The most bytes in use at one step; no arena is smaller.
pub fn bound(lifetimes: &[Lifetime]) -> u64 {
    usage(lifetimes).into_iter().max().unwrap_or(0)
}

/// Bytes in use at each step.
pub fn usage(lifetimes: &[Lifetime]) -> Vec<u64> {
    let steps = lifetimes.iter().map(|l| l.last + 1).max().unwrap_or(0);
    let mut usage = vec![0; steps];
    for lifetime in lifetimes {
        usage[lifetime.first..=lifetime.last]
            .iter_mut()
            .for_each(|bytes| *bytes += lifetime.padded());
    }
    usage
}

/// Two buffers that share bytes and time, if there are any. A compiler bug.
pub fn conflict(lifetimes: &[Lifetime], arena: &Arena) -> Option<(usize, usize)> {
    let part = |i: usize| arena.offsets[i]..arena.offsets[i] + lifetimes[i].bytes;
    (0..lifetimes.len())
        .flat_map(|i| (0..i).map(move |j| (j, i)))
        .find(|(i, j)| {
            let (a, b) = (part(*i), part(*j));
            lifetimes[*i].meets(&lifetimes[*j]) && a.start < b.end && b.start < a.end
        })
}

/// Orders in which buffers may be placed.
pub(super) fn orders(lifetimes: &[Lifetime]) -> Vec<Vec<usize>> {
    fn by<K: Ord>(count: usize, key: impl FnMut(&usize) -> K) -> Vec<usize> {
        let mut order: Vec<usize> = (0..count).collect();
        order.sort_by_key(key);
        order
    }
    let count = lifetimes.len();
    let usage = usage(lifetimes);
    // Of equals the last: `max_by_key` says so.
    let fullest = (0..usage.len())
        .max_by_key(|step| usage[*step])
        .unwrap_or(0);
    let duration = |i: usize| (lifetimes[i].last - lifetimes[i].first + 1) as u64;
    let size = |i: usize| lifetimes[i].bytes;
    let outside = |i: usize| fullest < lifetimes[i].first || lifetimes[i].last < fullest;
    vec![
        by(count, |i| (Reverse(size(*i)), lifetimes[*i].first)),
        by(count, |i| {
            (
                Reverse(size(*i).saturating_mul(duration(*i))),
                lifetimes[*i].first,
            )
        }),
        by(count, |i| (Reverse(duration(*i)), Reverse(size(*i)))),
        by(count, |i| (lifetimes[*i].first, Reverse(duration(*i)))),
        by(count, |i| {
            (outside(*i), Reverse(duration(*i)), Reverse(size(*i)))
        }),
        by(count, |i| {
            (outside(*i), Reverse(size(*i)), lifetimes[*i].first)
        }),
    ]
}

/// Which gap a buffer is placed in.
#[derive(Clone, Copy)]
pub(super) enum Fit {
    /// The lowest.
    First,
    /// The smallest.
    Best,
}

/// Places the buffers in that order; returns the size of the arena and the offsets.
pub(super) fn place(lifetimes: &[Lifetime], order: &[usize], fit: Fit) -> (u64, Vec<u64>) {
    let mut offsets = vec![0u64; lifetimes.len()];
    let mut top = 0;
    // Those already placed, by offset.
    let mut placed: Vec<usize> = Vec::with_capacity(order.len());
    for i in order {
        let buffer = &lifetimes[*i];
        let bytes = buffer.padded();
        let mut end = 0;
        let mut found: Option<(u64, u64)> = None;
        for j in placed.iter().filter(|j| lifetimes[**j].meets(buffer)) {
            let gap = offsets[*j].saturating_sub(end);
            let better = match fit {
                Fit::First => found.is_none(),
                Fit::Best => found.is_none_or(|(smallest, _)| gap < smallest),
            };
            if gap >= bytes && better {
                found = Some((gap, end));
            }
            end = end.max(offsets[*j] + lifetimes[*j].padded());
        }
        let offset = found.map_or(end, |(_, offset)| offset);
        offsets[*i] = offset;
        top = top.max(offset + bytes);
        let at = placed.partition_point(|j| offsets[*j] <= offset);
        placed.insert(at, *i);
    }
    (top, offsets)
}
