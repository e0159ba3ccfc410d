//! The picture of the main job: accuracy curves and the histogram of learned thresholds (figures 5 and 6 of the paper).

use convrelu::train::Activation;
use plotters::prelude::*;

use crate::Failure;
use crate::digits::{ACTIVATIONS, Run};

const SIZE: (u32, u32) = (960, 400);
const FONT: &str = "sans-serif";
/// Vermilion and blue of Okabe and Ito's palette, which colour-blind readers tell apart.
const COLOURS: [RGBColor; 2] = [RGBColor(213, 94, 0), RGBColor(0, 114, 178)];

/// An SVG document.
pub(crate) fn draw(runs: &[Run]) -> Result<String, Failure> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        root.fill(&WHITE)?;
        let (left, right) = root.split_horizontally(SIZE.0 * 11 / 20);
        draw_accuracy(&left, runs)?;
        draw_thresholds(&right, runs)?;
        root.present()?;
    }
    Ok(svg)
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

/// Test accuracy of every run, faint, and their mean.
fn draw_accuracy(area: &Area<'_>, runs: &[Run]) -> Result<(), Failure> {
    let epochs = runs.iter().map(|run| run.history.len()).max().unwrap_or(0);
    let accuracies = || runs.iter().flat_map(|run| &run.history).map(|epoch| 100.0 * epoch.test_accuracy);
    // From the worst after the first few epochs, or the curves would be flat at the top.
    let settled = runs.iter().flat_map(|run| run.history.iter().skip(epochs / 10)).map(|e| 100.0 * e.test_accuracy);
    let bottom = (settled.fold(100.0, f32::min) - 1.0).floor().max(0.0);
    let top = (accuracies().fold(0.0, f32::max) + 0.5).ceil().min(100.0).max(bottom + 1.0);
    let mut chart = ChartBuilder::on(area)
        .caption("Test accuracy (%)", (FONT, 18))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(48)
        .build_cartesian_2d(1.0..(epochs as f32).max(2.0), bottom..top)?;
    chart
        .configure_mesh()
        .x_desc("epoch")
        .x_label_formatter(&|x| format!("{x:.0}"))
        .y_label_formatter(&|y| format!("{y:.0}"))
        .y_labels(((top - bottom) as usize + 1).min(12))
        .light_line_style(TRANSPARENT)
        .label_style((FONT, 14))
        .draw()?;
    for (activation, colour) in ACTIVATIONS.into_iter().zip(COLOURS) {
        let runs = || runs.iter().filter(|run| run.activation == activation);
        for run in runs() {
            let points =
                run.history.iter().map(|epoch| (epoch.number as f32, (100.0 * epoch.test_accuracy).max(bottom)));
            chart.draw_series(LineSeries::new(points, colour.mix(0.25).stroke_width(1)))?;
        }
        let count = runs().count().max(1) as f32;
        let mean = |epoch: usize| runs().map(|run| 100.0 * run.history[epoch].test_accuracy).sum::<f32>() / count;
        let points = (0..epochs).map(|epoch| ((epoch + 1) as f32, mean(epoch).max(bottom)));
        chart
            .draw_series(LineSeries::new(points, colour.stroke_width(3)))?
            .label(activation.name())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(3)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE)
        .border_style(BLACK.mix(0.2))
        .label_font((FONT, 14))
        .draw()?;
    Ok(())
}

/// Histogram of all learned thresholds, as densities.
fn draw_thresholds(area: &Area<'_>, runs: &[Run]) -> Result<(), Failure> {
    const BINS: usize = 41;
    let runs: Vec<_> = runs.iter().filter(|run| run.activation == Activation::ConvRelu).collect();
    let thetas: Vec<f32> = runs.iter().flat_map(|run| run.thresholds.iter().copied()).collect();
    let reach = thetas.iter().fold(0.0, |reach: f32, theta| reach.max(theta.abs())).max(1e-3) * 1.02;
    let width = 2.0 * reach / BINS as f32;
    let mut shares = [0.0f32; BINS];
    for theta in &thetas {
        let bin = ((theta + reach) / width) as usize;
        shares[bin.min(BINS - 1)] += 100.0 / thetas.len() as f32;
    }
    let top = shares.iter().fold(1.0, |top: f32, &share| top.max(share)) * 1.08;
    let mut chart = ChartBuilder::on(area)
        .caption("Learned thresholds θ (% of all)", (FONT, 18))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(40)
        .build_cartesian_2d(-reach..reach, 0.0..top)?;
    chart
        .configure_mesh()
        .x_desc("θ")
        .x_labels(7)
        // Rounded first: plain formatting writes a tiny negative number as −0.00.
        .x_label_formatter(&|x| format!("{:.2}", (x * 100.0).round() / 100.0 + 0.0))
        .y_label_formatter(&|y| format!("{y:.0}"))
        .light_line_style(TRANSPARENT)
        .disable_x_mesh()
        .label_style((FONT, 14))
        .draw()?;
    chart.draw_series(shares.iter().enumerate().map(|(bin, &share)| {
        let from = bin as f32 * width - reach;
        let mut bar = Rectangle::new([(from, 0.0), (from + width, share)], COLOURS[1].filled());
        bar.set_margin(0, 0, 1, 0);
        bar
    }))?;
    Ok(())
}
