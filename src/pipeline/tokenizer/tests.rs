//! CLIP's tokenizer against the library's.

use kiln_compiler::frontend::tokenizer::from_merges;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::clip::Clip;
use super::library::Library;

fn clip_json() -> Value {
    let json = from_merges(include_str!("../../../models/clip/merges.txt")).expect("a tokenizer");
    serde_json::from_slice(&json).expect("JSON")
}

/// With learnt words, tokens in no form but their own, and one that is in the vocabulary.
fn extended() -> Value {
    let mut json = clip_json();
    let tokens = [
        ("<cat-toy>", true, false),
        ("<cat-toy>_1", true, false),
        ("<cat", true, false),
        ("Éclair", true, false),
        ("new york", true, false),
        ("Exact", false, false),
        ("tree", false, true),
    ];
    for (content, normalized, special) in tokens {
        json["added_tokens"].as_array_mut().expect("a list").push(json!({
            "id": 0, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": normalized,
            "special": special,
        }));
    }
    json
}

/// As older versions of transformers write it.
fn old() -> Value {
    let mut json = clip_json();
    json["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] =
        r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+".into();
    json["pre_tokenizer"]["pretokenizers"][1] =
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true});
    for merge in json["model"]["merges"].as_array_mut().expect("a list") {
        let text = |part: &Value| part.as_str().expect("text").to_owned();
        *merge = format!("{} {}", text(&merge[0]), text(&merge[1])).into();
    }
    for token in json["added_tokens"].as_array_mut().expect("a list") {
        token["normalized"] = true.into();
    }
    json
}

fn both(json: &Value) -> (Clip, Library) {
    let json = json.to_string().into_bytes();
    let clip = Clip::read(&json).expect("a tokenizer");
    (
        clip.expect("CLIP's form"),
        Library::read(&json).expect("a tokenizer"),
    )
}

fn fragment() -> impl Strategy<Value = String> {
    let known = [
        "<|startoftext|>",
        "<|ENDOFTEXT|>",
        "<|endoftext|>",
        "<Cat-Toy>",
        "<cat-toy>_1",
        "<cat",
        "e\u{301}clair",
        "NEW \u{a0}york",
        "Exact",
        "exact",
        "tree",
        "it's they'Re we'll I'm 'd!'s",
        "photograph, highly-detailed (4k)",
        "\u{130}\u{130}",
        "STRASSE \u{3a3}\u{3c2}",
        "\u{1112}\u{1161}\u{11ab}",
        "\u{958}\u{344}\u{fb1d}",
        "a\u{316}\u{301}\u{327}",
        "\u{1f1e9}\u{1f1ea}\u{1f469}\u{200d}\u{1f680}",
        "\u{2460}\u{2167}\u{bd}12",
        "\r\n\t \u{3000}",
    ];
    prop_oneof![
        3 => prop::sample::select(known.to_vec()).prop_map(str::to_owned),
        2 => "[a-zA-Z]{1,12}",
        1 => "[ -~]{1,6}",
        1 => "[\u{80}-\u{24f}\u{300}-\u{345}]{1,4}",
        1 => "\\PC{1,3}",
        1 => Just(" ".to_owned()),
    ]
}

#[test]
fn finds_what_the_library_finds() {
    let texts = prop::collection::vec(fragment(), 0..8).prop_map(|parts| parts.concat());
    for json in [clip_json(), extended(), old()] {
        let (clip, library) = both(&json);
        let sorted = |mut learnt: Vec<(String, u32)>| {
            learnt.sort();
            learnt
        };
        assert_eq!(sorted(clip.learnt()), sorted(library.learnt()));
        for token in [",</w>", "tree", "<cat-toy>_1", "none such"] {
            assert_eq!(clip.id(token), library.id(token), "{token}");
        }
        for id in [0, 320, 49406, 49407, 49408, 49411, 60000] {
            assert_eq!(clip.token(id), library.token(id), "{id}");
        }
        let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
            failure_persistence: None,
            ..ProptestConfig::with_cases(2000)
        });
        let compared = runner.run(&texts, |text| {
            prop_assert_eq!(clip.encode(&text), library.encode(&text).expect("tokens"));
            Ok(())
        });
        compared.unwrap_or_else(|e| panic!("{e}"));
    }
}

/// Every character that there is, and more than enough of those that there are not, between two letters.
#[test]
fn knows_every_characters_kind() {
    let (clip, library) = both(&clip_json());
    let all: Vec<char> = ('\0'..='\u{40000}')
        .chain('\u{e0000}'..='\u{f0000}')
        .collect();
    let mut differ: Vec<char> = Vec::new();
    for some in all.chunks(512) {
        let text = |chars: &[char]| -> String { chars.iter().map(|c| format!("a{c}b ")).collect() };
        let same = |text: &str| clip.encode(text) == library.encode(text).expect("tokens");
        if !same(&text(some)) {
            differ.extend(some.iter().filter(|c| !same(&text(&[**c]))));
        }
    }
    let first = differ.first();
    assert!(first.is_none(), "{first:?} and {} others", differ.len());
}

#[test]
fn leaves_other_forms_to_the_library() {
    let changed = |path: &str, value: Value| {
        let mut json = clip_json();
        *json.pointer_mut(path).expect("a place") = value;
        Clip::read(json.to_string().as_bytes())
            .expect("JSON")
            .is_none()
    };
    assert!(changed("/normalizer/normalizers/2", json!({"type": "NFD"})));
    assert!(changed(
        "/pre_tokenizer/pretokenizers/1/use_regex",
        json!(false)
    ));
    assert!(changed(
        "/pre_tokenizer/pretokenizers/0/pattern",
        json!({"Regex": r"\w+"})
    ));
    assert!(changed("/added_tokens/0/lstrip", json!(true)));
    assert!(changed("/model/type", json!("WordPiece")));
    assert!(changed("/model/end_of_word_suffix", json!("")));
    assert!(changed("/model/byte_fallback", json!(true)));
    assert!(changed("/model", json!({"type": "Unigram", "vocab": []})));
}

#[test]
fn a_damaged_file_says_so() {
    let error = |json: &[u8]| Clip::read(json).err().expect("an error").to_string();
    assert!(error(b"{").contains("EOF"), "{}", error(b"{"));
    let mut json = clip_json();
    json["model"]["merges"] = json!([["a", "no such token"]]);
    assert_eq!(
        error(json.to_string().as_bytes()),
        r#""ano such token" is not in the vocabulary"#
    );
    let mut json = clip_json();
    json["model"]["unk_token"] = json!("<unk>");
    assert_eq!(
        error(json.to_string().as_bytes()),
        r#""<unk>" is not in the vocabulary"#
    );
}
