//! Reading and writing a simulator's file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use super::Simulator;
use crate::error::{Error, Result};

const FORMAT: &str = "virtualtb_fast.simulator";
const FORMAT_VERSION: &str = "1";
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

/// Refuses tensors that are missing, surplus, misshaped, or not finite.
pub fn check_tensors(tensors: &Tensors, expected: &[(String, Vec<usize>)]) -> Result<()> {
    for (name, shape) in expected {
        let Some(tensor) = tensors.get(name) else {
            let have: Vec<_> = tensors.keys().map(String::as_str).collect();
            return Err(Error::argument(
                format!("tensor {name}"),
                format!("shape {shape:?}"),
                format!(
                    "no such tensor, but {}",
                    if have.is_empty() { "none at all".into() } else { have.join(", ") }
                ),
            ));
        };
        if tensor.shape != *shape || tensor.data.len() != shape.iter().product::<usize>() {
            let got = format!("{:?}", tensor.shape);
            return Err(Error::argument(format!("tensor {name}"), format!("shape {shape:?}"), got));
        }
        if let Some(index) = tensor.data.iter().position(|value| !value.is_finite()) {
            let got = format!("{} at flat index {index}", tensor.data[index]);
            return Err(Error::argument(format!("tensor {name}"), "finite values", got));
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
pub fn write(simulator: &Simulator) -> Vec<u8> {
    let mut bytes = write_undigested(simulator);
    let digest = hash(&bytes);
    let at = digest_position(header_of(&bytes)).expect("the header was just written");
    bytes[8 + at..][..DIGEST_DIGITS].copy_from_slice(digest.as_bytes());
    bytes
}

/// The digest that [`write`] puts into the file.
pub fn digest(simulator: &Simulator) -> String {
    hash(&write_undigested(simulator))
}

fn write_undigested(simulator: &Simulator) -> Vec<u8> {
    let metadata = serde_json::json!({
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "name": simulator.name,
        "config": json(&simulator.config),
        "schema": json(&simulator.schema),
        "provenance": json(&simulator.provenance),
        "digest": "0".repeat(DIGEST_DIGITS),
    });
    // `serde_json` keeps the keys of its maps sorted, so the same content is the same bytes.
    let mut header = serde_json::Map::new();
    header.insert("__metadata__".into(), metadata);
    let mut offset = 0;
    for (name, tensor) in &simulator.tensors {
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
    for tensor in simulator.tensors.values() {
        bytes.extend(tensor.data.iter().flat_map(|value| value.to_le_bytes()));
    }
    bytes
}

fn json(value: &impl Serialize) -> String {
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

fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Parses and checks a file's bytes.
pub fn read(bytes: &[u8], origin: &str) -> Result<Simulator> {
    let fail = |reason: String| Error::format(origin, reason);
    let length = bytes.first_chunk().map(|length| u64::from_le_bytes(*length));
    let Some(length) = length else {
        return Err(fail(format!("expected a simulator file, got {} bytes", bytes.len())));
    };
    if length > LARGEST_HEADER as u64 || length > bytes.len() as u64 - 8 {
        let most = LARGEST_HEADER.min(bytes.len() - 8);
        return Err(fail(format!(
            "expected a safetensors header of at most {most} bytes, got {length}: not a simulator \
             file, or cut short"
        )));
    }
    let (_, parsed) = SafeTensors::read_metadata(bytes)
        .map_err(|error| fail(format!("expected a safetensors file, got {error}")))?;
    let metadata = parsed.metadata().clone().unwrap_or_default();
    let text = |key: &str| {
        metadata.get(key).ok_or_else(|| {
            fail(format!("expected metadata key {key:?}, got none: not a virtualtb_fast simulator"))
        })
    };
    for (key, expected) in [("format", FORMAT), ("format_version", FORMAT_VERSION)] {
        let got = text(key)?;
        if got != expected {
            return Err(fail(format!("expected {key} {expected:?}, got {got:?}")));
        }
    }
    check_digest(bytes, text("digest")?).map_err(fail)?;
    const KEYS: [&str; 7] =
        ["format", "format_version", "name", "config", "schema", "provenance", "digest"];
    if let Some(key) = metadata.keys().find(|key| !KEYS.contains(&key.as_str())) {
        return Err(fail(format!("expected the metadata keys {}, got {key:?}", KEYS.join(", "))));
    }
    let schema = parse("schema", text("schema")?).map_err(fail)?;
    let config = parse("config", text("config")?).map_err(fail)?;
    let provenance = parse("provenance", text("provenance")?).map_err(fail)?;
    let name = text("name")?.clone();
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
    let mut simulator = Simulator::build(name, schema, config, provenance, tensors)
        .map_err(|error| fail(error.to_string()))?;
    simulator.digest = text("digest")?.clone();
    Ok(simulator)
}

fn parse<T: DeserializeOwned>(key: &str, text: &str) -> std::result::Result<T, String> {
    serde_json::from_str(text)
        .map_err(|error| format!("expected {key} as JSON of this version, got {error}"))
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

/// Writes beside `path`, reads back, then renames: no reader ever sees half a file.
pub fn save(simulator: &Simulator, path: &Path) -> Result<()> {
    let bytes = write(simulator);
    let beside = PathBuf::from(format!("{}.partial", path.display()));
    let mut file = File::create(&beside).map_err(Error::io(&beside))?;
    let written = file.write_all(&bytes).and_then(|()| file.sync_all());
    let outcome = written
        .and_then(|()| std::fs::read(&beside))
        .map_err(Error::io(&beside))
        .and_then(|back| read(&back, &beside.display().to_string()))
        .and_then(|_| std::fs::rename(&beside, path).map_err(Error::io(path)));
    if outcome.is_err() {
        // The first failure is what the caller needs to hear; a leftover is harmless.
        let _ = std::fs::remove_file(&beside);
    }
    outcome
}
