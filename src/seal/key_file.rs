//! The file that holds the keys.
//!
//! Plain text, one key per line: its id, when it was made (RFC 3339), and its 32 bytes.
//!
//! ```text
//! # comment
//! k-9f86d081884c7d65 2026-01-31T12:00:00Z GIGyWSVgyl5ZvOv5cYySGSUSfoSvJtsdCmISi9u0G/Q=
//! ```
//!
//! - Fields are separated by spaces or tabs. Empty lines, and lines that begin with `#`, say nothing. Lines end
//!   with LF or CRLF, the last one also without.
//! - An id is 1 to 64 letters, digits, `.`, `_` or `-`. Two keys with one id are refused.
//! - 64 characters are read as hexadecimal, in either case; anything else as standard base64, padding optional.
//! - The key with the latest time seals; of two with the same time, the one further down.
//! - Only the owner may read the file.
//!
//! It is no TOML, because a general parser would leave copies of the keys in memory.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use ring::rand::{SecureRandom as _, SystemRandom};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use zeroize::Zeroizing;

use super::{KEY_BYTES, Kek, KeyRing};
use crate::domain::timestamp::Timestamp;

/// The largest key file that is read, in bytes. A line has about 90.
const MAX_FILE_BYTES: usize = 65_536;

const MAX_ID_BYTES: usize = 64;

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A key file on disk.
#[derive(Debug, Clone, Copy)]
pub struct KeyFile;

/// Why a key file could not be used or made. Names the file and the line, never what stands there.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// It cannot be read.
    #[error("cannot read the key file {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// It is a directory, a pipe or a device, or larger than any key file.
    #[error("{} is not a key file: it must be a regular file of at most 64 KiB", path.display())]
    NotAKeyFile {
        /// The file.
        path: PathBuf,
    },
    /// Others than the owner may use it.
    #[error(
        "the key file {0} has mode {mode:04o}, so others than its owner can use it; run: chmod 600 {0}",
        path.display()
    )]
    TooOpen {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A line is wrong.
    #[error("the key file {}, line {line}: {problem}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Which line, from 1 on.
        line: usize,
        /// What is wrong with it.
        problem: KeyProblem,
    },
    /// It holds no key.
    #[error("the key file {} holds no key; `gitmoor keys init` makes a new file", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// There is a file already; nothing was changed.
    #[error("{} exists already and is left as it is: a lost key cannot be replaced", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// It cannot be written; what was begun was removed.
    #[error("cannot write the key file {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}

/// What is wrong with one line of a key file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyProblem {
    /// Not three fields.
    #[error("expected three fields: id, time of creation, key")]
    Fields,
    /// Not UTF-8.
    #[error("not a text in UTF-8")]
    NotText,
    /// The id has a character that no id has, or too many of them.
    #[error("the id must be 1 to 64 letters, digits, '.', '_' or '-'")]
    Id,
    /// Another line has that id.
    #[error("the id stands on an earlier line too")]
    DuplicateId,
    /// Another line has that key.
    #[error("the key stands on an earlier line too, under another id")]
    DuplicateKey,
    /// The time does not parse.
    #[error("the time must look like 2026-01-31T12:00:00Z")]
    Time,
    /// The key is neither hexadecimal nor base64.
    #[error("the key must be 64 hexadecimal digits or 32 bytes in base64")]
    Encoding,
    /// The key has the wrong length.
    #[error("the key has {found} bytes and must have 32")]
    Length {
        /// How many it has.
        found: usize,
    },
    /// The key is all zeros.
    #[error("the key is all zeros")]
    Zero,
}

impl KeyFile {
    /// Makes a key file with one new key, mode 0600, durable when this returns. Returns the key's id.
    ///
    /// # Errors
    ///
    /// [`KeyFileError::Exists`], [`KeyFileError::Write`]. An existing file is never touched.
    pub fn create(path: &Path, now: Timestamp) -> Result<String, KeyFileError> {
        let write_error = |source| KeyFileError::Write { path: path.to_owned(), source };
        let (id, text) = new_key(now).map_err(write_error)?;
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(|source| {
                match source.kind() {
                    io::ErrorKind::AlreadyExists => KeyFileError::Exists { path: path.to_owned() },
                    _ => write_error(source),
                }
            })?;
        let written =
            file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).and_then(|()| sync_folder(path));
        if let Err(source) = written {
            // Half a key file would only be in the way; the error that matters is the first one.
            let _ = std::fs::remove_file(path);
            return Err(write_error(source));
        }
        Ok(id)
    }
}

impl KeyRing {
    /// Reads a key file.
    ///
    /// # Errors
    ///
    /// All of [`KeyFileError`] but `Exists` and `Write`.
    pub fn load(path: &Path) -> Result<Self, KeyFileError> {
        let read_error = |source| KeyFileError::Read { path: path.to_owned(), source };
        let mut file = File::open(path).map_err(read_error)?;
        // Asked of the open file, so that nobody can exchange it in between.
        let metadata = file.metadata().map_err(read_error)?;
        if !metadata.is_file() || metadata.len() > MAX_FILE_BYTES as u64 {
            return Err(KeyFileError::NotAKeyFile { path: path.to_owned() });
        }
        let mode = metadata.permissions().mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(KeyFileError::TooOpen { path: path.to_owned(), mode });
        }
        let mut text = Zeroizing::new(vec![0; MAX_FILE_BYTES + 1]);
        let length = read_up_to(&mut file, &mut text).map_err(read_error)?;
        if length > MAX_FILE_BYTES {
            return Err(KeyFileError::NotAKeyFile { path: path.to_owned() });
        }
        Self::parse(text.get(..length).unwrap_or_default(), path)
    }

    /// Reads the content of a key file; `path` is for the errors.
    pub(super) fn parse(content: &[u8], path: &Path) -> Result<Self, KeyFileError> {
        let mut keys: Vec<(OffsetDateTime, Kek)> = Vec::new();
        for (index, line) in content.split(|&byte| byte == b'\n').enumerate() {
            let problem = match parse_line(line) {
                Ok(None) => continue,
                Ok(Some((_, key))) if keys.iter().any(|(_, other)| other.id == key.id) => {
                    KeyProblem::DuplicateId
                }
                Ok(Some((_, key))) if keys.iter().any(|(_, other)| other.bytes == key.bytes) => {
                    KeyProblem::DuplicateKey
                }
                Ok(Some(key)) => {
                    keys.push(key);
                    continue;
                }
                Err(problem) => problem,
            };
            return Err(KeyFileError::Line { path: path.to_owned(), line: index + 1, problem });
        }
        if keys.is_empty() {
            return Err(KeyFileError::Empty { path: path.to_owned() });
        }
        // Stable: of two keys with the same time, the one further down counts as the newer.
        keys.sort_by_key(|(created, _)| *created);
        Ok(Self { keys: keys.into_iter().map(|(_, key)| key).collect(), random: SystemRandom::new() })
    }
}

/// Whether a text can be the id of a key: nothing in it can disturb a log line or a shell.
pub(super) fn is_key_id(text: &str) -> bool {
    (1..=MAX_ID_BYTES).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

fn parse_line(line: &[u8]) -> Result<Option<(OffsetDateTime, Kek)>, KeyProblem> {
    let line = std::str::from_utf8(line).map_err(|_| KeyProblem::NotText)?.trim_ascii();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let mut fields = line.split_ascii_whitespace();
    let (Some(id), Some(created), Some(key), None) =
        (fields.next(), fields.next(), fields.next(), fields.next())
    else {
        return Err(KeyProblem::Fields);
    };
    if !is_key_id(id) {
        return Err(KeyProblem::Id);
    }
    let created = OffsetDateTime::parse(created, &Rfc3339).map_err(|_| KeyProblem::Time)?;
    Ok(Some((created, Kek { id: id.to_owned(), bytes: decode_key(key)? })))
}

fn decode_key(text: &str) -> Result<Zeroizing<[u8; KEY_BYTES]>, KeyProblem> {
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    if text.len() == 2 * KEY_BYTES && text.is_ascii() {
        for (byte, digits) in key.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            *byte = digits.iter().try_fold(0, |sum, &digit| {
                let value = char::from(digit).to_digit(16).ok_or(KeyProblem::Encoding)?;
                u8::try_from(value).map(|value| sum << 4 | value).map_err(|_| KeyProblem::Encoding)
            })?;
        }
    } else {
        // Room for everything that the text could stand for, so that a wrong length can be told.
        let mut bytes = Zeroizing::new(vec![0; base64::decoded_len_estimate(text.len())]);
        let found = BASE64.decode_slice(text, &mut bytes).map_err(|_| KeyProblem::Encoding)?;
        if found != KEY_BYTES {
            return Err(KeyProblem::Length { found });
        }
        key.copy_from_slice(bytes.get(..KEY_BYTES).unwrap_or_default());
    }
    if key.iter().all(|&byte| byte == 0) {
        return Err(KeyProblem::Zero);
    }
    Ok(key)
}

/// The id and the whole text of a file with one new key.
fn new_key(now: Timestamp) -> io::Result<(String, Zeroizing<String>)> {
    let random = SystemRandom::new();
    let mut id = [0; 8];
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    random
        .fill(&mut id)
        .and_then(|()| random.fill(&mut *key))
        .map_err(|_| io::Error::other("the operating system gave no random bytes"))?;
    let id = id.iter().fold("k-".to_owned(), |id, byte| id + &format!("{byte:02x}"));
    let created = OffsetDateTime::from_unix_timestamp(now.unix_seconds())
        .map_err(io::Error::other)?
        .format(&Rfc3339)
        .map_err(io::Error::other)?;
    let key = Zeroizing::new(STANDARD.encode(key.as_slice()));
    let text = format!(
        "# Gitmoor key file: id, time of creation, key. Keep a copy in a safe place, apart from the data:\n\
         # without this key the stored tokens cannot be read.\n{id} {created} {}\n",
        *key
    );
    Ok((id, Zeroizing::new(text)))
}

/// Makes the new name in a folder durable, not only the file behind it.
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(folder)?.sync_all()
}

fn read_up_to(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    loop {
        match file.read(buffer.get_mut(length..).unwrap_or_default()) {
            Ok(0) => return Ok(length),
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1E1F";

    fn base64_of(bytes: &[u8]) -> String {
        STANDARD.encode(bytes)
    }

    fn ring(text: &str) -> Result<KeyRing, KeyFileError> {
        KeyRing::parse(text.as_bytes(), Path::new("the.key"))
    }

    fn problem(text: &str) -> (usize, KeyProblem) {
        match ring(text) {
            Err(KeyFileError::Line { line, problem, .. }) => (line, problem),
            other => panic!("expected a refused line, got {other:?}"),
        }
    }

    #[test]
    fn s27_hexadecimal_and_base64_are_accepted_with_any_line_end() {
        let bytes: Vec<u8> = (0..32).collect();
        let padded = base64_of(&bytes);
        for key in [HEX, &padded, padded.trim_end_matches('=')] {
            for end in ["", "\n", "\r\n", "\n\n \n# comment\n"] {
                let ring = ring(&format!("# first\nk1 2026-01-01T00:00:00Z\t{key}{end}")).expect("accepted");
                assert_eq!(ring.keys[0].bytes.as_slice(), bytes, "{key:?} {end:?}");
            }
        }
    }

    #[test]
    fn s27_a_bad_key_is_refused_with_its_line_and_without_an_echo() {
        let line = |key: &str| format!("\nk1 2026-01-01T00:00:00Z {key}");
        assert_eq!(problem(&line(&base64_of(&[7; 31]))), (2, KeyProblem::Length { found: 31 }));
        assert_eq!(problem(&line(&base64_of(&[7; 33]))), (2, KeyProblem::Length { found: 33 }));
        assert_eq!(problem(&line(&base64_of(&[0; 32]))), (2, KeyProblem::Zero));
        assert_eq!(problem(&line(&"0".repeat(64))), (2, KeyProblem::Zero));
        assert_eq!(problem(&line(&"g".repeat(64))), (2, KeyProblem::Encoding));
        assert_eq!(problem(&line("not*base64")), (2, KeyProblem::Encoding));
        assert_eq!(problem(HEX), (1, KeyProblem::Fields));
        assert_eq!(problem(&format!("k/1 2026-01-01T00:00:00Z {HEX}")), (1, KeyProblem::Id));
        assert_eq!(problem(&format!("k1 yesterday {HEX}")), (1, KeyProblem::Time));
        let error = ring(&line(&"CANARY".repeat(9))).expect_err("refused");
        assert!(!format!("{error} {error:?}").contains("CANARY"));
    }

    #[test]
    fn two_keys_with_one_id_and_one_key_with_two_ids_are_refused() {
        let other = base64_of(&[9; 32]);
        let at = "2026-01-01T00:00:00Z";
        assert_eq!(problem(&format!("a {at} {HEX}\na {at} {other}")), (2, KeyProblem::DuplicateId));
        assert_eq!(problem(&format!("a {at} {HEX}\nb {at} {HEX}")), (2, KeyProblem::DuplicateKey));
        assert!(matches!(ring("# nothing\n"), Err(KeyFileError::Empty { .. })));
    }

    #[test]
    fn the_latest_key_seals_wherever_it_stands() {
        let keys: Vec<_> = (1..=3).map(|n| base64_of(&[n; 32])).collect();
        let ring = ring(&format!(
            "new 2026-01-02T00:00:00+02:00 {}\nold 2026-01-01T00:00:00Z {}\nmiddle 2026-01-01T00:00:00Z {}",
            keys[0], keys[1], keys[2]
        ))
        .expect("accepted");
        assert_eq!(ring.key_ids().collect::<Vec<_>>(), ["old", "middle", "new"]);
        assert_eq!(ring.newest_id(), "new");
    }

    #[test]
    fn a_new_file_is_private_loads_and_is_never_overwritten() {
        let folder = tempfile::tempdir().expect("tempdir");
        let path = folder.path().join("gitmoor.key");
        let id = KeyFile::create(&path, Timestamp::from_unix_seconds(1_800_000_000)).expect("made");
        let mode = std::fs::metadata(&path).expect("metadata").permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
        let before = std::fs::read(&path).expect("read");
        assert_eq!(KeyRing::load(&path).expect("loads").newest_id(), id);
        assert!(matches!(KeyFile::create(&path, Timestamp::default()), Err(KeyFileError::Exists { .. })));
        assert_eq!(std::fs::read(&path).expect("read"), before);
    }

    #[test]
    fn a_file_that_others_can_read_is_refused_with_the_cure() {
        let folder = tempfile::tempdir().expect("tempdir");
        let path = folder.path().join("gitmoor.key");
        KeyFile::create(&path, Timestamp::default()).expect("made");
        for mode in [0o640, 0o604, 0o620] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("chmod");
            let error = KeyRing::load(&path).expect_err("refused");
            assert!(error.to_string().contains(&format!("chmod 600 {}", path.display())), "{error}");
        }
    }

    #[test]
    fn what_is_no_file_or_too_large_is_refused() {
        let folder = tempfile::tempdir().expect("tempdir");
        assert!(matches!(KeyRing::load(folder.path()), Err(KeyFileError::NotAKeyFile { .. })));
        assert!(matches!(KeyRing::load(&folder.path().join("none")), Err(KeyFileError::Read { .. })));
        let path = folder.path().join("large");
        std::fs::write(&path, vec![b'#'; MAX_FILE_BYTES + 1]).expect("write");
        assert!(matches!(KeyRing::load(&path), Err(KeyFileError::NotAKeyFile { .. })));
    }
}
