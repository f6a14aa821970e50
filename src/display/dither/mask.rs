//! A mask of blue noise: each element has a rank, and those below any rank lie as far from each other as they can, so that they
//! look even. By void and cluster (Ulichney, "The void-and-cluster method for dither array generation", 1993).

use std::sync::OnceLock;

/// Elements of a row, and of a column.
pub(super) const MASK_SIDE: usize = 64;
const ELEMENTS: usize = MASK_SIDE * MASK_SIDE;
/// The deviation of the Gaussian by which elements crowd each other, in elements: what Ulichney found best.
const SIGMA: f64 = 1.5;
/// As far as it reaches.
const REACH: usize = 8;
/// Elements of the first pattern.
const FIRST: usize = ELEMENTS / 10;
/// What the first pattern is drawn by lot with.
const SEED: u64 = 0x6b69_6c6e;

/// The ranks, row by row; made when they are first asked for, always the same.
pub(super) fn mask() -> &'static [u16] {
    static MASK: OnceLock<Vec<u16>> = OnceLock::new();
    MASK.get_or_init(make)
}

/// Some elements, and how crowded each place is by them. The mask's edges meet.
struct Pattern {
    is_there: Vec<bool>,
    crowd: Vec<u64>,
    weights: Vec<u64>,
}

impl Pattern {
    fn new() -> Self {
        let side = 2 * REACH + 1;
        let weight = |i: usize| {
            let (dx, dy) = ((i % side).abs_diff(REACH), (i / side).abs_diff(REACH));
            let square = (dx * dx + dy * dy) as f64;
            // Integers: sums in any order are equal on every machine.
            (libm::exp(-square / (2.0 * SIGMA * SIGMA)) * f64::from(1 << 24)) as u64
        };
        Self {
            is_there: vec![false; ELEMENTS],
            crowd: vec![0; ELEMENTS],
            weights: (0..side * side).map(weight).collect(),
        }
    }

    fn toggle(&mut self, place: usize) {
        self.is_there[place] = !self.is_there[place];
        let (x, y) = (place % MASK_SIDE, place / MASK_SIDE);
        for (i, weight) in self.weights.iter().enumerate() {
            let (dx, dy) = (i % (2 * REACH + 1), i / (2 * REACH + 1));
            let row = (y + dy + MASK_SIDE - REACH) % MASK_SIDE;
            let at = row * MASK_SIDE + (x + dx + MASK_SIDE - REACH) % MASK_SIDE;
            match self.is_there[place] {
                true => self.crowd[at] += weight,
                false => self.crowd[at] -= weight,
            }
        }
    }

    /// The element that is crowded most; the first of equals.
    fn cluster(&self) -> usize {
        let there = (0..ELEMENTS).filter(|place| self.is_there[*place]);
        there
            .rev()
            .max_by_key(|place| self.crowd[*place])
            .unwrap_or(0)
    }

    /// The empty place that is crowded least; the first of equals.
    fn void(&self) -> usize {
        let empty = (0..ELEMENTS).filter(|place| !self.is_there[*place]);
        empty.min_by_key(|place| self.crowd[*place]).unwrap_or(0)
    }
}

fn make() -> Vec<u16> {
    let mut pattern = Pattern::new();
    let mut state = SEED;
    let mut count = 0;
    while count < FIRST {
        // Knuth's multiplier and an odd increment; the high bits are the good ones.
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let place = (state >> 40) as usize % ELEMENTS;
        if !pattern.is_there[place] {
            pattern.toggle(place);
            count += 1;
        }
    }
    // From the tightest cluster to the largest void, until that is where it came from.
    loop {
        let cluster = pattern.cluster();
        pattern.toggle(cluster);
        let void = pattern.void();
        pattern.toggle(void);
        if void == cluster {
            break;
        }
    }
    let mut ranks = vec![0; ELEMENTS];
    let first = pattern.is_there.clone();
    for rank in (0..FIRST).rev() {
        let cluster = pattern.cluster();
        pattern.toggle(cluster);
        ranks[cluster] = rank as u16;
    }
    for (place, is_there) in first.into_iter().enumerate() {
        if is_there {
            pattern.toggle(place);
        }
    }
    // Past the half the tightest cluster of empty places is taken; since the edges meet, that is the largest void still.
    for rank in FIRST..ELEMENTS {
        let void = pattern.void();
        pattern.toggle(void);
        ranks[void] = rank as u16;
    }
    ranks
}
