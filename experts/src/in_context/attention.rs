//! Attention of queries with several heads to the keys and values that all heads share.
//!
//! Vectors hold a query in each lane. Keys are read a few at a time and their shares used as they are made, so that all of it
//! stays in the nearest cache and no matrix of shares is written out (after Rabe and Staats, "Self-attention does not need O(n²)
//! memory", 2021, and Dao et al., "FlashAttention", NeurIPS 2022).

use pulp::{Arch, Simd, WithSimd};

/// Vectors of queries that are read at a time.
const VECTORS: usize = 2;

/// Keys that are multiplied at a time, by as many places of the queries, and places of values: with so many sums the registers
/// of AVX2 are full.
const AT_A_TIME: usize = 6;

/// Keys whose shares are kept until their values are read.
const TILE: usize = 10 * AT_A_TIME;

/// Queries in groups, with the keys of each group.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attention<'a> {
    pub(crate) heads: usize,
    /// Width of a head.
    pub(crate) head: usize,
    /// What scores are scaled by before the softmax.
    pub(crate) scale: f32,
    /// Cells of a group that ask, each `[heads, head]`; where the next cell and the next group start, behind the one before.
    pub(crate) asked: usize,
    pub(crate) cell_stride: usize,
    pub(crate) group_stride: usize,
    pub(crate) query: &'a [f32],
    /// Keys of a group, each followed by its value. `[groups, keys, 2 head]`
    pub(crate) keys: usize,
    pub(crate) key: &'a [f32],
}

impl Attention<'_> {
    /// What the heads say, in the places of the queries.
    ///
    /// # Panics
    ///
    /// If `said` is shorter than the queries, or those than their strides tell.
    pub(crate) fn apply(&self, said: &mut [f32]) {
        Arch::new().dispatch(Apply { attention: self, said });
    }

    /// Where a query of a group starts.
    fn place(&self, group: usize, query: usize) -> usize {
        group * self.group_stride + query / self.heads * self.cell_stride + query % self.heads * self.head
    }
}

/// [`Attention::apply`] for vectors of any length.
struct Apply<'a> {
    attention: &'a Attention<'a>,
    said: &'a mut [f32],
}

impl WithSimd for Apply<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { attention, said } = self;
        let (head, lanes, queries) = (attention.head, VECTORS * S::F32_LANES, attention.asked * attention.heads);
        // Scores become powers of two.
        let scale = attention.scale * std::f32::consts::LOG2_E;
        let (mut query, mut sums) = (vec![0.0; head * lanes], vec![0.0; head * lanes]);
        let (mut shares, mut places) = (vec![0.0; TILE * lanes], vec![0; lanes]);
        for (group, key) in attention.key.chunks_exact(2 * head * attention.keys.max(1)).enumerate() {
            for first in (0..queries).step_by(lanes) {
                let filled = lanes.min(queries - first);
                // Lanes without a query repeat the last one.
                for (lane, place) in places.iter_mut().enumerate() {
                    *place = attention.place(group, first + lane.min(filled - 1));
                }
                for (offset, query) in query.chunks_exact_mut(lanes).enumerate() {
                    let values = places.iter().map(|place| scale * attention.query[place + offset]);
                    query.iter_mut().zip(values).for_each(|(query, value)| *query = value);
                }
                let (query, shares) = (S::as_simd_f32s(&query).0, S::as_mut_simd_f32s(&mut shares).0);
                let into = S::as_mut_simd_f32s(&mut sums).0;
                read(simd, query.as_chunks().0, key, shares.as_chunks_mut().0, into.as_chunks_mut().0);
                for (lane, &place) in places[..filled].iter().enumerate() {
                    let out = said[place..place + head].iter_mut();
                    out.zip(sums.chunks_exact(lanes)).for_each(|(out, sum)| *out = sum[lane]);
                }
            }
        }
    }
}

/// As many queries as are read at a time, or something of each.
type Lanes<S> = [<S as Simd>::f32s; VECTORS];

/// The mean of the values behind the keys, weighted by their shares in the queries. `query, out: [head]`
#[inline(always)]
fn read<S: Simd>(simd: S, query: &[Lanes<S>], key: &[f32], shares: &mut [Lanes<S>], out: &mut [Lanes<S>]) {
    let head = out.len();
    let zero = [simd.splat_f32s(0.0); VECTORS];
    let (mut largest, mut total) = ([simd.splat_f32s(f32::NEG_INFINITY); VECTORS], zero);
    out.fill(zero);
    for key in key.chunks(2 * head * TILE) {
        let shares = &mut shares[..key.len() / (2 * head)];
        let before = largest;
        scores(simd, query, key, shares, &mut largest);
        // What was summed before is measured by another largest score now.
        let mut kept = zero;
        for vector in 0..VECTORS {
            kept[vector] = power(simd, simd.sub_f32s(before[vector], largest[vector]));
            total[vector] = simd.mul_f32s(total[vector], kept[vector]);
        }
        for share in &mut *shares {
            for vector in 0..VECTORS {
                share[vector] = power(simd, simd.sub_f32s(share[vector], largest[vector]));
                total[vector] = simd.add_f32s(total[vector], share[vector]);
            }
        }
        weigh(simd, shares, key, kept, out);
    }
    for out in out {
        for vector in 0..VECTORS {
            out[vector] = simd.div_f32s(out[vector], total[vector]);
        }
    }
}

/// The score of every key, and the largest.
#[inline(always)]
fn scores<S: Simd>(simd: S, query: &[Lanes<S>], key: &[f32], scores: &mut [Lanes<S>], largest: &mut Lanes<S>) {
    let keys = scores.len();
    if keys < AT_A_TIME {
        for one in 0..keys {
            some_scores::<S, 1>(simd, query, key, one, scores, largest);
        }
        return;
    }
    for first in (0..keys).step_by(AT_A_TIME) {
        // The last ones may be computed twice.
        some_scores::<S, AT_A_TIME>(simd, query, key, first.min(keys - AT_A_TIME), scores, largest);
    }
}

#[inline(always)]
fn some_scores<S: Simd, const KEYS: usize>(
    simd: S,
    query: &[Lanes<S>],
    key: &[f32],
    first: usize,
    scores: &mut [Lanes<S>],
    largest: &mut Lanes<S>,
) {
    let head = query.len();
    let key = &key[2 * head * first..];
    let mut sums = [[simd.splat_f32s(0.0); VECTORS]; KEYS];
    let (blocks, rest) = query.as_chunks::<AT_A_TIME>();
    for (place, block) in blocks.iter().enumerate() {
        add_products(simd, block, &key[place * AT_A_TIME..], 2 * head, &mut sums);
    }
    for (place, one) in rest.iter().enumerate() {
        add_products(simd, &[*one], &key[blocks.len() * AT_A_TIME + place..], 2 * head, &mut sums);
    }
    for (score, sum) in scores[first..].iter_mut().zip(sums) {
        *score = sum;
        for vector in 0..VECTORS {
            largest[vector] = simd.max_f32s(sum[vector], largest[vector]);
        }
    }
}

/// Adds what some places of the queries make of as many of each key, which start `stride` apart.
#[inline(always)]
fn add_products<S: Simd, const PLACES: usize, const KEYS: usize>(
    simd: S,
    query: &[Lanes<S>; PLACES],
    key: &[f32],
    stride: usize,
    sums: &mut [Lanes<S>; KEYS],
) {
    // Arrays, so that nothing is left to check within the loops.
    let mut rows = [&[0.0; PLACES]; KEYS];
    for (place, row) in rows.iter_mut().enumerate() {
        if let Some(places) = key[place * stride..].first_chunk() {
            *row = places;
        }
    }
    for (place, query) in query.iter().enumerate() {
        for (sum, row) in sums.iter_mut().zip(rows) {
            let value = simd.splat_f32s(row[place]);
            for vector in 0..VECTORS {
                sum[vector] = simd.mul_add_e_f32s(value, query[vector], sum[vector]);
            }
        }
    }
}

/// Two to the power of `x`, which is at most 0, within 3e-6 in relative terms; of less than -126, that of -126.
#[inline(always)]
fn power<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    // Adding this number rounds to an integer, which then stands in the low bits.
    const ROUND: f32 = 12_582_912.0;
    // The polynomial of this degree with the least relative error between -1/2 and 1/2; the last coefficient first.
    const SERIES: [f32; 4] = [0.009_582_85, 0.055_906_43, 0.240_240_99, 0.693_124_2];
    let round = simd.splat_f32s(ROUND);
    let x = simd.max_f32s(x, simd.splat_f32s(-126.0));
    let shifted = simd.add_f32s(x, round);
    let rest = simd.sub_f32s(x, simd.sub_f32s(shifted, round));
    let mut series = simd.splat_f32s(SERIES[0]);
    for coefficient in &SERIES[1..] {
        series = simd.mul_add_e_f32s(series, rest, simd.splat_f32s(*coefficient));
    }
    let series = simd.mul_add_e_f32s(series, rest, simd.splat_f32s(1.0));
    let bits = simd.add_u32s(simd.transmute_u32s_f32s(shifted), simd.splat_u32s(127));
    let whole = simd.wrapping_dyn_shl_u32s(bits, simd.splat_u32s(23));
    simd.mul_f32s(series, simd.transmute_f32s_u32s(whole))
}

/// Adds the values behind the keys, weighted by `shares`, to what is kept of the sums.
#[inline(always)]
fn weigh<S: Simd>(simd: S, shares: &[Lanes<S>], key: &[f32], kept: Lanes<S>, out: &mut [Lanes<S>]) {
    let head = out.len();
    let (blocks, rest) = out.as_chunks_mut::<AT_A_TIME>();
    for (place, block) in blocks.iter_mut().enumerate() {
        some_values(simd, shares, &key[head + place * AT_A_TIME..], 2 * head, kept, block);
    }
    let first = head - rest.len();
    for (place, one) in rest.iter_mut().enumerate() {
        some_values(simd, shares, &key[head + first + place..], 2 * head, kept, std::array::from_mut(one));
    }
}

#[inline(always)]
fn some_values<S: Simd, const PLACES: usize>(
    simd: S,
    shares: &[Lanes<S>],
    value: &[f32],
    stride: usize,
    kept: Lanes<S>,
    out: &mut [Lanes<S>; PLACES],
) {
    let mut sums = *out;
    for sum in &mut sums {
        for vector in 0..VECTORS {
            sum[vector] = simd.mul_f32s(sum[vector], kept[vector]);
        }
    }
    for (share, value) in shares.iter().zip(value.chunks(stride)) {
        let Some(value) = value.first_chunk::<PLACES>() else { continue };
        for (sum, value) in sums.iter_mut().zip(value) {
            let value = simd.splat_f32s(*value);
            for vector in 0..VECTORS {
                sum[vector] = simd.mul_add_e_f32s(value, share[vector], sum[vector]);
            }
        }
    }
    *out = sums;
}

#[cfg(test)]
mod tests {
    use pulp::{Scalar, Scalar512b};

    use super::*;
    use crate::fixture::Noise;

    /// What the heads say by the vectors of this machine, by those of older ones, and one query at a time.
    fn by_all_vectors(attention: &Attention<'_>) -> Vec<Vec<f32>> {
        let empty = vec![f32::NAN; attention.query.len()];
        let mut all = vec![empty.clone(); 3];
        attention.apply(&mut all[0]);
        Simd::vectorize(Scalar512b, Apply { attention, said: &mut all[1] });
        Simd::vectorize(Scalar, Apply { attention, said: &mut all[2] });
        #[cfg(target_arch = "x86_64")]
        if let Some(simd) = pulp::x86::V3::try_new() {
            let mut said = empty;
            Simd::vectorize(simd, Apply { attention, said: &mut said });
            all.push(said);
        }
        all
    }

    /// The definition, of one query.
    fn said(attention: &Attention<'_>, query: &[f32], key: &[f32]) -> Vec<f32> {
        let head = attention.head;
        let keys: Vec<&[f32]> = key.chunks_exact(2 * head).collect();
        let score = |key: &&[f32]| -> f64 {
            let product: f64 = query.iter().zip(*key).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
            (product * f64::from(attention.scale)).exp()
        };
        let total: f64 = keys.iter().map(score).sum();
        let mean = |place: usize| keys.iter().map(|key| score(key) * f64::from(key[head + place])).sum::<f64>() / total;
        (0..head).map(|place| mean(place) as f32).collect()
    }

    #[test]
    fn agrees_with_the_definition_for_any_sizes_and_strides() {
        let mut noise = Noise::new(3);
        for [heads, head, asked, groups, keys] in [
            [4, 24, 9, 2, 21],
            [2, 4, 3, 3, 2],
            [1, 9, 1, 1, 1],
            [3, 8, 17, 1, 64],
            [2, 1, 5, 2, 8],
            [1, 13, 70, 1, 200],
        ] {
            let width = heads * head;
            let key: Vec<f32> = noise.vector(groups * keys * 2 * head).iter().map(|value| 3.0 * value).collect();
            let query: Vec<f32> = noise.vector(groups * asked * width).iter().map(|value| 9.0 * value).collect();
            // The cells of a group behind each other, and those of all groups in turn.
            for (cell_stride, group_stride) in [(width, asked * width), (groups * width, width)] {
                let (scale, query, key) = (0.7, &query[..], &key[..]);
                let attention = Attention { heads, head, scale, asked, cell_stride, group_stride, query, keys, key };
                let all = by_all_vectors(&attention);
                for group in 0..groups {
                    for one in 0..asked * heads {
                        let place = attention.place(group, one);
                        let key = &key[group * keys * 2 * head..][..keys * 2 * head];
                        let expected = said(&attention, &query[place..place + head], key);
                        let close = |(a, b): (&f32, &f32)| (a - b).abs() < 1e-5 * (1.0 + b.abs());
                        let agrees = |said: &Vec<f32>| said[place..place + head].iter().zip(&expected).all(close);
                        assert!(all.iter().all(agrees), "{head} {keys} {one}");
                    }
                }
            }
        }
    }

    #[test]
    fn far_scores_neither_overflow_nor_divide_by_zero() {
        let (query, key) = ([1e4, -1e4], [1.0, 5.0, -1.0, 7.0]);
        let attention = Attention {
            heads: 2,
            head: 1,
            scale: 1.0,
            asked: 1,
            cell_stride: 2,
            group_stride: 2,
            query: &query,
            keys: 2,
            key: &key,
        };
        for said in by_all_vectors(&attention) {
            assert!(said.iter().zip([5.0, 7.0]).all(|(said, value)| (said - value).abs() < 1e-6), "{said:?}");
        }
    }
}
