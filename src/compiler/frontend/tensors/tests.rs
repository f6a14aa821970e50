//! Readers of checkpoint files.
