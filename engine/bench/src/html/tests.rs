//! Tests of the page: complete, self-contained, well-formed, and safe from what a report may contain. With
//! `RINGWAY_KEEP_HTML=FILE` the sample page is kept for people to look at.

use super::{escaped, render};
use crate::report::tests::sample;
use crate::report::{CaseResult, Report};

/// Names of the elements that the page may leave open.
const VOID: [&str; 4] = ["meta", "br", "!doctype", "line"];

/// Checks that every element that opens is closed, in order.
fn assert_well_formed(page: &str) {
    let style = page.find("<style>").unwrap()..page.find("</style>").unwrap();
    let page = format!("{}{}", &page[..style.start], &page[style.end + "</style>".len()..]);
    let mut open = Vec::new();
    for tag in page.split('<').skip(1) {
        let (tag, _) = tag.split_once('>').unwrap_or_else(|| panic!("<{tag} never ends"));
        let name = tag.split([' ', '/']).find(|word| !word.is_empty()).unwrap();
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name), "closed in the wrong order");
        } else if !tag.ends_with('/') && !VOID.contains(&name) {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "left open: {open:?}");
}

#[test]
fn page_has_every_plot_and_table() {
    let page = render(&sample());
    if let Some(file) = std::env::var_os("RINGWAY_KEEP_HTML") {
        std::fs::write(file, &page).unwrap();
    }
    assert_well_formed(&page);
    assert_eq!(page.matches("<svg").count(), 4);
    assert_eq!(page.matches("<table").count(), 2);
    for case in &sample().cases {
        assert!(page.contains(&format!("<tr><th>{}</th>", case.name)), "{} has no row", case.name);
    }
    for expected in [
        "cache_line",
        "memcpy",
        "16 MiB at 10.0 GB/s",
        "near",
        "ringway bench --json report.json",
        "call/bytes/handle/spin/*",
    ] {
        assert!(page.contains(expected), "wanted {expected:?}");
    }
}

#[test]
fn page_fetches_and_runs_nothing() {
    let page = render(&sample());
    for forbidden in ["<script", "http:", "https:", "src=", "href=", "@import", "url("] {
        assert!(!page.contains(forbidden), "found {forbidden:?}");
    }
}

#[test]
fn names_cannot_break_the_page() {
    let mut report = sample();
    let evil = "</table><script>alert(\"1\")</script>'&";
    report.command = evil.to_owned();
    report.machine.mitigations.insert(evil.to_owned(), evil.to_owned());
    for case in &mut report.cases {
        case.name = format!("{}{evil}", case.name);
    }
    let page = render(&report);
    assert_well_formed(&page);
    assert!(!page.contains("<script"));
    assert_eq!(escaped("a<b>&\"'"), "a&lt;b&gt;&amp;&quot;&#39;");
}

#[test]
fn no_cases_and_odd_figures_still_draw() {
    let empty = Report { cases: Vec::new(), ..sample() };
    let blank = Report {
        cases: vec![CaseResult::default(); 2],
        floors: crate::floors::Floors::default(),
        ..sample()
    };
    for report in [empty, blank] {
        let page = render(&report);
        assert_well_formed(&page);
        assert!(!page.contains("NaN") && !page.contains("inf"), "a figure fell off the scale");
    }
}

#[test]
fn warns_of_a_busy_machine_and_of_a_debug_build() {
    let mut report = sample();
    assert!(!render(&report).contains("class=\"warning\""));
    report.machine.load_1m = Some(1.7);
    report.debug_build = true;
    assert_eq!(render(&report).matches("class=\"warning\"").count(), 2);
}
