//! Versions and preferred suites drawn as bars, in SVG. Each bar has its number
//! beside it: no color is needed to read it.
#![forbid(unsafe_code)]

use std::fmt::Write as _;

use super::tally::{Port, Tally, most_first, port_name};
use crate::probe::result::Version;
use crate::text;

/// Sizes, in pixels.
const WIDTH: u32 = 860;
const MARGIN: u32 = 20;
const ROW: u32 = 22;
const LABEL: u32 = 330;
const BAR: u32 = 400;
const HEAD: u32 = 34;

/// How many suites of a port are drawn; the others are in the table.
const SUITES: usize = 12;

/// A drawing in the making.
struct Chart {
    body: String,
    y: u32,
}

/// The drawing, a whole SVG document.
#[must_use]
pub fn svg(tally: &Tally) -> String {
    let mut chart = Chart {
        body: String::new(),
        y: MARGIN,
    };
    for (number, port) in &tally.ports {
        chart.port(&port_name(*number), port);
    }
    let height = chart.y + MARGIN;
    let hosts = text::count(tally.results, "host");
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" font-family=\"sans-serif\" \
         font-size=\"13\">\n<title>TLS versions and preferred suites of {hosts}</title>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n{}</svg>\n",
        chart.body
    )
}

impl Chart {
    fn port(&mut self, name: &str, port: &Port) {
        self.head(&format!(
            "Port {name}: {}, {} with TLS",
            text::count(port.hosts, "host"),
            port.tls
        ));
        for version in Version::ALL {
            let count = port.versions.get(&version).copied().unwrap_or_default();
            let color = if version < Version::Tls12 {
                "#b5482a"
            } else {
                "#2a6fb5"
            };
            self.bar(&version.to_string(), count, port.tls, color);
        }
        for (version, suites) in &port.preferred {
            let all = most_first(suites);
            let hosts = suites.values().sum();
            self.head(&format!("Port {name}: suite preferred in {version}"));
            for (suite, count) in all.iter().take(SUITES) {
                self.bar(suite, *count, hosts, "#4f8a5b");
            }
            if let Some(rest) = all.get(SUITES..).filter(|rest| !rest.is_empty()) {
                let sum = rest.iter().map(|(_, count)| *count).sum();
                self.bar(&text::count(rest.len(), "other"), sum, hosts, "#8a8a8a");
            }
        }
    }

    fn head(&mut self, text: &str) {
        self.y += HEAD;
        let y = self.y - 12;
        let text = escaped(text);
        let _ = writeln!(
            self.body,
            "<text x=\"{MARGIN}\" y=\"{y}\" font-weight=\"bold\" font-size=\"15\">{text}</text>"
        );
    }

    fn bar(&mut self, label: &str, count: u64, of: u64, color: &str) {
        let (x, y) = (MARGIN + LABEL, self.y);
        let (base, end) = (y + 14, x - 8);
        let length = (count * u64::from(BAR)).checked_div(of).unwrap_or_default();
        let percent = (count * 100).checked_div(of).unwrap_or_default();
        let after = u64::from(x) + length + 6;
        let label = escaped(label);
        let _ = writeln!(
            self.body,
            "<text x=\"{end}\" y=\"{base}\" text-anchor=\"end\">{label}</text>\
             <rect x=\"{x}\" y=\"{y}\" width=\"{length}\" height=\"18\" fill=\"{color}\"/>\
             <text x=\"{after}\" y=\"{base}\">{count} ({percent} %)</text>"
        );
        self.y += ROW;
    }
}

/// Text of SVG, cut to the room that there is.
fn escaped(text: &str) -> String {
    let shown: String = text.chars().take(70).collect();
    shown
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
