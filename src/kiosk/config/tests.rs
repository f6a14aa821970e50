use std::time::Duration;

use super::*;
use crate::kiosk::Order;

const LEAST: &str = "[prompts]\nlist = ['a red apple']\n";

fn config(text: &str) -> Config {
    text.parse()
        .unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// What is wrong with a configuration.
fn error(text: &str) -> String {
    match text.parse::<Config>() {
        Ok(config) => panic!("{text}: {config:?}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn everything_that_can_be_said() {
    let found = config(LEAST);
    assert_eq!(
        found.prompts,
        Prompts::List(vec!["a red apple".into()], Order::Listed)
    );
    assert_eq!(
        (found.folder, found.keep, found.every),
        ("pictures".into(), 100, Duration::ZERO)
    );
    assert!(found.displays.is_empty() && found.draw.is_empty() && found.checkpoint);

    let found = config(
        "folder = '/var/lib/kiln'\nkeep = 5\nevery = '1h30m'\ncheckpoint = false\n\
         [prompts]\nfolder = 'prompts'\norder = 'shuffled'\n\
         [draw]\nsteps = 4\nguidance-scale = 2.5\nsize = '64x64'\n\
         [[display]]\nframebuffer = '/dev/fb0'\nrotate = 90\nletterbox = '#0a0B0c'\ncaption = false\nfit = 'cover'\n\
         [[display]]\nframebuffer = 'fb.raw'\nsize = '320x240'\nbits = 16\nstride = 656\ndither = 'blue-noise'\n\
         [[display]]\npng = 'now.png'\nsize = '100x50'\ncolors = '7-color'\nprogress = false\npreview = false\n",
    );
    assert_eq!(
        (found.keep, found.every, found.checkpoint),
        (5, Duration::from_secs(5400), false)
    );
    assert_eq!(
        found.prompts,
        Prompts::Folder("prompts".into(), Order::Shuffled)
    );
    assert_eq!(found.draw["steps"], 4);
    let [device, plain, png] = &found.displays[..] else {
        panic!("{:?}", found.displays)
    };
    assert_eq!(device.surface, Surface::Framebuffer("/dev/fb0".into()));
    assert_eq!(
        (device.rotation, device.look.letterbox),
        (Rotation::Quarter, [10, 11, 12])
    );
    assert_eq!(
        (device.look.caption, device.look.progress, device.look.fit),
        (false, true, Fit::Cover)
    );
    let geometry = Geometry::new(320, 240, 16).and_then(|geometry| geometry.stride(656));
    assert_eq!(
        plain.surface,
        Surface::Plain("fb.raw".into(), geometry.expect("a geometry"))
    );
    assert_eq!(plain.dither, Dither::BlueNoise);
    assert_eq!(png.surface, Surface::Png("now.png".into(), (100, 50)));
    assert_eq!(
        (png.colors.clone(), png.look.progress, png.look.preview),
        (Colors::seven(), false, false)
    );

    for (text, seconds) in [
        ("90", 90),
        ("'90s'", 90),
        ("'10m'", 600),
        ("'1d2h'", 93_600),
        ("0", 0),
    ] {
        let found = config(&format!("every = {text}\n{LEAST}"));
        assert_eq!(found.every, Duration::from_secs(seconds), "{text}");
    }
}

#[test]
fn what_is_wrong_is_named() {
    let with = |line: &str| format!("{line}\n{LEAST}");
    for (text, parts) in [
        (with("foldre = 'x'"), &["`foldre`: there is no such key, did you mean `folder`?"][..]),
        (format!("{LEAST}ordre = 'listed'"), &["`prompts.ordre`", "did you mean `order`?"]),
        (format!("{LEAST}[[display]]\npng = 'a.png'\n[[display]]\npng = 'b.png'\nrotat = 90"), &["`display[2].rotat`", "`rotate`"]),
        (with("xyz = 1"), &["`xyz`: there is no such key"]),
        (with("folder = 3"), &["`folder`: a text in quotes expected"]),
        (with("keep = 0"), &["`keep`: a whole number from 1 to 10000 expected"]),
        (with("keep = -1"), &["`keep`"]),
        (with("every = '3 weeks'"), &["`every`: expected a time such as 90s"]),
        (with("every = '99999999999999999999s'"), &["`every`"]),
        (with("every = 99999999999"), &["`every`"]),
        (with("checkpoint = 'no'"), &["`checkpoint`: true or false expected"]),
        (with("draw = 1"), &["`draw`: a section expected: [draw]"]),
        ("a = [1".into(), &["line 1: "]),
        (format!("{LEAST}\n\nx = ="), &["line 5: "]),
        ("".into(), &["`prompts`: a section"]),
        ("[promts]\nlist = ['a']".into(), &["`promts`: there is no such key, did you mean `prompts`?"]),
        ("[prompts]".into(), &["`prompts.list`: exactly one of"]),
        ("[prompts]\nlist = ['a']\nstdin = true".into(), &["exactly one of"]),
        ("[prompts]\nlist = []".into(), &["`prompts.list`: 1 to"]),
        ("[prompts]\nlist = ['a', ' ']".into(), &["`prompts.list`: text 2 is empty"]),
        ("[prompts]\nlist = ['a', 3]".into(), &["`prompts.list`: a list of texts expected"]),
        (format!("[prompts]\nlist = ['{}']", "a".repeat(1_000_000)), &["text 1 has 1000000 bytes, 65536 are the most"]),
        ("[prompts]\nstdin = true\norder = 'listed'".into(), &["`prompts.order`"]),
        ("[prompts]\nlist = ['a']\norder = 'sideways'".into(), &["`prompts.order`: expected listed or shuffled"]),
        ("[prompts]\nlist = ['a']\nwords.x = ['a']".into(), &["`prompts.words`"]),
        ("[prompts]\ntemplate = '{animl}'\nwords.animal = ['a']".into(), &["`prompts.template`", "`words.animl`, did you mean {animal}?"]),
        ("[prompts]\ntemplate = 'a {animal'\nwords.animal = ['a']".into(), &["a brace is opened and not closed"]),
        ("[prompts]\ntemplate = 'a'\nwords.animal = ['a']".into(), &["`prompts.words.animal`: {animal} is not in the template"]),
        ("[prompts]\ntemplate = '{a}'\nwords.a = []".into(), &["`prompts.words.a`: 1 to"]),
        ("[prompts]\ntemplate = '{a}'\nwords.a = 'no/such/file'".into(), &["`prompts.words.a`: no/such/file: "]),
        ("[prompts]\ntemplate = '{a}'\nwords.a = 7".into(), &["`prompts.words.a`: a list of texts"]),
        ("[[prompts.schedule]]\nlist = ['a']".into(), &["`prompts.schedule[1].from`: a time such as 07:30 expected"]),
        ("[[prompts.schedule]]\nfrom = '24:00'\nlist = ['a']".into(), &["`prompts.schedule[1].from`: expected a time of day"]),
        ("[[prompts.schedule]]\nfrom = '07:30'".into(), &["`prompts.schedule[1].list`: exactly one of"]),
        ("[[prompts.schedule]]\nfrom = '7:30'\nlist = ['a']\n[[prompts.schedule]]\nfrom = '07:30'\nstdin = true".into(), &["`prompts.schedule[2].from`: the time is there twice"]),
        ("[prompts]\nschedule = 3".into(), &["`prompts.schedule`: sections expected: [[prompts.schedule]]"]),
        (format!("{LEAST}[[display]]"), &["`display[1].framebuffer`: either `framebuffer` or `png`"]),
        (format!("{LEAST}[display]\nframebuffer = 'a'\npng = 'b'"), &["either `framebuffer` or `png`"]),
        (format!("{LEAST}[display]\nframebuffer = 'a'\nbits = 16"), &["`display.bits`: a device knows its own"]),
        (format!("{LEAST}[display]\npng = 'a.png'\nbits = 16"), &["`display.bits`: a PNG has none"]),
        (format!("{LEAST}[display]\nframebuffer = 'a'\nsize = '10x10'\nbits = 17"), &["`display.bits`: ", "17 bits a pixel"]),
        (format!("{LEAST}[display]\nframebuffer = 'a'\nsize = '10x10'\nstride = 3"), &["`display.stride`: ", "bytes a row expected"]),
        (format!("{LEAST}[display]\npng = 'a.png'\nsize = '0x10'"), &["`display.size`: 0x10: 1 to"]),
        (format!("{LEAST}[display]\npng = 'a.png'\nsize = '99999x99999'"), &["`display.size`"]),
        (format!("{LEAST}[display]\npng = 'a.png'\nsize = 'wide'"), &["expected WxH"]),
        (format!("{LEAST}[display]\npng = 'a.png'\nrotate = 45"), &["`display.rotate`: expected 0, 90, 180 or 270"]),
        (format!("{LEAST}[display]\npng = 'a.png'\nletterbox = 'red'"), &["`display.letterbox`: expected a colour such as #102030"]),
        (format!("{LEAST}[display]\npng = 'a.png'\nletterbox = '#12345é'"), &["`display.letterbox`"]),
        (format!("{LEAST}[display]\npng = 'a.png'\ndither = 'bayer'"), &["`display.dither`: expected none, diffusion or blue-noise"]),
        (format!("{LEAST}[display]\npng = 'a.png'\ncolors = '8-bit'"), &["`display.colors`: expected full, rgb565, 1-bit or 7-color"]),
        (format!("{LEAST}[display]\npng = 'a.png'\nfit = 'stretch'"), &["`display.fit`: expected contain or cover"]),
    ] {
        let found = error(&text);
        for part in parts {
            assert!(found.contains(part), "{text}: `{part}` is not in: {found}");
        }
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("long.toml");
    fs::write(&path, "#".repeat(MAX_BYTES as usize + 1)).expect("written");
    assert!(matches!(Config::open(&path), Err(ConfigError::Long)));
    assert!(matches!(
        Config::open(folder.path()),
        Err(ConfigError::Io(_))
    ));
}
