//! What draws a kiosk's pictures, and how: the section `[draw]`, and the environment, which wins over it.

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use serde_json::{Map, Value};

use crate::cli::draw::options::{Said, picture_options, unknown};
use crate::cli::values;

/// Options of `kiln draw` that are none of a kiosk's pictures, and what there is instead.
const OTHERS: [(&str, &str); 3] = [
    ("prompt", "[prompts] says where prompts come from"),
    ("output", "`folder` says where pictures go"),
    ("count", "a kiosk draws one picture after another"),
];
/// Options of all pictures together.
const OF_ALL: [&str; 3] = ["model", "threads", "ram"];

/// What is said, and none of it contradicts what it should be.
#[derive(Debug, Default)]
pub(super) struct Options {
    pub(super) model: Option<PathBuf>,
    pub(super) threads: Option<NonZeroUsize>,
    pub(super) ram: Option<values::Ram>,
    pub(super) pictures: Said,
}

impl Options {
    /// The options of `[draw]` and of the environment, `KILN_STEPS` in place of `draw.steps`. Errors name the place. An empty
    /// variable says nothing.
    pub(super) fn read(
        section: &Map<String, Value>,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, String> {
        let mut options = Self::default();
        let known = known();
        let names: Vec<&str> = known.iter().map(|name| &**name).collect();
        for (key, value) in section {
            let name = key.replace('_', "-");
            let here = |error: &str| format!("`draw.{key}`: {error}");
            if let Some(instead) = instead(&name) {
                return Err(here(instead));
            }
            if !names.contains(&&*name) {
                return Err(here(&unknown(&name, &names)));
            }
            options.say(&name, value).map_err(|error| here(&error))?;
        }
        for name in &known {
            let key = format!("KILN_{}", name.to_uppercase().replace('-', "_"));
            let Some(text) = variable(&key).filter(|text| !text.is_empty()) else {
                continue;
            };
            let value = text.to_str().ok_or_else(|| "no UTF-8".to_owned());
            let said = value.and_then(|text| options.say(name, &text.into()));
            said.map_err(|error| format!("{key}={}: {error}", text.display()))?;
        }
        Ok(options)
    }

    /// Adds an option, which wins over those of its name before it.
    fn say(&mut self, name: &str, value: &Value) -> Result<(), String> {
        let text = || match value {
            Value::String(text) => Ok(text.clone()),
            Value::Number(number) => Ok(number.to_string()),
            _ => Err("expected a text or a number"),
        };
        match name {
            "model" => self.model = Some(text()?.into()),
            "threads" => self.threads = Some(values::threads(&text()?)?),
            "ram" => self.ram = Some(values::ram(&text()?)?),
            _ => {
                // What it does not take is told with its place.
                let mut alone = Said::default();
                alone.say_json(name, value)?;
                alone.check_values()?;
                self.pictures.say_json(name, value)?;
            }
        }
        Ok(())
    }
}

/// What there is in place of an option.
pub(super) fn instead(name: &str) -> Option<&'static str> {
    let found = OTHERS.iter().find(|(other, _)| *other == name);
    found.map(|(_, instead)| *instead)
}

/// The options that there are.
fn known() -> Vec<String> {
    let mut known = Vec::from(OF_ALL.map(str::to_owned));
    known.extend(picture_options());
    known.retain(|name| instead(name).is_none());
    known
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(section: &str, variables: &[(&str, &str)]) -> Result<Options, String> {
        let section = serde_json::from_str(section).expect("an object");
        Options::read(&section, |name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| value.into())
        })
    }

    #[test]
    fn the_environment_wins() {
        let section = r#"{"model": "a.kiln", "steps": 3, "guidance_scale": 2.5, "ram": "1G"}"#;
        let variables = [
            ("KILN_MODEL", "b.kiln"),
            ("KILN_STEPS", "5"),
            ("KILN_THREADS", "2"),
            ("KILN_TILE", ""),
            ("KILN_PROMPT", "none of a kiosk's"),
            ("KILN_LOG", "info"),
        ];
        let options = read(section, &variables).expect("options");
        assert_eq!(
            (options.model, options.threads),
            (Some("b.kiln".into()), NonZeroUsize::new(2))
        );
        assert_eq!(options.ram.and_then(values::Ram::bytes), Some(1 << 30));
        let mut pictures = Said::default();
        pictures.say("prompt", "");
        let said = pictures.then(&options.pictures).parse().expect("options");
        assert_eq!(said.steps.map(usize::from), Some(5));
        assert_eq!(said.guidance_scale, Some(2.5));
        assert!(said.tile.is_none());
    }

    #[test]
    fn errors_name_the_place() {
        for (section, variables, parts) in [
            (r#"{"modl": 1}"#, &[][..], &["`draw.modl`", "`model`?"][..]),
            (r#"{"ramm": 1}"#, &[], &["`draw.ramm`", "`ram`?"]),
            (
                r#"{"zzzz": 1}"#,
                &[],
                &["`draw.zzzz`", "there are: model, threads, ram, "],
            ),
            (r#"{"thred": 1}"#, &[], &["`draw.thred`", "`threads`?"]),
            (
                r#"{"guidence_scale": 1}"#,
                &[],
                &["`draw.guidence_scale`", "`guidance-scale`?"],
            ),
            (r#"{"output": "a"}"#, &[], &["`draw.output`: `folder` says"]),
            (r#"{"steps": "many"}"#, &[], &["`draw.steps`: ", "many"]),
            (
                r#"{"steps": [1]}"#,
                &[],
                &["`draw.steps`: ", "a text or a number"],
            ),
            (r#"{"mask": 7, "steps": "x"}"#, &[], &["`draw.steps`: "]),
            (r#"{"threads": 0}"#, &[], &["`draw.threads`: expected"]),
            ("{}", &[("KILN_STEPS", "many")], &["KILN_STEPS=many: "]),
            ("{}", &[("KILN_RAM", "lots")], &["KILN_RAM=lots: "]),
            (
                "{}",
                &[("KILN_ONLY_MASKED", "maybe")],
                &["KILN_ONLY_MASKED=maybe: "],
            ),
        ] {
            let error = read(section, variables).expect_err(section);
            for part in parts {
                assert!(error.contains(part), "{section} {variables:?}: {error}");
            }
        }
        let error = read(r#"{"zzzz": 1}"#, &[]).expect_err("no such option");
        assert!(
            !error.contains("prompt,") && !error.contains("output"),
            "{error}"
        );
    }
}
