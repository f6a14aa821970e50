//! PEFT's settings, where a LoRA in its names has no alphas of its own: `adapter_config.json` beside a file, or diffusers'
//! copy of them in the file's metadata.

use serde_json::{Map, Value};

use super::LoraError;
use super::names::Part;
use crate::frontend::tensors::Tensors;

/// Where diffusers puts the settings of all parts, as JSON whose keys begin with the part: `unet.lora_alpha`.
const METADATA: &str = "lora_adapter_metadata";

/// Settings by part; none for a file that has no such metadata.
pub(super) struct Config(Map<String, Value>);

/// Puts PEFT's `adapter_config.json` into a LoRA's metadata, from where [`apply`](super::apply) takes its alphas. It holds for
/// both parts.
pub fn with_adapter_config(lora: &mut Tensors, json: &str) -> Result<(), LoraError> {
    let config = parse(json, "adapter_config.json")?;
    let both = config.iter().flat_map(|(key, value)| {
        ["unet", "text_encoder"].map(|part| (format!("{part}.{key}"), value.clone()))
    });
    let json = Value::Object(both.collect()).to_string();
    lora.metadata.insert(METADATA.into(), json);
    Ok(())
}

fn parse(json: &str, place: &'static str) -> Result<Map<String, Value>, LoraError> {
    match serde_json::from_str(json) {
        Ok(Value::Object(config)) => Ok(config),
        Ok(_) => Err(LoraError::Config(place, "is no JSON object".into())),
        Err(e) => Err(LoraError::Config(place, e.to_string())),
    }
}

impl Config {
    pub fn of(lora: &Tensors) -> Result<Self, LoraError> {
        match lora.metadata.get(METADATA) {
            Some(json) => parse(json, METADATA).map(Config),
            None => Ok(Config(Map::new())),
        }
    }

    fn get(&self, part: Part, key: &str) -> Option<&Value> {
        let part = match part {
            Part::Unet => "unet",
            Part::TextEncoder => "text_encoder",
        };
        self.0.get(&format!("{part}.{key}"))
    }

    /// What a module's change is scaled by; `None` if the settings do not say.
    pub fn scale(&self, part: Part, module: &str, rank: usize) -> Result<Option<f64>, LoraError> {
        let error = |reason: String| LoraError::Config(METADATA, reason);
        if self.get(part, "use_dora") == Some(&Value::Bool(true)) {
            return Err(error("use_dora: DoRA cannot be merged".into()));
        }
        let Some(alpha) = self.get(part, "lora_alpha") else {
            return Ok(None);
        };
        let patterns = self.get(part, "alpha_pattern").and_then(Value::as_object);
        let mut alpha = alpha;
        for (pattern, value) in patterns.into_iter().flatten() {
            // PEFT takes the pattern for a regular expression at the end of the name; what diffusers writes is a name.
            let name = pattern.trim_start_matches('^').trim_end_matches('$');
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
            if !name.chars().all(plain) {
                return Err(error(format!(
                    "alpha_pattern {pattern:?} is no module's name"
                )));
            }
            let rest = module.strip_suffix(name);
            if rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.')) {
                alpha = value;
                break;
            }
        }
        let value = alpha.as_f64().filter(|alpha| alpha.is_finite());
        let alpha = value.ok_or_else(|| error(format!("lora_alpha {alpha} is no number")))?;
        let over = match self.get(part, "use_rslora") {
            Some(Value::Bool(true)) => (rank as f64).sqrt(),
            _ => rank as f64,
        };
        Ok(Some(alpha / over))
    }
}
