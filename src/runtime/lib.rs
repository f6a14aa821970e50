//! Running the programs of a `.kiln` package.
//!
//! A [`Model`] is a package at its place in memory with the kernels chosen for this computer. A [`Session`] holds the
//! memory and the threads that its programs need, taken once; [`Session::prepare`] gives an [`Evaluation`], which takes
//! inputs, runs, and leaves [`Outputs`]. Between the first and the last operator nothing is allocated.
//!
//! The tree:
//!
//! - `mmap`: the package's bytes, mapped or embedded; `model`: which programs there are and what memory they take.
//! - `arena`: the one allocation; `threads`: the pool that shares out an operator's tasks.
//! - `executor`: from inputs to outputs; `step`: one step's operands and its kernel; `ports`: tensors as callers see
//!   them; `norms`: statistics that parts of a picture share; `weights`: checksums at first use; `stream`: weights within a budget.
//! - `os`: signals, memory, pages, and what it takes to run an operator on several threads at once.

#[cfg(target_endian = "big")]
compile_error!("weights are little-endian and used in place");

mod arena;
#[deny(unsafe_code)]
mod cancel;
#[deny(unsafe_code)]
mod error;
#[deny(unsafe_code)]
mod executor;
mod mmap;
#[deny(unsafe_code)]
mod model;
#[deny(unsafe_code)]
mod norms;
#[deny(unsafe_code)]
mod observer;
mod os;
#[deny(unsafe_code)]
mod ports;
#[deny(unsafe_code)]
mod step;
#[deny(unsafe_code)]
mod stream;
#[deny(unsafe_code)]
mod threads;
#[deny(unsafe_code)]
mod weights;

#[cfg(test)]
#[deny(unsafe_code)]
mod tests;

pub use cancel::Cancellation;
pub use error::{RuntimeError, Shape};
pub use executor::{Evaluation, Outputs, Session, SessionOptions};
pub use mmap::map_file;
pub use model::{MemoryPlan, Model, ProgramId};
pub use norms::{NormMoments, Norms};
pub use observer::{Observer, Silent, StepInfo};
pub use os::bus::exit_on_bus_error;
pub use os::clock::{minute_of_day, processor_time};
pub use os::memory;
pub use os::signals::{cancel_on_signal, note_requests, take_draw_now, take_reload};
pub use ports::Data;
pub use stream::Streamed;
