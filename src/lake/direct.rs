//! Writing a large file around the system's cache. The cache would be filled with what nobody reads soon, page by page and
//! with a copy, only to be emptied by the fsync that follows: several times the CPU time, and on a fast disk most of the
//! time of a commit.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};

use object_store::PutPayload;

/// From this size on it pays: below it, the fsync costs more than the copy.
pub(crate) const FROM_BYTES: usize = 1 << 20;

/// What is written at a time; more than enough to keep a disk busy.
const CHUNK: usize = 1 << 20;

/// Addresses and lengths have to be multiples of the disk's block, which is this or a part of it.
const BLOCK: usize = 4096;

/// How to open a file for [`write`]; without the flag where the system has none.
pub(crate) fn options() -> OpenOptions {
    #[allow(unused_mut, reason = "no flag elsewhere")]
    let mut options = OpenOptions::new();
    #[cfg(target_os = "linux")]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_DIRECT);
    options
}

/// Fills an empty file. `InvalidInput` comes from file systems that cannot do it, at open or here.
pub(crate) fn write(mut file: &File, payload: &PutPayload) -> io::Result<()> {
    let mut memory = vec![0; CHUNK + BLOCK];
    let start = memory.as_ptr().align_offset(BLOCK).min(BLOCK);
    let chunk = &mut memory[start..start + CHUNK];
    let mut filled = 0;
    for mut part in payload.iter().map(|part| &part[..]) {
        while !part.is_empty() {
            let (now, later) = part.split_at(part.len().min(CHUNK - filled));
            chunk[filled..filled + now.len()].copy_from_slice(now);
            filled += now.len();
            part = later;
            if filled == CHUNK {
                file.write_all(chunk)?;
                filled = 0;
            }
        }
    }
    if filled > 0 {
        // The last block is written whole; what is beyond the end is cut off again.
        let whole = filled.next_multiple_of(BLOCK);
        chunk[filled..whole].fill(0);
        file.write_all(&chunk[..whole])?;
        file.set_len(payload.content_length() as u64)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn test_files_of_any_length_and_any_parts_come_back_as_they_were() {
        let folder = tempfile::tempdir().unwrap();
        let content: Vec<u8> = (0..CHUNK * 2 + 5000).map(|n| (n * 31 % 251) as u8).collect();
        for length in [1, BLOCK - 1, BLOCK, CHUNK - 1, CHUNK, CHUNK + 1, CHUNK * 2, CHUNK * 2 + 5000] {
            for part in [1 << 30, CHUNK, 777_777, BLOCK + 1] {
                let payload: PutPayload = content[..length].chunks(part).map(Bytes::copy_from_slice).collect();
                let path = folder.path().join(format!("{length}-{part}"));
                match options().write(true).create_new(true).open(&path).and_then(|file| write(&file, &payload)) {
                    Err(error) if error.kind() == io::ErrorKind::InvalidInput => return,
                    written => written.unwrap(),
                }
                assert!(std::fs::read(&path).unwrap() == content[..length], "{length} in parts of {part}");
            }
        }
    }
}
