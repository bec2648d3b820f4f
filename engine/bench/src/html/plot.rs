//! Drawing with SVG: scales, axes, lines, labels. Knows pixels and colours by number, nothing of benchmarks.

use super::{escaped, push};

/// Width of every drawing, in pixels of its own coordinates; the page scales it.
pub(super) const WIDTH: f64 = 960.0;

/// The rectangle inside the axes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Area {
    pub(super) left: f64,
    pub(super) top: f64,
    pub(super) right: f64,
    pub(super) bottom: f64,
}

/// Maps values onto pixels by their logarithm.
#[derive(Debug, Clone, Copy)]
pub(super) struct LogScale {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl LogScale {
    /// Spans the values, with a little room at both ends; values at or below zero count as one.
    pub(super) fn over(values: impl IntoIterator<Item = f64>, from: f64, to: f64) -> Self {
        let bounds = values.into_iter().filter(|value| value.is_finite()).map(|value| value.max(1.0).log10());
        let (low, high) =
            bounds.fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(value), high.max(value)));
        let (low, high) = if low > high { (0.0, 1.0) } else { (low, high) };
        let room = ((high - low) * 0.05).max(0.08);
        Self { low: low - room, high: high + room, from, to }
    }

    pub(super) fn at(&self, value: f64) -> f64 {
        let share = (value.max(1.0).log10() - self.low) / (self.high - self.low);
        self.from + share * (self.to - self.from)
    }

    /// Returns round values inside the scale: decades, with twos and fives between them where there are few decades.
    pub(super) fn ticks(&self) -> Vec<f64> {
        let steps: &[f64] = if self.high - self.low < 2.2 { &[1.0, 2.0, 5.0] } else { &[1.0] };
        let decades = (0..16).map(|exponent| 10_f64.powi(exponent));
        let all = decades.flat_map(|decade| steps.iter().map(move |step| decade * step));
        all.filter(|value| (self.low..=self.high).contains(&value.log10())).collect()
    }
}

/// One drawing under construction.
#[derive(Debug)]
pub(super) struct Drawing {
    body: String,
    height: f64,
}

/// Which end of a text stands at its place.
#[derive(Debug, Clone, Copy)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

impl Anchor {
    fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Middle => "middle",
            Self::End => "end",
        }
    }
}

impl Drawing {
    pub(super) fn new(height: f64) -> Self {
        Self { body: String::new(), height }
    }

    /// Closes the drawing, giving it a name for those who cannot see it.
    pub(super) fn finish(self, label: &str) -> String {
        let (body, height, label) = (self.body, self.height, escaped(label));
        format!("<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{label}\">\n{body}</svg>\n")
    }

    /// Draws a straight line of a class.
    pub(super) fn line(&mut self, class: &str, from: (f64, f64), to: (f64, f64)) {
        let ((x1, y1), (x2, y2)) = (from, to);
        push(
            &mut self.body,
            format_args!(
                "<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>\n"
            ),
        );
    }

    /// Draws a line through points; `note` appears when a pointer rests on it.
    pub(super) fn polyline(&mut self, class: &str, points: &[(f64, f64)], note: &str) {
        let points: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let (points, note) = (points.join(" "), escaped(note));
        push(
            &mut self.body,
            format_args!(
                "<polyline class=\"{class}\" points=\"{points}\"><title>{note}</title></polyline>\n"
            ),
        );
    }

    /// Draws a dot.
    pub(super) fn dot(&mut self, class: &str, (x, y): (f64, f64), note: &str) {
        let note = escaped(note);
        push(
            &mut self.body,
            format_args!(
                "<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\"><title>{note}</title></circle>\n"
            ),
        );
    }

    /// Draws a bar from `x` to the right.
    pub(super) fn bar(&mut self, class: &str, (x, y): (f64, f64), (width, height): (f64, f64), note: &str) {
        let note = escaped(note);
        push(
            &mut self.body,
            format_args!(
                "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" rx=\"2\"><title>{note}</title></rect>\n"
            ),
        );
    }

    /// Writes text.
    pub(super) fn text(&mut self, class: &str, (x, y): (f64, f64), anchor: Anchor, text: &str) {
        let (anchor, text) = (anchor.name(), escaped(text));
        push(
            &mut self.body,
            format_args!(
                "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>\n"
            ),
        );
    }

    /// Draws grid lines and labels along the left side.
    pub(super) fn left_axis(&mut self, area: Area, scale: &LogScale, label: impl Fn(f64) -> String) {
        for value in scale.ticks() {
            let y = scale.at(value);
            self.line("grid", (area.left, y), (area.right, y));
            self.text("tick", (area.left - 8.0, y + 4.0), Anchor::End, &label(value));
        }
    }

    /// Draws grid lines and labels along the bottom, for values already placed.
    pub(super) fn bottom_axis(&mut self, area: Area, ticks: &[(f64, String)], title: &str) {
        for (x, label) in ticks {
            self.line("grid", (*x, area.top), (*x, area.bottom));
            self.text("tick", (*x, area.bottom + 18.0), Anchor::Middle, label);
        }
        self.line("axis", (area.left, area.bottom), (area.right, area.bottom));
        let middle = f64::midpoint(area.left, area.right);
        self.text("title", (middle, area.bottom + 38.0), Anchor::Middle, title);
    }
}
