//! Pictures as SVG. A picture is lines of panels.

mod curves;
mod histogram;
mod rows;
mod shares;

use convrelu::train::Epoch;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::Failure;
pub(crate) use curves::{Axis, Curves, Series};
pub(crate) use histogram::{BINS, Histogram, shares_of_bins};
pub(crate) use rows::{Row, Rows};
pub(crate) use shares::Shares;

/// A part of a picture with a title of its own.
pub(crate) enum Panel {
    /// Values per epoch (figure 5 of the paper).
    Curves(Curves),
    /// How often values occur (figure 6).
    Histogram(Histogram),
    /// Values of several runs per row.
    Rows(Rows),
    /// Shares per layer and epoch.
    Shares(Shares),
}

const FONT: &str = "sans-serif";
const TITLE: u32 = 18;
const TEXT: u32 = 15;
const MARGIN: u32 = 12;
const INK: RGBColor = RGBColor(40, 40, 40);
const PAPER: RGBColor = RGBColor(255, 255, 255);

/// Okabe and Ito's palette, which colour-blind readers tell apart. Blue and vermilion, which differ most, come first. On white, its
/// yellow is too light, so a brown takes its place, and its orange and sky blue are darker here.
const PALETTE: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(196, 132, 0),
    RGBColor(110, 80, 30),
    RGBColor(46, 140, 196),
];

/// The colours that are others on a dark background: paper, ink, the darkest of the palette, and those that differ from Okabe and
/// Ito's.
const DARK: [(RGBColor, RGBColor); 8] = [
    (PAPER, RGBColor(22, 27, 34)),
    (INK, RGBColor(230, 230, 230)),
    (BLACK, RGBColor(230, 230, 230)),
    (PALETTE[0], RGBColor(74, 163, 223)),
    (PALETTE[1], RGBColor(240, 128, 60)),
    (PALETTE[4], RGBColor(230, 159, 0)),
    (PALETTE[5], RGBColor(240, 228, 66)),
    (PALETTE[6], RGBColor(86, 180, 233)),
];

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// The colour of a series by its number.
fn colour(index: usize) -> RGBColor {
    PALETTE[index % PALETTE.len()]
}

/// Width of a text. There are no fonts here, so it is an estimate that is rather too large.
fn width(text: &str) -> u32 {
    (text.chars().count() as f64 * f64::from(TEXT) * 0.52).ceil() as u32
}

fn widest<'a>(texts: impl Iterator<Item = &'a str>) -> u32 {
    texts.map(width).max().unwrap_or(0)
}

impl Panel {
    fn size(&self) -> (u32, u32) {
        let (title, (width, height)) = match self {
            Self::Curves(curves) => (&curves.title, curves.size()),
            Self::Histogram(histogram) => (&histogram.title, histogram.size()),
            Self::Rows(rows) => (&rows.title, rows.size()),
            Self::Shares(shares) => (&shares.title, shares.size()),
        };
        // Titles are larger than other text.
        (width.max(title.chars().count() as u32 * 9 + 2 * MARGIN), height)
    }

    fn draw(&self, area: &Area<'_>) -> Result<(), Failure> {
        match self {
            Self::Curves(curves) => curves.draw(area),
            Self::Histogram(histogram) => histogram.draw(area),
            Self::Rows(rows) => rows.draw(area),
            Self::Shares(shares) => shares.draw(area),
        }
    }
}

/// An SVG document of its own, which follows the reader's choice of light or dark.
pub(crate) fn draw(panels: &[Panel]) -> Result<String, Failure> {
    let svg = draw_lines(&[panels])?;
    let Some((head, rest)) = svg.split_once('\n') else { return Ok(svg) };
    Ok(format!("{head}\n<style>\n{}</style>\n{rest}", dark_style()))
}

/// An SVG element of lines of panels. The document that holds it has [`dark_style`].
pub(crate) fn draw_lines(lines: &[&[Panel]]) -> Result<String, Failure> {
    let sizes: Vec<Vec<_>> = lines.iter().map(|panels| panels.iter().map(Panel::size).collect()).collect();
    let width_of = |line: &Vec<(u32, u32)>| line.iter().map(|size| size.0).sum::<u32>();
    let height_of = |line: &Vec<(u32, u32)>| line.iter().map(|size| size.1).max().unwrap_or(0);
    let width = sizes.iter().map(width_of).max().unwrap_or(0).max(1);
    let height = sizes.iter().map(height_of).sum::<u32>().max(1);
    let mut svg = String::new();
    {
        let mut below = SVGBackend::with_string(&mut svg, (width, height)).into_drawing_area();
        below.fill(&PAPER)?;
        for (panels, sizes) in lines.iter().zip(&sizes) {
            let (mut rest, next) = below.split_vertically(height_of(sizes));
            for (panel, (width, _)) in panels.iter().zip(sizes) {
                let (area, right) = rest.split_horizontally(*width);
                panel.draw(&area)?;
                rest = right;
            }
            below = next;
        }
        below.present()?;
    }
    Ok(svg)
}

/// Style sheet that gives pictures the colours of [`DARK`] if the reader prefers dark documents.
pub(crate) fn dark_style() -> String {
    let hex = |RGBColor(r, g, b): RGBColor| format!("#{r:02X}{g:02X}{b:02X}");
    let rule = |(light, dark): (RGBColor, RGBColor)| {
        let (light, dark) = (hex(light), hex(dark));
        format!("  svg [fill=\"{light}\"] {{ fill: {dark} }} svg [stroke=\"{light}\"] {{ stroke: {dark} }}\n")
    };
    format!("@media (prefers-color-scheme: dark) {{\n{}}}\n", DARK.map(rule).concat())
}

/// The picture of a single run: accuracies per epoch, and its thresholds if it has any.
pub(crate) fn run(history: &[Epoch], thresholds: &[f32]) -> Result<String, Failure> {
    let series = |name: &str, value: fn(&Epoch) -> f64| {
        let run = history.iter().map(|epoch| 100.0 * value(epoch)).collect();
        Series { name: name.to_owned(), runs: vec![run] }
    };
    let series = vec![series("test", |epoch| epoch.test_accuracy), series("training", |epoch| epoch.accuracy)];
    let mut panels = vec![Panel::Curves(Curves::percent("Accuracy (%)", series))];
    if !thresholds.is_empty() {
        panels.push(Panel::Histogram(Histogram::new("Learned thresholds θ", thresholds.to_vec())));
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

/// A number. Plain formatting would write a tiny negative one as −0.00.
fn number(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    if text.trim_start_matches('-').bytes().all(|byte| byte == b'0' || byte == b'.') {
        text.trim_start_matches('-').to_owned()
    } else {
        text
    }
}

/// Mean and sample standard deviation. That of a single value is 0.
pub(crate) fn mean_and_deviation(values: &[f64]) -> (f64, f64) {
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
        assert_eq!(mean_and_deviation(&[1.0, 2.0, 3.0]), (2.0, 1.0));
        assert_eq!(mean_and_deviation(&[4.0]), (4.0, 0.0));
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
    fn every_colour_of_a_picture_is_seen_on_dark_paper() {
        // Of the WCAG: the relative luminance of a colour, and the contrast of two.
        let luminance = |RGBColor(r, g, b): RGBColor| {
            let linear = |part: u8| (f64::from(part) / 255.0 + 0.055).max(0.055).powf(2.4) / 1.055_f64.powf(2.4);
            0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b)
        };
        let contrast = |one: RGBColor, other: RGBColor| {
            let (one, other) = (luminance(one) + 0.05, luminance(other) + 0.05);
            (one / other).max(other / one)
        };
        let dark = |colour: RGBColor| DARK.iter().find(|(light, _)| *light == colour).map_or(colour, |(_, dark)| *dark);
        for colour in PALETTE {
            assert!(contrast(dark(colour), dark(PAPER)) > 4.5, "{colour:?}");
            assert!(contrast(colour, PAPER) > 3.0, "{colour:?}");
        }
        assert!(contrast(dark(INK), dark(PAPER)) > 10.0 && contrast(INK, PAPER) > 10.0);
        let svg = draw(&[]).unwrap();
        assert!(
            svg.contains("prefers-color-scheme: dark") && svg.contains(r##"[fill="#FFFFFF"] { fill: #161B22 }"##),
            "{svg}"
        );
    }

    #[test]
    fn pictures_name_everything_also_without_data() {
        let series =
            || ["a<b", "c"].map(|name| Series { name: name.to_owned(), runs: vec![vec![50.0, 60.0], vec![55.0]] });
        let row =
            |name: &str, values: &[f64]| Row { name: name.to_owned(), values: values.to_vec(), reference: Some(60.0) };
        let panels = [
            Panel::Curves(Curves::percent("curves", series().into())),
            Panel::Histogram(Histogram::new("histogram", vec![0.1, -0.2])),
            Panel::Rows(Rows {
                title: "rows".to_owned(),
                rows: vec![row("first", &[50.0, 51.0]), row("second", &[])],
                reference: Some("paper".to_owned()),
            }),
            Panel::Shares(Shares {
                title: "shares".to_owned(),
                rows: vec![("conv1".to_owned(), vec![Some(2.0), None])],
                most: 2.0,
            }),
        ];
        let svg = draw(&panels).unwrap();
        for text in [
            "a&lt;b",
            "curves",
            "histogram",
            "rows",
            "first",
            "second",
            "diverged",
            "paper",
            "epoch",
            "θ",
            "shares",
            "conv1",
        ] {
            assert!(svg.contains(text), "{text} is not in the picture");
        }
        let empty = [
            Panel::Curves(Curves::percent("", vec![])),
            Panel::Curves(Curves { axis: Axis::Plain, ..Curves::percent("", vec![]) }),
            Panel::Histogram(Histogram::new("", vec![])),
            Panel::Rows(Rows { title: String::new(), rows: vec![], reference: None }),
            Panel::Shares(Shares { title: String::new(), rows: vec![], most: 0.0 }),
        ];
        assert!(draw(&empty).unwrap().starts_with("<svg"));
        assert!(draw(&[]).unwrap().starts_with("<svg"));
        assert!(draw_lines(&[&panels[..1], &[], &panels[1..]]).unwrap().starts_with("<svg"));
    }
}
