//! Values per epoch.

use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use super::{Area, FONT, MARGIN, TEXT, TITLE, colour, decimals, number, widest, write};
use crate::Failure;

/// Curves of several series over the epochs.
pub(crate) struct Curves {
    pub(crate) title: String,
    pub(crate) series: Vec<Series>,
    pub(crate) axis: Axis,
    /// Whether the names of the series stand beside the curves. Panels beside one another need them once.
    pub(crate) legend: bool,
}

/// The range of the vertical axis.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Axis {
    /// Shares in %. The first epochs may lie below the axis.
    Percent,
    /// All values.
    Plain,
}

/// Runs that share a name and a colour.
pub(crate) struct Series {
    pub(crate) name: String,
    /// Per run, a value for each epoch from the first. The runs are drawn faint, and their mean on top, as far as all runs go.
    pub(crate) runs: Vec<Vec<f64>>,
}

/// The largest number of epochs whose values are marked by points.
const POINTS: usize = 40;

impl Curves {
    /// Curves of shares with a legend.
    pub(crate) fn percent(title: &str, series: Vec<Series>) -> Self {
        Self { title: title.to_owned(), series, axis: Axis::Percent, legend: true }
    }

    fn legend_width(&self) -> u32 {
        if self.legend { 44 + widest(self.series.iter().map(|series| series.name.as_str())) } else { 0 }
    }

    pub(super) fn size(&self) -> (u32, u32) {
        (500 + self.legend_width(), 400)
    }

    pub(super) fn draw(&self, area: &Area<'_>) -> Result<(), Failure> {
        let area = area.titled(&self.title, (FONT, TITLE))?;
        let runs = || self.series.iter().flat_map(|series| &series.runs);
        let epochs = runs().map(Vec::len).max().unwrap_or(0);
        let (bottom, top) = match self.axis {
            Axis::Percent => percent_range(runs()),
            Axis::Plain => plain_range(runs()),
        };
        let digits = if self.axis == Axis::Percent { 0 } else { decimals(top - bottom) };
        let y_labels = if self.axis == Axis::Percent { ((top - bottom) as usize + 1).min(11) } else { 8 };
        let (pixels, _) = area.dim_in_pixel();
        let (area, right) = area.split_horizontally(pixels.saturating_sub(self.legend_width()));
        let mut chart = ChartBuilder::on(&area)
            .margin(MARGIN)
            .x_label_area_size(44)
            .y_label_area_size(48)
            .build_cartesian_2d(1.0..(epochs as f64).max(2.0), bottom..top)?;
        chart
            .configure_mesh()
            .x_desc(epochs_axis(runs(), bottom))
            .x_labels(epochs.clamp(2, 8))
            .x_label_formatter(&|x| number(*x, 0))
            .y_label_formatter(&|y| number(*y, digits))
            .y_labels(y_labels)
            .light_line_style(TRANSPARENT)
            .label_style((FONT, TEXT))
            .draw()?;
        let mut curve = |run: &[f64], style: ShapeStyle, mark: Option<(usize, i32)>| -> Result<(), Failure> {
            for part in clipped(run, bottom) {
                chart.draw_series(LineSeries::new(part, style))?;
            }
            let Some((shape, size)) = mark.filter(|_| run.len() <= POINTS) else { return Ok(()) };
            let points = run.iter().enumerate().filter(|(_, y)| **y >= bottom);
            let points = points.map(|(epoch, &y)| ((epoch + 1) as f64, y));
            match shape % 4 {
                0 => chart.draw_series(points.map(|at| Circle::new(at, size, style.filled())))?,
                1 => chart.draw_series(points.map(|at| TriangleMarker::new(at, size + 1, style.filled())))?,
                2 => chart.draw_series(points.map(|at| Cross::new(at, size, style)))?,
                _ => chart.draw_series(points.map(|at| Circle::new(at, size, style)))?,
            };
            Ok(())
        };
        // The means lie above all runs, also above those of other series.
        for (index, Series { runs, .. }) in self.series.iter().enumerate().filter(|(_, series)| series.runs.len() > 1) {
            for run in runs {
                // A single value has no line.
                let mark = (run.len() == 1).then_some((index, 2));
                curve(run, colour(index).mix(0.35).stroke_width(1), mark)?;
            }
        }
        for (index, Series { name, runs }) in self.series.iter().enumerate() {
            // A run that diverged in its first epoch has nothing to show.
            let runs: Vec<_> = runs.iter().filter(|run| !run.is_empty()).collect();
            let common = runs.iter().map(|run| run.len()).min().unwrap_or(0);
            let mean = |epoch: usize| runs.iter().map(|run| run[epoch]).sum::<f64>() / runs.len() as f64;
            let mean: Vec<_> = (0..common).map(mean).collect();
            curve(&mean, colour(index).stroke_width(2), Some((index, 3)))?;
            if self.legend {
                let (y, style) = (MARGIN as i32 + 12 + 24 * index as i32, colour(index).stroke_width(2));
                right.draw(&PathElement::new([(0, y), (26, y)], style))?;
                match index % 4 {
                    0 => right.draw(&Circle::new((13, y), 4, style.filled()))?,
                    1 => right.draw(&TriangleMarker::new((13, y), 5, style.filled()))?,
                    2 => right.draw(&Cross::new((13, y), 4, style))?,
                    _ => right.draw(&Circle::new((13, y), 4, style))?,
                }
                write(&right, name, (32, y), HPos::Left)?;
            }
        }
        Ok(())
    }
}

/// The range of an axis of shares. It holds all runs but for the first epochs, because with these the curves would be flat at the
/// top. Of each run it holds at least the last value.
fn percent_range<'a>(runs: impl Iterator<Item = &'a Vec<f64>> + Clone) -> (f64, f64) {
    let epochs = runs.clone().map(Vec::len).max().unwrap_or(0);
    let settled = runs.clone().flat_map(|run| &run[(epochs / 10).min(run.len().saturating_sub(1))..]);
    let bottom = (settled.fold(100.0, |least: f64, &y| least.min(y)) - 0.5).floor().max(0.0);
    let top = (runs.flatten().fold(0.0, |top: f64, &y| top.max(y)) + 0.5).ceil().min(100.0).max(bottom + 1.0);
    (bottom, top)
}

/// The range of an axis that holds all values, and a little room.
fn plain_range<'a>(runs: impl Iterator<Item = &'a Vec<f64>> + Clone) -> (f64, f64) {
    let values = || runs.clone().flatten().copied();
    let (least, most) = (values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max));
    let (least, most) = if least <= most { (least, most) } else { (0.0, 1.0) };
    let room = ((most - least) * 0.05).max(1e-3);
    // Losses and other values that cannot be negative keep an axis that is not.
    (if least >= 0.0 { (least - room).max(0.0) } else { least - room }, most + room)
}

/// The parts of a curve above the bottom, from where it crosses it.
fn clipped(run: &[f64], bottom: f64) -> Vec<Vec<(f64, f64)>> {
    let mut parts = Vec::new();
    let mut part: Vec<(f64, f64)> = Vec::new();
    for (epoch, &y) in run.iter().enumerate() {
        let x = (epoch + 1) as f64;
        let before = epoch.checked_sub(1).map(|before| run[before]);
        if let Some(before) = before.filter(|&before| (before < bottom) != (y < bottom)) {
            part.push((x - (y - bottom) / (y - before), bottom));
        }
        if y >= bottom {
            part.push((x, y));
        } else if !part.is_empty() {
            parts.push(std::mem::take(&mut part));
        }
    }
    parts.push(part);
    parts.retain(|part| !part.is_empty());
    parts
}

/// A name of the axis that says what lies below it.
fn epochs_axis<'a>(runs: impl Iterator<Item = &'a Vec<f64>>, bottom: f64) -> String {
    let below: Vec<f64> = runs.flatten().copied().filter(|&y| y < bottom).collect();
    match below.iter().copied().reduce(f64::min) {
        None => "epoch".to_owned(),
        Some(least) => format!("epoch (below the axis: {} values, the least {least:.1})", below.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Panel, draw};
    use super::*;

    /// What stands between quotes behind `name=` in an element.
    fn attribute(element: &str, name: &str) -> f64 {
        let value = element.split(&format!(" {name}=\"")).nth(1).and_then(|rest| rest.split('"').next());
        value.and_then(|value| value.parse().ok()).unwrap()
    }

    /// Values of the points of a picture of curves, by the labels of its axes; and whether all lines stay within it.
    fn read_back(svg: &str) -> (Vec<(f64, f64)>, bool) {
        let texts: Vec<_> = svg.split("<text ").skip(1).collect();
        let labels = |anchor: &str, at: &str| -> Vec<(f64, f64)> {
            let of = |element: &&str| element.contains(&format!("text-anchor=\"{anchor}\""));
            let value = |element: &str| element.split('\n').nth(1)?.trim().parse().ok();
            texts
                .iter()
                .copied()
                .filter(of)
                .filter_map(|e| Some((attribute(&format!(" {e}"), at), value(e)?)))
                .collect()
        };
        let line = |labels: Vec<(f64, f64)>| {
            let ((p, v), (q, w)) = (labels[0], labels[labels.len() - 1]);
            move |pixel: f64| v + (pixel - p) * (w - v) / (q - p)
        };
        let (x, y) = (line(labels("middle", "x")), line(labels("end", "y")));
        let bottom = labels("end", "y").iter().map(|label| label.0).fold(0.0, f64::max);
        let circles = svg
            .split("<circle")
            .skip(1)
            .filter(|e| attribute(e, "r") < 4.0)
            .map(|e| (x(attribute(e, "cx")), y(attribute(e, "cy"))));
        let coloured = svg.split("<polyline").skip(1).filter(|element| !element.contains("#000000"));
        let points = coloured.flat_map(|e| e.split("points=\"").nth(1).unwrap().split('"').next().unwrap().split(' '));
        let inside = points.filter_map(|p| p.split_once(',')).all(|(_, y)| y.parse::<f64>().unwrap() <= bottom + 0.5);
        (circles.collect(), inside)
    }

    fn curves(runs: &[&[f64]]) -> String {
        let series = Series { name: "test".to_owned(), runs: runs.iter().map(|run| run.to_vec()).collect() };
        draw(&[Panel::Curves(Curves::percent("c", vec![series]))]).unwrap()
    }

    /// As near as whole pixels allow.
    fn close(found: &[(f64, f64)], expected: &[(f64, f64)]) -> bool {
        let near = |a: &(f64, f64), b: &(f64, f64)| (a.0 - b.0).abs() < 0.1 && (a.1 - b.1).abs() < 0.15;
        found.len() == expected.len() && expected.iter().all(|b| found.iter().any(|a| near(a, b)))
    }

    #[test]
    fn a_single_epoch_is_a_point_where_it_belongs() {
        let (points, inside) = read_back(&curves(&[&[85.0]]));
        assert!(inside && close(&points, &[(1.0, 85.0)]), "{points:?}");
    }

    #[test]
    fn values_below_the_axis_are_cut_and_counted() {
        let mut long = vec![12.0, 40.0];
        long.extend((0..18).map(|epoch| 90.0 + f64::from(epoch) / 4.0));
        let svg = curves(&[&long]);
        let (points, inside) = read_back(&svg);
        let seen: Vec<_> = (3..).map(f64::from).zip(long[2..].iter().copied()).collect();
        assert!(inside && close(&points, &seen), "{points:?}");
        assert!(svg.contains("epoch (below the axis: 2 values, the least 12.0)"), "{svg}");
        // A run that ended early at 85 is seen at 85; one that diverged at once does not hide the mean.
        let svg = curves(&[&long, &[85.0], &[]]);
        let (points, inside) = read_back(&svg);
        assert!(inside && points.iter().any(|(x, y)| (x - 1.0).abs() < 0.1 && (y - 85.0).abs() < 0.15), "{points:?}");
        assert!(svg.contains("epoch (below the axis: 2 values, the least 12.0)"), "{svg}");
        assert!(points.iter().all(|&(_, y)| y > 80.0), "{points:?}");
    }

    #[test]
    fn curves_are_cut_where_they_cross_the_bottom() {
        assert_eq!(clipped(&[1.0, 3.0, 2.0], 2.0), [[(1.5, 2.0), (2.0, 3.0), (3.0, 2.0)]]);
        assert_eq!(clipped(&[3.0, 1.0, 3.0], 2.0), [[(1.0, 3.0), (1.5, 2.0)], [(2.5, 2.0), (3.0, 3.0)]]);
        assert_eq!(clipped(&[1.0], 2.0), Vec::<Vec<(f64, f64)>>::new());
    }

    #[test]
    fn an_axis_of_losses_holds_them_all() {
        let runs = [vec![2.0, 1.0], vec![0.0]];
        let (bottom, top) = plain_range(runs.iter());
        assert!(bottom == 0.0 && (2.0..2.2).contains(&top), "{bottom} {top}");
        assert_eq!(plain_range([].iter()), (0.0, 1.05));
    }
}
