//! Pictures as SVG: accuracy curves (figure 5 of the paper), histograms of thresholds (figure 6), and values with error
//! bars. A picture is a row of panels.

use convrelu::train::Epoch;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::Failure;

/// A part of a picture with a title of its own.
pub(crate) enum Panel {
    /// Values per epoch.
    Curves { title: String, series: Vec<Series> },
    /// Shares of values in bins of equal width, from the smallest value to the greatest, symmetric around 0.
    Histogram { title: String, values: Vec<f32>, bins: usize },
    /// Values of several runs per row: mean, sample standard deviation, each run, and a value to compare with.
    Rows { title: String, rows: Vec<Row>, reference: Option<String> },
}

/// Runs that share a name and a colour.
pub(crate) struct Series {
    pub(crate) name: String,
    /// Per run, a value in % for each epoch from the first. Faint; their mean, as far as all go, is drawn on top.
    pub(crate) runs: Vec<Vec<f64>>,
}

/// A row of [`Panel::Rows`].
pub(crate) struct Row {
    pub(crate) name: String,
    /// One per run.
    pub(crate) values: Vec<f64>,
    /// What it is compared with.
    pub(crate) reference: Option<f64>,
}

/// Bins of a histogram of thresholds: an odd number, so that 0 lies in the middle of one.
pub(crate) const BINS: usize = 41;

const FONT: &str = "sans-serif";
const TITLE: u32 = 18;
const TEXT: u32 = 15;
const MARGIN: u32 = 12;
const INK: RGBColor = RGBColor(40, 40, 40);

/// Blue and vermilion first, which differ most; the rest of Okabe and Ito's palette, which colour-blind readers tell apart;
/// its yellow is too light on white and stands as a dark brown.
const PALETTE: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(110, 80, 30),
];

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// The colour of a series by its number.
fn colour(index: usize) -> RGBColor {
    PALETTE[index % PALETTE.len()]
}

/// Width of a text. There are no fonts here: a guess on the safe side, of what browsers make of it.
fn width(text: &str) -> u32 {
    (text.chars().count() as f64 * f64::from(TEXT) * 0.52).ceil() as u32
}

fn widest<'a>(texts: impl Iterator<Item = &'a str>) -> u32 {
    texts.map(width).max().unwrap_or(0)
}

impl Panel {
    fn size(&self) -> (u32, u32) {
        let (title, width, height) = match self {
            Self::Curves { title, series } => (title, 500 + 40 + widest(series.iter().map(|s| s.name.as_str())), 400),
            Self::Histogram { title, .. } => (title, 460, 400),
            Self::Rows { title, rows, reference } => {
                let key = 22 * (1 + u32::from(reference.is_some()));
                let names = widest(rows.iter().map(|row| row.name.as_str()));
                (title, 460 + names, 130 + key + 38 * rows.len() as u32)
            }
        };
        // Titles are larger than other text.
        (width.max(title.chars().count() as u32 * 9 + 2 * MARGIN), height)
    }

    fn draw(&self, area: &Area<'_>) -> Result<(), Failure> {
        match self {
            Self::Curves { title, series } => draw_curves(area, title, series),
            Self::Histogram { title, values, bins } => draw_histogram(area, title, values, *bins),
            Self::Rows { title, rows, reference } => draw_rows(area, title, rows, reference.as_deref()),
        }
    }
}

/// An SVG document of panels side by side.
pub(crate) fn draw(panels: &[Panel]) -> Result<String, Failure> {
    let sizes: Vec<_> = panels.iter().map(Panel::size).collect();
    let width = sizes.iter().map(|size| size.0).sum::<u32>().max(1);
    let height = sizes.iter().map(|size| size.1).max().unwrap_or(1);
    let mut svg = String::new();
    {
        let mut rest = SVGBackend::with_string(&mut svg, (width, height)).into_drawing_area();
        rest.fill(&WHITE)?;
        for (panel, (width, _)) in panels.iter().zip(sizes) {
            let (area, right) = rest.split_horizontally(width);
            panel.draw(&area)?;
            rest = right;
        }
        rest.present()?;
    }
    Ok(svg)
}

/// The picture of a single run: accuracies per epoch, and its thresholds if it has any.
pub(crate) fn run(history: &[Epoch], thresholds: &[f32]) -> Result<String, Failure> {
    let series = |name: &str, value: fn(&Epoch) -> f64| {
        let run = history.iter().map(|epoch| 100.0 * value(epoch)).collect();
        Series { name: name.to_owned(), runs: vec![run] }
    };
    let series = vec![series("test", |epoch| epoch.test_accuracy), series("training", |epoch| epoch.accuracy)];
    let mut panels = vec![Panel::Curves { title: "Accuracy (%)".to_owned(), series }];
    if !thresholds.is_empty() {
        let title = "Learned thresholds θ".to_owned();
        panels.push(Panel::Histogram { title, values: thresholds.to_vec(), bins: BINS });
    }
    draw(&panels)
}

/// Text at a pixel of an area.
fn write(area: &Area<'_>, text: &str, at: (i32, i32), align: HPos) -> Result<(), Failure> {
    let style = (FONT, TEXT).into_font().color(&INK).pos(Pos::new(align, VPos::Center));
    Ok(area.draw(&Text::new(text.to_owned(), at, style))?)
}

/// Decimals that tell the labels of an axis apart.
fn decimals(range: f64) -> usize {
    (-(range.max(1e-6) / 6.0).log10().floor()).clamp(0.0, 6.0) as usize
}

/// A number; plain formatting writes a tiny negative one as −0.00.
fn number(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    if text.trim_start_matches('-').bytes().all(|byte| byte == b'0' || byte == b'.') {
        text.trim_start_matches('-').to_owned()
    } else {
        text
    }
}

/// Most epochs whose values are marked by points.
const POINTS: usize = 40;

/// The values that the axis of curves spans: those of all runs but for the first few epochs, or the curves would be flat at
/// the top; of each run the last one at least.
fn span<'a>(runs: impl Iterator<Item = &'a Vec<f64>> + Clone) -> (f64, f64) {
    let epochs = runs.clone().map(Vec::len).max().unwrap_or(0);
    let settled = runs.clone().flat_map(|run| &run[(epochs / 10).min(run.len().saturating_sub(1))..]);
    let bottom = (settled.fold(100.0, |least: f64, &y| least.min(y)) - 0.5).floor().max(0.0);
    let top = (runs.flatten().fold(0.0, |top: f64, &y| top.max(y)) + 0.5).ceil().min(100.0).max(bottom + 1.0);
    (bottom, top)
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

fn draw_curves(area: &Area<'_>, title: &str, series: &[Series]) -> Result<(), Failure> {
    let area = area.titled(title, (FONT, TITLE))?;
    let runs = || series.iter().flat_map(|series| &series.runs);
    let epochs = runs().map(Vec::len).max().unwrap_or(0);
    let (bottom, top) = span(runs());
    let (pixels, _) = area.dim_in_pixel();
    let key = 40 + widest(series.iter().map(|series| series.name.as_str()));
    let (area, right) = area.split_horizontally(pixels.saturating_sub(key));
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
        .y_label_formatter(&|y| number(*y, 0))
        .y_labels(((top - bottom) as usize + 1).min(11))
        .light_line_style(TRANSPARENT)
        .label_style((FONT, TEXT))
        .draw()?;
    let mut curve = |run: &[f64], style: ShapeStyle, radius: i32| -> Result<(), Failure> {
        for part in clipped(run, bottom) {
            chart.draw_series(LineSeries::new(part, style))?;
        }
        if run.len() <= POINTS {
            let points = run.iter().enumerate().filter(|(_, y)| **y >= bottom);
            let points = points.map(|(epoch, &y)| Circle::new(((epoch + 1) as f64, y), radius, style.filled()));
            chart.draw_series(points)?;
        }
        Ok(())
    };
    // Means above all runs, not only above their own.
    for (index, Series { runs, .. }) in series.iter().enumerate().filter(|(_, series)| series.runs.len() > 1) {
        for run in runs {
            curve(run, colour(index).mix(0.25).stroke_width(1), 2)?;
        }
    }
    for (index, Series { name, runs }) in series.iter().enumerate() {
        // One that diverged at once has nothing to show.
        let runs: Vec<_> = runs.iter().filter(|run| !run.is_empty()).collect();
        let common = runs.iter().map(|run| run.len()).min().unwrap_or(0);
        let mean = |epoch: usize| runs.iter().map(|run| run[epoch]).sum::<f64>() / runs.len() as f64;
        let mean: Vec<_> = (0..common).map(mean).collect();
        curve(&mean, colour(index).stroke_width(2), 3)?;
        let y = MARGIN as i32 + 12 + 24 * index as i32;
        right.draw(&PathElement::new([(0, y), (22, y)], colour(index).stroke_width(3)))?;
        write(&right, name, (28, y), HPos::Left)?;
    }
    Ok(())
}

fn draw_histogram(area: &Area<'_>, title: &str, values: &[f32], bins: usize) -> Result<(), Failure> {
    let area = area.titled(title, (FONT, TITLE))?;
    let (reach, shares) = histogram(values, bins);
    let top = shares.iter().fold(1.0, |top: f64, &share| top.max(share)) * 1.08;
    let mut chart = ChartBuilder::on(&area)
        .margin(MARGIN)
        .x_label_area_size(44)
        .y_label_area_size(48)
        .build_cartesian_2d(-reach..reach, 0.0..top)?;
    let (x_decimals, y_decimals) = (decimals(2.0 * reach), usize::from(top < 5.0));
    chart
        .configure_mesh()
        .x_desc("θ")
        .y_desc("% of all")
        .x_labels(6)
        .x_label_formatter(&|x| number(*x, x_decimals))
        .y_label_formatter(&|y| number(*y, y_decimals))
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

/// Bins of equal width over `-reach..reach`, which holds all values: `reach`, and each bin's share of them in %. With an
/// odd number of bins 0 lies in the middle of one.
pub(crate) fn histogram(values: &[f32], bins: usize) -> (f64, Vec<f64>) {
    let reach = values.iter().fold(0.0, |reach: f64, &value| reach.max(f64::from(value).abs())).max(1e-3) * 1.02;
    let mut shares = vec![0.0; bins.max(1)];
    for &value in values {
        let bin = ((f64::from(value) + reach) / (2.0 * reach) * shares.len() as f64) as usize;
        let last = shares.len() - 1;
        shares[bin.min(last)] += 100.0 / values.len() as f64;
    }
    (reach, shares)
}

/// One row under the other, since names are long: dots and not bars, since the axis need not begin at zero.
fn draw_rows(area: &Area<'_>, title: &str, rows: &[Row], reference: Option<&str>) -> Result<(), Failure> {
    let area = area.titled(title, (FONT, TITLE))?;
    let spreads: Vec<_> = rows.iter().map(|row| (!row.values.is_empty()).then(|| moments(&row.values))).collect();
    let ends = spreads.iter().flatten().flat_map(|(mean, deviation)| [mean - deviation, mean + deviation]);
    let references = rows.iter().filter_map(|row| row.reference).filter(|_| reference.is_some());
    let all = || ends.clone().chain(references.clone()).chain(rows.iter().flat_map(|row| row.values.iter().copied()));
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
    write(&below, "mean and standard deviation; faint: each seed", (x + 14, 8), HPos::Left)?;
    if let Some(reference) = reference {
        below.draw(&diamond((x, 30)))?;
        write(&below, reference, (x + 14, 30), HPos::Left)?;
    }
    Ok(())
}

/// The mark of a value to compare with.
fn diamond((x, y): (i32, i32)) -> PathElement<(i32, i32)> {
    PathElement::new([(x, y - 5), (x + 5, y), (x, y + 5), (x - 5, y), (x, y - 5)], colour(1).stroke_width(2))
}

/// Mean and sample standard deviation; that of a single value is 0.
pub(crate) fn moments(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>();
    (mean, (squares / (count - 1.0).max(1.0)).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deviations_are_those_of_a_sample() {
        assert_eq!(moments(&[1.0, 2.0, 3.0]), (2.0, 1.0));
        assert_eq!(moments(&[4.0]), (4.0, 0.0));
    }

    #[test]
    fn histograms_hold_every_value() {
        let (reach, shares) = histogram(&[-1.0, 0.0, 0.0, 1.0], 5);
        assert!((reach - 1.02).abs() < 1e-9);
        assert_eq!(shares, [25.0, 0.0, 50.0, 0.0, 25.0]);
        assert_eq!(histogram(&[0.0; 3], 3).1, [0.0, 100.0, 0.0]);
        assert_eq!(histogram(&[], 2).1, [0.0, 0.0]);
    }

    #[test]
    fn numbers_of_axes_are_short() {
        assert_eq!(
            (number(-0.001, 2), number(-0.01, 2), number(95.0, 0)),
            ("0.00".into(), "-0.01".into(), "95".into())
        );
        assert_eq!((decimals(0.5), decimals(7.0), decimals(70.0), decimals(0.02)), (2, 0, 0, 3));
    }

    #[test]
    fn pictures_name_everything_also_without_data() {
        let series =
            || ["a<b", "c"].map(|name| Series { name: name.to_owned(), runs: vec![vec![50.0, 60.0], vec![55.0]] });
        let row =
            |name: &str, values: &[f64]| Row { name: name.to_owned(), values: values.to_vec(), reference: Some(60.0) };
        let panels = [
            Panel::Curves { title: "curves".to_owned(), series: series().into() },
            Panel::Histogram { title: "histogram".to_owned(), values: vec![0.1, -0.2], bins: 41 },
            Panel::Rows {
                title: "rows".to_owned(),
                rows: vec![row("first", &[50.0, 51.0]), row("second", &[])],
                reference: Some("paper".to_owned()),
            },
        ];
        let svg = draw(&panels).unwrap();
        for text in ["a&lt;b", "curves", "histogram", "rows", "first", "second", "diverged", "paper", "epoch", "θ"] {
            assert!(svg.contains(text), "{text} is not in the picture");
        }
        let empty = [
            Panel::Curves { title: String::new(), series: vec![] },
            Panel::Histogram { title: String::new(), values: vec![], bins: 0 },
            Panel::Rows { title: String::new(), rows: vec![], reference: None },
        ];
        assert!(draw(&empty).unwrap().starts_with("<svg"));
        assert!(draw(&[]).unwrap().starts_with("<svg"));
    }

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
        let circles = svg.split("<circle").skip(1).map(|e| (x(attribute(e, "cx")), y(attribute(e, "cy"))));
        let coloured = svg.split("<polyline").skip(1).filter(|element| !element.contains("#000000"));
        let points = coloured.flat_map(|e| e.split("points=\"").nth(1).unwrap().split('"').next().unwrap().split(' '));
        let inside = points.filter_map(|p| p.split_once(',')).all(|(_, y)| y.parse::<f64>().unwrap() <= bottom + 0.5);
        (circles.collect(), inside)
    }

    fn curves(runs: &[&[f64]]) -> String {
        let series = Series { name: "test".to_owned(), runs: runs.iter().map(|run| run.to_vec()).collect() };
        draw(&[Panel::Curves { title: "c".to_owned(), series: vec![series] }]).unwrap()
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
}
