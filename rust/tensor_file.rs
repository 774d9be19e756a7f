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
use std::sync::Arc;

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

/// The values of a tensor.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// Numbers.
    F32(Vec<f32>),
    /// Category codes; shared, since there may be many.
    U8(Arc<[u8]>),
}

impl Data {
    fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::U8(codes) => codes.len(),
        }
    }

    /// What safetensors calls their type, and the bytes of one.
    fn dtype(&self) -> (&'static str, usize) {
        match self {
            Self::F32(_) => ("F32", 4),
            Self::U8(_) => ("U8", 1),
        }
    }
}

/// A tensor, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Dimensions.
    pub shape: Vec<usize>,
    /// Values.
    pub data: Data,
}

impl Tensor {
    /// A tensor of numbers.
    pub fn floats(shape: Vec<usize>, values: Vec<f32>) -> Self {
        Self { shape, data: Data::F32(values) }
    }

    /// A tensor of category codes.
    pub fn codes(shape: Vec<usize>, codes: impl Into<Arc<[u8]>>) -> Self {
        Self { shape, data: Data::U8(codes.into()) }
    }

    /// Its numbers; none if it holds codes, which [`check_tensors`] refuses where numbers belong.
    pub fn values(&self) -> &[f32] {
        match &self.data {
            Data::F32(values) => values,
            Data::U8(_) => &[],
        }
    }

    /// The same, to be changed.
    pub fn values_mut(&mut self) -> &mut [f32] {
        match &mut self.data {
            Data::F32(values) => values,
            Data::U8(_) => &mut [],
        }
    }
}

/// A tensor that a file must have.
#[derive(Clone, Debug, PartialEq)]
pub struct Expected {
    /// Its name.
    pub name: String,
    /// Its dimensions.
    pub shape: Vec<usize>,
    /// Whether it holds category codes (U8) rather than numbers (F32).
    pub codes: bool,
}

impl Expected {
    /// A tensor of numbers.
    pub fn floats(name: impl Into<String>, shape: &[usize]) -> Self {
        Self { name: name.into(), shape: shape.to_vec(), codes: false }
    }
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

/// Refuses tensors that are missing, surplus, misshaped, of another type, or not finite.
pub fn check_tensors(tensors: &Tensors, expected: &[Expected]) -> Result<()> {
    for Expected { name, shape, codes } in expected {
        let what = || format!("tensor {name}");
        let Some(tensor) = tensors.get(name) else {
            let have: Vec<_> = tensors.keys().map(String::as_str).collect();
            let have = if have.is_empty() { "none at all".into() } else { have.join(", ") };
            let got = format!("no such tensor, but {have}");
            return Err(Error::argument(what(), format!("shape {shape:?}"), got));
        };
        let wanted = if *codes { "U8" } else { "F32" };
        let (dtype, _) = tensor.data.dtype();
        if dtype != wanted {
            return Err(Error::argument(what(), wanted, dtype));
        }
        if tensor.shape != *shape || tensor.data.len() != shape.iter().product::<usize>() {
            let got = format!("{:?}", tensor.shape);
            return Err(Error::argument(what(), format!("shape {shape:?}"), got));
        }
        let values = tensor.values();
        if let Some(index) = values.iter().position(|value| !value.is_finite()) {
            let got = format!("{} at flat index {index}", values[index]);
            return Err(Error::argument(what(), "finite values", got));
        }
    }
    match tensors.keys().find(|name| !expected.iter().any(|known| known.name == **name)) {
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
    // Wide values first, so that all are aligned; each kind in the order of the names.
    let wide = |tensor: &Tensor| matches!(tensor.data, Data::F32(_));
    let (first, last): (Vec<_>, Vec<_>) = tensors.iter().partition(|(_, tensor)| wide(tensor));
    let ordered = || first.iter().chain(&last);
    let mut offset = 0;
    for (name, tensor) in ordered() {
        let (dtype, size) = tensor.data.dtype();
        let end = offset + size * tensor.data.len();
        let entry = serde_json::json!({
            "dtype": dtype, "shape": tensor.shape, "data_offsets": [offset, end],
        });
        header.insert((*name).clone(), entry);
        offset = end;
    }
    let mut header = serde_json::Value::Object(header).to_string();
    header.extend(std::iter::repeat_n(' ', header.len().next_multiple_of(8) - header.len()));
    let mut bytes = Vec::with_capacity(8 + header.len() + offset);
    bytes.extend((header.len() as u64).to_le_bytes());
    bytes.extend(header.as_bytes());
    for (_, tensor) in ordered() {
        match &tensor.data {
            Data::F32(values) => bytes.extend(values.iter().flat_map(|value| value.to_le_bytes())),
            Data::U8(codes) => bytes.extend(&**codes),
        }
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
        let shape = view.shape().to_vec();
        let tensor = match view.dtype() {
            Dtype::F32 => {
                let values = view.data().as_chunks().0;
                let values = values.iter().map(|value| f32::from_le_bytes(*value)).collect();
                Tensor::floats(shape, values)
            }
            Dtype::U8 => Tensor::codes(shape, view.data()),
            other => {
                return Err(fail(format!("tensor {name}: expected F32 or U8, got {other:?}")));
            }
        };
        tensors.insert(name.to_owned(), tensor);
    }
    Ok(Contents { metadata, digest, tensors })
}

fn check_digest(bytes: &[u8], stored: &str) -> std::result::Result<(), String> {
    let position =
        digest_position(header_of(bytes)).ok_or("expected one digest, got another form")?;
    let (before, rest) = bytes.split_at(8 + position);
    let (field, after) = rest.split_at(DIGEST_DIGITS);
    if field != stored.as_bytes() {
        return Err("expected one digest, got another form".into());
    }
    let zeroed = Sha256::new_with_prefix(before).chain_update([b'0'; DIGEST_DIGITS]);
    let computed = hexadecimal(&zeroed.chain_update(after).finalize());
    if computed == stored {
        Ok(())
    } else {
        Err(format!(
            "expected the content of digest {stored}, got {computed}: the file was altered"
        ))
    }
}

/// Gives altered bytes a digest that fits, for tests of what lies behind it. Bytes without a header
/// are left alone.
#[doc(hidden)]
pub fn reseal(file: &mut [u8]) {
    let length = file.first_chunk().map_or(u64::MAX, |length| u64::from_le_bytes(*length));
    if length.checked_add(8).is_none_or(|end| end > file.len() as u64) {
        return;
    }
    let Some(at) = digest_position(header_of(file)) else { return };
    file[8 + at..][..DIGEST_DIGITS].fill(b'0');
    let digest = hash(file);
    file[8 + at..][..DIGEST_DIGITS].copy_from_slice(digest.as_bytes());
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

/// Whether a name is that of an open file, and no link to it.
#[cfg(unix)]
pub fn bears(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (file.metadata(), std::fs::symlink_metadata(path)) {
        (Ok(file), Ok(named)) => (file.dev(), file.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}

/// There, a file that is open keeps its name.
#[cfg(not(unix))]
pub fn bears(_: &File, path: &Path) -> bool {
    path.exists()
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
