//! Text by Markov's chain: which word follows which two, and walks along that (Shannon, "A Mathematical Theory of
//! Communication", 1948, section 3). It must not know who reads.

use std::collections::BTreeMap;

/// What follows each pair of words, as often as it did.
#[derive(Debug, Clone, Default)]
pub(crate) struct Chain {
    words: u64,
    last: Option<(String, String)>,
    next: BTreeMap<(String, String), Vec<String>>,
}

impl Chain {
    /// Goes on with a line.
    pub(crate) fn learn(&mut self, line: &str) {
        for word in line.split_whitespace().map(str::to_owned) {
            self.words += 1;
            self.last = Some(match self.last.take() {
                None => (String::new(), word),
                Some(pair) => {
                    let following = (pair.1.clone(), word.clone());
                    self.next.entry(pair).or_default().push(word);
                    following
                }
            });
        }
    }

    /// Counts the words learnt.
    pub(crate) fn words(&self) -> u64 {
        self.words
    }

    /// Walks along the chain without end, or not at all where nothing was learnt.
    pub(crate) fn text(&self, seed: u64) -> impl Iterator<Item = &str> {
        let pairs: Vec<&(String, String)> = self.next.keys().collect();
        // Sebastiano Vigna's splitmix64: small, and good enough to choose words.
        let mut state = seed;
        let mut choose = move |count: usize| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            usize::try_from((mixed ^ (mixed >> 31)) % count.max(1) as u64).unwrap_or(0)
        };
        let mut pair: Option<(&str, &str)> = None;
        std::iter::from_fn(move || {
            let next = pair.and_then(|(a, b)| self.next.get(&(a.to_owned(), b.to_owned())));
            let (before, word) = match (next, pair) {
                (Some(words), Some((_, last))) => (last, words[choose(words.len())].as_str()),
                // The end of what was learnt, or the beginning: anywhere.
                _ => {
                    let (a, b) = pairs.get(choose(pairs.len()))?;
                    (a.as_str(), b.as_str())
                }
            };
            pair = Some((before, word));
            Some(word)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_goes_where_the_text_went() {
        let mut chain = Chain::default();
        chain.learn("one two three");
        chain.learn("four five");
        assert_eq!(chain.words(), 5);
        let text: Vec<&str> = chain.text(3).take(12).collect();
        let known = ["one", "two", "three", "four", "five"];
        for pair in text.windows(2) {
            let place = |word: &str| known.iter().position(|known| *known == word).unwrap();
            assert!(
                pair[0] == "five" || pair[0] == "four" || place(pair[1]) == place(pair[0]) + 1,
                "{text:?}"
            );
        }
        assert_eq!(text, chain.text(3).take(12).collect::<Vec<_>>());
        assert_eq!(Chain::default().text(3).next(), None);
    }
}
