//! The tokenizer file and the card.

use super::tokenizer::{SpecialTokens, from_vocabulary, special_tokens};
use super::*;
use serde_json::{Value, json};
use std::path::Path;

const VOCAB: &str =
    r#"{"a": 0, "b</w>": 1, "ab</w>": 2, "!": 3, "<|startoftext|>": 4, "<|endoftext|>": 5}"#;

fn built() -> Value {
    serde_json::from_slice(&from_vocabulary(VOCAB, "#version: 0.2\na b</w>\n\n").unwrap()).unwrap()
}

/// What `CLIPTokenizer` of transformers 5.23 serializes, its parts that do not depend on the vocabulary.
#[test]
fn the_tokenizer_is_that_of_transformers() {
    let built = built();
    assert_eq!(built["model"]["merges"], json!([["a", "b</w>"]]));
    assert_eq!(
        built["model"]["vocab"],
        serde_json::from_str::<Value>(VOCAB).unwrap()
    );
    assert_eq!(built["model"]["end_of_word_suffix"], "</w>");
    assert_eq!(
        built["normalizer"]["normalizers"][1]["pattern"]["Regex"],
        "\\s+"
    );
    let words = "<\\|startoftext\\|>|<\\|endoftext\\|>|'s|'t|'re|'ve|'m|'ll|'d|[\\p{L}]+|[\\p{N}]|[^\\s\\p{L}\\p{N}]+";
    assert_eq!(
        built["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"],
        words
    );
    assert_eq!(
        built["post_processor"]["cls"],
        json!(["<|startoftext|>", 4])
    );
    let added = json!({
        "id": 5, "content": "<|endoftext|>", "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": true,
    });
    assert_eq!(built["added_tokens"][1], added);
}

#[test]
fn vocabularies_that_are_none_are_refused() {
    for (vocab, merges, expected) in [
        ("[]", "", "vocab.json: is no JSON object"),
        ("{", "", "vocab.json"),
        (
            r#"{"<|startoftext|>": 0}"#,
            "",
            "has no id for \"<|endoftext|>\"",
        ),
        (
            r#"{"<|startoftext|>": 0, "<|endoftext|>": -1}"#,
            "",
            "has no id for \"<|endoftext|>\"",
        ),
        (VOCAB, "a b</w>\nalone", "merges.txt: line 2 is no pair"),
    ] {
        let error = from_vocabulary(vocab, merges).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn the_padding_is_what_the_map_says() {
    let tokenizer = built().to_string().into_bytes();
    let found = |map: Option<&str>| special_tokens(&tokenizer, map).unwrap();
    assert_eq!(
        found(None),
        SpecialTokens {
            bos: 4,
            eos: 5,
            pad: 5
        }
    );
    assert_eq!(found(Some(r#"{"pad_token": "!"}"#)).pad, 3);
    assert_eq!(found(Some(r#"{"pad_token": {"content": "!"}}"#)).pad, 3);
    assert!(special_tokens(&tokenizer, Some(r#"{"pad_token": "?"}"#)).is_err());
    assert!(special_tokens(b"{}", None).is_err());
}

#[test]
fn a_card_without_an_own_has_the_folders_name() {
    let card = Card {
        own: Card::own("{}").unwrap(),
        folder: "red-apple".into(),
        text: TextSettings {
            max_length: 77,
            bos: 1,
            eos: 2,
            pad: 2,
            dim: 8,
        },
        vae_scaling_factor: 0.5,
        tiny_vae: false,
        taesd_scaling_factor: None,
        latent_channels: 4,
        files: vec![SourceFile {
            path: "unet/model.onnx".into(),
            sha256: "ab".into(),
        }],
    };
    let json: Value = serde_json::from_str(&card.to_json("f32", (64, 32))).unwrap();
    assert_eq!(
        (&json["name"], &json["precision"], &json["license"]),
        (&json!("red-apple"), &json!("f32"), &json!(""))
    );
    assert_eq!(
        json["defaults"],
        json!({"steps": 20, "guidance_scale": 7.5, "sampler": "ddim", "width": 64, "height": 32})
    );
    assert_eq!(
        json["sources"],
        json!([{"path": "unet/model.onnx", "sha256": "ab"}])
    );
    assert!(Card::own("[]").is_err() && Card::own("{").is_err());
    assert!(Card::own(r#"{"f16_gain": 0}"#).is_ok());
    for wrong in ["-1", "\"1\"", "null"] {
        let error = Card::own(&format!(r#"{{"f16_gain": {wrong}}}"#)).unwrap_err();
        assert!(error.to_string().contains("f16_gain"), "{error}");
    }
}

/// The digests are those of FIPS 180-2's examples.
#[test]
fn files_are_noted_with_their_sha256() {
    let mut seen = 0;
    let million = vec![b'a'; 1_000_000];
    assert_eq!(
        sha256(&million[..], &mut |n| seen += n).unwrap(),
        "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"
    );
    assert_eq!(seen, million.len());
    let path = Path::new("models/unet/a.safetensors");
    let file = SourceFile::of(Path::new("models"), path, &b"abc"[..]).unwrap();
    assert_eq!(file.path, "unet/a.safetensors");
    assert_eq!(
        file.sha256,
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    );
}
