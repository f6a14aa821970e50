//! The command `kiln`.

#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    kiln::command()
}
