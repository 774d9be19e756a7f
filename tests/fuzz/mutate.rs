//! Changes to files that know what a file is made of: lengths, offsets, headers, checksums.

use virtualtb_fast::{catalog, logs, tensor_file};

/// A kind of file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A simulator's tensors.
    Simulator,
    /// A policy's.
    Policy,
    /// A catalogue of items.
    Catalog,
    /// A session log.
    Log,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Simulator, Self::Policy, Self::Catalog, Self::Log];

    /// The folder of its files within the corpus.
    pub fn name(self) -> &'static str {
        match self {
            Self::Simulator => "simulator",
            Self::Policy => "policy",
            Self::Catalog => "catalog",
            Self::Log => "log",
        }
    }

    /// Gives altered bytes checksums that fit, so that what lies behind them is read.
    pub fn reseal(self, bytes: &mut [u8]) {
        match self {
            Self::Simulator | Self::Policy => tensor_file::reseal(bytes),
            Self::Catalog => catalog::reseal(bytes),
            Self::Log => logs::reseal(bytes),
        }
    }

    /// Makes lengths agree: a file of tensors has as many bytes as its header says, if that is not
    /// far off; a catalogue says as many as it has.
    fn fit(self, bytes: &mut Vec<u8>) {
        if self == Self::Catalog {
            let length = bytes.len() as u64;
            put(bytes, 24, &length.to_le_bytes());
        }
        if !matches!(self, Self::Simulator | Self::Policy) {
            return;
        }
        let Some(text) = self.text(bytes) else { return };
        let Ok(header) = serde_json::from_slice::<serde_json::Value>(&bytes[text.clone()]) else {
            return;
        };
        let entries = header.as_object().into_iter().flat_map(|header| header.values());
        let end = |entry: &serde_json::Value| entry.get("data_offsets")?.get(1)?.as_u64();
        let values = entries.filter_map(end).max().unwrap_or(0);
        if values < 1 << 16 {
            bytes.resize(text.end + values as usize, 0);
        }
    }

    /// The bytes of the header's text.
    fn text(self, bytes: &[u8]) -> Option<std::ops::Range<usize>> {
        let length = |at: usize| {
            let word = bytes.get(at..)?.first_chunk()?;
            usize::try_from(u64::from_le_bytes(*word)).ok()
        };
        let range = match self {
            Self::Simulator | Self::Policy => 8..length(0)?.checked_add(8)?,
            Self::Catalog => 64..length(16)?,
            Self::Log => return None,
        };
        (range.start < range.end && range.end <= bytes.len()).then_some(range)
    }

    /// Where numbers stand that others are reached by.
    fn words(self, bytes: &[u8]) -> Vec<usize> {
        match self {
            Self::Simulator | Self::Policy => vec![0],
            Self::Catalog => vec![8, 12, 16, 24],
            Self::Log => vec![bytes.len().saturating_sub(8)],
        }
    }
}

/// SplitMix64: all that a case needs from one number.
pub struct Draw(pub u64);

impl Draw {
    /// 64 bits.
    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below a bound, 0 if there is none.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.word() % bound.max(1) as u64) as usize
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }

    /// A length, mostly short.
    fn length(&mut self) -> usize {
        let most = self.of(&[1, 4, 16, 64, 512]);
        1 + self.below(most)
    }

    /// A place: half of them near an end, where headers and footers are.
    fn place(&mut self, length: usize) -> usize {
        let near = self.below(2000.min(length));
        match self.below(4) {
            0 => near,
            1 => length.saturating_sub(1 + near),
            _ => self.below(length),
        }
    }
}

/// Numbers that overflow, wrap, or are just one too many.
const EXTREMES: [u64; 16] = [
    0,
    1,
    7,
    8,
    0x7F,
    0xFF,
    0x7FFF,
    0xFFFF,
    0x7FFF_FFFF,
    0x8000_0000,
    0xFFFF_FFFF,
    0x1_0000_0000,
    0x7FFF_FFFF_FFFF_FFFF,
    0x8000_0000_0000_0000,
    0xFFFF_FFFF_FFFF_FFF8,
    0xFFFF_FFFF_FFFF_FFFF,
];
/// The same as floats.
const FLOATS: [f32; 8] =
    [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, -1.0, 1e30, 1e-45, -0.0];
/// What may stand in JSON in place of something else.
const JSON: [&[u8]; 20] = [
    b"0",
    b"-1",
    b"1",
    b"2",
    b"255",
    b"256",
    b"257",
    b"16384",
    b"4294967295",
    b"4294967296",
    b"9223372036854775807",
    b"18446744073709551615",
    b"18446744073709551616",
    b"1e400",
    b"0.1",
    b"null",
    b"[]",
    b"{}",
    b"\"\"",
    b"[[[[[[[[[[[[[[[[",
];

/// One file out of a whole one, changed once to five times, mostly once.
///
/// `others` are files of the same kind, to take pieces of.
pub fn mutate(draw: &mut Draw, kind: Kind, whole: &[u8], others: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = whole.to_vec();
    for _ in 0..=draw.of(&[0, 0, 0, 1, 2, 4]) {
        change(draw, kind, &mut bytes, others);
    }
    if draw.below(5) > 0 {
        if draw.below(8) > 0 {
            kind.fit(&mut bytes);
        }
        kind.reseal(&mut bytes);
    }
    bytes
}

fn change(draw: &mut Draw, kind: Kind, bytes: &mut Vec<u8>, others: &[Vec<u8>]) {
    if bytes.is_empty() {
        bytes.extend(&others[draw.below(others.len())]);
        return;
    }
    let at = draw.place(bytes.len());
    let end = (at + draw.length()).min(bytes.len());
    // Binary damage to a text only shows that it is no text: mostly, other text takes its place.
    if kind.text(bytes).is_some_and(|text| text.contains(&at)) && draw.below(5) > 0 {
        return rewrite(draw, kind, bytes);
    }
    match draw.below(14) {
        0 | 1 => bytes[at] ^= 1 << draw.below(8),
        2 => {
            let value = draw.word() as u8;
            let value = draw.of(&[0, 0xFF, 0x80, 1, value]);
            bytes[at..end].fill(value);
        }
        3 => bytes.truncate(at),
        4 => drop(bytes.drain(at..end)),
        5 => {
            let piece = bytes[at..end].to_vec();
            let to = draw.place(bytes.len());
            bytes.splice(to..to, piece);
        }
        6 => splice(draw, bytes, others),
        7 => {
            let words = kind.words(bytes);
            let at = draw.of(&words);
            let value = match draw.below(3) {
                0 => bytes.len() as u64 - draw.below(20).min(bytes.len()) as u64,
                1 => (bytes.len() + draw.below(20)) as u64,
                _ => draw.of(&EXTREMES),
            };
            put(bytes, at, &value.to_le_bytes()[..draw.of(&[4, 8])]);
        }
        8 => {
            let value = draw.of(&EXTREMES);
            let width = draw.of(&[2, 4, 8]);
            put(bytes, at / width * width, &value.to_le_bytes()[..width]);
        }
        9 => put(bytes, at / 4 * 4, &draw.of(&FLOATS).to_le_bytes()),
        // A Thrift number as long as it may be.
        10 => {
            put(bytes, at, &draw.of(&[[0xFF, 0xFF, 0xFF, 0xFF, 0x0F], [0x80, 0x80, 0x80, 0x80, 8]]))
        }
        11 => bytes.extend_from_within(at..end),
        _ => rewrite(draw, kind, bytes),
    }
}

/// Puts bytes in the place of others.
fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    let end = (at + value.len()).min(bytes.len());
    if at < end {
        bytes[at..end].copy_from_slice(&value[..end - at]);
    }
}

/// Takes a piece of another file, from the same place or from elsewhere.
fn splice(draw: &mut Draw, bytes: &mut [u8], others: &[Vec<u8>]) {
    let other = &others[draw.below(others.len())];
    let from = draw.place(other.len());
    let to = if draw.below(2) == 0 { from } else { draw.place(bytes.len()) };
    let length = draw.length() * draw.of(&[1, 8]);
    let piece = &other[from..(from + length).min(other.len())];
    put(bytes, to, piece);
}

/// Rewrites a number, a word or a whole value of the header's JSON; the header stays one.
fn rewrite(draw: &mut Draw, kind: Kind, bytes: &mut Vec<u8>) {
    let Some(text) = kind.text(bytes) else {
        // Texts of a log stand among binary data of known length: digits for digits.
        let digits: Vec<usize> =
            (0..bytes.len()).filter(|at| bytes[*at].is_ascii_digit()).collect();
        if !digits.is_empty() {
            let at = draw.of(&digits);
            bytes[at] = b'0' + draw.below(10) as u8;
        }
        return;
    };
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || b"._-+".contains(&byte);
    let start = text.start + draw.below(text.len());
    let Some(first) = (start..text.end).find(|at| is_word(bytes[*at])) else { return };
    let last = (first..text.end).find(|at| !is_word(bytes[*at])).unwrap_or(text.end);
    let number = bytes[first..last].iter().all(u8::is_ascii_digit);
    let value = match draw.below(if number { 12 } else { 3 }) {
        0 => Vec::new(),
        1 => bytes[start..(start + draw.length()).min(text.end)].to_vec(),
        2..6 => draw.of(&JSON).to_vec(),
        _ => draw.below(300).to_string().into_bytes(),
    };
    let grown = value.len() as i64 - (last - first) as i64;
    bytes.splice(first..last, value);
    let end = (text.end as i64 + grown) as usize;
    match kind {
        // The text's length stands before it.
        Kind::Simulator | Kind::Policy if draw.below(8) > 0 => {
            put(bytes, 0, &(end as u64 - 8).to_le_bytes());
        }
        // Spaces follow the text, up to a whole page.
        Kind::Catalog if grown > 0 => drop(bytes.drain(end - grown as usize..end)),
        Kind::Catalog => drop(bytes.splice(end..end, vec![b' '; grown.unsigned_abs() as usize])),
        _ => {}
    }
}

/// What a mutator led by coverage does: its own changes or ours, and checksums that fit.
///
/// Takes `size` bytes of `data`, which has `room`; returns how many there are afterwards.
#[allow(dead_code, reason = "for the targets of cargo-fuzz")]
pub fn lead(
    kind: Kind,
    data: &mut [u8],
    size: usize,
    room: usize,
    seed: u32,
    fuzzer: impl Fn(&mut [u8], usize, usize) -> usize,
) -> usize {
    let mut draw = Draw(u64::from(seed));
    if draw.below(2) == 0 {
        let size = fuzzer(data, size, room);
        kind.reseal(&mut data[..size]);
        return size;
    }
    let whole = data[..size].to_vec();
    let changed = mutate(&mut draw, kind, &whole, std::slice::from_ref(&whole));
    let size = changed.len().min(room);
    data[..size].copy_from_slice(&changed[..size]);
    size
}
