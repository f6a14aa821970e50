//! What lanes share, whatever the buffers.

use super::*;
use crate::plan::lanes::{Reads, Shared, share};

fn reads(bytes: &[u64]) -> Vec<Reads> {
    let reads = bytes.iter().map(|bytes| Reads {
        bytes: *bytes,
        before: None,
    });
    reads.collect()
}

/// What must be true of every arena that lanes share.
fn check(lifetimes: &[Lifetime], ports: &[bool], reads: &[Reads], shared: &Shared) {
    assert_eq!(memory::conflict(lifetimes, &shared.arena), None);
    let alone = memory::assign(lifetimes).bytes;
    assert!(shared.own <= shared.arena.bytes && shared.arena.bytes <= alone + alone / 12);
    assert!(shared.own + shared.arena.bytes <= 2 * alone);
    assert_eq!(shared.own % 64, 0);
    assert_eq!(shared.joined.len(), reads.len());
    let mut crossed = vec![false; reads.len()];
    for ((life, offset), port) in lifetimes.iter().zip(&shared.arena.offsets).zip(ports) {
        let end = offset + life.bytes.next_multiple_of(64);
        if *offset < shared.own {
            assert!(end <= shared.own, "across the border");
            continue;
        }
        assert!(!port && end <= shared.arena.bytes);
        assert!(life.last < reads.len());
        crossed[life.first..life.last].fill(true);
    }
    assert_eq!(shared.joined, crossed);
    // The weights of a turn.
    let most = reads.iter().map(|reads| reads.bytes).max().unwrap_or(0);
    let (mut begin, mut sum) = (0, 0);
    for (step, read) in reads.iter().enumerate() {
        if read.before.is_none_or(|before| before < begin) {
            sum += read.bytes;
        }
        assert!(sum <= most, "{sum} bytes of weights, {most} in one step");
        if !shared.joined[step] {
            (begin, sum) = (step + 1, 0);
        }
    }
}

/// Every other step makes something large of something small, and the next something small of it.
#[test]
fn what_is_large_for_a_turn_is_there_once() {
    let mut lifetimes = Vec::new();
    for step in (0..20).step_by(2) {
        lifetimes.push(lifetime(64, step.max(1) - 1, step));
        lifetimes.push(lifetime(6400, step, step + 1));
    }
    lifetimes.push(lifetime(64, 19, 20));
    let mut ports = vec![false; lifetimes.len()];
    (ports[0], ports[20]) = (true, true);
    let plain = memory::assign(&lifetimes);
    assert_eq!(plain.bytes, 6464);
    let weights = reads(&[100; 20].map(|bytes| bytes + 100));
    let shared = share(&lifetimes, &ports, &weights, plain.clone());
    check(&lifetimes, &ports, &weights, &shared);
    // Each turn of two steps would read the weights of two.
    assert_eq!(shared, Shared::nothing(plain.clone(), 20));
    // If only one of them reads any it may be, and what is large is there once.
    let weights = reads(&std::array::from_fn::<u64, 20, _>(|step| {
        [200, 0][step % 2]
    }));
    let shared = share(&lifetimes, &ports, &weights, plain);
    check(&lifetimes, &ports, &weights, &shared);
    assert_eq!((shared.own, shared.arena.bytes), (64, 6464));
    let joined: Vec<bool> = (0..20).map(|step| step % 2 == 0).collect();
    assert_eq!(shared.joined, joined);
}

/// The bands of a picture read one matrix: it counts once.
#[test]
fn weights_that_are_read_again_count_once() {
    let mut lifetimes = vec![lifetime(64, 0, 8)];
    lifetimes.extend((0..8).map(|step| lifetime(640, step, step + 1)));
    lifetimes[8].last = 7;
    let mut ports = vec![false; 9];
    ports[0] = true;
    let mut weights = reads(&[100; 8]);
    for (step, reads) in weights.iter_mut().enumerate() {
        reads.before = step.checked_sub(1);
    }
    let shared = share(&lifetimes, &ports, &weights, memory::assign(&lifetimes));
    check(&lifetimes, &ports, &weights, &shared);
    assert_eq!((shared.own, shared.arena.bytes), (64, 64 + 2 * 640));
    assert_eq!(
        shared.joined,
        [true, true, true, true, true, true, true, false]
    );
}

proptest! {
    #[test]
    fn sharing_is_sound(
        buffers in prop::collection::vec((1u64..5000, 0usize..40, 0usize..12, 0u8..8), 1..60),
        weights in prop::collection::vec((0u64..300, prop::bool::weighted(0.2)), 40),
    ) {
        let lifetimes: Vec<Lifetime> = buffers
            .iter()
            .map(|(bytes, first, more, _)| lifetime(*bytes, *first, (first + more).min(40)))
            .collect();
        let ports: Vec<bool> = buffers.iter().map(|(.., port)| *port == 0).collect();
        let mut reads: Vec<Reads> = Vec::new();
        for (step, (bytes, again)) in weights.into_iter().enumerate() {
            let before = step.checked_sub(2).filter(|_| again);
            let bytes = before.map_or(bytes, |before| reads[before].bytes);
            reads.push(Reads { bytes, before });
        }
        let shared = share(&lifetimes, &ports, &reads, memory::assign(&lifetimes));
        check(&lifetimes, &ports, &reads, &shared);
    }
}
