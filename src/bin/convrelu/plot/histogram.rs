//! How often values occur.

use plotters::prelude::*;

use super::{Area, FONT, MARGIN, TEXT, TITLE, colour, decimals, number};
use crate::Failure;

/// Shares of values in [`BINS`] bins of equal width. The axis is symmetric around 0.
pub(crate) struct Histogram {
    pub(crate) title: String,
    pub(crate) values: Vec<f32>,
    /// The end of the axis. If None, it is the greatest absolute value.
    pub(crate) reach: Option<f64>,
    /// Whether it is one of many.
    pub(crate) small: bool,
}

/// Bins of a histogram: an odd number, so that 0 lies in the middle of one.
pub(crate) const BINS: usize = 41;

impl Histogram {
    pub(crate) fn new(title: &str, values: Vec<f32>) -> Self {
        Self { title: title.to_owned(), values, reach: None, small: false }
    }

    pub(super) fn size(&self) -> (u32, u32) {
        if self.small { (270, 200) } else { (460, 400) }
    }

    pub(super) fn draw(&self, area: &Area<'_>) -> Result<(), Failure> {
        let area = area.titled(&self.title, (FONT, if self.small { TEXT } else { TITLE }))?;
        let (reach, shares) = shares_of_bins(&self.values, BINS, self.reach);
        let top = shares.iter().fold(1.0, |top: f64, &share| top.max(share)) * 1.08;
        let mut chart = ChartBuilder::on(&area)
            .margin(MARGIN)
            .x_label_area_size(if self.small { 24 } else { 44 })
            .y_label_area_size(if self.small { 30 } else { 48 })
            .build_cartesian_2d(-reach..reach, 0.0..top)?;
        let (x_decimals, y_decimals) = (decimals(2.0 * reach), usize::from(top < 5.0));
        let (x_format, y_format) = (|x: &f64| number(*x, x_decimals), |y: &f64| number(*y, y_decimals));
        let mut mesh = chart.configure_mesh();
        if !self.small {
            mesh.x_desc("θ").y_desc("% of all");
        }
        mesh.x_labels(if self.small { 4 } else { 6 })
            .y_labels(if self.small { 4 } else { 10 })
            .x_label_formatter(&x_format)
            .y_label_formatter(&y_format)
            .light_line_style(TRANSPARENT)
            .disable_x_mesh()
            .label_style((FONT, TEXT))
            .draw()?;
        let width = 2.0 * reach / shares.len() as f64;
        chart.draw_series(shares.iter().enumerate().map(|(bin, &share)| {
            let from = bin as f64 * width - reach;
            let mut bar = Rectangle::new([(from, 0.0), (from + width, share)], colour(0).filled());
            bar.set_margin(0, 0, 1, 0);
            bar
        }))?;
        Ok(())
    }
}

/// Bins of equal width over `-reach..reach`, and each bin's share of the values in %. Values beyond are in the outer bins. If no
/// reach is given, it is a little more than the greatest absolute value. With an odd number of bins, 0 lies in the middle of one.
pub(crate) fn shares_of_bins(values: &[f32], bins: usize, reach: Option<f64>) -> (f64, Vec<f64>) {
    let greatest = || values.iter().fold(0.0, |reach: f64, &value| reach.max(f64::from(value).abs()));
    let reach = reach.unwrap_or_else(|| greatest().max(1e-3) * 1.02);
    let mut shares = vec![0.0; bins.max(1)];
    for &value in values {
        let bin = ((f64::from(value) + reach) / (2.0 * reach) * shares.len() as f64) as usize;
        let last = shares.len() - 1;
        shares[bin.min(last)] += 100.0 / values.len() as f64;
    }
    (reach, shares)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histograms_hold_every_value() {
        let (reach, shares) = shares_of_bins(&[-1.0, 0.0, 0.0, 1.0], 5, None);
        assert!((reach - 1.02).abs() < 1e-9);
        assert_eq!(shares, [25.0, 0.0, 50.0, 0.0, 25.0]);
        assert_eq!(shares_of_bins(&[0.0; 3], 3, None).1, [0.0, 100.0, 0.0]);
        assert_eq!(shares_of_bins(&[], 2, None).1, [0.0, 0.0]);
        assert_eq!(shares_of_bins(&[-9.0, 0.0, 0.5, 9.0], 3, Some(3.0)), (3.0, vec![25.0, 50.0, 25.0]));
    }
}
