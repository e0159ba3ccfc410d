//! Rows in short, as Markdown: geometric means, what is slow, all layers in one table.

use std::fmt::Write;

use crate::notation::Problem;
use crate::pass::{LayoutName, Pass};
use crate::peer::Peer;
use crate::row::{Row, Setting};

/// One pass of one shape in one layout: us, and all peers.
struct Line<'a> {
    shape: &'a str,
    notation: &'a str,
    depthwise: bool,
    pass: Pass,
    layout: LayoutName,
    ours_us: f64,
    peak_percent: Option<f64>,
    peers: Vec<(Peer, f64)>,
    /// oneDNN's fastest, of the formats of this row and the plain format of the other layout's row.
    best: Option<(Peer, f64)>,
}

/// What our time is compared with.
#[derive(Clone, Copy, PartialEq)]
enum Rival {
    SamePlain,
    Best,
    Other(Peer),
}

impl Rival {
    const ALL: [Self; 5] = [
        Self::SamePlain,
        Self::Best,
        Self::Other(Peer::Im2colGemm),
        Self::Other(Peer::Candle),
        Self::Other(Peer::BurnFlex),
    ];

    fn title(self) -> &'static str {
        match self {
            Self::SamePlain => "oneDNN, same plain format",
            Self::Best => "oneDNN, best format",
            Self::Other(peer) => peer.name(),
        }
    }
}

impl Line<'_> {
    fn time_of(&self, peer: Peer) -> Option<(Peer, f64)> {
        self.peers.iter().copied().find(|(other, _)| *other == peer)
    }

    fn rival(&self, rival: Rival) -> Option<(Peer, f64)> {
        match rival {
            Rival::SamePlain => self.time_of(Peer::onednn_plain(self.layout)),
            Rival::Best => self.best,
            Rival::Other(peer) => self.time_of(peer),
        }
    }

    fn ratio(&self, rival: Rival) -> Option<f64> {
        self.rival(rival).map(|(_, us)| us / self.ours_us)
    }
}

/// Rows of one setting as lines. Where a peer is there twice, the first row counts.
fn lines(rows: &[Row]) -> Result<Vec<Line<'_>>, String> {
    let mut lines: Vec<Line<'_>> = Vec::new();
    for row in rows {
        let same = |line: &Line<'_>| (line.notation, line.pass, line.layout) == (&row.notation, row.pass, row.layout);
        let index = match lines.iter().position(same) {
            Some(index) => index,
            None => {
                let problem = Problem::parse(&row.notation).map_err(|error| error.to_string())?;
                lines.push(Line {
                    shape: &row.shape,
                    notation: &row.notation,
                    depthwise: problem.is_depthwise(),
                    pass: row.pass,
                    layout: row.layout,
                    ours_us: row.ours_us,
                    peak_percent: row.peak_percent,
                    peers: Vec::new(),
                    best: None,
                });
                lines.len() - 1
            }
        };
        if let Some(us) = row.peer_us
            && lines[index].time_of(row.peer).is_none()
        {
            lines[index].peers.push((row.peer, us));
        }
    }
    let best = |line: &Line<'_>| {
        let twins = lines.iter().filter(|twin| (twin.notation, twin.pass) == (line.notation, line.pass));
        let plain = twins.filter_map(|twin| twin.rival(Rival::SamePlain));
        line.time_of(Peer::OnednnAny).into_iter().chain(plain).min_by(|(_, a), (_, b)| a.total_cmp(b))
    };
    let bests: Vec<_> = lines.iter().map(best).collect();
    lines.iter_mut().zip(bests).for_each(|(line, best)| line.best = best);
    Ok(lines)
}

/// The settings that occur, each with its rows.
fn by_setting(rows: &[Row]) -> Vec<(Setting, Vec<Row>)> {
    let mut groups: Vec<(Setting, Vec<Row>)> = Vec::new();
    for row in rows {
        let setting = row.setting();
        match groups.iter_mut().find(|(other, _)| *other == setting) {
            Some((_, group)) => group.push(row.clone()),
            None => groups.push((setting, vec![row.clone()])),
        }
    }
    groups
}

/// Geometric means only.
pub(crate) fn means(rows: &[Row]) -> Result<String, String> {
    let mut text = String::new();
    for (_, rows) in by_setting(rows) {
        means_of(&lines(&rows)?, &mut text);
    }
    Ok(text)
}

/// Means, what is slower than `threshold` says, and all layers.
pub(crate) fn markdown(rows: &[Row], threshold: f64) -> Result<String, String> {
    let mut text = String::new();
    for (setting, rows) in by_setting(rows) {
        let lines = lines(&rows)?;
        let Setting { isa, threads, theta, clock } = setting;
        let threads = if threads == 1 { String::from("1 thread") } else { format!("{threads} threads") };
        line(&mut text, &format!("## {isa}, {threads}, θ {}, {} clock", theta.name(), clock.name()));
        line(&mut text, "\nA ratio is the peer's time / ours: above 1, ours is faster.");
        means_of(&lines, &mut text);
        for rival in [Rival::SamePlain, Rival::Best] {
            below(&lines, rival, threshold, &mut text);
        }
        layers(&lines, &mut text);
        text.push('\n');
    }
    Ok(text)
}

/// Depthwise layers apart: their kernels, and what limits them, are others.
const KINDS: [(bool, &str); 2] = [(false, "dense, grouped"), (true, "depthwise")];

fn means_of(lines: &[Line<'_>], text: &mut String) {
    let rivals: Vec<Rival> =
        Rival::ALL.into_iter().filter(|&rival| lines.iter().any(|line| line.ratio(rival).is_some())).collect();
    if rivals.is_empty() {
        return;
    }
    line(text, "\n### Geometric means of ratios\n");
    let titles = rivals.iter().map(|rival| rival.title().to_owned());
    head(text, &["layers", "pass", "layout", "shapes"], titles.collect());
    for (depthwise, kind) in KINDS {
        for pass in Pass::ALL {
            for layout in LayoutName::ALL {
                let of = |line: &&Line<'_>| (line.depthwise, line.pass, line.layout) == (depthwise, pass, layout);
                let group: Vec<&Line<'_>> = lines.iter().filter(of).collect();
                if group.is_empty() {
                    continue;
                }
                let mut cells = vec![kind.into(), pass.name().into(), layout.name().into(), group.len().to_string()];
                cells.extend(rivals.iter().map(|&rival| {
                    let ratios: Vec<f64> = group.iter().filter_map(|line| line.ratio(rival)).collect();
                    match geometric_mean(&ratios) {
                        None => String::new(),
                        Some(mean) if ratios.len() == group.len() => format!("{mean:.2}"),
                        Some(mean) => format!("{mean:.2} ({})", ratios.len()),
                    }
                }));
                self::row(text, &cells);
            }
        }
    }
}

/// The lines whose ratio is below the threshold, the slowest first.
fn below(lines: &[Line<'_>], rival: Rival, threshold: f64, text: &mut String) {
    let mut slow: Vec<(f64, &Line<'_>)> = lines
        .iter()
        .filter_map(|line| line.ratio(rival).map(|ratio| (ratio, line)))
        .filter(|(ratio, _)| *ratio < threshold)
        .collect();
    slow.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    let compared = lines.iter().filter(|line| line.ratio(rival).is_some()).count();
    if compared == 0 {
        return;
    }
    line(text, &format!("\n### {}: {} of {compared} rows below {threshold}", rival.title(), slow.len()));
    if slow.is_empty() {
        return;
    }
    text.push('\n');
    let titles = ["ours µs", "% peak", "oneDNN µs", "format", "ratio"].map(String::from);
    head(text, &["shape", "pass", "layout"], titles.into());
    for (ratio, slow) in slow {
        let (peer, us) = slow.rival(rival).unwrap_or((Peer::None, f64::NAN));
        let cells = [
            slow.shape.to_owned(),
            slow.pass.name().into(),
            slow.layout.name().into(),
            format!("{:.1}", slow.ours_us),
            slow.peak_percent.map_or_else(String::new, |percent| format!("{percent:.0}")),
            format!("{us:.1}"),
            peer.name().trim_start_matches("onednn-").into(),
            format!("{ratio:.2}"),
        ];
        self::row(text, &cells);
    }
}

/// One line per shape, one column per pass and layout.
fn layers(lines: &[Line<'_>], text: &mut String) {
    let columns: Vec<(Pass, LayoutName)> = Pass::ALL
        .into_iter()
        .flat_map(|pass| LayoutName::ALL.map(|layout| (pass, layout)))
        .filter(|column| lines.iter().any(|line| (line.pass, line.layout) == *column))
        .collect();
    line(text, "\n### All layers: % of peak · ratio, same plain format · ratio, best format\n");
    let titles = columns.iter().map(|(pass, layout)| format!("{} {}", pass.name(), layout.name()));
    head(text, &["shape"], titles.collect());
    let mut shapes: Vec<&str> = Vec::new();
    for line in lines {
        if shapes.contains(&line.notation) {
            continue;
        }
        shapes.push(line.notation);
        let mut cells = vec![line.shape.to_owned()];
        cells.extend(columns.iter().map(|column| {
            let of = |other: &&Line<'_>| other.notation == line.notation && (other.pass, other.layout) == *column;
            lines.iter().find(of).map_or_else(String::new, |line| {
                let number = |value: Option<f64>, decimals: usize| {
                    value.map_or_else(|| String::from("–"), |value| format!("{value:.decimals$}"))
                };
                let ratio = |rival| number(line.ratio(rival), 2);
                format!("{} · {} · {}", number(line.peak_percent, 0), ratio(Rival::SamePlain), ratio(Rival::Best))
            })
        }));
        row(text, &cells);
    }
}

fn geometric_mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| (values.iter().map(|value| value.ln()).sum::<f64>() / values.len() as f64).exp())
}

fn line(text: &mut String, content: &str) {
    // Writing to a string does not fail.
    let _ = writeln!(text, "{content}");
}

/// Columns of words to the left, columns of numbers to the right.
fn head(text: &mut String, words: &[&str], numbers: Vec<String>) {
    let rule: Vec<String> =
        words.iter().map(|_| ":--").chain(numbers.iter().map(|_| "--:")).map(String::from).collect();
    let titles: Vec<String> = words.iter().map(|word| String::from(*word)).chain(numbers).collect();
    row(text, &titles);
    line(text, &format!("|{}|", rule.join("|")));
}

fn row(text: &mut String, cells: &[String]) {
    // A bar in a name would begin a new cell.
    let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
    line(text, &format!("| {} |", cells.join(" | ")));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::ours::Theta;

    const DENSE: &str = "mb8ic64oc64_ih8kh3ph1";
    const DEPTHWISE: &str = "g64ic64oc64_ih8kh3ph1";

    fn row(notation: &str, pass: Pass, layout: LayoutName, ours_us: f64, peer: Peer, peer_us: f64) -> Row {
        Row {
            shape: notation.split('_').next().unwrap().to_owned(),
            pass,
            layout,
            isa: String::from("avx2"),
            threads: 1,
            ours_us,
            peer,
            peer_us: Some(peer_us),
            ratio: Some(peer_us / ours_us),
            peak_percent: Some(50.0),
            theta: Theta::PerTap,
            clock: Clock::Wall,
            notation: notation.to_owned(),
        }
    }

    /// Both layouts of the forward pass of a shape: ours 10 and 20, oneDNN's own format twice, both plain formats.
    fn forward(notation: &str, any: f64, nchw: f64, nhwc: f64) -> Vec<Row> {
        use LayoutName::{Nchw, Nhwc};
        vec![
            row(notation, Pass::Forward, Nchw, 10.0, Peer::OnednnAny, any),
            row(notation, Pass::Forward, Nchw, 10.0, Peer::OnednnNchw, nchw),
            row(notation, Pass::Forward, Nhwc, 20.0, Peer::OnednnAny, any),
            row(notation, Pass::Forward, Nhwc, 20.0, Peer::OnednnNhwc, nhwc),
        ]
    }

    #[test]
    fn the_best_format_may_be_the_other_layouts() {
        let rows = forward(DENSE, 12.0, 15.0, 8.0);
        let lines = lines(&rows).unwrap();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0].rival(Rival::SamePlain), Some((Peer::OnednnNchw, 15.0)));
        assert_eq!(lines[0].best, Some((Peer::OnednnNhwc, 8.0)));
        assert_eq!(lines[1].best, Some((Peer::OnednnNhwc, 8.0)));
        assert_eq!((lines[0].ratio(Rival::Best), lines[1].ratio(Rival::Best)), (Some(0.8), Some(0.4)));
    }

    #[test]
    fn passes_do_not_mix() {
        let mut rows = forward(DENSE, 12.0, 15.0, 8.0);
        rows.push(row(DENSE, Pass::BackwardInput, LayoutName::Nchw, 10.0, Peer::OnednnAny, 30.0));
        assert_eq!(lines(&rows).unwrap()[2].best, Some((Peer::OnednnAny, 30.0)));
    }

    #[test]
    fn means_are_geometric_and_depthwise_layers_apart() {
        let mut rows = forward(DENSE, 20.0, 20.0, 20.0);
        rows.extend(forward("ic8oc8_ih8kh1", 5.0, 5.0, 10.0));
        rows.extend(forward(DEPTHWISE, 40.0, 40.0, 80.0));
        let text = means(&rows).unwrap();
        // √(2 · ½), √(1 · ½); the best of 5 and 10 for NHWC's 20: √(1 · ¼).
        assert!(text.contains("| dense, grouped | forward | nchw | 2 | 1.00 | 1.00 |\n"), "{text}");
        assert!(text.contains("| dense, grouped | forward | nhwc | 2 | 0.71 | 0.50 |\n"), "{text}");
        assert!(text.contains("| depthwise | forward | nchw | 1 | 4.00 | 4.00 |\n"), "{text}");
        assert!(!text.contains("candle"), "{text}");
    }

    #[test]
    fn a_mean_over_fewer_shapes_says_so() {
        let mut rows = forward(DENSE, 20.0, 20.0, 20.0);
        rows.extend(forward(DEPTHWISE, 5.0, 5.0, 10.0));
        rows.extend(forward("ic8oc8_ih8kh1", 5.0, 5.0, 10.0));
        rows.push(row(DENSE, Pass::Forward, LayoutName::Nchw, 10.0, Peer::Candle, 30.0));
        let text = means(&rows).unwrap();
        assert!(text.contains("| dense, grouped | forward | nchw | 2 | 1.00 | 1.00 | 3.00 (1) |\n"), "{text}");
    }

    #[test]
    fn rows_below_the_threshold_come_slowest_first() {
        let mut rows = forward(DENSE, 8.9, 9.0, 10.0);
        rows.extend(forward("ic8oc8_ih8kh1", 30.0, 8.0, 30.0));
        let mut text = String::new();
        let lines = lines(&rows).unwrap();
        below(&lines, Rival::SamePlain, 0.9, &mut text);
        // 9.0 / 10 is not below.
        assert!(text.contains("same plain format: 2 of 4 rows below 0.9\n"), "{text}");
        let at = |cells: &str| text.find(cells).unwrap_or_else(|| panic!("{cells} is missing: {text}"));
        assert!(
            at("| mb8ic64oc64 | forward | nhwc | 20.0 | 50 | 10.0 | nhwc | 0.50 |")
                < at("| ic8oc8 | forward | nchw | 10.0 | 50 | 8.0 | nchw | 0.80 |")
        );
        text.clear();
        below(&lines, Rival::Best, 0.9, &mut text);
        assert!(text.contains("best format: 4 of 4 rows below 0.9\n"), "{text}");
        assert!(text.contains("| mb8ic64oc64 | forward | nchw | 10.0 | 50 | 8.9 | any | 0.89 |"), "{text}");
    }

    #[test]
    fn settings_have_sections_and_files_come_back() {
        let mut rows = forward(DENSE, 20.0, 20.0, 20.0);
        let mut two = forward(DENSE, 5.0, 5.0, 5.0);
        two.iter_mut().for_each(|row| (row.threads, row.theta) = (2, Theta::Linear));
        rows.extend(two);
        // Alone, and nothing to compare with.
        let alone = Row { peer: Peer::None, peer_us: None, ratio: None, peak_percent: None, ..rows[0].clone() };
        rows.push(Row { clock: Clock::Cpu, ..alone });
        let mut file = csv::Writer::from_writer(Vec::new());
        rows.iter().for_each(|row| file.serialize(row).unwrap());
        let file = file.into_inner().unwrap();
        let again: Vec<Row> = csv::Reader::from_reader(&file[..]).deserialize().map(Result::unwrap).collect();
        assert_eq!(again, rows);
        let text = markdown(&again, 0.9).unwrap();
        for section in ["1 thread, θ per-tap, wall clock", "2 threads, θ linear, wall clock", "θ per-tap, cpu clock"]
        {
            assert!(text.contains(section), "{text}");
        }
        assert!(text.contains("| mb8ic64oc64 | 50 · 2.00 · 2.00 | 50 · 1.00 · 1.00 |\n"), "{text}");
        assert!(text.contains("| mb8ic64oc64 | – · – · – |\n"), "{text}");
    }
}
