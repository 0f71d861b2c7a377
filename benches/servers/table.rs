//! Rounds to medians, and both ways to print them.
#![forbid(unsafe_code)]

use std::fmt::Write as _;

use crate::Contest;

/// What one server showed in one case.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    pub server: String,
    /// One figure per round.
    pub rounds: Vec<f64>,
    /// Rounds that came to nothing.
    pub failures: u32,
    /// Why there are no more.
    pub absent: Option<String>,
}

impl Figures {
    /// The middle figure; the mean of the two middle ones of an even number.
    pub fn median(&self) -> Option<f64> {
        let sorted = self.sorted();
        let middle = sorted.len() / 2;
        match sorted.len() {
            0 => None,
            n if n % 2 == 1 => Some(sorted[middle]),
            _ => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
        }
    }

    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.rounds.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }
}

/// One thing that was measured, for every server.
#[derive(Clone, Debug)]
pub struct Results {
    pub title: String,
    pub unit: &'static str,
    pub contest: Contest,
    pub figures: Vec<Figures>,
}

impl Results {
    fn median_of(&self, server: &str) -> Option<f64> {
        self.figures
            .iter()
            .find(|figures| figures.server == server)?
            .median()
    }

    /// The case as lines of text, each figure also divided by those of the
    /// servers named.
    pub fn table(&self, yardsticks: &[&str]) -> String {
        let mut text = format!("{}, {}\n", self.title, self.unit);
        let _ = write!(
            text,
            "  {:<20}{:>10}{:>10}{:>10}",
            self.contest.side(),
            "median",
            "least",
            "most"
        );
        for server in yardsticks {
            let _ = write!(text, "{:>16}", format!("/{server}"));
        }
        text.push('\n');
        for figures in &self.figures {
            let _ = write!(text, "  {:<20}", figures.server);
            let sorted = figures.sorted();
            if let (Some(median), Some(least), Some(most)) =
                (figures.median(), sorted.first(), sorted.last())
            {
                let _ = write!(text, "{median:>10.3}{least:>10.3}{most:>10.3}");
                for server in yardsticks {
                    let base = self.median_of(server).filter(|&base| base > 0.0);
                    let ratio = base.map_or("-".to_owned(), |base| format!("{:.2}", median / base));
                    let _ = write!(text, "{ratio:>16}");
                }
            }
            if let Some(why) = &figures.absent {
                // The whole text is among the messages and in the JSON.
                let short: String = why.chars().take(60).collect();
                let _ = write!(text, "  {short}");
            }
            if !figures.rounds.is_empty() && figures.failures > 0 {
                let _ = write!(text, "  {} rounds failed", figures.failures);
            }
            text.push('\n');
        }
        text
    }

    /// The case as one JSON object.
    pub fn json(&self) -> String {
        let servers: Vec<String> = self
            .figures
            .iter()
            .map(|figures| {
                let rounds: Vec<String> = figures
                    .rounds
                    .iter()
                    .map(|figure| format!("{figure:.6}"))
                    .collect();
                let median = figures
                    .median()
                    .map_or("null".to_owned(), |median| format!("{median:.6}"));
                let absent = figures.absent.as_deref().map_or("null".to_owned(), quoted);
                format!(
                    "{{\"server\":{},\"median\":{median},\"rounds\":[{}],\"failures\":{},\"absent\":{absent}}}",
                    quoted(&figures.server),
                    rounds.join(","),
                    figures.failures
                )
            })
            .collect();
        format!(
            "{{\"case\":{},\"unit\":{},\"servers\":[{}]}}",
            quoted(&self.title),
            quoted(self.unit),
            servers.join(",")
        )
    }
}

/// A JSON string.
pub fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' | '\\' => out.extend(['\\', letter]),
            letter if letter.is_control() => {
                let _ = write!(out, "\\u{:04x}", u32::from(letter));
            }
            letter => out.push(letter),
        }
    }
    out.push('"');
    out
}
