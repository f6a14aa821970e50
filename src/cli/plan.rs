//! An arena over time, as text.

use std::fmt::Write;

use kiln_package::{Buffer, Program};

/// Rows of the drawing: parts of the arena.
const ROWS: usize = 24;
/// The most columns of the drawing: steps, or several steps each.
const COLUMNS: usize = 96;
/// How full a part is, from empty to full.
const SHADES: [char; 5] = [' ', '░', '▒', '▓', '█'];

/// Draws a program's arena: steps from left to right, bytes from bottom to top, darker where more of them hold something.
pub fn draw(program: &Program<'_>) -> String {
    let buffers = program.buffers();
    let (steps, bytes) = (program.len(), program.arena_bytes());
    let columns = steps.min(COLUMNS);
    let mut cells = vec![[0_u64; ROWS]; columns];
    let mut peak = (0, 0);
    for step in 0..steps {
        let live = || {
            buffers
                .iter()
                .filter(|buffer| (buffer.first..=buffer.last).contains(&step))
        };
        let sum = live().map(|buffer| buffer.bytes).sum();
        if sum > peak.0 {
            peak = (sum, step);
        }
        let column = &mut cells[step * columns / steps];
        for (row, fullest) in column.iter_mut().enumerate() {
            let band = (edge(bytes, row), edge(bytes, row + 1));
            let used: u64 = live().map(|buffer| overlap(buffer, band)).sum();
            *fullest = used.max(*fullest);
        }
    }
    let mut text = String::new();
    for row in (0..ROWS).rev() {
        let band = edge(bytes, row + 1) - edge(bytes, row);
        let line: String = cells
            .iter()
            .map(|column| shade(column[row], band))
            .collect();
        let mark = match row {
            _ if row + 1 == ROWS => format!("{bytes}"),
            0 => "0".into(),
            _ => String::new(),
        };
        let _ = writeln!(text, "{mark:>12} |{}", line.trim_end());
    }
    let _ = writeln!(text, "{:>12} +{}", "step", "-".repeat(columns));
    let name = program.step(peak.1).map_or("", |step| step.name());
    let _ = writeln!(
        text,
        "{:>12}  0 to {}; most in use: {} bytes at step {} ({name})",
        "",
        steps - 1,
        peak.0,
        peak.1
    );
    text
}

/// Where band `row` of the arena begins.
fn edge(bytes: u64, row: usize) -> u64 {
    (u128::from(bytes) * row as u128 / ROWS as u128) as u64
}

fn overlap(buffer: &Buffer, (start, end): (u64, u64)) -> u64 {
    (buffer.offset + buffer.bytes)
        .min(end)
        .saturating_sub(buffer.offset.max(start))
}

/// Whatever is used at all is seen.
fn shade(used: u64, band: u64) -> char {
    match used {
        0 => SHADES[0],
        _ => {
            SHADES[(u128::from(used) * 4)
                .div_ceil(u128::from(band.max(1)))
                .min(4) as usize]
        }
    }
}
