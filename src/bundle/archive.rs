//! Reads the tar archive inside a bundle within bounds, in one pass, without writing anything anywhere.
//!
//! Invariants: memory is bounded by [`Limits`]; every byte up to the end of the compressed stream is looked at, so
//! that nothing can hide behind the archive; only plain files and directories under plain relative names pass.

use super::error::{ReadError, shown};
use super::manifest::MANIFEST_NAME;
use super::pax;
use super::stream::{Unpacked, Workspace};
use std::collections::BTreeSet;
use std::io::Read;
use tar::{EntryType, Header};

const BLOCK: usize = 512;
/// The longest entry name, in bytes.
const MAX_NAME: usize = 255;
/// Bytes of an entry that room is made for at a time.
const STEP: u64 = 1 << 20;
const ELF_MAGIC: &[u8] = b"\x7fELF";

/// What one bundle may cost. The default is wide for real bundles, which are below a few megabytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the compressed file.
    pub max_packed_bytes: u64,
    /// Bytes of the archive after decompression.
    pub max_unpacked_bytes: u64,
    /// Unpacked bytes for each compressed one; looked at from the first megabyte on.
    pub max_ratio: u64,
    /// Entries of any kind, extended headers included.
    pub max_entries: u64,
    /// Bytes of the kernel module; they are held in memory.
    pub max_module_bytes: u64,
    /// Bytes of `metadata.json`; they are held in memory.
    pub max_metadata_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_packed_bytes: 64 << 20,
            max_unpacked_bytes: 128 << 20,
            max_ratio: 200,
            max_entries: 1_000,
            max_module_bytes: 64 << 20,
            max_metadata_bytes: 1 << 20,
        }
    }
}

/// One file in a bundle.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Entry {
    /// Its relative path, with `/` between components.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
}

/// What an archive held.
#[derive(Debug)]
pub(super) struct Archive {
    /// Every file, in archive order; directories are left out.
    pub(super) entries: Vec<Entry>,
    /// The name of the entry that is the module.
    pub(super) module_entry: String,
    /// The module, with its signature.
    pub(super) module: Vec<u8>,
    /// The content of `metadata.json`, if there is one, whoever wrote it.
    pub(super) metadata: Option<Vec<u8>>,
}

/// Reads a whole bundle.
pub(super) fn read(
    reader: impl Read,
    limits: &Limits,
    workspace: &mut Workspace,
) -> Result<Archive, ReadError> {
    Walk {
        stream: Unpacked::new(reader, limits, workspace),
        limits: *limits,
        headers: 0,
        seen: BTreeSet::new(),
        entries: Vec::new(),
        module: None,
        metadata: None,
    }
    .run()
}

struct Walk<'a, R> {
    stream: Unpacked<'a, R>,
    limits: Limits,
    headers: u64,
    seen: BTreeSet<String>,
    entries: Vec<Entry>,
    module: Option<(String, Vec<u8>)>,
    metadata: Option<Vec<u8>>,
}

impl<R: Read> Walk<'_, R> {
    fn run(mut self) -> Result<Archive, ReadError> {
        let mut long_name: Option<Vec<u8>> = None;
        while let Some(block) = self.header()? {
            let header = Header::from_byte_slice(&block);
            let size = entry_size(header)?;
            let kind = header.entry_type();
            match kind {
                EntryType::XHeader | EntryType::XGlobalHeader | EntryType::GNULongName => {
                    let data = self.extension(size)?;
                    let name = if kind == EntryType::GNULongName {
                        Some(pax::gnu_long_name(&data)?)
                    } else {
                        pax::path(&data)?
                    };
                    if name.is_some() && (long_name.is_some() || kind == EntryType::XGlobalHeader) {
                        return Err(tar_error(
                            "a name is set for several entries, or twice for one",
                        ));
                    }
                    long_name = name.or(long_name);
                }
                EntryType::Regular | EntryType::Directory => {
                    let raw = long_name
                        .take()
                        .unwrap_or_else(|| header.path_bytes().into_owned());
                    self.entry(&raw, kind, size)?;
                }
                other => {
                    let raw = long_name
                        .take()
                        .unwrap_or_else(|| header.path_bytes().into_owned());
                    return Err(ReadError::EntryKind {
                        name: shown(&String::from_utf8_lossy(&raw)),
                        kind: kind_text(other),
                    });
                }
            }
        }
        if long_name.is_some() {
            return Err(tar_error("an extended header stands before no entry"));
        }
        self.rest_is_empty()?;
        match self.module {
            Some((module_entry, module)) => Ok(Archive {
                entries: self.entries,
                module_entry,
                module,
                metadata: self.metadata,
            }),
            None => Err(ReadError::NoModule {
                files: self.entries.len(),
            }),
        }
    }

    /// The next header, or nothing at the archive's end mark.
    fn header(&mut self) -> Result<Option<[u8; BLOCK]>, ReadError> {
        let mut block = [0; BLOCK];
        self.block(&mut block)?;
        if block.iter().all(|b| *b == 0) {
            self.block(&mut block)?;
            if block.iter().any(|b| *b != 0) {
                return Err(tar_error("one empty block where two mark the end"));
            }
            return Ok(None);
        }
        self.headers += 1;
        if self.headers > self.limits.max_entries {
            return Err(ReadError::TooManyEntries {
                limit: self.limits.max_entries,
            });
        }
        let sum: u32 = block
            .iter()
            .enumerate()
            .map(|(at, b)| u32::from(if (148..156).contains(&at) { b' ' } else { *b }))
            .sum();
        if Header::from_byte_slice(&block).cksum().ok() != Some(sum) {
            return Err(tar_error("a header's checksum is wrong"));
        }
        Ok(Some(block))
    }

    fn block(&mut self, block: &mut [u8; BLOCK]) -> Result<(), ReadError> {
        if self.stream.read_full(block)? < BLOCK {
            return Err(truncated("the archive, before its end mark"));
        }
        Ok(())
    }

    fn extension(&mut self, size: u64) -> Result<Vec<u8>, ReadError> {
        if size > pax::MAX_EXTENSION {
            return Err(tar_error(format!(
                "an extended header of {size} bytes; at most {} are allowed",
                pax::MAX_EXTENSION
            )));
        }
        let mut data = Vec::new();
        self.data(size, Some(&mut data), "an extended header")?;
        Ok(data)
    }

    fn entry(&mut self, raw: &[u8], kind: EntryType, size: u64) -> Result<(), ReadError> {
        let Some(name) = plain_name(raw, kind == EntryType::Directory)? else {
            return self.data(size, None, "the root directory's entry");
        };
        if !self.seen.insert(name.clone()) {
            return Err(ReadError::DuplicateName { name });
        }
        if kind == EntryType::Directory {
            if size > 0 {
                return Err(tar_error(format!("directory {name:?} has content")));
            }
            return Ok(());
        }
        self.file(name, size)
    }

    fn file(&mut self, name: String, size: u64) -> Result<(), ReadError> {
        self.entries.push(Entry {
            name: name.clone(),
            size,
        });
        // A module is known by its content or by its name: one under a false name must not slip through as data.
        let mut start = [0; 4];
        let start = &mut start[..size.min(4) as usize];
        if self.stream.read_full(start)? < start.len() {
            return Err(truncated(&name));
        }
        let is_module = start == ELF_MAGIC || has_module_suffix(&name);
        let limit = if is_module {
            self.limits.max_module_bytes
        } else if name == MANIFEST_NAME {
            self.limits.max_metadata_bytes
        } else {
            self.limits.max_unpacked_bytes
        };
        if size > limit {
            return Err(ReadError::EntryTooLarge { name, size, limit });
        }
        if is_module && let Some((first, _)) = &self.module {
            return Err(ReadError::SeveralModules {
                first: first.clone(),
                second: name,
            });
        }
        if !is_module && name != MANIFEST_NAME {
            return self.tail(start.len(), size, None, &name);
        }
        let mut data = start.to_vec();
        self.tail(start.len(), size, Some(&mut data), &name)?;
        if is_module {
            self.module = Some((name, data));
        } else {
            self.metadata = Some(data);
        }
        Ok(())
    }

    fn data(&mut self, size: u64, keep: Option<&mut Vec<u8>>, what: &str) -> Result<(), ReadError> {
        self.tail(0, size, keep, what)
    }

    /// Reads what is left of an entry of `size` bytes after `done` of them, and the padding behind it.
    fn tail(
        &mut self,
        done: usize,
        size: u64,
        mut keep: Option<&mut Vec<u8>>,
        what: &str,
    ) -> Result<(), ReadError> {
        let mut buf = [0; 8 << 10];
        let mut left = size - done as u64;
        while left > 0 {
            let read = if let Some(keep) = keep.as_deref_mut() {
                // Straight to where it is kept, and never much more room than there are bytes: a size is soon claimed.
                let from = keep.len();
                keep.resize(from + left.min(STEP) as usize, 0);
                let read = self.stream.read_full(&mut keep[from..])?;
                keep.truncate(from + read);
                read
            } else {
                let want = left.min(buf.len() as u64) as usize;
                self.stream.read_some(&mut buf[..want])?
            };
            if read == 0 {
                return Err(truncated(what));
            }
            left -= read as u64;
        }
        let padding = size.next_multiple_of(BLOCK as u64) - size;
        let padding = &mut buf[..padding as usize];
        if self.stream.read_full(padding)? < padding.len() {
            return Err(truncated(what));
        }
        Ok(())
    }

    /// After the end mark tar pads with zeros; anything else would be hidden data.
    fn rest_is_empty(&mut self) -> Result<(), ReadError> {
        let mut buf = [0; 8 << 10];
        loop {
            let read = self.stream.read_some(&mut buf)?;
            if read == 0 {
                return Ok(());
            }
            if buf[..read].iter().any(|b| *b != 0) {
                return Err(tar_error("data follows the archive's end mark"));
            }
        }
    }
}

fn tar_error(why: impl Into<String>) -> ReadError {
    ReadError::Tar { why: why.into() }
}

fn truncated(inside: &str) -> ReadError {
    ReadError::Truncated {
        inside: inside.to_owned(),
    }
}

fn has_module_suffix(name: &str) -> bool {
    name.rsplit('/').next().is_some_and(|file| {
        file.len() > 3 && file.as_bytes()[file.len() - 3..].eq_ignore_ascii_case(b".ko")
    })
}

/// The size in a header. The binary form exists for sizes beyond eight gigabytes only, which are refused anyway.
fn entry_size(header: &Header) -> Result<u64, ReadError> {
    if header.as_old().size[0] & 0x80 != 0 {
        return Err(tar_error("an entry's size is beyond 8 GiB"));
    }
    header
        .entry_size()
        .map_err(|_| tar_error("an entry's size is not a number"))
}

fn kind_text(kind: EntryType) -> String {
    match kind {
        EntryType::Link => "hard link".to_owned(),
        EntryType::Symlink => "symbolic link".to_owned(),
        EntryType::Char => "character device".to_owned(),
        EntryType::Block => "block device".to_owned(),
        EntryType::Fifo => "named pipe".to_owned(),
        EntryType::Continuous => "contiguous file".to_owned(),
        EntryType::GNUSparse => "sparse file".to_owned(),
        EntryType::GNULongLink => "link with a long target".to_owned(),
        other => format!("special entry of type {:?}", char::from(other.as_byte())),
    }
}

/// Checks an entry's name and gives it without a leading `./`; nothing for the root directory itself.
fn plain_name(raw: &[u8], directory: bool) -> Result<Option<String>, ReadError> {
    let refuse = |why| ReadError::UnsafeName {
        name: shown(&String::from_utf8_lossy(raw)),
        why,
    };
    if raw.len() > MAX_NAME {
        return Err(refuse("it is longer than 255 bytes"));
    }
    let text = std::str::from_utf8(raw).map_err(|_| refuse("it is not UTF-8"))?;
    if text.chars().any(|c| c.is_control() || c == '\\') {
        return Err(refuse("it holds a control character or a backslash"));
    }
    if text.starts_with('/') {
        return Err(refuse("it is an absolute path"));
    }
    let text = if directory {
        text.strip_suffix('/').unwrap_or(text)
    } else {
        text
    };
    let inner = text.strip_prefix("./").unwrap_or(text);
    if directory && matches!(text, "." | "./") {
        return Ok(None);
    }
    for part in inner.split('/') {
        match part {
            "" => return Err(refuse("it is empty or has an empty component")),
            "." | ".." => return Err(refuse("it has a . or .. component")),
            _ => {}
        }
    }
    Ok(Some(inner.to_owned()))
}
