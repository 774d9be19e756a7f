//! The digest of a log's content.

use arrow_buffer::Buffer;
use sha2::{Digest, Sha256};

use super::{Log, Shape, each_column};
use crate::tensor_file::hexadecimal;

/// Takes a log in pieces, so that a file need not be held in memory whole.
///
/// Each column is hashed by itself (little-endian values, row by row), and the digests are hashed
/// in the order of the columns after the schema: how rows are cut into pieces cannot matter.
/// Columns that only a store has count only there.
#[derive(Debug)]
pub struct Digester {
    head: String,
    columns: Vec<Sha256>,
}

impl Digester {
    /// `schema` is the JSON of the simulator's schema, if the log has it.
    pub fn new(shape: Shape, schema: Option<&String>) -> Self {
        let Shape { fields, action, items } = shape;
        let schema = schema.map_or("", String::as_str);
        let (store, columns) =
            if shape.of_store() { (format!(" {items}"), 13) } else { (String::new(), 10) };
        let head = format!("virtualtb_fast.sessions 1\n{fields} {action}{store}\n{schema}\n");
        Self { head, columns: vec![Sha256::new(); columns] }
    }

    /// The next rows.
    pub fn update(&mut self, log: &Log) {
        macro_rules! buffers {
            ($($name:ident),*) => { [$(log.$name.inner()),*] };
        }
        let buffers: [&Buffer; 13] = each_column!(buffers);
        for (hash, buffer) in self.columns.iter_mut().zip(buffers) {
            // Values are little-endian on every platform that the package is built for.
            hash.update(buffer.as_slice());
        }
    }

    /// The digest in hexadecimal.
    pub fn finish(self) -> String {
        let mut whole = Sha256::new_with_prefix(self.head);
        for column in self.columns {
            whole.update(column.finalize());
        }
        hexadecimal(&whole.finalize())
    }
}
