//! Reading little-endian records.

/// The fields of one record, in order. Whoever makes it has cut the record to its full size; past its end the fields
/// read as zero.
#[derive(Clone, Copy)]
pub(crate) struct Fields<'a>(pub &'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        match self.0.split_first_chunk::<N>() {
            Some((head, rest)) => {
                self.0 = rest;
                *head
            }
            None => {
                self.0 = &[];
                [0; N]
            }
        }
    }

    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.take())
    }

    pub fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    pub fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }
}

/// Records of one size, one after the other.
#[derive(Clone, Copy)]
pub(crate) struct Table<'a, const SIZE: usize>(&'a [[u8; SIZE]]);

impl<'a, const SIZE: usize> Table<'a, SIZE> {
    /// Cuts `count` records off the front of `bytes`.
    pub fn split(bytes: &'a [u8], count: u32) -> Option<(Self, &'a [u8])> {
        let size = SIZE.checked_mul(usize::try_from(count).ok()?)?;
        let (head, rest) = bytes.split_at_checked(size)?;
        Some((Table(head.as_chunks().0), rest))
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn get(&self, index: usize) -> Option<Fields<'a>> {
        self.0.get(index).map(|record| Fields(record))
    }

    /// `count` records from `first` on.
    pub fn range(&self, first: u32, count: u32) -> Option<Self> {
        let first = usize::try_from(first).ok()?;
        let end = first.checked_add(usize::try_from(count).ok()?)?;
        self.0.get(first..end).map(Table)
    }
}

/// The part of `bytes` at `offset` of size `size`.
pub(crate) fn part(bytes: &[u8], offset: u64, size: u64) -> Option<&[u8]> {
    let start = usize::try_from(offset).ok()?;
    let end = start.checked_add(usize::try_from(size).ok()?)?;
    bytes.get(start..end)
}
