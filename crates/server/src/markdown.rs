//! The little Markdown of the error pages as HTML: headings, paragraphs, lists, code.

use maud::{Escaper, Markup, PreEscaped};
use std::fmt::Write;

/// HTML of a text with `#` headings, `-` and `1.` lists, fenced code, and `code` or **strong** within lines.
pub(crate) fn render(text: &str) -> Markup {
    let mut out = String::with_capacity(text.len() * 2);
    let mut open = "";
    let mut fenced = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            switch(&mut out, &mut open, "");
            out.push_str(if fenced { "</code></pre>" } else { "<pre><code>" });
            fenced = !fenced;
            continue;
        }
        if fenced {
            escape(&mut out, line);
            out.push('\n');
            continue;
        }
        let trimmed = line.trim();
        let level = trimmed.bytes().take_while(|b| *b == b'#').count();
        let number = trimmed
            .split_once(". ")
            .filter(|(n, _)| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
        if trimmed.is_empty() {
            switch(&mut out, &mut open, "");
        } else if (1..=6).contains(&level) {
            switch(&mut out, &mut open, "");
            let _ = write!(out, "<h{level}>");
            inline(&mut out, trimmed[level..].trim_start());
            let _ = write!(out, "</h{level}>");
        } else if let Some(item) = trimmed.strip_prefix("- ").or(trimmed.strip_prefix("* ")) {
            switch(&mut out, &mut open, "ul");
            out.push_str("<li>");
            inline(&mut out, item);
        } else if let Some((_, item)) = number {
            switch(&mut out, &mut open, "ol");
            out.push_str("<li>");
            inline(&mut out, item);
        } else {
            // A line within a list or paragraph goes on with it.
            if open.is_empty() {
                switch(&mut out, &mut open, "p")
            } else {
                out.push(' ')
            }
            inline(&mut out, trimmed);
        }
    }
    switch(&mut out, &mut open, "");
    if fenced {
        out.push_str("</code></pre>");
    }
    PreEscaped(out)
}

/// Ends the open block and begins another, unless it is the same one.
fn switch(out: &mut String, open: &mut &'static str, next: &'static str) {
    if *open == next {
        return;
    }
    if !open.is_empty() {
        let _ = write!(out, "</{open}>");
    }
    if !next.is_empty() {
        let _ = write!(out, "<{next}>");
    }
    *open = next;
}

fn inline(out: &mut String, text: &str) {
    for (n, part) in text.split('`').enumerate() {
        if n % 2 == 1 {
            out.push_str("<code>");
            escape(out, part);
            out.push_str("</code>");
            continue;
        }
        for (n, part) in part.split("**").enumerate() {
            out.push_str(if n == 0 { "" } else { ["</strong>", "<strong>"][n % 2] });
            escape(out, part);
        }
    }
}

fn escape(out: &mut String, text: &str) {
    let _ = Escaper::new(out).write_str(text);
}

#[cfg(test)]
mod tests {
    use super::*;
    use unisono::core::ErrorKind;

    #[test]
    fn blocks_and_spans_become_html_and_nothing_slips_through() {
        let text =
            "# a\n\nOne `<b>` and **two**\nlines.\n\n- x\n- y\n  z\n\n1. n\n\n```\n<i>\n```\n";
        assert_eq!(
            render(text).into_string(),
            "<h1>a</h1><p>One <code>&lt;b&gt;</code> and <strong>two</strong> lines.</p>\
             <ul><li>x<li>y z</ul><ol><li>n</ol><pre><code>&lt;i&gt;\n</code></pre>"
        );
    }

    #[test]
    fn every_error_page_renders_with_its_heading() {
        for kind in ErrorKind::ALL {
            let html = render(kind.page()).into_string();
            assert!(html.starts_with("<h1>"), "{}", kind.code());
            assert_eq!(
                html.matches("<strong>").count(),
                html.matches("</strong>").count(),
                "{}",
                kind.code()
            );
        }
    }
}
