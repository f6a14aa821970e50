//! Textual inversions against diffusers, and files that are refused.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::*;
use crate::frontend::tokenizer::from_vocabulary;
use crate::frontend::uniform::uniform;
use crate::graph::Literal;

#[derive(Deserialize)]
struct Fixture {
    table: Vec<usize>,
    files: Vec<File>,
    tokens: Value,
}

#[derive(Deserialize)]
struct File {
    word: String,
    tensors: BTreeMap<String, Vec<usize>>,
    rows: Vec<[f64; 3]>,
}

fn fixture(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures");
    std::fs::read_to_string(folder.join(name)).unwrap()
}

fn tokenizer() -> Vec<u8> {
    let read = |name: &str| fixture(&format!("tiny/tokenizer/{name}"));
    from_vocabulary(&read("vocab.json"), &read("merges.txt")).unwrap()
}

fn file(tensors: &[(&str, &[usize])]) -> Tensors {
    let mut file = Tensors::default();
    for (name, shape) in tensors {
        let values = uniform(name, shape.iter().product());
        let shape = shape.to_vec();
        let weight = Weight::new(Literal { shape, values });
        file.by_name.insert((*name).to_owned(), weight);
    }
    file
}

#[test]
fn extends_the_model_as_diffusers_does() {
    let fixture: Fixture = serde_json::from_str(&fixture("embedding/index.json")).unwrap();
    let mut text_encoder = file(&[(TABLES[0], &fixture.table)]);
    let before = text_encoder.by_name[TABLES[0]].read().into_owned();
    let mut json = tokenizer();
    let mut expected: Vec<&[f64; 3]> = Vec::new();
    for File {
        word,
        tensors,
        rows,
    } in &fixture.files
    {
        let mut read_from = Tensors::default();
        for (name, shape) in tensors {
            let values = uniform(&format!("{word}/{name}"), shape.iter().product());
            let shape = shape.clone();
            let weight = Weight::new(Literal { shape, values });
            read_from.by_name.insert(name.clone(), weight);
        }
        let embedding = read(word, &read_from).unwrap();
        let extended = embedding.add_to(&mut text_encoder, &json).unwrap();
        json = extended.tokenizer;
        expected.extend(rows);
        assert_eq!(extended.rows, fixture.table[0] + expected.len());
    }
    let table = &text_encoder.by_name[TABLES[0]];
    let width = fixture.table[1];
    assert_eq!(table.shape(), [fixture.table[0] + expected.len(), width]);
    let elements = table.read();
    assert_eq!(elements[..before.len()], before);
    for (row, [sum, first, last]) in elements[before.len()..].chunks_exact(width).zip(expected) {
        let found: f64 = row.iter().map(|x| f64::from(*x)).sum();
        assert!((found - sum).abs() < 1e-9, "{found} {sum}");
        assert_eq!([row[0], row[width - 1]], [*first as f32, *last as f32]);
    }
    let json: Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(json["added_tokens"], fixture.tokens);
}

/// Rows that no token has come from padding; diffusers' `resize_token_embeddings` drops them too.
#[test]
fn new_rows_follow_the_tokens() {
    let mut text_encoder = file(&[(TABLES[1], &[640, 4])]);
    let before = text_encoder.by_name[TABLES[1]].read().into_owned();
    let embedding = read("word", &file(&[("emb_params", &[2, 4])])).unwrap();
    let extended = embedding.add_to(&mut text_encoder, &tokenizer()).unwrap();
    assert_eq!(extended.rows, 602);
    let table = &text_encoder.by_name[TABLES[1]];
    assert_eq!(table.shape(), [602, 4]);
    let elements = table.read();
    assert_eq!(elements[..600 * 4], before[..600 * 4]);
    assert_eq!(elements[600 * 4..], uniform("emb_params", 8));
}

#[test]
fn other_files_are_refused() {
    for (tensors, expected) in [
        (&[][..], "its tensors are none"),
        (&[("a", &[4][..]), ("b", &[4][..])], "its tensors are a, b"),
        (
            &[("clip_g", &[2, 1280]), ("clip_l", &[2, 768])],
            "Stable Diffusion XL",
        ),
        (&[("emb_params", &[1, 2, 4])], "emb_params is [1, 2, 4]"),
        (&[("emb_params", &[])], "emb_params is []"),
        (&[("emb_params", &[0, 4])], "emb_params is [0, 4]"),
        (&[("emb_params", &[2000, 1])], "emb_params is [2000, 1]"),
    ] {
        let error = read("word", &file(tensors)).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let mut bad = file(&[]);
    let (shape, values) = (vec![2], vec![0.0, f32::NAN]);
    bad.by_name
        .insert("<x>".into(), Weight::new(Literal { shape, values }));
    let error = read("word", &bad).unwrap_err();
    assert_eq!(error, EmbeddingError::NotFinite("<x>".into()));
    for word in ["", "two words", "tab\t", "\u{0}"] {
        assert!(read(word, &file(&[("emb_params", &[4])])).is_err());
    }
}

#[test]
fn what_does_not_fit_the_model_is_refused_and_nothing_changes() {
    let one = |word: &str, shape: &[usize]| read(word, &file(&[("emb_params", shape)])).unwrap();
    let error = |embedding: &Embedding, text_encoder: &mut Tensors, json: &[u8]| {
        let before = text_encoder.clone();
        let error = embedding.add_to(text_encoder, json).unwrap_err();
        for (name, weight) in &before.by_name {
            assert!(weight.same(&text_encoder.by_name[name]));
        }
        error.to_string()
    };
    let mut encoder = file(&[(TABLES[0], &[600, 768])]);
    let json = tokenizer();
    let found = error(&one("word", &[2, 1024]), &mut encoder, &json);
    assert!(
        found.contains("1024 elements (Stable Diffusion 2)")
            && found.contains("have 768 (Stable Diffusion 1)"),
        "{found}"
    );
    // A word of the vocabulary, and the special tokens.
    for taken in ["a", "a</w>", "<|ENDOFTEXT|>"] {
        let found = error(&one(taken, &[768]), &mut encoder, &json);
        assert!(found.contains("already a token"), "{found}");
    }
    let found = error(&one("word", &[768]), &mut file(&[]), &json);
    assert!(found.contains("has no tensor text_model"), "{found}");
    let mut small = file(&[(TABLES[0], &[599, 768])]);
    let found = error(&one("word", &[768]), &mut small, &json);
    assert!(
        found.contains("600 tokens") && found.contains("599 rows"),
        "{found}"
    );
    for json in [&b"{"[..], b"[]", b"{}", br#"{"model": {"vocab": {}}}"#] {
        assert!(error(&one("word", &[768]), &mut encoder, json).contains("tokenizer.json"));
    }
    // Series that would run into each other.
    let extended = one("style", &[2, 768]).add_to(&mut encoder, &json).unwrap();
    for word in ["Style", "style_1", "style_2", "STYLE_7"] {
        let found = error(&one(word, &[768]), &mut encoder, &extended.tokenizer);
        assert!(found.contains("already a token"), "{word}: {found}");
    }
    let numbered = one("x_1", &[768]);
    let extended = numbered.add_to(&mut encoder, &extended.tokenizer).unwrap();
    let found = error(&one("x", &[768]), &mut encoder, &extended.tokenizer);
    assert!(found.contains("\"x_1\" is already"), "{found}");
}

#[test]
fn arguments_have_a_name_and_a_file() {
    let parse = |text: &str| text.parse::<EmbeddingArgument>();
    let found = parse("<cat>=C:\\a=b.pt").unwrap();
    assert_eq!(
        (found.word.as_str(), found.file.to_str()),
        ("<cat>", Some("C:\\a=b.pt"))
    );
    for wrong in ["cat.pt", "=cat.pt", "cat=", "a b=cat.pt", ""] {
        assert!(parse(wrong).is_err(), "{wrong}");
    }
}
