//! Percentiles of few numbers.

/// The least value that at least `part` of all values do not exceed; 0 where there are none.
pub(super) fn percentile(values: &mut [f64], part: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "an index")]
    let rank = (values.len() as f64 * part).ceil() as usize;
    values.get(rank.saturating_sub(1)).or(values.last()).copied().unwrap_or(0.0)
}

/// The middle value; the lower one of two.
pub(super) fn median(values: &mut [f64]) -> f64 {
    percentile(values, 0.5)
}

/// Rounded to `digits` behind the point, as it is printed.
pub(super) fn round(value: f64, digits: i32) -> f64 {
    let scale = 10f64.powi(digits);
    (value * scale).round() / scale
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_percentiles_are_values_that_were_measured() {
        let mut thirty: Vec<f64> = (1..=30).rev().map(f64::from).collect();
        assert_eq!((percentile(&mut thirty, 0.5), percentile(&mut thirty, 0.99)), (15.0, 30.0));
        assert_eq!((median(&mut [3.0, 1.0, 2.0]), median(&mut [7.0]), median(&mut [])), (2.0, 7.0, 0.0));
        assert_eq!(round(1.23456, 3), 1.235);
    }
}
