//! The way in for the fuzz target and the benchmark of PROXY headers. Nothing in clinch itself calls this.

use super::proxy::{Reading, read};

/// Reads bytes as the beginning of a connection that may have a PROXY header; its length, if it is
/// there in full.
///
/// # Panics
/// When the reading contradicts itself: a header longer than the bytes, one that needs bytes after
/// its end, or a beginning of it that is refused.
pub fn proxy_header(bytes: &[u8]) -> Option<usize> {
    let reading = read(bytes);
    let Reading::Header { len, .. } = reading else {
        return None;
    };
    let header = bytes.get(..len).expect("the header was read");
    assert_eq!(read(header), reading, "the header needs what follows");
    for end in 0..len {
        let beginning = read(&header[..end]);
        assert_eq!(beginning, Reading::Incomplete, "of {end} of {len} bytes");
    }
    Some(len)
}

/// The length of a PROXY header that is there in full, read once.
pub fn proxy_header_length(bytes: &[u8]) -> Option<usize> {
    match read(bytes) {
        Reading::Header { len, .. } => Some(len),
        _ => None,
    }
}
