//! Plots as SVG: bars with the range that was seen, and lines over logarithmic axes.
//!
//! Readable on light and dark pages: they bring their own background. Nothing but shapes and text.

use std::fmt::Write as _;

const INK: &str = "#1f2937";
const FAINT: &str = "#9ca3af";
const RULE: &str = "#e5e7eb";
const FONT: &str = "font-family=\"system-ui,sans-serif\"";

/// One bar: its name, its value, and the least and most that was seen.
#[derive(Debug, Clone)]
pub struct Bar {
    pub name: String,
    pub value: Option<f64>,
    pub range: Option<[f64; 2]>,
}

/// Bars beneath one title.
#[derive(Debug, Clone)]
pub struct Panel {
    pub title: String,
    pub bars: Vec<Bar>,
}

/// A line: its name, and points (x, y).
#[derive(Debug, Clone)]
pub struct Line {
    pub name: String,
    pub points: Vec<(f64, f64)>,
}

fn colour(name: &str) -> &'static str {
    match name {
        "hythe-t0" => "#c2410c",
        "hythe-t1" => "#ea9a5b",
        "nginx" => "#15803d",
        "haproxy" => "#1d4ed8",
        "envoy" => "#7e22ce",
        "envoy-wasm" => "#c084fc",
        "caddy" => "#0e7490",
        "l4" => "#9ca3af",
        _ => "#475569",
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// As a person writes a figure: three digits that count.
pub fn short(value: f64) -> String {
    match value.abs() {
        large if large >= 1_000_000.0 => format!("{:.1} M", value / 1e6),
        large if large >= 100_000.0 => format!("{:.0} k", value / 1e3),
        large if large >= 100.0 => format!("{value:.0}"),
        large if large >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn open(width: f64, height: f64) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
         height=\"{height}\" {FONT} font-size=\"12\">\n\
         <rect width=\"{width}\" height=\"{height}\" rx=\"6\" fill=\"#ffffff\"/>\n"
    )
}

/// Panels beside each other.
pub fn bars(panels: &[Panel]) -> String {
    const WIDTH: f64 = 380.0;
    const NAMES: f64 = 82.0;
    const VALUES: f64 = 56.0;
    const STEP: f64 = 22.0;
    const TOP: f64 = 40.0;
    let rows = panels.iter().map(|panel| panel.bars.len()).max().unwrap_or_default();
    let height = TOP + STEP * rows as f64 + 14.0;
    let mut svg = open(WIDTH * panels.len() as f64, height);
    for (number, panel) in panels.iter().enumerate() {
        let left = WIDTH * number as f64 + 12.0;
        let most = panel.bars.iter().filter_map(|bar| bar.range.map(|range| range[1]).or(bar.value));
        let most = most.fold(f64::MIN_POSITIVE, f64::max);
        let room = WIDTH - 24.0 - NAMES - VALUES;
        let place = |value: f64| left + NAMES + room * (value.max(0.0) / most);
        let _ = writeln!(
            svg,
            "<text x=\"{left}\" y=\"22\" font-weight=\"600\" fill=\"{INK}\">{}</text>",
            escaped(&panel.title)
        );
        for (row, bar) in panel.bars.iter().enumerate() {
            let middle = TOP + STEP * row as f64 + STEP / 2.0;
            let (baseline, zero) = (middle + 4.0, place(0.0));
            let _ = writeln!(
                svg,
                "<text x=\"{:.1}\" y=\"{baseline:.1}\" text-anchor=\"end\" fill=\"{INK}\">{}</text>",
                zero - 6.0,
                escaped(&bar.name)
            );
            let Some(value) = bar.value else {
                let _ = writeln!(svg, "<text x=\"{zero:.1}\" y=\"{baseline:.1}\" fill=\"{FAINT}\">–</text>");
                continue;
            };
            let end = place(value);
            let _ = writeln!(
                svg,
                "<rect x=\"{zero:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"14\" fill=\"{}\"/>",
                middle - 7.0,
                (end - zero).max(1.0),
                colour(&bar.name)
            );
            let mut label = end;
            if let Some([least, most]) = bar.range {
                let (from, to) = (place(least), place(most));
                label = label.max(to);
                let _ = writeln!(
                    svg,
                    "<path d=\"M{from:.1} {middle:.1}H{to:.1}M{from:.1} {:.1}v8M{to:.1} {:.1}v8\" stroke=\"{INK}\" \
                     fill=\"none\"/>",
                    middle - 4.0,
                    middle - 4.0
                );
            }
            let _ = writeln!(
                svg,
                "<text x=\"{:.1}\" y=\"{baseline:.1}\" fill=\"{INK}\">{}</text>",
                label + 6.0,
                short(value)
            );
        }
    }
    svg.push_str("</svg>\n");
    svg
}

/// Lines over two logarithmic axes.
pub fn lines(title: &str, across: &str, up: &str, lines: &[Line]) -> String {
    const WIDTH: f64 = 760.0;
    const HEIGHT: f64 = 380.0;
    let (left, right, top, bottom) = (64.0, WIDTH - 110.0, 44.0, HEIGHT - 48.0);
    let mut svg = open(WIDTH, HEIGHT);
    let _ =
        writeln!(svg, "<text x=\"16\" y=\"22\" font-weight=\"600\" fill=\"{INK}\">{}</text>", escaped(title));
    let points = || lines.iter().flat_map(|line| line.points.iter().copied());
    let decades = |of: &dyn Fn((f64, f64)) -> f64| -> [f64; 2] {
        let logs: Vec<f64> = points().map(|point| of(point).max(1e-3).log10()).collect();
        let least = logs.iter().copied().fold(f64::INFINITY, f64::min).floor();
        let most = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max).ceil();
        [least, most.max(least + 1.0)]
    };
    if points().next().is_none() {
        svg.push_str("</svg>\n");
        return svg;
    }
    let (xs, ys) = (decades(&|point| point.0), decades(&|point| point.1));
    let x = |value: f64| left + (right - left) * (value.max(1e-3).log10() - xs[0]) / (xs[1] - xs[0]);
    let y = |value: f64| bottom - (bottom - top) * (value.max(1e-3).log10() - ys[0]) / (ys[1] - ys[0]);
    for power in xs[0] as i32..=xs[1] as i32 {
        let value = 10_f64.powi(power);
        let at = x(value);
        let _ = writeln!(
            svg,
            "<path d=\"M{at:.1} {top}V{bottom}\" stroke=\"{RULE}\"/>\
             <text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"{INK}\">{}</text>",
            bottom + 18.0,
            tick(value)
        );
    }
    for power in ys[0] as i32..=ys[1] as i32 {
        let value = 10_f64.powi(power);
        let at = y(value);
        let _ = writeln!(
            svg,
            "<path d=\"M{left} {at:.1}H{right}\" stroke=\"{RULE}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"{INK}\">{}</text>",
            left - 6.0,
            at + 4.0,
            tick(value)
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"{INK}\">{}</text>\
         <text x=\"16\" y=\"{:.1}\" fill=\"{INK}\">{}</text>",
        f64::midpoint(left, right),
        HEIGHT - 10.0,
        escaped(across),
        top - 6.0,
        escaped(up)
    );
    // Names beside the last points, moved apart where they would meet.
    let mut labels: Vec<(f64, &Line)> =
        lines.iter().filter_map(|line| line.points.last().map(|point| (y(point.1), line))).collect();
    labels.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut above = f64::NEG_INFINITY;
    for (at, line) in &mut labels {
        *at = at.max(above + 14.0);
        above = *at;
        let shape: Vec<String> =
            line.points.iter().map(|point| format!("{:.1},{:.1}", x(point.0), y(point.1))).collect();
        let colour = colour(&line.name);
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            shape.join(" ")
        );
        for point in &line.points {
            let _ = writeln!(
                svg,
                "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"{colour}\"/>",
                x(point.0),
                y(point.1)
            );
        }
        let end = line.points.last().map_or(right, |point| x(point.0));
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" fill=\"{colour}\">{}</text>",
            end + 8.0,
            *at + 4.0,
            escaped(&line.name)
        );
    }
    svg.push_str("</svg>\n");
    svg
}

fn tick(value: f64) -> String {
    if value >= 1e6 {
        format!("{:.0} M", value / 1e6)
    } else if value >= 1e3 {
        format!("{:.0} k", value / 1e3)
    } else {
        format!("{value}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_hold_what_was_given_and_say_what_is_missing() {
        let bar = |name: &str, value| Bar { name: name.to_owned(), value, range: Some([1.0, 4.0]) };
        let panel = Panel { title: "a < b".to_owned(), bars: vec![bar("nginx", Some(2.0)), bar("l4", None)] };
        let svg = bars(&[panel]);
        assert!(svg.contains("a &lt; b") && svg.contains(">2.00<") && svg.contains(">–<"), "{svg}");
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"));
    }

    #[test]
    fn a_plot_without_points_is_still_one() {
        assert!(lines("t", "x", "y", &[]).ends_with("</svg>\n"));
        let line = Line { name: "caddy".to_owned(), points: vec![(1.0, 90.0), (10_000.0, 4_000.0)] };
        let svg = lines("t", "x", "y", &[line]);
        assert!(svg.contains("polyline") && !svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }
}
