//! Lines in an SVG, readable on light and on dark.

use std::fmt::Write as _;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 380.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 64.0;
const BOTTOM: f64 = 78.0;

/// Horizontal lines above zero, about.
const STEPS: f64 = 4.0;

const STYLE: &str = "\
svg { background: #ffffff; font: 13px system-ui, sans-serif }
text { fill: #24292f } .quiet { fill: #57606a } .title { font-size: 16px; font-weight: 600 }
.grid { stroke: #d0d7de } .line { fill: none; stroke-width: 2.5 }
.s0 { stroke: #0969da } .s1 { stroke: #bc4c00 } .s2 { stroke: #1a7f37 }
.d0 { fill: #0969da } .d1 { fill: #bc4c00 } .d2 { fill: #1a7f37 }
@media (prefers-color-scheme: dark) {
svg { background: #0d1117 } text { fill: #e6edf3 } .quiet { fill: #9198a1 } .grid { stroke: #30363d }
.s0 { stroke: #58a6ff } .s1 { stroke: #f0883e } .s2 { stroke: #3fb950 }
.d0 { fill: #58a6ff } .d1 { fill: #f0883e } .d2 { fill: #3fb950 } }";

/// One line.
pub(crate) struct Series {
    /// What it is of.
    pub(crate) name: &'static str,
    /// Its points, by x.
    pub(crate) points: Vec<(f64, f64)>,
}

/// Jobs a second against something.
pub(crate) struct Plot {
    /// What it shows.
    pub(crate) title: &'static str,
    /// What x is.
    pub(crate) x_label: &'static str,
    /// Whether x grows by factors.
    pub(crate) logarithmic: bool,
    /// The lines, three at most.
    pub(crate) series: Vec<Series>,
}

impl Plot {
    /// The whole file; the note stands at its foot.
    pub(crate) fn svg(&self, note: &str) -> String {
        let points = || self.series.iter().flat_map(|series| &series.points);
        let step = nice(points().map(|point| point.1).fold(1.0, f64::max) / STEPS);
        let top = (points().map(|point| point.1).fold(1.0, f64::max) / step).ceil() * step;
        let mut out = String::new();
        let title = self.title;
        let _ = writeln!(
            out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" \
             aria-label=\"{title}\">\n<style>\n{STYLE}\n</style>"
        );
        text(&mut out, (LEFT, 24.0), "start", "title", title);
        self.grid(&mut out, step, top);
        for (at, series) in self.series.iter().enumerate() {
            let place = |point: &(f64, f64)| (self.x(point.0), y(point.1, top));
            let places: Vec<_> = series.points.iter().map(place).collect();
            let path: Vec<_> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
            let path = path.join(" ");
            let _ = writeln!(out, "<polyline class=\"line s{at}\" points=\"{path}\"/>");
            for (x, y) in places {
                let _ = writeln!(
                    out,
                    "<circle class=\"d{at}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\"/>"
                );
            }
            let x = LEFT + at as f64 * 170.0;
            let _ = writeln!(out, "<circle class=\"d{at}\" cx=\"{x:.1}\" cy=\"42\" r=\"5\"/>");
            text(&mut out, (x + 10.0, 46.0), "start", "", series.name);
        }
        text(&mut out, (LEFT, HEIGHT - 34.0), "start", "quiet", self.x_label);
        text(&mut out, (LEFT, HEIGHT - 14.0), "start", "quiet", note);
        out + "</svg>\n"
    }

    fn grid(&self, out: &mut String, step: f64, top: f64) {
        let right = WIDTH - RIGHT;
        for number in 0..=(top / step).round() as usize {
            let value = number as f64 * step;
            let y = y(value, top);
            let _ = writeln!(
                out,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>"
            );
            text(out, (LEFT - 8.0, y + 4.0), "end", "quiet", &short(value));
        }
        text(out, (8.0, TOP - 10.0), "start", "quiet", "jobs/s");
        for x in self.ticks() {
            text(out, (self.x(x), HEIGHT - BOTTOM + 20.0), "middle", "quiet", &short(x));
        }
    }

    /// The places of x that have a number: those of the points, or of some of them.
    fn ticks(&self) -> Vec<f64> {
        let longest = self.series.iter().max_by_key(|series| series.points.len());
        let all = longest.map(|series| &series.points[..]).unwrap_or_default();
        let every = all.len().div_ceil(8).max(1);
        all.iter().skip(every - 1).step_by(every).map(|point| point.0).collect()
    }

    fn x(&self, value: f64) -> f64 {
        let scale = |x: f64| if self.logarithmic { x.max(1.0).log10() } else { x };
        let all =
            || self.series.iter().flat_map(|series| &series.points).map(|point| scale(point.0));
        let (least, most) = (all().fold(f64::MAX, f64::min), all().fold(0.0, f64::max));
        let least = if self.logarithmic { least } else { 0.0 };
        let share = (scale(value) - least) / (most - least).max(f64::MIN_POSITIVE);
        let margin = if self.logarithmic { 24.0 } else { 0.0 };
        LEFT + margin + share * (WIDTH - LEFT - RIGHT - 2.0 * margin)
    }
}

fn y(value: f64, top: f64) -> f64 {
    HEIGHT - BOTTOM - value / top * (HEIGHT - TOP - BOTTOM)
}

fn text(out: &mut String, (x, y): (f64, f64), anchor: &str, class: &str, words: &str) {
    let _ = writeln!(
        out,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" class=\"{class}\">{words}</text>"
    );
}

/// 1, 2 or 5 times a power of ten, at least the value.
fn nice(value: f64) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    let factors = [1.0, 2.0, 5.0, 10.0];
    power * factors.into_iter().find(|factor| value <= factor * power).unwrap_or(10.0)
}

fn short(value: f64) -> String {
    match value {
        0.0 => "0".to_owned(),
        value if value >= 1e6 => format!("{} M", value / 1e6),
        value if value >= 1e3 => format!("{} k", value / 1e3),
        value => value.to_string(),
    }
}
