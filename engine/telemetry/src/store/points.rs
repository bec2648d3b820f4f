//! The latest point of each figure that programs report, within a number of series. Used by the store alone. It must not know
//! what the figures mean.

use std::collections::HashMap;
use std::sync::Arc;

use ringway_protocol::WorkerId;
use serde::Serialize;

use crate::record::{FieldValue, WorkerIdentity};

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

#[derive(Debug)]
pub(super) struct Points {
    latest: HashMap<Key, Point>,
    series_max: usize,
}

impl Points {
    pub(super) fn new(series_max: usize) -> Self {
        Self { latest: HashMap::new(), series_max }
    }

    /// Puts in a point; says no where there are too many series, and none of them is old. Constant time, but for a walk over
    /// all series when there is no room.
    pub(super) fn put(&mut self, point: Point) -> bool {
        let attributes = serde_json::to_string(&point.attributes).unwrap_or_default();
        let key = (point.worker.id, Arc::clone(&point.name), attributes);
        if self.latest.len() >= self.series_max && !self.latest.contains_key(&key) {
            let oldest_ns = point.time_ns.saturating_sub(STALE_NS);
            self.latest.retain(|_, held| held.time_ns >= oldest_ns);
            if self.latest.len() >= self.series_max {
                return false;
            }
        }
        self.latest.insert(key, point);
        true
    }

    pub(super) fn len(&self) -> usize {
        self.latest.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Point> {
        self.latest.values()
    }
}
