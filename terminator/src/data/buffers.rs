//! Buffers of one worker, lent to connections that move bytes and taken back.
//!
//! There are three sizes: a connection that has just become quiet waits with a small one, a TLS record
//! fits a middle one, bulk transfer takes a large one. A bounded number of each is kept, the rest goes
//! back to the allocator.
//! A buffer is not cleared between users: whoever fills one remembers how far, and sends no more.
//!
//! Bytes begin a little way into their buffer, [`SKEW`], for the sake of the copies made of them.

use std::cell::RefCell;

/// A buffer and the range of it that holds bytes. The empty one holds no memory.
#[derive(Default)]
pub(super) struct Chunk {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Chunk {
    /// How many bytes it holds.
    pub(super) fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether it holds none.
    pub(super) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// The bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// The bytes, to be worked on in place.
    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.buffer[self.start..self.end]
    }

    /// Forgets the first `n` bytes.
    pub(super) fn consume(&mut self, n: usize) {
        self.start = (self.start + n).min(self.end);
    }

    /// Room for at least `n` more bytes; what is written there counts after [`Chunk::filled`].
    pub(super) fn room(&mut self, n: usize, buffers: &Buffers) -> &mut [u8] {
        let len = self.len();
        if len == 0 && !self.buffer.is_empty() {
            (self.start, self.end) = (SKEW, SKEW);
        }
        if self.buffer.len() - self.end < n {
            if self.buffer.len() >= SKEW + len + n {
                self.buffer.copy_within(self.start..self.end, SKEW);
            } else {
                let mut larger = buffers.holding(SKEW + len + n);
                larger[SKEW..SKEW + len].copy_from_slice(self.bytes());
                buffers.give_back(std::mem::replace(&mut self.buffer, larger));
            }
            (self.start, self.end) = (SKEW, SKEW + len);
        }
        &mut self.buffer[self.end..]
    }

    /// Counts `n` bytes that were written into [`Chunk::room`].
    pub(super) fn filled(&mut self, n: usize) {
        debug_assert!(self.end + n <= self.buffer.len());
        self.end += n;
    }

    /// Appends bytes.
    pub(super) fn append(&mut self, bytes: &[u8], buffers: &Buffers) {
        self.room(bytes.len(), buffers)[..bytes.len()].copy_from_slice(bytes);
        self.filled(bytes.len());
    }

    /// Gives the buffer back, bytes and all.
    pub(super) fn release(&mut self, buffers: &Buffers) {
        buffers.give_back(std::mem::take(&mut self.buffer));
        (self.start, self.end) = (0, 0);
    }

    /// Gives the buffer back if it holds no bytes.
    pub(super) fn release_if_empty(&mut self, buffers: &Buffers) {
        if self.is_empty() {
            self.release(buffers);
        }
    }

    /// Lends the buffer to an operation, with the range that holds bytes.
    pub(super) fn lend(&mut self) -> (Vec<u8>, std::ops::Range<usize>) {
        (std::mem::take(&mut self.buffer), self.start..self.end)
    }

    /// Takes the buffer back from an operation; the range is what it was.
    pub(super) fn returned(&mut self, buffer: Vec<u8>) {
        self.buffer = buffer;
    }
}

/// Buffers of one size.
struct Shelf {
    free: RefCell<Vec<Vec<u8>>>,
    size: usize,
    kept: usize,
}

impl Shelf {
    fn new(size: usize, kept: usize) -> Self {
        Self {
            free: RefCell::default(),
            size,
            kept,
        }
    }

    fn lend(&self) -> Vec<u8> {
        let free = self.free.borrow_mut().pop();
        free.unwrap_or_else(|| vec![0; self.size])
    }

    fn take_back(&self, buffer: Vec<u8>) {
        let mut free = self.free.borrow_mut();
        if free.len() < self.kept {
            free.push(buffer);
        }
    }
}

/// The buffers a worker keeps.
pub(super) struct Buffers {
    small: Shelf,
    middle: Shelf,
    large: Shelf,
}

impl Buffers {
    /// Buffers of which the large ones hold at least `bulk` plaintext bytes after encryption.
    pub(super) fn new(bulk: usize) -> Self {
        let bulk = bulk.max(RECORD_PLAINTEXT);
        Self {
            small: Shelf::new(SMALL, KEPT_SMALL),
            middle: Shelf::new(MIDDLE, KEPT_MIDDLE),
            large: Shelf::new(SKEW + sealed_size(bulk), KEPT_LARGE),
        }
    }

    /// A buffer that holds at least `len` bytes.
    pub(super) fn holding(&self, len: usize) -> Vec<u8> {
        let mut shelves = [&self.small, &self.middle, &self.large].into_iter();
        match shelves.find(|shelf| len <= shelf.size) {
            Some(shelf) => shelf.lend(),
            None => vec![0; len],
        }
    }

    /// How many plaintext bytes may be read into a large buffer so that they fit another one sealed.
    pub(super) fn bulk(&self) -> usize {
        plaintext_within(self.large.size - SKEW)
    }

    /// Takes a buffer back.
    pub(super) fn give_back(&self, buffer: Vec<u8>) {
        let mut shelves = [&self.small, &self.middle, &self.large].into_iter();
        if let Some(shelf) = shelves.find(|shelf| buffer.len() == shelf.size) {
            shelf.take_back(buffer);
        }
    }
}

/// Bytes of the records that seal `plaintext` bytes, at most.
pub(super) fn sealed_size(plaintext: usize) -> usize {
    plaintext + plaintext.div_ceil(RECORD_PLAINTEXT).max(1) * RECORD_OVERHEAD
}

/// Plaintext bytes that fit `sealed` bytes of records.
pub(super) fn plaintext_within(sealed: usize) -> usize {
    let whole = sealed / (RECORD_PLAINTEXT + RECORD_OVERHEAD);
    let rest = sealed % (RECORD_PLAINTEXT + RECORD_OVERHEAD);
    whole * RECORD_PLAINTEXT + rest.saturating_sub(RECORD_OVERHEAD)
}

/// Where the bytes begin in a buffer.
///
/// rustls copies plaintext into a record of its own, five bytes behind its header, and large blocks of
/// memory begin on a page. So source and destination would lie the same way in their pages but for
/// those five bytes, and there `rep movsb`, which the C library copies with, is twenty times slower on
/// AMD's Zen 3 and 4 (from 1 to 31 bytes; glibc bug 30994). It took a third of a bulk transfer's CPU.
const SKEW: usize = 64;

/// Size of a small buffer: most ClientHellos, requests and short answers fit.
const SMALL: usize = 4 * 1024;

/// Size of a middle buffer: the longest TLS record (RFC 5246 section 6.2.3: 2^14 + 2048 bytes and a
/// header of 5), rounded up.
const MIDDLE: usize = 18 * 1024 + 64 + SKEW;

/// Plaintext of a full record (RFC 8446 section 5.1).
pub(super) const RECORD_PLAINTEXT: usize = 16 * 1024;

/// What sealing adds to a record at most: header 5, explicit nonce 8, tag 16, content type 1, and
/// room to spare for a key update that goes before.
const RECORD_OVERHEAD: usize = 64;

/// Small buffers kept for the next connection: 1 MiB.
const KEPT_SMALL: usize = 256;

/// Middle buffers kept: 0.6 MiB.
const KEPT_MIDDLE: usize = 32;

/// Large buffers kept: 2 MiB at the default read size.
const KEPT_LARGE: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_in_bulk_fits_a_buffer_when_sealed() {
        for bulk in [1, 16 * 1024, 100_000, 256 * 1024] {
            let buffers = Buffers::new(bulk);
            assert!(buffers.bulk() >= bulk);
            assert!(SKEW + sealed_size(buffers.bulk()) <= buffers.large.size);
        }
    }

    #[test]
    fn bytes_never_begin_where_their_buffer_does() {
        let buffers = Buffers::new(256 * 1024);
        let mut chunk = Chunk::default();
        let skewed = |chunk: &Chunk| {
            assert_eq!(
                chunk.bytes().as_ptr(),
                chunk.buffer[SKEW..].as_ptr(),
                "{} bytes",
                chunk.len()
            );
        };
        for grown in [1, SMALL, 100_000] {
            chunk.append(&vec![7; grown], &buffers);
            skewed(&chunk);
        }
        chunk.consume(100_000);
        chunk.room(buffers.bulk() - chunk.len(), &buffers);
        skewed(&chunk);
        chunk.consume(chunk.len());
        chunk.append(b"again", &buffers);
        skewed(&chunk);
    }

    #[test]
    fn a_chunk_keeps_its_bytes_when_it_grows() {
        let buffers = Buffers::new(256 * 1024);
        let mut chunk = Chunk::default();
        let bytes: Vec<u8> = (0..100_000u32).map(|i| i as u8).collect();
        for part in bytes.chunks(7_000) {
            chunk.append(part, &buffers);
        }
        assert_eq!(chunk.bytes(), bytes);
        chunk.consume(99_990);
        chunk.room(MIDDLE, &buffers);
        assert_eq!(chunk.bytes(), &bytes[99_990..]);
        chunk.consume(10);
        assert!(chunk.is_empty());
    }

    #[test]
    fn a_buffer_of_another_size_is_not_kept() {
        let buffers = Buffers::new(256 * 1024);
        buffers.give_back(vec![0; 5]);
        assert_eq!(buffers.holding(1).len(), SMALL);
    }
}
