//! Catalogues made of random rows, and what is common to their tests.

mod damage;
mod files;
mod filters;
mod tables;

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use arrow_array::{Int64Array, StringArray};

use super::build::{Builder, Cells, IdCells, Kinds, Options, Piece, Shape, Watch};
use super::*;
use crate::rng::{Origin, Purpose, fill};
use crate::search::NO_ROW;

/// Items as the tests know them, by row.
#[derive(Clone, Debug)]
pub struct Items {
    pub dimensions: usize,
    pub attributes: Vec<f32>,
    pub ids: Option<IdCells>,
    pub prices: Vec<f32>,
    pub brands: Vec<Option<String>>,
    pub years: Vec<Option<i64>>,
}

pub fn uniforms(seed: u64, session: u64, count: usize) -> Vec<f32> {
    let mut values = vec![0.0; count];
    fill(Origin { seed, session, page: 0, purpose: Purpose::Latent }, &mut values);
    values
}

impl Items {
    /// Random ones: some brands rare, some items without brand, year or price.
    pub fn random(rows: usize, dimensions: usize, seed: u64) -> Self {
        let attributes =
            uniforms(seed, 0, rows * dimensions).into_iter().map(|x| x - 0.5).collect();
        let draws = uniforms(seed, 1, 3 * rows);
        let (prices, draws) = draws.split_at(rows);
        let (brands, years) = draws.split_at(rows);
        let price = |x: &f32| if *x < 0.1 { f32::NAN } else { (x * 1000.0).round() / 10.0 };
        let brand = |x: &f32| (*x > 0.05).then(|| format!("brand {}", (x * x * 9.0) as u32));
        let year = |x: &f32| (*x > 0.02).then(|| (x * x * 400.0) as i64 - 200);
        Self {
            dimensions,
            attributes,
            ids: Some(IdCells::Integers((0..rows as u64).map(|row| ids::mix(row) / 2).collect())),
            prices: prices.iter().map(price).collect(),
            brands: brands.iter().map(brand).collect(),
            years: years.iter().map(year).collect(),
        }
    }

    pub fn rows(&self) -> usize {
        self.prices.len()
    }

    pub fn shape(&self) -> Shape {
        Shape {
            dimensions: self.dimensions,
            ids: self.ids.as_ref().map(|ids| match ids {
                IdCells::Integers(_) => Kinds::Integers,
                IdCells::Texts(_) => Kinds::Texts,
            }),
            numbers: vec!["price".into()],
            categories: vec![("brand".into(), Kinds::Texts), ("year".into(), Kinds::Integers)],
        }
    }

    pub fn piece(&self, range: Range<usize>) -> Piece<'_> {
        let (first, length) = (range.start, range.len());
        Piece {
            attributes: &self.attributes[first * self.dimensions..][..length * self.dimensions],
            ids: self.ids.as_ref().map(|ids| match ids {
                IdCells::Integers(ids) => IdCells::Integers(ids[range.clone()].to_vec()),
                IdCells::Texts(ids) => IdCells::Texts(ids.slice(first, length)),
            }),
            numbers: vec![self.prices[range.clone()].to_vec()],
            categories: vec![
                Cells::Texts(StringArray::from_iter(self.brands[range.clone()].iter())),
                Cells::Integers(Int64Array::from_iter(self.years[range].iter().copied())),
            ],
        }
    }

    /// Builds in pieces of so many rows.
    pub fn build(&self, options: &Options, pieces: usize, scratch: bool) -> Result<Catalog> {
        let mut builder = Builder::new(options, self.shape(), scratch)?;
        for first in (0..self.rows()).step_by(pieces) {
            builder.push(self.piece(first..self.rows().min(first + pieces)))?;
        }
        match scratch {
            true => builder.finish(&Watch::NONE),
            false => builder.finish_with(&self.attributes, &Watch::NONE),
        }
    }

    pub fn in_memory(&self) -> Catalog {
        self.build(&Options::default(), 1000, false).unwrap()
    }

    /// The best rows by the definition of the score, among those that `allow` names.
    pub fn best(&self, query: &[f32], k: usize, allow: impl Fn(usize) -> bool) -> Vec<(u32, f32)> {
        let score = |row: usize| {
            let item = &self.attributes[row * self.dimensions..][..self.dimensions];
            item.iter().zip(query).fold(0.0_f32, |sum, (x, w)| w.mul_add(*x, sum))
        };
        let rows = (0..self.rows()).filter(|row| allow(*row));
        let mut found: Vec<_> = rows.map(|row| (row as u32, score(row))).collect();
        found.sort_by(|a, b| b.1.partial_cmp(&a.1).unwrap().then(a.0.cmp(&b.0)));
        found.resize(k, (NO_ROW, f32::NEG_INFINITY));
        found
    }
}

/// A folder of its own for each test, gone at the end of it.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new(name: &str) -> Self {
        let name = format!("virtualtb_fast-test-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn names(&self) -> Vec<String> {
        let names = std::fs::read_dir(&self.0).unwrap();
        names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub fn find(catalog: &Catalog, queries: &[f32], k: usize, of: &Selection) -> Vec<(u32, f32)> {
    let count = queries.len() / catalog.dimensions();
    let (mut rows, mut scores) = (vec![7; k * count], vec![7.0; k * count]);
    catalog.search(queries, k, of, Some(1), &|| Ok(()), &mut rows, &mut scores).unwrap();
    rows.into_iter().zip(scores).collect()
}
