//! What other programs call the samplers and schedules.

/// Kiln's name, the WebUI's, ComfyUI's.
type Names = [&'static str; 3];

const SAMPLERS: &[Names] = &[
    ["ddim", "DDIM", "ddim"],
    ["ddpm", "DDPM", "ddpm"],
    ["pndm", "PLMS", "plms"],
    ["euler", "Euler", "euler"],
    ["euler-a", "Euler a", "euler_ancestral"],
    ["heun", "Heun", "heun"],
    ["dpm2", "DPM2", "dpm_2"],
    ["dpm2-a", "DPM2 a", "dpm_2_ancestral"],
    ["lms", "LMS", "lms"],
    ["dpmpp-2s-a", "DPM++ 2S a", "dpmpp_2s_ancestral"],
    ["dpmpp-2m", "DPM++ 2M", "dpmpp_2m"],
    ["dpmpp-sde", "DPM++ SDE", "dpmpp_sde"],
    ["dpmpp-2m-sde", "DPM++ 2M SDE", "dpmpp_2m_sde"],
    ["dpmpp-3m-sde", "DPM++ 3M SDE", "dpmpp_3m_sde"],
    ["unipc", "UniPC", "uni_pc"],
    ["deis", "DEIS", "deis"],
    ["ipndm", "IPNDM", "ipndm"],
    ["lcm", "LCM", "lcm"],
    ["tcd", "TCD", "tcd"],
];

const SCHEDULES: &[Names] = &[
    ["normal", "Normal", "normal"],
    ["karras", "Karras", "karras"],
    ["exponential", "Exponential", "exponential"],
    ["sgm-uniform", "SGM Uniform", "sgm_uniform"],
    ["simple", "Simple", "simple"],
    ["beta", "Beta", "beta"],
    ["align-your-steps", "Align Your Steps", "ays"],
];

/// What the WebUI calls a sampler of Kiln's; its own name if the WebUI has none.
pub(super) fn webui_sampler(name: &str) -> &str {
    SAMPLERS
        .iter()
        .find(|names| names[0] == name)
        .map_or(name, |names| names[1])
}

/// What Kiln calls a sampler, and its schedule where the name has it too, as in `DPM++ 2M Karras`. A name that nobody has
/// stays as it is.
pub(super) fn sampler(name: &str) -> (String, Option<String>) {
    if let Some(known) = known(SAMPLERS, name) {
        return (known.to_owned(), None);
    }
    let split = name
        .trim()
        .rsplit_once(' ')
        .and_then(|(sampler, schedule)| {
            let schedule = known(SCHEDULES, schedule)?.to_owned();
            Some((known(SAMPLERS, sampler)?.to_owned(), Some(schedule)))
        });
    split.unwrap_or_else(|| (name.to_owned(), None))
}

/// What Kiln calls a schedule. `None` for one that is the sampler's own choice.
pub(super) fn schedule(name: &str) -> Option<String> {
    match name {
        "Automatic" | "Uniform" => None,
        _ => Some(known(SCHEDULES, name).unwrap_or(name).to_owned()),
    }
}

fn known(table: &'static [Names], name: &str) -> Option<&'static str> {
    table
        .iter()
        .find(|names| {
            names
                .iter()
                .any(|own| own.eq_ignore_ascii_case(name.trim()))
        })
        .map(|names| names[0])
}
