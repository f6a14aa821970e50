//! Opening a package.

use core::ops::Range;

use crate::bytes::{Fields, part};
use crate::crc::{Crc32c, crc32c};
use crate::error::{PackageError, Place, What};
use crate::format::{
    ALIGNMENT, CHECKSUM_BLOCK, HEADER_BYTES, MAGIC, MAX_SECTIONS, OPTIONAL, SECTION_BYTES, VERSION,
    WEIGHTS_ALIGNMENT, section,
};
use crate::program::{Program, Programs, Tables};
use crate::{GraphKind, Stage, validate};

/// An open package, borrowing its bytes.
#[derive(Clone, Copy)]
pub struct Package<'a> {
    card: &'a str,
    tokenizer: &'a [u8],
    scheduler: &'a str,
    tables: Tables<'a>,
    weights: &'a [u8],
    weights_offset: u64,
    checksums: &'a [[u8; 4]],
    identity: u64,
}

/// The sections of this version, as they are found; the index is the id less one.
struct Sections<'a>([Option<&'a [u8]>; section::NAMES.len()]);

impl<'a> Sections<'a> {
    fn get(&self, id: u32) -> Result<&'a [u8], PackageError> {
        let found = self.0.get(id as usize - 1).copied().flatten();
        found.ok_or_else(|| Place::section(id).error(What::Missing))
    }
}

/// The header's checksum, which is of those of all sections but the weights, and that of the weights' checksums.
fn identity(bytes: &[u8], checksums: &[u8]) -> u64 {
    let header = bytes.get(24..28).and_then(|bytes| bytes.as_array());
    let header = u32::from_le_bytes(*header.unwrap_or(&[0; 4]));
    u64::from(header) << 32 | u64::from(crc32c(checksums))
}

impl<'a> Package<'a> {
    /// Opens a package from the bytes of a whole file. Checks everything but the contents of the weights.
    pub fn open(bytes: &'a [u8]) -> Result<Self, PackageError> {
        let count = check_header(bytes)?;
        let sections = check_sections(bytes, count)?;
        let text = |id| {
            let bytes = sections.get(id)?;
            core::str::from_utf8(bytes).map_err(|error| {
                Place {
                    offset: Some(error.valid_up_to() as u64),
                    ..Place::section(id)
                }
                .error(What::Utf8)
            })
        };
        let card = text(section::CARD)?;
        let scheduler = text(section::SCHEDULER)?;
        let tokenizer = sections.get(section::TOKENIZER)?;
        let weights = sections.get(section::WEIGHTS)?;
        let checksums = sections.get(section::CHECKSUMS)?;
        let expected = (weights.len() as u64).div_ceil(CHECKSUM_BLOCK) * 4;
        if checksums.len() as u64 != expected {
            let what = What::Length {
                expected,
                found: checksums.len() as u64,
            };
            return Err(Place::section(section::CHECKSUMS).error(what));
        }
        let tables = validate::tables(sections.get(section::PROGRAMS)?)?;
        validate::programs(&tables, weights.len() as u64)?;
        let weights_offset = (weights.as_ptr().addr() - bytes.as_ptr().addr()) as u64;
        Ok(Package {
            card,
            tokenizer,
            scheduler,
            tables,
            weights,
            weights_offset,
            checksums: checksums.as_chunks().0,
            identity: identity(bytes, checksums),
        })
    }

    /// Tells packages apart by their contents: made of the checksums of all sections and weights.
    pub fn identity(&self) -> u64 {
        self.identity
    }

    /// The model card, JSON.
    pub fn card(&self) -> &'a str {
        self.card
    }

    /// The contents of `tokenizer.json`.
    pub fn tokenizer(&self) -> &'a [u8] {
        self.tokenizer
    }

    /// The contents of `scheduler_config.json`.
    pub fn scheduler(&self) -> &'a str {
        self.scheduler
    }

    /// The programs, sorted by graph, stage, height, width and clip skip.
    pub fn programs(&self) -> Programs<'a> {
        Programs::new(self.tables)
    }

    /// The program at an index.
    pub fn program(&self, index: usize) -> Option<Program<'a>> {
        self.programs().nth(index)
    }

    /// The program of a graph's stage for pictures of a size; for a graph that works for every size, at 0 by 0. A text
    /// encoder is the whole one.
    pub fn find(
        &self,
        graph: GraphKind,
        stage: Stage,
        height: u32,
        width: u32,
    ) -> Option<Program<'a>> {
        let clip_skip = u32::from(graph == GraphKind::TextEncoder);
        self.tables
            .find((graph.code(), stage.code(), height, width, clip_skip))
    }

    /// The weights, whose contents are checked by [`Package::verify_block`].
    pub fn weights(&self) -> &'a [u8] {
        self.weights
    }

    /// Where the weights begin in the file; a multiple of 4096.
    pub fn weights_offset(&self) -> u64 {
        self.weights_offset
    }

    /// The number of blocks of the weights, each with its checksum.
    pub fn weight_blocks(&self) -> usize {
        self.checksums.len()
    }

    /// Checks one block of [`crate::format::CHECKSUM_BLOCK`] bytes. Past the last block there is nothing to be wrong.
    pub fn verify_block(&self, block: usize) -> Result<(), PackageError> {
        let Some(checksum) = self.checksums.get(block) else {
            return Ok(());
        };
        let start = block as u64 * CHECKSUM_BLOCK;
        let size = CHECKSUM_BLOCK.min(self.weights.len() as u64 - start);
        let found = crc32c(part(self.weights, start, size).unwrap_or_default());
        let expected = u32::from_le_bytes(*checksum);
        if found != expected {
            let place = Place {
                offset: Some(start),
                ..Place::section(section::WEIGHTS)
            };
            return Err(place.error(What::Checksum { expected, found }));
        }
        Ok(())
    }

    /// Checks the blocks that a range of the weights lies in.
    pub fn verify_weights(&self, range: Range<u64>) -> Result<(), PackageError> {
        if range.is_empty() {
            return Ok(());
        }
        let first = (range.start / CHECKSUM_BLOCK).min(self.checksums.len() as u64);
        let end = range
            .end
            .div_ceil(CHECKSUM_BLOCK)
            .min(self.checksums.len() as u64);
        (first..end).try_for_each(|block| self.verify_block(block as usize))
    }

    /// Checks all weights.
    pub fn verify_all(&self) -> Result<(), PackageError> {
        (0..self.weight_blocks()).try_for_each(|block| self.verify_block(block))
    }
}

/// Checks the header and returns the number of sections.
fn check_header(bytes: &[u8]) -> Result<u32, PackageError> {
    let found = bytes.len() as u64;
    let whole = Place::default();
    if !bytes.starts_with(&MAGIC[..bytes.len().min(MAGIC.len())]) {
        return Err(whole.error(What::NotAPackage));
    }
    let truncated = |expected| whole.error(What::Length { expected, found });
    let (_, rest) = bytes
        .split_at_checked(MAGIC.len())
        .ok_or_else(|| truncated(HEADER_BYTES as u64))?;
    // The version first: what follows may mean something else in another.
    if rest.len() < 4 {
        return Err(truncated(HEADER_BYTES as u64));
    }
    let mut f = Fields(rest);
    let version = f.u32();
    if version != VERSION {
        return Err(whole.error(What::Version {
            supported: VERSION,
            found: version,
        }));
    }
    if bytes.len() < HEADER_BYTES {
        return Err(truncated(HEADER_BYTES as u64));
    }
    let count = f.u32();
    let length = f.u64();
    let (expected_crc, zero) = (f.u32(), f.u32());
    if count > MAX_SECTIONS {
        let what = What::Range {
            name: "sections",
            limit: MAX_SECTIONS.into(),
            found: count.into(),
        };
        return Err(Place::at(12).error(what));
    }
    let table = part(
        bytes,
        HEADER_BYTES as u64,
        u64::from(count) * SECTION_BYTES as u64,
    );
    let table = table.ok_or_else(|| truncated(length))?;
    let mut crc = Crc32c::new();
    crc.update(&bytes[..24]);
    crc.update(table);
    let found_crc = crc.finish();
    if found_crc != expected_crc {
        return Err(Place::at(0).error(What::Checksum {
            expected: expected_crc,
            found: found_crc,
        }));
    }
    if zero != 0 {
        return Err(Place::at(28).error(What::Field {
            name: "header's last field",
            expected: 0,
            found: zero.into(),
        }));
    }
    if length != found {
        return Err(truncated(length));
    }
    Ok(count)
}

/// Checks the section table, the zeros between sections and the sections' checksums.
fn check_sections(bytes: &[u8], count: u32) -> Result<Sections<'_>, PackageError> {
    let mut sections = Sections([None; section::NAMES.len()]);
    let mut end = HEADER_BYTES as u64 + u64::from(count) * SECTION_BYTES as u64;
    let rows = bytes[HEADER_BYTES..].as_chunks::<SECTION_BYTES>().0;
    for row in rows.iter().take(count as usize) {
        let mut f = Fields(row);
        let (id, flags, offset, size, expected, zero) =
            (f.u32(), f.u32(), f.u64(), f.u64(), f.u32(), f.u32());
        let here = |what| Place::section(id).error(what);
        let known = id
            .checked_sub(1)
            .and_then(|i| sections.0.get_mut(i as usize));
        match &known {
            Some(slot) if slot.is_some() => return Err(here(What::Order)),
            Some(_) if flags != 0 => {
                return Err(here(What::Field {
                    name: "flags",
                    expected: 0,
                    found: flags.into(),
                }));
            }
            None if flags != OPTIONAL => {
                return Err(here(What::Unknown {
                    name: "section",
                    found: id.into(),
                }));
            }
            _ => {}
        }
        if zero != 0 {
            return Err(here(What::Field {
                name: "section's last field",
                expected: 0,
                found: zero.into(),
            }));
        }
        let alignment = if id == section::WEIGHTS {
            WEIGHTS_ALIGNMENT
        } else {
            ALIGNMENT
        };
        if !offset.is_multiple_of(alignment) {
            return Err(here(What::Alignment {
                name: "offset",
                alignment,
                found: offset,
            }));
        }
        if offset < end {
            return Err(here(What::Order));
        }
        let gap = offset - end;
        if gap >= WEIGHTS_ALIGNMENT {
            return Err(here(What::Range {
                name: "offset",
                limit: end + WEIGHTS_ALIGNMENT - 1,
                found: offset,
            }));
        }
        let limit = bytes.len() as u64;
        let section_end = offset.saturating_add(size);
        let outside = || {
            here(What::Outside {
                name: "section",
                end: section_end,
                limit,
            })
        };
        let zeros = part(bytes, end, gap).ok_or_else(outside)?;
        if let Some(i) = zeros.iter().position(|b| *b != 0) {
            let what = What::Field {
                name: "byte between sections",
                expected: 0,
                found: zeros[i].into(),
            };
            return Err(Place::at(end + i as u64).error(what));
        }
        let contents = part(bytes, offset, size).ok_or_else(outside)?;
        let found = if id == section::WEIGHTS {
            0
        } else {
            crc32c(contents)
        };
        if found != expected {
            return Err(here(What::Checksum { expected, found }));
        }
        if let Some(slot) = known {
            *slot = Some(contents);
        }
        end = section_end;
    }
    let found = bytes.len() as u64;
    if end != found {
        return Err(Place::default().error(What::Length {
            expected: end,
            found,
        }));
    }
    Ok(sections)
}
