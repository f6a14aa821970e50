//! Attributes and operands of the operators.

use super::*;

#[test]
fn every_op_has_its_attributes_back() {
    for (op, (code, name)) in every_op().into_iter().zip(Op::ALL) {
        assert_eq!((op.code(), op.name()), (*code, *name));
        let mut words = [0; Op::MAX_WORDS];
        let len = op.write_words(&mut words);
        assert_eq!(Op::from_words(op.code(), &words[..len]), Ok(op));
        assert_eq!(
            Op::from_words(op.code(), &words[..len - 1]),
            Err(OpError::AttributeCount)
        );
        let mut names = Vec::new();
        op.for_each_attribute(|name, _| names.push(name));
        assert_eq!(names.len(), len);
        assert!(op.slots().len() <= Op::MAX_SLOTS);
    }
}

#[test]
fn every_op_checks_its_operands() {
    for (op, dtype, codes) in every_case() {
        let good = fill_with(op, dtype, codes);
        assert_eq!(op.check(&good), Ok(()), "{op:?}");
        assert_eq!(op.check(&good[1..]), Err(OpError::OperandCount));
        for (i, slot) in op.slots().iter().enumerate() {
            let with = |change: &dyn Fn(&mut Operand)| {
                let mut operands = good.clone();
                change(&mut operands[i]);
                op.check(&operands)
            };
            let name = slot.name;
            let Some(required) = op.requirement_with(name, codes).unwrap() else {
                assert_eq!(
                    with(&|o| *o = Operand::arena(dtype, 1 << 20, 64)),
                    Err(OpError::Slot(name))
                );
                continue;
            };
            let unit = required.holds.dtype(dtype).size() as u64;
            assert_eq!(
                with(&|o| o.bytes -= unit),
                Err(OpError::Size(name)),
                "{op:?}"
            );
            let longer = if required.at_least {
                Ok(())
            } else {
                Err(OpError::Size(name))
            };
            let by_a_byte = if unit == 1 {
                longer
            } else {
                Err(OpError::Size(name))
            };
            assert_eq!(
                with(&|o| (o.bytes, o.offset) = (o.bytes + 1, 1 << 20)),
                by_a_byte,
                "{op:?}"
            );
            assert_eq!(
                with(&|o| (o.bytes, o.offset) = (o.bytes + unit, 1 << 20)),
                longer,
                "{op:?}"
            );
            let wrong = if required.holds == Holds::I8 {
                DType::U8
            } else {
                DType::I8
            };
            assert_eq!(
                with(&|o| o.dtype = wrong),
                Err(OpError::Type(name)),
                "{op:?}"
            );
            // Of another type of activations than the rest, or a GEMM whose `x` alone is codes.
            for other in DType::ALL
                .iter()
                .filter(|other| **other != required.holds.dtype(dtype))
            {
                assert!(
                    with(&|o| o.dtype = *other).is_err(),
                    "{op:?} {name} of {other}"
                );
            }
            let empty = if required.optional {
                Ok(())
            } else {
                Err(OpError::Slot(name))
            };
            let result = with(&|o| *o = Operand::EMPTY);
            assert!(
                result == empty || name == op.activation_slot() || codes,
                "{op:?} {name}: {result:?}"
            );
            assert_eq!(result.is_ok(), required.optional, "{op:?} {name}");
            assert_eq!(
                with(&|o| (o.space, o.bytes) = (Space::Empty, 8)),
                Err(OpError::Slot(name)),
                "{op:?}"
            );
            if required.space == Some(Space::Weights) {
                assert_eq!(
                    with(&|o| o.space = Space::Arena),
                    Err(OpError::Space(name)),
                    "{op:?}"
                );
            }
            if matches!(slot.role, Role::Output | Role::Scratch) {
                assert_eq!(
                    with(&|o| o.space = Space::Weights),
                    Err(OpError::Space(name)),
                    "{op:?}"
                );
            }
        }
    }
}

#[test]
fn products_of_codes() {
    let good = fill_with(Op::Conv2d(CONV), DType::F16, true);
    let types: Vec<DType> = good.iter().map(|o| o.dtype).collect();
    use DType::*;
    assert_eq!(types, [U8, I8, F32, I32, F32, F16, F16, F16]);
    // One pair of parameters for all pixels, one for each row; columns of weights past 20 and k past 36 are padding.
    assert_eq!(
        good[..4].iter().map(|o| o.bytes).collect::<Vec<_>>(),
        [64 + 3 * 5 * 4, 2 * 16 * 40, 80, 80]
    );
    let linear = |op: Linear| Op::Linear(op).check(&fill_with(Op::Linear(op), F16, true));
    let geglu = Linear { k2: 0, ..GEGLU };
    assert_eq!(linear(geglu), Ok(()));
    let filled = fill_with(Op::Linear(geglu), F16, true);
    assert_eq!(
        filled.iter().map(|o| o.bytes).collect::<Vec<_>>(),
        [
            128 + 15 * 20,
            0,
            2 * 2 * 16 * 24,
            4 * 34,
            4 * 34,
            4 * 34,
            0,
            2 * 15 * 17,
            2 * 15 * 17
        ]
    );
    assert_eq!(linear(GEGLU), Err(OpError::Attribute("k2")));
    assert_eq!(
        linear(Linear {
            k: MAX_INTEGER_K,
            ..geglu
        }),
        Ok(())
    );
    assert_eq!(
        linear(Linear {
            k: MAX_INTEGER_K + 1,
            ..geglu
        }),
        Err(OpError::Attribute("k"))
    );
    assert!(i64::from(MAX_INTEGER_K) * 255 * 127 <= i64::from(i32::MAX));
    let conv = Op::Conv2d(Conv2d {
        in_c: MAX_INTEGER_K / 9 + 1,
        ..CONV
    });
    assert_eq!(
        conv.check(&fill_with(conv, F16, true)),
        Err(OpError::Attribute("in_c"))
    );
    // Storage is `f16` around products of integers.
    let wide = fill_with(Op::Conv2d(CONV), F32, true);
    assert_eq!(Op::Conv2d(CONV).check(&wide), Err(OpError::Type("out")));
}

#[test]
fn integer_attention_is_of_a_sequence_with_itself() {
    let check = |op: Attention| Op::Attention(op).check(&fill(Op::Attention(op), DType::F16));
    let good = Attention {
        q_rows: 7,
        integers: true,
        ..ATTENTION
    };
    assert_eq!(check(good), Ok(()));
    assert_eq!(
        check(Attention { q_rows: 6, ..good }),
        Err(OpError::Attribute("integers"))
    );
    assert_eq!(
        check(Attention {
            causal: true,
            ..good
        }),
        Err(OpError::Attribute("integers"))
    );
    let mut masked = fill(Op::Attention(good), DType::F16);
    masked[3] = Operand::arena(DType::F32, 1 << 20, 7 * 7 * 4);
    assert_eq!(
        Op::Attention(good).check(&masked),
        Err(OpError::Slot("mask"))
    );
}

#[test]
fn codes_have_their_parameters_before_them() {
    assert_eq!(codes_bytes(7, 3, false), 64 + 21);
    assert_eq!(codes_bytes(8, 3, true), 64 + 24);
    assert_eq!(codes_bytes(9, 3, true), 128 + 27);
    assert_eq!(codes_parameter_bytes(1, true), 64);
    assert_eq!(codes_bytes(u64::MAX, u64::MAX, true), u64::MAX);
    for (rows, c) in [(u32::MAX, u32::MAX), (1 << 31, 1)] {
        let op = Op::Quantize(Quantize {
            rows,
            c,
            c2: 0,
            per_row: true,
        });
        let bytes = op.requirement("out").ok().flatten().map(|r| r.elements);
        let exact = u128::from(rows).div_ceil(8) * 64 + u128::from(rows) * u128::from(c);
        assert_eq!(
            bytes.map(u128::from),
            (exact <= u64::MAX.into()).then_some(exact)
        );
    }
}

#[test]
fn outputs_overlap_only_in_place() {
    for (op, dtype, codes) in every_case() {
        let good = fill_with(op, dtype, codes);
        let out = good.len() - 1;
        for (i, slot) in op.slots().iter().enumerate() {
            if i == out || good[i].space != Space::Arena {
                continue;
            }
            // The output moves on top of the operand; nothing else is near.
            let mut operands = good.clone();
            let base = 1 << 20;
            operands[i].offset = base;
            operands[out].offset = base;
            let in_place = op.in_place_slot() == Some(slot.name) && operands[i] == operands[out];
            let expected = if in_place {
                Ok(())
            } else {
                Err(OpError::Overlap(slot.name))
            };
            let result = op.check(&operands);
            assert!(
                result == expected || slot.role == Role::Scratch,
                "{op:?} {}: {result:?}",
                slot.name
            );
            assert!(in_place || result.is_err());
            operands[out].offset = base + good[i].bytes.next_multiple_of(64);
            assert_eq!(op.check(&operands), Ok(()), "{op:?} {}", slot.name);
            operands[out].offset = base - (operands[out].bytes - 1) / 64 * 64;
            if operands[out].offset != base {
                assert!(op.check(&operands).is_err(), "{op:?} {}", slot.name);
            }
        }
    }
    // In place, but read a second time as the other operand.
    let op = Op::Binary(Binary {
        rows: 2,
        cols: 8,
        kind: BinaryKind::Add,
        broadcast: Broadcast::Same,
    });
    let one = Operand::arena(DType::F32, 0, 64);
    assert_eq!(op.check(&[one, one, one]), Err(OpError::Overlap("b")));
    assert_eq!(
        op.check(&[one, Operand::arena(DType::F32, 64, 64), one]),
        Ok(())
    );
}

#[test]
fn attributes_outside_their_range() {
    let conv = |change: &dyn Fn(&mut Conv2d)| {
        let mut op = CONV;
        change(&mut op);
        Op::Conv2d(op).check(&fill(Op::Conv2d(CONV), DType::F32))
    };
    assert_eq!(conv(&|op| op.stride = 0), Err(OpError::Attribute("stride")));
    assert_eq!(conv(&|op| op.in_c = 0), Err(OpError::Attribute("in_c")));
    assert_eq!(conv(&|op| op.up_h = 2), Err(OpError::Attribute("up_h")));
    assert_eq!(
        conv(&|op| op.pad_left = 3),
        Err(OpError::Attribute("pad_left"))
    );
    assert_eq!(conv(&|op| op.out_h = 6), Err(OpError::Attribute("out_h")));
    assert_eq!(
        conv(&|op| op.out_w = u32::MAX),
        Err(OpError::Attribute("out_w"))
    );
    assert_eq!(
        conv(&|op| op.activation = Activation::Geglu),
        Err(OpError::Attribute("activation"))
    );
    assert_eq!(
        conv(&|op| (op.in_h, op.up_h, op.in_w, op.up_w, op.in_c) =
            (1 << 31, 1 << 31, 1 << 31, 1 << 31, 16)),
        Err(OpError::Size("x"))
    );
    let four = [Operand::arena(DType::F32, 0, 64); 4];
    let norm = GroupNorm {
        rows: 4,
        c2: 0,
        eps: 0.0,
        activation: Activation::None,
        ..NORM
    };
    let six = [four[0]; 6];
    assert_eq!(
        Op::GroupNorm(norm).check(&six),
        Err(OpError::Attribute("groups"))
    );
    assert_eq!(
        Op::GroupNorm(GroupNorm {
            groups: 3,
            eps: -1.0,
            ..norm
        })
        .check(&six),
        Err(OpError::Attribute("eps"))
    );
    assert_eq!(
        Op::GroupNorm(GroupNorm {
            c2: u32::MAX,
            ..norm
        })
        .check(&six),
        Err(OpError::Attribute("c2"))
    );
    let apply = |op: GroupNormApply| Op::GroupNormApply(op).check(&four);
    let (groups, activation) = (3, Activation::Gelu);
    assert_eq!(
        apply(GroupNormApply { groups, ..APPLY }),
        Err(OpError::Attribute("groups"))
    );
    assert_eq!(
        apply(GroupNormApply {
            activation,
            ..APPLY
        }),
        Err(OpError::Attribute("activation"))
    );
    for (first, count, name) in [
        (7, 3, "first"),
        (u32::MAX, 2, "first"),
        (10, 1, "first"),
        (0, 0, "count"),
    ] {
        let op = Op::CodesRows(CodesRows {
            first,
            count,
            ..CODES_ROWS
        });
        assert_eq!(op.check(&four[..2]), Err(OpError::Attribute(name)));
    }
    let copy = Op::Copy(Copy {
        d1: 1 << 31,
        d2: 1 << 31,
        s1: u32::MAX,
        s2: u32::MAX,
        ..COPY
    });
    assert_eq!(copy.check(&four[..2]), Err(OpError::Size("x")));
    assert_eq!(
        Op::from_words(7, &[1, f32::NAN.to_bits(), 0]),
        Err(OpError::Attribute("scale"))
    );
    assert_eq!(
        Op::from_words(6, &[1, 9]),
        Err(OpError::Attribute("activation"))
    );
}

#[test]
fn sizes_are_the_documented_ones() {
    let elements = |op: Op, slot| op.requirement(slot).unwrap().unwrap().elements;
    assert_eq!(elements(Op::Conv2d(CONV), "weight"), 2 * 16 * 36);
    assert_eq!(elements(Op::Linear(GEGLU), "weight"), 2 * 2 * 16 * 24);
    assert_eq!(elements(Op::Linear(GEGLU), "bias"), 34);
    assert_eq!(elements(every_op()[2], "stats"), 3 * 8 * 2);
    assert_eq!(elements(integer_ops()[0], "stats"), 3 * 8 * 4);
    assert_eq!(elements(Op::Quantize(QUANTIZE), "ranges"), 2 * 2);
    assert_eq!(elements(integer_ops()[4], "ranges"), 2);
    assert_eq!(elements(every_op()[15], "out"), 2 * 6 * 4);
    assert_eq!(elements(every_op()[16], "x"), 2 * 8 * 2);
    assert_eq!(elements(Op::GroupNormApply(APPLY), "moments"), 8 * 2);
    assert_eq!(elements(Op::CodesRows(CODES_ROWS), "out"), 64 + 3 * 5);
    assert_eq!(elements(every_op()[4], "k"), 6 * 8 + 6);
    assert_eq!(elements(Op::Copy(COPY), "x"), 3 + 1 + 16 + 6 + 1);
    assert_eq!(Op::Linear(GEGLU).requirement("shift"), Ok(None));
    assert_eq!(Op::Linear(GEGLU).macs(), 15 * 24 * 34);
    assert_eq!(Op::Conv2d(CONV).macs(), 15 * 20 * 36);
    assert_eq!(every_op()[4].macs(), 2 * 5 * 7 * 6);
    assert_eq!(every_op()[5].macs(), 0);
}
