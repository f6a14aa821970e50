//! The runtime over small packages made for the purpose.

mod build;
mod codes;
mod operators;
mod session;
mod stages;
mod stream;
mod turns;
