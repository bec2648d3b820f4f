//! `web::scrape`, the worker in Rust: fetches a page and takes out what there is to read. It attaches natively, so that its
//! calls go through shared memory as far as they can. It must not know who asks.

use std::time::Duration;

use anyhow::Context as _;
use ringway::{Failure, Function, HandlerResult, Worker};
use schemars::JsonSchema;
use scraper::{ElementRef, Html, Selector};
use serde::{Deserialize, Serialize};

/// The longest page that is read, in bytes.
const PAGE_BYTES_MAX: u64 = 1 << 20;

#[derive(Deserialize, JsonSchema)]
struct Asked {
    /// Where the page is
    url: String,
}

#[derive(Debug, PartialEq, Serialize, JsonSchema)]
struct Page {
    url: String,
    title: String,
    /// The text of the article, without what stands around it
    paragraphs: Vec<String>,
}

/// Serves until told to leave.
pub(crate) fn serve() -> anyhow::Result<()> {
    let worker = Worker::connect("scraper")?;
    let agent = ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(10))).build();
    let agent = ureq::Agent::new_with_config(agent);
    let reader = Reader::new()?;
    let scrape = Function::json("web::scrape", move |_, asked: Asked| {
        let html = fetch(&agent, &asked.url)?;
        Ok(reader.read(asked.url, &html))
    });
    // It waits for others, so it runs on a thread of the pool.
    worker.register(scrape.description("Fetches a page and answers its title and text").pooled())?;
    Ok(ringway_example_stage::until_told_to_leave()?)
}

fn fetch(agent: &ureq::Agent, url: &str) -> HandlerResult<String> {
    let failed =
        |error: ureq::Error| Failure::with_code("page_unreachable", format!("{url} cannot be read: {error}"));
    let mut answer = agent.get(url).call().map_err(failed)?;
    answer.body_mut().with_config().limit(PAGE_BYTES_MAX).read_to_string().map_err(failed)
}

/// What of a page is read.
struct Reader {
    title: Selector,
    paragraphs: Selector,
}

impl Reader {
    fn new() -> anyhow::Result<Self> {
        let selector = |css: &'static str| {
            Selector::parse(css).ok().with_context(|| format!("`{css}` is no CSS selector"))
        };
        Ok(Self { title: selector("title")?, paragraphs: selector("article p")? })
    }

    fn read(&self, url: String, html: &str) -> Page {
        let page = Html::parse_document(html);
        let title = page.select(&self.title).map(text_of).next().unwrap_or_default();
        Page { url, title, paragraphs: page.select(&self.paragraphs).map(text_of).collect() }
    }
}

/// The text of an element, in one line.
fn text_of(element: ElementRef<'_>) -> String {
    let text: String = element.text().collect();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_page_the_article_is_read() {
        let html = "<title> Bees </title><nav><p>Menu</p></nav><article><script>no</script><p>They <a href=x>dance</a>,\n and \
                    &lt;fly&gt;.<p>Then home.</article><p>Footer";
        let page = Reader::new().unwrap().read("http://x/".to_owned(), html);
        assert_eq!((page.title.as_str(), page.url.as_str()), ("Bees", "http://x/"));
        assert_eq!(page.paragraphs, ["They dance, and <fly>.", "Then home."]);
    }
}
