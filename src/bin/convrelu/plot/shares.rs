//! Shares per layer and epoch, as fields that are darker the greater the share is.

use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use super::{Area, FONT, MARGIN, TEXT, TITLE, colour, decimals, number, widest, write};
use crate::Failure;

/// A line of fields per row, one field per epoch.
pub(crate) struct Shares {
    pub(crate) title: String,
    /// Name, and for each epoch from the first a share in %, if it is known.
    pub(crate) rows: Vec<(String, Vec<Option<f64>>)>,
    /// The share of the darkest field in %. Pictures with the same can be compared.
    pub(crate) most: f64,
}

/// Height of a row.
const HEIGHT: u32 = 20;
/// Fields of the key.
const STEPS: u32 = 5;

impl Shares {
    fn names(&self) -> u32 {
        widest(self.rows.iter().map(|(name, _)| name.as_str())) + MARGIN
    }

    pub(super) fn size(&self) -> (u32, u32) {
        (420 + self.names(), 130 + HEIGHT * self.rows.len() as u32)
    }

    pub(super) fn draw(&self, area: &Area<'_>) -> Result<(), Failure> {
        let area = area.titled(&self.title, (FONT, TITLE))?;
        let most = self.most.max(0.1);
        let epochs = self.rows.iter().map(|(_, shares)| shares.len()).max().unwrap_or(0).max(1);
        let (_, height) = area.dim_in_pixel();
        let (area, below) = area.split_vertically(height.saturating_sub(34));
        let mut chart = ChartBuilder::on(&area)
            .margin(MARGIN)
            .x_label_area_size(44)
            .y_label_area_size(self.names())
            .build_cartesian_2d(0.5..epochs as f64 + 0.5, 0.0..self.rows.len().max(1) as f64)?;
        chart
            .configure_mesh()
            .disable_mesh()
            .y_labels(0)
            .x_desc("epoch")
            .x_labels(epochs.clamp(2, 8))
            .x_label_formatter(&|x| number(*x, usize::from(x.fract() != 0.0)))
            .label_style((FONT, TEXT))
            .draw()?;
        let top = area.get_pixel_range().1.start;
        // The least share is still told from a field without a value, which stays empty.
        let shade = |share: f64| colour(0).mix(0.06 + 0.94 * (share / most).min(1.0)).filled();
        for (index, (name, shares)) in self.rows.iter().enumerate() {
            let y = (self.rows.len() - 1 - index) as f64;
            let pixel = chart.backend_coord(&(0.5, y + 0.5)).1 - top;
            write(&area, name, ((self.names() + MARGIN) as i32 - 8, pixel), HPos::Right)?;
            let fields = shares.iter().enumerate().filter_map(|(epoch, share)| Some((epoch as f64 + 1.0, (*share)?)));
            chart.draw_series(
                fields.map(|(x, share)| Rectangle::new([(x - 0.5, y + 0.04), (x + 0.5, y + 0.96)], shade(share))),
            )?;
        }
        let digits = decimals(most).max(1);
        for step in 0..STEPS {
            let share = most * f64::from(step) / f64::from(STEPS - 1);
            let x = (MARGIN + 80 * step) as i32;
            below.draw(&Rectangle::new([(x, 4), (x + 16, 20)], shade(share)))?;
            write(&below, &format!("{} %", number(share, digits)), (x + 22, 12), HPos::Left)?;
        }
        Ok(())
    }
}
