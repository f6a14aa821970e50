//! CRC-32C (Castagnoli, reflected polynomial 0x82F63B78), sixteen bytes at a time.

const POLYNOMIAL: u32 = 0x82F6_3B78;

/// `TABLES[i][b]` is the remainder of byte `b` followed by `i` zero bytes.
static TABLES: [[u32; 256]; 16] = tables();

const fn tables() -> [[u32; 256]; 16] {
    let mut tables = [[0u32; 256]; 16];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = (crc >> 1) ^ (POLYNOMIAL & 0u32.wrapping_sub(crc & 1));
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut i = 1;
    while i < 16 {
        let mut byte = 0;
        while byte < 256 {
            let before = tables[i - 1][byte];
            tables[i][byte] = (before >> 8) ^ tables[0][(before & 0xFF) as usize];
            byte += 1;
        }
        i += 1;
    }
    tables
}

/// A checksum in the making.
#[derive(Clone, Copy, Debug)]
pub struct Crc32c(u32);

impl Crc32c {
    /// The checksum of no bytes.
    pub const fn new() -> Self {
        Crc32c(!0)
    }

    /// Takes in the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        let mut crc = self.0;
        let (chunks, rest) = bytes.as_chunks::<16>();
        for chunk in chunks {
            let mut block = *chunk;
            for (b, c) in block.iter_mut().zip(crc.to_le_bytes()) {
                *b ^= c;
            }
            crc = 0;
            for (table, b) in TABLES.iter().rev().zip(block) {
                crc ^= table[usize::from(b)];
            }
        }
        for b in rest {
            crc = (crc >> 8) ^ TABLES[0][usize::from(crc as u8 ^ b)];
        }
        self.0 = crc;
    }

    /// The checksum of the bytes taken in.
    pub const fn finish(self) -> u32 {
        !self.0
    }
}

impl Default for Crc32c {
    fn default() -> Self {
        Self::new()
    }
}

/// The CRC-32C of `bytes`.
pub fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = Crc32c::new();
    crc.update(bytes);
    crc.finish()
}
