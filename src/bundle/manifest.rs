//! `metadata.json`: what our bundles say about themselves beside the module (`docs/reference/bundle-format.md`).
//!
//! The format is ours. Canonical's metadata is not public, so a bundle without ours, or with another file of that
//! name, is read all the same. Nothing here is signed: it describes, and never decides whether a module is trusted.

use super::BundleName;
use super::error::ReadError;
use crate::domain::{Architecture, KernelVersion, PatchVersion, Sha256};
use serde::{Deserialize, Serialize};

/// The manifest's name inside the archive.
pub const MANIFEST_NAME: &str = "metadata.json";

/// What the field `format` says in our manifests.
const FORMAT: &str = "livepatch-onprem-bundle";
const FORMAT_VERSION: u32 = 1;

/// What is wrong with a manifest that is ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// A later format.
    #[error("it is of format version {found}, this program reads version 1; upgrade it")]
    Version {
        /// The version found.
        found: u32,
    },
    /// A field is missing or of the wrong kind.
    #[error("{0}")]
    Shape(String),
}

/// One thing a patch mends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Fix {
    /// Usually the CVE's id, e.g. `CVE-2024-1086`.
    pub name: String,
    /// What it is, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Where it is tracked: a bug number or an address.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub bug: String,
}

/// Our description of a bundle. Unknown fields are ignored on reading.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Manifest {
    format: String,
    format_version: u32,
    /// The kernel the payload is for.
    pub kernel: KernelVersion,
    /// The patch.
    pub version: PatchVersion,
    /// The architecture.
    pub architecture: Architecture,
    /// The module's name in the archive.
    pub module: String,
    /// Digest of the module with its signature.
    pub module_sha256: Sha256,
    /// What the patch mends.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fixes: Vec<Fix>,
    /// Set in the last payload for a kernel: clients should ask for a kernel upgrade.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub obsolete: bool,
    /// When the bundle was built, if its maker wants it said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub built_at: Option<jiff::Timestamp>,
}

/// Read first, to know whether the rest is ours at all.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Kind {
    #[serde(default)]
    format: String,
    #[serde(default)]
    format_version: u32,
}

impl Manifest {
    /// Describes a bundle's module.
    pub fn new(name: &BundleName, module_entry: &str, module: &[u8]) -> Self {
        Self {
            format: FORMAT.to_owned(),
            format_version: FORMAT_VERSION,
            kernel: name.kernel.clone(),
            version: name.version,
            architecture: name.architecture,
            module: module_entry.to_owned(),
            module_sha256: Sha256::of(module),
            fixes: Vec::new(),
            obsolete: false,
            built_at: None,
        }
    }

    /// Reads a manifest; nothing if the bytes are not one of ours.
    pub fn read(bytes: &[u8]) -> Result<Option<Self>, ManifestError> {
        let Ok(kind) = serde_json::from_slice::<Kind>(bytes) else {
            return Ok(None);
        };
        if kind.format != FORMAT {
            return Ok(None);
        }
        if kind.format_version != FORMAT_VERSION {
            return Err(ManifestError::Version {
                found: kind.format_version,
            });
        }
        serde_json::from_slice(bytes)
            .map(Some)
            .map_err(|e| ManifestError::Shape(e.to_string()))
    }

    /// The manifest as it stands in the archive.
    pub fn to_json(&self) -> Result<Vec<u8>, ManifestError> {
        let mut json =
            serde_json::to_vec_pretty(self).map_err(|e| ManifestError::Shape(e.to_string()))?;
        json.push(b'\n');
        Ok(json)
    }

    /// Holds the manifest against the file name and the module.
    pub(super) fn agree(
        &self,
        name: &BundleName,
        module_entry: &str,
        module: Sha256,
    ) -> Result<(), ReadError> {
        let pairs = [
            ("kernel", name.kernel.to_string(), self.kernel.to_string()),
            ("patch", name.version.to_string(), self.version.to_string()),
            (
                "architecture",
                name.architecture.to_string(),
                self.architecture.to_string(),
            ),
        ];
        for (what, named, found) in pairs {
            if named != found {
                return Err(ReadError::Disagrees {
                    what,
                    named,
                    source_of: MANIFEST_NAME,
                    found,
                });
            }
        }
        if self.module != module_entry || self.module_sha256 != module {
            return Err(ReadError::Manifest(ManifestError::Shape(format!(
                "it describes module {:?} with sha256 {}, but the archive holds {module_entry:?} with {module}",
                super::error::shown(&self.module),
                self.module_sha256
            ))));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn manifest() -> Manifest {
        let name = "livepatch-5.15.0-107.117-generic-107.1-amd64.tar.bz2";
        Manifest::new(&name.parse().unwrap(), "x.ko", b"module")
    }

    #[test]
    fn what_is_written_is_read() {
        let mut manifest = manifest();
        manifest.obsolete = true;
        manifest.fixes.push(Fix {
            name: "CVE-2024-1086".to_owned(),
            description: String::new(),
            bug: "1".to_owned(),
        });
        manifest.built_at = Some("2026-01-02T03:04:05Z".parse().unwrap());
        let json = manifest.to_json().unwrap();
        assert_eq!(Manifest::read(&json).unwrap(), Some(manifest));
        insta::assert_snapshot!(String::from_utf8(json).unwrap(), @r#"
        {
          "format": "livepatch-onprem-bundle",
          "format-version": 1,
          "kernel": "5.15.0-107.117-generic",
          "version": "107.1",
          "architecture": "amd64",
          "module": "x.ko",
          "module-sha256": "120970d812836f19888625587a4606a5ad23cef31c8684e601771552548fc6b9",
          "fixes": [
            {
              "name": "CVE-2024-1086",
              "bug": "1"
            }
          ],
          "obsolete": true,
          "built-at": "2026-01-02T03:04:05Z"
        }
        "#);
    }

    #[test]
    fn files_of_others_are_left_alone_and_ours_must_be_right() {
        for foreign in [
            &b""[..],
            b"[]",
            b"{}",
            b"\xff",
            br#"{"format": "other", "kernel": 7}"#,
        ] {
            assert_eq!(Manifest::read(foreign), Ok(None));
        }
        let json = String::from_utf8(manifest().to_json().unwrap()).unwrap();
        let later = json.replace("\"format-version\": 1", "\"format-version\": 2");
        assert_eq!(
            Manifest::read(later.as_bytes()),
            Err(ManifestError::Version { found: 2 })
        );
        let wrong = json.replace("\"107.1\"", "\"x\"");
        assert!(matches!(
            Manifest::read(wrong.as_bytes()),
            Err(ManifestError::Shape(why)) if why.contains("patch version")
        ));
    }

    proptest! {
        #[test]
        fn no_input_panics(data in proptest::collection::vec(any::<u8>(), 0..200), at in 0usize..300, byte: u8) {
            let _ = Manifest::read(&data);
            let mut json = manifest().to_json().unwrap();
            let at = at % json.len();
            json[at] = byte;
            let _ = Manifest::read(&json);
        }
    }
}
