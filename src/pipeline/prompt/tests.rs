//! The language against what the WebUI says of itself: the examples in the doc comments of its `modules/prompt_parser.py`,
//! and more that its grammar, given to lark, was asked.

use super::attention::{self, Part};
use super::schedule::Scheduled;
use super::*;
use crate::pipeline::TextCard;

fn schedule(prompt: &str, steps: usize) -> Vec<(usize, String)> {
    let scheduled = Scheduled::parse(prompt);
    let text = |end| (end, scheduled.at(end, steps));
    scheduled.ends(steps).into_iter().map(text).collect()
}

#[track_caller]
fn says(prompt: &str, expected: &[(usize, &str)]) {
    let found = schedule(prompt, 10);
    let found: Vec<_> = found
        .iter()
        .map(|(end, text)| (*end, text.as_str()))
        .collect();
    assert_eq!(found, expected, "{prompt}");
}

/// Texts that take turns for ten steps.
#[track_caller]
fn takes_turns(prompt: &str, texts: &[&str]) {
    let turns = (1..=10).map(|step| (step, texts[(step - 1) % texts.len()]));
    says(prompt, &turns.collect::<Vec<_>>());
}

#[test]
fn schedules_as_the_webui_documents_them() {
    says("test", &[(10, "test")]);
    says("a [b:3]", &[(3, "a "), (10, "a b")]);
    says("a [b: 3]", &[(3, "a "), (10, "a b")]);
    says("a [[[b]]:2]", &[(2, "a "), (10, "a [[b]]")]);
    says("[(a:2):3]", &[(3, ""), (10, "(a:2)")]);
    says("a [b : c : 1] d", &[(1, "a b  d"), (10, "a  c  d")]);
    says("a[b:[c:d:2]:1]e", &[(1, "abe"), (2, "ace"), (10, "ade")]);
    says("a [unbalanced", &[(10, "a [unbalanced")]);
    says("a [b:.5] c", &[(5, "a  c"), (10, "a b c")]);
    says("((a][:b:c [d:3]", &[(3, "((a][:b:c "), (10, "((a][:b:c d")]);
    takes_turns("[a|(b:1.1)]", &["a", "(b:1.1)"]);
    takes_turns("[fe|]male", &["female", "male"]);
    takes_turns("[fe|||]male", &["female", "male", "male", "male"]);
    let landscape = "fantasy landscape with a [mountain:lake:0.25] and [an oak:a christmas tree:0.75][ in foreground::0.6]\
                     [: in background:0.25] [shoddy:masterful:0.5]";
    let expected = [
        (
            25,
            "fantasy landscape with a mountain and an oak in foreground shoddy",
        ),
        (
            50,
            "fantasy landscape with a lake and an oak in foreground in background shoddy",
        ),
        (
            60,
            "fantasy landscape with a lake and an oak in foreground in background masterful",
        ),
        (
            75,
            "fantasy landscape with a lake and an oak in background masterful",
        ),
        (
            100,
            "fantasy landscape with a lake and a christmas tree in background masterful",
        ),
    ];
    assert_eq!(
        schedule(landscape, 100),
        expected.map(|(end, text)| (end, text.to_owned()))
    );
}

/// What lark 1.3 makes of the same grammar.
#[test]
fn schedules_as_the_webuis_grammar_has_them() {
    for literal in [
        "[a:b]",
        "(a|b) [c:3]",
        "[a|b:3]",
        "a [{b|d{:.5] c",
        "\\[b:3]",
        "[b:3\\]",
        "a\\",
        "[a:b:c:3]",
        "[]",
        "[(:)]",
        "[:]",
        "[3]",
        "x | [b:3]",
        "[b:3]\\\n",
    ] {
        says(literal, &[(10, literal)]);
    }
    says("[:3]", &[(3, ""), (10, "")]);
    says("[ : 3]", &[(3, ""), (10, " ")]);
    says("[a:3:4]", &[(4, "a"), (10, "3")]);
    says("x[b::3]y", &[(3, "xby"), (10, "xy")]);
    says("[a:(b:c):3]", &[(3, "a"), (10, "(b:c)")]);
    says("[a:b:1e-1]", &[(10, "b")]);
    says("[b:3.]", &[(10, "")]);
    says("[b:-2]", &[(10, "b")]);
    says("[a:12]", &[(10, "")]);
    says("[3:3]", &[(3, ""), (10, "3")]);
    says("[a[:3]", &[(3, "[a"), (10, "[a")]);
    says("[a:[b:2]:3]", &[(2, "a"), (3, "a"), (10, "b")]);
    says("[a [b:2]]", &[(2, "[a ]"), (10, "[a b]")]);
    says("[a:b: +3 ]", &[(3, "a"), (10, "b")]);
    says("(a:b:c)[d:2]", &[(2, "(a:b:c)"), (10, "(a:b:c)d")]);
    takes_turns("[|a]", &["", "a"]);
    let nested: Vec<String> = schedule("[[b:2]|c]", 10)
        .into_iter()
        .map(|(_, text)| text)
        .collect();
    assert_eq!(nested, ["", "c", "b", "c", "b", "c", "b", "c", "b", "c"]);
}

#[track_caller]
fn weighs(text: &str, expected: &[(&str, f64)]) {
    let found = attention::webui(text).expect("parts");
    let expected: Vec<Part> = expected
        .iter()
        .map(|(text, weight)| Part {
            text: (*text).to_owned(),
            weight: *weight,
        })
        .collect();
    assert_eq!(found, expected, "{text}");
}

#[test]
fn emphasis_as_the_webui_documents_it() {
    weighs("normal text", &[("normal text", 1.0)]);
    weighs(
        "an (important) word",
        &[("an ", 1.0), ("important", 1.1), (" word", 1.0)],
    );
    weighs("(unbalanced", &[("unbalanced", 1.1)]);
    weighs("\\(literal\\]", &[("(literal]", 1.0)]);
    weighs("(unnecessary)(parens)", &[("unnecessaryparens", 1.1)]);
    weighs(
        "a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).",
        &[
            ("a ", 1.0),
            ("house", 1.5730000000000004),
            (" ", 1.1),
            ("on", 1.0),
            (" a ", 1.1),
            ("hill", 0.55),
            (", sun, ", 1.1),
            ("sky", 1.4641000000000006),
            (".", 1.1),
        ],
    );
}

/// What the same code, run by Python, makes of the rest.
#[test]
fn emphasis_at_the_edges() {
    weighs("", &[("", 1.0)]);
    weighs("a) b] c", &[("a) b] c", 1.0)]);
    weighs("a:1.2) b", &[("a:1.2) b", 1.0)]);
    weighs("(a : +.5 ) b", &[("a ", 0.5), (" b", 1.0)]);
    weighs("(a:b)", &[("a:b", 1.1)]);
    weighs("\\\\(a)\\x\\", &[("\\", 1.0), ("a", 1.1), ("x", 1.0)]);
    weighs("[[a]", &[("a", 1.0 / 1.1 * (1.0 / 1.1))]);
    weighs(
        "a BREAK  b BREAKS (c BREAK d)",
        &[
            ("a", 1.0),
            ("BREAK", -1.0),
            ("b BREAKS ", 1.0),
            ("c", 1.1),
            ("BREAK", -1.1),
            ("d", 1.1),
        ],
    );
    weighs(
        "BREAK BREAK",
        &[
            ("", 1.0),
            ("BREAK", -1.0),
            ("", 1.0),
            ("BREAK", -1.0),
            ("", 1.0),
        ],
    );
    let refused = |text: &str| attention::webui(text).expect_err("an error");
    assert_eq!(refused("(a:1.2.3)"), PromptError::Weight("1.2.3".into()));
    let digits = "9".repeat(50);
    assert!(matches!(
        refused(&format!("(a:{digits})")),
        PromptError::Weight(_)
    ));
}

#[test]
fn comfys_emphasis() {
    let weighs = |text: &str, expected: &[(&str, f64)]| {
        let found = attention::comfy(text).expect("parts");
        let found: Vec<_> = found
            .iter()
            .map(|part| (part.text.as_str(), part.weight))
            .collect();
        assert_eq!(found, expected, "{text}");
    };
    weighs("", &[]);
    weighs("a [b] c", &[("a [b] c", 1.0)]);
    weighs("a (b) c", &[("a ", 1.0), ("b", 1.1), (" c", 1.0)]);
    // A number replaces what is around it.
    weighs("((a:1.5) b:0.5)", &[("a", 1.5), (" b", 0.5)]);
    weighs("((a))", &[("a", 1.1 * 1.1)]);
    weighs("\\(a\\) (b \\(c\\))", &[("(a) ", 1.0), ("b (c)", 1.1)]);
    weighs("(a:b)", &[("a:b", 1.1)]);
    weighs("(:2)", &[(":2", 1.1)]);
    weighs("((a)", &[("(a", 1.1)]);
    weighs("a ) b (c)", &[("a ) b (c)", 1.0)]);
    assert!(attention::comfy("(a:inf)").is_err());
    assert!(attention::comfy(&format!("{}a{}", "(".repeat(9000), ")".repeat(9000))).is_err());
}

#[test]
fn refuses_what_is_not_drawn() {
    let refused =
        |prompt: &str| Prompt::parse(prompt, PromptStyle::Webui, 20).expect_err("an error");
    let lora = refused("a cat <lora:detail:0.8>");
    assert!(
        lora.to_string()
            .contains("kiln compile --lora detail.safetensors"),
        "{lora}"
    );
    assert_eq!(refused("a cat AND a dog"), PromptError::And);
    assert_eq!(
        refused(&"a".repeat(MAX_BYTES + 1)),
        PromptError::Bytes(MAX_BYTES + 1)
    );
    assert!(Prompt::parse("BRAND, AND_ <lora", PromptStyle::Webui, 20).is_ok());
    assert!(Prompt::parse("<lora:x:1> AND", PromptStyle::Plain, 20).is_ok());
    let many: Vec<String> = (0..=MAX_TEXTS).map(|n| n.to_string()).collect();
    let many = format!("[{}]", many.join("|"));
    assert!(Prompt::parse(&many, PromptStyle::Webui, MAX_TEXTS).is_ok());
    let error = Prompt::parse(&many, PromptStyle::Webui, 1000).expect_err("too many");
    assert_eq!(error, PromptError::Texts);
}

/// Brackets that nest as deep as a prompt can be long.
#[test]
fn deep_nesting_is_no_danger() {
    for (open, close) in [
        ("(", ")"),
        ("[", "]"),
        ("[", ":1]"),
        ("[a|", "]"),
        ("[", ""),
        ("[(", ":"),
    ] {
        let n = MAX_BYTES / (open.len() + close.len());
        let prompt = open.repeat(n) + &close.repeat(n);
        for style in PromptStyle::ALL {
            let _ = Prompt::parse(&prompt, style, 4);
        }
    }
}

#[test]
fn a_text_is_said_at_its_evaluations() {
    let prompt = Prompt::parse("a [b:c:2]", PromptStyle::Webui, 4).expect("a prompt");
    assert_eq!(prompt.texts().collect::<Vec<_>>(), ["a b", "a c"]);
    assert_eq!(
        [0, 1, 2, 3].map(|evaluation| prompt.text_at(evaluation)),
        [0, 0, 0, 1]
    );
}

/// Words are `a` to `f` and the comma; everything else is unknown.
fn tokenizer(max_length: usize) -> Tokenizer {
    let json = serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": { "type": "Whitespace" }, "post_processor": null, "decoder": null,
        "model": {
            "type": "WordLevel", "unk_token": "?",
            "vocab": { "?": 0, "<": 1, ">": 2, "a": 3, "b": 4, "c": 5, "d": 6, "e": 7, "f": 8, ",": 9 },
        },
    });
    let card = TextCard {
        max_length,
        bos: 1,
        eos: 2,
        pad: 0,
    };
    Tokenizer::from_json(json.to_string().as_bytes(), card).expect("a tokenizer")
}

fn chunks(
    prompt: &str,
    style: PromptStyle,
    max_length: usize,
    most: usize,
) -> (Vec<String>, String) {
    let tokenizer = tokenizer(max_length);
    let prompt = Prompt::parse(prompt, style, 20).expect("a prompt");
    let chunks = prompt.chunks(&tokenizer, most).expect("chunks").remove(0);
    let letters = |chunk: &Chunk| {
        assert_eq!(chunk.ids.len(), max_length);
        assert_eq!(chunk.weights.len(), max_length);
        let of = |id: &i32| char::from(b"?<>abcdef,"[*id as usize]);
        chunk.ids.iter().map(of).collect::<String>()
    };
    (
        chunks.chunks.iter().map(letters).collect(),
        chunks.cut.join(" "),
    )
}

#[test]
fn long_texts_continue_in_the_next_chunk() {
    let webui = |prompt: &str, most| chunks(prompt, PromptStyle::Webui, 6, most);
    let owned = |chunks: &[&str], cut: &str| {
        (
            chunks.iter().map(|c| (*c).to_owned()).collect::<Vec<_>>(),
            cut.to_owned(),
        )
    };
    assert_eq!(webui("", 3), owned(&["<>????"], ""));
    assert_eq!(webui("a b c d", 3), owned(&["<abcd>"], ""));
    assert_eq!(webui("a b c d e", 3), owned(&["<abcd>", "<e>???"], ""));
    // From the last comma on.
    assert_eq!(webui("a , b c d", 3), owned(&["<a,>??", "<bcd>?"], ""));
    assert_eq!(webui("a b c , d", 3), owned(&["<abc,>", "<d>???"], ""));
    assert_eq!(webui("a b c d , e", 3), owned(&["<abcd>", "<,e>??"], ""));
    // Not in the last chunk, where it would cost what there is room for.
    assert_eq!(webui("a , b c d", 1), owned(&["<a,bc>"], "d"));
    assert_eq!(webui("a BREAK b", 3), owned(&["<a>???", "<b>???"], ""));
    assert_eq!(webui("a BREAK b c", 1), owned(&["<a>???"], "b c"));
    assert_eq!(
        webui("a BREAK BREAK b", 3),
        owned(&["<a>???", "<>????", "<b>???"], "")
    );

    let comfy = |prompt: &str, most| chunks(prompt, PromptStyle::Comfy, 6, most);
    // A group of one weight is kept together.
    assert_eq!(comfy("a b (c d e)", 3), owned(&["<ab>??", "<cde>?"], ""));
    assert_eq!(
        comfy("a b (c d e a b c d e)", 3),
        owned(&["<abcd>", "<eabc>", "<de>??"], "")
    );
    assert_eq!(comfy("a b (c d e)", 1), owned(&["<abcd>"], "e"));
    assert_eq!(
        chunks("a b c d e", PromptStyle::Plain, 6, 3),
        owned(&["<abcd>"], "e")
    );
}

/// `f` is a word of three vectors.
#[test]
fn a_learnt_word_stays_whole() {
    let word = |(word, id): (&&str, i32)| {
        serde_json::json!({
            "id": id, "content": word, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
            "special": false,
        })
    };
    let words: Vec<_> = ["f", "f_1", "f_2"].iter().zip(4..).map(word).collect();
    let json = serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "added_tokens": words,
        "pre_tokenizer": { "type": "Whitespace" }, "post_processor": null, "decoder": null,
        "model": { "type": "WordLevel", "unk_token": "?", "vocab": { "?": 0, "<": 1, ">": 2, "a": 3 } },
    });
    let card = TextCard {
        max_length: 6,
        ..tokenizer(6).text()
    };
    let tokenizer = Tokenizer::from_json(json.to_string().as_bytes(), card).expect("a tokenizer");
    let ids = |prompt: &str, most: usize| -> Vec<Vec<i32>> {
        let prompt = Prompt::parse(prompt, PromptStyle::Webui, 20).expect("a prompt");
        let chunks = prompt.chunks(&tokenizer, most).expect("chunks").remove(0);
        chunks.chunks.into_iter().map(|chunk| chunk.ids).collect()
    };
    assert_eq!(ids("a f", 2), [[1, 3, 4, 5, 6, 2]]);
    assert_eq!(ids("a a f", 2), [[1, 3, 3, 2, 0, 0], [1, 4, 5, 6, 2, 0]]);
    assert_eq!(ids("a a f", 1), [[1, 3, 3, 4, 5, 2]]);
}

#[test]
fn weights_stand_beside_their_tokens() {
    let prompt = Prompt::parse("a (b:1.5) [c]", PromptStyle::Webui, 20).expect("a prompt");
    let chunk = prompt
        .chunks(&tokenizer(7), 1)
        .expect("chunks")
        .remove(0)
        .chunks
        .remove(0);
    assert_eq!(
        chunk.weights,
        [1.0, 1.0, 1.5, (1.0_f64 / 1.1) as f32, 1.0, 1.0, 1.0]
    );
    assert_eq!(chunk.len, 3);
}

#[test]
fn weights_change_the_answers_as_in_webui_and_comfy() {
    let chunk = |ids: [i32; 2], weights: [f32; 2]| Chunk {
        ids: ids.to_vec(),
        weights: weights.to_vec(),
        len: 0,
    };
    let answers = Answers {
        index: [(vec![1, 2], 0), (vec![3, 4], 1)].into(),
        values: vec![1.0, 2.0, 3.0, 6.0, 0.5, 0.5, 1.0, 1.0],
        len: 4,
    };
    let (weighted, empty) = (chunk([1, 2], [1.0, 2.0]), chunk([3, 4], [1.0, 1.0]));
    let mut out = [0.0; 4];
    weigh(
        PromptStyle::Webui,
        &answers,
        &[(&weighted, 1)],
        &empty,
        &mut [&mut out],
    );
    // The mean was 3 and became 5.25.
    let restored = (3.0_f64 / 5.25) as f32;
    assert_eq!(out, [1.0, 2.0, 6.0, 12.0].map(|x: f32| x * restored));
    weigh(
        PromptStyle::Comfy,
        &answers,
        &[(&weighted, 1)],
        &empty,
        &mut [&mut out],
    );
    assert_eq!(out, [1.0, 2.0, 5.0, 11.0]);

    // Two texts of one prompt share a mean, here (3 + 2 * 0.75) / 3 and (5.25 + 2 * 0.75) / 3.
    let mut other = [0.0; 4];
    let texts = [(&weighted, 1), (&empty, 2)];
    weigh(
        PromptStyle::Webui,
        &answers,
        &texts,
        &empty,
        &mut [&mut out, &mut other],
    );
    let restored = (1.5_f64 / 2.25) as f32;
    assert_eq!(other, [0.5, 0.5, 1.0, 1.0].map(|x: f32| x * restored));
}
