//! Counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy
//! as 1, 2, 3", SC 2011).
//!
//! Every draw is a pure function of (seed, session, page, purpose, index): nothing is consumed in
//! an order, so batches, threads and resumed runs cannot shift one another's numbers.
//!
//! | counter word | holds |
//! |---|---|
//! | 0 | purpose in the top 8 bits, block number in the low 24 |
//! | 1 | page (0 for what is drawn once a session) |
//! | 2, 3 | session, low and high half |
//!
//! The key is the seed, low and high half. Changing any of this changes [`STREAM_VERSION`].

/// Version of the promise above: the same version gives the same bytes for the same seed.
pub const STREAM_VERSION: u32 = 1;

/// What a draw is for. Purposes never share counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Purpose {
    /// The latent vector z of a session's customer.
    Latent = 0,
    /// The categorical fields of a session's customer.
    Fields = 1,
    /// The session's page limit.
    Leave = 2,
    /// The customer's answer to one page: clicks, second head.
    Response = 3,
    /// What a built-in policy draws for one page.
    Policy = 4,
    /// VirtualTB-v0 only: the customer shown when a session is done (latent, fields, limit).
    /// Of its own purposes, so that it shifts no session.
    NextLatent = 5,
    /// See [`Purpose::NextLatent`].
    NextFields = 6,
    /// See [`Purpose::NextLatent`].
    NextLeave = 7,
    /// A store's customer, counted at the page before which it arrives.
    StoreCustomer = 8,
    /// A store's customer's answer to one page, and a new request after it.
    StoreAnswer = 9,
    /// The hidden parameters of a store's world. Worlds have purposes of their own, so that a
    /// world and sessions of the same seed have nothing in common.
    World = 10,
    /// The items of a store's world; the session is the item's row.
    WorldItems = 11,
    /// A session's customer out of a mixture, a table or an autoregressive sampler; counted at page
    /// 0, and a replacement's (VirtualTB-v0) at the page after which it comes, which is never 0.
    Customer = 12,
}

/// Where a run of draws starts: one session (and page) of one seed's stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Seed of the stream.
    pub seed: u64,
    /// Session number within the stream.
    pub session: u64,
    /// Page number, 0 for draws made once a session.
    pub page: u32,
    /// What the draws are for.
    pub purpose: Purpose,
}

/// Lanes computed side by side; fixed, so that compilers turn the loops into vector code.
pub const LANES: usize = 8;

const MULTIPLIER: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
const ROUNDS: usize = 10;

/// One Philox4x32-10 block for each of eight lanes; `counter[word][lane]`, `key[word][lane]`.
#[inline(always)]
pub fn philox_lanes(
    mut counter: [[u32; LANES]; 4],
    mut key: [[u32; LANES]; 2],
) -> [[u32; LANES]; 4] {
    for round in 0..ROUNDS {
        let mut next = [[0; LANES]; 4];
        for lane in 0..LANES {
            if round > 0 {
                key[0][lane] = key[0][lane].wrapping_add(WEYL[0]);
                key[1][lane] = key[1][lane].wrapping_add(WEYL[1]);
            }
            let product0 = u64::from(MULTIPLIER[0]) * u64::from(counter[0][lane]);
            let product1 = u64::from(MULTIPLIER[1]) * u64::from(counter[2][lane]);
            next[0][lane] = (product1 >> 32) as u32 ^ counter[1][lane] ^ key[0][lane];
            next[1][lane] = product1 as u32;
            next[2][lane] = (product0 >> 32) as u32 ^ counter[3][lane] ^ key[1][lane];
            next[3][lane] = product0 as u32;
        }
        counter = next;
    }
    counter
}

/// The uniform in [0, 1) of a 32-bit draw: its top 24 bits, so every value is exact in f32.
#[inline(always)]
pub fn unit(bits: u32) -> f32 {
    (bits >> 8) as f32 * (1.0 / 16_777_216.0)
}

/// The first counter word of a block.
#[inline(always)]
pub fn counter_word(purpose: Purpose, block: u32) -> u32 {
    (purpose as u32) << 24 | block
}

/// Fills `out` with the uniforms of one origin: draw `i` is word `i % 4` of block `i / 4`.
#[inline(always)]
pub fn fill(origin: Origin, out: &mut [f32]) {
    let key = [[origin.seed as u32; LANES], [(origin.seed >> 32) as u32; LANES]];
    for (group, out) in out.chunks_mut(4 * LANES).enumerate() {
        let mut counter = [
            [0; LANES],
            [origin.page; LANES],
            [origin.session as u32; LANES],
            [(origin.session >> 32) as u32; LANES],
        ];
        for lane in 0..LANES {
            counter[0][lane] = counter_word(origin.purpose, (group * LANES + lane) as u32);
        }
        let uniforms = philox_lanes(counter, key).map(|word| word.map(unit));
        if let Some(out) = out.as_chunks_mut::<{ 4 * LANES }>().0.first_mut() {
            // Fixed bounds, so that this becomes a transposition in registers.
            for lane in 0..LANES {
                for word in 0..4 {
                    out[4 * lane + word] = uniforms[word][lane];
                }
            }
        } else {
            for (index, value) in out.iter_mut().enumerate() {
                *value = uniforms[index % 4][index / 4];
            }
        }
    }
}

/// The words of eight blocks of an origin, from one of them on, in order.
#[inline(always)]
pub fn fill_words(origin: Origin, block: u32, out: &mut [u32; 4 * LANES]) {
    let Origin { seed, session, page, purpose } = origin;
    let mut counter =
        [[0; LANES], [page; LANES], [session as u32; LANES], [(session >> 32) as u32; LANES]];
    for (lane, word) in counter[0].iter_mut().enumerate() {
        *word = counter_word(purpose, block + lane as u32);
    }
    let drawn = philox_lanes(counter, [[seed as u32; LANES], [(seed >> 32) as u32; LANES]]);
    for lane in 0..LANES {
        for word in 0..4 {
            out[4 * lane + word] = drawn[word][lane];
        }
    }
}

/// The first four uniforms of each origin (at most [`LANES`] of them): `out[word][lane]`.
#[inline(always)]
pub fn fill_first(origins: &[Origin], out: &mut [[f32; LANES]; 4]) {
    let mut counter = [[0; LANES]; 4];
    let mut key = [[0; LANES]; 2];
    for (lane, origin) in origins.iter().enumerate() {
        counter[0][lane] = counter_word(origin.purpose, 0);
        counter[1][lane] = origin.page;
        counter[2][lane] = origin.session as u32;
        counter[3][lane] = (origin.session >> 32) as u32;
        key[0][lane] = origin.seed as u32;
        key[1][lane] = (origin.seed >> 32) as u32;
    }
    let bits = philox_lanes(counter, key);
    for word in 0..4 {
        for lane in 0..LANES {
            out[word][lane] = unit(bits[word][lane]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn philox(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
        let lanes = philox_lanes(counter.map(|word| [word; LANES]), key.map(|word| [word; LANES]));
        lanes.map(|word| word[LANES - 1])
    }

    /// The known answers published with Random123 (kat_vectors, philox4x32 10).
    #[test]
    fn published_known_answers() {
        assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(
            philox([u32::MAX; 4], [u32::MAX; 2]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
        assert_eq!(
            philox(
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0]
            ),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn fill_agrees_with_fill_first_and_has_no_seams() {
        let origin =
            Origin { seed: 7 << 32 | 3, session: 1 << 40, page: 9, purpose: Purpose::Fields };
        let mut long = [0.0; 129];
        fill(origin, &mut long);
        for length in [1, 4, 31, 32, 33, 128] {
            let mut short = vec![0.0; length];
            fill(origin, &mut short);
            assert_eq!(short, long[..length]);
        }
        let mut first = [[0.0; LANES]; 4];
        fill_first(&[origin; 3], &mut first);
        for word in 0..4 {
            assert_eq!(first[word][2], long[word]);
        }
        assert!(long.iter().all(|u| (0.0..1.0).contains(u)));
        for block in [0, 3, 24] {
            let mut words = [0; 4 * LANES];
            fill_words(origin, block, &mut words);
            assert_eq!(words.map(unit), long[4 * block as usize..][..4 * LANES]);
        }
    }
}
