//! What a kernel module says about itself: the `.modinfo` section of its ELF file, and the machine it is built for.
//!
//! Its own small reader, because only three structures of ELF are needed and every offset must be checked: the
//! bytes come from outside. Layout: System V ABI, chapter 4; `.modinfo` is a run of `key=value` strings that end in
//! NUL (`modinfo(8)`).

use super::BundleName;
use super::error::{ReadError, shown};
use crate::domain::Architecture;
use std::collections::BTreeMap;

/// Values longer than this are refused; real ones are far below 4 KiB.
const MAX_VALUE: usize = 4 << 10;
/// More `key=value` strings than this are refused.
const MAX_VALUES: usize = 4 << 10;

/// Why a file is not a kernel module that can be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModuleError {
    /// No ELF file at all.
    #[error("it does not begin as an ELF file")]
    NotElf,
    /// An ELF file, but of another kind than a kernel module.
    #[error("it is an ELF file of another kind, not a relocatable object")]
    NotRelocatable,
    /// A structure lies outside the file or contradicts another.
    #[error("its ELF structure is wrong: {0}")]
    Structure(&'static str),
    /// There is no `.modinfo` section.
    #[error("it has no .modinfo section")]
    NoModinfo,
    /// `.modinfo` is not what modpost writes.
    #[error("its .modinfo section is wrong: {0}")]
    Modinfo(String),
    /// Neither vermagic nor name, so nothing ties it to a kernel.
    #[error("it has neither a vermagic nor a name, so nothing says for which kernel it is")]
    Nameless,
}

/// What a kernel module says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModuleInfo {
    /// The module's name; absent in modules of kernels before 4.13.
    pub name: Option<String>,
    /// Kernel release and build options the module was built for.
    pub vermagic: Option<String>,
    /// Whether it declares itself a live patch (`livepatch=Y`).
    pub livepatch: bool,
    /// Modules it needs.
    pub depends: Vec<String>,
    /// ELF class (32 or 64), whether little-endian, and `e_machine`.
    machine: (u8, bool, u16),
}

impl ModuleInfo {
    /// Reads a module; a signature behind it does no harm.
    pub fn read(bytes: &[u8]) -> Result<Self, ModuleError> {
        let elf = Elf::new(bytes)?;
        let values = modinfo(elf.section(b".modinfo")?)?;
        let one = |key: &str| -> Result<Option<String>, ModuleError> {
            match values.get(key).map(Vec::as_slice) {
                None => Ok(None),
                Some([value]) => Ok(Some(value.clone())),
                Some(_) => Err(ModuleError::Modinfo(format!("{key} stands there twice"))),
            }
        };
        let info = Self {
            name: one("name")?,
            vermagic: one("vermagic")?,
            livepatch: one("livepatch")?.is_some_and(|v| v == "Y"),
            depends: one("depends")?
                .iter()
                .flat_map(|all| all.split(','))
                .filter(|name| !name.is_empty())
                .map(str::to_owned)
                .collect(),
            machine: (elf.class, elf.little, elf.machine),
        };
        if info.name.is_none() && info.vermagic.is_none() {
            return Err(ModuleError::Nameless);
        }
        Ok(info)
    }

    /// The first word of the vermagic: the kernel release the module was built for, as `uname -r` says it.
    pub fn release(&self) -> Option<&str> {
        self.vermagic.as_deref()?.split_ascii_whitespace().next()
    }

    /// Holds the module against the bundle's file name. The vermagic decides where there is one, else the name must
    /// be exactly Canonical's. A name in Canonical's form with the number of another patch is refused too: that would
    /// be an older patch under a newer one's name.
    pub(super) fn agree(&self, bundle: &BundleName) -> Result<(), ReadError> {
        let expected = machine(bundle.architecture);
        if self.machine != expected {
            let (class, little, number) = self.machine;
            let order = if little { "little" } else { "big" };
            return Err(ReadError::Disagrees {
                what: "architecture",
                named: bundle.architecture.to_string(),
                source_of: "the module's ELF header",
                found: machine_name(self.machine).map_or_else(
                    || format!("{class}-bit {order}-endian machine number {number}"),
                    |a| a.to_string(),
                ),
            });
        }
        let release = bundle.kernel.release();
        let module_name = bundle.kernel.module_name(bundle.version.major);
        if self.vermagic.is_some() && self.release() != Some(release.as_str()) {
            return Err(ReadError::Disagrees {
                what: "kernel",
                named: release,
                source_of: "the module's vermagic",
                found: shown(self.release().unwrap_or_default()),
            });
        }
        let named = self.name.as_deref().unwrap_or_default();
        if self.vermagic.is_none() && named != module_name {
            return Err(ReadError::Disagrees {
                what: "module",
                named: module_name,
                source_of: "the module's own name",
                found: shown(named),
            });
        }
        if let Some(number) = patch_number(named)
            && number != bundle.version.major.to_string()
        {
            return Err(ReadError::Disagrees {
                what: "patch",
                named: bundle.version.to_string(),
                source_of: "the module's own name",
                found: shown(named),
            });
        }
        Ok(())
    }
}

/// The patch number at the end of a name in Canonical's form.
fn patch_number(name: &str) -> Option<&str> {
    let number = name.strip_prefix("lkp_Ubuntu_")?.rsplit_once('_')?.1;
    let plain = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    plain.then_some(number)
}

/// ELF class, byte order and `e_machine` of an architecture (`EM_*` in `elf.h`).
const fn machine(architecture: Architecture) -> (u8, bool, u16) {
    match architecture {
        Architecture::Amd64 => (64, true, 62),
        Architecture::Arm64 => (64, true, 183),
        Architecture::S390x => (64, false, 22),
        Architecture::Ppc64el => (64, true, 21),
        Architecture::Riscv64 => (64, true, 243),
        Architecture::Armhf => (32, true, 40),
        Architecture::I386 => (32, true, 3),
    }
}

fn machine_name(found: (u8, bool, u16)) -> Option<Architecture> {
    Architecture::ALL.into_iter().find(|a| machine(*a) == found)
}

fn modinfo(section: &[u8]) -> Result<BTreeMap<String, Vec<String>>, ModuleError> {
    let wrong = |why: &str| ModuleError::Modinfo(why.to_owned());
    let mut values: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (count, text) in section
        .split(|b| *b == 0)
        .filter(|t| !t.is_empty())
        .enumerate()
    {
        if count >= MAX_VALUES || text.len() > MAX_VALUE {
            return Err(wrong("more or longer values than any real module has"));
        }
        let equals = text.iter().position(|b| *b == b'=');
        let (key, value) = text.split_at(equals.ok_or_else(|| wrong("a value without a key"))?);
        // Descriptions and author names may be in any encoding; what is compared is ASCII. Control characters must
        // not reach a terminal.
        let text_of =
            |bytes: &[u8]| String::from_utf8_lossy(bytes).replace(char::is_control, "\u{fffd}");
        values
            .entry(text_of(key))
            .or_default()
            .push(text_of(&value[1..]));
    }
    Ok(values)
}

/// The parts of an ELF file that lead to its sections.
struct Elf<'a> {
    bytes: &'a [u8],
    class: u8,
    little: bool,
    machine: u16,
    sections: usize,
    entry: usize,
    count: usize,
    names: usize,
}

impl<'a> Elf<'a> {
    fn new(bytes: &'a [u8]) -> Result<Self, ModuleError> {
        let ident = bytes.get(..16).ok_or(ModuleError::NotElf)?;
        if !ident.starts_with(b"\x7fELF") {
            return Err(ModuleError::NotElf);
        }
        let class = match ident[4] {
            1 => 32,
            2 => 64,
            _ => return Err(ModuleError::Structure("unknown class")),
        };
        let little = match ident[5] {
            1 => true,
            2 => false,
            _ => return Err(ModuleError::Structure("unknown byte order")),
        };
        let mut elf = Self {
            bytes,
            class,
            little,
            machine: 0,
            sections: 0,
            entry: 0,
            count: 0,
            names: 0,
        };
        if elf.half(16)? != 1 {
            return Err(ModuleError::NotRelocatable);
        }
        elf.machine = elf.half(18)?;
        let wide = class == 64;
        elf.sections = elf.address(if wide { 40 } else { 32 })?;
        let tail = if wide { 58 } else { 46 };
        elf.entry = usize::from(elf.half(tail)?);
        elf.count = usize::from(elf.half(tail + 2)?);
        elf.names = usize::from(elf.half(tail + 4)?);
        if elf.entry != if wide { 64 } else { 40 } {
            return Err(ModuleError::Structure("unknown size of a section header"));
        }
        Ok(elf)
    }

    fn bytes_at<const N: usize>(&self, at: usize) -> Result<[u8; N], ModuleError> {
        let end = at.checked_add(N);
        end.and_then(|end| self.bytes.get(at..end))
            .and_then(|slice| slice.try_into().ok())
            .ok_or(ModuleError::Structure("a header lies outside the file"))
    }

    fn half(&self, at: usize) -> Result<u16, ModuleError> {
        let raw = self.bytes_at(at)?;
        Ok(if self.little {
            u16::from_le_bytes(raw)
        } else {
            u16::from_be_bytes(raw)
        })
    }

    fn word(&self, at: usize) -> Result<u32, ModuleError> {
        let raw = self.bytes_at(at)?;
        Ok(if self.little {
            u32::from_le_bytes(raw)
        } else {
            u32::from_be_bytes(raw)
        })
    }

    /// An address-sized field.
    fn address(&self, at: usize) -> Result<usize, ModuleError> {
        let value = if self.class == 32 {
            u64::from(self.word(at)?)
        } else {
            let raw = self.bytes_at(at)?;
            if self.little {
                u64::from_le_bytes(raw)
            } else {
                u64::from_be_bytes(raw)
            }
        };
        usize::try_from(value).map_err(|_| ModuleError::Structure("an offset is too large"))
    }

    /// Where the header of section `index` begins.
    fn at(&self, index: usize) -> Result<usize, ModuleError> {
        index
            .checked_mul(self.entry)
            .and_then(|offset| offset.checked_add(self.sections))
            .ok_or(ModuleError::Structure("an offset is too large"))
    }

    fn content(&self, index: usize) -> Result<&'a [u8], ModuleError> {
        const NO_BITS: u32 = 8;
        let header = self.at(index)?;
        if self.word(header + 4)? == NO_BITS {
            return Err(ModuleError::Structure(
                "a section that is read has no content",
            ));
        }
        let (offset, size) = if self.class == 64 { (24, 32) } else { (16, 20) };
        let offset = self.address(header + offset)?;
        let size = self.address(header + size)?;
        offset
            .checked_add(size)
            .and_then(|end| self.bytes.get(offset..end))
            .ok_or(ModuleError::Structure("a section lies outside the file"))
    }

    /// The content of the one section of this name.
    fn section(&self, wanted: &[u8]) -> Result<&'a [u8], ModuleError> {
        if self.names >= self.count {
            return Err(ModuleError::Structure("no section holds the names"));
        }
        let names = self.content(self.names)?;
        let mut found = None;
        for index in 0..self.count {
            let name = self.word(self.at(index)?)? as usize;
            let name = names.get(name..).unwrap_or_default();
            if name
                .strip_prefix(wanted)
                .is_some_and(|rest| rest.first() == Some(&0))
                && found.replace(index).is_some()
            {
                return Err(ModuleError::Structure("it has two .modinfo sections"));
            }
        }
        self.content(found.ok_or(ModuleError::NoModinfo)?)
    }
}
