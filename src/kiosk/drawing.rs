//! One picture, gone on with after the power has failed.

use std::path::Path;

use crate::pipeline::{Checkpoint, Error, Kiln, Picture, Settings, Watch};

/// Draws a picture and keeps what it takes to go on in a file, where one is named. What the file holds of the same drawing is gone on
/// with; what cannot be read or is of another one is told and drawn from the beginning.
pub(super) fn draw(
    kiln: &Kiln,
    settings: &Settings,
    path: Option<&Path>,
    watch: &mut Watch<'_>,
) -> Result<Picture, Error> {
    let Some(path) = path else {
        return kiln.draw_settings(settings, watch);
    };
    let mut checkpoint = Checkpoint::new(path);
    if path.exists() {
        let there = Checkpoint::open(path).and_then(|there| {
            there.check(kiln, settings)?;
            Ok(there)
        });
        match there {
            Ok(there) => {
                if let Some((step, steps)) = there.progress() {
                    tracing::info!("going on from step {step} of {steps}");
                }
                checkpoint = there;
            }
            Err(error) => {
                tracing::warn!("{error}; the picture is drawn from the beginning");
                remove(path);
            }
        }
    }
    match kiln.draw_kept(settings, &checkpoint, watch) {
        // A disk that is full or gone: the picture is worth more than what it could be gone on with from.
        Err(error @ Error::Checkpoint { .. }) => {
            tracing::error!("{error}; the picture is drawn without");
            remove(path);
            kiln.draw_settings(settings, watch)
        }
        other => other,
    }
}

/// Removes a drawing's file: its picture is safe, or never will be.
pub(super) fn remove(path: &Path) {
    if let Err(error) = Checkpoint::new(path).remove() {
        tracing::warn!("{error}");
    }
}
