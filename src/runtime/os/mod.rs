//! What the runtime asks of the operating system, and what it does behind the type system's back to run an operator on
//! several threads.

pub(super) mod bus;
pub(super) mod clock;
pub(super) mod cores;
pub(super) mod lanes;
pub(super) mod loan;
pub mod memory;
pub(super) mod pages;
pub(super) mod signals;
