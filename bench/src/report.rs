//! Figures, medians and ratios; the table and the picture.

use std::path::Path;
use std::time::Duration;

use maud::html;

use crate::Result;

/// Everything measured so far, printed as it comes.
#[derive(Default)]
pub(crate) struct Report {
    rows: Vec<Row>,
    tables: Vec<String>,
    /// By the name of the file.
    pictures: Vec<(&'static str, String)>,
}

struct Row {
    what: String,
    ours: String,
    other: String,
    ratio: Option<(f64, f64, f64)>,
    target: String,
}

/// The middle of a list of numbers.
pub(crate) fn median(numbers: &[f64]) -> f64 {
    quantile(numbers, 0.5)
}

/// The number below which a share of the list lies.
pub(crate) fn quantile(numbers: &[f64], share: f64) -> f64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().saturating_sub(1) as f64;
    sorted.get((last * share).round() as usize).copied().unwrap_or(f64::NAN)
}

/// A duration for people.
pub(crate) fn time(seconds: f64) -> String {
    match seconds {
        s if s < 1e-3 => format!("{:.0} µs", s * 1e6),
        s if s < 1.0 => format!("{:.2} ms", s * 1e3),
        s => format!("{s:.1} s"),
    }
}

impl Report {
    /// Two sides measured in turns: one pair per round. The ratio is that of each round; median, least and greatest.
    pub(crate) fn pair(
        &mut self,
        what: &str,
        rounds: &[(f64, f64)],
        show: fn(f64) -> String,
        target: &str,
    ) {
        let ours: Vec<f64> = rounds.iter().map(|r| r.0).collect();
        let other: Vec<f64> = rounds.iter().map(|r| r.1).collect();
        let ratios: Vec<f64> = rounds.iter().map(|r| r.0 / r.1).collect();
        self.add(Row {
            what: what.to_owned(),
            ours: show(median(&ours)),
            other: show(median(&other)),
            ratio: Some((median(&ratios), quantile(&ratios, 0.0), quantile(&ratios, 1.0))),
            target: target.to_owned(),
        });
    }

    /// A figure without another side.
    pub(crate) fn single(&mut self, what: &str, figure: String, target: &str) {
        let (what, target) = (what.to_owned(), target.to_owned());
        self.add(Row { what, ours: figure, other: String::new(), ratio: None, target });
    }

    /// Two sides whose figures are not for dividing.
    pub(crate) fn beside(&mut self, what: &str, ours: String, other: String, target: &str) {
        let (what, target) = (what.to_owned(), target.to_owned());
        self.add(Row { what, ours, other, ratio: None, target });
    }

    /// Figures that need columns of their own, below the table of all.
    pub(crate) fn table(&mut self, title: &str, heading: &[&str], rows: &[Vec<String>]) {
        let line = |cells: Vec<&str>| format!("| {} |\n", cells.join(" | "));
        let mut text = format!("\n{title}\n\n{}", line(heading.to_vec()));
        text += &line(vec!["---"; heading.len()]);
        for row in rows {
            text += &line(row.iter().map(String::as_str).collect());
        }
        println!("{text}");
        self.tables.push(text);
    }

    /// A picture to be written beside that of the ratios.
    pub(crate) fn draw(&mut self, file: &'static str, svg: String) {
        self.pictures.push((file, svg));
    }

    fn add(&mut self, row: Row) {
        println!("{}", row.line());
        self.rows.push(row);
    }

    /// Writes the table and the picture.
    pub(crate) fn write(&self, folder: &Path) -> Result<()> {
        std::fs::create_dir_all(folder)?;
        let head = "| measured | Unisono | alternative | ratio (least to greatest round) | wanted |\n|---|---|---|---|---|\n";
        let rows: String = self.rows.iter().map(|r| r.line() + "\n").collect();
        let tables = self.tables.concat();
        std::fs::write(folder.join("results.md"), format!("{head}{rows}{tables}"))?;
        std::fs::write(folder.join("ratios.svg"), self.picture())?;
        for (file, svg) in &self.pictures {
            std::fs::write(folder.join(file), svg)?;
        }
        println!("\nwritten: {}", folder.display());
        Ok(())
    }

    /// A bar for each ratio, with its range, on a logarithmic scale around 1.
    fn picture(&self) -> String {
        let bars: Vec<_> =
            self.rows.iter().filter_map(|r| r.ratio.map(|ratio| (&r.what, ratio))).collect();
        let x = |ratio: f64| 420.0 + 90.0 * ratio.max(0.05).log10().clamp(-1.3, 2.3);
        let height = 40 + 28 * bars.len();
        let svg = html! {
            svg xmlns="http://www.w3.org/2000/svg" width="700" height=(height) font-family="sans-serif" font-size="12" {
                rect width="700" height=(height) fill="white" {}
                line x1=(x(1.0)) x2=(x(1.0)) y1="10" y2=(height - 20) stroke="#999" {}
                text x=(x(1.0)) y=(height - 6) text-anchor="middle" fill="#555" { "1x" }
                @for (n, (what, (middle, least, greatest))) in bars.iter().enumerate() {
                    @let y = 14 + 28 * n;
                    text x="290" y=(y + 14) text-anchor="end" { (what) }
                    rect x=(x(1.0).min(x(*middle))) y=(y + 3) height="14" width=((x(*middle) - x(1.0)).abs()) fill="#3b7dd8" {}
                    line x1=(x(*least)) x2=(x(*greatest)) y1=(y + 10) y2=(y + 10) stroke="#123" stroke-width="2" {}
                    text x="690" y=(y + 14) text-anchor="end" { (format!("{middle:.2}x")) }
                }
            }
        };
        svg.into_string()
    }
}

impl Row {
    fn line(&self) -> String {
        let ratio =
            self.ratio.map_or(String::new(), |(m, l, g)| format!("{m:.2}x ({l:.2} to {g:.2})"));
        format!("| {} | {} | {} | {} | {} |", self.what, self.ours, self.other, ratio, self.target)
    }
}

/// Requests per second, for people.
pub(crate) fn rate(per_second: f64) -> String {
    format!("{per_second:.0}/s")
}

/// The median of durations, in seconds.
pub(crate) fn middle(times: &[Duration]) -> f64 {
    median(&times.iter().map(Duration::as_secs_f64).collect::<Vec<_>>())
}
