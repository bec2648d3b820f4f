//! The latest point of each figure that programs report, within a number of series and bytes. Used by the store alone. It must not know
//! what the figures mean.

use std::collections::HashMap;
use std::sync::Arc;

use ringway_protocol::WorkerId;
use serde::Serialize;

use crate::record::{FieldValue, WorkerIdentity};

/// How often series are looked through for old ones at most, in nanoseconds.
const SWEEP_PAUSE_NS: u64 = 1_000_000_000;

/// How old a series may be that gives way to a new one, in nanoseconds: programs report every minute.
const STALE_NS: u64 = 600_000_000_000;

/// What a figure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PointKind {
    /// What is.
    Gauge,
    /// What has come together.
    Sum,
    /// The sum of many, and how many.
    Histogram,
}

/// A point of a figure.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// Who reported it.
    pub worker: Arc<WorkerIdentity>,
    /// The figure's name.
    pub name: Arc<str>,
    /// What it is counted in.
    pub unit: String,
    /// What it is.
    pub kind: PointKind,
    /// When, `CLOCK_MONOTONIC` nanoseconds.
    pub time_ns: u64,
    /// How much.
    pub value: f64,
    /// Of how many it is the sum.
    pub count: Option<u64>,
    /// Named values that tell this series from others of the figure.
    pub attributes: Vec<(String, FieldValue)>,
}

/// A series: who, what, and its attributes as text.
type Key = (WorkerId, Arc<str>, String);

/// Estimates what a series costs; points of one series cost the same.
fn footprint(key: &Key, point: &Point) -> usize {
    let (_, name, attributes) = key;
    // The point has the attributes a second time.
    let listed = point.attributes.len() * size_of::<(String, FieldValue)>();
    size_of::<(Key, Point)>() + name.len() + 2 * attributes.len() + listed
}

#[derive(Debug)]
pub(super) struct Points {
    latest: HashMap<Key, Point>,
    bytes: usize,
    series_max: usize,
    bytes_max: usize,
    /// When old series were looked for last.
    swept_ns: Option<u64>,
}

impl Points {
    pub(super) fn new(series_max: usize, bytes_max: usize) -> Self {
        Self { latest: HashMap::new(), bytes: 0, series_max, bytes_max, swept_ns: None }
    }

    /// Puts in a point; says no where there are too many series, and none of them is old. Constant time, but for a walk over
    /// all series once a second when there is no room.
    pub(super) fn put(&mut self, point: Point) -> bool {
        let attributes = serde_json::to_string(&point.attributes).unwrap_or_default();
        let key = (point.worker.id, Arc::clone(&point.name), attributes);
        if !self.latest.contains_key(&key) {
            let needed = footprint(&key, &point);
            if !self.has_room(needed) {
                self.sweep(point.time_ns);
                if !self.has_room(needed) {
                    return false;
                }
            }
            self.bytes += needed;
        }
        self.latest.insert(key, point);
        true
    }

    fn has_room(&self, needed: usize) -> bool {
        self.latest.len() < self.series_max && self.bytes + needed <= self.bytes_max
    }

    fn sweep(&mut self, now_ns: u64) {
        if self.swept_ns.is_some_and(|swept_ns| now_ns < swept_ns.saturating_add(SWEEP_PAUSE_NS)) {
            return;
        }
        self.swept_ns = Some(now_ns);
        let oldest_ns = now_ns.saturating_sub(STALE_NS);
        self.latest.retain(|_, held| held.time_ns >= oldest_ns);
        self.bytes = self.latest.iter().map(|(key, point)| footprint(key, point)).sum();
    }

    pub(super) fn len(&self) -> usize {
        self.latest.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Point> {
        self.latest.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(series: i64, time_ns: u64, text_bytes: usize) -> Point {
        let (name, namespace) = (String::new(), String::new());
        let worker = WorkerIdentity { id: WorkerId::new(1), name, namespace, pid: 1, is_engine: false };
        Point {
            worker: Arc::new(worker),
            name: "figure".into(),
            unit: String::new(),
            kind: PointKind::Gauge,
            time_ns,
            value: 1.0,
            count: None,
            attributes: vec![
                ("series".to_owned(), FieldValue::I64(series)),
                ("text".to_owned(), FieldValue::Text("t".repeat(text_bytes))),
            ],
        }
    }

    #[test]
    fn series_keep_within_their_number_and_old_ones_give_way() {
        let mut points = Points::new(2, usize::MAX);
        assert!(points.put(point(1, 0, 0)) && points.put(point(2, STALE_NS, 0)));
        assert!(!points.put(point(3, STALE_NS, 0)), "none is old");
        assert!(points.put(point(2, STALE_NS + 5, 0)), "a series that is there");
        let later = STALE_NS + SWEEP_PAUSE_NS;
        assert!(points.put(point(3, later, 0)), "the first is old");
        assert!(!points.put(point(4, later, 0)));
        assert_eq!(points.len(), 2);
    }

    #[test]
    fn series_keep_within_their_bytes() {
        let mut points = Points::new(1000, 100_000);
        let taken = (0..1000).filter(|&series| points.put(point(series, 1, 8192))).count();
        assert!((3..10).contains(&taken), "{taken}");
        assert!(points.put(point(0, 2, 8192)), "a series that is there takes no more room");
        let later = STALE_NS + SWEEP_PAUSE_NS + 2;
        assert!(points.put(point(5000, later, 8192)), "all are old");
        assert!(points.len() == 1 && points.bytes < 100_000 / 3, "{}", points.bytes);
    }
}
