//! Stable Diffusion for small computers: one file, one arena, CPU only.
//!
//! A `.kiln` package holds everything that drawing takes: weights, tokenizer, noise schedule, and programs whose every
//! buffer has its place in one arena. This crate maps the package, runs the programs and makes pictures of prompts.
//!
//! ```no_run
//! use std::ops::ControlFlow;
//! use kiln::{Kiln, Progress, Request};
//!
//! let kiln = Kiln::open("model.kiln")?;
//! let request = Request::new("a red apple").steps(20).seed(7);
//! let picture = kiln.draw(&request, &mut |progress| {
//!     if let Progress::Denoised { step, steps, .. } = progress {
//!         eprintln!("{step}/{steps}");
//!     }
//!     ControlFlow::Continue(())
//! })?;
//! picture.encode_png(&mut std::fs::File::create("a-red-apple.png")?)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
#![cfg_attr(
    any(feature = "embedded-model", feature = "prebuilt-model"),
    doc = "
With a model in the program:

```no_run
let kiln = kiln::Kiln::embedded()?;
let picture = kiln.draw(&kiln::Request::new(\"a red apple\"), &mut |_| std::ops::ControlFlow::Continue(()))?;
assert_eq!(picture.view().dim(), (128, 128, 3));
# Ok::<(), kiln::Error>(())
```
"
)]
//!
//! The tree: [`pipeline`] draws, [`runtime`] runs a package's programs, `display` shows pictures and `kiosk` draws and shows them for years. The package format, the kernels and the compiler
//! are crates of their own, in the folders of those names.

#[cfg(feature = "kiosk")]
#[deny(unsafe_code)]
pub mod display;
#[cfg(feature = "kiosk")]
#[deny(unsafe_code)]
pub mod kiosk;
#[deny(unsafe_code)]
pub mod pipeline;

pub use kiln_runtime as runtime;
pub use pipeline::{Error, Kiln, Picture, Progress, Request};

// The command is a part of the library, so that it is small where the command's own crate is fast (`profile.small`).
extern crate self as kiln;
#[deny(unsafe_code)]
mod cli;
#[doc(hidden)]
pub use cli::main as command;
