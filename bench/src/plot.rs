//! Pictures of figures that are no ratios: bars with two ends, and a course over time.

use maud::{Markup, html};

use crate::report::time;

/// One bar: its end is the middle, and a thin line goes on to what is rarely exceeded. In seconds.
pub(crate) struct Bar {
    pub(crate) name: &'static str,
    pub(crate) middle: f64,
    pub(crate) high: f64,
    /// Beside it.
    pub(crate) note: String,
}

/// One second of a course.
pub(crate) struct Second {
    /// The name of the level, which is told by the colour behind.
    pub(crate) level: String,
    /// Whether something is being done to the system.
    pub(crate) marked: bool,
    /// In seconds, for each line; absent where there is nothing.
    pub(crate) values: Vec<Option<f64>>,
}

/// The shortest time that is drawn.
const SECONDS_MIN: f64 = 1e-4;
const DECADES: f64 = 6.0;

/// Where a time lies between the least and the greatest that are drawn, by its logarithm.
fn share(seconds: f64) -> f64 {
    ((seconds.max(SECONDS_MIN) / SECONDS_MIN).log10() / DECADES).clamp(0.0, 1.0)
}

/// The times at which a scale has lines.
fn ticks() -> impl Iterator<Item = f64> {
    (0..=DECADES as i32).map(|n| SECONDS_MIN * 10_f64.powi(n))
}

/// Bars over a logarithmic scale.
pub(crate) fn bars(title: &str, bars: &[Bar]) -> String {
    let (left, width) = (120.0, 480.0);
    let x = |seconds: f64| left + width * share(seconds);
    let height = 56 + 24 * bars.len();
    let svg = html! {
        svg xmlns="http://www.w3.org/2000/svg" width="740" height=(height) font-family="sans-serif" font-size="12" {
            rect width="740" height=(height) fill="white" {}
            text x="12" y="18" fill="#123" { (title) }
            @for tick in ticks() {
                line x1=(x(tick)) x2=(x(tick)) y1="26" y2=(height - 20) stroke="#ddd" {}
                text x=(x(tick)) y=(height - 6) text-anchor="middle" fill="#555" { (time(tick)) }
            }
            @for (n, bar) in bars.iter().enumerate() {
                @let y = 32 + 24 * n;
                text x=(left - 8.0) y=(y + 12) text-anchor="end" { (bar.name) }
                rect x=(left) y=(y) height="14" width=(x(bar.middle) - left) fill="#3b7dd8" {}
                line x1=(x(bar.middle)) x2=(x(bar.high)) y1=(y + 7) y2=(y + 7) stroke="#123" stroke-width="2" {}
                text x="730" y=(y + 12) text-anchor="end" { (bar.note) }
            }
        }
    };
    svg.into_string()
}

/// Lines over seconds, on a logarithmic scale, before the levels.
pub(crate) fn course(title: &str, lines: &[(&str, &str)], seconds: &[Second]) -> String {
    let (left, top, width, height) = (70.0, 50.0, 640.0, 260.0);
    let step = width / seconds.len().max(1) as f64;
    let x = |n: usize| left + step * n as f64;
    let y = |value: f64| top + height * (1.0 - share(value));
    let svg = html! {
        svg xmlns="http://www.w3.org/2000/svg" width="740" height="350" font-family="sans-serif" font-size="12" {
            rect width="740" height="350" fill="white" {}
            text x="12" y="18" fill="#123" { (title) }
            @for (n, (name, colour)) in lines.iter().enumerate() {
                text x=(70 + 150 * n) y="38" fill=(colour) { (name) }
            }
            @for (n, second) in seconds.iter().enumerate() {
                rect x=(x(n)) y=(top) width=(step + 0.5) height=(height) fill=(colour_of(&second.level)) {}
                @if second.marked {
                    rect x=(x(n)) y=(top + height - 6.0) width=(step + 0.5) height="6" fill="#c33" {}
                }
                @if n == 0 || seconds.get(n - 1).is_some_and(|before| before.level != second.level) {
                    text x=(x(n) + 3.0) y=(top + 14.0) fill="#333" { (second.level) }
                }
                @if n % 5 == 0 { text x=(x(n)) y=(top + height + 16.0) fill="#555" { (n) " s" } }
            }
            @for tick in ticks() {
                line x1=(left) x2=(left + width) y1=(y(tick)) y2=(y(tick)) stroke="#fff" {}
                text x=(left - 6.0) y=(y(tick) + 4.0) text-anchor="end" fill="#555" { (time(tick)) }
            }
            @for (line, (_, colour)) in lines.iter().enumerate() { (polyline(line, colour, seconds, &x, step, &y)) }
        }
    };
    svg.into_string()
}

fn polyline(
    line: usize,
    colour: &str,
    seconds: &[Second],
    x: &dyn Fn(usize) -> f64,
    step: f64,
    y: &dyn Fn(f64) -> f64,
) -> Markup {
    let value = |second: &Second| second.values.get(line).copied().flatten();
    let points = seconds.iter().enumerate().filter_map(|(n, second)| {
        value(second).map(|value| format!("{:.1},{:.1}", x(n) + step / 2.0, y(value)))
    });
    let points = points.collect::<Vec<_>>().join(" ");
    html! { polyline points=(points) fill="none" stroke=(colour) stroke-width="2" {} }
}

/// The more is demanded, the darker.
fn colour_of(level: &str) -> &'static str {
    match level {
        "all" => "#cfe0f5",
        "quorum" => "#e4eefa",
        _ => "#f6f6f6",
    }
}
