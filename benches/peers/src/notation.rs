//! oneDNN's benchdnn notation of convolutions, `mb8_g1ic48oc12_ih32oh32kh3ph1_iw32ow32kw3pw1_n"d1"`.
//!
//! Defaults are benchdnn's: batch 2, one group, stride 1, no dilation (written 0); a missing output size follows from
//! the padding, a missing padding from the output size; missing axes are copied: depth to height and width, height to
//! width.

use std::fmt;

use convrelu::{ConvDesc, Layout};

/// One convolution; axes are depth, height, width, of which the last `rank` count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) name: String,
    /// The shape as written, without the name: names need not be unique.
    pub(crate) notation: String,
    pub(crate) rank: usize,
    pub(crate) batch: usize,
    pub(crate) groups: usize,
    pub(crate) in_channels: usize,
    pub(crate) out_channels: usize,
    pub(crate) axes: [Axis; 3],
}

/// One spatial axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Axis {
    pub(crate) input: usize,
    pub(crate) output: usize,
    pub(crate) kernel: usize,
    pub(crate) stride: usize,
    /// 1 for a dense kernel.
    pub(crate) dilation: usize,
    pub(crate) before: usize,
    /// Negative where the last inputs are not read.
    pub(crate) after: isize,
}

impl Axis {
    const UNUSED: Self = Self { input: 1, output: 1, kernel: 1, stride: 1, dilation: 1, before: 0, after: 0 };
}

/// What is wrong with a shape, and where.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NotationError {
    text: String,
    rule: String,
}

impl fmt::Display for NotationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "shape `{}`: {}", self.text, self.rule)
    }
}

/// Values as written for one axis.
#[derive(Clone, Copy, Default)]
struct Written {
    input: Option<usize>,
    output: Option<usize>,
    kernel: Option<usize>,
    stride: Option<usize>,
    padding: Option<usize>,
    dilation: Option<usize>,
}

impl Written {
    fn is_empty(&self) -> bool {
        self.input.is_none() && self.output.is_none() && self.kernel.is_none()
    }

    fn axis(&self, name: char) -> Result<Axis, String> {
        let positive = |value: Option<usize>, what: &str| match value {
            None => Err(format!("{what}{name} is missing")),
            Some(0) => Err(format!("{what}{name} must not be 0")),
            Some(value) => Ok(value),
        };
        let input = positive(self.input, "i")?;
        let kernel = positive(self.kernel, "k")?;
        let stride = positive(self.stride.or(Some(1)), "s")?;
        let too_large = || format!("the sizes of axis {name} are too large");
        let dilation = self.dilation.unwrap_or(0).checked_add(1).ok_or_else(too_large)?;
        let reach = (kernel - 1).checked_mul(dilation).and_then(|reach| reach.checked_add(1)).ok_or_else(too_large)?;
        let signed = |value: usize| isize::try_from(value).map_err(|_| too_large());
        let (input_i, reach, stride_i) = (signed(input)?, signed(reach)?, signed(stride)?);
        // Input elements from the first read to the last, for some outputs.
        let span = |outputs: usize| -> Result<isize, String> {
            signed(outputs.saturating_sub(1))?
                .checked_mul(stride_i)
                .and_then(|span| span.checked_add(reach))
                .ok_or_else(too_large)
        };
        let (output, before) = match (self.output, self.padding) {
            (Some(0), _) => return Err(format!("o{name} must not be 0")),
            (Some(output), Some(before)) => (output, before),
            (Some(output), None) => (output, usize::try_from((span(output)? - input_i) / 2).unwrap_or(0)),
            (None, padding) => {
                let before = padding.unwrap_or(0);
                let room = signed(before)?
                    .checked_mul(2)
                    .and_then(|padding| padding.checked_add(input_i - reach))
                    .ok_or_else(too_large)?;
                if room < 0 {
                    return Err(format!("the kernel of axis {name} is longer than the padded input"));
                }
                ((room / stride_i) as usize + 1, before)
            }
        };
        Ok(Axis { input, output, kernel, stride, dilation, before, after: span(output)? - input_i - signed(before)? })
    }
}

impl Problem {
    /// Reads one shape.
    pub(crate) fn parse(text: &str) -> Result<Self, NotationError> {
        Self::read(text).map_err(|rule| NotationError { text: text.to_owned(), rule })
    }

    fn read(text: &str) -> Result<Self, String> {
        let (mut batch, mut groups, mut channels) = (2, 1, [None; 2]);
        let mut axes = [Written::default(); 3];
        let (mut name, mut notation) = (text, text);
        let mut rest = text;
        while !rest.is_empty() {
            if let Some(quoted) = rest.strip_prefix('n') {
                name = quoted.trim_matches('"');
                notation = text[..text.len() - rest.len()].trim_end_matches('_');
                break;
            }
            if let Some(after) = rest.strip_prefix('_') {
                rest = after;
                continue;
            }
            let digits = rest.find(|c: char| c.is_ascii_digit()).ok_or_else(|| format!("`{rest}` has no number"))?;
            let (key, after) = rest.split_at(digits);
            let end = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
            let (number, after) = after.split_at(end);
            let value: usize = number.parse().map_err(|_| format!("{key}{number}: the number is too large"))?;
            rest = after;
            let mut letters = key.chars();
            let axis = match key.chars().nth(1) {
                Some('d') => Some(0),
                Some('h') => Some(1),
                Some('w') => Some(2),
                _ => None,
            };
            match (key, letters.next(), axis) {
                ("mb", ..) => batch = value,
                ("g", ..) => groups = value,
                ("ic", ..) => channels[0] = Some(value),
                ("oc", ..) => channels[1] = Some(value),
                (_, Some(what), Some(axis)) if key.len() == 2 => {
                    let axis = &mut axes[axis];
                    let field = match what {
                        'i' => &mut axis.input,
                        'o' => &mut axis.output,
                        'k' => &mut axis.kernel,
                        's' => &mut axis.stride,
                        'p' => &mut axis.padding,
                        'd' => &mut axis.dilation,
                        _ => return Err(format!("`{key}` is not known")),
                    };
                    *field = Some(value);
                }
                _ => return Err(format!("`{key}` is not known")),
            }
        }
        let [Some(in_channels), Some(out_channels)] = channels else {
            return Err(String::from("ic and oc are required"));
        };
        let rank = axes.iter().position(|axis| !axis.is_empty()).map(|first| 3 - first);
        let rank = rank.ok_or_else(|| String::from("there is no spatial axis"))?;
        let mut resolved = [Axis::UNUSED; 3];
        for axis in 3 - rank..3 {
            if axes[axis].is_empty() {
                axes[axis] = axes[axis - 1];
            }
            resolved[axis] = axes[axis].axis(['d', 'h', 'w'][axis])?;
        }
        let (name, notation) = (name.to_owned(), notation.to_owned());
        let problem = Self { name, notation, rank, batch, groups, in_channels, out_channels, axes: resolved };
        problem.desc(Layout::Nchw)?;
        Ok(problem)
    }

    /// Whether each channel is a group of its own.
    pub(crate) fn is_depthwise(&self) -> bool {
        self.groups > 1 && self.groups == self.in_channels
    }

    /// The problem for our library.
    pub(crate) fn desc(&self, layout: Layout) -> Result<ConvDesc, String> {
        let [d, h, w] = self.axes;
        let of = |value: fn(&Axis) -> usize| [value(&d), value(&h), value(&w)];
        let desc = ConvDesc::conv3d(
            self.batch,
            self.in_channels,
            self.out_channels,
            of(|axis| axis.input),
            of(|axis| axis.kernel),
        )
        .groups(self.groups)
        .stride(of(|axis| axis.stride))
        .dilation(of(|axis| axis.dilation))
        .padding_before_after(of(|axis| axis.before), of(|axis| axis.after.max(0) as usize))
        .layout(layout)
        .build()
        .map_err(|error| error.to_string())?;
        if desc.output_size() == of(|axis| axis.output) {
            Ok(desc)
        } else {
            Err(format!("the output size must be {:?}", desc.output_size()))
        }
    }
}

/// Reads shapes line by line; empty lines and those that begin with `#` are skipped.
pub(crate) fn parse_file(text: &str) -> Result<Vec<Problem>, String> {
    let lines = text.lines().enumerate().map(|(number, line)| (number + 1, line.trim()));
    lines
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(number, line)| Problem::parse(line).map_err(|error| format!("line {number}: {error}")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Problem {
        Problem::parse(text).unwrap()
    }

    #[test]
    fn a_full_shape() {
        let problem = parse("mb8_g1ic48oc12_ih32oh32kh3sh1ph1_iw32ow32kw3sw1pw1_n\"d1\"");
        let axis = Axis { input: 32, output: 32, kernel: 3, stride: 1, dilation: 1, before: 1, after: 1 };
        assert_eq!((problem.name.as_str(), problem.rank, problem.batch), ("d1", 2, 8));
        assert_eq!(problem.axes, [Axis::UNUSED, axis, axis]);
        assert_eq!(problem.notation, "mb8_g1ic48oc12_ih32oh32kh3sh1ph1_iw32ow32kw3sw1pw1");
    }

    #[test]
    fn the_lists() {
        for (text, shapes, depthwise) in [
            (include_str!("../shapes"), 17, 1),
            (include_str!("../shapes-networks"), 40, 10),
            (include_str!("../shapes-depthwise"), 21, 21),
        ] {
            let problems = parse_file(text).unwrap();
            assert_eq!(problems.len(), shapes);
            assert_eq!(problems.iter().filter(|problem| problem.is_depthwise()).count(), depthwise);
            for (index, problem) in problems.iter().enumerate() {
                assert!(problems[..index].iter().all(|other| other.notation != problem.notation), "{}", problem.name);
                let plain = Problem::parse(&problem.notation).unwrap();
                assert_eq!((plain.axes, plain.groups), (problem.axes, problem.groups));
            }
        }
    }

    #[test]
    fn missing_axes_are_copied() {
        let full = parse("mb8_g1ic48oc12_ih32oh32kh3ph1_iw32ow32kw3pw1");
        assert_eq!(parse("mb8ic48oc12_ih32oh32kh3ph1").axes, full.axes);
        let cube = parse("ic3oc4_id8kd3pd1");
        assert_eq!((cube.rank, cube.batch), (3, 2));
        assert_eq!((cube.axes[0], cube.axes[1]), (cube.axes[1], cube.axes[2]));
        assert_eq!(parse("ic3oc4_iw8kw3").rank, 1);
    }

    #[test]
    fn sizes_follow_from_one_another() {
        let axis = |text| parse(text).axes[2];
        assert_eq!(axis("ic1oc1iw8kw3").output, 6);
        assert_eq!(axis("ic1oc1iw8ow8kw3").before, 1);
        assert_eq!(axis("ic1oc1iw9ow5kw3sw2pw1").after, 1);
        assert_eq!(axis("ic1oc1iw32ow16kw3sw2pw1").after, 0);
        assert_eq!(axis("ic1oc1iw10kw3sw4").after, -3);
        assert_eq!((axis("ic1oc1iw9ow5kw3dw1").dilation, axis("ic1oc1iw9kw3dw1").output), (2, 5));
    }

    #[test]
    fn errors_name_what_is_wrong() {
        for (text, rule) in [
            ("ic3_iw8kw3", "ic and oc are required"),
            ("ic3oc4", "there is no spatial axis"),
            ("ic3oc4_iw8", "kw is missing"),
            ("ic3oc4_iw8kw9", "the kernel of axis w is longer than the padded input"),
            ("ic3oc4_iw8kw3zz4", "`zz` is not known"),
            ("ic3oc4_iw8kw3sw0", "sw must not be 0"),
            ("ic3oc4_iw8kw3ow99999999999999999999", "ow99999999999999999999: the number is too large"),
        ] {
            assert_eq!(Problem::parse(text).unwrap_err().rule, rule);
        }
        assert!(Problem::parse("g2ic3oc4_iw8kw3").is_err());
        let error = parse_file("# comment\n\nic1oc1iw8kw3\nic1").unwrap_err();
        assert!(error.starts_with("line 4: shape `ic1`"), "{error}");
    }
}
