//! Reading and writing a simulator's file.

use std::path::Path;

use super::Simulator;
use crate::error::{Error, Result};
use crate::tensor_file::{self, Contents, Kind, json};

pub use crate::tensor_file::{Data, Tensor, Tensors, check_tensors, read_capped};

const KIND: Kind = Kind {
    format: "virtualtb_fast.simulator",
    version: "1",
    noun: "simulator",
    keys: &["name", "config", "schema", "provenance"],
};

fn metadata(simulator: &Simulator) -> [(&'static str, String); 4] {
    [
        ("name", simulator.name.clone()),
        ("config", json(&simulator.config)),
        ("schema", json(&simulator.schema)),
        ("provenance", json(&simulator.provenance)),
    ]
}

/// The file's bytes, with its digest.
pub fn write(simulator: &Simulator) -> Vec<u8> {
    tensor_file::write(&KIND, &metadata(simulator), &simulator.tensors)
}

/// The digest that [`write`] puts into the file.
pub fn digest(simulator: &Simulator) -> String {
    tensor_file::digest(&KIND, &metadata(simulator), &simulator.tensors)
}

/// Parses and checks a file's bytes.
pub fn read(bytes: &[u8], origin: &str) -> Result<Simulator> {
    build(tensor_file::read(&KIND, bytes, origin)?, origin)
}

/// Reads a file. Its bytes are gone before the tensors are packed: never more than twice the file
/// is held.
pub fn load(path: &Path) -> Result<Simulator> {
    let origin = path.display().to_string();
    let contents = tensor_file::read(&KIND, &read_capped(path)?, &origin)?;
    build(contents, &origin)
}

fn build(contents: Contents, origin: &str) -> Result<Simulator> {
    let schema = contents.parse("schema", origin)?;
    let config = contents.parse("config", origin)?;
    let provenance = contents.parse("provenance", origin)?;
    let name = contents.metadata["name"].clone();
    let mut simulator = Simulator::build(name, schema, config, provenance, contents.tensors)
        .map_err(|error| Error::format(origin, error.to_string()))?;
    simulator.digest = contents.digest;
    Ok(simulator)
}

/// Writes beside `path`, reads back, then renames: no reader ever sees half a file.
pub fn save(simulator: &Simulator, path: &Path) -> Result<()> {
    tensor_file::save(&write(simulator), path, |back, origin| read(back, origin).map(drop))
}
