//! Values of several runs per row.

use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use super::{Area, FONT, MARGIN, TEXT, TITLE, colour, decimals, mean_and_deviation, number, widest, write};
use crate::Failure;

/// Rows of values: of each row the mean, the sample standard deviation, each run, and a value to compare with.
///
/// The rows lie below one another, because their names are long. They hold dots and not bars, because the axis need not begin at
/// 0.
pub(crate) struct Rows {
    pub(crate) title: String,
    pub(crate) rows: Vec<Row>,
    /// The name of the values to compare with, if there are any.
    pub(crate) reference: Option<String>,
}

/// A row of [`Rows`].
pub(crate) struct Row {
    pub(crate) name: String,
    /// One per run.
    pub(crate) values: Vec<f64>,
    /// The value to compare with.
    pub(crate) reference: Option<f64>,
}

impl Rows {
    pub(super) fn size(&self) -> (u32, u32) {
        let key = 22 * (1 + u32::from(self.reference.is_some()));
        let names = widest(self.rows.iter().map(|row| row.name.as_str()));
        (460 + names, 130 + key + 38 * self.rows.len() as u32)
    }

    pub(super) fn draw(&self, area: &Area<'_>) -> Result<(), Failure> {
        let (rows, reference) = (&self.rows, self.reference.as_deref());
        let area = area.titled(&self.title, (FONT, TITLE))?;
        let spreads: Vec<_> =
            rows.iter().map(|row| (!row.values.is_empty()).then(|| mean_and_deviation(&row.values))).collect();
        let ends = spreads.iter().flatten().flat_map(|(mean, deviation)| [mean - deviation, mean + deviation]);
        let references = rows.iter().filter_map(|row| row.reference).filter(|_| reference.is_some());
        let all =
            || ends.clone().chain(references.clone()).chain(rows.iter().flat_map(|row| row.values.iter().copied()));
        let (least, most) = (all().fold(f64::INFINITY, f64::min), all().fold(f64::NEG_INFINITY, f64::max));
        let (least, most) = if least <= most { (least, most) } else { (0.0, 100.0) };
        let room = ((most - least) * 0.08).max(0.05);
        let (least, most) = ((least - room).max(0.0), most + room);

        let key = 22 * (1 + u32::from(reference.is_some()));
        let (pixels, height) = area.dim_in_pixel();
        let (area, below) = area.split_vertically(height.saturating_sub(key + MARGIN));
        let names = (widest(rows.iter().map(|row| row.name.as_str())) + MARGIN).min(pixels / 2);
        let mut chart = ChartBuilder::on(&area)
            .margin(MARGIN)
            .x_label_area_size(30)
            .y_label_area_size(names)
            .build_cartesian_2d(least..most, 0.0..rows.len().max(1) as f64)?;
        let digits = decimals(most - least);
        chart
            .configure_mesh()
            .disable_y_mesh()
            .y_labels(0)
            .x_labels(6)
            .x_label_formatter(&|x| number(*x, digits))
            .light_line_style(TRANSPARENT)
            .label_style((FONT, TEXT))
            .draw()?;
        let (left, top) = (area.get_pixel_range().0.start, area.get_pixel_range().1.start);
        for (index, (row, spread)) in rows.iter().zip(spreads).enumerate() {
            let y = (rows.len() - 1 - index) as f64 + 0.5;
            let pixel = chart.backend_coord(&(least, y)).1 - top;
            write(&area, &row.name, ((names + MARGIN) as i32 - 8, pixel), HPos::Right)?;
            let shift = 0.2;
            if let Some(value) = row.reference.filter(|_| reference.is_some()) {
                let at = |(x, y): (i32, i32)| (x - left, y - top);
                area.draw(&diamond(at(chart.backend_coord(&(value, y - shift)))))?;
            }
            let Some((mean, deviation)) = spread else {
                let middle = chart.backend_coord(&((least + most) / 2.0, y)).0 - left;
                write(&area, "diverged", (middle, pixel), HPos::Center)?;
                continue;
            };
            let runs = row.values.iter().map(|&value| Circle::new((value, y + shift), 3, colour(0).mix(0.4).filled()));
            chart.draw_series(runs)?;
            let [from, to] = [mean - deviation, mean + deviation];
            let bar = [[(from, y), (to, y)], [(from, y - 0.12), (from, y + 0.12)], [(to, y - 0.12), (to, y + 0.12)]];
            if row.values.len() > 1 {
                chart.draw_series(bar.map(|line| PathElement::new(line, colour(0).stroke_width(2))))?;
            }
            chart.draw_series([Circle::new((mean, y), 5, colour(0).filled())])?;
        }
        let x = MARGIN as i32 + 6;
        below.draw(&Circle::new((x, 8), 5, colour(0).filled()))?;
        write(&below, "mean ± standard deviation; above it each seed", (x + 14, 8), HPos::Left)?;
        if let Some(reference) = reference {
            below.draw(&diamond((x, 30)))?;
            write(&below, reference, (x + 14, 30), HPos::Left)?;
        }
        Ok(())
    }
}

/// The mark of a value to compare with.
fn diamond((x, y): (i32, i32)) -> PathElement<(i32, i32)> {
    PathElement::new([(x, y - 5), (x + 5, y), (x, y + 5), (x - 5, y), (x, y - 5)], colour(1).stroke_width(2))
}
