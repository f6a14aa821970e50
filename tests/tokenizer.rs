//! The tokenizer gives the ids that transformers' `CLIPTokenizer` gives.

#[allow(dead_code)]
mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use kiln::pipeline::{TextCard, Tokenizer};
use kiln_compiler::frontend::tensors::Tensors;
use kiln_compiler::frontend::{embedding, source, tokenizer};
use kiln_compiler::graph::{Literal, Weight};
use serde::Deserialize;

#[derive(Deserialize)]
struct Example {
    text: String,
    ids: Vec<i32>,
}

const TEXT: TextCard = TextCard {
    max_length: 77,
    bos: 5197,
    eos: 5198,
    pad: 5198,
};

fn emoji(text: TextCard) -> Tokenizer {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/emoji/tokenizer");
    let read = |name: &str| fs::read_to_string(folder.join(name)).expect("a file of the model");
    let json =
        tokenizer::from_vocabulary(&read("vocab.json"), &read("merges.txt")).expect("a tokenizer");
    Tokenizer::from_json(&json, text).expect("a tokenizer")
}

#[test]
fn agrees_with_transformers() {
    let examples: Vec<Example> = common::json("tokenizer/strings.json");
    assert!(examples.len() >= 200);
    let tokenizer = emoji(TEXT);
    for Example { text, ids } in examples {
        let tokens = tokenizer.encode(&text).expect("ids");
        assert_eq!(tokens.ids, ids, "{text:?}");
        // What is left out, and only that, is said.
        let full = !ids[1..76].contains(&TEXT.eos) || text.contains("<|endoftext|>");
        assert!(tokens.cut.is_empty() || full, "{text:?}: {:?}", tokens.cut);
    }
}

/// The vocabulary that comes with Kiln, against transformers' tokenizer of the same files.
#[test]
fn clips_own_agrees_with_transformers() {
    let examples: Vec<Example> = common::json("tokenizer/clip.json");
    assert_eq!(examples.len(), 50);
    let (json, special) = source::clip_tokenizer().expect("a tokenizer");
    let tokenizer = Tokenizer::from_json(
        &json,
        TextCard {
            max_length: 77,
            bos: special.bos as i32,
            eos: special.eos as i32,
            pad: special.pad as i32,
        },
    )
    .expect("a tokenizer");
    for Example { text, ids } in examples {
        let found = tokenizer.encode(&text).expect("ids").ids;
        assert_eq!(found[..ids.len()], ids, "{text:?}");
        assert!(found[ids.len()..].iter().all(|id| *id == 49407), "{text:?}");
    }
}

#[test]
fn says_which_words_were_cut_off() {
    let tokenizer = emoji(TEXT);
    let cut = |prompt: &str| tokenizer.encode(prompt).expect("ids").cut;
    assert_eq!(cut(&"apple ".repeat(75)), [""; 0]);
    assert_eq!(
        cut(&format!("{}blue background", "apple ".repeat(75))),
        ["blue", "background"]
    );
    assert_eq!(
        cut(&format!("{}Crème  BRÛLÉE 🍎", "apple ".repeat(75))),
        ["Crème", "BRÛLÉE", "🍎"]
    );
    // An end of a word, where the word itself is too long.
    let long = "🍎".repeat(100);
    let rest = cut(&long);
    assert_eq!(rest.len(), 1);
    assert!(long.ends_with(&rest[0]) && rest[0].len() < long.len());
}

#[test]
fn pads_with_the_cards_token_to_the_cards_length() {
    let tokenizer = emoji(TextCard {
        max_length: 6,
        pad: 0,
        ..TEXT
    });
    assert_eq!(
        tokenizer.encode("panda").expect("ids").ids,
        [5197, 4610, 5198, 0, 0, 0]
    );
    let long = tokenizer
        .encode("panda panda panda panda panda")
        .expect("ids");
    assert_eq!(long.ids, [5197, 4610, 4610, 4610, 4610, 5198]);
    assert_eq!(long.cut, ["panda"]);
    assert_eq!(
        emoji(TextCard {
            max_length: 2,
            ..TEXT
        })
        .encode("panda")
        .expect("ids")
        .ids,
        [5197, 5198]
    );
}

#[test]
fn refuses_what_is_no_tokenizer() {
    for json in [
        "",
        "{}",
        "[1, 2]",
        r#"{"version": "1.0", "model": {"type": "Other"}}"#,
    ] {
        let error = Tokenizer::from_json(json.as_bytes(), TEXT)
            .err()
            .expect("an error")
            .to_string();
        assert!(
            error.starts_with("tokenizer: ") && error.lines().count() == 1,
            "{json}: {error}"
        );
    }
}

/// Words of textual inversions become the tokens of all of their vectors, wherever they stand, as in diffusers.
#[test]
fn expands_words_of_several_vectors() {
    #[derive(Deserialize)]
    struct Fixture {
        table: Vec<usize>,
        files: Vec<File>,
        prompts: Vec<Example>,
    }
    #[derive(Deserialize)]
    struct File {
        word: String,
        tensors: BTreeMap<String, Vec<usize>>,
    }
    let zeros = |shapes: BTreeMap<String, Vec<usize>>| {
        let mut tensors = Tensors::default();
        for (name, shape) in shapes {
            let values = vec![0.0; shape.iter().product()];
            let weight = Weight::new(Literal { shape, values });
            tensors.by_name.insert(name, weight);
        }
        tensors
    };
    let fixture: Fixture = common::json("embedding/index.json");
    let read = |name: &str| {
        let path = common::fixture(&format!("tiny/tokenizer/{name}"));
        fs::read_to_string(path).expect("a file of the fixture")
    };
    let mut json =
        tokenizer::from_vocabulary(&read("vocab.json"), &read("merges.txt")).expect("a tokenizer");
    let table = "text_model.embeddings.token_embedding.weight".to_owned();
    let mut text_encoder = zeros(BTreeMap::from([(table, fixture.table)]));
    for File { word, tensors } in fixture.files {
        let embedding = embedding::read(&word, &zeros(tensors)).expect("an embedding");
        let extended = embedding.add_to(&mut text_encoder, &json);
        json = extended.expect("a word").tokenizer;
    }
    let text = TextCard {
        max_length: 24,
        bos: 598,
        eos: 599,
        pad: 599,
    };
    let tokenizer = Tokenizer::from_json(&json, text).expect("a tokenizer");
    assert!(fixture.prompts.len() >= 8);
    for Example { text, mut ids } in fixture.prompts {
        ids.resize(24, 599);
        let tokens = tokenizer.encode(&text).expect("ids");
        assert_eq!(tokens.ids, ids, "{text:?}");
        assert_eq!(tokens.cut, [""; 0]);
    }
    // Upper and lower case mean the same, also for words of several vectors.
    let ids = |text: &str| tokenizer.encode(text).expect("ids").ids;
    assert_eq!(ids("EasyNegative, zQ"), ids("easynegative, Zq"));
    // A word that finds no room for all of its vectors is cut off in the middle, and said to be.
    let text = TextCard {
        max_length: 4,
        ..text
    };
    let tokens = Tokenizer::from_json(&json, text)
        .and_then(|tokenizer| tokenizer.encode("EasyNegative a"))
        .expect("ids");
    assert_eq!(tokens.ids, [598, 601, 602, 599]);
    assert_eq!(tokens.cut, ["EasyNegative", "a"]);
}
