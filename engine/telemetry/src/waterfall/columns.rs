//! The waterfall's columns: how a width is shared out, and text cut or padded to one.
//!
//! Used by the waterfall alone. Widths count characters; wide and combining ones may shift a line, never break it.
//! This file must not know what stands in a column.

/// The widths of the columns; 0 for one that is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) name: usize,
    pub(super) total: usize,
    /// Each of the four parts of a hop.
    pub(super) part: usize,
    pub(super) bar: usize,
}

const FIGURE: usize = 9;
const BAR_MIN: usize = 10;
const BAR_MAX: usize = 60;
/// Room after the bar for an error's code.
const TAIL: usize = 19;
const NAME_MIN: usize = 16;

impl Layout {
    /// Shares out a width; the names want `name_wanted` of it.
    pub(super) fn new(width: usize, name_wanted: usize) -> Self {
        let name = |share: usize| name_wanted.clamp(NAME_MIN, share.max(NAME_MIN));
        if width >= 90 {
            let (figures, name) = (FIGURE * 5, name(width * 2 / 5));
            let bar = (width - TAIL).saturating_sub(name + figures + 2).clamp(BAR_MIN, BAR_MAX);
            Self { name, total: FIGURE, part: FIGURE, bar }
        } else if width >= 60 {
            let name = name(width / 2);
            let bar = (width - TAIL).saturating_sub(name + FIGURE + 2).max(BAR_MIN);
            Self { name, total: FIGURE, part: 0, bar }
        } else {
            Self { name: name(width.saturating_sub(FIGURE)), total: FIGURE, part: 0, bar: 0 }
        }
    }
}

pub(super) fn width(text: &str) -> usize {
    text.chars().count()
}

/// Cuts a text that is too long, and shows that it was cut.
pub(super) fn fit(text: &str, room: usize, ascii: bool) -> String {
    if width(text) <= room {
        return text.to_owned();
    }
    let end = if ascii { ".." } else { "…" };
    let kept = room.saturating_sub(width(end));
    text.chars().take(kept).chain(end.chars()).take(room).collect()
}

pub(super) fn pad_left(text: &str, to: usize) -> String {
    format!("{}{text}", " ".repeat(to.saturating_sub(width(text))))
}

pub(super) fn pad_right(text: &str, to: usize) -> String {
    format!("{text}{}", " ".repeat(to.saturating_sub(width(text))))
}
