//! Lines of what comes in pieces, without taking memory for what is too long.

use std::collections::VecDeque;

/// The most bytes of a line: the longest prompt that anybody means, with a negative prompt and options.
pub(in crate::kiosk) const MAX_LINE: usize = 1 << 16;

/// Bytes as lines of text.
#[derive(Default)]
pub(super) struct Lines {
    line: Vec<u8>,
    /// The bytes of a line that is too long, so far.
    skipped: u64,
    /// Lines that are complete, not empty.
    pub(super) ready: VecDeque<String>,
    /// What was wrong with others.
    pub(super) wrong: VecDeque<String>,
}

impl Lines {
    /// Takes more bytes.
    pub(super) fn push(&mut self, mut bytes: &[u8]) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            self.add(&bytes[..end]);
            self.end();
            bytes = &bytes[end + 1..];
        }
        self.add(bytes);
    }

    fn add(&mut self, bytes: &[u8]) {
        if self.skipped > 0 || self.line.len() + bytes.len() > MAX_LINE {
            self.skipped += (self.line.len() + bytes.len()) as u64;
            self.line = Vec::new();
        } else {
            self.line.extend_from_slice(bytes);
        }
    }

    /// The line ends here, also where there is no end of one.
    pub(super) fn end(&mut self) {
        let skipped = std::mem::take(&mut self.skipped);
        let line = std::mem::take(&mut self.line);
        if skipped > 0 {
            self.wrong.push_back(format!(
                "a line of {skipped} bytes is no prompt: {MAX_LINE} are the most"
            ));
            return;
        }
        match String::from_utf8(line) {
            Ok(text) if text.trim().is_empty() => {}
            Ok(text) => self.ready.push_back(text.trim().to_owned()),
            Err(error) => self.wrong.push_back(format!(
                "a line is no UTF-8 from byte {} on",
                error.utf8_error().valid_up_to() + 1
            )),
        }
    }
}
