//! A small file beside the log that says how many commits are durable.
//!
//! The log's own recovery stops at the first damaged place and quietly cuts off what follows, which leaves an
//! older but consistent store. The watermark tells that apart from a store that was never further: it is
//! written after a commit is durable and before its acknowledgement, so it never claims more than the disk
//! has, and after a process is killed it claims all that was acknowledged. It is not forced to disk with each
//! commit (that would cost a second disk flush), so after a power cut it may be some seconds behind: then it
//! notices less, but never cries wolf.
//!
//! Two slots are written in turn, so that a write that is torn in the middle damages one that is older.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

const MAGIC: [u8; 4] = *b"GmW1";
const SLOT_BYTES: usize = 16;
/// Slots lie in blocks of their own, since a disk tears at blocks.
const SLOT_DISTANCE: u64 = 4096;

/// The open file.
#[derive(Debug)]
pub(super) struct Watermark {
    file: File,
    /// Where the next note goes.
    slot: u64,
}

impl Watermark {
    /// Opens the file, or makes it.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path)?;
        Ok(Self { file, slot: 0 })
    }

    /// The highest number of commits that was ever noted; 0 if there is no readable note.
    pub(super) fn read(&mut self) -> io::Result<u64> {
        let mut highest = 0;
        for slot in [0, 1] {
            let mut bytes = [0; SLOT_BYTES];
            match self.file.read_exact_at(&mut bytes, slot * SLOT_DISTANCE) {
                Ok(()) => {
                    let noted = decode(&bytes).unwrap_or(0);
                    if noted > highest {
                        highest = noted;
                        self.slot = 1 - slot;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
                Err(error) => return Err(error),
            }
        }
        Ok(highest)
    }

    /// Notes that `commits` are durable.
    pub(super) fn write(&mut self, commits: u64) -> io::Result<()> {
        self.file.write_all_at(&encode(commits), self.slot * SLOT_DISTANCE)?;
        self.slot = 1 - self.slot;
        Ok(())
    }

    /// Forces the last note to disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

fn encode(commits: u64) -> [u8; SLOT_BYTES] {
    let mut bytes = [0; SLOT_BYTES];
    bytes[..4].copy_from_slice(&MAGIC);
    bytes[4..12].copy_from_slice(&commits.to_le_bytes());
    let checksum = crc32fast::hash(&bytes[..12]);
    bytes[12..].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

fn decode(bytes: &[u8; SLOT_BYTES]) -> Option<u64> {
    let commits = u64::from_le_bytes(bytes[4..12].try_into().ok()?);
    (encode(commits) == *bytes).then_some(commits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_note_leaves_the_one_before() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("watermark");
        let mut watermark = Watermark::open(&path).expect("opens");
        assert_eq!(watermark.read().expect("reads"), 0);
        watermark.write(6).expect("writes");
        watermark.write(7).expect("writes");
        assert_eq!(watermark.read().expect("reads"), 7);
        watermark.file.write_all_at(&[0xff; 5], SLOT_DISTANCE + 6).expect("writes");
        assert_eq!(Watermark::open(&path).expect("opens").read().expect("reads"), 6);
    }
}
