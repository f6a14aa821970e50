use std::io::Cursor;

use super::*;
use crate::pipeline::samplers::{SamplerKind, ScheduleKind, Spacing};
use crate::pipeline::{Hires, PromptStyle, Rng, Upscaler};

fn settings() -> Settings {
    Settings {
        prompt: "a cat, (red:1.2)\n[b:c:3]".into(),
        negative: "blå 🍎, \"x\"".into(),
        prompt_style: PromptStyle::Webui,
        steps: 20,
        seed: 7,
        width: 64,
        height: 96,
        guidance_scale: 7.5,
        sampler: SamplerKind::EulerAncestral,
        schedule: None,
        spacing: None,
        eta: None,
        guidance_rescale: 0.0,
        guidance_from: None,
        guidance_until: None,
        rng: Rng::Torch,
        subseed: None,
        eta_seed_delta: 0,
        clip_skip: 1,
        init: None,
        hires: None,
        decoder: Decoder::Vae,
        tile: None,
    }
}

fn model() -> ModelName {
    ModelName {
        name: "toy: a, b".into(),
        hash: Some("0123456789".into()),
    }
}

const TEXT: &str = concat!(
    "a cat, (red:1.2)\n[b:c:3]\nNegative prompt: blå 🍎, \"x\"\nSteps: 20, Sampler: Euler a, CFG scale: 7.5, Seed: 7, ",
    "Size: 64x96, Model hash: 0123456789, Model: \"toy: a, b\", RNG: CPU, Version: kiln ",
    env!("CARGO_PKG_VERSION")
);

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

#[test]
fn settings_are_written_as_the_webui_writes_them() {
    assert_eq!(settings().parameters(&model()), TEXT);
    let bare = Settings {
        negative: String::new(),
        prompt_style: PromptStyle::Comfy,
        ..settings()
    };
    let text = bare.parameters(&model());
    assert!(
        !text.contains("Negative prompt") && text.contains(", Prompt style: comfy, "),
        "{text}"
    );
}

/// Everything that can be chosen is written, and read again under the names of the options.
#[test]
fn all_settings_come_back() {
    let all = Settings {
        schedule: Some(ScheduleKind::Karras),
        spacing: Some(Spacing::Trailing),
        eta: Some(0.5),
        guidance_rescale: 0.7,
        guidance_from: Some(10.0),
        guidance_until: Some(0.5),
        rng: Rng::Philox,
        subseed: Some((3, 0.25)),
        eta_seed_delta: 31337,
        clip_skip: 2,
        prompt_style: PromptStyle::Comfy,
        hires: Some(Hires {
            steps: Some(9),
            upscaler: Upscaler::Latent,
            ..Hires::new(1.5)
        }),
        decoder: Decoder::Taesd,
        tile: Some(136),
        ..settings()
    };
    let text = all.parameters(&model());
    let read = Remembered::read(Cursor::new(png_with("parameters", &text))).expect("settings");
    let said = |name: &str| {
        let found = read.options.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.clone()).unwrap_or_default()
    };
    for (name, value) in all.chosen() {
        assert_eq!(said(name), value, "{name}");
    }
    let others = ["clip-skip", "prompt-style", "seed", "rng"].map(said);
    assert_eq!(others, ["2", "comfy", "7", "philox"]);
    // As in the WebUI.
    assert!(text.contains(", VAE Decoder: TAESD, "), "{text}");
    assert_eq!([said("decoder"), said("tile")], ["taesd", "136"]);
}

/// A picture says the same whatever its format, and gives its settings back.
#[test]
fn every_format_remembers() {
    let pixels: Vec<u8> = (0..64 * 96 * 3).map(|i| (i % 251) as u8).collect();
    for format in [PictureFormat::Png, PictureFormat::Jpeg, PictureFormat::WebP] {
        let mut file = Vec::new();
        format
            .encode((64, 96), &pixels, TEXT, &mut file)
            .expect("memory");
        let found = Remembered::read(Cursor::new(&file)).expect("a text");
        assert_eq!(
            (found.width, found.height, found.tool),
            (64, 96, "WebUI"),
            "{format:?}"
        );
        assert_eq!(found.text, TEXT, "{format:?}");
        let options = [
            ("prompt", "a cat, (red:1.2)\n[b:c:3]"),
            ("negative", "blå 🍎, \"x\""),
            ("steps", "20"),
            ("sampler", "euler-a"),
            ("guidance-scale", "7.5"),
            ("seed", "7"),
            ("size", "64x96"),
            ("rng", "torch"),
        ];
        assert_eq!(found.options, pairs(&options), "{format:?}");
        let version = concat!("kiln ", env!("CARGO_PKG_VERSION"));
        let others = [
            ("Model hash", "0123456789"),
            ("Model", "toy: a, b"),
            ("Version", version),
        ];
        assert_eq!(found.others, pairs(&others), "{format:?}");
        // Cut off anywhere it is an error or the same, never a panic.
        for end in 0..file.len().min(400) {
            let _ = Remembered::read(Cursor::new(&file[..end]));
        }
    }
    let long = "🍎".repeat(1 << 15);
    let error = PictureFormat::Jpeg.encode((64, 96), &pixels, &long, &mut Vec::new());
    assert!(
        error
            .expect_err("an error")
            .to_string()
            .contains("too long for a JPEG")
    );
}

#[test]
fn texts_are_read_as_the_webui_reads_them() {
    let read = parameters::read(
        "a, b: c\nd\nNegative prompt: e\n f \nSteps: 30, Sampler: DPM++ 2M Karras, CFG scale: 7, Seed: 965400086, Size: 512x512, \
         Model hash: 45dee52b, Hires upscaler: \"a, \\\"b\\\": c\", ENSD: 31337",
    );
    assert_eq!(
        (read.prompt.as_str(), read.negative.as_str()),
        ("a, b: c\nd", "e\nf")
    );
    let expected = [
        ("Steps", "30"),
        ("Sampler", "DPM++ 2M Karras"),
        ("CFG scale", "7"),
        ("Seed", "965400086"),
        ("Size", "512x512"),
        ("Model hash", "45dee52b"),
        ("Hires upscaler", "a, \"b\": c"),
        ("ENSD", "31337"),
    ];
    assert_eq!(read.entries, pairs(&expected));
    // Fewer than three settings are none.
    let read = parameters::read("a cat\nStyle: old, Mood: sad");
    assert_eq!(read.prompt, "a cat\nStyle: old, Mood: sad");
    assert!(read.entries.is_empty());
    assert_eq!(parameters::read("").prompt, "");
}

/// A PNG of one pixel with a text.
fn png_with(key: &str, text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, 1, 1);
    encoder.set_color(png::ColorType::Grayscale);
    encoder
        .add_itxt_chunk(key.into(), text.into())
        .expect("a text");
    let mut writer = encoder.write_header().expect("memory");
    writer.write_image_data(&[0]).expect("memory");
    writer.finish().expect("memory");
    bytes
}

#[test]
fn other_programs_are_understood() {
    let read = |key: &str, text: &str| Remembered::read(Cursor::new(png_with(key, text)));
    let options = |key: &str, text: &str| read(key, text).expect("settings").options;
    let comfy = r#"{
        "3": {"class_type": "KSampler", "inputs": {"seed": 5, "steps": 20, "cfg": 8.5, "sampler_name": "dpmpp_2m",
            "scheduler": "karras", "denoise": 1, "model": ["4", 0], "positive": ["6", 0], "negative": ["8", 0], "latent_image": ["5", 0]}},
        "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 512, "height": 768, "batch_size": 1}},
        "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a cat", "clip": ["4", 1]}},
        "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "blurry", "clip": ["4", 1]}},
        "8": {"class_type": "ConditioningSetArea", "inputs": {"conditioning": ["7", 0]}}}"#;
    let expected = [
        ("prompt", "a cat"),
        ("negative", "blurry"),
        ("prompt-style", "comfy"),
        ("steps", "20"),
        ("guidance-scale", "8.5"),
        ("seed", "5"),
        ("sampler", "dpmpp-2m"),
        ("schedule", "karras"),
        ("size", "512x768"),
        ("rng", "torch"),
    ];
    assert_eq!(options("prompt", comfy), pairs(&expected));
    let novel = r#"{"prompt": "a cat", "uc": "dog", "steps": 28, "scale": 11.0, "seed": 9, "sampler": "k_euler_ancestral", "width": 512, "height": 512}"#;
    let expected = [
        ("prompt", "a cat"),
        ("negative", "dog"),
        ("steps", "28"),
        ("guidance-scale", "11.0"),
        ("seed", "9"),
        ("sampler", "euler-a"),
        ("size", "512x512"),
    ];
    assert_eq!(options("Comment", novel), pairs(&expected));
    let invoke = r#"{"positive_prompt": "a cat", "negative_prompt": "", "steps": 30, "cfg_scale": 7, "seed": 1, "scheduler": "euler"}"#;
    assert_eq!(options("invokeai_metadata", invoke).len(), 5);
    // Links in a circle end.
    let circle = r#"{"1": {"class_type": "KSampler", "inputs": {"positive": ["2", 0]}},
        "2": {"class_type": "x", "inputs": {"conditioning": ["3", 0]}}, "3": {"class_type": "x", "inputs": {"conditioning": ["2", 0]}}}"#;
    for (key, text) in [
        ("prompt", circle),
        ("prompt", "{}"),
        ("prompt", "a cat"),
        ("Comment", "hello"),
        ("x", "y"),
    ] {
        assert!(
            matches!(read(key, text), Err(RememberedError::Silent)),
            "{text}"
        );
    }
}

#[test]
fn refuses_what_is_too_large_or_no_picture() {
    let refused = |bytes: &[u8]| Remembered::read(Cursor::new(bytes)).expect_err("an error");
    assert!(matches!(refused(b""), RememberedError::Format));
    assert!(matches!(
        refused(b"GIF89a, really"),
        RememberedError::Format
    ));
    // A header that says 100000 by 100000, its checksum right.
    let mut huge = Vec::new();
    let encoder = png::Encoder::new(&mut huge, 100_000, 100_000);
    drop(encoder.write_header().expect("memory"));
    assert!(
        matches!(refused(&huge), RememberedError::Size(100_000, 100_000)),
        "{}",
        refused(&huge)
    );
    // A compressed text that is a thousand times as long as in the file.
    let mut bomb = Vec::new();
    let mut encoder = png::Encoder::new(&mut bomb, 1, 1);
    encoder
        .add_ztxt_chunk("parameters".into(), "a".repeat(1 << 24))
        .expect("a text");
    let mut writer = encoder.write_header().expect("memory");
    writer.write_image_data(&[0]).expect("memory");
    writer.finish().expect("memory");
    assert!(bomb.len() < 1 << 20);
    assert!(matches!(refused(&bomb), RememberedError::Damaged(_)));
    assert!(matches!(
        refused(&png_with("Title", "a cat")),
        RememberedError::Silent
    ));
}

/// What is behind transparent parts, and which way is up.
#[test]
fn pictures_are_read_as_they_look() {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, 2, 1);
    encoder.set_color(png::ColorType::Rgba);
    let mut writer = encoder.write_header().expect("memory");
    writer
        .write_image_data(&[10, 20, 30, 255, 10, 20, 30, 0])
        .expect("memory");
    writer.finish().expect("memory");
    for (background, behind) in [(Background::White, 255), (Background::Black, 0)] {
        let read = Raster::read(&file, background).expect("a picture");
        assert_eq!((read.width(), read.height()), (2, 1));
        assert_eq!(read.pixels(), [10, 20, 30, behind, behind, behind]);
        assert_eq!(read.brightness(), [18, behind]);
    }
    // A wide JPEG whose EXIF says that it lies on its side.
    let pixels: Vec<u8> = (0..32 * 16).flat_map(|i| [(i % 32 * 8) as u8; 3]).collect();
    let mut exif = b"MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0".to_vec();
    exif.extend([0; 4]);
    let mut file = Vec::new();
    let mut encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut file, 95);
    image::ImageEncoder::set_exif_metadata(&mut encoder, exif).expect("EXIF");
    let color = image::ExtendedColorType::Rgb8;
    image::ImageEncoder::write_image(encoder, &pixels, 32, 16, color).expect("memory");
    let read = Raster::read(&file, Background::White).expect("a picture");
    assert_eq!((read.width(), read.height()), (16, 32));
    assert!(read.pixels()[0] < 16 && read.pixels()[31 * 16 * 3] > 230);
    // Cut off anywhere, none of the formats makes a panic.
    for format in [PictureFormat::Png, PictureFormat::Jpeg, PictureFormat::WebP] {
        let mut file = Vec::new();
        format
            .encode((32, 16), &pixels, TEXT, &mut file)
            .expect("memory");
        let read = Raster::read(&file, Background::White).expect("a picture");
        if format != PictureFormat::Jpeg {
            assert_eq!(read.pixels(), pixels, "{format:?}");
        }
        for end in 0..file.len() {
            let _ = Raster::read(&file[..end], Background::White);
        }
    }
    assert!(Raster::new(2, 2, vec![0; 11]).is_none() && Raster::new(0, 2, vec![]).is_none());
}
