//! The container that simulators and policies share: a safetensors file that knows whether it was
//! altered.
//!
//! Its metadata holds `format`, `format_version`, further keys that the [`Kind`] lists, and
//! `digest`: the SHA-256 of the whole file with these 64 digits zeroed. A reader refuses a file
//! that is cut short, altered, of another kind or version, or too large, before it looks at what
//! is in it; [`check_tensors`] then refuses tensors that are missing, surplus or misshaped.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

/// Larger files and headers are refused before they are parsed.
const LARGEST_FILE: u64 = 256 << 20;
const LARGEST_HEADER: usize = 1 << 20;
const DIGEST_KEY: &str = "\"digest\":\"";
const DIGEST_DIGITS: usize = 64;

/// An f32 tensor, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Dimensions.
    pub shape: Vec<usize>,
    /// Values.
    pub data: Vec<f32>,
}

/// Tensors by name.
pub type Tensors = BTreeMap<String, Tensor>;

/// What a kind of file is called and which metadata it has.
#[derive(Debug)]
pub struct Kind {
    /// The metadata's `format`.
    pub format: &'static str,
    /// The metadata's `format_version`.
    pub version: &'static str,
    /// What messages call such a file.
    pub noun: &'static str,
    /// Metadata keys beyond `format`, `format_version` and `digest`.
    pub keys: &'static [&'static str],
}

/// What a file holds.
#[derive(Debug)]
pub struct Contents {
    /// The metadata under the kind's keys.
    pub metadata: HashMap<String, String>,
    /// SHA-256 of the file, in hexadecimal.
    pub digest: String,
    /// All tensors.
    pub tensors: Tensors,
}

impl Contents {
    /// One value of the metadata, parsed as JSON.
    pub fn parse<T: DeserializeOwned>(&self, key: &str, origin: &str) -> Result<T> {
        serde_json::from_str(&self.metadata[key]).map_err(|error| {
            let reason = format!("expected {key} as JSON of this version, got {error}");
            Error::format(origin, reason)
        })
    }
}

/// Refuses tensors that are missing, surplus, misshaped, or not finite.
pub fn check_tensors(tensors: &Tensors, expected: &[(String, Vec<usize>)]) -> Result<()> {
    for (name, shape) in expected {
        let what = || format!("tensor {name}");
        let Some(tensor) = tensors.get(name) else {
            let have: Vec<_> = tensors.keys().map(String::as_str).collect();
            let have = if have.is_empty() { "none at all".into() } else { have.join(", ") };
            let got = format!("no such tensor, but {have}");
            return Err(Error::argument(what(), format!("shape {shape:?}"), got));
        };
        if tensor.shape != *shape || tensor.data.len() != shape.iter().product::<usize>() {
            let got = format!("{:?}", tensor.shape);
            return Err(Error::argument(what(), format!("shape {shape:?}"), got));
        }
        if let Some(index) = tensor.data.iter().position(|value| !value.is_finite()) {
            let got = format!("{} at flat index {index}", tensor.data[index]);
            return Err(Error::argument(what(), "finite values", got));
        }
    }
    match tensors.keys().find(|name| !expected.iter().any(|(known, _)| known == *name)) {
        None => Ok(()),
        Some(surplus) => {
            Err(Error::argument("tensors", format!("{} known names", expected.len()), surplus))
        }
    }
}

/// The file's bytes, with its digest.
pub fn write(kind: &Kind, metadata: &[(&str, String)], tensors: &Tensors) -> Vec<u8> {
    let mut bytes = write_undigested(kind, metadata, tensors);
    let digest = hash(&bytes);
    let at = digest_position(header_of(&bytes)).expect("the header was just written");
    bytes[8 + at..][..DIGEST_DIGITS].copy_from_slice(digest.as_bytes());
    bytes
}

/// The digest that [`write`] puts into the file.
pub fn digest(kind: &Kind, metadata: &[(&str, String)], tensors: &Tensors) -> String {
    hash(&write_undigested(kind, metadata, tensors))
}

fn write_undigested(kind: &Kind, metadata: &[(&str, String)], tensors: &Tensors) -> Vec<u8> {
    let mut values = serde_json::Map::new();
    values.insert("format".into(), kind.format.into());
    values.insert("format_version".into(), kind.version.into());
    values.insert("digest".into(), "0".repeat(DIGEST_DIGITS).into());
    for (key, value) in metadata {
        debug_assert!(kind.keys.contains(key), "{key}");
        values.insert((*key).into(), value.as_str().into());
    }
    // `serde_json` keeps the keys of its maps sorted, so the same content is the same bytes.
    let mut header = serde_json::Map::new();
    header.insert("__metadata__".into(), values.into());
    let mut offset = 0;
    for (name, tensor) in tensors {
        let end = offset + 4 * tensor.data.len();
        let entry = serde_json::json!({
            "dtype": "F32", "shape": tensor.shape, "data_offsets": [offset, end],
        });
        header.insert(name.clone(), entry);
        offset = end;
    }
    let mut header = serde_json::Value::Object(header).to_string();
    header.extend(std::iter::repeat_n(' ', header.len().next_multiple_of(8) - header.len()));
    let mut bytes = Vec::with_capacity(8 + header.len() + offset);
    bytes.extend((header.len() as u64).to_le_bytes());
    bytes.extend(header.as_bytes());
    for tensor in tensors.values() {
        bytes.extend(tensor.data.iter().flat_map(|value| value.to_le_bytes()));
    }
    bytes
}

/// A value as the JSON that metadata holds.
pub fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("plain data")
}

fn header_of(bytes: &[u8]) -> &[u8] {
    let length = bytes.first_chunk().map_or(0, |length| u64::from_le_bytes(*length) as usize);
    &bytes[8..8 + length]
}

/// Where the digest's digits start within the header, if the key stands there just once.
fn digest_position(header: &[u8]) -> Option<usize> {
    let key = DIGEST_KEY.as_bytes();
    let mut found = header.windows(key.len()).enumerate().filter(|(_, window)| *window == key);
    let (at, _) = found.next()?;
    let position = at + key.len();
    (found.next().is_none() && position + DIGEST_DIGITS <= header.len()).then_some(position)
}

/// SHA-256 in hexadecimal.
pub fn hash(bytes: &[u8]) -> String {
    hexadecimal(&Sha256::digest(bytes))
}

/// Two digits a byte.
pub fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Parses a file's bytes and checks that they are of this kind and unaltered.
pub fn read(kind: &Kind, bytes: &[u8], origin: &str) -> Result<Contents> {
    let fail = |reason: String| Error::format(origin, reason);
    let noun = kind.noun;
    let length = bytes.first_chunk().map(|length| u64::from_le_bytes(*length));
    let Some(length) = length else {
        return Err(fail(format!("expected a {noun} file, got {} bytes", bytes.len())));
    };
    if length > LARGEST_HEADER as u64 || length > bytes.len() as u64 - 8 {
        let most = LARGEST_HEADER.min(bytes.len() - 8);
        return Err(fail(format!(
            "expected a safetensors header of at most {most} bytes, got {length}: not a {noun} \
             file, or cut short"
        )));
    }
    let (_, parsed) = SafeTensors::read_metadata(bytes)
        .map_err(|error| fail(format!("expected a safetensors file, got {error}")))?;
    let mut metadata = parsed.metadata().clone().unwrap_or_default();
    let text = |key: &str| {
        metadata.get(key).ok_or_else(|| {
            fail(format!("expected metadata key {key:?}, got none: not a virtualtb_fast {noun}"))
        })
    };
    for (key, expected) in [("format", kind.format), ("format_version", kind.version)] {
        let got = text(key)?;
        if got != expected {
            return Err(fail(format!("expected {key} {expected:?}, got {got:?}")));
        }
    }
    let digest = text("digest")?.clone();
    check_digest(bytes, &digest).map_err(fail)?;
    for key in kind.keys {
        text(key)?;
    }
    for key in ["format", "format_version", "digest"] {
        metadata.remove(key);
    }
    if let Some(key) = metadata.keys().find(|key| !kind.keys.contains(&key.as_str())) {
        let known = kind.keys.join(", ");
        return Err(fail(format!("expected the metadata keys {known}, got {key:?}")));
    }
    let file = SafeTensors::deserialize(bytes)
        .map_err(|error| fail(format!("expected a safetensors file, got {error}")))?;
    let mut tensors = Tensors::new();
    for (name, view) in file.iter() {
        if view.dtype() != Dtype::F32 {
            return Err(fail(format!("tensor {name}: expected F32, got {:?}", view.dtype())));
        }
        let values = view.data().as_chunks().0;
        let data = values.iter().map(|value| f32::from_le_bytes(*value)).collect();
        tensors.insert(name.to_owned(), Tensor { shape: view.shape().to_vec(), data });
    }
    Ok(Contents { metadata, digest, tensors })
}

fn check_digest(bytes: &[u8], stored: &str) -> std::result::Result<(), String> {
    let position =
        digest_position(header_of(bytes)).ok_or("expected one digest, got another form")?;
    let mut zeroed = bytes.to_vec();
    let field = &mut zeroed[8 + position..][..DIGEST_DIGITS];
    if field != stored.as_bytes() {
        return Err("expected one digest, got another form".into());
    }
    field.fill(b'0');
    let computed = hash(&zeroed);
    if computed == stored {
        Ok(())
    } else {
        Err(format!(
            "expected the content of digest {stored}, got {computed}: the file was altered"
        ))
    }
}

/// Reads a file of at most [`LARGEST_FILE`] bytes.
pub fn read_capped(path: &Path) -> Result<Vec<u8>> {
    let file = File::open(path).map_err(Error::io(path))?;
    let length = file.metadata().map_err(Error::io(path))?.len();
    if length > LARGEST_FILE {
        let expected = format!("expected at most {LARGEST_FILE} bytes, got {length}");
        return Err(Error::format(path.display().to_string(), expected));
    }
    let mut bytes = Vec::with_capacity(length as usize);
    file.take(LARGEST_FILE).read_to_end(&mut bytes).map_err(Error::io(path))?;
    Ok(bytes)
}

/// The name of the file that is written beside `path` and renamed to it when it is complete.
pub fn partial(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".partial");
    name.into()
}

/// Writes beside `path`, reads back and checks, then renames: no reader ever sees half a file.
pub fn save(
    bytes: &[u8],
    path: &Path,
    check: impl FnOnce(&[u8], &str) -> Result<()>,
) -> Result<()> {
    let beside = partial(path);
    let mut file = File::create(&beside).map_err(Error::io(&beside))?;
    let outcome = file
        .write_all(bytes)
        .and_then(|()| file.sync_all())
        .and_then(|()| std::fs::read(&beside))
        .map_err(Error::io(&beside))
        .and_then(|back| check(&back, &beside.display().to_string()))
        .and_then(|()| std::fs::rename(&beside, path).map_err(Error::io(path)));
    if outcome.is_err() {
        // The first failure is what the caller needs to hear; a leftover is harmless.
        let _ = std::fs::remove_file(&beside);
    }
    outcome
}
