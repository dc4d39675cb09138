//! Stand-ins for the outside world that misbehave on purpose and remember what they handed over: for the demo, the
//! benchmarks and whoever tries lakefeed without a key of the real service.

pub mod iqair;

/// A number that looks random and depends on nothing but `parts`.
fn mix(parts: &[u64]) -> u64 {
    parts.iter().fold(0x243f_6a88_85a3_08d3, |state, part| {
        let mut z = (state ^ part).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    })
}

/// A share of 1, from 0 inclusive to 1 exclusive.
fn share(parts: &[u64]) -> f64 {
    (mix(parts) >> 11) as f64 / (1u64 << 53) as f64
}
